/**
 * The conservation report: nothing was lost or made up between the edge's log and the invoice.
 *
 *   received = counted + duplicate + conflict + late + rejected          events, from the aggregator's counters
 *   drift.rollup       hours of a meter and subject whose rollup is not what raw events say, as far as they were
 *                      compared (rollup-check.ts); `checked` says how far that is
 *   drift.ledger       quantity between rollups and what is posted for customers; passes through non-zero while
 *                      usage waits for its next posting
 *   drift.stripeCents  minor units between invoices and what Stripe has of them
 *
 * Usage of subjects without a customer, or from before its anchor, is no drift: nobody is billed for it.
 */
import { storedQuantity, type Quantity } from '../contract/quantity.ts';
import { unaccounted, VERDICTS, type Verdict } from '../contract/verdicts.ts';
import type { Window } from '../contract/window.ts';
import { QueryError, type ClickHouse } from '../runtime/clickhouse.ts';
import type { Db } from '../runtime/postgres.ts';
import {
  readRowTotals,
  stagesOf,
  type ConservationStages,
  type Counters,
  type LedgerTotals,
  type StripeTotals,
} from './conservation-stages.ts';
import type { LedgerContext } from './context.ts';
import { readEdgeReport } from './edge-totals.ts';
import { checkWaiting, noteChanges, readCheckState, type CheckBudget } from './rollup-check.ts';
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
  /** How far rollups were compared with raw events. */
  readonly checked: {
    /** What was counted before has been compared since it last changed. Null: that is left to a sweep. */
    readonly changesToMs: number | null;
    /** Changed hours that wait to be compared. */
    readonly waitingHours: bigint;
    /** Everything counted before was compared, whether it changed or not. Null before the first sweep is through. */
    readonly sweptToMs: number | null;
    /** How much of the running sweep is done, in thousandths; null when none is running. */
    readonly sweepPermille: number | null;
  };
  /** The same by stage, so that it can be seen where something differs. */
  readonly stages: ConservationStages;
}

/** Customers whose usage is compared at a time. */
const CUSTOMERS_A_PAGE = 500;

/** What a report may spend on comparing what changed since: with more to do it says how far it got. */
const REPORT_BUDGET: CheckBudget = { rows: 2_000_000, ms: 2_000 };

export async function readConservation(
  ctx: Pick<LedgerContext, 'pg' | 'ch' | 'clock'>,
  tenant: string,
): Promise<Conservation> {
  const { pg, ch, clock } = ctx;
  const askedMs = clock.now();
  await noteChanges(ctx);
  try {
    await checkWaiting(ctx, tenant, REPORT_BUDGET);
  } catch (error) {
    // The hours go on waiting, and the report says so.
    if (!(error instanceof QueryError)) throw error;
  }
  // Before the counters: what is answered or counted in between shows as received, and not as missing.
  const edge = await readEdgeReport(pg, tenant);
  const counters = await readCounters(ch, tenant);
  const [check, ledger, stripe, rows] = await Promise.all([
    readCheckState(pg, tenant),
    readLedgerTotals(pg, ch, tenant),
    readStripeTotals(pg, tenant),
    readRowTotals(ch, tenant, counters),
  ]);
  return {
    ...counters,
    drift: { rollup: check.findings, ledger: ledger.difference, stripeCents: stripe.difference },
    checked: {
      changesToMs: check.isIncomplete ? null : (check.waitingSinceMs ?? askedMs),
      waitingHours: check.waitingHours,
      sweptToMs: check.sweptToMs,
      sweepPermille: check.sweepPermille,
    },
    stages: stagesOf({ edge, counters, rows, differingHours: check.findings, ledger, stripe }),
  };
}

// One query, so that both counters are of nearly the same moment.
const COUNTERS = `
  SELECT verdict, toString(sum(count)) AS total FROM (
    SELECT 'received' AS verdict, count FROM received WHERE {tenant:String} = '' OR tenant = {tenant:String}
    UNION ALL
    SELECT verdict, count FROM verdicts WHERE {tenant:String} = '' OR tenant = {tenant:String}
  )
  GROUP BY verdict`;

