import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ExactDouble } from './exact-double.ts';

const exact = new ExactDouble();
const read = (value: number): [number, number] | null =>
  exact.read(value) ? [exact.mantissa, exact.scale] : null;

/** The same from the shortest text of the double, which is how ECMAScript defines String(value). */
function byText(value: number): [number, number] | null {
  if (Number.isSafeInteger(value)) return [value === 0 ? 0 : value, 0];
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value));
  if (match === null) return null;
  const [, sign, whole, fraction = '', exponent = '0'] = match;
  const scale = fraction.length - Number(exponent);
  const digits = (whole! + fraction).replace(/^0+/, '');
  if (scale < 1 || scale > 9 || digits.length > 15) return null;
  return [Number(sign! + digits), scale];
}

test('a double is the shortest decimal that is this double', () => {
  const decimal = fc
    .tuple(fc.bigInt({ min: -(10n ** 17n), max: 10n ** 17n }), fc.integer({ min: 0, max: 12 }))
    .map(([digits, scale]) => Number(`${digits}e-${scale}`));
  const near = fc
    .tuple(fc.integer({ min: -(10 ** 6), max: 10 ** 6 }), fc.constantFrom(-1, 1))
    .map(([cents, step]) => cents / 100 + step * Number.EPSILON * Math.abs(cents / 100));
  fc.assert(
    fc.property(fc.oneof(fc.double(), fc.float(), decimal, near, fc.maxSafeInteger()), (value) => {
      expect(read(value)).toEqual(byText(value));
    }),
    { numRuns: 5_000 },
  );
});

test('every decimal of up to 15 digits and nine decimals comes back as it was', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -999_999_999_999_999, max: 999_999_999_999_999 }),
      fc.integer({ min: 0, max: 9 }),
      (digits, scale) => {
        const found = read(Number(`${digits}e-${scale}`));
        expect(found).not.toBeNull();
        expect(BigInt(found![0]) * 10n ** BigInt(9 - found![1])).toBe(
          BigInt(digits) * 10n ** BigInt(9 - scale),
        );
        if (found![1] > 0) expect(found![0] % 10).not.toBe(0);
      },
    ),
    { numRuns: 5_000 },
  );
});

test.each([
  [0, [0, 0]],
  [-0, [0, 0]],
  [0.1, [1, 1]],
  [1e-9, [1, 9]],
  [999_999.999_999_999, [999_999_999_999_999, 9]],
  [2 ** 53 - 1, [2 ** 53 - 1, 0]],
  [2 ** 53, null],
  [0.1 + 0.2, null],
  [1e-10, null],
  [1_234_567.123_456_789, null],
  [1e300, null],
  [5e-324, null],
  [Infinity, null],
  [NaN, null],
] as const)('%d is %j', (value, expected) => {
  expect(read(value)).toEqual(expected);
  expect(Object.is(exact.mantissa, -0)).toBe(false);
});
