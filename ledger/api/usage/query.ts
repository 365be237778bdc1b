/**
 * The SQL of a usage query: pure, so that a test can read it. Everything that comes from a request is a bound
 * parameter, `{name:Type}`; what is pasted into the text is fixed, or an integer that we counted ourselves.
 *
 * A rollup row (view `usage_rows`) holds absolute totals of an hour, so a longer window is the merge of its hours
 * and shards: sums add, extremes compare, and the latest value is that of the newest (time, position). What an
 * hour cannot say is read from the events themselves (view `contributions`, one row an event and meter): hours
 * that are torn by a window (window.ts), and in whole what does not merge, unique counts and percentiles.
 */
import type { Meter } from '../../../contract/meter.ts';
import { HOUR_MS, type Window } from '../../../contract/window.ts';
import type { Positions } from '../../usage-batches.ts';
import type { CursorKey } from '../cursor.ts';
import { partsOf, rankOf } from './aggregate.ts';
import { tornHours, type WindowSize } from './window.ts';

export interface UsageQuery {
  readonly tenant: string;
  readonly meter: Meter;
  /** Empty: all subjects. */
  readonly subjects: readonly string[];
  readonly range: Window;
  readonly size: WindowSize;
  /** Of `windowStarts`. */
  readonly starts: readonly number[] | null;
  /** Paths of the meter's groupBy, without `subject`. */
  readonly groupBy: readonly string[];
  readonly bySubject: boolean;
  /** Of a path of the meter's groupBy, any of the values. */
  readonly filters: readonly { readonly path: string; readonly values: readonly string[] }[];
  /** Parts of a million, each above 0. */
  readonly percentiles: readonly number[];
  /** As what is counted stood at this cut of the log; null or absent: as it stands now. */
  readonly asOf?: Positions | null;
}

