/** Step 5 of the protocol: what lies behind the watermark may go, when the log fills. */
import { streamName } from '../contract/subjects.ts';
import type { Log } from '../runtime/log.ts';
import type { NatsLink } from '../runtime/nats.ts';
import { retry } from '../runtime/retry.ts';
import type { Measurements } from './measurements.ts';
import { messageAt } from './log-mark.ts';
import { fingerprintOf, purgeBefore, type Watermark } from './watermark.ts';

export interface PurgeOptions {
  readonly log: Log;
  readonly measurements: Measurements;
  readonly keepBytes: number;
  readonly enabled: boolean;
  /** The stream is looked at again after this much more of it was counted. */
  readonly lookEveryBytes: number;
  readonly signal: AbortSignal;
}

/** A full stream lets nothing in that could start another look, so a failed one is made again by itself. */
const RETRY = { attempts: 100, baseMs: 100, maxMs: 10_000 };

export class Purger {
  readonly #link: NatsLink;
  readonly #options: PurgeOptions;
  readonly #countedBytes = new Map<number, number>();
  readonly #running = new Set<number>();

  constructor(link: NatsLink, options: PurgeOptions) {
    this.#link = link;
    this.#options = options;
  }

  /** Looks at the stream at the first watermark and then now and then. Never waits; a failure only delays. */
  onWatermark(shard: number, watermark: Watermark, bytes: number): void {
    const { enabled, lookEveryBytes, signal, log } = this.#options;
    const counted = (this.#countedBytes.get(shard) ?? lookEveryBytes) + bytes;
    this.#countedBytes.set(shard, counted);
    if (!enabled || counted < lookEveryBytes || this.#running.has(shard)) return;
    this.#countedBytes.set(shard, 0);
    this.#running.add(shard);
    void retry(() => this.#purge(shard, watermark), { ...RETRY, signal, retryable: () => !signal.aborted })
      .catch((error: unknown) => log.warn({ error, shard }, 'the log was not purged'))
      .finally(() => this.#running.delete(shard));
  }

  async #purge(shard: number, { sequence, fingerprint }: Watermark): Promise<void> {
    const { keepBytes, log, measurements } = this.#options;
    const name = streamName(shard);
    const { state, config } = await this.#link.jsm.streams.info(name);
    const stream = { bytes: state.bytes, bytesMax: config.max_bytes, messages: state.messages };
    const before = purgeBefore(stream, sequence, keepBytes);
    if (before <= state.first_seq) return;
    // In a log that was cut back and has grown again, other messages may stand there that nobody has counted.
    const last = await messageAt(this.#link, name, sequence);
    if (last === null || fingerprintOf(last.message) !== fingerprint) {
      log.warn(
        { shard, sequence },
        'the log is not purged: the message at the watermark is not the one counted',
      );
      return;
    }
    const { purged } = await this.#link.jsm.streams.purge(name, { seq: before });
    measurements.purged.inc(purged);
    log.info({ shard, before, purged }, 'purged the log behind the watermark');
  }
}
