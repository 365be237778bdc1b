/**
 * What a flush writes, in which order. The order of the steps is the guarantee; a crash after each is told beside it.
 * Every row's version is a position of the log, so repeating a step, or the whole flush after a restart, writes the
 * same rows.
 *
 * A flush may hold messages that change what earlier events add: corrections, and whatever else a decided message asks
 * to have recounted. Their rows are left out of the rollups that were folded, and made anew from raw rows as they hold
 * at the end of the flush (recount.ts tells why that is exact, flush-recount.ts does it). What is in memory of them is
 * not right until it was read back, so nothing is folded behind such a flush before it has ended.
 */
import { endOfMessage } from '../contract/position.ts';
import { VERDICTS } from '../contract/verdicts.ts';
import type { Log } from '../runtime/log.ts';
import type { Backlog } from './backlog.ts';
import type { ShardConsumer } from './consume.ts';
import {
  countersOf,
  countsOf,
  eventsIn,
  nothingDerived,
  releaseSlots,
  rowsOf,
  watermarkAfter,
  withRows,
  type Batch,
  type Derived,
  type EventsItem,
  type Gathered,
} from './flush-batch.ts';
import {
  neededBy,
  rangeOf,
  rowsOutside,
  scopesOf,
  type Recounting,
  type RecountOfShard,
} from './flush-recount.ts';
import { foldBlock } from './fold.ts';
import type { Measurements } from './measurements.ts';
import { OverflowWarnings } from './overflow-warnings.ts';
import type { Patience } from './patience.ts';
import type { Tables, Timing } from './ports.ts';
import type { MeterHour } from './prepare.ts';
import { encodeUnreadable, soundTime, type RawRows } from './raw-rows.ts';
import type { Unloaded } from './rollup-cache.ts';
import { encodeRollups } from './rollup-columns.ts';
import type { Watermark } from './watermark.ts';
import type { EncodeJob, Workers } from './workers.ts';

export interface FlushOptions {
  readonly tables: Tables;
  readonly workers: Workers;
  readonly backlog: Backlog;
  readonly patience: Patience;
  readonly measurements: Measurements;
  readonly timing: Timing;
  readonly log: Log;
  readonly intervalMs: number;
  readonly eventsMax: number;
  /** Called after each watermark, with what of a log is behind it. */
  onWatermark(consumer: ShardConsumer, watermark: Watermark, bytes: number): void;
}

/** A block whose rows were found, and which waits for some of them. */
interface WaitingBlock {
  readonly item: EventsItem;
  readonly rowOf: Uint32Array;
}

/** The rows that a shard's blocks changed, and texts of the hours of meters that overflow in them. */
interface FoldedBlocks {
  readonly touched: readonly number[];
  readonly overflowing: ReadonlySet<string>;
}

/** Events encoded in one job of a worker. */
const ENCODE_EVENTS = 50_000;

export class FlushSteps {
  readonly #options: FlushOptions;
  /** Throws when something has failed for good, so that nothing is asked or written any more. */
  readonly #throwFailure: () => void;
  readonly #overflowWarnings = new OverflowWarnings();
  #mark = 0;

  constructor(options: FlushOptions, throwFailure: () => void) {
    this.#options = options;
    this.#throwFailure = throwFailure;
  }

  /**
   * Everything that a flush needs before its first insert. What it writes of its own is which messages were read:
   * a crash after that leaves marks of messages that are read again.
   *
   * However it ends, nobody reads the blocks behind it, and their slots are let go.
   */
  async gather(batches: readonly Batch[], fail: (error: unknown) => void): Promise<Gathered> {
    try {
      return await this.#gather(batches, fail);
    } finally {
      releaseSlots(batches);
    }
  }

