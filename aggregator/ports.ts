/**
 * What the code that counts a shard sees of the world: a log, tables, time, and workers (workers.ts).
 *
 * Everything that can fail, wait or answer late stands behind one of these, so that the same code runs on NATS and
 * ClickHouse (nats-log.ts, tables.ts, timing.ts) and in a simulated world that crashes, delays, loses and repeats as a
 * seed says (bench/simulate/). What is written here is what both must keep, and all that the protocol relies on.
 */
import type { BackfillChanged, MeterDefined } from '../contract/control.ts';
import type { FlushNotice } from '../contract/notice.ts';
import type { DedupeIndex } from './dedupe/index.ts';
import type { StoredGroups } from './group-book.ts';
import type { Beginning, Unfinished } from './incarnation-rows.ts';
import type { LogMark, StoredMessage, StreamFacts } from './log-mark.ts';
import type { MeterRegistry } from './registry.ts';
import type { CorrectionRange, Recount, RecountScope, SubjectHour } from './recount.ts';
import type { Gap } from './gap.ts';
import type { RollupKey, StoredRollup } from './rollup-key.ts';
import type { Counter, Tally } from './tally.ts';
import type { Watermark } from './watermark.ts';

/**
 * The log of one shard. Only ever appended to, as long as it is the same log; it may be purged from its beginning. That
 * it can be another log, or lose its end, between any two calls is what the aggregator guards against, and no promise
 * of this.
 */
export interface ShardLog {
  /** The stream's name, for people. */
  readonly name: string;
  /** @throws LogError */
  facts(): Promise<StreamFacts>;
  /** The message at a sequence, as it is durable; null when there is none. @throws LogError */
  messageAt(sequence: number): Promise<StoredMessage | null>;
  /** The first message at a sequence or behind it, up to and with `until`; null when there is none. @throws LogError */
  messageFrom(sequence: number, until: number): Promise<StoredMessage | null>;
  /**
   * All messages from a sequence on, in order; sequences rise strictly, and a hole is handed over as it is. Survives
   * lost connections by itself. Whenever reading begins anew, `onPosition` is called before anything that was read
   * behind that is handed over. Ends with the signal. @throws LogError
   */
  read(o: ReadOptions): AsyncIterable<PulledMessage>;
  /** How full it is. @throws LogError */
  size(): Promise<LogSize>;
  /**
   * Forgets the messages before a sequence if the log is still the one that is meant; returns how many, or null when it
   * is another. Whoever asks may have been asleep since he looked, and what stands there now was counted by nobody.
   * @throws LogError
   */
  purge(before: number, only: LogIdentity): Promise<number | null>;
  /** Tells that a flush is durable, to whom it may concern. Nobody need hear it. */
  tell(notice: FlushNotice): void;
}

export interface ReadOptions {
  readonly from: number;
  /** How much may be fetched ahead of what was taken. */
  readonly maxBytesInFlight: number;
  readonly signal: AbortSignal;
  onPosition(): void;
}

export interface PulledMessage {
  readonly sequence: number;
  /** When the log stored it, epoch milliseconds by the log's clock. */
  readonly timeMs: number;
  /** A view into a larger buffer that holds other messages too. */
  readonly data: Uint8Array;
}

/** Which log it is, up to one of its messages. */
export interface LogIdentity {
  /** When the stream was created. */
  readonly created: string;
  readonly has: LogMark;
  /** Of these messages it has none. */
  readonly lacks: readonly Gap[];
}

export interface LogSize {
  readonly bytes: number;
  /** 0 or less for no bound. */
  readonly bytesMax: number;
  readonly messages: number;
  readonly firstSequence: number;
}

/**
 * Why the log did not answer. `away`: the connection, and asking again can help. `gone`: there is no such stream.
 * `rewound`: it ends before what was read of it, or was made anew.
 */
export class LogError extends Error {
  override readonly name = 'LogError';
  readonly kind: 'away' | 'gone' | 'rewound';

