import { expect, test } from 'vitest';
import { exactTypes, parseTimestamp } from './pg-types.ts';

test.each<[string, number]>([
  ['1970-01-01 00:00:00+00', 0],
  ['2026-11-21 07:55:00.123456+00', Date.UTC(2026, 10, 21, 7, 55, 0, 123)],
  ['2026-11-21 07:55:00.5+00', Date.UTC(2026, 10, 21, 7, 55, 0, 500)],
  ['2026-11-21 07:55:00+05:30', Date.UTC(2026, 10, 21, 2, 25)],
  ['2026-11-21 07:55:00-03', Date.UTC(2026, 10, 21, 10, 55)],
  ['1969-12-31 23:59:59.999999+00', -1],
  ['infinity', Infinity],
  ['-infinity', -Infinity],
])('the timestamp %s is %d', (text, epochMs) => {
  expect(parseTimestamp(text)).toBe(epochMs);
});

test('what is no timestamp throws instead of becoming a number', () => {
  expect(() => parseTimestamp('2026-11-21')).toThrow(RangeError);
});

test.each<[string, number, string, unknown]>([
  ['int8', 20, '9223372036854775807', 9223372036854775807n],
  ['numeric', 1700, '0.10000000000000000001', '0.10000000000000000001'],
  ['int8[]', 1016, '{1,NULL,-9223372036854775808}', [1n, null, -9223372036854775808n]],
  ['numeric[]', 1231, '{0.1,NULL,12345678901234567890.5}', ['0.1', null, '12345678901234567890.5']],
  ['date', 1082, '2026-03-29', '2026-03-29'],
  ['jsonb', 3802, '{"a":[1]}', { a: [1] }],
  ['bool', 16, 't', true],
])('%s is read exactly', (_name, oid, text, value) => {
  const parse = exactTypes.getTypeParser(oid, 'text') as (text: string) => unknown;
  expect(parse(text)).toEqual(value);
});
