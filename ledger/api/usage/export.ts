/**
 * Usage as a table that ClickHouse writes and we pass through: NDJSON, CSV (RFC 4180), Parquet.
 *
 * A CSV holds texts as they are, since it is mostly read by programs. A spreadsheet takes a cell that begins with
 * = + - @ or a tab for a formula, and subjects and dimensions are what anybody sent: `csv=spreadsheet` puts an
 * apostrophe before those, as OWASP advises.
 */
import { HOUR_MS } from '../../../contract/window.ts';
import { percentileText } from './aggregate.ts';
import type { UsageFormat } from './format.ts';
import { grouped, keysOf, type Sql, type UsageQuery } from './query.ts';

export const CSV_KINDS = ['exact', 'spreadsheet'] as const;
export type CsvKind = (typeof CSV_KINDS)[number];

export interface ExportSql extends Sql {
  /** ClickHouse's name of the format. */
  readonly name: string;
  /** The names of a CSV's columns. */
  readonly columns: readonly string[];
}

export function usageExport(
  query: UsageQuery,
  format: Exclude<UsageFormat, 'json'>,
  kind: CsvKind = 'exact',
): ExportSql {
  const { sql, params } = grouped(query, null);
  const bind: Record<string, unknown> = { ...params };
  const end = endOf(query, bind);
  const from = `FROM (${sql})\nORDER BY ${keysOf(query).join(', ')}`;
  const groups = query.groupBy.map((_, at) => `g${at}`);
  const percentiles = query.percentiles.map((parts, at) => ({ name: percentileText(parts), sql: `p${at}` }));
  const group = mapOf('name', groups, query.groupBy, 'String', bind);
  const subject = query.bySubject ? 's' : "CAST(NULL, 'Nullable(String)')";
  const names = percentiles.map(({ name }) => name);
  switch (format) {
    case 'ndjson': {
      const texts = percentiles.map((one) => `toString(${one.sql})`);
      const extra =
        texts.length === 0 ? '' : `, ${mapOf('level', texts, names, 'String', bind)} AS percentiles`;
      return {
        sql: `SELECT ${iso('w')} AS windowStart, ${iso(end)} AS windowEnd, ${subject} AS subject, ${group} AS \`group\`, toString(v) AS value${extra}\n${from}`,
        params: bind,
        name: 'JSONEachRow',
        columns: [],
      };
    }
    case 'csv': {
      const text = (column: string): string => (kind === 'exact' ? column : asText(column));
      const columns = [
        iso('w'),
        iso(end),
        ...(query.bySubject ? [text('s')] : []),
        ...groups.map(text),
        'v',
        ...percentiles.map((one) => one.sql),
      ];
      return {
        sql: `SELECT ${columns.join(', ')}\n${from}`,
        params: bind,
        name: 'CSV',
        columns: [
          'windowStart',
          'windowEnd',
          ...(query.bySubject ? ['subject'] : []),
          ...query.groupBy.map((path) => (kind === 'exact' ? path : path.replace(/^[=+\-@\t\r]/, "'$&"))),
          'value',
          ...names.map((name) => `p${name}`),
        ],
      };
    }
    case 'parquet': {
      const values = percentiles.map((one) => one.sql);
      const extra =
        values.length === 0
          ? ''
          : `, ${mapOf('level', values, names, 'Decimal(38, 9)', bind)} AS percentiles`;
      return {
        sql: `SELECT fromUnixTimestamp64Milli(w, 'UTC') AS windowStart, fromUnixTimestamp64Milli(toInt64(${end}), 'UTC') AS windowEnd, ${subject} AS subject, ${group} AS \`group\`, CAST(v, 'Decimal(38, 9)') AS value${extra}\n${from}`,
        params: bind,
        name: 'Parquet',
        columns: [],
      };
    }
  }
}

/** Epoch milliseconds of the end of the window `w`, as SQL. */
function endOf(query: UsageQuery, bind: Record<string, unknown>): string {
  const { starts, range } = query;
  if (starts === null) return `least((intDiv(w, ${HOUR_MS}) + 1) * ${HOUR_MS}, {to:Int64})`;
  if (starts.length === 1) return '{to:Int64}';
  bind['ends'] = [...starts.slice(1), range.end];
  return '{ends:Array(Int64)}[indexOf({starts:Array(Int64)}, w)]';
}

/** A map from names, which are parameters, to columns. */
function mapOf(
  prefix: string,
  columns: readonly string[],
  names: readonly string[],
  type: string,
  bind: Record<string, unknown>,
): string {
  const pairs = columns.map((column, at) => {
    bind[`${prefix}${at}`] = names[at];
    return `{${prefix}${at}:String}, ${column}`;
  });
  return `CAST(map(${pairs.join(', ')}), 'Map(String, ${type})')`;
}

const asText = (column: string): string =>
  `if(match(${column}, '^[=+\\\\-@\\t\\r]'), concat('\\'', ${column}), ${column})`;

const iso = (ms: string): string =>
  `concat(formatDateTime(toDateTime(intDiv(${ms}, 1000), 'UTC'), '%Y-%m-%dT%H:%i:%S'), '.', leftPad(toString((${ms}) % 1000), 3, '0'), 'Z')`;
