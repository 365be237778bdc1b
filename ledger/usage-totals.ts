/**
 * Reads changes and absolute totals from ClickHouse, through the views that the aggregator keeps. Lists of
 * subjects travel as parameters of the request, so every list is cut into batches that fit one.
 */
import type { Aggregation } from '../contract/meter.ts';
import { QUANTITY_UNIT, storedQuantity, type Quantity } from '../contract/quantity.ts';
import { mergeTotals, readTotals, type Totals } from '../contract/rollup.ts';
import type { Window } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { batchesOf, type Positions, type TotalsWanted } from './usage-batches.ts';
import { readUniqueCounts } from './unique-counts.ts';

export { batchesOf, type Positions, type TotalsWanted } from './usage-batches.ts';

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

/** Positions of one shard: after < position <= until. */
export interface PositionRange {
  readonly shard: number;
  readonly after: bigint;
  readonly until: bigint;
}

/** A subject whose rollups changed in a calendar month, and the hours between which they did. */
export interface ChangedSubject {
  readonly tenant: string;
  readonly subject: string;
  /** Of the hours, such as 202611. */
  readonly month: number;
  /** Start of the first and of the last changed hour of the month, epoch ms. */
  readonly firstHourMs: number;
  readonly lastHourMs: number;
}

interface ChangedRow {
  tenant: string;
  subject: string;
  month: number | string;
  first: number | string;
  last: number | string;
}

const CHANGED = `tenant, subject, toYYYYMM(hour) AS month, toUnixTimestamp(min(hour)) AS first,
  toUnixTimestamp(max(hour)) AS last`;

const CHANGES = `
  SELECT ${CHANGED}
  FROM usage_changes
  WHERE position > mapFromArrays({shards:Array(UInt16)}, {after:Array(UInt64)})[shard]
    AND position <= mapFromArrays({shards:Array(UInt16)}, {until:Array(UInt64)})[shard]
    AND shard IN {shards:Array(UInt16)} AND position > {least:UInt64} AND position <= {most:UInt64}
    AND ({isList:UInt8} = 0 OR subject IN {subjects:Array(String)})
    AND (tenant, subject, toYYYYMM(hour)) > ({tenant:String}, {subject:String}, {month:UInt32})
  GROUP BY tenant, subject, month
  ORDER BY tenant, subject, month
  LIMIT {limit:UInt32}`;

/**
 * A page of what changed in some shards, by tenant, subject and month, behind the last item of the page before
 * (null for the first): of these subjects, of whatever tenant, or of all (null). A page with fewer than `limit` items
 * is the last.
 */
export async function readChanges(
  ch: ClickHouse,
  o: {
    ranges: readonly PositionRange[];
    subjects: readonly string[] | null;
    behind: ChangedSubject | null;
    limit: number;
  },
): Promise<ChangedSubject[]> {
  if (o.ranges.length === 0) return [];
  const rows = await ch.rows<ChangedRow>(CHANGES, {
    shards: o.ranges.map((range) => range.shard),
    after: o.ranges.map((range) => range.after),
    until: o.ranges.map((range) => range.until),
    // Implied by the ranges; these reach the index on the position.
    least: o.ranges.reduce((least, { after }) => (after < least ? after : least), o.ranges[0]!.after),
    most: o.ranges.reduce((most, { until }) => (until > most ? until : most), 0n),
    isList: o.subjects === null ? 0 : 1,
    subjects: o.subjects ?? [],
    tenant: o.behind?.tenant ?? '',
    subject: o.behind?.subject ?? '',
    month: o.behind?.month ?? 0,
    limit: o.limit,
  });
  return rows.map(changedOf);
}

const HISTORY = `
  SELECT ${CHANGED}
  FROM usage_changes
  WHERE tenant = {tenant:String} AND subject IN {subjects:Array(String)}
  GROUP BY tenant, subject, month
  ORDER BY subject, month`;

/** Every month in which these subjects have usage at all. */
export async function readHistory(
  ch: ClickHouse,
  tenant: string,
  subjects: readonly string[],
): Promise<ChangedSubject[]> {
  const history: ChangedSubject[] = [];
  for (const batch of batchesOf(subjects, (subject) => subject)) {
    const rows = await ch.rows<ChangedRow>(HISTORY, { tenant, subjects: batch });
    for (const row of rows) history.push(changedOf(row));
  }
  return history;
}

