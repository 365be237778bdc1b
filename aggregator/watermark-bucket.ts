/**
 * Tells the edges how far each shard is durable, so that they can forget what they keep for it.
 *
 * It is a hint and never in anybody's way: only the newest watermark of a shard is told, at most four times a
 * second, and one that cannot be told is told later, or a newer one instead. After every new connection all are
 * told again, because the broker may have come back with an earlier state of the bucket.
 */
import type { WatermarkRecord } from '../contract/notice.ts';
import { BUCKET_WATERMARKS } from '../contract/subjects.ts';
import { backoffMs } from '../runtime/backoff.ts';
import type { Log } from '../runtime/log.ts';
import { openKeyValue, type KeyValue, type NatsLink } from '../runtime/nats.ts';
import { sleep } from '../runtime/retry.ts';
import type { Watermark } from './watermark.ts';

const PUT_EVERY_MS = 250;
const RETRY = { baseMs: 500, maxMs: 5_000 };
/** Of failures in a row one is a warning each minute, the others are for debugging. */
const WARN_EVERY_MS = 60_000;
/** A record takes some 250 bytes in its stream, and there are at most 1,024 shards. */
const BUCKET_BYTES_MAX = 1024 ** 2;

export interface WatermarkBucketOptions {
  readonly log: Log;
  readonly replicas: number;
  readonly signal: AbortSignal;
}

export class WatermarkBucket {
  readonly #link: NatsLink;
  readonly #options: WatermarkBucketOptions;
  /** By shard. */
  readonly #newest = new Map<number, WatermarkRecord>();
  readonly #untold = new Set<number>();
  readonly #telling = new Set<number>();
  #bucket: Promise<KeyValue> | undefined;
  #warnedMs = -Infinity;

  constructor(link: NatsLink, options: WatermarkBucketOptions) {
    this.#link = link;
    this.#options = options;
    const forget = link.onConnection((connected) => {
      if (connected) for (const shard of this.#newest.keys()) this.#begin(shard);
    });
    options.signal.addEventListener('abort', forget, { once: true });
  }

  /** Returns at once, and never throws. */
  tell(shard: number, { incarnation, sequence, fingerprint }: Watermark): void {
    // Behind no message there is nothing to forget.
    if (fingerprint === '') return;
    this.#newest.set(shard, { shard, incarnation, sequence, fingerprint });
    this.#begin(shard);
  }

  #begin(shard: number): void {
    this.#untold.add(shard);
    if (this.#telling.has(shard)) return;
    this.#telling.add(shard);
    void this.#run(shard);
  }

  async #run(shard: number): Promise<void> {
    const { signal } = this.#options;
    for (let failures = 0; !signal.aborted && this.#untold.delete(shard);) {
      try {
        const record = JSON.stringify(this.#newest.get(shard));
        await (await this.#open()).put(String(shard), record);
        failures = 0;
        await sleep(PUT_EVERY_MS, signal);
      } catch (error) {
        this.#untold.add(shard);
        this.#bucket = undefined;
        this.#complain(error, shard);
        await sleep(PUT_EVERY_MS + backoffMs(failures++, RETRY, Math.random), signal);
      }
    }
    this.#telling.delete(shard);
  }

  /** The bucket, opened again after a failure: it may be gone. */
  #open(): Promise<KeyValue> {
    const { replicas } = this.#options;
    this.#bucket ??= openKeyValue(this.#link, BUCKET_WATERMARKS, { maxBytes: BUCKET_BYTES_MAX, replicas });
    return this.#bucket;
  }

  #complain(error: unknown, shard: number): void {
    const { log, signal } = this.#options;
    if (signal.aborted) return;
    const nowMs = performance.now();
    const told = nowMs - this.#warnedMs < WARN_EVERY_MS;
    if (!told) this.#warnedMs = nowMs;
    log[told ? 'debug' : 'warn']({ error, shard }, 'the edges cannot be told the watermark yet');
  }
}
