/**
 * What must be in the tables, worked out a second time: one event after the other, with Maps and bigints. It shares
 * nothing with aggregator/ but the packing of a position.
 *
 * What it goes by is what was durable. A watermark that is in the table vouches for the messages that its sender had
 * been given up to there: those are judged, in the order of the log, and from that moment on every row that follows
 * from them must stand in the tables. When a new incarnation begins, the old one has ended at its last watermark; of
 * what it read behind that counts exactly what has a raw or a refused row by then. And whatever the new incarnation
 * does not read must have been counted.
 */
import type { MeterFilter } from '../../contract/meter.ts';
import { packPosition } from '../../contract/position.ts';
import { PATH_AMENDS, PATH_VOIDS } from '../../contract/corrections.ts';
import { nameOf, type Publication, type SentEvent } from './producer.ts';
import {
  counterKey,
  rollupKey,
  type CounterRow,
  type RawRow,
  type RefusedRow,
  type SimulatedTables,
  type StoredRollup,
  type WatermarkRow,
} from './simulated-tables.ts';
import type { SimulatedLog } from './simulated-log.ts';
import type { World } from './world.ts';

/** A message as a life was given it; null when it was missing in the log, undefined when the life never came there. */
export interface Reading {
  readonly sequence: number;
  readonly publication: Publication | null | undefined;
}

interface ModelMeter {
  readonly tenant: string;
  readonly key: string;
  readonly eventType: string;
  readonly property: string | null;
  readonly groupBy: readonly string[];
  readonly filters: readonly MeterFilter[];
  readonly groupsMax: number;
}

interface Expected {
  readonly position: bigint;
  readonly event: SentEvent | null;
  readonly verdict: string;
  readonly code: string;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const HOUR_MS = 3_600_000;

/** 10^-9 units of a decimal; null when it is none. */
function units(text: string): bigint | null {
  const match = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(text);
  if (match === null) return null;
  const value = BigInt(match[2]! + (match[3] ?? '').padEnd(9, '0'));
  return match[1] === '-' ? -value : value;
}

/** What an incarnation left behind its watermark. */
interface Landed {
  readonly rows: ReadonlyMap<bigint, RawRow | RefusedRow>;
  /** The processes that have read the message. */
  readonly readers: ReadonlySet<number>;
}

/** What an event adds to a rollup row. */
interface Contribution {
  readonly key: string;
  readonly value: bigint;
  readonly timeMs: number;
  readonly position: bigint;
  /** The position of the correction that took it out. */
  retiredAt: bigint | null;
}

/** A counted correction, and the position of what it retires; null for nothing. */
interface ModelCorrection {
  readonly event: SentEvent;
  readonly position: bigint;
  readonly retires: bigint | null;
}

class ModelShard {
  incarnation = 1;
  sequence = 0;
  /** Whether the incarnation has read anything yet. */
  hasRead = false;
  readonly judged = new Set<Publication>();
  readonly meters: ModelMeter[] = [];
  /** By name: what it said. */
  readonly counted = new Map<string, string>();
  /** By name: where it counted. */
  readonly positions = new Map<string, bigint>();
  readonly corrections = new Map<bigint, ModelCorrection>();
  /** By the name of the original, its newest correction. */
  readonly corrected = new Map<string, SentEvent>();
  /** By position of the event, and by row. */
  readonly added = new Map<bigint, Contribution[]>();
  readonly contributions = new Map<string, Contribution[]>();
  readonly raw = new Map<bigint, SentEvent>();
  readonly refused = new Map<bigint, Expected>();
  /** By meter and hour: the groups with rows of their own. */
  readonly groups = new Map<string, Set<string>>();
  readonly rollups = new Map<string, Mutable<StoredRollup>>();
  readonly counters = new Map<string, Mutable<Omit<CounterRow, 'position'>>>();
  /** What was judged, or written, since it was last found to be right: places of the tables. */
  readonly unproven = {
    raw: new Set<bigint>(),
    refused: new Set<bigint>(),
    rollups: new Set<string>(),
    counters: new Set<string>(),
  };
  /** By incarnation and sequence: what was read there, and by which processes, as far as they said so. */
  readonly readings = new Map<string, Map<Publication, Set<number>>>();
}

export class Model {
  readonly #world: World;
  readonly #tables: SimulatedTables;
  readonly #logs: readonly SimulatedLog[];
  readonly #shards: ModelShard[];
  readonly #rejected = new Set<string>();
  /** Of each event, what it says, as one text. */
  readonly #saying = new Map<SentEvent, string>();