  constructor(kind: LogError['kind'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

export function isLogError(error: unknown, kind: LogError['kind']): boolean {
  return error instanceof LogError && error.kind === kind;
}

/** Rows in ClickHouse's Native format. */
export interface EncodedRows {
  readonly rows: number;
  readonly body: Uint8Array;
}

/**
 * The tables: every question that the aggregator asks of them, and every insert. One object for a process.
 *
 * An insert that resolved is durable. One that failed may have happened, wholly or in part, or may yet happen; doing
 * it again does no harm, because each row replaces what has a lower version under its key, or is replaced by what has a
 * higher one. A question sees every insert that resolved before it was asked.
 */
export interface Tables {
  loadWatermark(shard: number): Promise<Watermark | null>;
  /** The last sequence that the tables of the shard speak of; 0 for none. */
  loadCountedTo(shard: number): Promise<number>;
  /** The meters in force at the watermark, and the backfills. */
  loadRegistry(shard: number, watermark: Watermark): Promise<MeterRegistry>;
  loadTally(shard: number, incarnation: number): Promise<Tally>;
  /** The greatest hour in the shard's rollups, epoch seconds; -1 for none. */
  loadLastHour(shard: number): Promise<number>;
  /** The stored rollup rows of these keys, as far as there are any. */
  loadRollups(shard: number, keys: readonly RollupKey[]): Promise<StoredRollup[]>;
  /** The groups that have rollup rows of their own, of these hours of meters (`MeterHour.text`). */
  loadGroups(shard: number, meterHours: readonly string[]): Promise<StoredGroups>;

  /** The index from raw rows: the newest keys exactly, all others in its filters. */
  loadIndex(
    shard: number,
    incarnation: number,
    keysMax: number,
    filterBytesMax?: number,
  ): Promise<DedupeIndex>;
  /** Looks the identities of these events up in raw rows, and enters what is there into the index. */
  lookUpIdentities(
    shard: number,
    incarnation: number,
    identities: Uint32Array,
    events: readonly number[],
    index: DedupeIndex,
  ): Promise<void>;

  /** In order. */
  loadBeginnings(shard: number): Promise<Beginning[]>;
  saveBeginning(shard: number, beginning: Beginning, nowMs: number): Promise<void>;
  /** The mark of the highest sequence that the incarnation has read, as far as anything was written of it. */
  loadNewestMark(shard: number, incarnation: number): Promise<LogMark | null>;
  /**
   * The first sequence with a mark behind each of these, by incarnation: those that incarnations began behind. Not of
   * one of which the first marks may have gone.
   */
  loadFirstMarks(shard: number, behind: ReadonlyMap<number, number>): Promise<Map<number, number>>;
  /** All marks of the sequences from one to another, both included: each incarnation may have read another message. */
  loadMarks(shard: number, from: number, to: number): Promise<{ incarnation: number; mark: LogMark }[]>;
  /** How many events stand behind the watermark of an incarnation, and up to which sequence. */
  countUnfinished(rows: Unfinished): Promise<{ events: number; until: number }>;
  /**
   * Settles what is left of an incarnation's corrections, then makes rollups and counters agree with its raw and
   * refused rows. Repeating it changes nothing.
   */
  finishIncarnation(rows: Unfinished): Promise<void>;

  /**
   * Writes into `corrections` which event each counted correction of the range retires: the root if it is the first of
   * its root, the correction before it if that is an amendment, else nothing. Those at or before `behind` are settled
   * already, and raw rows up to `until` are there. Repeating it changes nothing.
   */
  settleCorrections(range: CorrectionRange): Promise<void>;
  /** The hours of subjects from which corrections of the range retire something, each once. */
  loadRetired(range: CorrectionRange): Promise<SubjectHour[]>;
  /**
   * Makes the rollup rows in a scope from raw rows, as they hold at `until`: of everything that ever added to a row, what
   * still does. A row's position is that of the last thing that happened to it, an event that came or one that was
   * retired. A row of which nothing is left is written too, empty. Repeating it changes nothing, and a row that is there
   * with a higher position stays.
   */
  recount(what: Recount): Promise<void>;
  /** The stored rows in a scope, the empty ones too. */
  loadScope(scope: RecountScope): Promise<StoredRollup[]>;
  /** The inserts that run now, by their ids. */
  runningInserts(): Promise<Set<string>>;

  /** The marks of one shard are those of consecutive sequences. */
  insertMarks(marks: readonly MarksOfShard[], nowMs: number): Promise<void>;
  /** `shards` are those that the rows are of; so below. */
  insertEvents(parts: readonly EncodedRows[], shards: readonly number[]): Promise<void>;
  insertRefused(parts: readonly EncodedRows[], shards: readonly number[]): Promise<void>;
  insertRollups(parts: readonly EncodedRows[], shards: readonly number[]): Promise<void>;
  insertMeters(meters: readonly MeterAt[]): Promise<void>;
  insertBackfills(changes: readonly BackfillAt[]): Promise<void>;
  /** Works out by which rules events count, behind the meters and backfills of these shards. */
  refreshRules(shards: readonly number[]): Promise<void>;
  /** Counters of events received (their verdict is ''). */
  insertReceived(counters: readonly CountersOfShard[]): Promise<void>;
  /** Counters by verdict. */
  insertVerdicts(counters: readonly CountersOfShard[]): Promise<void>;
  insertWatermarks(watermarks: readonly WatermarkOfShard[], nowMs: number): Promise<void>;
}

/**
 * Who may write for a shard. Every insert of `Tables` carries the epochs under which this object took its shards, and
 * is refused with a FencedError, having written nothing, when one of them is not the newest any more. One that began
 * before is over when a take-over returns. ownership.ts tells the protocol.
 */
export interface Ownership {
  /**
   * Becomes the owner: a higher epoch than any before, and at least this one. When it resolves, nobody else writes
   * for the shard, and all that others have written can be read. Repeating it is another take-over. @throws FencedError
   */
  takeOver(shard: number, epochAtLeast: number, signal: AbortSignal): Promise<number>;
  /** Inserts for the shard are refused from now on, by this object itself. */
  giveUp(shard: number): void;
}

export interface MarksOfShard {
  readonly shard: number;
  readonly incarnation: number;
  readonly marks: readonly LogMark[];
}

export interface MeterAt {
  readonly shard: number;
  readonly position: bigint;
  readonly defined: MeterDefined;
}

export interface BackfillAt {
  readonly shard: number;
  readonly position: bigint;
  readonly changed: BackfillChanged;
}

export interface CountersOfShard {
  readonly shard: number;
  readonly incarnation: number;
  readonly counters: readonly Readonly<Counter>[];
}

export interface WatermarkOfShard {
  readonly shard: number;
  readonly watermark: Watermark;
}

/** Time and chance. Nothing that counts a shard has another clock, timer or die. */
export interface Timing {
  /** Epoch milliseconds, UTC. It may jump. */
  now(): number;
  /** Milliseconds from no particular beginning. It never goes back. */
  elapsedMs(): number;
  /** Waits so long, or until the signal aborts. Never throws. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** From 0 to 1, 1 excluded: for jitter alone. */
  random(): number;
}

/** Where the edges look up how far each shard is durable. */
export interface WatermarkBoard {
  put(shard: number, record: string): Promise<void>;
  /** Called whenever the board may have forgotten what was put. Returns what ends it. */
  onForgotten(listener: () => void): () => void;
}
