import { meterMistakes, type Meter } from '../contract/meter.ts';
import {
  formatAmount,
  formatUnitPrice,
  type Amount,
  type Currency,
  type UnitPrice,
} from '../contract/money.ts';
import { formatQuantity, type Quantity } from '../contract/quantity.ts';

/**
 * A plan is what a customer has agreed to: prices on meters and limits on them. A published version never
 * changes; a change is a new version.
 */
export interface Plan {
  readonly key: string;
  /** 1, 2, 3 …, given when it is published. */
  readonly version: number;
  readonly name: string;
  readonly currency: Currency;
  readonly prices: readonly Price[];
  readonly entitlements: readonly EntitlementRule[];
}

interface PriceBase {
  readonly key: string;
  readonly meter: string;
  /** Units of each period that cost nothing; tiers are measured on what exceeds them. */
  readonly included: Quantity;
}

export type Price = PriceBase &
  (
    | { readonly model: 'per_unit'; readonly unitPrice: UnitPrice }
    | { readonly model: 'graduated'; readonly tiers: readonly Tier[] }
  );

export interface Tier {
  /** Inclusive upper bound in billable units; null for the last tier, which has none. */
  readonly upTo: Quantity | null;
  readonly unitPrice: UnitPrice;
  /** Charged once when the tier is entered. */
  readonly flatAmount: Amount;
}

export interface EntitlementRule {
  readonly key: string;
  readonly meter: string;
  /** Units a period. */
  readonly limit: Quantity;
}

export type PlanDraft = Omit<Plan, 'version'>;

export const PLAN_LIMITS = { prices: 100, tiers: 50, entitlements: 100, nameLength: 200 } as const;

const KEY = /^[a-z][a-z0-9_]{0,63}$/;
const KEY_RULE = 'lower-case letters, digits and underscores, starting with a letter, 64 at most';

/** Every mistake of a plan, each with its place; empty when it can be published. */
export function planMistakes(plan: PlanDraft, meters: readonly Meter[]): string[] {
  const mistakes: string[] = [];
  if (!KEY.test(plan.key)) mistakes.push(`key: ${KEY_RULE}`);
  if (plan.name === '' || plan.name.length > PLAN_LIMITS.nameLength)
    mistakes.push('name: 1 to 200 characters');
  if (plan.prices.length > PLAN_LIMITS.prices) mistakes.push(`prices: ${PLAN_LIMITS.prices} at most`);
  if (plan.entitlements.length > PLAN_LIMITS.entitlements) {
    mistakes.push(`entitlements: ${PLAN_LIMITS.entitlements} at most`);
  }
  const known = new Map(meters.map((meter) => [meter.key, meter]));
  const checkMeter = (place: string, key: string): void => {
    const meter = known.get(key);
    if (meter === undefined)
      mistakes.push(`${place}.meter: there is no meter ${JSON.stringify(key)}; define it first`);
    else if (meterMistakes(meter).length > 0) mistakes.push(`${place}.meter: its definition is not sound`);
  };
  plan.prices.forEach((price, at) => {
    const place = `prices[${at}]`;
    if (!KEY.test(price.key)) mistakes.push(`${place}.key: ${KEY_RULE}`);
    checkMeter(place, price.meter);
    mistakes.push(...priceMistakes(price).map((mistake) => `${place}.${mistake}`));
  });
  plan.entitlements.forEach((rule, at) => {
    const place = `entitlements[${at}]`;
    if (!KEY.test(rule.key)) mistakes.push(`${place}.key: ${KEY_RULE}`);
    checkMeter(place, rule.meter);
    if (rule.limit < 0n) mistakes.push(`${place}.limit: not negative`);
  });
  mistakes.push(
    ...repeated(
      plan.prices.map((price) => price.key),
      'prices',
    ),
  );
  mistakes.push(
    ...repeated(
      plan.entitlements.map((rule) => rule.key),
      'entitlements',
    ),
  );
  return mistakes;
}

function priceMistakes(price: Price): string[] {
  const mistakes: string[] = [];
  if (price.included < 0n) mistakes.push('included: not negative');
  if (price.model === 'per_unit') {
    if (price.unitPrice < 0n) mistakes.push('unitPrice: not negative');
    return mistakes;
  }
  const { tiers } = price;
  if (tiers.length === 0 || tiers.length > PLAN_LIMITS.tiers)
    mistakes.push(`tiers: 1 to ${PLAN_LIMITS.tiers}`);
  let before = 0n;
  tiers.forEach((tier, at) => {
    const isLast = at === tiers.length - 1;
    if (tier.unitPrice < 0n) mistakes.push(`tiers[${at}].unitPrice: not negative`);
    if (tier.flatAmount < 0n) mistakes.push(`tiers[${at}].flatAmount: not negative`);
    if (isLast !== (tier.upTo === null)) {
      mistakes.push(
        `tiers[${at}].upTo: ${isLast ? 'null, since the last tier has no end' : 'a bound, since only the last tier has none'}`,
      );
    }
    if (tier.upTo !== null) {
      if (tier.upTo <= before) mistakes.push(`tiers[${at}].upTo: above the tier before it`);
      before = tier.upTo;
    }
  });
  return mistakes;
}

function repeated(keys: readonly string[], place: string): string[] {
  const seen = new Set<string>();
  return keys.flatMap((key, at) => {
    if (seen.has(key)) return [`${place}[${at}].key: ${JSON.stringify(key)} is named twice`];
    seen.add(key);
    return [];
  });
}

/** The plan as JSON with decimal strings: what is stored, hashed and shown. Its form never depends on key order. */
export function planToJson(plan: PlanDraft): Record<string, unknown> {
  return {
    key: plan.key,
    name: plan.name,
    currency: plan.currency,
    prices: plan.prices.map((price) => ({
      key: price.key,
      meter: price.meter,
      model: price.model,
      included: formatQuantity(price.included),
      ...(price.model === 'per_unit'
        ? { unitPrice: formatUnitPrice(price.unitPrice) }
        : { tiers: price.tiers.map((tier) => tierToJson(tier, plan.currency)) }),
    })),
    entitlements: plan.entitlements.map((rule) => ({
      key: rule.key,
      meter: rule.meter,
      limit: formatQuantity(rule.limit),
    })),
  };
}

function tierToJson(tier: Tier, currency: Currency): Record<string, unknown> {
  return {
    upTo: tier.upTo === null ? null : formatQuantity(tier.upTo),
    unitPrice: formatUnitPrice(tier.unitPrice),
    flatAmount: formatAmount(tier.flatAmount, currency),
  };
}