/** Of one tenant, or of all together (null), with what no tenant can be told of. */
export async function readCounters(ch: ClickHouse, tenant: string | null): Promise<Counters> {
  const rows = await ch.rows<{ verdict: string; total: string }>(COUNTERS, { tenant: tenant ?? '' });
  const found = new Map(rows.map((row) => [row.verdict, BigInt(row.total)]));
  const received = found.get('received') ?? 0n;
  const byVerdict = Object.fromEntries(
    VERDICTS.map((verdict) => [verdict, found.get(verdict) ?? 0n]),
  ) as Record<Verdict, bigint>;
  return { received, ...byVerdict, unaccounted: unaccounted(received, byVerdict) };
}

export async function readLedgerDrift(db: Db, ch: ClickHouse, tenant: string): Promise<Quantity> {
  return (await readLedgerTotals(db, ch, tenant)).difference;
}

/** Usage of customers in the rollups, and what is posted for it. */
async function readLedgerTotals(db: Db, ch: ClickHouse, tenant: string): Promise<LedgerTotals> {
  const all = { rolledUp: 0n, posted: 0n, difference: 0n };
  let afterId: string | null = null;
  for (;;) {
    const customers: Customer[] = await listCustomers(db, tenant, { afterId, limit: CUSTOMERS_A_PAGE });
    const page = await totalsOfCustomers(db, ch, tenant, customers);
    all.rolledUp += page.rolledUp;
    all.posted += page.posted;
    all.difference += page.difference;
    if (customers.length < CUSTOMERS_A_PAGE) return all;
    afterId = customers.at(-1)!.id;
  }
}

interface PostedRow {
  readonly customer: string;
  readonly price_key: string;
  readonly period_start: number;
  readonly quantity: string;
}

async function totalsOfCustomers(
  db: Db,
  ch: ClickHouse,
  tenant: string,
  customers: readonly Customer[],
): Promise<LedgerTotals> {
  let [rolledUp, postedSum] = [0n, 0n];
  if (customers.length === 0) return { rolledUp, posted: postedSum, difference: 0n };
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
  const plans = await readPlanVersions(
    db,
    tenant,
    customers.map((customer) => ({ key: customer.planKey, version: customer.planVersion })),
  );
  const priced = new Set([...plans.values()].flatMap((plan) => plan.prices.map((price) => price.meter)));
  const totals = await readUsageTotals(ch, tenant, wanted, { meters: [...priced] });
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
      rolledUp += quantity;
      add(customer.id, window.start, price.key, quantity);
    }
  });
  // Read after the totals: what was posted in between shows as drift for a moment, never hides one.
  const posted = await db.query<PostedRow>(
    `SELECT customer, price_key, period_start, quantity FROM ledger.usage_posted
     WHERE tenant = $1 AND customer = ANY($2::text[])`,
    [tenant, customers.map((customer) => customer.id)],
  );
  for (const row of posted) {
    const quantity = storedQuantity(row.quantity);
    postedSum += quantity;
    add(row.customer, row.period_start, row.price_key, -quantity);
  }
  const sum = [...difference.values()].reduce((total, one) => total + (one < 0n ? -one : one), 0n);
  return { rolledUp, posted: postedSum, difference: sum };
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

/** Of one tenant, or of all (null). */
export async function readStripeDrift(db: Db, tenant: string | null): Promise<bigint> {
  return (await readStripeTotals(db, tenant)).difference;
}

async function readStripeTotals(db: Db, tenant: string | null): Promise<StripeTotals> {
  const [row] = await db.query<{ invoiced: string; stripe: string; drift: string }>(
    `SELECT coalesce(sum(total), 0)::text AS invoiced, coalesce(sum(stripe_total), 0)::text AS stripe,
       coalesce(sum(abs(total - stripe_total)), 0)::text AS drift
     FROM ledger.invoices WHERE ($1::text IS NULL OR tenant = $1) AND stripe_total IS NOT NULL`,
    [tenant],
  );
  return {
    invoiced: BigInt(row!.invoiced),
    inStripe: BigInt(row!.stripe),
    difference: BigInt(row!.drift),
  };
}
