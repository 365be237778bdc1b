import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatAmount, parseAmount, parseUnitPrice, type Currency } from '../contract/money.ts';
import { formatQuantity, parseQuantity, QUANTITY_UNIT } from '../contract/quantity.ts';
import type { Price, Tier } from './plan.ts';
import { rate } from './rating.ts';

function quantity(text: string): bigint {
  const parsed = parseQuantity(text);
  if (!parsed.ok) throw new Error(text);
  return parsed.value;
}

const perUnit = (unitPrice: string, included = '0'): Price => ({
  key: 'p',
  meter: 'm',
  included: quantity(included),
  model: 'per_unit',
  unitPrice: parseUnitPrice(unitPrice)!,
});

const tier = (upTo: string | null, unitPrice: string, flat = '0', currency: Currency = 'USD'): Tier => ({
  upTo: upTo === null ? null : quantity(upTo),
  unitPrice: parseUnitPrice(unitPrice)!,
  flatAmount: parseAmount(flat, currency)!,
});

const graduated = (included: string, ...tiers: Tier[]): Price => ({
  key: 'p',
  meter: 'm',
  included: quantity(included),
  model: 'graduated',
  tiers,
});

/** Every expected amount was worked out by hand; the working stands beside it. */
function check(price: Price, currency: Currency, rows: readonly (readonly [string, string, string])[]): void {
  for (const [total, amount, working] of rows) {
    const rated = rate(price, quantity(total), currency);
    expect(formatAmount(rated.amount, currency), `${total}: ${working}`).toBe(amount);
  }
}

describe('per unit', () => {
  test('a price far below a cent, on totals of eight digits, is exact', () => {
    check(perUnit('0.000003'), 'USD', [
      ['0', '0.00', 'nothing'],
      ['1', '0.00', '0.000003'],
      ['1666', '0.00', '0.004998 is below half a cent'],
      ['1667', '0.01', '0.005001 is above half a cent'],
      ['12345678', '37.04', '12,345,678 × 0.000003 = 37.037034'],
      ['99999999', '300.00', '99,999,999 × 0.000003 = 299.999997'],
      ['18055233', '54.17', '18,055,233 × 0.000003 = 54.165699'],
    ]);
  });

  test('half a minor unit rounds away from zero, once, on the total', () => {
    check(perUnit('0.005'), 'USD', [
      ['1', '0.01', '0.005 is exactly half'],
      ['2', '0.01', '0.010: two events are not rounded each'],
      ['3', '0.02', '0.015 is exactly half'],
      ['0.999999999', '0.00', '0.004999999995'],
    ]);
  });

  test('what is included costs nothing, up to and with its last unit', () => {
    check(perUnit('0.10', '100'), 'USD', [
      ['99', '0.00', 'below'],
      ['100', '0.00', 'exactly the allowance'],
      ['100.05', '0.01', '0.05 × 0.10 = 0.005 is exactly half'],
      ['101', '0.10', 'one unit'],
      ['250', '15.00', '150 × 0.10'],
    ]);
    expect(rate(perUnit('0.10', '100'), quantity('100'), 'USD')).toMatchObject({ billable: 0n, tiers: [] });
  });

  test('a currency has the minor unit that it has', () => {
    check(perUnit('0.4'), 'JPY', [
      ['1', '0', '0.4 yen'],
      ['2', '1', '0.8 yen'],
      ['1234567', '493827', '493,826.8 yen'],
    ]);
    check(perUnit('0.0004'), 'KWD', [
      ['1', '0.000', '0.4 fils'],
      ['2', '0.001', '0.8 fils'],
      ['1234567', '493.827', '493.8268 dinars'],
    ]);
  });

  test('a negative total, from corrections, costs nothing', () => {
    check(perUnit('1'), 'USD', [['-5', '0.00', 'there is no negative usage to pay for']]);
  });
});

