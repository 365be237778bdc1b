/** The tables as a process sees them: every question and insert is a task of the world, with the fates of a network. */
import { DedupeIndex } from '../../aggregator/dedupe/index.ts';
import { FencedError } from '../../aggregator/fence.ts';
import type { StoredGroups } from '../../aggregator/group-book.ts';
import type { Beginning, Unfinished } from '../../aggregator/incarnation-rows.ts';
import type { LogMark } from '../../aggregator/log-mark.ts';
import type {
  CountersOfShard,
  EncodedRows,
  MarksOfShard,
  MeterAt,
  Ownership,
  Tables,
  WatermarkOfShard,
} from '../../aggregator/ports.ts';
import { packed, seenFrom } from '../../aggregator/position-in-shard.ts';
import { MeterRegistry } from '../../aggregator/registry.ts';
import {
  shardOf,
  type CorrectionRange,
  type Recount,
  type RecountScope,
  type SubjectHour,
} from '../../aggregator/recount.ts';
import type { RollupKey, StoredRollup as StoredKey } from '../../aggregator/rollup-key.ts';
import { storedVerdict, Tally } from '../../aggregator/tally.ts';
import type { Watermark } from '../../aggregator/watermark.ts';
import { formatIdentity } from '../../contract/identity.ts';
import { OVERFLOW_GROUP } from '../../contract/meter.ts';
import { endOfMessage, unpackPosition } from '../../contract/position.ts';
import { unscaleDecimal } from '../../contract/quantity.ts';
import type { Model, Reading } from './model.ts';
import { decodeNative } from './native-rows.ts';
import type { Publication } from './producer.ts';
import {
  rawRowOf,
  refusedRowOf,
  rollupKey,
  rollupRowOf,
  type CounterRow,
  type SimulatedTables,
  type StoredRollup,
  type WatermarkRow,
} from './simulated-tables.ts';
import type { Life, World } from './world.ts';

export interface TablesOfLifeOptions {
  readonly world: World;
  readonly life: Life;
  readonly tables: SimulatedTables;
  readonly model: Model;
  /** What the life was given last at a sequence of a log. */
  delivered(shard: number, sequence: number): Publication | null | undefined;
}

export class TablesOfLife implements Tables, Ownership {
  readonly #world: World;
  readonly #life: Life;
  readonly #tables: SimulatedTables;
  readonly #o: TablesOfLifeOptions;
  /** Epochs by shard. */
  readonly #claims = new Map<number, number>();
  /** By shard, the incarnation that this process is beginning. */
  readonly #began = new Map<number, Watermark>();

  constructor(o: TablesOfLifeOptions) {
    this.#o = o;
    this.#world = o.world;
    this.#life = o.life;
    this.#tables = o.tables;
  }

  // ---- ownership: the steps of owners.ts

  async takeOver(shard: number, epochAtLeast: number, signal: AbortSignal): Promise<number> {
    this.#claims.delete(shard);
    const { number: owner } = this.#life;
    const known = await this.#ask(`owner of ${shard}`, () => this.#tables.ownerOf(shard)?.epoch ?? 0);
    const epoch = Math.max(epochAtLeast, known + 1);
    await this.#world.insert(this.#life, 'owners', [{ shard, epoch, owner }], this.#tables.putOwner);
    const before = await this.runningInserts();
    while (before.size > 0) {
      await this.#world.sleep(this.#life, 100, signal);
      const now = await this.runningInserts();
      for (const id of before) if (!now.has(id)) before.delete(id);
    }
    const newest = await this.#ask(`owner of ${shard}`, () => this.#tables.ownerOf(shard));
    if (newest?.epoch !== epoch || newest.owner !== owner) throw new FencedError([shard]);
    this.#claims.set(shard, epoch);
    return epoch;
  }

  giveUp(shard: number): void {
    this.#claims.delete(shard);
  }

  // ---- questions

