// Limits of a plan against what is used in a period. What the plan has no price for is not posted, so used is
// read from the rollups: exact, and as fresh as the watermark.
import type { Quantity } from '../contract/quantity.ts';
import { monthlyPeriod } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Db } from '../runtime/postgres.ts';
import { readCustomer } from './customers.ts';
import { listMeters } from './meters.ts';
import { readPlan } from './plans.ts';
import { quantityIn, readUsageTotals } from './usage-totals.ts';

export interface Entitlement {
  readonly key: string;
  readonly meter: string;
  readonly limit: Quantity;
  readonly used: Quantity;
  /** limit − used; negative when the limit was overshot. */
  readonly remaining: Quantity;
  /** Whether anything more may be used. */
  readonly allowed: boolean;
  readonly periodStartMs: number;
  readonly periodEndMs: number;
  readonly asOfMs: number;
}

/** The customer's limits in the period that contains `atMs`; null when there is no such customer. */
export async function readEntitlements(
  o: { db: Db; ch: ClickHouse; nowMs: number },
  tenant: string,
  customerId: string,
  atMs: number,
): Promise<Entitlement[] | null> {
  const customer = await readCustomer(o.db, tenant, customerId);
  if (customer === null) return null;
  const plan = await readPlan(o.db, tenant, customer.planKey, customer.planVersion);
  if (plan === null) throw new Error(`customer ${customerId} has a plan that is not there`);
  if (plan.entitlements.length === 0) return [];
  const period = monthlyPeriod(customer.anchorMs, atMs);
  const [totals] = await readUsageTotals(o.ch, tenant, [{ subjects: customer.subjects, window: period }]);
  const meters = new Map((await listMeters(o.db, tenant)).map((meter) => [meter.key, meter]));
  return plan.entitlements.map((rule): Entitlement => {
    const meter = meters.get(rule.meter);
    if (meter === undefined) throw new Error(`entitlement ${rule.key} is on a meter that is not there`);
    const used = quantityIn(totals?.get(rule.meter), meter.aggregation);
    const remaining = rule.limit - used;
    return {
      key: rule.key,
      meter: rule.meter,
      limit: rule.limit,
      used,
      remaining,
      allowed: remaining > 0n,
      periodStartMs: period.start,
      periodEndMs: period.end,
      asOfMs: o.nowMs,
    };
  });
}
