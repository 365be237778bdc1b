/**
 * The conservation report: nothing was lost or made up between the edge's log and the invoice.
 *
 *   received = counted + duplicate + conflict + late + rejected          events, from the aggregator's counters
 *   drift.rollup       hours of a meter and subject whose rollup is not what raw events say
 *   drift.ledger       quantity between rollups and what is posted for customers; passes through non-zero while
 *                      usage waits for its next posting
 *   drift.stripeCents  minor units between invoices and what Stripe has of them
 *
 * Usage that no customer is billed for is information, not drift: it waits in `unassigned` until it has one.
 */
import { storedQuantity, type Quantity } from '../contract/quantity.ts';
import { unaccounted, VERDICTS, type Verdict } from '../contract/verdicts.ts';
import type { Window } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Db } from '../runtime/postgres.ts';
import type { LedgerContext } from './context.ts';
import { listCustomers, type Customer } from './customers.ts';
import { listMeters } from './meters.ts';
import { planRef, readPlanVersions } from './plans.ts';
import {
  quantityIn,
  readHistory,
  readUsageTotals,
  type ChangedSubject,
  type TotalsWanted,
} from './usage-totals.ts';
import { touchedPeriods } from './usage-work.ts';

export interface Conservation {
  readonly received: bigint;
  readonly counted: bigint;
  readonly duplicate: bigint;
  readonly conflict: bigint;
  readonly late: bigint;
  readonly rejected: bigint;
  readonly unaccounted: bigint;
  readonly drift: {
    readonly rollup: bigint;
    readonly ledger: Quantity;
    readonly stripeCents: bigint;
  };
  /** Subjects with usage that belongs to no customer, or lies before its customer's anchor. */
  readonly unassigned: { readonly subjects: bigint };
}

/** Customers whose usage is compared at a time. */
const CUSTOMERS_A_PAGE = 500;

export async function readConservation(
  ctx: Pick<LedgerContext, 'pg' | 'ch'>,
  tenant: string,
): Promise<Conservation> {
  const { pg, ch } = ctx;
  const [received, byVerdict, rollup, ledger, stripeCents, subjects] = await Promise.all([
    readReceived(ch, tenant),
    readVerdicts(ch, tenant),
    readRollupDrift(ch, tenant),
    readLedgerDrift(pg, ch, tenant),
    readStripeDrift(pg, tenant),
    countUnassigned(pg, tenant),
  ]);
  return {
    received,
    ...byVerdict,
    unaccounted: unaccounted(received, byVerdict),
    drift: { rollup, ledger, stripeCents },
    unassigned: { subjects },
  };
}

async function readReceived(ch: ClickHouse, tenant: string): Promise<bigint> {
  const [row] = await ch.rows<{ count: string }>(
    'SELECT toString(sum(count)) AS count FROM received WHERE tenant = {tenant:String}',
    { tenant },
  );
  return BigInt(row?.count ?? '0');
}

async function readVerdicts(ch: ClickHouse, tenant: string): Promise<Record<Verdict, bigint>> {
  const rows = await ch.rows<{ verdict: string; total: string }>(
    'SELECT verdict, toString(sum(count)) AS total FROM verdicts WHERE tenant = {tenant:String} GROUP BY verdict',
    { tenant },
  );
  const found = new Map(rows.map((row) => [row.verdict, BigInt(row.total)]));
  return Object.fromEntries(VERDICTS.map((verdict) => [verdict, found.get(verdict) ?? 0n])) as Record<
    Verdict,
    bigint
  >;
}

// Both sides up to the watermark. A key with a row beyond it is being written at this moment and is left to the
// next reading; raw events beyond it belong to rollups that are not there yet.
const ROLLUP_DRIFT = `
  WITH raw AS (
    SELECT meter, subject, hour, count() AS n, sum(value) AS total, min(value) AS least, max(value) AS most
    FROM (
      SELECT d.meter AS meter, e.subject AS subject, e.hour AS hour,
        if(d.value_property = '', toDecimal128(1, 9), toDecimal128OrZero(e.data[d.value_property], 9)) AS value
      FROM (SELECT type, subject, hour, data, shard, position FROM event_rows WHERE tenant = {tenant:String}) AS e
      INNER JOIN (
        SELECT meter, event_type, value_property, shard, position
        FROM meter_definitions WHERE tenant = {tenant:String}
      ) AS d ON d.event_type = e.type AND d.shard = e.shard
      INNER JOIN (SELECT shard, position FROM watermark) AS w ON w.shard = e.shard
      WHERE e.position > d.position AND e.position <= w.position
    )
    GROUP BY meter, subject, hour
  ), rolled AS (
    SELECT meter, subject, hour, sum(value_count) AS n, sum(value_sum) AS total, min(value_min) AS least,
      max(value_max) AS most, max(r.position > w.position) AS moving
    FROM (
      SELECT meter, subject, hour, shard, value_count, value_sum, value_min, value_max, position
      FROM usage_rows WHERE tenant = {tenant:String}
    ) AS r
    LEFT JOIN (SELECT shard, position FROM watermark) AS w ON w.shard = r.shard
    GROUP BY meter, subject, hour
  )
  SELECT toString(countIf(not moving AND
    (raw.n != rolled.n OR raw.total != rolled.total OR raw.least != rolled.least OR raw.most != rolled.most))) AS drift
  FROM raw FULL OUTER JOIN rolled USING (meter, subject, hour)`;