export interface Sql {
  readonly sql: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/** A row of {@link usagePage}. */
export interface UsageRow {
  /** Start of the window, epoch milliseconds as text. */
  readonly w: string;
  readonly s: string;
  readonly g: readonly string[];
  /** Decimal text; an average is cut toward zero after nine decimals. */
  readonly value: string;
  /** Decimal text, in the order of the query. */
  readonly p: readonly string[];
}

/** The paths that are no dimension of the meter; usage can be neither grouped nor filtered by them. */
export function unknownPaths(meter: Meter, paths: readonly string[]): string[] {
  return paths.filter((path) => !meter.groupBy.includes(path));
}

/** Whether no rollup can answer: the events themselves are read, all of them. */
export function readsEvents(query: UsageQuery): boolean {
  return query.meter.aggregation === 'unique_count' || query.percentiles.length > 0 || isAsOf(query);
}

/** A rollup knows the present alone. */
function isAsOf({ asOf = null }: UsageQuery): boolean {
  return asOf !== null;
}

/** The shape of a cursor of this query: window, subject, groups. */
export function cursorShape(query: UsageQuery): ('string' | 'number')[] {
  return [
    'number',
    ...(query.bySubject ? ['string' as const] : []),
    ...query.groupBy.map(() => 'string' as const),
  ];
}

export function cursorKey(query: UsageQuery, row: UsageRow): CursorKey {
  return [Number(row.w), ...(query.bySubject ? [row.s] : []), ...row.g];
}

/** What a cursor of this query belongs to: everything that decides which rows there are and their order. */
export function cursorScope(query: UsageQuery): string {
  const { tenant, meter, subjects, range, size, starts, groupBy, bySubject, filters, percentiles } = query;
  return JSON.stringify([
    'usage',
    tenant,
    meter.key,
    subjects,
    range,
    size,
    starts?.length ?? null,
    groupBy,
    bySubject,
    filters,
    percentiles,
    [...(query.asOf ?? [])].map(([shard, position]) => [shard, String(position)]),
  ]);
}

/** One page in the order of the cursor, as {@link UsageRow}. */
export function usagePage(query: UsageQuery, after: CursorKey | null, limit: number): Sql {
  const { sql, params } = grouped(query, after);
  const groups = query.groupBy.map((_, at) => `g${at}`).join(', ');
  const percentiles = query.percentiles.map((_, at) => `toString(p${at})`).join(', ');
  return {
    sql: `SELECT w, ${query.bySubject ? 's' : "''"} AS s, CAST([${groups}], 'Array(String)') AS g, toString(v) AS value,
  CAST([${percentiles}], 'Array(String)') AS p
FROM (${sql})
ORDER BY ${keysOf(query).join(', ')}
LIMIT {limit:UInt32}`,
    params: { ...params, limit },
  };
}

/** How many rows there are, counted no further than `most`. */
export function usageCount(query: UsageQuery, most: number): Sql {
  const source = sourceOf(query, null);
  return {
    sql: `SELECT count() AS count FROM (SELECT 1 FROM (${source.sql}) GROUP BY ${keysOf(query).join(', ')} LIMIT {limit:UInt32})`,
    params: { ...source.params, limit: most },
  };
}

/** One row a window, subject and group: w, s, g0, g1, …, v, p0, p1, … */
export function grouped(query: UsageQuery, after: CursorKey | null): Sql {
  const { sql, params } = sourceOf(query, after);
  const bind: Record<string, unknown> = { ...params };
  const keys = keysOf(query);
  const columns = [...keys, `${partsOf(query.meter.aggregation).value} AS v`];
  if (query.percentiles.length > 0) columns.push('arraySort(groupArray(q)) AS sorted');
  query.percentiles.forEach((parts, at) => {
    bind[`percentile${at}`] = parts;
    columns.push(`${rankOf('sorted', `{percentile${at}:UInt64}`)} AS p${at}`);
  });
  let where = '';
  if (after !== null) {
    const bounds = after.map((part, at) => {
      bind[`after${at}`] = part;
      return `{after${at}:${typeof part === 'number' ? 'Int64' : 'String'}}`;
    });
    where = `\nWHERE tuple(${keys.join(', ')}) > tuple(${bounds.join(', ')})`;
  }
  return {
    sql: `SELECT ${columns.join(', ')}
FROM (${sql})${where}
GROUP BY ${keys.join(', ')}`,
    params: bind,
  };
}

/** The columns that make a row one of its kind, in the order of the answer. */
export function keysOf(query: UsageQuery): string[] {
  return ['w', ...(query.bySubject ? ['s'] : []), ...query.groupBy.map((_, at) => `g${at}`)];
}

/** Rollup rows and events with the keys of their row of the answer. */
function sourceOf(query: UsageQuery, after: CursorKey | null): Sql {
  const { range, starts } = query;
  // What lies before the cursor's window cannot come after the cursor.
  const from = after === null ? range.start : Math.max(range.start, Number(after[0]));
  const torn = tornHours({ start: from, end: range.end }, starts);
  const params: Record<string, unknown> = {
    tenant: query.tenant,
    meter: query.meter.key,
    from: range.start,
    least: from,
    to: range.end,
  };
  if (starts !== null) params['starts'] = starts;
  if (query.subjects.length > 0) params['subjects'] = query.subjects;
  query.filters.forEach(({ values }, at) => (params[`filter${at}`] = values));
  if (isAsOf(query)) {
    params['shards'] = [...query.asOf!.keys()];
    params['cut'] = [...query.asOf!.values()];
  }
  const branches: string[] = [];
  if (readsEvents(query)) branches.push(eventsBranch(query, 'all'));
  else {
    branches.push(rollupBranch(query, torn.length > 0));
    if (torn.length > 0) {
      params['torn'] = torn.map(second);
      branches.push(eventsBranch(query, 'torn'));
    }
  }
  return { sql: branches.join('\nUNION ALL\n'), params };
}

function rollupBranch(query: UsageQuery, isTorn: boolean): string {
  const parts = partsOf(query.meter.aggregation).rollup;
  const conditions = [
    ...matching(query),
    `hour >= toDateTime(intDiv({least:Int64}, 1000), 'UTC')`,
    `hour < toDateTime(intDiv({to:Int64}, 1000), 'UTC')`,
    ...(isTorn ? [`hour NOT IN {torn:Array(DateTime('UTC'))}`] : []),
  ];
  return `SELECT ${[...keyColumns(query, 'toInt64(toUnixTimestamp(hour)) * 1000'), ...parts].join(', ')}
FROM usage_rows
WHERE ${conditions.join(' AND ')}`;
}

function eventsBranch(query: UsageQuery, which: 'all' | 'torn'): string {
  const parts = [...partsOf(query.meter.aggregation).event];
  if (query.percentiles.length > 0) parts.push('quantity AS q');
  const conditions = [
    ...matching(query),
    // Beside the exact bounds on the time, the hours they lie in: these reach the primary key.
    `hour >= toDateTime(intDiv({least:Int64}, ${HOUR_MS}) * 3600, 'UTC')`,
    `hour < toDateTime(intDiv({to:Int64} + 999, 1000), 'UTC')`,
    ...(which === 'torn' ? [`hour IN {torn:Array(DateTime('UTC'))}`] : []),
    `time >= fromUnixTimestamp64Milli({least:Int64}, 'UTC')`,
    `time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')`,
    ...(isAsOf(query) ? HELD_AT_CUT : ['until = 18446744073709551615']),
  ];
  return `SELECT ${[...keyColumns(query, 'toUnixTimestamp64Milli(time)'), ...parts].join(', ')}
FROM contributions
WHERE ${conditions.join(' AND ')}`;
}

/** Of a shard that the cut does not name nothing had been read: it maps to 0, before every event. */
const CUT_OF_SHARD = 'mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[shard]';
const HELD_AT_CUT = [`since <= ${CUT_OF_SHARD}`, `until > ${CUT_OF_SHARD}`];

function matching(query: UsageQuery): string[] {
  return [
    'tenant = {tenant:String}',
    'meter = {meter:String}',
    ...(query.subjects.length > 0 ? ['subject IN {subjects:Array(String)}'] : []),
    ...query.filters.map(
      ({ path }, at) => `dimensions[${dimensionOf(query.meter, path)}] IN {filter${at}:Array(String)}`,
    ),
  ];
}

/** @param instant epoch milliseconds of the row, as SQL */
function keyColumns(query: UsageQuery, instant: string): string[] {
  const window =
    query.starts === null
      ? `greatest(intDiv(${instant}, ${HOUR_MS}) * ${HOUR_MS}, {from:Int64})`
      : // Rounds down to the nearest of the list: the start of the window that the instant lies in.
        `roundDown(${instant}, {starts:Array(Int64)})`;
  return [
    `toInt64(${window}) AS w`,
    ...(query.bySubject ? ['subject AS s'] : []),
    ...query.groupBy.map((path, at) => `dimensions[${dimensionOf(query.meter, path)}] AS g${at}`),
  ];
}

/** ClickHouse counts array elements from 1. */
function dimensionOf(meter: Meter, path: string): number {
  const at = meter.groupBy.indexOf(path);
  if (at < 0) throw new Error('grouped or filtered by a path that is no dimension of the meter');
  return at + 1;
}

/** As ClickHouse reads a DateTime. */
const second = (ms: number): string => new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
