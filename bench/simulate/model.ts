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
import { packPosition } from '../../contract/position.ts';
import type { Publication, SentEvent } from './producer.ts';
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

/** A message as a life was given it; undefined when it never was. */
export interface Reading {
  readonly sequence: number;
  readonly publication: Publication | undefined;
}

interface ModelMeter {
  readonly tenant: string;
  readonly key: string;
  readonly eventType: string;
  readonly property: string | null;
  readonly groupBy: readonly string[];
}

interface Expected {
  readonly position: bigint;
  readonly event: SentEvent | null;
  readonly verdict: string;
  readonly code: string;
}

const HOUR_MS = 3_600_000;

/** 10^-9 units of a decimal; null when it is none. */
function units(text: string): bigint | null {
  const match = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(text);
  if (match === null) return null;
  const value = BigInt(match[2]! + (match[3] ?? '').padEnd(9, '0'));
  return match[1] === '-' ? -value : value;
}

class ModelShard {
  incarnation = 1;
  sequence = 0;
  readonly judged = new Set<Publication>();
  readonly meters: ModelMeter[] = [];
  /** By tenant and id: what it said. */
  readonly counted = new Map<string, string>();
  readonly raw = new Map<bigint, SentEvent>();
  readonly refused = new Map<bigint, Expected>();
  readonly rollups = new Map<string, StoredRollup>();
  readonly counters = new Map<string, Omit<CounterRow, 'position'>>();
  /** By incarnation and sequence: what was read there, as far as anybody said that he had. */
  readonly readings = new Map<string, Set<Publication>>();
}

export class Model {
  readonly #world: World;
  readonly #tables: SimulatedTables;
  readonly #logs: readonly SimulatedLog[];
  readonly #shards: ModelShard[];
  readonly #rejected = new Set<string>();

  constructor(world: World, tables: SimulatedTables, logs: readonly SimulatedLog[]) {
    this.#world = world;
    this.#tables = tables;
    this.#logs = logs;
    this.#shards = logs.map(() => new ModelShard());
  }

  /** Somebody is about to say that he has read this there. */
  read(shard: number, incarnation: number, sequence: number, publication: Publication | undefined): void {
    // The message before an incarnation is marked with it, though it is not read in it.
    if (publication === undefined) return;
    const { readings } = this.#shards[shard]!;
    const at = `${incarnation} ${sequence}`;
    const there = readings.get(at);
    if (there === undefined) readings.set(at, new Set([publication]));
    else there.add(publication);
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
    } else {
      for (const { sequence: at, publication } of read) {
        if (at <= own.sequence) continue;
        if (publication === undefined)
          return this.#fail(
            shard,
            `the watermark ${sequence} vouches for ${at}, which its sender never read`,
          );
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
      for (const { sequence, publication } of log.messages) {
        if (!own.judged.has(publication)) this.#fail(shard, `the message at ${sequence} was skipped`);
      }
      this.#compare(shard, own, true);
    });
    const rows = new Map<string, number>();
    for (const { tenant, id } of this.#tables.events.rows.values())
      rows.set(`${tenant}/${id}`, (rows.get(`${tenant}/${id}`) ?? 0) + 1);
    for (const { tenant, id } of published) {
      const count = rows.get(`${tenant}/${id}`) ?? 0;
      if (count > 1) this.#world.fail(`${tenant}/${id} has ${count} raw rows`);
      if (count === 0 && !this.#rejected.has(`${tenant}/${id}`))
        this.#world.fail(`${tenant}/${id} was published, and neither counted nor rejected`);
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
      for (const publication of publications) this.#judge(own, shard, place, publication, landed);
    }
  }

  /** @param landed the rows that there are, when what has none is not judged. */
  #judge(
    own: ModelShard,
    shard: number,
    placeOf: (index: number) => bigint,
    { events, defined }: Publication,
    landed: ReadonlyMap<bigint, RawRow | RefusedRow> | null,
  ): void {
    if (defined !== null) return this.#define(own, shard, placeOf(0), defined, landed !== null);
    if (events.length === 0) {
      if (landed !== null && !landed.has(placeOf(0))) return;
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
      const row = landed?.get(position);
      const { tenant, id } = event;
      const identity = `${tenant}/${id}`;
      const isDurable = landed === null || (row?.tenant === tenant && row.id === id);
      const says = JSON.stringify([event.type, event.subject, event.timeMs, event.data]);
      const known = own.counted.get(identity);
      if (known === says) {
        const counter = { shard, tenant, verdict: 'duplicate', code: '', count: 0, position };
        // A duplicate leaves no row. It was judged if a counter that holds it is there.
        const reached = this.#tables.countersReached.get(`${position >> 56n} ${counterKey(counter)}`);
        if (landed === null || (reached !== undefined && reached >= position))
          this.#count(own, shard, tenant, 'duplicate', '');
        return;
      }
      if (!isDurable) return;
      if (known !== undefined)
        return this.#refuse(own, shard, { position, event, verdict: 'conflict', code: '' });
      const meters = own.meters.filter((one) => one.tenant === tenant && one.eventType === event.type);
      const values = meters.map(({ property }) => valueOf(event, property));
      const code = values.find((value) => typeof value === 'string');
      if (code !== undefined) {
        this.#rejected.add(identity);
        this.#refuse(own, shard, { position, event, verdict: 'rejected', code });
        return;
      }
      own.counted.set(identity, says);
      own.raw.set(position, event);
      this.#count(own, shard, tenant, 'counted', '');
      meters.forEach((meter, at) => addTo(own.rollups, shard, meter, event, values[at] as bigint, position));
    });
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
    const { key, eventType, valueProperty: property, groupBy } = meter;
    own.meters.push({ tenant, key, eventType, property, groupBy });
  }

  #refuse(own: ModelShard, shard: number, expected: Expected): void {
    own.refused.set(expected.position, expected);
    this.#count(own, shard, expected.event?.tenant ?? '', expected.verdict, expected.code);
  }

  #count(own: ModelShard, shard: number, tenant: string, verdict: string, code: string): void {
    for (const counter of [
      { shard, tenant, verdict, code, count: 1 },
      { shard, tenant, verdict: '', code: '', count: 1 },
    ]) {
      const key = counterKey({ ...counter, position: 0n });
      const known = own.counters.get(key);
      own.counters.set(key, known === undefined ? counter : { ...known, count: known.count + 1 });
    }
  }

  /** What was judged is there; `all`: and nothing else. What lies beyond the watermark is of a flush under way. */
  #compare(shard: number, own: ModelShard, all: boolean): void {
    const mark = sequenceOf(own.incarnation, own.sequence)(0xffff);
    const raw = this.#tables.events.of(shard);
    const byPosition = new Map(raw.map((row) => [row.position, row]));
    for (const [position, event] of own.raw) {
      const row = byPosition.get(position);
      if (row === undefined || !sameEvent(row, event))
        this.#fail(
          shard,
          `the raw row of ${event.tenant}/${event.id} at ${show(position)} is ${row === undefined ? 'missing' : 'another'}`,
        );
    }
    if (all && raw.length !== own.raw.size)
      this.#fail(shard, `there are ${raw.length} raw rows instead of ${own.raw.size}`);

    const refused = new Map(this.#tables.refused.of(shard).map((row) => [row.position, row]));
    for (const { position, event, verdict, code } of own.refused.values()) {
      const row = refused.get(position);
      if (row?.verdict !== verdict || row.code !== code || (event !== null && !sameEvent(row, event)))
        this.#fail(
          shard,
          `the refused row at ${show(position)} (${verdict} ${code}) is ${row === undefined ? 'missing' : 'another'}`,
        );
    }
    if (all && refused.size !== own.refused.size)
      this.#fail(shard, `there are ${refused.size} refused rows instead of ${own.refused.size}`);

    const rollups = new Map(this.#tables.rollups.of(shard).map((row) => [rollupKey(row), row]));
    for (const [key, expected] of own.rollups) {
      const row = rollups.get(key);
      if (row !== undefined && row.position > mark && !all) continue;
      const differing = row === undefined ? ['all of it'] : differences(row, expected);
      if (differing.length > 0) this.#fail(shard, `the rollup row ${key} differs: ${differing.join(', ')}`);
    }
    if (all && rollups.size !== own.rollups.size)
      this.#fail(shard, `there are ${rollups.size} rollup rows instead of ${own.rollups.size}`);

    const counters = new Map(this.#tables.counters.of(shard).map((row) => [counterKey(row), row]));
    for (const [key, { count }] of own.counters) {
      const row = counters.get(key);
      if (row !== undefined && row.position > mark && !all) continue;
      if (row?.count !== count)
        this.#fail(
          shard,
          `the counter ${key || 'received'} is ${row?.count ?? 'missing'} instead of ${count}`,
        );
    }
    if (all && [...counters.values()].filter(({ count }) => count > 0).length !== own.counters.size)
      this.#fail(shard, `there are ${counters.size} counters instead of ${own.counters.size}`);
  }

  #fail(shard: number, what: string): void {
    this.#world.fail(`shard ${shard}: ${what}`);
  }
}

