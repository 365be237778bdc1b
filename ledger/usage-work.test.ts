import fc from 'fast-check';
import { expect, test } from 'vitest';
import { HOUR_MS } from '../contract/window.ts';
import { batchesOf } from './usage-totals.ts';
import { touchedPeriods } from './usage-work.ts';

const day = (month: number, date: number): number => Date.UTC(2026, month - 1, date);
const starts = (anchor: number, first: number, last: number): string[] =>
  touchedPeriods(anchor, { firstHourMs: first, lastHourMs: last }).map(({ start }) =>
    new Date(start).toISOString().slice(5, 10),
  );

test('changed hours touch every period that they overlap, and none before the anchor', () => {
  const anchor = day(1, 15);
  const rows: [string, number, number, string[]][] = [
    ['one hour', day(2, 1), day(2, 1), ['01-15']],
    ['the first hour of a period', day(2, 15), day(2, 15), ['02-15']],
    ['the last hour of a period', day(2, 15) - HOUR_MS, day(2, 15) - HOUR_MS, ['01-15']],
    ['a calendar month', day(2, 1), day(3, 1) - HOUR_MS, ['01-15', '02-15']],
    ['across the anchor', day(1, 1), day(1, 15), ['01-15']],
    ['before the anchor', day(1, 1), day(1, 15) - HOUR_MS, []],
  ];
  for (const [what, first, last, expected] of rows)
    expect(starts(anchor, first, last), what).toEqual(expected);
});

test('batches keep everything in order, and each fits a request', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(60_000), { maxLength: 40 }), (lengths) => {
      const items = lengths.map((length) => 'x'.repeat(length));
      const batches = batchesOf(items, (item) => item);
      expect(batches.flat()).toEqual(items);
      for (const batch of batches) {
        const characters = batch.reduce((sum, item) => sum + item.length + 3, 0);
        expect(batch.length > 0 && (batch.length === 1 || characters <= 40_000)).toBe(true);
      }
    }),
    { numRuns: 50 },
  );
  expect(batchesOf(Array<string>(4_001).fill('s'), (item) => item).map((batch) => batch.length)).toEqual([
    2_000, 2_000, 1,
  ]);
});
