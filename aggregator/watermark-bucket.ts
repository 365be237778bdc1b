/**
 * Tells the edges how far each shard is durable, so that they can forget what they keep for it.
 *
 * It is a hint and never in anybody's way: only the newest watermark of a shard is told, at most four times a
 * second, and one that cannot be told is told later, or a newer one instead. After every new connection all are
 * told again, because the broker may have come back with an earlier state of the bucket.
 */
import type { WatermarkRecord } from '../contract/notice.ts';
import { backoffMs } from '../runtime/backoff.ts';
import type { Log } from '../runtime/log.ts';
import type { Timing, WatermarkBoard } from './ports.ts';
import type { Watermark } from './watermark.ts';

const FIRST_INCARNATION = 1;
const PUT_EVERY_MS = 250;
const RETRY = { baseMs: 500, maxMs: 5_000 };
/** Of failures in a row one is a warning each minute, the others are for debugging. */
const WARN_EVERY_MS = 60_000;

export interface WatermarkBucketOptions {
  readonly log: Log;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}

export class WatermarkBucket {
  readonly #board: WatermarkBoard;
  readonly #options: WatermarkBucketOptions;
  /** By shard. */
  readonly #newest = new Map<number, WatermarkRecord>();
  readonly #untold = new Set<number>();
  readonly #telling = new Set<number>();
  #warnedMs = -Infinity;

  constructor(board: WatermarkBoard, options: WatermarkBucketOptions) {
    this.#board = board;
    this.#options = options;
    const forget = board.onForgotten(() => {
      for (const shard of this.#newest.keys()) this.#begin(shard);
    });
    options.signal.addEventListener('abort', forget, { once: true });
  }

  /** Returns at once, and never throws. */
  tell(shard: number, { incarnation, sequence, fingerprint }: Watermark): void {
    // Behind no message there is nothing to forget. But a new incarnation of a log that has nothing in it must be told:
    // until then the edges believe that what the old one acknowledged is in it, and send it only with the next event.
    if (fingerprint === '' && incarnation === FIRST_INCARNATION) return;
    this.#newest.set(shard, { shard, incarnation, sequence, fingerprint });
    this.#begin(shard);
  }

  /** Another process tells of the shard from now on. */
  forget(shard: number): void {
    this.#newest.delete(shard);
    this.#untold.delete(shard);
  }

  #begin(shard: number): void {
    this.#untold.add(shard);
    if (this.#telling.has(shard)) return;
    this.#telling.add(shard);
    void this.#run(shard);
  }

  async #run(shard: number): Promise<void> {
    const { timing, signal } = this.#options;
    for (let failures = 0; !signal.aborted && this.#untold.delete(shard);) {
      try {
        const record = JSON.stringify(this.#newest.get(shard));
        await this.#board.put(shard, record);
        failures = 0;
        await timing.sleep(PUT_EVERY_MS, signal);
      } catch (error) {
        if (this.#newest.has(shard)) this.#untold.add(shard);
        this.#complain(error, shard);
        const moreMs = backoffMs(failures++, RETRY, () => timing.random());
        await timing.sleep(PUT_EVERY_MS + moreMs, signal);
      }
    }
    this.#telling.delete(shard);
  }

  #complain(error: unknown, shard: number): void {
    const { log, timing, signal } = this.#options;
    if (signal.aborted) return;
    const nowMs = timing.elapsedMs();
    const told = nowMs - this.#warnedMs < WARN_EVERY_MS;
    if (!told) this.#warnedMs = nowMs;
    log[told ? 'debug' : 'warn']({ error, shard }, 'the edges cannot be told the watermark yet');
  }
}