  constructor(world: World, tables: SimulatedTables, logs: readonly SimulatedLog[]) {
    this.#world = world;
    this.#tables = tables;
    this.#logs = logs;
    this.#shards = logs.map(() => new ModelShard());
  }

  /** Somebody is about to say that he has read this there. */
  read(shard: number, incarnation: number, reader: number, { sequence, publication }: Reading): void {
    if (publication === undefined || publication === null) return;
    const { readings } = this.#shards[shard]!;
    const at = `${incarnation} ${sequence}`;
    let there = readings.get(at);
    if (there === undefined) readings.set(at, (there = new Map<Publication, Set<number>>()));
    const readers = there.get(publication);
    if (readers === undefined) there.set(publication, new Set([reader]));
    else readers.add(reader);
  }

  /** The sequence up to which watermarks of this incarnation vouch; Infinity when it is not the one. */
  vouchedTo(shard: number, incarnation: number): number {
    const own = this.#shards[shard]!;
    return own.incarnation === incarnation ? own.sequence : Infinity;
  }

  /** A watermark is in the table. */
  vouched({ shard, watermark }: WatermarkRow, read: readonly Reading[]): void {
    const own = this.#shards[shard]!;
    const { incarnation, sequence } = watermark;
    if (incarnation < own.incarnation) return;
    if (incarnation > own.incarnation) {
      this.#close(shard, own);
      own.incarnation = incarnation;
      own.sequence = sequence;
      own.hasRead = false;
    } else {
      for (const { sequence: at, publication } of read) {
        if (at <= own.sequence) continue;
        if (publication === undefined)
          return this.#fail(
            shard,
            `the watermark ${sequence} vouches for ${at}, which its sender never read`,
          );
        // What is missing may be passed over where an incarnation begins: that was noticed, and told.
        if (publication === null) {
          if (own.hasRead) this.#fail(shard, `the watermark ${sequence} passes over ${at}, which is missing`);
          continue;
        }
        own.hasRead = true;
        own.judged.add(publication);
        this.#judge(own, shard, sequenceOf(incarnation, at), publication, null);
      }
      own.sequence = Math.max(own.sequence, sequence);
    }
    this.#compare(shard, own, false);
  }

