// Reads absolute totals and changes from ClickHouse, through the views that the aggregator keeps.
import type { Aggregation } from '../contract/meter.ts';
import { storedQuantity, type Quantity } from '../contract/quantity.ts';
import { readTotals, type Totals } from '../contract/rollup.ts';
import type { Window } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';

/** Packed positions by shard. */
export type Positions = ReadonlyMap<number, bigint>;

export interface Watermark {
  readonly shard: number;
  readonly position: bigint;
  /** When the newest event behind it was accepted, epoch ms. */
  readonly acceptedAtMs: number;
}

export async function readWatermarks(ch: ClickHouse): Promise<Watermark[]> {
  const rows = await ch.rows<{ shard: number; position: string; acceptedAtMs: string }>(
    'SELECT shard, toString(position) AS position, toString(toUnixTimestamp64Milli(accepted_at)) AS acceptedAtMs FROM watermark ORDER BY shard',
  );
  return rows.map((row) => ({
    shard: Number(row.shard),
    position: BigInt(row.position),
    acceptedAtMs: Number(row.acceptedAtMs),
  }));
}

/** A subject whose rollups changed, and the hours between which they did. */
export interface ChangedSubject {
  readonly tenant: string;
  readonly subject: string;
  /** Start of the first and of the last changed hour of one calendar month, epoch ms. */
  readonly firstHourMs: number;
  readonly lastHourMs: number;
}

const CHANGES = `
  SELECT tenant, subject, toUnixTimestamp(min(hour)) AS first, toUnixTimestamp(max(hour)) AS last
  FROM usage_changes
  WHERE shard = {shard:UInt16} AND position > {after:UInt64} AND position <= {until:UInt64}
  GROUP BY tenant, subject, toStartOfMonth(hour)
  ORDER BY tenant, subject, first`;

export async function readChanges(
  ch: ClickHouse,
  o: { shard: number; after: bigint; until: bigint },
): Promise<ChangedSubject[]> {
  const rows = await ch.rows<{
    tenant: string;
    subject: string;
    first: string | number;
    last: string | number;
  }>(CHANGES, {
    shard: o.shard,
    after: o.after.toString(),
    until: o.until.toString(),
  });
  return rows.map(changedOf);
}

const ALL_OF_SUBJECTS = `
  SELECT tenant, subject, toUnixTimestamp(min(hour)) AS first, toUnixTimestamp(max(hour)) AS last
  FROM usage_changes
  WHERE tenant = {tenant:String} AND subject IN {subjects:Array(String)}
  GROUP BY tenant, subject, toStartOfMonth(hour)
  ORDER BY subject, first`;

/** Every month in which these subjects have usage at all. */
export async function readHistory(
  ch: ClickHouse,
  tenant: string,
  subjects: readonly string[],
): Promise<ChangedSubject[]> {
  if (subjects.length === 0) return [];
  const rows = await ch.rows<{
    tenant: string;
    subject: string;
    first: string | number;
    last: string | number;
  }>(ALL_OF_SUBJECTS, { tenant, subjects });
  return rows.map(changedOf);
}

function changedOf(row: {
  tenant: string;
  subject: string;
  first: string | number;
  last: string | number;
}): ChangedSubject {
  return {
    tenant: row.tenant,
    subject: row.subject,
    firstHourMs: Number(row.first) * 1_000,
    lastHourMs: Number(row.last) * 1_000,
  };
}

/** The usage of some subjects together, within a window of whole hours. */
export interface TotalsWanted {
  readonly subjects: readonly string[];
  readonly window: Window;
}

interface TotalsRow {
  wanted: number | string;
  meter: string;
  count: string;
  sum: string;
  min: string;
  max: string;
  latest: string;
  latestTimeMs: string;
  latestPosition: string;
}

const TOTALS_COLUMNS = `
  toString(sum(value_count)) AS count, toString(sum(value_sum)) AS sum, toString(min(value_min)) AS min,
  toString(max(value_max)) AS max, toString(argMax(value_latest, (latest_time, latest_position))) AS latest,
  toString(toUnixTimestamp64Milli(max(latest_time))) AS latestTimeMs,
  toString(argMax(latest_position, (latest_time, latest_position))) AS latestPosition`;

// The wanted windows come as parallel arrays. The conditions on tenant, subject and hour stand a second time
// outside of the join, because only there they reach the primary key.
const TOTALS = `
  SELECT w.number AS wanted, u.meter AS meter, ${TOTALS_COLUMNS}
  FROM usage_rows AS u
  INNER JOIN (
    SELECT tupleElement(w, 1) AS subject, tupleElement(w, 2) AS start, tupleElement(w, 3) AS end, tupleElement(w, 4) AS number
    FROM (SELECT arrayJoin(arrayZip({subjects:Array(String)}, {starts:Array(UInt32)}, {ends:Array(UInt32)}, {numbers:Array(UInt32)})) AS w)
  ) AS w ON w.subject = u.subject
  WHERE u.tenant = {tenant:String} AND u.subject IN {subjects:Array(String)}
    AND u.hour >= toDateTime({least:UInt32}, 'UTC') AND u.hour < toDateTime({most:UInt32}, 'UTC')
    AND toUnixTimestamp(u.hour) >= w.start AND toUnixTimestamp(u.hour) < w.end
  GROUP BY wanted, meter`;

