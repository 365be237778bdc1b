import { expect, test } from 'vitest';
import type { Meter } from '../contract/meter.ts';
import { QUANTITY_UNIT } from '../contract/quantity.ts';
import { planMistakes, planToJson, type PlanDraft, type Price, type Tier } from './plan.ts';

const meters: Meter[] = [
  { key: 'tokens', eventType: 'llm', aggregation: 'sum', valueProperty: 'tokens', groupBy: [] },
];

const last: Tier = { upTo: null, unitPrice: 1n, flatAmount: 0n };
const upTo = (units: bigint, o: Partial<Tier> = {}): Tier => ({
  upTo: units * QUANTITY_UNIT,
  unitPrice: 1n,
  flatAmount: 0n,
  ...o,
});
const tiered = (...tiers: Tier[]): Price => ({
  key: 'p',
  meter: 'tokens',
  included: 0n,
  model: 'graduated',
  tiers,
});
const unit: Price = { key: 'p', meter: 'tokens', included: 0n, model: 'per_unit', unitPrice: 1n };

const plan = (o: Partial<PlanDraft> = {}): PlanDraft => ({
  key: 'pro',
  name: 'Pro',
  currency: 'USD',
  prices: [unit],
  entitlements: [{ key: 'cap', meter: 'tokens', limit: 5n }],
  ...o,
});

const places = (draft: PlanDraft): string[] =>
  planMistakes(draft, meters).map((mistake) => mistake.slice(0, mistake.indexOf(': ')));

test('a sound plan has no mistakes', () => {
  expect(planMistakes(plan(), meters)).toEqual([]);
  expect(planMistakes(plan({ prices: [], entitlements: [] }), meters)).toEqual([]);
  expect(planMistakes(plan({ prices: [tiered(upTo(1n), upTo(2n), last)] }), meters)).toEqual([]);
});

test('every mistake is named with its place', () => {
  const rows: [Partial<PlanDraft>, string[]][] = [
    [{ key: 'Pro' }, ['key']],
    [{ name: '' }, ['name']],
    [{ prices: [{ ...unit, key: '9' }] }, ['prices[0].key']],
    [{ prices: [unit, { ...unit, meter: 'other' }] }, ['prices[1].meter', 'prices[1].key']],
    [{ prices: [{ ...unit, included: -1n }] }, ['prices[0].included']],
    [{ prices: [{ ...unit, unitPrice: -1n }] }, ['prices[0].unitPrice']],
    [{ prices: [tiered()] }, ['prices[0].tiers']],
    [{ prices: [tiered(upTo(1n))] }, ['prices[0].tiers[0].upTo']],
    [{ prices: [tiered(last, last)] }, ['prices[0].tiers[0].upTo']],
    [{ prices: [tiered(upTo(2n), upTo(2n), last)] }, ['prices[0].tiers[1].upTo']],
    [{ prices: [tiered(upTo(0n), last)] }, ['prices[0].tiers[0].upTo']],
    [
      { prices: [tiered(upTo(1n, { unitPrice: -1n, flatAmount: -1n }), last)] },
      ['prices[0].tiers[0].unitPrice', 'prices[0].tiers[0].flatAmount'],
    ],
    [
      { entitlements: [{ key: 'cap', meter: 'none', limit: -1n }] },
      ['entitlements[0].meter', 'entitlements[0].limit'],
    ],
    [{ key: '', name: '', prices: [{ ...unit, meter: 'x' }] }, ['key', 'name', 'prices[0].meter']],
  ];
  for (const [change, expected] of rows)
    expect(places(plan(change)), JSON.stringify(expected)).toEqual(expected);
});

test('the stored form is decimal text, the same for equal plans', () => {
  expect(planToJson(plan({ prices: [tiered(upTo(1n, { flatAmount: 250n }), last)] }))).toEqual({
    key: 'pro',
    name: 'Pro',
    currency: 'USD',
    prices: [
      {
        key: 'p',
        meter: 'tokens',
        model: 'graduated',
        included: '0',
        tiers: [
          { upTo: '1', unitPrice: '0.000000000001', flatAmount: '2.50' },
          { upTo: null, unitPrice: '0.000000000001', flatAmount: '0.00' },
        ],
      },
    ],
    entitlements: [{ key: 'cap', meter: 'tokens', limit: '0.000000005' }],
  });
});
