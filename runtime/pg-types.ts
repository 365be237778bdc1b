/**
 * How Postgres values become ours, per connection and not for the whole process: int8 is a bigint, numeric
 * a decimal string, timestamptz epoch milliseconds, date its own text. The driver's own parsers would make
 * floats of numeric arrays and local times of dates.
 */
import pg from 'pg';

const INT8 = 20;
const NUMERIC = 1700;
const TIMESTAMPTZ = 1184;
const DATE = 1082;
const INT8_ARRAY = 1016;
const NUMERIC_ARRAY = 1231;
const TIMESTAMPTZ_ARRAY = 1185;
const DATE_ARRAY = 1182;
const TEXT_ARRAY = 1009;

const text = (value: string) => value;

const PARSERS = new Map<number, (value: string) => unknown>([
  [INT8, BigInt],
  [NUMERIC, text],
  [TIMESTAMPTZ, parseTimestamp],
  [DATE, text],
  [INT8_ARRAY, arrayOf(BigInt)],
  [NUMERIC_ARRAY, arrayOf(text)],
  [TIMESTAMPTZ_ARRAY, arrayOf(parseTimestamp)],
  [DATE_ARRAY, arrayOf(text)],
]);

/** The parsers, in the shape that a pg client's `types` wants. */
export const exactTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    (format !== 'binary' && PARSERS.get(oid)) ||
    pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
};

function arrayOf(parse: (value: string) => unknown): (value: string) => unknown {
  const split = pg.types.getTypeParser(TEXT_ARRAY as number, 'text') as (value: string) => (string | null)[];
  return (value) => split(value).map((element) => (element === null ? null : parse(element)));
}

const TIMESTAMP =
  /^(\d{4,6})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?$/;

/**
 * `2026-11-21 07:55:00.123456+00` as epoch milliseconds; what is finer than a millisecond is cut towards
 * the past. `infinity` and `-infinity` become the numbers of that name. Throws for years before 1.
 */
export function parseTimestamp(value: string): number {
  if (value === 'infinity') return Infinity;
  if (value === '-infinity') return -Infinity;
  const parts = TIMESTAMP.exec(value);
  if (parts === null) throw new RangeError(`not a timestamp: ${value}`);
  const part = (index: number) => Number(parts[index] ?? 0);
  const milliseconds = Number((parts[7] ?? '').padEnd(3, '0').slice(0, 3));
  const date = new Date(0);
  date.setUTCFullYear(part(1), part(2) - 1, part(3));
  date.setUTCHours(part(4), part(5), part(6), milliseconds);
  const offsetMs = ((part(9) * 60 + part(10)) * 60 + part(11)) * 1_000;
  return date.getTime() - (parts[8] === '-' ? -offsetMs : offsetMs);
}
