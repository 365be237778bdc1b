import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backoffMs } from './backoff.ts';

const almostOne = () => 1 - Number.EPSILON;

test('the ceiling doubles with every attempt until it meets the maximum', () => {
  const bounds = { baseMs: 100, maxMs: 1_000 };
  expect([0, 1, 2, 3, 4, 5].map((attempt) => backoffMs(attempt, bounds, almostOne))).toEqual([
    99, 199, 399, 799, 999, 999,
  ]);
});

test('a wait is never negative and never reaches the maximum, whatever the attempt', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -5, max: 5_000 }),
      fc.integer({ min: 1, max: 10_000 }),
      fc.integer({ min: 1, max: 100_000 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (attempt, baseMs, maxMs, draw) => {
        const wait = backoffMs(attempt, { baseMs, maxMs }, () => draw);
        expect(wait).toBeGreaterThanOrEqual(0);
        expect(wait).toBeLessThan(maxMs);
      },
    ),
  );
});
