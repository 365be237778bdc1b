// Published plans. A version never changes; publishing what the newest version already says changes nothing.
import { createHash } from 'node:crypto';
import { isCurrency, parseAmount, parseUnitPrice, type Currency } from '../contract/money.ts';
import { storedQuantity } from '../contract/quantity.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import {
  planToJson,
  type EntitlementRule,
  type Plan,
  type PlanDraft,
  type Price,
  type Tier,
} from './plan.ts';

interface PlanRow {
  version: number;
  definition: PlanJson;
}

interface PlanJson {
  key: string;
  name: string;
  currency: string;
  prices: {
    key: string;
    meter: string;
    model: 'per_unit' | 'graduated';
    included: string;
    unitPrice?: string;
    tiers?: { upTo: string | null; unitPrice: string; flatAmount: string }[];
  }[];
  entitlements: { key: string; meter: string; limit: string }[];
}

const sound = <T>(value: T | null, what: string): T => {
  if (value === null) throw new Error(`a stored plan has an unsound ${what}`);
  return value;
};

function planOf(row: PlanRow): Plan {
  const { key, name, currency, prices, entitlements } = row.definition;
  if (!isCurrency(currency)) throw new Error(`a stored plan has the currency ${currency}`);
  return {
    key,
    version: row.version,
    name,
    currency,
    prices: prices.map((price) => priceOf(price, currency)),
    entitlements: entitlements.map((rule): EntitlementRule => ({
      ...rule,
      limit: storedQuantity(rule.limit),
    })),
  };
}

function priceOf(price: PlanJson['prices'][number], currency: Currency): Price {
  const base = { key: price.key, meter: price.meter, included: storedQuantity(price.included) };
  if (price.model === 'per_unit') {
    return {
      ...base,
      model: 'per_unit',
      unitPrice: sound(parseUnitPrice(price.unitPrice ?? ''), 'unitPrice'),
    };
  }
  const tiers = (price.tiers ?? []).map((tier): Tier => ({
    upTo: tier.upTo === null ? null : storedQuantity(tier.upTo),
    unitPrice: sound(parseUnitPrice(tier.unitPrice), 'unitPrice'),
    flatAmount: sound(parseAmount(tier.flatAmount, currency), 'flatAmount'),
  }));
  return { ...base, model: 'graduated', tiers };
}

/** Publishes a plan that `planMistakes` found sound; `created` is false when the newest version says the same. */
export async function publishPlan(
  tx: Db,
  o: { tenant: string; plan: PlanDraft; nowMs: number },
): Promise<{ plan: Plan; created: boolean }> {
  const definition = JSON.stringify(planToJson(o.plan));
  const digest = createHash('sha256').update(definition).digest('hex');
  const [newest] = await tx.query<{ version: number; digest: string }>(
    'SELECT version, digest FROM ledger.plans WHERE tenant = $1 AND key = $2 ORDER BY version DESC LIMIT 1',
    [o.tenant, o.plan.key],
  );
  if (newest?.digest === digest) return { plan: { ...o.plan, version: newest.version }, created: false };
  const version = (newest?.version ?? 0) + 1;
  await tx.query(
    `INSERT INTO ledger.plans (tenant, key, version, definition, digest, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
    [o.tenant, o.plan.key, version, definition, digest, formatInstant(o.nowMs)],
  );
  return { plan: { ...o.plan, version }, created: true };
}

/** The newest version, or the one asked for; null when there is none. */
export async function readPlan(db: Db, tenant: string, key: string, version?: number): Promise<Plan | null> {
  const [row] = await db.query<PlanRow>(
    `SELECT version, definition FROM ledger.plans
     WHERE tenant = $1 AND key = $2 AND ($3::integer IS NULL OR version = $3) ORDER BY version DESC LIMIT 1`,
    [tenant, key, version ?? null],
  );
  return row === undefined ? null : planOf(row);
}

/** The newest version of each plan, by key. */
export async function listPlans(db: Db, tenant: string): Promise<Plan[]> {
  const rows = await db.query<PlanRow>(
    `SELECT DISTINCT ON (key) version, definition FROM ledger.plans WHERE tenant = $1 ORDER BY key, version DESC`,
    [tenant],
  );
  return rows.map(planOf);
}

/** Plans by `key@version`, for a batch of customers. */
export async function readPlanVersions(
  db: Db,
  tenant: string,
  wanted: readonly { key: string; version: number }[],
): Promise<Map<string, Plan>> {
  const rows = await db.query<PlanRow>(
    `SELECT p.version, p.definition FROM ledger.plans p
     JOIN (SELECT DISTINCT key, version FROM unnest($2::text[], $3::integer[]) AS w (key, version)) w
       ON w.key = p.key AND w.version = p.version
     WHERE p.tenant = $1`,
    [tenant, wanted.map((one) => one.key), wanted.map((one) => one.version)],
  );
  return new Map(rows.map(planOf).map((plan) => [planRef(plan.key, plan.version), plan]));
}

export function planRef(key: string, version: number): string {
  return `${key}@${version}`;
}
