/**
 * Makes decided blocks durable, for all shards of the process at once: few large inserts instead of many
 * small ones. One flush is written at a time, so watermarks only rise; meanwhile the logs are read on, and the
 * next flush is folded and encoded.
 *
 * When: at once if the last one began an interval ago, so that a lone event is visible within milliseconds;
 * else when the interval is over; not while one is being written, so that under load a flush is as large as what
 * comes in while the last one is written, for ClickHouse takes few large inserts for much less than many small ones;
 * but whenever enough has come together for one flush.
 *
 * The order of the steps is the guarantee; a crash after each is told beside it. Every row's version is a
 * position of the log, so repeating a step, or the whole flush after a restart, writes the same rows.
 */
import { endOfMessage } from '../contract/position.ts';
import { VERDICTS } from '../contract/verdicts.ts';
import type { Log } from '../runtime/log.ts';
import type { Backlog } from './backlog.ts';
import type { Decided, ShardConsumer } from './consume.ts';
import { foldBlock } from './fold.ts';
import { OverflowWarnings } from './overflow-warnings.ts';
import type { LogMark } from './log-mark.ts';
import type { Measurements } from './measurements.ts';
import type { Patience } from './patience.ts';
import type { CountersOfShard, EncodedRows, MeterAt, Tables, Timing } from './ports.ts';
import type { MeterHour } from './prepare.ts';
import {
  encodeUnreadable,
  soundTime,
  type DecidedBlock,
  type Encoded,
  type RawRows,
  type UnreadableMessage,
} from './raw-rows.ts';
import { encodeRollups } from './rollup-columns.ts';
import type { RowsWanted, Unloaded } from './rollup-cache.ts';
import { fingerprintOf, type Watermark } from './watermark.ts';
import type { Workers } from './workers.ts';

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

interface Batch {
  readonly consumer: ShardConsumer;
  readonly items: readonly Decided[];
}

type EventsItem = Extract<Decided, { kind: 'events' }>;

/** What a flush writes, gathered from its batches. */
interface Derived {
  rollups: EncodedRows[];
  unreadable: UnreadableMessage[];
  received: CountersOfShard[];
  verdicts: CountersOfShard[];
  meters: MeterAt[];
  watermarks: {
    consumer: ShardConsumer;
    shard: number;
    watermark: Watermark;
    /** The message at the watermark. */
    last: LogMark;
    bytes: number;
  }[];
}

interface Gathered {
  readonly batches: readonly Batch[];
  readonly derived: Derived;
  readonly raw: readonly RawRows[];
}

/** The rows of a block, by numbers that hold for one turn of the cache. */
interface PlacedBlock {
  readonly wanted: RowsWanted;
  readonly turn: number;
  readonly rowOf: Int32Array;
}

/** Events encoded in one job of a worker. */
const ENCODE_EVENTS = 50_000;

export class Flusher {
  readonly #options: FlushOptions;
  readonly #consumers = new Set<ShardConsumer>();
  /** In how many flushes that were begun and did not end something of it is. */
  readonly #flushing = new Map<ShardConsumer, number>();
  readonly #overflowWarnings = new OverflowWarnings();
  #mark = 0;
  #startedMs = -Infinity;
  #isWriting = false;
  #wake: () => void = () => {};
  #alarmed = false;
  #abandon: (error: unknown) => void = () => {};
  #failed: { readonly error: unknown } | undefined;
  /** No flush will be begun any more. */
  #ended = false;
  #waitingForEnd: (() => void)[] = [];

  constructor(options: FlushOptions) {
    this.#options = options;
  }

  get consumers(): ReadonlySet<ShardConsumer> {
    return this.#consumers;
  }

  /** From now on what it decides is made durable. */
  add(consumer: ShardConsumer): void {
    this.#consumers.add(consumer);
    this.#wake();
  }

