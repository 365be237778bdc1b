/**
 * Reads changes and absolute totals from ClickHouse, through the views that the aggregator keeps. Lists of
 * subjects travel as parameters of the request, so every list is cut into batches that fit one.
 */
import type { Aggregation } from '../contract/meter.ts';
import { storedQuantity, type Quantity } from '../contract/quantity.ts';
import { mergeTotals, readTotals, type Totals } from '../contract/rollup.ts';
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

/** ClickHouse takes 128 KiB in one parameter and 1 MiB in a URL, in which a character can be three. */
const BATCH_CHARACTERS_MAX = 40_000;
const BATCH_SUBJECTS_MAX = 2_000;

/** Splits what is asked about subjects into parts that fit one request. */
export function batchesOf<T>(items: readonly T[], subjectOf: (item: T) => string): T[][] {
  const batches: T[][] = [];
  let batch: T[] = [];
  let characters = 0;
  for (const item of items) {
    const length = subjectOf(item).length + 3;
    const isFull = batch.length === BATCH_SUBJECTS_MAX || characters + length > BATCH_CHARACTERS_MAX;
    if (isFull && batch.length > 0) {
      batches.push(batch);
      batch = [];
      characters = 0;
    }
    batch.push(item);
    characters += length;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
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
    AND (tenant, subject, toYYYYMM(hour)) > ({tenant:String}, {subject:String}, {month:UInt32})
  GROUP BY tenant, subject, month
  ORDER BY tenant, subject, month
  LIMIT {limit:UInt32}`;

/**
 * A page of what changed in some shards, by tenant, subject and month, behind the last item of the page before
 * (null for the first). A page with fewer than `limit` items is the last.
 */
export async function readChanges(
  ch: ClickHouse,
  o: { ranges: readonly PositionRange[]; behind: ChangedSubject | null; limit: number },
): Promise<ChangedSubject[]> {
  if (o.ranges.length === 0) return [];
  const rows = await ch.rows<ChangedRow>(CHANGES, {
    shards: o.ranges.map((range) => range.shard),
    after: o.ranges.map((range) => range.after),
    until: o.ranges.map((range) => range.until),
    // Implied by the ranges; these reach the index on the position.
    least: o.ranges.reduce((least, { after }) => (after < least ? after : least), o.ranges[0]!.after),
    most: o.ranges.reduce((most, { until }) => (until > most ? until : most), 0n),
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

/** The usage of some subjects together, within a window of whole hours. */
export interface TotalsWanted {
  readonly subjects: readonly string[];
  readonly window: Window;
}

interface TotalsColumns {
  meter: string;
  count: string;
  sum: string;
  min: string;
  max: string;
  latest: string;
  latestTimeMs: string;
  latestPosition: string;
}

interface TotalsRow extends TotalsColumns {
  wanted: number | string;
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
  const entries = wanted.flatMap(({ subjects, window }, number) =>
    subjects.map((subject) => ({ subject, start: window.start / 1_000, end: window.end / 1_000, number })),
  );
  for (const batch of batchesOf(entries, (entry) => entry.subject)) {
    const rows = await ch.rows<TotalsRow>(TOTALS, {
      tenant,
      subjects: batch.map((entry) => entry.subject),
      starts: batch.map((entry) => entry.start),
      ends: batch.map((entry) => entry.end),
      numbers: batch.map((entry) => entry.number),
      least: batch.reduce((least, entry) => Math.min(least, entry.start), Infinity),
      most: batch.reduce((most, entry) => Math.max(most, entry.end), 0),
    });
    for (const row of rows) addTotals(answer[Number(row.wanted)]!, row);
  }
  return answer;
}

/** The subjects of one answer may come in several batches; totals fold in any order. */
function addTotals(byMeter: Map<string, Totals>, row: TotalsColumns): void {
  const totals: Totals = {
    count: BigInt(row.count),
    sum: storedQuantity(row.sum),
    min: storedQuantity(row.min),
    max: storedQuantity(row.max),
    latest: storedQuantity(row.latest),
    latestTimeMs: Number(row.latestTimeMs),
    latestPosition: BigInt(row.latestPosition),
  };
  const before = byMeter.get(row.meter);
  byMeter.set(row.meter, before === undefined ? totals : mergeTotals(before, totals));
}

/** The quantity that a price is rated on: the totals as the meter reads them, zero without usage. */
export function quantityIn(totals: Totals | undefined, aggregation: Aggregation): Quantity {
  return totals === undefined || totals.count === 0n ? 0n : storedQuantity(readTotals(totals, aggregation));
}

/** Usage of some subjects of a tenant, up to a cut. */
export interface CutUsage {
  readonly tenant: string;
  readonly subjects: readonly string[];
  readonly window: Window;
  readonly cut: Positions;
}

// The truth: raw events up to the cut. One counts for a meter of its type whose definition stands before it in
// the log of its shard.
const RAW = `
  SELECT meter, toString(count()) AS count, toString(sum(value)) AS sum, toString(min(value)) AS min,
    toString(max(value)) AS max, toString(argMax(value, (time, position))) AS latest,
    toString(toUnixTimestamp64Milli(max(time))) AS latestTimeMs,
    toString(argMax(position, (time, position))) AS latestPosition
  FROM (
    SELECT d.meter AS meter, e.time AS time, e.position AS position,
      if(d.value_property = '', toDecimal128(1, 9), toDecimal128OrZero(e.data[d.value_property], 9)) AS value
    FROM (
      SELECT type, time, data, shard, position FROM event_rows
      WHERE tenant = {tenant:String} AND subject IN {subjects:Array(String)}
        AND hour >= toDateTime({start:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
        AND position <= mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[shard]
    ) AS e
    INNER JOIN (
      SELECT meter, event_type, value_property, shard, position
      FROM meter_definitions WHERE tenant = {tenant:String}
    ) AS d ON d.event_type = e.type AND d.shard = e.shard
    WHERE e.position > d.position
  )
  GROUP BY meter`;

/** Totals by meter, computed anew from the raw events up to the cut. */
export async function readRawTotals(ch: ClickHouse, o: CutUsage): Promise<Map<string, Totals>> {
  const byMeter = new Map<string, Totals>();
  for (const subjects of batchesOf(o.subjects, (subject) => subject)) {
    for (const row of await ch.rows<TotalsColumns>(RAW, cutParameters(o, subjects))) addTotals(byMeter, row);
  }
  return byMeter;
}

const BEYOND = `
  SELECT count() > 0 AS beyond FROM usage_rows
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