  /** Everything has come to rest: nothing may be missing, and nothing may stand there besides. */
  finish(published: readonly SentEvent[]): void {
    this.#shards.forEach((own, shard) => {
      const log = this.#logs[shard]!;
      if (own.sequence < log.lastSequence)
        this.#fail(shard, `it came to rest at ${own.sequence} of ${log.lastSequence}`);
      for (const message of log.messages) {
        if (message !== undefined && !own.judged.has(message.publication))
          this.#fail(shard, `the message at ${message.sequence} was skipped`);
      }
      this.#compare(shard, own, true);
    });
    const rows = new Map<string, number>();
    for (const { shard } of this.#logs) {
      for (const row of this.#tables.events.of(shard)) {
        const name = nameOfRow(row);
        rows.set(name, (rows.get(name) ?? 0) + 1);
      }
    }
    for (const event of published) {
      const name = nameOf(event);
      const count = rows.get(name) ?? 0;
      if (count > 1) this.#world.fail(`${name} has ${count} raw rows`);
      if (count === 0 && !this.#rejected.has(name))
        this.#world.fail(`${name} was published, and neither counted nor rejected`);
    }
  }

  /** The incarnation ends: behind its watermark counts what has a row. */
  #close(shard: number, own: ModelShard): void {
    const { incarnation, sequence } = own;
    const behind = [...own.readings]
      .map(([at, publications]) => ({ at: at.split(' ').map(Number) as [number, number], publications }))
      .filter(({ at }) => at[0] === incarnation && at[1] > sequence)
      .sort((a, b) => a.at[1] - b.at[1]);
    if (behind.length === 0) return;
    const landed = new Map<bigint, RawRow | RefusedRow>();
    for (const row of this.#tables.events.of(shard)) landed.set(row.position, row);
    for (const row of this.#tables.refused.of(shard)) landed.set(row.position, row);
    for (const { at, publications } of behind) {
      const place = sequenceOf(incarnation, at[1]);
      for (const [publication, readers] of publications)
        this.#judge(own, shard, place, publication, { rows: landed, readers });
    }
  }

  /** @param landed the rows that there are, and who has read this, when what has none is not judged. */
  #judge(
    own: ModelShard,
    shard: number,
    placeOf: (index: number) => bigint,
    { events, defined }: Publication,
    landed: Landed | null,
  ): void {
    if (defined !== null) return this.#define(own, shard, placeOf(0), defined, landed !== null);
    if (events.length === 0) {
      if (landed !== null && !landed.rows.has(placeOf(0))) return;
      this.#refuse(own, shard, {
        position: placeOf(0),
        event: null,
        verdict: 'rejected',
        code: 'block_unreadable',
      });
      return;
    }
    events.forEach((event, index) => {
      const position = placeOf(index);
      const row = landed?.rows.get(position);
      const { tenant } = event;
      const identity = nameOf(event);
      // What lost its place in the log may have left its row to another saying of the same event.
      const isDurable = landed === null || (row !== undefined && sameEvent(row, event));
      const says = this.#says(event);
      const known = own.counted.get(identity);
      if (known === says) {
        const counter = { tenant, shard, verdict: 'duplicate', code: '', position };
        // A duplicate leaves no row. It was judged if a counter that holds it is there, of a process that has read it.
        const wasJudged = (reader: number): boolean => this.#tables.hasCounted(counter, reader);
        if (landed === null || [...landed.readers].some(wasJudged))
          this.#count(own, shard, tenant, 'duplicate', '');
        return;
      }
      if (!isDurable) return;
      if (known !== undefined)
        return this.#refuse(own, shard, { position, event, verdict: 'conflict', code: '' });
      const meters = own.meters.filter(
        (one) => one.tenant === tenant && one.eventType === event.type && passes(one, event),
      );
      const values = meters.map(({ property }) => valueOf(event, property));
      const code = values.find((value) => typeof value === 'string');
      // Of a correction that left a row among raw rows it was known when it was judged what it corrects.
      const isRaw = row !== undefined && !('verdict' in row);
      const isAimless = event.corrects !== null && !isRaw && !own.counted.has(`${tenant}/${event.corrects}`);
      if (code !== undefined || isAimless) {
        this.#rejected.add(identity);
        const refusal = code ?? 'correction_target_unknown';
        this.#refuse(own, shard, { position, event, verdict: 'rejected', code: refusal });
        return;
      }
      own.counted.set(identity, says);
      own.positions.set(identity, position);
      own.raw.set(position, event);
      own.unproven.raw.add(position);
      this.#count(own, shard, tenant, 'counted', '');
      own.added.set(
        position,
        meters.map((meter, at) => this.#add(own, shard, meter, event, values[at] as bigint, position)),
      );
      if (event.corrects !== null) this.#correct(own, event, position);
    });
  }

  /** The first correction of an original takes it out, one behind an amendment takes that out. */
  #correct(own: ModelShard, event: SentEvent, position: bigint): void {
    const original = `${event.tenant}/${event.corrects!}`;
    const before = own.corrected.get(original);
    own.corrected.set(original, event);
    const name = before === undefined ? original : PATH_AMENDS in before.data ? nameOf(before) : null;
    const retires = name === null ? null : (own.positions.get(name) ?? null);
    own.corrections.set(position, { event, position, retires });
    for (const one of retires === null ? [] : own.added.get(retires)!) {
      one.retiredAt = position;
      this.#recount(own, one.key);
    }
  }

  /** The row's totals, from what still adds to it. */
  #recount(own: ModelShard, key: string): void {
    const row = own.rollups.get(key)!;
    row.value_count = 0n;
    row.value_sum = row.value_min = row.value_max = row.value_latest = 0n;
    row.latest_time = 0;
    row.latest_position = 0n;
    let newest = 0n;
    for (const { value, timeMs, position, retiredAt } of own.contributions.get(key)!) {
      const version = retiredAt ?? position;
      if (version > newest) newest = version;
      if (retiredAt === null) addTo(row, value, timeMs, position);
    }
    row.position = newest;
    own.unproven.rollups.add(key);
  }

  #add(
    own: ModelShard,
    shard: number,
    meter: ModelMeter,
    event: SentEvent,
    value: bigint,
    position: bigint,
  ): Contribution {
    const { tenant, subject, timeMs } = event;
    const hour = (Math.floor(timeMs / HOUR_MS) * HOUR_MS) / 1_000;
    const named = meter.groupBy.map((path) => event.data[path]?.text ?? '');
    const dimensions = this.#hasPlace(own, meter, hour, named) ? named : named.map(() => OVERFLOW);
    const row = { tenant, meter: meter.key, subject, hour, dimensions, shard, ...NOTHING };
    const key = rollupKey(row);
    const contribution: Contribution = { key, value, timeMs, position, retiredAt: null };
    const known = own.rollups.get(key);
    if (known === undefined) {
      own.rollups.set(key, row);
      own.contributions.set(key, [contribution]);
    } else own.contributions.get(key)!.push(contribution);
    addTo(known ?? row, value, timeMs, position);
    own.unproven.rollups.add(key);
    return contribution;
  }

  /** The first groups of an hour have rows of their own, also when none of their events is left. */
  #hasPlace(own: ModelShard, meter: ModelMeter, hour: number, dimensions: readonly string[]): boolean {
    if (dimensions.length === 0) return true;
    const of = `${meter.tenant} ${meter.key} ${hour}`;
    let groups = own.groups.get(of);
    if (groups === undefined) own.groups.set(of, (groups = new Set()));
    const group = dimensions.join('\n');
    if (groups.has(group)) return true;
    if (groups.size >= meter.groupsMax) return false;
    groups.add(group);
    return true;
  }

  #define(
    own: ModelShard,
    shard: number,
    position: bigint,
    { tenant, meter }: NonNullable<Publication['defined']>,
    onlyDurable: boolean,
  ): void {
    if (own.meters.some((one) => one.tenant === tenant && one.key === meter.key)) return;
    const isDurable = this.#tables.meters
      .of(shard)
      .some(
        ({ position: at, defined }) =>
          at === (position | 0xffffn) && defined.tenant === tenant && defined.meter.key === meter.key,
      );
    if (onlyDurable && !isDurable) return;
    if (!isDurable)
      this.#fail(shard, `a watermark vouches for the meter ${tenant}/${meter.key}, which is not there`);
    const { key, eventType, valueProperty: property, groupBy, filters = [], groupsMax = Infinity } = meter;
    own.meters.push({ tenant, key, eventType, property, groupBy, filters, groupsMax });
  }

  #refuse(own: ModelShard, shard: number, expected: Expected): void {
    own.refused.set(expected.position, expected);
    own.unproven.refused.add(expected.position);
    this.#count(own, shard, expected.event?.tenant ?? '', expected.verdict, expected.code);
  }

  #count(own: ModelShard, shard: number, tenant: string, verdict: string, code: string): void {
    this.#countOne(own, shard, tenant, verdict, code);
    this.#countOne(own, shard, tenant, '', '');
  }

  #countOne(own: ModelShard, shard: number, tenant: string, verdict: string, code: string): void {
    const key = counterKey({ tenant, verdict, code });
    const known = own.counters.get(key);
    if (known === undefined) own.counters.set(key, { shard, tenant, verdict, code, count: 1 });
    else known.count += 1;
    own.unproven.counters.add(key);
  }

  #says(event: SentEvent): string {
    let says = this.#saying.get(event);
    if (says === undefined) {
      // In whatever order its fields stand.
      const data = Object.entries(event.data).sort(([a], [b]) => (a < b ? -1 : 1));
      says = JSON.stringify([event.type, event.subject, event.timeMs, data]);
      this.#saying.set(event, says);
    }
    return says;
  }

  /**
   * What was judged is there. What lies beyond the watermark is of a flush under way. Looked at is what was judged or
   * written since it was last found to be right, and at the end everything; and then nothing else may be there.
   */
  #compare(shard: number, own: ModelShard, all: boolean): void {
    const mark = sequenceOf(own.incarnation, own.sequence)(0xffff);
    const { events, refused, rollups, counters } = this.#tables;
    const { unproven } = own;
    prove(unproven.raw, events.takeChanged(shard), own.raw, all, (position, event) => {
      const row = events.at(shard, position);
      if (row === undefined || !sameEvent(row, event))
        this.#fail(
          shard,
          `the raw row of ${event.tenant}/${event.id} at ${show(position)} is ${row === undefined ? 'missing' : 'another'}`,
        );
      return true;
    });
    if (all && events.count(shard) !== own.raw.size)
      this.#fail(shard, `there are ${events.count(shard)} raw rows instead of ${own.raw.size}`);

    prove(unproven.refused, refused.takeChanged(shard), own.refused, all, (position, expected) => {
      const row = refused.at(shard, position);
      const { event, verdict, code } = expected;
      if (row?.verdict !== verdict || row.code !== code || (event !== null && !sameEvent(row, event)))
        this.#fail(
          shard,
          `the refused row at ${show(position)} (${verdict} ${code}) is ${row === undefined ? 'missing' : 'another'}`,
        );
      return true;
    });
    if (all && refused.count(shard) !== own.refused.size)
      this.#fail(shard, `there are ${refused.count(shard)} refused rows instead of ${own.refused.size}`);

    prove(unproven.rollups, rollups.takeChanged(shard), own.rollups, all, (key, expected) => {
      const row = rollups.get(shard, key);
      if (row !== undefined && row.position > mark && !all) return false;
      const differing = row === undefined ? ['all of it'] : differences(row, expected);
      if (differing.length > 0)
        this.#fail(shard, `the rollup row ${key.replaceAll('\n', ' ')} differs: ${differing.join(', ')}`);
      return true;
    });
    if (all && rollups.count(shard) !== own.rollups.size)
      this.#fail(shard, `there are ${rollups.count(shard)} rollup rows instead of ${own.rollups.size}`);

    prove(unproven.counters, counters.takeChanged(shard), own.counters, all, (key, { count }) => {
      const row = counters.get(shard, key);
      if (row !== undefined && row.position > mark && !all) return false;
      if (row?.count !== count)
        this.#fail(
          shard,
          `the counter ${key.trim() || 'received'} is ${row?.count ?? 'missing'} instead of ${count}`,
        );
      return true;
    });
    if (all) this.#compareCorrections(shard, own);
    if (all && counters.of(shard).filter(({ count }) => count > 0).length !== own.counters.size)
      this.#fail(shard, `there are ${counters.count(shard)} counters instead of ${own.counters.size}`);
  }

  #compareCorrections(shard: number, own: ModelShard): void {
    const { corrections, events } = this.#tables;
    const rows = new Map(corrections.of(shard).map((row) => [row.position, row]));
    for (const { event, position, retires } of own.corrections.values()) {
      const retired = retires === null ? '' : events.at(shard, retires)?.identity;
      if (rows.get(position)?.retired !== retired)
        this.#fail(
          shard,
          `the correction ${nameOf(event)} at ${show(position)} retires ${String(rows.get(position)?.retired)} instead of ${String(retired)}`,
        );
    }
    if (corrections.count(shard) !== own.corrections.size)
      this.#fail(
        shard,
        `there are ${corrections.count(shard)} rows of corrections instead of ${own.corrections.size}`,
      );
  }

  #fail(shard: number, what: string): void {
    this.#world.fail(`shard ${shard}: ${what}`);
  }
}

