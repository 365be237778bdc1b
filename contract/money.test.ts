import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  allocate,
  chargeOf,
  CURRENCIES,
  divideHalfAwayFromZero,
  exactAmount,
  formatAmount,
  formatUnitPrice,
  isCurrency,
  minorDigits,
  parseAmount,
  parseUnitPrice,
  roundCharge,
  type Currency,
} from './money.ts';
import { parseQuantity } from './quantity.ts';

test.each<[string, Currency, bigint]>([
  ['12.34', 'USD', 1_234n],
  ['12.3', 'USD', 1_230n],
  ['12', 'EUR', 1_200n],
  ['-0.01', 'USD', -1n],
  ['500', 'JPY', 500n],
  ['1.234', 'KWD', 1_234n],
])('%s %s is %s minor units', (text, currency, amount) => {
  expect(parseAmount(text, currency)).toBe(amount);
});

test.each<[string, Currency]>([
  ['12.345', 'USD'],
  ['0.5', 'JPY'],
  ['1.2345', 'KWD'],
  ['1,00', 'USD'],
  ['', 'USD'],
])('%j %s is refused, never rounded', (text, currency) => {
  expect(parseAmount(text, currency)).toBeNull();
});

test.each<[bigint, Currency, string]>([
  [0n, 'USD', '0.00'],
  [5n, 'USD', '0.05'],
  [-1_230n, 'USD', '-12.30'],
  [500n, 'JPY', '500'],
  [1_200n, 'KWD', '1.200'],
])('%s %s is written %s', (amount, currency, text) => {
  expect(formatAmount(amount, currency)).toBe(text);
});

const currency = fc.constantFrom(...CURRENCIES);
const amount = fc.bigInt({ min: -(10n ** 24n), max: 10n ** 24n });

test('every amount is written and read back in every currency', () => {
  fc.assert(
    fc.property(amount, currency, (value, code) => {
      const text = formatAmount(value, code);
      expect(parseAmount(text, code)).toBe(value);
      expect(text.split('.')[1]?.length ?? 0).toBe(minorDigits(code));
    }),
  );
});

test('currencies are told by their upper-case codes', () => {
  expect(isCurrency('USD')).toBe(true);
  expect(isCurrency('usd')).toBe(false);
  expect(isCurrency('toString')).toBe(false);
});

test('a price far below a cent is kept exactly', () => {
  expect(parseUnitPrice('0.000000000001')).toBe(1n);
  expect(parseUnitPrice('0.0000000000001')).toBeNull();
  expect(formatUnitPrice(2_500_000n)).toBe('0.0000025');
});

const charge = (quantity: string, price: string): bigint => {
  const parsed = parseQuantity(quantity);
  if (!parsed.ok) throw new Error(parsed.fault);
  return chargeOf(parsed.value, parseUnitPrice(price)!);
};

// By hand: quantity × price in major units, then to the minor unit, half away from zero.
test.each<[string, string, Currency, bigint]>([
  ['1000000', '0.0000025', 'USD', 250n], // 2.50
  ['3', '0.005', 'USD', 2n], // 0.015, half up
  ['1', '0.005', 'USD', 1n], // 0.005, half up
  ['1', '0.004999999999', 'USD', 0n],
  ['-1', '0.005', 'USD', -1n], // half away from zero, on either side
  ['-3', '0.005', 'USD', -2n],
  ['0.000000001', '0.000000000001', 'USD', 0n],
  ['1', '0.5', 'JPY', 1n],
  ['1', '0.49', 'JPY', 0n],
  ['1.5', '1', 'KWD', 1_500n],
])('%s × %s %s is %s minor units', (quantity, price, code, expected) => {
  expect(roundCharge(charge(quantity, price), code)).toBe(expected);
});

test('a whole amount as an exact charge rounds to itself', () => {
  fc.assert(
    fc.property(amount, currency, (value, code) => {
      expect(roundCharge(exactAmount(value, code), code)).toBe(value);
    }),
  );
});

test('a rounded charge is off by half a minor unit at most', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }),
      fc.bigInt({ min: 1n, max: 10n ** 20n }),
      (a, b) => {
        const off = divideHalfAwayFromZero(a, b) * b - a;
        expect((off < 0n ? -off : off) * 2n <= b).toBe(true);
        expect(divideHalfAwayFromZero(-a, b)).toBe(-divideHalfAwayFromZero(a, b));
      },
    ),
  );
});

test.each<[bigint, bigint[], bigint[]]>([
  [100n, [1n, 1n, 1n], [34n, 33n, 33n]],
  [101n, [1n, 1n, 1n], [34n, 34n, 33n]],
  [-100n, [1n, 1n, 1n], [-34n, -33n, -33n]],
  [10n, [3n, 0n, 1n], [8n, 0n, 2n]], // 7.5 and 2.5: the tie goes to the earlier
  [1n, [0n, 5n, 5n], [0n, 1n, 0n]],
  [0n, [1n, 2n], [0n, 0n]],
  [7n, [1n], [7n]],
])('%s split by %s is %s', (total, weights, parts) => {
  expect(allocate(total, weights)).toEqual(parts);
});

test('the parts sum to the whole, and none is off its share by a unit or more', () => {
  const weights = fc.array(fc.bigInt({ min: 0n, max: 10n ** 15n }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(
      amount,
      weights.filter((list) => list.some((weight) => weight > 0n)),
      (total, list) => {
        const parts = allocate(total, list);
        expect(parts.reduce((a, b) => a + b, 0n)).toBe(total);
        const sum = list.reduce((a, b) => a + b, 0n);
        parts.forEach((part, at) => {
          const off = part * sum - total * list[at]!;
          expect((off < 0n ? -off : off) < sum).toBe(true);
        });
      },
    ),
  );
});

test('weights that cannot divide anything are a bug', () => {
  expect(() => allocate(1n, [])).toThrow();
  expect(() => allocate(1n, [0n, 0n])).toThrow();
  expect(() => allocate(1n, [2n, -1n])).toThrow();
});
