/**
 * The SQL of a usage query over the view `usage_rows`: pure, so that a test can read it. Everything that
 * comes from a request is a bound parameter, `{name:Type}`; what is pasted into the text is fixed, or an
 * integer that we counted ourselves.
 *
 * A rollup row holds absolute totals of an hour, so a longer window is the merge of its hours (and shards):
 * sums add, extremes compare, and the latest value is that of the newest (time, position).
 */
import type { Aggregation, Meter } from '../../../contract/meter.ts';
import type { Window } from '../../../contract/window.ts';
import type { CursorKey } from '../cursor.ts';
import type { UsageFormat } from './format.ts';
import type { WindowSize } from './window.ts';

export interface UsageQuery {
  readonly tenant: string;
  readonly meter: Meter;
  /** Empty: all subjects. */
  readonly subjects: readonly string[];
  readonly range: Window;
  readonly size: WindowSize;
  /** Of `windowStarts`. */
  readonly starts: readonly number[];
  /** Paths of the meter's groupBy, without `subject`. */
  readonly groupBy: readonly string[];
  readonly bySubject: boolean;
  /** Of a path of the meter's groupBy, any of the values. */
  readonly filters: readonly { readonly path: string; readonly values: readonly string[] }[];
}

export interface Sql {
  readonly sql: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/** A row of {@link usagePage}. */
export interface UsageRow {
  /** Epoch seconds. */
  readonly w: number;
  readonly s: string;
  readonly g: readonly string[];
  /** Decimal text; an average is cut toward zero after nine decimals. */
  readonly value: string;
}

/** The paths that are no dimension of the meter; usage can be neither grouped nor filtered by them. */
export function unknownPaths(meter: Meter, paths: readonly string[]): string[] {
  return paths.filter((path) => !meter.groupBy.includes(path));
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
  return [row.w, ...(query.bySubject ? [row.s] : []), ...row.g];
}

/** What a cursor of this query belongs to: everything that decides which rows there are and their order. */
export function cursorScope(query: UsageQuery): string {
  const { tenant, meter, subjects, range, size, starts, groupBy, bySubject, filters } = query;
  return JSON.stringify([
    'usage',
    tenant,
    meter.key,
    subjects,
    range,
    size,
    starts.length,
    groupBy,
    bySubject,
    filters,
  ]);
}

/** One page in the order of the cursor, as {@link UsageRow}. */
export function usagePage(query: UsageQuery, after: CursorKey | null, limit: number): Sql {
  const { sql, params } = grouped(query, after);
  const groups = query.groupBy.map((_, at) => `g${at}`).join(', ');
  return {
    sql: `SELECT w, ${query.bySubject ? 's' : "''"} AS s, CAST([${groups}], 'Array(String)') AS g, toString(v) AS value
FROM (${sql})
ORDER BY ${keys(query).join(', ')}
LIMIT {limit:UInt32}`,
    params: { ...params, limit },
  };
}

/** How many rows there are, counted no further than `most`. */
export function usageCount(query: UsageQuery, most: number): Sql {
  const { sql, params } = grouped(query, null);
  return {
    sql: `SELECT count() AS count FROM (SELECT 1 FROM (${sql}) LIMIT {limit:UInt32})`,
    params: { ...params, limit: most },
  };
}

/** All rows for a format that ClickHouse writes; `columns` are the names of a CSV, `name` is ClickHouse's format. */
export function usageExport(
  query: UsageQuery,
  format: Exclude<UsageFormat, 'json'>,
): Sql & { readonly name: string; readonly columns: readonly string[] } {
  const { sql, params } = grouped(query, null);
  const bind: Record<string, unknown> = { ...params, to: query.range.end / 1_000 };
  let end: string;
  switch (query.size) {
    case 'hour':
      end = 'w + 3600';
      break;
    case 'total':
      end = '{to:UInt32}';
      break;
    case 'day':
    case 'month':
      end = '{ends:Array(UInt32)}[indexOf({starts:Array(UInt32)}, w)]';
      bind['ends'] = [...query.starts.slice(1), query.range.end].map((ms) => ms / 1_000);
      break;
  }
  const from = `FROM (${sql})\nORDER BY ${keys(query).join(', ')}`;
  const groups = query.groupBy.map((_, at) => `g${at}`);
  const names = query.groupBy.map((path, at) => {
    bind[`name${at}`] = path;
    return `{name${at}:String}, g${at}`;
  });
  const group = `CAST(map(${names.join(', ')}), 'Map(String, String)') AS \`group\``;
  const subject = query.bySubject ? 's' : "CAST(NULL, 'Nullable(String)')";
  switch (format) {
    case 'ndjson':
      return {
        sql: `SELECT ${iso('w')} AS windowStart, ${iso(end)} AS windowEnd, ${subject} AS subject, ${group}, toString(v) AS value\n${from}`,
        params: bind,
        name: 'JSONEachRow',
        columns: [],
      };
    case 'csv':
      return {
        sql: `SELECT ${[iso('w'), iso(end), ...(query.bySubject ? ['s'] : []), ...groups, 'v'].join(', ')}\n${from}`,
        params: bind,
        name: 'CSV',
        columns: [
          'windowStart',
          'windowEnd',
          ...(query.bySubject ? ['subject'] : []),
          ...query.groupBy,
          'value',
        ],
      };
    case 'parquet':
      return {
        sql: `SELECT toDateTime64(w, 3, 'UTC') AS windowStart, toDateTime64(${end}, 3, 'UTC') AS windowEnd, ${subject} AS subject, ${group}, v AS value\n${from}`,
        params: bind,
        name: 'Parquet',
        columns: [],
      };
  }
}

/** One row a window, subject and group: w, s, g0, g1, …, v. */
function grouped(query: UsageQuery, after: CursorKey | null): Sql {
  const params: Record<string, unknown> = {
    tenant: query.tenant,
    meter: query.meter.key,
    from: query.range.start / 1_000,
    // Hours before the cursor's window cannot come after the cursor.
    first: after === null ? query.range.start / 1_000 : Math.max(query.range.start / 1_000, Number(after[0])),
    to: query.range.end / 1_000,
  };
  const conditions = [
    'tenant = {tenant:String}',
    'meter = {meter:String}',
    `hour >= toDateTime({first:UInt32}, 'UTC')`,
    `hour < toDateTime({to:UInt32}, 'UTC')`,
  ];
  if (query.subjects.length > 0) {
    params['subjects'] = query.subjects;
    conditions.push('subject IN {subjects:Array(String)}');
  }
  query.filters.forEach(({ path, values }, at) => {
    params[`filter${at}`] = values;
    conditions.push(`dimensions[${dimensionOf(query.meter, path)}] IN {filter${at}:Array(String)}`);
  });
  if (query.size === 'day' || query.size === 'month') params['starts'] = query.starts.map((ms) => ms / 1_000);
  const columns = [
    `${windowOf(query.size)} AS w`,
    ...(query.bySubject ? ['subject AS s'] : []),
    ...query.groupBy.map((path, at) => `dimensions[${dimensionOf(query.meter, path)}] AS g${at}`),
    `${valueOf(query.meter.aggregation)} AS v`,
  ];
  let having = '';
  if (after !== null) {
    const bounds = after.map((part, at) => {
      params[`after${at}`] = part;
      return `{after${at}:${typeof part === 'number' ? 'UInt32' : 'String'}}`;
    });
    having = `\nHAVING tuple(${keys(query).join(', ')}) > tuple(${bounds.join(', ')})`;
  }
  return {
    sql: `SELECT ${columns.join(', ')}
FROM usage_rows
WHERE ${conditions.join(' AND ')}
GROUP BY ${keys(query).join(', ')}${having}`,
    params,
  };
}

/** The columns that make a row one of its kind, in the order of the answer. */
function keys(query: UsageQuery): string[] {
  return ['w', ...(query.bySubject ? ['s'] : []), ...query.groupBy.map((_, at) => `g${at}`)];
}

/** ClickHouse counts array elements from 1. */
function dimensionOf(meter: Meter, path: string): number {
  const at = meter.groupBy.indexOf(path);
  if (at < 0) throw new Error('grouped or filtered by a path that is no dimension of the meter');
  return at + 1;
}

function windowOf(size: WindowSize): string {
  switch (size) {
    case 'hour':
      return 'toUInt32(toUnixTimestamp(hour))';
    case 'day':
    case 'month':
      // Rounds down to the nearest of the list: the start of the window that the hour lies in.
      return 'toUInt32(roundDown(toUInt32(toUnixTimestamp(hour)), {starts:Array(UInt32)}))';
    case 'total':
      return '{from:UInt32}';
  }
}

function valueOf(aggregation: Aggregation): string {
  switch (aggregation) {
    case 'count':
      return 'sum(value_count)';
    case 'sum':
      return 'sum(value_sum)';
    case 'min':
      return 'min(value_min)';
    case 'max':
      return 'max(value_max)';
    case 'latest':
      return 'argMax(value_latest, tuple(latest_time, latest_position))';
    case 'average':
      // Division of decimals is one of scaled integers: it keeps the scale of the dividend (9) and cuts.
      return 'divide(sum(value_sum), toDecimal128(sum(value_count), 0))';
  }
}

const iso = (seconds: string): string =>
  `concat(formatDateTime(toDateTime(${seconds}, 'UTC'), '%Y-%m-%dT%H:%i:%S'), '.000Z')`;
