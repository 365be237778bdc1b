/**
 * Sends blocks from the journal: those that waited for a log, those whose acknowledgement is in doubt, and those
 * that an earlier process left.
 *
 * Oldest first over all shards whose log takes blocks, so that the files are read in their order, a window at a
 * time; a block is in memory only while it is in flight. They share the pipeline with new blocks: at every
 * answer the next of them is sent before a new block can take its room, but together they fill a part of it only.
 */
import type { Log } from '../../runtime/log.ts';
import type { PublishAck } from '../../runtime/nats.ts';
import type { Journal } from './journal.ts';
import type { Place } from './journal-index.ts';
import type { JournalMeasures } from './journal-measures.ts';
import { isRefusal, type LogStanding } from './log-standing.ts';
import { stampResend } from './resend-stamp.ts';

export interface ResendOptions {
  readonly journal: Journal;
  readonly standings: readonly LogStanding[];
  /** In flight at a time. */
  readonly resendsInFlightMax: number;
  readonly resendBytesInFlightMax: number;
  readonly log: Log;
  readonly measures: JournalMeasures;
  /** Rejects with a PublishError. */
  publish(shard: number, block: Uint8Array): Promise<PublishAck>;
  /** Whether a publish would be refused now for want of room in the pipeline. */
  full(): boolean;
  /** [0, 1). */
  random(): number;
  onAcknowledged(place: Place, sequence: number): void;
  /** Nothing is being read or sent. */
  onIdle(): void;
}

export class Resends {
  readonly #o: ResendOptions;
  #sending = false;
  #stopped = false;
  #inFlight = 0;
  #bytesInFlight = 0;

  constructor(options: ResendOptions) {
    this.#o = options;
  }

  get idle(): boolean {
    return !this.#sending && this.#inFlight === 0;
  }

  stop(): void {
    this.#stopped = true;
  }

  /** There may be something to send, or room for it. */
  wake(): void {
    if (!this.#sending && this.#next() !== null) void this.#send();
  }

  /** As long as there is something to send and room for it. */
  async #send(): Promise<void> {
    this.#sending = true;
    for (let place = this.#next(); place !== null; place = this.#next()) await this.#resend(place);
    this.#sending = false;
    if (this.idle) this.#o.onIdle();
  }

  #next(): Place | null {
    const { resendsInFlightMax, resendBytesInFlightMax, journal, standings } = this.#o;
    const room = this.#inFlight < resendsInFlightMax && this.#bytesInFlight < resendBytesInFlightMax;
    if (this.#stopped || journal.index.waiting === 0 || !room || this.#o.full()) return null;
    let oldest: Place | null = null;
    for (const { shard, mayTry } of standings) {
      const place = mayTry ? journal.index.oldestWaiting(shard) : null;
      if (place !== null && (oldest === null || isBefore(place, oldest))) oldest = place;
    }
    return oldest;
  }

  async #resend(place: Place): Promise<void> {
    const { index } = this.#o.journal;
    const standing = this.#o.standings[place.segment.shards[place.at]!]!;
    index.sent(place);
    const asked = standing.publishing();
    const block = await this.#readBack(place);
    // In doubt in between: it waits again, and its turn comes again.
    if (!standing.isCurrent(asked)) return;
    if (block === null || this.#stopped) {
      if (block === null) index.setAside(place);
      else index.waitingAgain(place);
      return standing.returned();
    }
    stampResend(block, () => this.#o.random());
    this.#o.measures.resent();
    this.#inFlight += 1;
    this.#bytesInFlight += block.length;
    void this.#publish(standing, place, block);
  }

  async #publish(standing: LogStanding, place: Place, block: Uint8Array): Promise<void> {
    const hold = standing.publishing();
    try {
      const { sequence } = await this.#o.publish(standing.shard, block);
      if (standing.acknowledged(hold, sequence)) this.#o.onAcknowledged(place, sequence);
    } catch (error) {
      if (standing.isCurrent(hold)) {
        if (isRefusal(error)) this.#setAside(place, error);
        else this.#o.journal.index.waitingAgain(place);
      }
      standing.failed(hold, error);
    }
    this.#inFlight -= 1;
    this.#bytesInFlight -= block.length;
    this.wake();
    if (this.idle) this.#o.onIdle();
  }

  /** Null when the disk does not give it back. */
  async #readBack(place: Place): Promise<Uint8Array | null> {
    const { journal, log, measures } = this.#o;
    let error: unknown;
    try {
      const block = await journal.read(place);
      if (block !== null) return block;
    } catch (caught) {
      error = caught;
    }
    log.error(
      { error, segment: place.segment.number, record: place.at },
      'a block of the edge journal cannot be read: its events were promised and may not be in the log',
    );
    measures.damaged(1);
    return null;
  }

  /** It was promised, so it is not given up; but it must not hold up the others. */
  #setAside(place: Place, error: unknown): void {
    const { segment, at } = place;
    this.#o.log.error(
      { error, segment: segment.number, record: at, bytes: segment.lengths[at] },
      'the server refuses a block of the edge journal for good: is its max_payload too low? It is tried again ' +
        'after the connection was lost, or a restart',
    );
    this.#o.journal.index.setAside(place);
  }
}

function isBefore(a: Place, b: Place): boolean {
  return a.segment.number < b.segment.number || (a.segment === b.segment && a.at < b.at);
}