  loadWatermark(shard: number): Promise<Watermark | null> {
    return this.#ask('watermark', () => this.#tables.watermarks.get(shard, '')?.watermark ?? null);
  }

  loadCountedTo(shard: number): Promise<number> {
    return this.#ask('counted to', () => {
      const positions = this.#tables.counters
        .of(shard)
        .filter(({ verdict }) => verdict === '')
        .map(({ position }) => position);
      const mark = this.#tables.watermarks.get(shard, '')?.position;
      if (mark !== undefined) positions.push(mark);
      return unpackPosition(positions.reduce((most, one) => (one > most ? one : most), 0n)).sequence;
    });
  }

  loadRegistry(shard: number, watermark: Watermark): Promise<MeterRegistry> {
    // The first question behind the beginning of an incarnation: from here on it is read.
    this.#began.delete(shard);
    return this.#ask('registry', () => {
      const until = endOfMessage(watermark.incarnation, watermark.sequence);
      const registry = new MeterRegistry();
      const rows = this.#tables.meters.of(shard).filter(({ position }) => position <= until);
      rows.sort((a, b) => (a.position < b.position ? -1 : 1));
      for (const { defined } of rows) registry.load(defined);
      return registry;
    });
  }

  loadTally(shard: number, incarnation: number): Promise<Tally> {
    return this.#ask('tally', () => {
      const tally = new Tally();
      for (const { tenant, verdict, code, count, position } of this.#tables.counters.of(shard)) {
        const of = verdict === '' ? ({ verdict: '', code: '' } as const) : storedVerdict(verdict, code);
        tally.load({ tenant, ...of, count, position: seenFrom(incarnation, position) });
      }
      return tally;
    });
  }

  loadLastHour(shard: number): Promise<number> {
    return this.#ask('last hour', () =>
      Math.max(-1, ...this.#tables.rollups.of(shard).map(({ hour }) => hour)),
    );
  }

  loadRollups(shard: number, keys: readonly RollupKey[]): Promise<StoredKey[]> {
    return this.#ask('rollups', () => {
      return keys.flatMap((key) => {
        const row = this.#tables.rollups.get(shard, rollupKey({ ...key, hour: key.hourSeconds }));
        return row === undefined ? [] : [storedOf(row)];
      });
    });
  }

  loadGroups(shard: number, meterHours: readonly string[]): Promise<StoredGroups> {
    return this.#ask('groups', () => {
      const groups = new Map<string, string[]>();
      for (const { tenant, meter, hour, dimensions } of this.#tables.rollups.of(shard)) {
        const of = JSON.stringify([tenant, meter, hour]);
        if (!meterHours.includes(of) || dimensions.length === 0 || dimensions.includes(OVERFLOW_GROUP))
          continue;
        groups.set(of, [...(groups.get(of) ?? []), JSON.stringify(dimensions)]);
      }
      return groups;
    });
  }

  loadIndex(shard: number, incarnation: number, keysMax: number): Promise<DedupeIndex> {
    return this.#ask('index', () => {
      const rows = this.#tables.events.of(shard).sort((a, b) => (a.position < b.position ? -1 : 1));
      const index = new DedupeIndex(keysMax, rows.length);
      const hot = rows.slice(-2 * index.generationKeys);
      for (const { identity } of rows.slice(0, -hot.length)) index.loadCold(wordsOf(identity), 0);
      const middle = Math.max(0, hot.length - index.generationKeys);
      hot.forEach(({ identity, position, payload_hash }, at) => {
        if (at === middle && at > 0) index.seal();
        index.load(wordsOf(identity), 0, seenFrom(incarnation, position), hashOf(payload_hash), 0);
      });
      return index;
    });
  }

  lookUpIdentities(
    shard: number,
    incarnation: number,
    identities: Uint32Array,
    events: readonly number[],
    index: DedupeIndex,
  ): Promise<void> {
    // As the question was asked: the caller's memory may have gone elsewhere when it is answered.
    const wanted = new Set(events.map((event) => formatIdentity(identities, event * 4).replaceAll('-', '')));
    return this.#ask('identities', () => {
      for (const { identity, position, payload_hash } of this.#tables.events.of(shard)) {
        if (wanted.has(identity))
          index.put(wordsOf(identity), 0, seenFrom(incarnation, position), hashOf(payload_hash), 0);
      }
    });
  }

  loadBeginnings(shard: number): Promise<Beginning[]> {
    return this.#ask('beginnings', () =>
      this.#tables.beginnings
        .of(shard)
        .map(({ beginning }) => beginning)
        .sort((a, b) => a.watermark.incarnation - b.watermark.incarnation),
    );
  }

  loadNewestMark(shard: number, incarnation: number): Promise<LogMark | null> {
    return this.#ask('newest mark', () => {
      let newest: LogMark | null = null;
      for (const row of this.#tables.marks) {
        if (row.shard !== shard || row.incarnation !== incarnation) continue;
        const last = row.marks.at(-1)!;
        if (newest === null || last.sequence > newest.sequence) newest = last;
      }
      return newest;
    });
  }

  loadFirstMarks(shard: number, behind: ReadonlyMap<number, number>): Promise<Map<number, number>> {
    return this.#ask('first marks', () => {
      const first = new Map<number, number>();
      for (const row of this.#tables.marks) {
        const began = behind.get(row.incarnation);
        const sequence = row.marks[0]!.sequence;
        if (row.shard !== shard || began === undefined || sequence <= began) continue;
        first.set(row.incarnation, Math.min(sequence, first.get(row.incarnation) ?? Infinity));
      }
      return first;
    });
  }

  loadMarks(shard: number, from: number, to: number): Promise<{ incarnation: number; mark: LogMark }[]> {
    return this.#ask(`marks from ${from} to ${to}`, () =>
      this.#tables.marks.flatMap((row) => {
        if (row.shard !== shard) return [];
        const marks = row.marks.filter(({ sequence }) => sequence >= from && sequence <= to);
        return marks.map((mark) => ({ incarnation: row.incarnation, mark }));
      }),
    );
  }

  countUnfinished(rows: Unfinished): Promise<{ events: number; until: number }> {
    return this.#ask('unfinished', () => {
      const { raw, refused } = this.#tables.behind(rows);
      const positions = [...raw, ...refused].map(({ position }) => position);
      const top = positions.reduce((most, one) => (one > most ? one : most), 0n);
      return { events: new Set(positions).size, until: unpackPosition(top).sequence };
    });
  }

  loadRetired(range: CorrectionRange): Promise<SubjectHour[]> {
    return this.#ask('retired', () => {
      const rows = this.#tables.retired(range);
      return rows.map(({ tenant, subject, hour }) => ({ tenant, subject, hourSeconds: hour }));
    });
  }

  loadScope(scope: RecountScope): Promise<StoredKey[]> {
    return this.#ask('scope', () => {
      if (scope.kind === 'meter') throw new Error('teach bench/simulate/tables-of-life.ts to load a meter');
      const textOf = (tenant: string, subject: string, hour: number): string =>
        `${tenant}\n${subject}\n${hour}`;
      const retired = this.#tables.retired(scope.range);
      const hours = new Set(retired.map(({ tenant, subject, hour }) => textOf(tenant, subject, hour)));
      return this.#tables.rollups
        .of(shardOf(scope))
        .filter(({ tenant, subject, hour }) => hours.has(textOf(tenant, subject, hour)))
        .map(storedOf);
    });
  }

  runningInserts(): Promise<Set<string>> {
    return this.#ask('running inserts', () => new Set(this.#world.running));
  }

  // ---- inserts

  async finishIncarnation(rows: Unfinished): Promise<void> {
    const { shard, behind, until } = rows;
    const tables = this.#tables;
    const put = (row: CounterRow): void => tables.putCounter(row, this.#life.number);
    // The closing position itself is no event's.
    const range: CorrectionRange = { shard, behind, until: until - 1n, originalsFrom: 0n };
    if (tables.guards.settle) await this.settleCorrections(range);
    await this.recount({ scope: { kind: 'unfinished', range }, until: range.until, overflowing: [] });
    // Each is worked out where it is written, when it is.
    await this.#insertSelect('finish verdicts', shard, () => tables.finishedVerdicts(rows), put);
    await this.#insertSelect('finish received', shard, () => tables.finishedReceived(rows), put);
  }

  settleCorrections(range: CorrectionRange): Promise<void> {
    const { put } = this.#tables.corrections;
    return this.#insertSelect('corrections', range.shard, () => this.#tables.settled(range), put);
  }

  recount(what: Recount): Promise<void> {
    const { put } = this.#tables.rollups;
    return this.#insertSelect('recount', shardOf(what.scope), () => this.#tables.recounted(what), put);
  }

  saveBeginning(shard: number, beginning: Beginning, nowMs: number): Promise<void> {
    this.#began.set(shard, beginning.watermark);
    const rows = [{ shard, beginning, beganAtMs: nowMs }];
    return this.#insert(`incarnation ${beginning.watermark.incarnation}`, rows, this.#tables.beginnings.put);
  }

  insertMarks(marks: readonly MarksOfShard[]): Promise<void> {
    const rows = marks.map((one) => ({
      ...one,
      marks: one.marks.map(({ sequence, timeMs, checksum }) => ({ sequence, timeMs, checksum })),
    }));
    for (const { shard, incarnation, marks: read } of rows) {
      const began = this.#began.get(shard);
      for (const { sequence } of read) {
        // Behind which message an incarnation begins is marked, too: that one was read in an earlier one, if at all.
        if (began?.incarnation === incarnation && sequence <= began.sequence) continue;
        this.#o.model.read(shard, incarnation, this.#life.number, {
          sequence,
          publication: this.#o.delivered(shard, sequence),
        });
      }
    }
    return this.#insert('log_marks', rows, (row) => void this.#tables.marks.push(row));
  }

  insertEvents(parts: readonly EncodedRows[], shards: readonly number[]): Promise<void> {
    return this.#insertNative('events', parts, shards, rawRowOf, this.#tables.events.put);
  }

  insertRefused(parts: readonly EncodedRows[], shards: readonly number[]): Promise<void> {
    return this.#insertNative('refused_events', parts, shards, refusedRowOf, this.#tables.refused.put);
  }

  insertRollups(parts: readonly EncodedRows[], shards: readonly number[]): Promise<void> {
    return this.#insertNative('rollup_hour', parts, shards, rollupRowOf, this.#tables.rollups.put);
  }

  insertMeters(meters: readonly MeterAt[]): Promise<void> {
    return this.#insert('meters', meters, this.#tables.meters.put);
  }

  insertBackfills(): Promise<void> {
    throw new Error('teach bench/simulate/tables-of-life.ts to keep backfills');
  }

  /** Here the rules follow from the meters whenever they are asked for. */
  async refreshRules(): Promise<void> {}

  insertReceived(counters: readonly CountersOfShard[]): Promise<void> {
    return this.#insertCounters('received_totals', counters);
  }

  insertVerdicts(counters: readonly CountersOfShard[]): Promise<void> {
    return this.#insertCounters('verdict_totals', counters);
  }

  insertWatermarks(watermarks: readonly WatermarkOfShard[]): Promise<void> {
    const { model } = this.#o;
    const rows = watermarks.map(({ shard, watermark }) => {
      const { incarnation, sequence } = watermark;
      const row: WatermarkRow = { shard, position: endOfMessage(incarnation, sequence), watermark };
      // What it vouches for is what its sender has read, now.
      const from = model.vouchedTo(shard, incarnation) + 1;
      const read: Reading[] = [];
      for (let at = from; at <= sequence; at++)
        read.push({ sequence: at, publication: this.#o.delivered(shard, at) });
      return { shard, row, read };
    });
    const what = `watermarks ${watermarks.map(({ shard, watermark: { incarnation, sequence } }) => `${shard}:${incarnation}.${sequence}`).join(' ')}`;
    return this.#insert(what, rows, ({ row, read }) => {
      this.#tables.watermarks.put(row);
      model.vouched(row, read);
    });
  }

  #insertCounters(what: string, counters: readonly CountersOfShard[]): Promise<void> {
    const rows = counters.flatMap(({ shard, incarnation, counters: own }) =>
      own.map(({ tenant, verdict, code, count, position }): CounterRow => {
        return { shard, tenant, verdict, code, count, position: packed(incarnation, position) };
      }),
    );
    return this.#insert(what, rows, (row) => this.#tables.putCounter(row, this.#life.number));
  }

  #insertNative<Row>(
    what: string,
    parts: readonly EncodedRows[],
    shards: readonly number[],
    rowOf: (row: ReturnType<typeof decodeNative>[number]) => Row,
    put: (row: Row) => void,
  ): Promise<void> {
    const rows = parts.flatMap(({ body, rows: count }) => {
      const decoded = decodeNative(body);
      if (decoded.length !== count)
        this.#world.fail(`${what}: ${decoded.length} rows in a body for ${count}`);
      return decoded.map(rowOf);
    });
    return this.#fenced(what, shards, () => rows, put);
  }

  #insert<Row extends { readonly shard: number }>(
    what: string,
    rows: readonly Row[],
    put: (row: Row) => void,
  ): Promise<void> {
    const shards = rows.map(({ shard }) => shard);
    return this.#fenced(what, shards, () => rows, put);
  }

  #insertSelect<Row>(
    what: string,
    shard: number,
    select: () => readonly Row[],
    put: (row: Row) => void,
  ): Promise<void> {
    return this.#fenced(what, [shard], select, put);
  }

  #fenced<Row>(
    what: string,
    shards: readonly number[],
    rows: () => readonly Row[],
    put: (row: Row) => void,
  ): Promise<void> {
    const claims = [...new Set(shards)].map((shard) => ({ shard, epoch: this.#claims.get(shard) }));
    const refusal = (): Error | null => {
      if (!this.#tables.guards.epoch) return null;
      const isOurs = claims.every(({ shard, epoch }) => {
        const newest = this.#tables.ownerOf(shard);
        return newest?.epoch === epoch && newest?.owner === this.#life.number;
      });
      return isOurs ? null : new FencedError(shards);
    };
    return this.#world.insert(this.#life, what, rows, put, refusal);
  }

  #ask<T>(what: string, answer: () => T): Promise<T> {
    return this.#world.ask(this.#life, what, answer);
  }
}

function storedOf(row: StoredRollup): StoredKey {
  const { tenant, meter, subject, hour: hourSeconds, dimensions } = row;
  return {
    tenant,
    meter,
    subject,
    hourSeconds,
    dimensions,
    value_count: String(row.value_count),
    value_sum: unscaleDecimal(row.value_sum, 9),
    value_min: unscaleDecimal(row.value_min, 9),
    value_max: unscaleDecimal(row.value_max, 9),
    value_latest: unscaleDecimal(row.value_latest, 9),
    latest_time_ms: String(row.latest_time),
    latest_position: String(row.latest_position),
    position: String(row.position),
  };
}

function wordsOf(identity: string): Uint32Array {
  return Uint32Array.from([0, 8, 16, 24], (at) => Number.parseInt(identity.slice(at, at + 8), 16));
}

function hashOf(payload: bigint): Uint32Array {
  return Uint32Array.of(Number(payload & 0xffff_ffffn), Number(payload >> 32n));
}
