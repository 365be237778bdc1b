/**
 * Makes decided blocks durable, for all shards of the process at once: few large inserts instead of many
 * small ones. One flush is written at a time, so watermarks only rise; meanwhile the logs are read on, and the
 * next flush is folded and encoded.
 *
 * When: at once if the last one began an interval ago, so that a lone event is visible within milliseconds;
 * else when the interval is over; earlier when enough has come together for one flush.
 *
 * The order of the steps is the guarantee; a crash after each is told beside it. Every row's version is a
 * position of the log, so repeating a step, or the whole flush after a restart, writes the same rows.
 */
import type { MeterDefined } from '../contract/control.ts';
import { endOfMessage } from '../contract/position.ts';
import type { FlushNotice } from '../contract/notice.ts';
import { FLUSH_NOTICE } from '../contract/subjects.ts';
import { VERDICTS } from '../contract/verdicts.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { NatsLink } from '../runtime/nats.ts';
import type { Backlog } from './backlog.ts';
import type { Decided, ShardConsumer } from './consume.ts';
import { foldBlock } from './fold.ts';
import { marksRow } from './incarnation-store.ts';
import type { Measurements } from './measurements.ts';
import type { Patience } from './patience.ts';
import {
  encodeUnreadable,
  EVENT_COLUMNS,
  REFUSED_COLUMNS,
  soundTime,
  type DecidedBlock,
  type RawRows,
  type UnreadableMessage,
} from './raw-rows.ts';
import { encodeRollups, ROLLUP_COLUMNS } from './rollup-columns.ts';
import { RollupRow } from './rollup-row.ts';
import { counterRows, INSERT_SETTINGS, loadRollups, meterRow, watermarkRow } from './store.ts';
import { fingerprintOf, type Watermark } from './watermark.ts';
import type { Workers } from './workers.ts';

export interface FlushOptions {
  readonly ch: ClickHouse;
  readonly link: NatsLink;
  readonly workers: Workers;
  readonly backlog: Backlog;
  readonly patience: Patience;
  readonly measurements: Measurements;
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs: number;
  readonly eventsMax: number;
  /** Called after each watermark, with what of a log is behind it. */
  onWatermark(shard: number, watermark: Watermark, bytes: number): void;
}

interface Batch {
  readonly consumer: ShardConsumer;
  readonly items: readonly Decided[];
}

type EventsItem = Extract<Decided, { kind: 'events' }>;

/** What a flush writes, gathered from its batches. */
interface Derived {
  rollups: { bodies: Uint8Array[]; rows: number };
  unreadable: UnreadableMessage[];
  received: object[];
  verdicts: object[];
  meters: object[];
  watermarks: { consumer: ShardConsumer; watermark: Watermark; bytes: number }[];
}

interface Gathered {
  readonly batches: readonly Batch[];
  readonly derived: Derived;
  readonly raw: readonly RawRows[];
}

/** Events encoded in one job of a worker. */
const ENCODE_EVENTS = 50_000;

export class Flusher {
  readonly #options: FlushOptions;
  readonly #consumers: readonly ShardConsumer[];
  #mark = 0;
  #startedMs = -Infinity;
  #wake: () => void = () => {};
  #timer: NodeJS.Timeout | undefined;
  #failed: { readonly error: unknown } | undefined;

  constructor(consumers: readonly ShardConsumer[], options: FlushOptions) {
    this.#consumers = consumers;
    this.#options = options;
  }

