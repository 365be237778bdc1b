/**
 * Counts one shard: takes its log in order, prepares blocks in workers, decides verdicts.
 *
 * The whole protocol of a shard, of which this file does 2 and 3, incarnation.ts and recover.ts do 0, read-shard.ts
 * does 1 and flush-steps.ts does 4 and 5:
 *
 * 0. Start. The watermark in ClickHouse says up to where the log is durably counted, and of which log. If the
 *    stream is not that log any more, a new incarnation begins, or going on would skip events in silence. Meters,
 *    counters and the dedupe index are loaded from the tables, which know everything that was counted, also what
 *    a crashed flush wrote beyond the watermark.
 * 1. Read. From the message behind the watermark, in order, without acknowledgements: the broker's consumer
 *    state is no truth. Whenever reading begins anew, the log is compared with what was read of it.
 * 2. Prepare and decide (verdict.ts). A meter definition holds for the blocks behind it. Blocks are prepared in
 *    parallel, several at a time (prepare-queue.ts), and decided in order. A message that nobody can decode is kept
 *    whole as one refused row, and its neighbours count. A duplicate has an entry at a smaller position of the log,
 *    and a correction counts if the event that it names has one. The same position is the event's own replay, so
 *    reading anything twice decides the same twice.
 * 3. Lost. When the log turns out to be another, or has a hole, what was read is decided and made durable, and
 *    then step 0 is done again in place, which begins a new incarnation.
 * 4. Fold (fold.ts) and flush. Contributions go into absolute totals; what lies at or below a row's position is in
 *    it already. Rows from which a correction takes something out are made anew from raw rows instead (recount.ts).
 *    Marks, meters and raw rows, then what is derived from them, then the watermark. Every row's version is a
 *    position, so whatever a crash left of a flush, doing it again ends in the same rows.
 * 5. Forget. Only what lies behind the watermark may be purged from the log, and only when it fills.
 */
import { BlockError, messageKind } from '../contract/block.ts';
import {
  decodeBackfillChanged,
  decodeMeterDefined,
  type BackfillChanged,
  type MeterDefined,
} from '../contract/control.ts';
import { MESSAGE_BACKFILL, MESSAGE_EVENTS, MESSAGE_METER } from '../contract/subjects.ts';
import { VERDICTS } from '../contract/verdicts.ts';
import type { Log } from '../runtime/log.ts';
import type { Backlog } from './backlog.ts';
import { DedupeIndex } from './dedupe/index.ts';
import { eventsOf } from './flush-batch.ts';
import type { LogMark } from './log-mark.ts';
import type { Measurements } from './measurements.ts';
import type { ShardLog, Timing } from './ports.ts';
import { positionInShard } from './position-in-shard.ts';
import type { PrepareAnswer } from './prepare-answers.ts';
import { PrepareQueue, type Asked } from './prepare-queue.ts';
import type { Prepared } from './prepare.ts';
import { LogLostError, readShard, type ReadMessage } from './read-shard.ts';
import type { RecountNeeded } from './recount.ts';
import type { Recovered } from './recover.ts';
import type { Slot } from './slots.ts';
import { decideBlock, oldestOriginal, unknownIn, unknownTargets } from './verdict.ts';
import type { Watermark } from './watermark.ts';
import type { Workers } from './workers.ts';

interface Read extends LogMark {
  /** What it takes of the backlog, its fixed share included. */
  readonly bytes: number;
  /** The slot that it lies in and is held for it; null where it has memory of its own. */
  readonly slot: Slot | null;
}

/**
 * A message of the log that is ready to be made durable. `recount` says what has to be made anew behind it, null for
 * nothing: counted corrections ask for it, and so may a control message that changes what earlier events add. Whatever
 * it is, the flush that the message is in makes all of it from raw rows, at its end.
 *
 * The flush that takes it lets its slot go when its rows are encoded: from then on nobody may read its block.
 */
export type Decided = Read & { readonly recount: RecountNeeded | null } & (
    | {
        readonly kind: 'events';
        readonly message: Uint8Array;
        readonly prepared: Prepared;
        readonly verdicts: Uint8Array;
        /** Events by the number of their verdict. */
        readonly counts: readonly number[];
      }
    | Control
    | { readonly kind: 'unreadable'; readonly message: Uint8Array }
  );

/** A control message, and what it changed; null when that is nothing. */
type Control =
  | { readonly kind: 'meter'; readonly message: Uint8Array; readonly defined: MeterDefined | null }
  | { readonly kind: 'backfill'; readonly message: Uint8Array; readonly changed: BackfillChanged | null };