function changedOf(row: ChangedRow): ChangedSubject {
  return {
    tenant: row.tenant,
    subject: row.subject,
    month: Number(row.month),
    firstHourMs: Number(row.first) * 1_000,
    lastHourMs: Number(row.last) * 1_000,
  };
}

/** Totals of a meter; those of a unique count have it beside them, since it cannot be told from totals. */
export interface UsageTotals extends Totals {
  readonly unique?: bigint;
}

/** Totals as ClickHouse writes them. */
export interface TotalsColumns {
  count: string;
  sum: string;
  min: string;
  max: string;
  latest: string;
  latestTimeMs: string;
  latestPosition: string;
}

interface MeterTotalsRow extends TotalsColumns {
  meter: string;
  isUnique: number | boolean;
}

interface TotalsRow extends MeterTotalsRow {
  wanted: number | string;
}

const TOTALS_COLUMNS = `
  toString(sum(value_count)) AS count, toString(sum(value_sum)) AS sum, toString(min(value_min)) AS min,
  toString(max(value_max)) AS max, toString(argMax(value_latest, (latest_time, latest_position))) AS latest,
  toString(toUnixTimestamp64Milli(max(latest_time))) AS latestTimeMs,
  toString(argMax(latest_position, (latest_time, latest_position))) AS latestPosition`;

const IS_UNIQUE = `meter IN (
    SELECT meter FROM meter_definitions WHERE tenant = {tenant:String} AND aggregation = 'unique_count'
  ) AS isUnique`;

// The wanted windows come as parallel arrays. The conditions on tenant, subject and hour stand a second time
// outside of the join, because only there they reach the primary key.
const TOTALS = `
  SELECT w.number AS wanted, u.meter AS meter, ${IS_UNIQUE}, ${TOTALS_COLUMNS}
  FROM usage_rows AS u
  INNER JOIN (
    SELECT tupleElement(w, 1) AS subject, tupleElement(w, 2) AS start, tupleElement(w, 3) AS end, tupleElement(w, 4) AS number
    FROM (SELECT arrayJoin(arrayZip({subjects:Array(String)}, {starts:Array(UInt32)}, {ends:Array(UInt32)}, {numbers:Array(UInt32)})) AS w)
  ) AS w ON w.subject = u.subject
  WHERE u.tenant = {tenant:String} AND u.subject IN {subjects:Array(String)}
    AND ({isAll:UInt8} = 1 OR u.meter IN {meters:Array(String)})
    AND u.hour >= toDateTime({least:UInt32}, 'UTC') AND u.hour < toDateTime({most:UInt32}, 'UTC')
    AND toUnixTimestamp(u.hour) >= w.start AND toUnixTimestamp(u.hour) < w.end
  GROUP BY wanted, meter`;

/**
 * Totals by meter for each of what is wanted, in its order; a meter without usage is not in the map. Of all meters, or
 * of these; unique counts, which are what costs most, of those among them that have one.
 */
export async function readUsageTotals(
  ch: ClickHouse,
  tenant: string,
  wanted: readonly TotalsWanted[],
  { meters }: { readonly meters?: readonly string[] } = {},
): Promise<Map<string, UsageTotals>[]> {
  const answer = wanted.map(() => new Map<string, UsageTotals>());
  const unique = new Set<string>();
  if (meters?.length === 0) return answer;
  const entries = wanted.flatMap(({ subjects, window }, number) =>
    subjects.map((subject) => ({ subject, start: window.start / 1_000, end: window.end / 1_000, number })),
  );
  for (const batch of batchesOf(entries, (entry) => entry.subject)) {
    const rows = await ch.rows<TotalsRow>(TOTALS, {
      tenant,
      isAll: meters === undefined ? 1 : 0,
      meters: meters ?? [],
      subjects: batch.map((entry) => entry.subject),
      starts: batch.map((entry) => entry.start),
      ends: batch.map((entry) => entry.end),
      numbers: batch.map((entry) => entry.number),
      least: batch.reduce((least, entry) => Math.min(least, entry.start), Infinity),
      most: batch.reduce((most, entry) => Math.max(most, entry.end), 0),
    });
    for (const row of rows) addTotals(answer[Number(row.wanted)]!, row, unique);
  }
  if (unique.size > 0) {
    const counts = await readUniqueCounts(ch, { tenant, wanted, meters: [...unique] });
    addUnique(answer, counts, unique);
  }
  return answer;
}