  /**
   * Lets a consumer go that does not run any more. What it has decided is made durable first, or dropped when
   * somebody else is to read it again. When this resolves, no insert of this flusher with anything of it is running
   * or will begin; unless the flusher has ended, with `flush` all of it is durable.
   */
  async remove(consumer: ShardConsumer, decided: 'flush' | 'drop'): Promise<void> {
    if (decided === 'drop') consumer.forgetDecided();
    while (this.#flushing.has(consumer) || (consumer.decided.length > 0 && !this.#ended)) {
      await new Promise<void>((resolve) => this.#waitingForEnd.push(resolve));
    }
    this.#consumers.delete(consumer);
  }

  /** Something was decided. */
  notice(): void {
    this.#wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    let writing = Promise.resolve();
    try {
      while (!signal.aborted) {
        this.#throwFailure();
        const waitMs = this.#dueInMs();
        if (waitMs > 0) {
          await this.#noticed(waitMs, signal);
          continue;
        }
        this.#startedMs = this.#options.timing.elapsedMs();
        // The next flush is folded and encoded while ClickHouse takes the last one.
        const batches = this.#take();
        const gathered = await this.#orFailure(this.#gather(batches));
        await writing;
        // A watermark vouches for everything before it: behind a flush that failed nothing more is written.
        this.#throwFailure();
        this.#isWriting = true;
        writing = this.#write(gathered, this.#startedMs)
          .catch((error: unknown) => this.#fail(error))
          .finally(() => {
            this.#isWriting = false;
            this.#end(batches);
            this.#wake();
          });
      }
    } finally {
      await writing;
      this.#ended = true;
      // What was taken and never written is in no flush any more.
      this.#flushing.clear();
      this.#end([]);
    }
  }

  #fail(error: unknown): void {
    this.#failed ??= { error };
    this.#wake();
    this.#abandon(error);
  }

  /** What was begun, unless something else fails first: who is fenced out may never get an answer to a question. */
  #orFailure<T>(begun: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#abandon = reject;
      begun.then(resolve, reject);
    });
  }

  #throwFailure(): void {
    if (this.#failed !== undefined) throw this.#failed.error;
  }

  #end(batches: readonly Batch[]): void {
    for (const { consumer } of batches) {
      const others = (this.#flushing.get(consumer) ?? 1) - 1;
      if (others === 0) this.#flushing.delete(consumer);
      else this.#flushing.set(consumer, others);
    }
    const waiting = this.#waitingForEnd;
    this.#waitingForEnd = [];
    for (const resolve of waiting) resolve();
  }

  /** 0 when a flush is due, Infinity when there is nothing to flush, or something else has to happen first. */
  #dueInMs(): number {
    let events = 0;
    let any = false;
    for (const { decided } of this.#consumers) {
      for (const item of decided) {
        any = true;
        events += eventsOf(item);
      }
    }
    if (!any) return Infinity;
    // A backlog at its bound lets nothing more in: waiting for more would wait for ever.
    const { backlog, eventsMax, intervalMs, timing } = this.#options;
    if (events >= eventsMax || backlog.full) return 0;
    if (this.#isWriting) return Infinity;
    return Math.max(0, this.#startedMs + intervalMs - timing.elapsedMs());
  }

  /** Waits so long, or until there is something to look at. */
  async #noticed(waitMs: number, signal: AbortSignal): Promise<void> {
    // One alarm at a time, however often a decision wakes: it can only be early, and then the next one is set.
    if (waitMs !== Infinity && !this.#alarmed) {
      this.#alarmed = true;
      void this.#options.timing.sleep(Math.ceil(waitMs), signal).then(() => {
        this.#alarmed = false;
        this.#wake();
      });
    }
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  /** Takes decided blocks off the shards, in log order, evenly, up to the bound of a flush. */
  #take(): Batch[] {
    const all = Array.from(this.#consumers, (consumer) => ({ consumer, items: [] as Decided[] }));
    let events = 0;
    for (let more = true; more && events < this.#options.eventsMax;) {
      more = false;
      for (const { consumer, items } of all) {
        const item = consumer.decided[items.length];
        if (item === undefined) continue;
        items.push(item);
        events += eventsOf(item);
        more = true;
      }
    }
    const taken = all.filter(({ items }) => items.length > 0);
    for (const { consumer, items } of taken) {
      consumer.decided.splice(0, items.length);
      this.#flushing.set(consumer, (this.#flushing.get(consumer) ?? 0) + 1);
    }
    return taken;
  }

  /**
   * Everything that a flush needs before its first insert. What it writes of its own is which messages were read:
   * a crash after that leaves marks of messages that are read again.
   */
  async #gather(batches: readonly Batch[]): Promise<Gathered> {
    const { tables, timing } = this.#options;
    const marks = batches.map(({ consumer, items }) => ({
      shard: consumer.shard,
      incarnation: consumer.state.incarnation,
      marks: items,
    }));
    const marked = this.#insert('log_marks', marks.length, () => tables.insertMarks(marks, timing.now()));
    marked.catch((error: unknown) => this.#fail(error));
    const placed = await this.#place(batches);
    const derived = this.#derive(batches, placed);
    const raw = await this.#encodeRaw(batches);
    await marked;
    return { batches, derived, raw };
  }

  async #write({ batches, derived, raw }: Gathered, startedMs: number): Promise<void> {
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
    ]);

    // 2. What was refused, whole: behind the raw rows that it contradicts, and before the counters that count it.
    //    A crash after this, or in between, reads it again and writes the same rows.
    const refused = withRows(raw.map((part) => part.refused));
    if (derived.unreadable.length > 0) {
      refused.push({ rows: derived.unreadable.length, body: encodeUnreadable(derived.unreadable) });
    }
    await this.#insert('refused_events', rowsOf(refused), () => tables.insertRefused(refused, shards));

    // 3. What follows from the log up to here, each table for itself: rollups and counters. A crash leaves some of
    //    it at positions beyond the watermark, and of no event that has not its row. All of it is absolute: the
    //    replay finds those positions in the rows and adds nothing, and writes what is missing.
    const { rollups, received, verdicts, watermarks } = derived;
    await Promise.all([
      this.#insert('rollup_hour', rowsOf(rollups), () => tables.insertRollups(rollups, shards)),
      this.#insert('received_totals', countersOf(received), () => tables.insertReceived(received)),
      this.#insert('verdict_totals', countersOf(verdicts), () => tables.insertVerdicts(verdicts)),
    ]);

    // 4. The watermark: from now on a restart begins behind these messages. It vouches for everything above,
    //    so it is written only after all of it was acknowledged.
    const flushedAtMs = timing.now();
    await this.#insert('watermarks', watermarks.length, () =>
      tables.insertWatermarks(watermarks, flushedAtMs),
    );

    // 5. Tell. A crash before this delays the ledger until it asks by itself.
    this.#tell(batches, derived);
    measurements.flush.observe((timing.elapsedMs() - startedMs) / 1_000);
  }

  /** Which rows each block adds to; those that are in ClickHouse and not in memory are loaded, all at once. */
  async #place(batches: readonly Batch[]): Promise<Map<EventsItem, PlacedBlock>> {
    const { tables } = this.#options;
    const placed = new Map<EventsItem, PlacedBlock>();
    for (const { consumer, items } of batches) {
      const { shard } = consumer;
      const { rollups, incarnation } = consumer.state;
      await this.#knowGroups(consumer, eventsIn(items));
      const unloaded: Unloaded[] = [];
      for (const item of eventsIn(items)) {
        const { tenants, contributions } = item.prepared;
        const { keys, overflowed } = rollups.groups.place({ verdicts: item.verdicts, contributions });
        for (const [hour, count] of overflowed) this.#tellOverflow(shard, hour, count);
        const wanted = { tenants, contributions, overflowed: keys };
        placed.set(item, { wanted, turn: rollups.turn, rowOf: rollups.find(wanted, unloaded) });
      }
      if (unloaded.length > 0) {
        const keys = unloaded.map(({ key }) => key);
        const stored = await this.#until('rollups of a flush', () => tables.loadRollups(shard, keys));
        rollups.enter(unloaded, stored, incarnation);
      }
    }
    return placed;
  }

  /** Asks for the groups of which it is not known here whether they have rows of their own (group-book.ts). */
  async #knowGroups({ shard, state }: ShardConsumer, items: readonly EventsItem[]): Promise<void> {
    const { tables } = this.#options;
    const { groups } = state.rollups;
    const blocks = items.map(({ verdicts, prepared: { contributions } }) => ({ verdicts, contributions }));
    const unknown = groups.unknown(blocks);
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
  #derive(batches: readonly Batch[], placed: ReadonlyMap<EventsItem, PlacedBlock>): Derived {
    const mark = ++this.#mark;
    const derived: Derived = {
      rollups: [],
      unreadable: [],
      received: [],
      verdicts: [],
      meters: [],
      watermarks: [],
    };
    for (const { consumer, items } of batches) {
      const { shard, state } = consumer;
      const { incarnation, tally, rollups } = state;
      const touched: number[] = [];
      let bytes = 0;
      for (const item of items) {
        bytes += item.bytes;
        if (item.kind === 'events') {
          const { block, contributions } = item.prepared;
          const { sequence, verdicts } = item;
          const { wanted, turn, rowOf } = placed.get(item)!;
          foldBlock(
            { incarnation, sequence, time: block.time, verdicts, contributions },
            rollups.rows,
            // The flush before may have been written, and the rows turned over, while this one was placed.
            turn === rollups.turn ? rowOf : rollups.find(wanted, []),
            mark,
            touched,
          );
          tally.countBlock(item.prepared, verdicts, sequence);
        } else if (item.kind === 'unreadable') {
          const { sequence, timeMs, message } = item;
          derived.unreadable.push({ shard, incarnation, sequence, timeMs, message });
          tally.countUnreadable(sequence);
        } else if (item.defined !== null) {
          const { sequence, defined } = item;
          derived.meters.push({ shard, position: endOfMessage(incarnation, sequence), defined });
        }
      }
      if (touched.length > 0) {
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
    return derived;
  }

  /** Gives the blocks' memory to the workers, which do not give it back. */
  async #encodeRaw(batches: readonly Batch[]): Promise<RawRows[]> {
    const jobs: DecidedBlock[][] = [];
    let job: DecidedBlock[] = [];
    let events = 0;
    for (const { consumer, items } of batches) {
      for (const { sequence, verdicts, prepared } of eventsIn(items)) {
        const { block, refused } = prepared;
        const { incarnation } = consumer.state;
        job.push({ shard: consumer.shard, incarnation, sequence, block, verdicts, refused });
        events += block.count;
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
    const byVerdict = new Float64Array(VERDICTS.length);
    for (const { items } of batches) {
      for (const { verdicts, prepared } of eventsIn(items)) {
        for (const verdict of verdicts) byVerdict[verdict]! += 1;
        const lagMs = now - prepared.block.acceptedAtMs;
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

function eventsOf(item: Decided): number {
  return item.kind === 'events' ? item.verdicts.length : 1;
}

function eventsIn(items: readonly Decided[]): EventsItem[] {
  return items.filter((item) => item.kind === 'events');
}

function rowsOf(parts: readonly EncodedRows[]): number {
  return parts.reduce((sum, { rows }) => sum + rows, 0);
}

function withRows(parts: readonly Encoded[]): EncodedRows[] {
  return parts.flatMap(({ rows, body }) => (body === null ? [] : [{ rows, body }]));
}

function countersOf(shards: readonly CountersOfShard[]): number {
  return shards.reduce((sum, { counters }) => sum + counters.length, 0);
}

/** Must run before the blocks' memory goes to the workers: it reads the last message. */
function watermarkAfter(items: readonly Decided[], consumer: ShardConsumer): Watermark {
  const last = items.at(-1)!;
  const message = last.kind === 'events' ? new Uint8Array(last.prepared.block.identity.buffer) : last.message;
  const { incarnation, streamCreated } = consumer.state;
  for (const { prepared } of eventsIn(items)) {
    consumer.newestAcceptedMs = Math.max(consumer.newestAcceptedMs, soundTime(prepared.block.acceptedAtMs));
  }
  return {
    incarnation,
    sequence: last.sequence,
    streamCreated,
    fingerprint: fingerprintOf(message),
    acceptedAtMs: consumer.newestAcceptedMs,
  };
}