const sequenceOf =
  (incarnation: number, sequence: number) =>
  (index: number): bigint =>
    packPosition(incarnation, sequence, index);

const show = (position: bigint): string =>
  `${position >> 56n}.${(position >> 16n) & 0xff_ffff_ffffn}.${position & 0xffffn}`;

/** The value that an event has for a meter, or the code of what refuses it. */
function valueOf(event: SentEvent, property: string | null): bigint | string {
  if (property === null) return 1_000_000_000n;
  const value = event.data[property];
  if (value === undefined) return 'meter_value_missing';
  return units(value.text) ?? 'meter_value_not_a_number';
}

function addTo(
  rollups: Map<string, StoredRollup>,
  shard: number,
  meter: ModelMeter,
  event: SentEvent,
  value: bigint,
  position: bigint,
): void {
  const row: StoredRollup = {
    tenant: event.tenant,
    meter: meter.key,
    subject: event.subject,
    hour: (Math.floor(event.timeMs / HOUR_MS) * HOUR_MS) / 1_000,
    dimensions: meter.groupBy.map((path) => event.data[path]?.text ?? ''),
    shard,
    value_count: 1n,
    value_sum: value,
    value_min: value,
    value_max: value,
    value_latest: value,
    latest_time: event.timeMs,
    latest_position: position,
    position,
  };
  const key = rollupKey(row);
  const old = rollups.get(key);
  if (old === undefined) {
    rollups.set(key, row);
    return;
  }
  const isLatest = event.timeMs >= old.latest_time;
  rollups.set(key, {
    ...old,
    value_count: old.value_count + 1n,
    value_sum: old.value_sum + value,
    value_min: value < old.value_min ? value : old.value_min,
    value_max: value > old.value_max ? value : old.value_max,
    ...(isLatest ? { value_latest: value, latest_time: event.timeMs, latest_position: position } : {}),
    position,
  });
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

function differences(row: StoredRollup, expected: StoredRollup): string[] {
  return (Object.keys(expected) as (keyof StoredRollup)[])
    .filter((name) => name !== 'dimensions' && row[name] !== expected[name])
    .map((name) => `${name} is ${String(row[name])} instead of ${String(expected[name])}`);
}