/** A message that was read and is not decided: a block that was given to the threads, or what else it is. */
interface Arrived extends LogMark, Asked {
  readonly messageBytes: number;
  /** What it takes of the backlog. */
  readonly bytes: number;
  other: Other | null;
}
type Other = Control | Extract<PrepareAnswer, { kind: 'unreadable' }>;

export interface ConsumerOptions {
  readonly shardLog: ShardLog;
  readonly timing: Timing;
  readonly workers: Workers;
  readonly backlog: Backlog;
  readonly measurements: Measurements;
  readonly log: Log;
  /** How much of the stream may be fetched ahead. */
  readonly readBytesMax: number;
  /** Asks ClickHouse for identities that the index may have forgotten, for as long as it takes. */
  lookUp(state: Recovered, identities: Uint32Array, events: readonly number[]): Promise<void>;
  /** Step 0. Waits for the engines as long as it takes. */
  recover(shard: number, hole: string | null): Promise<Recovered>;
  /** Called when there is something to flush. */
  onDecided(): void;
}

/** Jobs read ahead of what is decided, for each thread: enough that no thread waits for the loop that feeds it. */
const AHEAD_JOBS = 4;

export class ShardConsumer {
  readonly shard: number;
  readonly shardLog: ShardLog;
  state: Recovered;
  /** Decided and not taken by a flush, in log order. */
  readonly decided: Decided[] = [];
  /** How much that is for a flush: counted as it comes and goes, since it is asked for with every decision. */
  #decidedEvents = 0;
  /** The sequence up to which everything was decided. */
  lastDecided: number;
  /** Acceptance of the newest block that a flush has taken, epoch milliseconds; 0 for none. */
  newestAcceptedMs: number;
  readonly #options: ConsumerOptions;
  readonly #arrived: Arrived[] = [];
  #arrivedBytes = 0;
  readonly #preparing: PrepareQueue;
  /** How many blocks behind the next one were asked for together with it. */
  #lookedUp = 0;
  /** Nothing more arrives: the reader has ended. */
  #allArrived = false;
  #wakeDecider: () => void = () => {};
  #wakeReader: () => void = () => {};
  #wakeDurable: () => void = () => {};

  constructor(shard: number, state: Recovered, options: ConsumerOptions) {
    this.shard = shard;
    this.shardLog = options.shardLog;
    this.state = state;
    this.#options = options;
    this.lastDecided = state.watermark.sequence;
    this.newestAcceptedMs = state.watermark.acceptedAtMs;
    this.#preparing = new PrepareQueue(options.workers, shard, options.timing, () => this.#wakeDecider());
  }

  /** As far as the bound of a flush goes. */
  get decidedEvents(): number {
    return this.#decidedEvents;
  }

  /**
   * Runs until the signal. Throws what must not be gone over: a mistake of ours. What was read and not decided is
   * forgotten then; what was decided waits for the flusher, or for `forgetDecided`.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#run(signal);
    } finally {
      this.#preparing.clear();
      this.#arrivedBytes = 0;
      for (const read of this.#arrived.splice(0)) this.#forget(read);
    }
  }

  /** The oldest that were decided, for a flush: they are its from now on. */
  takeDecided(count: number): Decided[] {
    const taken = this.decided.splice(0, count);
    for (const item of taken) this.#decidedEvents -= eventsOf(item);
    return taken;
  }

  /** Drops what was decided and not taken by a flush: another owner will read it again. */
  forgetDecided(): void {
    this.#decidedEvents = 0;
    for (const read of this.decided.splice(0)) this.#forget(read);
  }