describe('graduated', () => {
  const price = graduated('100', tier('1000', '0.01'), tier('10000', '0.005'), tier(null, '0.001'));

  test('each tier prices its own part; an upper bound belongs to its tier', () => {
    check(price, 'USD', [
      ['100', '0.00', 'the allowance'],
      ['101', '0.01', '1 × 0.01'],
      ['1100', '10.00', '1,000 × 0.01: exactly the first bound, measured after the allowance'],
      ['1101', '10.01', '10.00 + 1 × 0.005 = 10.005, half away from zero'],
      ['1102', '10.01', '10.00 + 2 × 0.005'],
      ['10100', '55.00', '10.00 + 9,000 × 0.005: exactly the second bound'],
      ['10101', '55.00', '55.00 + 0.001'],
      ['60100', '105.00', '55.00 + 50,000 × 0.001'],
    ]);
  });

  test('a flat amount is charged once its tier is entered, whatever lies in it', () => {
    const flat = graduated('0', tier('10', '0', '5.00'), tier(null, '0.50', '2.00'));
    check(flat, 'USD', [
      ['0', '0.00', 'no tier is entered'],
      ['0.000000001', '5.00', 'the first one is'],
      ['10', '5.00', 'exactly its bound: the second is not'],
      ['10.000000001', '7.00', '5.00 + 2.00 + 0.0000000005'],
      ['14', '9.00', '5.00 + 2.00 + 4 × 0.50'],
    ]);
  });

  test('the demo plan on ten million tokens', () => {
    const demo = graduated('100000', tier('2000000', '0.000003'), tier(null, '0.0000025'));
    check(demo, 'USD', [
      ['18067975', '45.92', '2,000,000 × 0.000003 = 6 and 15,967,975 × 0.0000025 = 39.9199375'],
      ['2100000', '6.00', 'exactly the first bound'],
    ]);
  });

  test('the breakdown names the tiers that were entered', () => {
    expect(rate(price, quantity('1102'), 'USD').tiers).toEqual([
      { quantity: 1000n * QUANTITY_UNIT, unitPrice: 10n ** 10n, flatAmount: 0n },
      { quantity: 2n * QUANTITY_UNIT, unitPrice: 5n * 10n ** 9n, flatAmount: 0n },
    ]);
  });
});

/** Units one by one, in whole units and 10^-12 of the major unit: slow, and too simple to be wrong. */
function slowCharge(tiers: readonly { upTo: number | null; price: number }[], billable: number): bigint {
  let charge = 0n;
  for (let unit = 1; unit <= billable; unit++) {
    const inside = tiers.find((one) => one.upTo === null || unit <= one.upTo)!;
    charge += BigInt(inside.price);
  }
  return charge;
}

test('graduated prices equal a count unit by unit', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ width: fc.integer({ min: 1, max: 40 }), price: fc.nat(10 ** 9) }), {
        minLength: 1,
        maxLength: 5,
      }),
      fc.nat(30),
      fc.nat(200),
      (shape, included, total) => {
        let bound = 0;
        const tiers = shape.map(({ width, price }, at) => {
          bound += width;
          return { upTo: at === shape.length - 1 ? null : bound, price };
        });
        const price: Price = {
          key: 'p',
          meter: 'm',
          included: BigInt(included) * QUANTITY_UNIT,
          model: 'graduated',
          tiers: tiers.map((one) => ({
            upTo: one.upTo === null ? null : BigInt(one.upTo) * QUANTITY_UNIT,
            unitPrice: BigInt(one.price),
            flatAmount: 0n,
          })),
        };
        const rated = rate(price, BigInt(total) * QUANTITY_UNIT, 'USD');
        expect(rated.charge).toBe(slowCharge(tiers, Math.max(0, total - included)) * QUANTITY_UNIT);
        expect(rated.tiers.reduce((sum, one) => sum + one.quantity, 0n)).toBe(rated.billable);
      },
    ),
  );
});

test('more usage never costs less', () => {
  const price = graduated('10', tier('50', '0.03', '1.00'), tier('90.5', '0'), tier(null, '0.007'));
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 200n * QUANTITY_UNIT }),
      fc.bigInt({ min: 0n, max: QUANTITY_UNIT }),
      (total, more) => {
        const [less, all] = [rate(price, total, 'USD'), rate(price, total + more, 'USD')];
        expect(all.amount >= less.amount, `${formatQuantity(total)} + ${formatQuantity(more)}`).toBe(true);
      },
    ),
  );
});
