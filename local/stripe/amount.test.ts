import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatDecimal, formatMoney, multiply, parseDecimal, sum } from './amount.ts';

describe('amounts', () => {
  test.each<[string, string, number]>([
    ['0.002', '1234567', 2469], // 2469.134
    ['0.5', '1', 1], // half away from zero
    ['-0.5', '1', -1],
    ['0.499999999999', '1', 0],
    ['2.5', '3', 8], // 7.5
    ['1', '0.000000000001', 0],
    ['0.1', '3', 0],
    ['99.99', '100', 9999],
    ['0.000000000001', '9999999999999', 10], // 9.999999999999
  ])('%s minor units times %s is %i', (unit, quantity, amount) => {
    expect(multiply(unit, quantity)).toBe(amount);
  });

  test('a decimal survives being parsed and written', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), (scaled) => {
        expect(parseDecimal(formatDecimal(scaled))).toBe(scaled);
      }),
    );
  });

  test('sums are exact, and refuse to become inexact', () => {
    expect(sum([])).toBe(0);
    expect(sum(Array<number>(250).fill(999_999_999_999))).toBe(249_999_999_999_750);
    expect(() => sum([Number.MAX_SAFE_INTEGER, 1])).toThrow(RangeError);
  });

  test.each<[number, string, string]>([
    [123456, 'usd', '1234.56 USD'],
    [5, 'eur', '0.05 EUR'],
    [-5, 'eur', '-0.05 EUR'],
    [500, 'jpy', '500 JPY'],
  ])('%i %s is shown as %s', (amount, currency, shown) => {
    expect(formatMoney(amount, currency)).toBe(shown);
  });
});
