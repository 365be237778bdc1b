/** Plans as JSON. Decimals are text; what text cannot be an exact amount is a mistake with its place. */
import { Type, type Static } from 'typebox';
import { parseAmount, parseUnitPrice, UNIT_PRICE_SCALE, minorDigits } from '../../contract/money.ts';
import { parseQuantity } from '../../contract/quantity.ts';
import {
  PLAN_LIMITS,
  planToJson,
  type EntitlementRule,
  type Plan,
  type PlanDraft,
  type Price,
  type Tier,
} from '../plan.ts';
import type { Mistake } from './problems.ts';
import { CurrencyCode, Decimal, Money, named, Nullable, object, oneOf } from './schema.ts';

const Key = Type.String({ minLength: 1, maxLength: 64, examples: ['pro'] });
const Model = oneOf(['per_unit', 'graduated']);

const TierBody = object({
  upTo: Nullable(Decimal('Upper bound of the tier in billable units, inclusive; null for the last')),
  unitPrice: Decimal('Price of a unit in major units of the currency, 12 decimals at most'),
  flatAmount: Type.Optional(Money('Charged once when the tier is entered')),
});

const PriceBody = object({
  key: Key,
  meter: Type.String({ minLength: 1, maxLength: 64 }),
  model: Model,
  included: Type.Optional(Decimal('Units of each period that cost nothing; tiers begin above them')),
  unitPrice: Type.Optional(Decimal('Of per_unit: price of a unit in major units, 12 decimals at most')),
  tiers: Type.Optional(Type.Array(TierBody, { maxItems: PLAN_LIMITS.tiers, description: 'Of graduated' })),
});

const EntitlementBody = object({
  key: Key,
  meter: Type.String({ minLength: 1, maxLength: 64 }),
  limit: Decimal('Units a period'),
});

export const PlanBody = object({
  key: Key,
  name: Type.String({ minLength: 1, maxLength: PLAN_LIMITS.nameLength }),
  currency: CurrencyCode,
  prices: Type.Array(PriceBody, { maxItems: PLAN_LIMITS.prices }),
  entitlements: Type.Optional(Type.Array(EntitlementBody, { maxItems: PLAN_LIMITS.entitlements })),
});

export const PlanSchema = named(
  'Plan',
  object(
    {
      key: Type.String(),
      version: Type.Integer({ description: 'Published versions never change' }),
      name: Type.String(),
      currency: CurrencyCode,
      prices: Type.Array(
        object({
          key: Type.String(),
          meter: Type.String(),
          model: Model,
          included: Decimal('Units of each period that cost nothing'),
          unitPrice: Type.Optional(Decimal('Of per_unit')),
          tiers: Type.Optional(
            Type.Array(
              object({
                upTo: Nullable(Decimal('Upper bound in billable units, inclusive; null for the last')),
                unitPrice: Decimal('Price of a unit in major units'),
                flatAmount: Money('Charged once when the tier is entered'),
              }),
            ),
          ),
        }),
      ),
      entitlements: Type.Array(
        object({ key: Type.String(), meter: Type.String(), limit: Decimal('Units a period') }),
      ),
    },
    'What a customer has agreed to: prices on meters and limits on them',
  ),
);

export function planJson(plan: Plan): Record<string, unknown> {
  return { ...planToJson(plan), version: plan.version };
}

export type PlanResult = { ok: true; plan: PlanDraft } | { ok: false; mistakes: Mistake[] };

export function planFrom(body: Static<typeof PlanBody>): PlanResult {
  const mistakes: Mistake[] = [];
  const wrong = (path: string, message: string): 0n => {
    mistakes.push({ path, message });
    return 0n;
  };
  const { currency } = body;

  const quantity = (path: string, text: string): bigint => {
    const result = parseQuantity(text);
    if (result.ok) return result.value;
    return wrong(path, 'a decimal of 9 decimals at most and below 10^18');
  };
  const unitPrice = (path: string, text: string): bigint =>
    parseUnitPrice(text) ?? wrong(path, `a decimal of ${UNIT_PRICE_SCALE} decimals at most`);
  const amount = (path: string, text: string): bigint =>
    parseAmount(text, currency) ?? wrong(path, `an amount of ${minorDigits(currency)} decimals at most`);

  const tier = (place: string, one: Static<typeof TierBody>): Tier => ({
    upTo: one.upTo === null ? null : quantity(`${place}.upTo`, one.upTo),
    unitPrice: unitPrice(`${place}.unitPrice`, one.unitPrice),
    flatAmount: amount(`${place}.flatAmount`, one.flatAmount ?? '0'),
  });

  const price = (one: Static<typeof PriceBody>, at: number): Price => {
    const place = `prices[${at}]`;
    const base = {
      key: one.key,
      meter: one.meter,
      included: quantity(`${place}.included`, one.included ?? '0'),
    };
    switch (one.model) {
      case 'per_unit':
        if (one.tiers !== undefined) wrong(`${place}.tiers`, 'only graduated has tiers: leave them out');
        if (one.unitPrice === undefined) wrong(`${place}.unitPrice`, 'per_unit needs the price of a unit');
        return {
          ...base,
          model: 'per_unit',
          unitPrice: unitPrice(`${place}.unitPrice`, one.unitPrice ?? '0'),
        };
      case 'graduated':
        if (one.unitPrice !== undefined)
          wrong(`${place}.unitPrice`, 'graduated has its prices in tiers: leave it out');
        if (one.tiers === undefined) wrong(`${place}.tiers`, 'graduated needs tiers');
        return {
          ...base,
          model: 'graduated',
          tiers: (one.tiers ?? []).map((each, index) => tier(`${place}.tiers[${index}]`, each)),
        };
    }
  };

  const plan: PlanDraft = {
    key: body.key,
    name: body.name,
    currency,
    prices: body.prices.map(price),
    entitlements: (body.entitlements ?? []).map((one, at): EntitlementRule => ({
      key: one.key,
      meter: one.meter,
      limit: quantity(`entitlements[${at}].limit`, one.limit),
    })),
  };
  return mistakes.length === 0 ? { ok: true, plan } : { ok: false, mistakes };
}