  /** Something was decided. */
  notice(): void {
    this.#wake();
  }

  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    let writing = Promise.resolve();
    while (!signal.aborted) {
      if (this.#failed !== undefined) throw this.#failed.error;
      const waitMs = this.#dueInMs();
      if (waitMs > 0) {
        await this.#noticed(waitMs);
        continue;
      }
      this.#startedMs = performance.now();
      // The next flush is folded and encoded while ClickHouse takes the last one.
      const gathered = await this.#gather(this.#take());
      await writing;
      writing = this.#write(gathered, this.#startedMs).catch((error: unknown) => {
        this.#failed = { error };
        this.#wake();
      });
    }
    await writing;
  }

  /** 0 when a flush is due, Infinity when there is nothing to flush. */
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
    const { backlog, eventsMax, intervalMs } = this.#options;
    if (events >= eventsMax || backlog.full) return 0;
    return Math.max(0, this.#startedMs + intervalMs - performance.now());
  }

  async #noticed(waitMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (waitMs !== Infinity) this.#timer = setTimeout(resolve, Math.ceil(waitMs));
    });
    clearTimeout(this.#timer);
  }

  /** Takes decided blocks off the shards, in log order, evenly, up to the bound of a flush. */
  #take(): Batch[] {
    const taken = this.#consumers.map((consumer) => ({ consumer, items: [] as Decided[] }));
    let events = 0;
    for (let more = true; more && events < this.#options.eventsMax;) {
      more = false;
      for (const { consumer, items } of taken) {
        const item = consumer.decided[items.length];
        if (item === undefined) continue;
        items.push(item);
        events += eventsOf(item);
        more = true;
      }
    }
    for (const { consumer, items } of taken) consumer.decided.splice(0, items.length);
    return taken.filter(({ items }) => items.length > 0);
  }

  /**
   * Everything that a flush needs before its first insert. What it writes of its own is which messages were read:
   * a crash after that leaves marks of messages that are read again.
   */
  async #gather(batches: readonly Batch[]): Promise<Gathered> {
    const marked = this.#insertRows(
      'log_marks',
      batches.map(({ consumer, items }) =>
        marksRow(consumer.shard, consumer.state.incarnation, items, this.#options.clock.now()),
      ),
    );
    // A failure is met below; until then it must not count as unhandled.
    marked.catch(() => {});
    const rows = await this.#rowsOf(batches);
    const derived = this.#derive(batches, rows);
    const raw = await this.#encodeRaw(batches);
    await marked;
    return { batches, derived, raw };
  }

  async #write({ batches, derived, raw }: Gathered, startedMs: number): Promise<void> {
    const { ch, patience, measurements } = this.#options;

    // 1. Raw rows: the truth comes first, with the definitions that it is read with. The marks of the messages
    //    are there already. A crash after this reads the same events again, finds them in the index at their own
    //    positions, and writes them again as the same rows. Should the broker have lost the messages by then, the
    //    marks tell, and these rows are what the next step is made up from (incarnation.ts).
    const events = raw.flatMap((part) => (part.events.body === null ? [] : [part.events]));
    await Promise.all([
      this.#insert('events', EVENT_COLUMNS, events),
      this.#insertRows('meters', derived.meters),
    ]);

    // 2. What follows from the log up to here, each table for itself: rollups, refusals, counters. A crash
    //    leaves some of it at positions beyond the watermark. All of it is absolute: the replay finds those
    //    positions in the rows and adds nothing, and writes what is missing.
    const refused = raw.flatMap((part) => (part.refused.body === null ? [] : [part.refused]));
    if (derived.unreadable.length > 0) {
      refused.push({ rows: derived.unreadable.length, body: encodeUnreadable(derived.unreadable) });
    }
    await Promise.all([
      this.#insert(
        'rollup_hour',
        ROLLUP_COLUMNS,
        derived.rollups.bodies.map((body, at) => ({ body, rows: at === 0 ? derived.rollups.rows : 0 })),
      ),
      this.#insert('refused_events', REFUSED_COLUMNS, refused),
      this.#insertRows('received_totals', derived.received),
      this.#insertRows('verdict_totals', derived.verdicts),
    ]);

    // 3. The watermark: from now on a restart begins behind these messages. It vouches for everything above,
    //    so it is written only after all of it was acknowledged.
    const flushedAtMs = this.#options.clock.now();
    await patience.until('watermarks', () =>
      ch.insertJson(
        'watermarks',
        derived.watermarks.map(({ consumer, watermark }) =>
          watermarkRow(consumer.shard, watermark, flushedAtMs),
        ),
      ),
    );
    measurements.rows.inc({ table: 'watermarks' }, derived.watermarks.length);

    // 4. Tell. A crash before this delays the ledger until it asks by itself.
    this.#tell(batches, derived);
    measurements.flush.observe((performance.now() - startedMs) / 1_000);
  }

  /**
   * The rollup row of every key of every block, from memory, from ClickHouse, or new. Only keys that may be
   * in ClickHouse and are not in memory are asked for, all at once.
   */
  async #rowsOf(batches: readonly Batch[]): Promise<Map<EventsItem, RollupRow[]>> {
    const { ch, patience } = this.#options;
    const rows = new Map<EventsItem, RollupRow[]>();
    for (const { consumer, items } of batches) {
      const { rollups, incarnation } = consumer.state;
      const asked = new Set<string>();
      for (const item of eventsIn(items)) {
        for (const key of item.prepared.contributions.keys) {
          if (rollups.get(key) !== undefined || asked.has(key)) continue;
          const row = new RollupRow(key);
          if (rollups.mustBeNew(row.parts.hourSeconds)) rollups.add(row);
          else asked.add(key);
        }
      }
      if (asked.size > 0) {
        const stored = await patience.until('rollups of a flush', () =>
          loadRollups(ch, consumer.shard, incarnation, [...asked]),
        );
        for (const row of stored) {
          rollups.add(row);
          asked.delete(row.key);
        }
        for (const key of asked) rollups.add(new RollupRow(key));
      }
      for (const item of eventsIn(items)) {
        const { keys } = item.prepared.contributions;
        rows.set(
          item,
          keys.map((key) => rollups.get(key)!),
        );
      }
    }
    return rows;
  }

  /** Folds and counts, and gathers what is to be written besides the raw rows. */
  #derive(batches: readonly Batch[], rows: ReadonlyMap<EventsItem, readonly RollupRow[]>): Derived {
    const mark = ++this.#mark;
    const derived: Derived = {
      rollups: { bodies: [], rows: 0 },
      unreadable: [],
      received: [],
      verdicts: [],
      meters: [],
      watermarks: [],
    };
    for (const { consumer, items } of batches) {
      const { shard, state } = consumer;
      const { incarnation, tally } = state;
      const touched: RollupRow[] = [];
      let bytes = 0;
      for (const item of items) {
        bytes += item.bytes;
        if (item.kind === 'events') {
          const { block, contributions } = item.prepared;
          const { sequence, verdicts } = item;
          foldBlock(
            { incarnation, sequence, time: block.time, verdicts, contributions },
            rows.get(item)!,
            mark,
            touched,
          );
          tally.countBlock(item.prepared, verdicts, sequence);
        } else if (item.kind === 'unreadable') {
          const { sequence, timeMs, message } = item;
          derived.unreadable.push({ shard, incarnation, sequence, timeMs, message });
          tally.countUnreadable(sequence);
        } else if (item.defined !== null) {
          derived.meters.push(meterOf(shard, incarnation, item.sequence, item.defined));
        }
      }
      if (touched.length > 0) {
        derived.rollups.bodies.push(encodeRollups(shard, incarnation, touched));
        derived.rollups.rows += touched.length;
      }
      const counters = counterRows(shard, incarnation, tally.takeChanged());
      derived.received.push(...counters.received);
      derived.verdicts.push(...counters.verdicts);
      derived.watermarks.push({ consumer, watermark: watermarkAfter(items, consumer), bytes });
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

  /** One insert of several Native blocks. */
  async #insert(
    table: string,
    columns: readonly string[],
    parts: readonly { readonly rows: number; readonly body: Uint8Array | null }[],
  ): Promise<void> {
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    if (rows === 0) return;
    const bodies = parts.map(({ body }) => body!);
    const { ch, patience, measurements } = this.#options;
    await patience.until(table, () => ch.insertNative(table, columns, bodies, rows, INSERT_SETTINGS));
    measurements.rows.inc({ table }, rows);
  }

  async #insertRows(table: string, rows: readonly object[]): Promise<void> {
    if (rows.length === 0) return;
    const { ch, patience, measurements } = this.#options;
    await patience.until(table, () => ch.insertJson(table, rows));
    measurements.rows.inc({ table }, rows.length);
  }

  #tell(batches: readonly Batch[], derived: Derived): void {
    const { link, backlog, measurements, onWatermark, log } = this.#options;
    for (const { consumer, watermark, bytes } of derived.watermarks) {
      consumer.state.rollups.trim();
      consumer.reached(watermark);
      backlog.release(bytes);
      const position = endOfMessage(watermark.incarnation, watermark.sequence).toString();
      const notice: FlushNotice = { shard: consumer.shard, position };
      try {
        link.nc.publish(FLUSH_NOTICE, new TextEncoder().encode(JSON.stringify(notice)));
      } catch (error) {
        log.debug({ error }, 'a flush notice was not sent');
      }
      onWatermark(consumer.shard, watermark, bytes);
    }
    const now = this.#options.clock.now();
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

function meterOf(shard: number, incarnation: number, sequence: number, defined: MeterDefined): object {
  return meterRow(shard, endOfMessage(incarnation, sequence), defined);
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
