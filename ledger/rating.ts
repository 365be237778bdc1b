/**
 * Rating: what a period's total costs. Always on the cumulative total, never on a difference: what is posted
 * is the price of the total now minus what was posted before, so tiers, late events and corrections need no
 * case of their own, and the order and batching of events cannot matter.
 *
 * The rules, exactly:
 * 1. `billable` = total − included, or nothing when the total does not exceed the allowance.
 * 2. per_unit: billable × unitPrice.
 * 3. graduated: each tier prices the part of billable within (bound of the tier before, its own bound], and adds
 *    its flat amount once any part lies in it.
 * 4. The sum is rounded once, to the minor unit, half away from zero.
 */
import { chargeOf, exactAmount, roundCharge } from '../contract/money.ts';
import type { Amount, Currency, ExactCharge, UnitPrice } from '../contract/money.ts';
import type { Quantity } from '../contract/quantity.ts';
import type { Price, Tier } from './plan.ts';

export interface RatedTier {
  readonly quantity: Quantity;
  readonly unitPrice: UnitPrice;
  readonly flatAmount: Amount;
}

export interface Rated {
  readonly billable: Quantity;
  /** Before the one rounding. */
  readonly charge: ExactCharge;
  readonly amount: Amount;
  /** The tiers that were entered, in order; one for per_unit when anything is billable. */
  readonly tiers: readonly RatedTier[];
}

export function rate(price: Price, total: Quantity, currency: Currency): Rated {
  const billable = total > price.included ? total - price.included : 0n;
  const tiers = enteredTiers(tiersOf(price), billable);
  const charge = tiers.reduce(
    (sum, tier) => sum + chargeOf(tier.quantity, tier.unitPrice) + exactAmount(tier.flatAmount, currency),
    0n,
  );
  return { billable, charge, amount: roundCharge(charge, currency), tiers };
}

function tiersOf(price: Price): readonly Tier[] {
  switch (price.model) {
    case 'per_unit':
      return [{ upTo: null, unitPrice: price.unitPrice, flatAmount: 0n }];
    case 'graduated':
      return price.tiers;
  }
}

function enteredTiers(tiers: readonly Tier[], billable: Quantity): RatedTier[] {
  const entered: RatedTier[] = [];
  let from = 0n;
  for (const tier of tiers) {
    if (billable <= from) break;
    const end = tier.upTo === null || tier.upTo > billable ? billable : tier.upTo;
    entered.push({ quantity: end - from, unitPrice: tier.unitPrice, flatAmount: tier.flatAmount });
    from = end;
  }
  return entered;
}
