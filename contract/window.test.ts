import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addMonths, contains, formatInstant, hourStart, monthlyPeriod, parseInstant } from './window.ts';

const at = (text: string): number => Date.parse(text);
const iso = (ms: number): string => new Date(ms).toISOString();

test.each([
  ['2026-01-31T10:30:00.000Z', 1, '2026-02-28T10:30:00.000Z'],
  ['2026-01-31T10:30:00.000Z', 2, '2026-03-31T10:30:00.000Z'], // comes back to the 31st
  ['2026-01-31T10:30:00.000Z', 3, '2026-04-30T10:30:00.000Z'],
  ['2024-01-31T00:00:00.000Z', 1, '2024-02-29T00:00:00.000Z'],
  ['2024-02-29T00:00:00.000Z', 12, '2025-02-28T00:00:00.000Z'],
  ['2024-02-29T00:00:00.000Z', 48, '2028-02-29T00:00:00.000Z'],
  ['2026-11-15T23:59:59.999Z', 2, '2027-01-15T23:59:59.999Z'],
  ['2026-03-31T00:00:00.000Z', -1, '2026-02-28T00:00:00.000Z'],
  ['2026-01-01T00:00:00.000Z', -1, '2025-12-01T00:00:00.000Z'],
  ['2026-05-05T05:05:05.005Z', 0, '2026-05-05T05:05:05.005Z'],
])('%s and %i months is %s', (anchor, months, expected) => {
  expect(iso(addMonths(at(anchor), months))).toBe(expected);
});

test.each([
  [
    '2026-01-31T00:00:00Z',
    '2026-02-27T23:59:59.999Z',
    '2026-01-31T00:00:00.000Z',
    '2026-02-28T00:00:00.000Z',
  ],
  [
    '2026-01-31T00:00:00Z',
    '2026-02-28T00:00:00.000Z',
    '2026-02-28T00:00:00.000Z',
    '2026-03-31T00:00:00.000Z',
  ],
  [
    '2026-01-31T00:00:00Z',
    '2026-03-30T12:00:00.000Z',
    '2026-02-28T00:00:00.000Z',
    '2026-03-31T00:00:00.000Z',
  ],
  [
    '2026-11-15T08:00:00Z',
    '2026-11-15T07:59:59.999Z',
    '2026-10-15T08:00:00.000Z',
    '2026-11-15T08:00:00.000Z',
  ],
  [
    '2026-11-15T08:00:00Z',
    '2024-01-01T00:00:00.000Z',
    '2023-12-15T08:00:00.000Z',
    '2024-01-15T08:00:00.000Z',
  ],
])('anchored at %s, %s lies in [%s, %s)', (anchor, time, start, end) => {
  const period = monthlyPeriod(at(anchor), at(time));
  expect([iso(period.start), iso(period.end)]).toEqual([start, end]);
});

const instant = fc.integer({ min: at('1990-01-01T00:00:00Z'), max: at('2090-01-01T00:00:00Z') });

test('every instant lies in exactly its period, and periods meet without a gap', () => {
  fc.assert(
    fc.property(instant, instant, (anchor, time) => {
      const period = monthlyPeriod(anchor, time);
      expect(contains(period, time)).toBe(true);
      expect(monthlyPeriod(anchor, period.end).start).toBe(period.end);
      expect(monthlyPeriod(anchor, period.start)).toEqual(period);
      expect(monthlyPeriod(anchor, period.start - 1).end).toBe(period.start);
    }),
  );
});

test('a window holds its start and not its end', () => {
  const window = { start: 10, end: 20 };
  expect([9, 10, 19, 20].map((time) => contains(window, time))).toEqual([false, true, true, false]);
});

test('an hour starts where UTC has a full hour', () => {
  expect(iso(hourStart(at('2026-11-21T08:59:59.999Z')))).toBe('2026-11-21T08:00:00.000Z');
  expect(iso(hourStart(at('2026-11-21T08:00:00.000Z')))).toBe('2026-11-21T08:00:00.000Z');
});

test.each([
  ['2026-11-21T08:30:00Z', '2026-11-21T08:30:00.000Z'],
  ['2026-11-21t08:30:00z', '2026-11-21T08:30:00.000Z'],
  ['2026-11-21 08:30:00Z', '2026-11-21T08:30:00.000Z'],
  ['2026-11-21T08:30:00.1Z', '2026-11-21T08:30:00.100Z'],
  ['2026-11-21T08:30:00.123999999Z', '2026-11-21T08:30:00.123Z'],
  ['2026-11-21T08:30:00+02:00', '2026-11-21T06:30:00.000Z'],
  ['2026-11-21T08:30:00-05:30', '2026-11-21T14:00:00.000Z'],
  ['2026-12-31T23:59:60Z', '2026-12-31T23:59:59.000Z'],
  ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00.000Z'],
  ['1970-01-01T00:00:00Z', '1970-01-01T00:00:00.000Z'],
])('%s is %s', (text, expected) => {
  expect(iso(parseInstant(text)!)).toBe(expected);
});

test.each([
  '',
  '2026-11-21',
  '2026-11-21T08:30Z',
  '2026-11-21T08:30:00',
  '2026-02-29T00:00:00Z',
  '2026-04-31T00:00:00Z',
  '2026-00-10T00:00:00Z',
  '2026-13-10T00:00:00Z',
  '2026-11-00T00:00:00Z',
  '2026-11-21T24:00:00Z',
  '2026-11-21T08:60:00Z',
  '2026-11-21T08:30:61Z',
  '2026-11-21T08:30:00+24:00',
  '2026-11-21T08:30:00+02:60',
  '2026-11-21T08:30:00.Z',
  '2026-11-21T08:30:00.1234567890Z',
  '1969-12-31T23:59:59Z',
  ' 2026-11-21T08:30:00Z',
  '2026-11-21T08:30:00Z\n',
])('%j is no instant', (text) => {
  expect(parseInstant(text)).toBeNull();
});

test('an instant is written and read back', () => {
  fc.assert(
    fc.property(instant, (time) => {
      expect(parseInstant(formatInstant(time))).toBe(time);
    }),
  );
});