async function readRollupDrift(ch: ClickHouse, tenant: string): Promise<bigint> {
  const [row] = await ch.rows<{ drift: string }>(ROLLUP_DRIFT, { tenant });
  return BigInt(row?.drift ?? '0');
}

async function readLedgerDrift(db: Db, ch: ClickHouse, tenant: string): Promise<Quantity> {
  let drift = 0n;
  let afterId: string | null = null;
  for (;;) {
    const customers: Customer[] = await listCustomers(db, tenant, { afterId, limit: CUSTOMERS_A_PAGE });
    drift += await driftOfCustomers(db, ch, tenant, customers);
    if (customers.length < CUSTOMERS_A_PAGE) return drift;
    afterId = customers.at(-1)!.id;
  }
}

interface PostedRow {
  readonly customer: string;
  readonly price_key: string;
  readonly period_start: number;
  readonly quantity: string;
}

async function driftOfCustomers(
  db: Db,
  ch: ClickHouse,
  tenant: string,
  customers: readonly Customer[],
): Promise<Quantity> {
  if (customers.length === 0) return 0n;
  const history = await readHistory(
    ch,
    tenant,
    customers.flatMap((customer) => customer.subjects),
  );
  const ownerOf = new Map(
    customers.flatMap((customer) => customer.subjects.map((subject) => [subject, customer] as const)),
  );
  const periods = periodsWithUsage(history, ownerOf);
  const wanted = periods.map(({ customer, window }): TotalsWanted => ({
    subjects: customer.subjects,
    window,
  }));
  const totals = await readUsageTotals(ch, tenant, wanted);
  const plans = await readPlanVersions(
    db,
    tenant,
    customers.map((customer) => ({ key: customer.planKey, version: customer.planVersion })),
  );
  const meters = new Map((await listMeters(db, tenant)).map((meter) => [meter.key, meter]));
  const difference = new Map<string, Quantity>();
  const add = (customer: string, start: number, price: string, quantity: Quantity): void => {
    const key = JSON.stringify([customer, start, price]);
    difference.set(key, (difference.get(key) ?? 0n) + quantity);
  };
  periods.forEach(({ customer, window }, at) => {
    const plan = plans.get(planRef(customer.planKey, customer.planVersion));
    for (const price of plan?.prices ?? []) {
      const meter = meters.get(price.meter);
      if (meter === undefined) continue;
      const quantity = quantityIn(totals[at]?.get(meter.key), meter.aggregation);
      add(customer.id, window.start, price.key, quantity);
    }
  });
  // Read after the totals: what was posted in between shows as drift for a moment, never hides one.
  const posted = await db.query<PostedRow>(
    `SELECT customer, price_key, period_start, quantity FROM ledger.usage_posted
     WHERE tenant = $1 AND customer = ANY($2::text[])`,
    [tenant, customers.map((customer) => customer.id)],
  );
  for (const row of posted) add(row.customer, row.period_start, row.price_key, -storedQuantity(row.quantity));
  return [...difference.values()].reduce((sum, one) => sum + (one < 0n ? -one : one), 0n);
}

/** Every period of a customer, from its anchor on, in which one of its subjects has usage. */
function periodsWithUsage(
  history: readonly ChangedSubject[],
  ownerOf: ReadonlyMap<string, Customer>,
): { customer: Customer; window: Window }[] {
  const periods = new Map<string, { customer: Customer; window: Window }>();
  for (const change of history) {
    const customer = ownerOf.get(change.subject);
    if (customer === undefined) continue;
    for (const window of touchedPeriods(customer.anchorMs, change)) {
      periods.set(JSON.stringify([customer.id, window.start]), { customer, window });
    }
  }
  return [...periods.values()];
}

async function readStripeDrift(db: Db, tenant: string): Promise<bigint> {
  const [row] = await db.query<{ drift: string }>(
    `SELECT coalesce(sum(abs(total - stripe_total)), 0) AS drift FROM ledger.invoices
     WHERE tenant = $1 AND stripe_total IS NOT NULL`,
    [tenant],
  );
  return BigInt(row?.drift ?? '0');
}

async function countUnassigned(db: Db, tenant: string): Promise<bigint> {
  const [row] = await db.query<{ subjects: bigint }>(
    'SELECT count(DISTINCT subject) AS subjects FROM ledger.unassigned_usage WHERE tenant = $1',
    [tenant],
  );
  return row?.subjects ?? 0n;
}
