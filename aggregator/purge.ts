/** Step 5 of the protocol: what lies behind the watermark may go, when the log fills. */
import type { Log } from '../runtime/log.ts';
import { retry } from '../runtime/retry.ts';
import type { Measurements } from './measurements.ts';
import type { LogMark } from './log-mark.ts';
import type { PassedOver } from './passed-over.ts';
import type { ShardLog, Timing } from './ports.ts';
import { purgeBefore, type Watermark } from './watermark.ts';

export interface PurgeOptions {
  readonly log: Log;
  readonly measurements: Measurements;
  readonly keepBytes: number;
  readonly enabled: boolean;
  /** The stream is looked at again after this much more of it was counted. */
  readonly lookEveryBytes: number;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}

/** A full stream lets nothing in that could start another look, so a failed one is made again by itself. */
const RETRY = { attempts: 100, baseMs: 100, maxMs: 10_000 };

/** How far a shard is durable. */
export interface Durable {
  readonly watermark: Watermark;
  /** A message at the watermark or behind it, by which the log is recognized; null when there is none. */
  readonly last: LogMark | null;
  /** The holes that were passed over, in front of it. */
  readonly passedOver: PassedOver;
}

export class Purger {
  readonly #options: PurgeOptions;
  readonly #countedBytes = new Map<number, number>();
  readonly #running = new Set<number>();

  constructor(options: PurgeOptions) {
    this.#options = options;
  }

  /** Looks at the stream at the first watermark and then now and then. Never waits; a failure only delays. */
  onWatermark(shardLog: ShardLog, shard: number, durable: Durable, bytes: number): void {
    const { enabled, lookEveryBytes, timing, signal, log } = this.#options;
    const counted = (this.#countedBytes.get(shard) ?? lookEveryBytes) + bytes;
    this.#countedBytes.set(shard, counted);
    // As they are now: what is given may be a shard's state, which goes on while a purge is tried again.
    const { watermark, last, passedOver } = durable;
    if (!enabled || last === null || counted < lookEveryBytes || this.#running.has(shard)) return;
    this.#countedBytes.set(shard, 0);
    this.#running.add(shard);
    void retry(() => this.#purge(shardLog, shard, { watermark, last, passedOver }), {
      ...RETRY,
      timing,
      signal,
      retryable: () => !signal.aborted,
    })
      .catch((error: unknown) => log.warn({ error, shard }, 'the log was not purged'))
      .finally(() => this.#running.delete(shard));
  }

  async #purge(
    shardLog: ShardLog,
    shard: number,
    { watermark, last, passedOver }: Durable & { readonly last: LogMark },
  ): Promise<void> {
    const { sequence, streamCreated: created } = watermark;
    const { keepBytes, log, measurements } = this.#options;
    const size = await shardLog.size();
    const before = purgeBefore(size, sequence, keepBytes);
    if (before <= size.firstSequence) return;
    // In a log that was cut back or made anew and has grown again, other messages may stand there that nobody has
    // counted, or even the same one at the same place: sent again behind others. And a hole that was passed over may be
    // filled again.
    const again = await passedOver.firstNew(shardLog);
    const lacks = await passedOver.empty(shardLog);
    const purged = again === null ? await shardLog.purge(before, { created, has: last, lacks }) : null;
    if (purged === null) {
      log.warn(
        { shard, sequence },
        'the log is not purged: it is not the one that was counted, or has messages again that it lacked',
      );
      return;
    }
    measurements.purged.inc(purged);
    log.info({ shard, before, purged }, 'purged the log behind the watermark');
  }
}