/** @param isDone looks at one expected row; false when it has to be looked at again. */
function prove<Place, Expected>(
  unproven: Set<Place>,
  changed: ReadonlySet<Place>,
  expected: ReadonlyMap<Place, Expected>,
  all: boolean,
  isDone: (place: Place, expected: Expected) => boolean,
): void {
  for (const place of all ? expected.keys() : changed) unproven.add(place);
  for (const place of unproven) {
    const one = expected.get(place);
    // What nobody expects is of a flush under way, or comes to be expected, or is found by the number of rows.
    if (one === undefined || isDone(place, one)) unproven.delete(place);
  }
}

const sequenceOf =
  (incarnation: number, sequence: number) =>
  (index: number): bigint =>
    packPosition(incarnation, sequence, index);

const show = (position: bigint): string =>
  `${position >> 56n}.${(position >> 16n) & 0xff_ffff_ffffn}.${position & 0xffffn}`;

const OVERFLOW = '__overflow__';

function passes({ filters }: ModelMeter, { data }: SentEvent): boolean {
  return filters.every((filter) => {
    const text = data[filter.property]?.text ?? '';
    return 'in' in filter ? filter.in.includes(text) : !filter.notIn.includes(text);
  });
}

/** The value that an event has for a meter, or the code of what refuses it. */
function valueOf(event: SentEvent, property: string | null): bigint | string {
  if (property === null) return 1_000_000_000n;
  const value = event.data[property];
  if (value === undefined) return 'meter_value_missing';
  return units(value.text) ?? 'meter_value_not_a_number';
}

