import fc from 'fast-check';
import { expect, test } from 'vitest';
import { quantileOf, Quantiles, slopeOf } from './quantiles.ts';

test('a quantile is never too low and at most 1.6 % too high', () => {
  const times = fc.array(fc.double({ min: 0.001, max: 3_600_000, noNaN: true }), {
    minLength: 1,
    maxLength: 200,
  });
  fc.assert(
    fc.property(times, fc.constantFrom(0.5, 0.9, 0.99, 1), (ms, part) => {
      const quantiles = new Quantiles();
      for (const one of ms) quantiles.addMs(one);
      const exact = quantileOf(ms, part);
      expect(quantiles.ms(part)).toBeGreaterThanOrEqual(exact);
      expect(quantiles.ms(part)).toBeLessThanOrEqual(exact * (1 + 1 / 64) + 0.001);
      expect(quantiles.count).toBe(ms.length);
    }),
  );
});

test('of the numbers from 1 to 100 the 99th is the 99 % quantile', () => {
  const numbers = Array.from({ length: 100 }, (_, at) => 100 - at);
  expect([0.01, 0.5, 0.99, 1].map((part) => quantileOf(numbers, part))).toEqual([1, 50, 99, 100]);
  expect(quantileOf([], 0.5)).toBe(0);
  expect(new Quantiles().ms(0.99)).toBe(0);
});

test('the slope of a line is found, and none of a point', () => {
  expect(slopeOf([0, 1, 2, 5].map((x) => [x, 3 * x + 7]))).toBeCloseTo(3, 9);
  expect(slopeOf([[1, 2]])).toBe(0);
});