  #forget({ bytes, slot }: Pick<Read, 'bytes' | 'slot'>): void {
    this.#options.backlog.release(bytes);
    slot?.release();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const wake = (): void => {
      this.#wakeDecider();
      this.#wakeReader();
      this.#wakeDurable();
      this.#options.backlog.wake();
    };
    signal.addEventListener('abort', wake, { once: true });
    for (;;) {
      this.#allArrived = false;
      this.#lookedUp = 0;
      const [loss] = await Promise.all([this.#read(signal), this.#decide(signal)]);
      if (loss === null) return;
      const { message: reason } = loss;
      this.#options.log.warn({ shard: this.shard, reason }, 'the log is not the one that was read');
      if (!(await this.#allDurable(signal))) return;
      // The old index is let go before the new one is loaded: both at once may not fit into memory.
      this.state = { ...this.state, index: new DedupeIndex(1) };
      this.state = await this.#options.recover(this.shard, loss.isHole ? reason : null);
      this.lastDecided = this.state.watermark.sequence;
      this.newestAcceptedMs = this.state.watermark.acceptedAtMs;
    }
  }

  /** A flush is durable. */
  reached(watermark: Watermark, last: LogMark): void {
    this.state.watermark = watermark;
    this.state.last = last;
    this.#wakeDurable();
  }

  /** Waits until all that was read is durable; false when stopping. */
  async #allDurable(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted && this.state.watermark.sequence < this.lastDecided) {
      await new Promise<void>((resolve) => (this.#wakeDurable = resolve));
    }
    return !signal.aborted;
  }

  /** Ends with the signal, or with what it found to be lost. */
  async #read(signal: AbortSignal): Promise<LogLostError | null> {
    const { shardLog, backlog, readBytesMax, workers, log, timing } = this.#options;
    const { watermark, beganBehind, holeUntil, passedOver, last, streamCreated } = this.state;
    const aheadBytes = workers.threads * AHEAD_JOBS * workers.jobBytes;
    try {
      const messages = readShard(shardLog, {
        created: streamCreated,
        behind: watermark.sequence,
        last,
        holeUntil: watermark.sequence === beganBehind ? holeUntil : 0,
        passedOver,
        maxBytesInFlight: readBytesMax,
        log,
        timing,
        signal,
      });
      for await (const message of messages) {
        this.#arrive(message);
        if (this.#arrivedBytes >= aheadBytes || backlog.full) this.#preparing.close();
        while (!signal.aborted && this.#arrivedBytes >= aheadBytes) {
          await new Promise<void>((resolve) => (this.#wakeReader = resolve));
        }
        while (!signal.aborted && backlog.full) await backlog.changed();
        if (signal.aborted) return null;
      }
      return null;
    } catch (error) {
      if (error instanceof LogLostError) return error;
      throw error;
    } finally {
      this.#allArrived = true;
      if (!signal.aborted) this.#preparing.close();
      this.#wakeDecider();
    }
  }

  /** Starts the work on a message. Meters change the registry here, in log order, before the next block. */
  #arrive({ sequence, timeMs, checksum, data }: ReadMessage): void {
    const bytes = this.#options.backlog.add(data.length);
    const arrived: Arrived = {
      sequence,
      timeMs,
      checksum,
      messageBytes: data.length,
      bytes,
      slot: null,
      ready: null,
      failure: null,
      other: null,
    };
    this.#arrived.push(arrived);
    this.#arrivedBytes += data.length;
    // The data is a view into memory that holds other messages too: whoever keeps it copies it.
    if (messageKind(data) === MESSAGE_EVENTS) {
      this.#preparing.add(data, arrived, this.state.registry);
    } else {
      // What was gathered is prepared with the meters that were in force before.
      this.#preparing.close();
      arrived.other = this.#control(arrived, new Uint8Array(data));
      this.#wakeDecider();
    }
  }

  #control(mark: LogMark, message: Uint8Array<ArrayBuffer>): Other {
    const kind = messageKind(message);
    try {
      if (kind === MESSAGE_METER) return this.#define(mark, message);
      if (kind === MESSAGE_BACKFILL) return this.#changeBackfill(mark, message);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return { kind: 'unreadable', reason: error.message, message };
    }
    return { kind: 'unreadable', reason: 'no message of ours', message };
  }

  #define({ sequence, timeMs }: LogMark, message: Uint8Array<ArrayBuffer>): Control {
    const { log, measurements } = this.#options;
    const definition = decodeMeterDefined(message);
    const outcome = this.state.registry.define(definition, timeMs);
    if (outcome === 'contradicts') {
      measurements.meterConflicts.inc();
      log.error(
        { shard: this.shard, sequence, meter: definition.meter.key },
        'a definition of a meter contradicts one before it, or came too late for its first hour; it changes nothing',
      );
    }
    return { kind: 'meter', message, defined: outcome === 'new' ? definition : null };
  }

  #changeBackfill({ sequence, timeMs }: LogMark, message: Uint8Array<ArrayBuffer>): Control {
    const { log, measurements } = this.#options;
    const changed = decodeBackfillChanged(message);
    const outcome = this.state.registry.changeBackfill(changed, timeMs);
    const { id, meter } = changed.backfill;
    const what = { shard: this.shard, sequence, meter, backfill: id, change: changed.change };
    if (outcome === 'contradicts') {
      measurements.meterConflicts.inc();
      log.error(
        what,
        'a change of a backfill does not fit what stands in the log before it; it changes nothing',
      );
    } else if (outcome === 'new') log.info(what, 'a backfill changed');
    return { kind: 'backfill', message, changed: outcome === 'new' ? changed : null };
  }

  async #decide(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const next = this.#arrived[0];
      if (next === undefined && this.#allArrived) return;
      if (next === undefined || !isReady(next)) {
        await new Promise<void>((resolve) => (this.#wakeDecider = resolve));
        continue;
      }
      if (next.failure !== null) throw next.failure.error;
      if (this.#mustLookUp()) await this.#lookUp();
      this.#decideNext();
      // Those behind it that are ready too, in one go: whoever waits is woken once.
      for (let more = this.#arrived[0]; more !== undefined && isReady(more); more = this.#arrived[0]) {
        if (more.failure !== null || this.#mustLookUp()) break;
        this.#decideNext();
      }
      this.#wakeReader();
      this.#options.onDecided();
    }
  }

  #decideNext(): void {
    if (this.#lookedUp > 0) this.#lookedUp -= 1;
    const arrived = this.#arrived[0]!;
    const decided = this.#verdict(arrived, arrived.ready ?? arrived.other!);
    this.#arrived.shift();
    this.#arrivedBytes -= arrived.messageBytes;
    this.decided.push(decided);
    this.#decidedEvents += eventsOf(decided);
    this.lastDecided = decided.sequence;
  }

  #mustLookUp(): boolean {
    return this.#lookedUp === 0 && !this.state.index.complete;
  }

  /**
   * Asks for what the index cannot tell of the next block, and of those behind it that are prepared too: a question
   * costs the same for one block as for many.
   */
  async #lookUp(): Promise<void> {
    const { index } = this.state;
    const words: number[] = [];
    let blocks = 0;
    for (const arrived of this.#arrived) {
      if (!isReady(arrived) || arrived.failure !== null) break;
      blocks += 1;
      const { ready } = arrived;
      if (ready?.kind !== 'prepared') continue;
      const { block, corrections } = ready.prepared;
      const ask = (identities: Uint32Array, at: number): void => {
        for (let word = 0; word < 4; word++) words.push(identities[at * 4 + word]!);
      };
      for (const event of unknownIn(index, block)) ask(block.identity, event);
      if (corrections === null) continue;
      for (const correction of unknownTargets(index, corrections)) ask(corrections.targets, correction);
    }
    const events = Array.from({ length: words.length / 4 }, (_, at) => at);
    if (events.length > 0) await this.#options.lookUp(this.state, Uint32Array.from(words), events);
    this.#options.measurements.lookups.inc(events.length);
    this.#lookedUp = blocks;
  }

  #verdict({ sequence, timeMs, checksum, bytes, slot }: Arrived, answer: PrepareAnswer | Control): Decided {
    const read = { sequence, timeMs, checksum, bytes, slot };
    if (answer.kind === 'meter') return { ...read, ...answer, recount: null };
    if (answer.kind === 'backfill') return { ...read, ...answer, recount: recountOf(answer.changed) };
    const { backlog, measurements, log } = this.#options;
    const { message } = answer;
    if (answer.kind === 'unreadable') {
      const { reason } = answer;
      // It is rare, and kept until the flush is durable.
      const kept = slot === null ? message : new Uint8Array(message);
      slot?.release();
      measurements.unreadable.inc();
      log.error(
        { shard: this.shard, sequence, bytes: message.length, reason },
        'a message of the log cannot be decoded; it is kept whole in refused_events',
      );
      return { ...read, slot: null, kind: 'unreadable', message: kept, recount: null };
    }
    const { prepared } = answer;
    const { index, watermark } = this.state;
    const { block, refused, corrections, verdicts } = prepared;
    decideBlock(index, block, refused, sequence, corrections, verdicts);
    const original = corrections === null ? null : oldestOriginal(index, corrections, verdicts);
    const recount: RecountNeeded | null =
      original === null ? null : { kind: 'corrections', oldestOriginal: original };
    if (this.#lookedUp === 0) index.rotate(positionInShard(watermark.sequence + 1, 0) - 1);
    // A block can name many meters for each event: what it grew to counts too.
    const more = answer.columnBytes;
    backlog.grow(more);
    const counts = VERDICTS.map(() => 0);
    for (let at = 0; at < verdicts.length; at++) counts[verdicts[at]!]! += 1;
    return {
      sequence,
      timeMs,
      checksum,
      bytes: bytes + more,
      slot,
      kind: 'events',
      message,
      prepared,
      verdicts,
      counts,
      recount,
    };
  }
}

function isReady({ ready, other, failure }: Arrived): boolean {
  return ready !== null || other !== null || failure !== null;
}

/** A proposal changes nothing; what is committed or reverted, its hours of its meter. */
function recountOf(changed: BackfillChanged | null): RecountNeeded | null {
  if (changed === null || changed.change === 'proposed') return null;
  const { meter, fromMs, toMs } = changed.backfill;
  const { tenant } = changed;
  return { kind: 'meter', tenant, meter, fromSeconds: fromMs / 1_000, toSeconds: toMs / 1_000 };
}