const NOTHING = {
  value_count: 0n,
  value_sum: 0n,
  value_min: 0n,
  value_max: 0n,
  value_latest: 0n,
  latest_time: 0,
  latest_position: 0n,
  position: 0n,
};

function addTo(row: Mutable<StoredRollup>, value: bigint, timeMs: number, position: bigint): void {
  const isFirst = row.value_count === 0n;
  row.value_count += 1n;
  row.value_sum += value;
  if (isFirst || value < row.value_min) row.value_min = value;
  if (isFirst || value > row.value_max) row.value_max = value;
  if (timeMs >= row.latest_time) {
    row.value_latest = value;
    row.latest_time = timeMs;
    row.latest_position = position;
  }
  row.position = position;
}

function nameOfRow({ tenant, id, data }: RawRow | RefusedRow): string {
  return nameOf({ tenant, id, corrects: data[PATH_VOIDS] ?? data[PATH_AMENDS] ?? null });
}

function sameEvent(row: RawRow | RefusedRow, event: SentEvent): boolean {
  const { tenant, id, type, subject, timeMs, data } = event;
  if (row.tenant !== tenant || row.id !== id || row.type !== type) return false;
  if (row.subject !== subject || row.time !== timeMs) return false;
  const names = Object.keys(data);
  return (
    Object.keys(row.data).length === names.length &&
    names.every((name) => row.data[name] === data[name]!.text)
  );
}

const COMPARED = [
  'value_count',
  'value_sum',
  'value_min',
  'value_max',
  'value_latest',
  'latest_time',
  'latest_position',
  'position',
] as const;

function differences(row: StoredRollup, expected: StoredRollup): string[] {
  return COMPARED.filter((name) => row[name] !== expected[name]).map(
    (name) => `${name} is ${String(row[name])} instead of ${String(expected[name])}`,
  );
}
