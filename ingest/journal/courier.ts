/**
 * Brings blocks into the log by way of the edge journal: a block is promised when it is on this machine's disk,
 * and is sent until it is known to be counted.
 *
 * The promise.
 *   1. A block is appended to the journal (journal.ts) and published, at the same time.
 *   2. The promise is kept (202) when the block is synced, and the log has acknowledged it *or cannot now*: the
 *      connection is gone, the log is full, nobody takes messages, or it has been silent for longer than an
 *      acknowledgement may take. So normally two machines have it, and without NATS this one has. What waits
 *      when a log is found silent is let go at once, and what comes after does not wait for it: it is published
 *      from the journal later.
 *   3. When the journal cannot take the block (its bound is reached, the disk fails), the acknowledgement alone
 *      decides, as without a journal. Without it nothing is promised.
 *
 * Until it is counted.
 *   4. A block stays until an aggregator has counted it durably. That is known when the watermark record of its
 *      shard is at or behind the sequence at which the block was acknowledged, *and* the record speaks of the
 *      log that is there now: the message that the log holds at the record's sequence has the record's
 *      fingerprint (releases.ts). A log that was cut back gives the same sequences to other messages, and its
 *      bucket of records may be older or newer than the log. A message is published once (a repeat is stamped,
 *      resend-stamp.ts), so the same message at the same sequence has the same log before it.
 *   5. An acknowledgement counts only as long as the log is beyond doubt (log-standing.ts). It is in doubt, and
 *      every block of the shard that is not released is sent again,
 *        - when the connection was lost: behind it may be another server, or the same with less;
 *        - when a record has a higher incarnation: an aggregator found that the log had lost something. This is
 *          also how one learns of it when the connection held, in a cluster. A record with a lower incarnation
 *          than one seen before is from an older state of the bucket, and is ignored;
 *        - when a block is acknowledged at a sequence that is not above one acknowledged before it was sent.
 *   6. What waits is sent from the journal's files, oldest first, in a bounded part of the pipeline (resends.ts).
 *      A log that took nothing is tried again with one block after a backoff, and there is no last attempt.
 *   7. Nothing is counted twice: identities make a repeat harmless. When in doubt, it is sent again.
 *
 * What a crash leaves: the journal's files. The next start sends every block in them (journal-recovery.ts).
 *
 * What stays open: in a cluster a log can be cut back while this connection stands and before any aggregator has
 * read what was lost, and then grow beyond it. Nothing tells the edge of that, and it may release what was lost.
 * It takes the loss of a majority of the log's replicas, or a log without replicas on another server than the
 * one that the edge is connected to.
 */
import type { WatermarkRecord } from '../../contract/notice.ts';
import type { Log } from '../../runtime/log.ts';
import type { PublishAck } from '../../runtime/nats.ts';
import { Delivery, type DeliveryOwner } from './delivery.ts';
import type { Journal } from './journal.ts';
import type { Place } from './journal-index.ts';
import type { JournalMeasures } from './journal-measures.ts';
import { isRefusal, LogStanding } from './log-standing.ts';
import { Releases } from './releases.ts';
import { Resends } from './resends.ts';

export interface CourierOptions {
  readonly journal: Journal;
  readonly shards: number;
  /** What blocks from the journal may have in flight; new blocks have the rest of the pipeline. */
  readonly resendsInFlightMax: number;
  readonly resendBytesInFlightMax: number;
  readonly log: Log;
  readonly measures: JournalMeasures;
  /** Rejects with a PublishError. */
  publish(shard: number, block: Uint8Array): Promise<PublishAck>;
  /** Whether a publish would be refused now for want of room in the pipeline. */
  full(): boolean;
  /** The message that the shard's log holds there now, null when it holds none. */
  messageAt(shard: number, sequence: number): Promise<Uint8Array | null>;
  /** [0, 1). */
  random(): number;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

interface Shard {
  readonly standing: LogStanding;
  readonly releases: Releases;
  /** New blocks that were published and not answered. */
  readonly underWay: Set<Delivery>;
}

export class Courier implements DeliveryOwner {
  readonly #o: CourierOptions;
  readonly #shards: readonly Shard[];
  readonly #resends: Resends;
  /** The logs were looked at since the connection stands. */
  #connected = false;
  #onQuiet: (() => void)[] = [];