/** Puts unique counts beside the totals; events of a meter without totals are for the next reading. */
function addUnique(
  answer: readonly Map<string, UsageTotals>[],
  counts: readonly ReadonlyMap<string, bigint>[],
  meters: ReadonlySet<string>,
): void {
  answer.forEach((byMeter, at) => {
    for (const meter of meters) {
      const totals = byMeter.get(meter);
      if (totals !== undefined) byMeter.set(meter, { ...totals, unique: counts[at]!.get(meter) ?? 0n });
    }
  });
}

/** The subjects of one answer may come in several batches; totals fold in any order. */
function addTotals(byMeter: Map<string, UsageTotals>, row: MeterTotalsRow, unique: Set<string>): void {
  if (Number(row.isUnique) !== 0) unique.add(row.meter);
  const totals = totalsIn(row);
  const before = byMeter.get(row.meter);
  byMeter.set(row.meter, before === undefined ? totals : mergeTotals(before, totals));
}

export function totalsIn(row: TotalsColumns): Totals {
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
export function quantityIn(totals: UsageTotals | undefined, aggregation: Aggregation): Quantity {
  if (totals === undefined || totals.count === 0n) return 0n;
  if (aggregation !== 'unique_count') return storedQuantity(readTotals(totals, aggregation));
  if (totals.unique === undefined) throw new Error('the totals of a unique count lack it');
  return totals.unique * QUANTITY_UNIT;
}

/** Usage of some subjects of a tenant, up to a cut. */
export interface CutUsage {
  readonly tenant: string;
  readonly subjects: readonly string[];
  readonly window: Window;
  readonly cut: Positions;
}

// The truth: raw events as the meters take them, those that held at the cut.
const RAW = `
  SELECT meter, ${IS_UNIQUE}, toString(count()) AS count, toString(sum(quantity)) AS sum,
    toString(min(quantity)) AS min, toString(max(quantity)) AS max,
    toString(argMax(quantity, (time, position))) AS latest,
    toString(toUnixTimestamp64Milli(max(time))) AS latestTimeMs,
    toString(argMax(position, (time, position))) AS latestPosition
  FROM contributions
  WHERE tenant = {tenant:String} AND subject IN {subjects:Array(String)}
    AND hour >= toDateTime({start:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
    AND since <= mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[shard]
    AND until > mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[shard]
  GROUP BY meter`;

/** Totals by meter, computed anew from the raw events as they held at the cut. */
export async function readRawTotals(ch: ClickHouse, o: CutUsage): Promise<Map<string, UsageTotals>> {
  const byMeter = new Map<string, UsageTotals>();
  const unique = new Set<string>();
  for (const subjects of batchesOf(o.subjects, (subject) => subject)) {
    const rows = await ch.rows<MeterTotalsRow>(RAW, cutParameters(o, subjects));
    for (const row of rows) addTotals(byMeter, row, unique);
  }
  if (unique.size > 0) {
    const { tenant, cut } = o;
    const counts = await readUniqueCounts(ch, { tenant, wanted: [o], meters: [...unique], cut });
    addUnique([byMeter], counts, unique);
  }
  return byMeter;
}

// Rows of which nothing is left too: what they held was taken out.
const BEYOND = `
  SELECT count() > 0 AS beyond FROM usage_states
  WHERE tenant = {tenant:String} AND subject IN {subjects:Array(String)}
    AND hour >= toDateTime({start:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
    AND position > mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[shard]`;

/** Whether the rollups hold something from beyond the cut, so that they cannot be compared with what lies before it. */
export async function hasUsageBeyond(ch: ClickHouse, o: CutUsage): Promise<boolean> {
  for (const subjects of batchesOf(o.subjects, (subject) => subject)) {
    const [row] = await ch.rows<{ beyond: number | boolean }>(BEYOND, cutParameters(o, subjects));
    if (Number(row?.beyond ?? 0) !== 0) return true;
  }
  return false;
}

function cutParameters(o: CutUsage, subjects: readonly string[]): Record<string, unknown> {
  return {
    tenant: o.tenant,
    subjects,
    start: o.window.start / 1_000,
    end: o.window.end / 1_000,
    shards: [...o.cut.keys()],
    cut: [...o.cut.values()],
  };
}
