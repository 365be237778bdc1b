/**
 * Releases blocks that are durably counted, as the aggregators' watermark records say it, and as far as they
 * speak of the log that is there: a record counts only if the log holds, at the record's sequence, the message
 * that the record names. One comparison at a time for each shard, and only when something would be released.
 */
import { createHash } from 'node:crypto';
import type { WatermarkRecord } from '../../contract/notice.ts';
import type { Log } from '../../runtime/log.ts';
import type { Journal } from './journal.ts';
import type { LogStanding } from './log-standing.ts';

export interface ReleaseOptions {
  readonly journal: Journal;
  readonly log: Log;
  /** The message that the shard's log holds there now, null when it holds none. */
  messageAt(shard: number, sequence: number): Promise<Uint8Array | null>;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

const COMPARE_AGAIN_MS = 1_000;

/** Of one shard. */
export class Releases {
  readonly #standing: LogStanding;
  readonly #o: ReleaseOptions;
  #record: WatermarkRecord | null = null;
  /** The record that was found not to be of this log, and in which epoch. */
  #refuted: { readonly record: WatermarkRecord; readonly epoch: number } | null = null;
  #comparing = false;
  #stopAgain: () => void = () => {};
  #stopped = false;

  constructor(standing: LogStanding, options: ReleaseOptions) {
    this.#standing = standing;
    this.#o = options;
  }

  /** The newest entry of the bucket; null when it was deleted. */
  onRecord(record: WatermarkRecord | null): void {
    // One of a lower incarnation is from an older state of the bucket: the last one stays.
    if (record !== null && !this.#standing.sawIncarnation(record.incarnation)) return;
    this.#record = record;
    this.look();
  }

  onAcknowledged(sequence: number): void {
    if (this.#record !== null && sequence <= this.#record.sequence) this.look();
  }

  /** Releases what the record vouches for, if there is anything. */
  look(): void {
    if (!this.#comparing && this.#worthComparing() !== null) void this.#compare();
  }

  stop(): void {
    this.#stopped = true;
    this.#stopAgain();
  }

  #worthComparing(): WatermarkRecord | null {
    const record = this.#record;
    const { shard, epoch, connected } = this.#standing;
    if (record === null || this.#stopped || !connected) return null;
    // It tells of an incarnation that has read nothing yet, and vouches for nothing.
    if (record.fingerprint === '') return null;
    if (this.#refuted?.record === record && this.#refuted.epoch === epoch) return null;
    return this.#o.journal.index.lowestAcknowledged(shard) <= record.sequence ? record : null;
  }

  async #compare(): Promise<void> {
    const { journal, log } = this.#o;
    const { shard } = this.#standing;
    this.#comparing = true;
    try {
      for (let record = this.#worthComparing(); record !== null; record = this.#worthComparing()) {
        const { epoch } = this.#standing;
        const message = await this.#o.messageAt(shard, record.sequence);
        // The answer is of a log that is in doubt now.
        if (epoch !== this.#standing.epoch) continue;
        if (message !== null && fingerprintOf(message) === record.fingerprint) {
          journal.index.releaseUpTo(shard, record.sequence);
          journal.tidy();
        } else {
          this.#refuted = { record, epoch };
          const { sequence } = record;
          log.warn(
            { shard, sequence, found: message !== null },
            'the watermark is not of the log that is there',
          );
        }
      }
    } catch (error) {
      log.debug({ error, shard }, 'the watermark could not be compared with the log');
      this.#stopAgain();
      this.#stopAgain = this.#o.after(COMPARE_AGAIN_MS, () => this.look());
    } finally {
      this.#comparing = false;
    }
  }
}

function fingerprintOf(message: Uint8Array): string {
  return createHash('sha256').update(message).digest('hex');
}