  constructor(options: CourierOptions) {
    this.#o = options;
    const { index } = options.journal;
    this.#shards = Array.from({ length: options.shards }, (_, number) => {
      const standing = new LogStanding(number, {
        index,
        log: options.log,
        measures: options.measures,
        random: () => options.random(),
        after: (ms, run) => options.after(ms, run),
        onAway: (shard) => this.#letGo(this.#shards[shard]!),
        onChance: () => this.#wake(),
      });
      return { standing, releases: new Releases(standing, options), underWay: new Set<Delivery>() };
    });
    this.#resends = new Resends({
      ...options,
      standings: this.#shards.map(({ standing }) => standing),
      publish: (shard, block) => options.publish(shard, block),
      full: () => options.full(),
      random: () => options.random(),
      onAcknowledged: (place, sequence) => this.#acknowledged(place, sequence),
      onIdle: () => this.#tellIfQuiet(),
    });
    options.measures.watchShards(() => this.#shards.filter(({ standing }) => !standing.takes).length);
  }

  /**
   * Resolves when the block is promised, as told above. Rejects with a JournalError of kind `full` when neither
   * the journal nor the log takes it, else with the reason that the log gave.
   */
  publish(shard: number, block: Uint8Array, events: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const delivery = new Delivery(this, { shard, bytes: block, events }, resolve, reject);
      if (this.#shards[shard]!.standing.takes && !this.#o.full()) void this.#publish(delivery);
      this.#o.journal.append(delivery);
    });
  }

  /** The connection is lost: every log is in doubt. */
  suspend(): void {
    if (!this.#connected) return;
    this.#connected = false;
    for (const shard of this.#shards) {
      shard.standing.suspend();
      this.#letGo(shard);
    }
    this.#tellIfQuiet();
  }

  /** The connection stands, and so do the logs. */
  resume(): void {
    if (this.#connected) return;
    this.#connected = true;
    for (const { standing } of this.#shards) standing.resume();
    this.#wake();
  }

  /** Whether something that was promised may be in the journal alone. */
  get owesLog(): boolean {
    const { index } = this.#o.journal;
    return this.#shards.some(({ standing }) => !standing.takes || index.waitingOf(standing.shard) > 0);
  }

  /** An entry of the bucket of watermarks; null when it was deleted. */
  onWatermark(shard: number, record: WatermarkRecord | null): void {
    this.#shards[shard]?.releases.onRecord(record);
    this.#wake();
  }

  /**
   * Resolves when everything given is synced, and everything in the journal that can be sent is acknowledged; or
   * when the time is over. Then it sends no more.
   */
  async stop(withinMs: number): Promise<void> {
    await this.#o.journal.idle();
    if (!this.#quiet()) {
      await new Promise<void>((resolve) => {
        const cancel = this.#o.after(withinMs, resolve);
        this.#onQuiet.push(() => {
          cancel();
          resolve();
        });
      });
    }
    this.#resends.stop();
    for (const { standing, releases } of this.#shards) {
      standing.stop();
      releases.stop();
    }
  }

  onKept(delivery: Delivery, place: Place): void {
    const { standing } = this.#shards[delivery.shard]!;
    const { log, hold, sequence } = delivery;
    // Nothing is promised of a block that the log refuses for good.
    if (log === 'refused') this.#o.journal.index.release(place);
    else if (log === 'acknowledged' && sequence > 0 && standing.isCurrent(hold!)) {
      this.#acknowledged(place, sequence);
    } else if (log !== 'under way' || !standing.isCurrent(hold!)) {
      this.#wait(place);
    }
    delivery.settle(standing.takes);
  }

  onNotKept(delivery: Delivery): void {
    // The log alone can promise it now, so it is asked even if it took nothing lately.
    if (delivery.log === 'not asked') void this.#publish(delivery);
    delivery.settle(true);
  }

  async #publish(delivery: Delivery): Promise<void> {
    const { standing, underWay } = this.#shards[delivery.shard]!;
    const hold = standing.publishing();
    delivery.log = 'under way';
    delivery.hold = hold;
    underWay.add(delivery);
    try {
      const { sequence } = await this.#o.publish(delivery.shard, delivery.block);
      delivery.log = 'acknowledged';
      if (standing.acknowledged(hold, sequence)) {
        delivery.sequence = sequence;
        // The log may have come into doubt by this very answer, which counts all the same.
        delivery.hold = { ...hold, epoch: standing.epoch };
        if (delivery.place !== null) this.#acknowledged(delivery.place, sequence);
      }
    } catch (error) {
      delivery.log = isRefusal(error) ? 'refused' : 'cannot';
      delivery.failure = error;
      // First, so that the block is not sent again at once.
      standing.failed(hold, error);
      if (delivery.place !== null && standing.isCurrent(hold)) {
        if (delivery.log === 'refused') this.#o.journal.index.release(delivery.place);
        else this.#wait(delivery.place);
      }
    }
    underWay.delete(delivery);
    delivery.settle(standing.takes);
    this.#wake();
  }

  /** Nothing waits any longer for the answers of a log that takes nothing. */
  #letGo({ underWay }: Shard): void {
    for (const delivery of underWay) delivery.settle(false);
  }

  #acknowledged(place: Place, sequence: number): void {
    this.#o.journal.index.acknowledged(place, sequence);
    this.#shards[place.segment.shards[place.at]!]!.releases.onAcknowledged(sequence);
  }

  #wait(place: Place): void {
    this.#o.journal.index.waitingAgain(place);
    this.#wake();
  }

  #wake(): void {
    this.#resends.wake();
    this.#tellIfQuiet();
  }

  /** Whether nothing is on its way, and nothing waits that could be sent. */
  #quiet(): boolean {
    const { index } = this.#o.journal;
    return (
      this.#resends.idle &&
      this.#shards.every(
        ({ standing, underWay }) =>
          underWay.size === 0 && (!standing.takes || index.waitingOf(standing.shard) === 0),
      )
    );
  }

  #tellIfQuiet(): void {
    if (this.#onQuiet.length === 0 || !this.#quiet()) return;
    for (const tell of this.#onQuiet.splice(0)) tell();
  }
}