/** Totals by meter for each of what is wanted, in its order; a meter without usage is not in the map. */
export async function readUsageTotals(
  ch: ClickHouse,
  tenant: string,
  wanted: readonly TotalsWanted[],
): Promise<Map<string, Totals>[]> {
  const answer = wanted.map(() => new Map<string, Totals>());
  const flat = wanted.flatMap(({ subjects, window }, number) =>
    subjects.map((subject) => ({ subject, start: window.start / 1_000, end: window.end / 1_000, number })),
  );
  if (flat.length === 0) return answer;
  const rows = await ch.rows<TotalsRow>(TOTALS, {
    tenant,
    subjects: flat.map((one) => one.subject),
    starts: flat.map((one) => one.start),
    ends: flat.map((one) => one.end),
    numbers: flat.map((one) => one.number),
    least: flat.reduce((least, one) => Math.min(least, one.start), Infinity),
    most: flat.reduce((most, one) => Math.max(most, one.end), 0),
  });
  for (const row of rows) answer[Number(row.wanted)]?.set(row.meter, totalsOf(row));
  return answer;
}

function totalsOf(row: Omit<TotalsRow, 'wanted' | 'meter'>): Totals {
  return {
    count: BigInt(row.count),
    sum: storedQuantity(row.sum),
    min: storedQuantity(row.min),
    max: storedQuantity(row.max),
    latest: storedQuantity(row.latest),
    latestTimeMs: Number(row.latestTimeMs),
    latestPosition: BigInt(row.latestPosition),
  };
}

/** The quantity that a price is rated on: the totals as the meter reads them, zero without usage. */
export function quantityIn(totals: Totals | undefined, aggregation: Aggregation): Quantity {
  return totals === undefined || totals.count === 0n ? 0n : storedQuantity(readTotals(totals, aggregation));
}

export interface RawMeter {
  readonly key: string;
  readonly eventType: string;
  readonly aggregation: Aggregation;
  readonly valueProperty: string | null;
}

// The truth: raw events up to a cut, behind the meter's definition in their shard's log.
const RAW = `
  SELECT toString(count()) AS count, toString(sum(value)) AS sum, toString(min(value)) AS min, toString(max(value)) AS max,
    toString(argMax(value, (time, position))) AS latest, toString(toUnixTimestamp64Milli(max(time))) AS latestTimeMs,
    toString(argMax(position, (time, position))) AS latestPosition
  FROM (
    SELECT time, position, if({property:String} = '', toDecimal128(1, 9), toDecimal128(data[{property:String}], 9)) AS value
    FROM event_rows
    WHERE tenant = {tenant:String} AND type = {type:String} AND subject IN {subjects:Array(String)}
      AND hour >= toDateTime({start:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
      AND has({shards:Array(UInt16)}, shard)
      AND position > arrayElement({defined:Array(UInt64)}, indexOf({shards:Array(UInt16)}, shard))
      AND position <= arrayElement({cut:Array(UInt64)}, indexOf({shards:Array(UInt16)}, shard))
  )
  HAVING count() > 0`;

/** The quantity of one meter over raw events with a position up to the cut of their shard. */
export async function readRawQuantity(
  ch: ClickHouse,
  o: { tenant: string; meter: RawMeter; subjects: readonly string[]; window: Window; cut: Positions },
): Promise<Quantity> {
  const definitions = await ch.rows<{ shard: number; position: string }>(
    `SELECT shard, toString(min(position)) AS position FROM meter_definitions
     WHERE tenant = {tenant:String} AND meter = {meter:String} GROUP BY shard`,
    { tenant: o.tenant, meter: o.meter.key },
  );
  const shards = definitions.filter((row) => o.cut.has(Number(row.shard)));
  if (shards.length === 0 || o.subjects.length === 0) return 0n;
  const [row] = await ch.rows<Omit<TotalsRow, 'wanted' | 'meter'>>(RAW, {
    tenant: o.tenant,
    type: o.meter.eventType,
    property: o.meter.valueProperty ?? '',
    subjects: o.subjects,
    start: o.window.start / 1_000,
    end: o.window.end / 1_000,
    shards: shards.map((one) => Number(one.shard)),
    defined: shards.map((one) => BigInt(one.position)),
    cut: shards.map((one) => o.cut.get(Number(one.shard))!),
  });
  return quantityIn(row === undefined ? undefined : totalsOf(row), o.meter.aggregation);
}