  async #gather(batches: readonly Batch[], fail: (error: unknown) => void): Promise<Gathered> {
    const { tables, timing } = this.#options;
    const marks = batches.map(({ consumer, items }) => ({
      shard: consumer.shard,
      incarnation: consumer.state.incarnation,
      marks: items,
    }));
    const marked = this.#insert('log_marks', marks.length, () => tables.insertMarks(marks, timing.now()));
    marked.catch(fail);
    const derived = await this.#derive(batches);
    const raw = await this.#encodeRaw(batches);
    await marked;
    return { batches, derived, raw };
  }

  async write({ batches, derived, raw }: Gathered, startedMs: number): Promise<void> {
    const { tables, timing, measurements } = this.#options;

    // 1. Raw rows: the truth comes first, with the definitions that it is read with. The marks of the messages
    //    are there already. A crash after this reads the same events again, finds them in the index at their own
    //    positions, and writes them again as the same rows. Should the broker have lost the messages by then, the
    //    marks tell, and these rows are what the next step is made up from (incarnation.ts).
    const shards = batches.map(({ consumer }) => consumer.shard);
    const events = withRows(raw.map((part) => part.events));
    await Promise.all([
      this.#insert('events', rowsOf(events), () => tables.insertEvents(events, shards)),
      this.#insert('meters', derived.meters.length, () => tables.insertMeters(derived.meters)),
      this.#insert('backfills', derived.backfills.length, () => tables.insertBackfills(derived.backfills)),
    ]);
    const changed = new Set([...derived.meters, ...derived.backfills].map(({ shard }) => shard));
    if (changed.size > 0) await this.#until('rules', () => tables.refreshRules([...changed]));

    // 2. What was refused, whole: behind the raw rows that it contradicts, and before the counters that count it.
    //    A crash after this, or in between, reads it again and writes the same rows.
    const refused = withRows(raw.map((part) => part.refused));
    if (derived.unreadable.length > 0) {
      refused.push({ rows: derived.unreadable.length, body: encodeUnreadable(derived.unreadable) });
    }
    await this.#insert('refused_events', rowsOf(refused), () => tables.insertRefused(refused, shards));

    // 3. Which events were retired, where there are corrections. A crash after this leaves rows of `corrections` at
    //    positions beyond the watermark, which follow from the raw rows and are written again as they are.
    const recountings = await Promise.all(derived.recounts.map((of) => this.#settle(of)));

    // 4. What follows from the log up to here, each table for itself: rollups, folded or recounted, and counters. A
    //    crash leaves some of it at positions beyond the watermark, and of no event that has not its row. All of it is
    //    absolute: the replay finds those positions in the rows and adds nothing, and writes what is missing.
    const { received, verdicts, watermarks } = derived;
    const rollups = [...derived.rollups, ...recountings.flatMap(rowsOutside)];
    await Promise.all([
      this.#insert('rollup_hour', rowsOf(rollups), () => tables.insertRollups(rollups, shards)),
      this.#insert('received_totals', countersOf(received), () => tables.insertReceived(received)),
      this.#insert('verdict_totals', countersOf(verdicts), () => tables.insertVerdicts(verdicts)),
      ...recountings.map((of) => this.#recount(of)),
    ]);

    // 5. The watermark: from now on a restart begins behind these messages. It vouches for everything above,
    //    so it is written only after all of it was acknowledged.
    const flushedAtMs = timing.now();
    await this.#insert('watermarks', watermarks.length, () =>
      tables.insertWatermarks(watermarks, flushedAtMs),
    );

    // 6. Tell. A crash before this delays the ledger until it asks by itself.
    this.#tell(batches, derived);
    measurements.flush.observe((timing.elapsedMs() - startedMs) / 1_000);
  }

  async #settle(of: RecountOfShard): Promise<Recounting> {
    const { tables } = this.#options;
    const scopes = scopesOf(of);
    const range = rangeOf(of);
    if (range === null) return { of, scopes, retired: [] };
    await this.#until('corrections', () => tables.settleCorrections(range));
    const retired = await this.#until('corrections', () => tables.loadRetired(range));
    return { of, scopes, retired };
  }

  /** Makes the rows anew, and reads back what is in memory of them. */
  async #recount({ of, scopes }: Recounting): Promise<void> {
    const { tables, log } = this.#options;
    const { until, overflowing, consumer } = of;
    const { rollups, incarnation } = consumer.state;
    for (const scope of scopes) {
      await this.#until('a recount', () => tables.recount({ scope, until, overflowing }));
      // A meter's hours may be rows without number, and rows that never were in memory: all are asked for when needed.
      if (scope.kind === 'meter') {
        rollups.forget(scope.toSeconds);
        log.info(scope, 'the hours of a meter were counted anew');
      } else rollups.refresh(await this.#until('a recount', () => tables.loadScope(scope)), incarnation);
    }
  }

  /**
   * Folds the blocks of a shard. A block is folded as soon as its rows were found, while they are in the processor's
   * cache. Rows that may be in ClickHouse and are not in memory are loaded all at once; rows take positions in order, so
   * behind the first block that waits for some of its rows every block waits.
   */
  async #place({ consumer, items }: Batch, mark: number): Promise<FoldedBlocks> {
    const { shard, state } = consumer;
    const { incarnation, rollups } = state;
    const touched: number[] = [];
    const overflowing = new Set<string>();
    const unloaded: Unloaded[] = [];
    const waiting: WaitingBlock[] = [];
    let acceptedAtMs = Infinity;
    const fold = ({ sequence, verdicts, prepared }: EventsItem, rowOf: Uint32Array): void => {
      const { block, contributions } = prepared;
      const { time } = block;
      foldBlock({ incarnation, sequence, time, verdicts, contributions }, rollups.rows, rowOf, mark, touched);
    };
    await this.#knowGroups(consumer, eventsIn(items));
    for (const item of items) {
      if (item.kind !== 'events') continue;
      const { tenants, contributions, block } = item.prepared;
      const { keys, overflowed } = rollups.groups.place({ verdicts: item.verdicts, contributions });
      for (const [hour, count] of overflowed) {
        this.#tellOverflow(shard, hour, count);
        overflowing.add(hour.text);
      }
      const rowOf = rollups.find({ tenants, contributions, overflowed: keys }, unloaded);
      if (unloaded.length === 0) fold(item, rowOf);
      else waiting.push({ item, rowOf });
      acceptedAtMs = Math.min(acceptedAtMs, soundTime(block.acceptedAtMs));
    }
    if (acceptedAtMs !== Infinity) rollups.reach(acceptedAtMs);
    if (unloaded.length > 0) {
      const keys = unloaded.map(({ key }) => key);
      const stored = await this.#until('rollups of a flush', () =>
        this.#options.tables.loadRollups(shard, keys),
      );
      rollups.enter(unloaded, stored, incarnation);
    }
    for (const { item, rowOf } of waiting) fold(item, rowOf);
    return { touched, overflowing };
  }

  /** Asks for the groups of which it is not known here whether they have rows of their own (group-book.ts). */
  async #knowGroups({ shard, state }: ShardConsumer, items: readonly EventsItem[]): Promise<void> {
    const { tables } = this.#options;
    const { groups } = state.rollups;
    const unknown = groups.unknown(items.map(({ prepared }) => prepared.meterHours));
    if (unknown.length === 0) return;
    const texts = unknown.map(({ text }) => text);
    groups.enter(unknown, await this.#until('groups of a flush', () => tables.loadGroups(shard, texts)));
  }

  #tellOverflow(shard: number, hour: MeterHour, count: number): void {
    const { measurements, log, timing } = this.#options;
    measurements.overflowed.inc(count);
    if (!this.#overflowWarnings.isDue(hour, timing.now())) return;
    const [tenant, meter] = JSON.parse(hour.text) as [string, string];
    log.warn(
      { shard, tenant, meter, groupsMax: hour.groupsMax },
      'a meter has more groups in an hour than its bound: further ones are counted together as __overflow__',
    );
  }

  /** Folds and counts, and gathers what is to be written besides the raw rows. */
  async #derive(batches: readonly Batch[]): Promise<Derived> {
    const mark = ++this.#mark;
    const derived = nothingDerived();
    for (const batch of batches) {
      const { rollups } = batch.consumer.state;
      // The flush before may have been written meanwhile: its rows are trimmed when these are encoded.
      rollups.hold();
      try {
        this.#deriveOf(batch, await this.#place(batch, mark), derived);
      } finally {
        rollups.release();
      }
    }
    return derived;
  }

  #deriveOf({ consumer, items }: Batch, { touched, overflowing }: FoldedBlocks, derived: Derived): void {
    const { shard, state } = consumer;
    const { incarnation, tally, rollups } = state;
    let bytes = 0;
    for (const item of items) {
      bytes += item.bytes;
      if (item.kind === 'events') {
        tally.countBlock(item.prepared, item.verdicts, item.sequence);
      } else if (item.kind === 'unreadable') {
        const { sequence, timeMs, message } = item;
        derived.unreadable.push({ shard, incarnation, sequence, timeMs, message });
        tally.countUnreadable(sequence);
      } else {
        const position = endOfMessage(incarnation, item.sequence);
        if (item.kind === 'meter') {
          if (item.defined !== null) derived.meters.push({ shard, position, defined: item.defined });
        } else if (item.changed !== null) {
          derived.backfills.push({ shard, position, changed: item.changed });
        }
      }
    }
    const needed = neededBy(consumer, items);
    if (needed !== null) {
      derived.recounts.push({ ...needed, rows: rollups.rows, touched, overflowing: [...overflowing] });
    } else if (touched.length > 0) {
      derived.rollups.push({
        rows: touched.length,
        body: encodeRollups(shard, incarnation, rollups, touched),
      });
    }
    // Copies: the next flush counts on while this one is written, and inserts are made again.
    const changed = tally.takeChanged().map((counter) => ({ ...counter }));
    const received = changed.filter(({ verdict }) => verdict === '');
    const verdicts = changed.filter(({ verdict }) => verdict !== '');
    derived.received.push({ shard, incarnation, counters: received });
    derived.verdicts.push({ shard, incarnation, counters: verdicts });
    const { sequence, timeMs, checksum } = items.at(-1)!;
    const last = { sequence, timeMs, checksum };
    derived.watermarks.push({ consumer, shard, watermark: watermarkAfter(items, consumer), last, bytes });
  }

  /** Gives the workers also the memory of blocks that are in no slot, which they do not give back. */
  async #encodeRaw(batches: readonly Batch[]): Promise<RawRows[]> {
    const jobs: EncodeJob[][] = [];
    let job: EncodeJob[] = [];
    let events = 0;
    for (const { consumer, items } of batches) {
      const { shard, state } = consumer;
      const { incarnation } = state;
      for (const item of items) {
        if (item.kind !== 'events') continue;
        const { sequence, slot, message, verdicts, prepared } = item;
        job.push({ shard, incarnation, sequence, message, slot, verdicts, refused: prepared.refused });
        events += verdicts.length;
        if (events >= ENCODE_EVENTS) {
          jobs.push(job);
          [job, events] = [[], 0];
        }
      }
    }
    if (job.length > 0) jobs.push(job);
    return Promise.all(jobs.map((blocks) => this.#options.workers.encode(blocks)));
  }

  /** As often as it takes, as long as nothing has failed for good. */
  #until<T>(what: string, request: () => Promise<T>): Promise<T> {
    return this.#options.patience.until(what, async () => {
      this.#throwFailure();
      return request();
    });
  }

  async #insert(table: string, rows: number, insert: () => Promise<void>): Promise<void> {
    if (rows === 0) return;
    const { measurements } = this.#options;
    await this.#until(table, insert);
    measurements.rows.inc({ table }, rows);
  }

  #tell(batches: readonly Batch[], derived: Derived): void {
    const { backlog, measurements, onWatermark, log, timing } = this.#options;
    for (const { consumer, watermark, last, bytes } of derived.watermarks) {
      consumer.state.rollups.trim();
      consumer.reached(watermark, last);
      backlog.release(bytes);
      const position = endOfMessage(watermark.incarnation, watermark.sequence).toString();
      try {
        consumer.shardLog.tell({ shard: consumer.shard, position });
      } catch (error) {
        log.debug({ error }, 'a flush notice was not sent');
      }
      onWatermark(consumer, watermark, bytes);
    }
    const now = timing.now();
    const byVerdict = countsOf(batches);
    for (const { items } of batches) {
      for (const item of items) {
        if (item.kind !== 'events') continue;
        const lagMs = now - item.prepared.acceptedAtMs;
        if (lagMs >= 0) measurements.lag.observe({ stage: 'visible' }, lagMs / 1_000);
      }
    }
    VERDICTS.forEach((verdict, at) => {
      if (byVerdict[at]! > 0) measurements.events.inc({ verdict }, byVerdict[at]!);
    });
    if (derived.unreadable.length > 0)
      measurements.events.inc({ verdict: 'rejected' }, derived.unreadable.length);
  }
}
