import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  formatQuantity,
  parseQuantity,
  quantityOf,
  scaleDecimal,
  storedQuantity,
  unscaleDecimal,
} from './quantity.ts';

test.each([
  ['0', 0n],
  ['-0', 0n],
  ['12', 12_000_000_000n],
  ['-0.5', -500_000_000n],
  ['0.000000001', 1n],
  ['1.10', 1_100_000_000n],
  ['1.100000000000', 1_100_000_000n],
  ['999999999999999999.999999999', 999_999_999_999_999_999_999_999_999n],
  ['-999999999999999999.999999999', -999_999_999_999_999_999_999_999_999n],
])('%s is %s nanounits', (text, value) => {
  expect(parseQuantity(text)).toEqual({ ok: true, value });
});

test.each([
  ['', 'not_a_decimal'],
  ['abc', 'not_a_decimal'],
  ['+1', 'not_a_decimal'],
  ['01', 'not_a_decimal'],
  ['.5', 'not_a_decimal'],
  ['5.', 'not_a_decimal'],
  ['1e3', 'not_a_decimal'],
  [' 1', 'not_a_decimal'],
  ['1\n', 'not_a_decimal'],
  ['1,5', 'not_a_decimal'],
  ['NaN', 'not_a_decimal'],
  ['Infinity', 'not_a_decimal'],
  ['0x10', 'not_a_decimal'],
  ['١', 'not_a_decimal'],
  ['1'.repeat(65), 'not_a_decimal'],
  ['0.0000000001', 'too_many_decimals'],
  ['1.0000000001', 'too_many_decimals'],
  ['1000000000000000000', 'too_large'],
  ['-1000000000000000000', 'too_large'],
])('%j is refused: %s', (text, fault) => {
  expect(parseQuantity(text)).toEqual({ ok: false, fault });
});

const BOUND = 10n ** 27n;

test('every quantity in range is written and read back', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -BOUND + 1n, max: BOUND - 1n }), (value) => {
      const text = formatQuantity(value);
      expect(text).toMatch(/^-?(0|[1-9]\d*)(\.\d*[1-9])?$/);
      expect(parseQuantity(text)).toEqual({ ok: true, value });
      expect(storedQuantity(text)).toBe(value);
    }),
  );
});

test('scaling and unscaling are inverse at every scale', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.nat(12), (value, scale) => {
      expect(scaleDecimal(unscaleDecimal(value, scale), scale)).toBe(value);
    }),
  );
});

test('a sum in a store may exceed the bound of one value; a malformed one is a bug', () => {
  expect(storedQuantity('1000000000000000000000.5')).toBe(1_000_000_000_000_000_000_000_500_000_000n);
  expect(() => storedQuantity('x')).toThrow(/stored quantity/);
});

test('a mantissa and a scale are the decimal that they stand for', () => {
  expect(quantityOf(15, 1)).toBe(1_500_000_000n);
  expect(quantityOf(-1, 9)).toBe(-1n);
  expect(quantityOf(9_007_199_254_740_991, 0)).toBe(9_007_199_254_740_991_000_000_000n);
  fc.assert(
    fc.property(fc.maxSafeInteger(), fc.nat(9), (mantissa, scale) => {
      expect(quantityOf(mantissa, scale)).toBe(storedQuantity(unscaleDecimal(BigInt(mantissa), scale)));
    }),
  );
});
