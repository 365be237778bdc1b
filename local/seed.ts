// What a newcomer finds: a demo tenant with two meters, a plan and one customer. Putting it twice changes
// nothing. The demo prices its trace with the same definitions.
import { ApiClient } from './api-call.ts';

export const DEMO_TENANT = 'demo';
export const EVENT_TYPE = 'llm.request';

export interface MeterBody {
  readonly key: string;
  readonly eventType: string;
  readonly aggregation: 'sum';
  readonly valueProperty: string;
  readonly groupBy: readonly string[];
}

export function meterFor(property: string): MeterBody {
  return {
    key: property,
    eventType: EVENT_TYPE,
    aggregation: 'sum',
    valueProperty: property,
    groupBy: ['model'],
  };
}

/** USD. Input tokens: 100,000 included, then two tiers; output tokens: one price for each. */
export const DEMO_PLAN = {
  key: 'demo',
  name: 'Demo: tokens in and out',
  currency: 'USD',
  prices: [
    {
      key: 'input',
      meter: 'input_tokens',
      model: 'graduated',
      included: '100000',
      tiers: [
        { upTo: '2000000', unitPrice: '0.000003' },
        { upTo: null, unitPrice: '0.0000025' },
      ],
    },
    { key: 'output', meter: 'output_tokens', model: 'per_unit', included: '0', unitPrice: '0.000015' },
  ],
  entitlements: [{ key: 'input_cap', meter: 'input_tokens', limit: '50000000' }],
} as const;

export interface CustomerBody {
  readonly name: string;
  readonly currency: string;
  readonly subjects: readonly string[];
  readonly plan: string;
  /** RFC 3339; monthly periods are counted from it. */
  readonly anchor: string;
}

export function putCustomer(api: ApiClient, id: string, customer: CustomerBody): Promise<unknown> {
  return api.put(`/v1/customers/${encodeURIComponent(id)}`, customer);
}

export async function seed(url: string, adminKey: string): Promise<void> {
  const api = new ApiClient(url, adminKey);
  await api.post('/v1/meters', meterFor('input_tokens'));
  await api.post('/v1/meters', meterFor('output_tokens'));
  await api.post('/v1/plans', DEMO_PLAN);
  await putCustomer(api, 'acme', {
    name: 'Acme',
    currency: 'USD',
    subjects: ['acme'],
    plan: 'demo',
    anchor: '2026-01-01T00:00:00Z',
  });
}
