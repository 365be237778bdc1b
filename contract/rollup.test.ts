import fc from 'fast-check';
import { expect, test } from 'vitest';
import { mergeTotals, readTotals, totalsOf, type Totals } from './rollup.ts';

const value = fc.bigInt({ min: -(10n ** 27n), max: 10n ** 27n });
const one = fc.record({ value, timeMs: fc.nat(5), position: fc.bigInt({ min: 0n, max: 20n }) });
/** Positions are unique: no two events share a place in the log. */
const events = fc.uniqueArray(one, { minLength: 1, maxLength: 20, selector: ({ position }) => position });

const fold = (list: readonly { value: bigint; timeMs: number; position: bigint }[]): Totals =>
  list.map((event) => totalsOf(event.value, event.timeMs, event.position)).reduce(mergeTotals);

test('totals are those of an independent sum, whatever the order and the grouping', () => {
  fc.assert(
    fc.property(events, fc.func(fc.integer()), fc.nat(), (list, rank, cut) => {
      const shuffled = [...list].sort((a, b) => rank(a.position) - rank(b.position));
      const at = 1 + (cut % shuffled.length);
      const halves = [shuffled.slice(0, at), shuffled.slice(at)].filter((half) => half.length > 0);
      const merged = halves.map(fold).reduce(mergeTotals);
      const values = list.map((event) => event.value);
      const newest = [...list].sort((a, b) => a.timeMs - b.timeMs || Number(a.position - b.position)).at(-1)!;
      expect(merged).toEqual({
        count: BigInt(list.length),
        sum: values.reduce((a, b) => a + b, 0n),
        min: values.reduce((a, b) => (a < b ? a : b)),
        max: values.reduce((a, b) => (a > b ? a : b)),
        latest: newest.value,
        latestTimeMs: newest.timeMs,
        latestPosition: newest.position,
      });
    }),
  );
});

test('a meter reads the totals in its way', () => {
  // 1.5, 2 and -0.25, the last one at the same time as the second but further on in the log.
  const totals = fold([
    { value: 1_500_000_000n, timeMs: 1, position: 7n },
    { value: 2_000_000_000n, timeMs: 5, position: 8n },
    { value: -250_000_000n, timeMs: 5, position: 9n },
  ]);
  expect(readTotals(totals, 'count')).toBe('3');
  expect(readTotals(totals, 'sum')).toBe('3.25');
  expect(readTotals(totals, 'min')).toBe('-0.25');
  expect(readTotals(totals, 'max')).toBe('2');
  expect(readTotals(totals, 'latest')).toBe('-0.25');
  expect(readTotals(totals, 'average')).toBe('1.083333333'); // 3.25 / 3, cut
  const negative = fold([
    { value: -1n, timeMs: 1, position: 1n },
    { value: -2n, timeMs: 1, position: 2n },
  ]);
  expect(readTotals(negative, 'average')).toBe('-0.000000001'); // -1.5 nanounits, cut toward zero
});
