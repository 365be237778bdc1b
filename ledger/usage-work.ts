/**
 * Which customers a posting pass has to look at, and in which periods. Too much is no harm: totals are absolute,
 * and what is posted already makes no difference.
 */
import { formatQuantity } from '../contract/quantity.ts';
import { formatInstant, HOUR_MS, monthlyPeriod, type Window } from '../contract/window.ts';
import type { LedgerContext } from './context.ts';
import { customersByIds, customersOfSubjects, type Customer } from './customers.ts';
import { groupBy } from './group-by.ts';
import { listMeters } from './meters.ts';
import { quantityIn, readHistory, readUsageTotals, type ChangedSubject } from './usage-totals.ts';

/** A customer and the periods whose totals may have changed. */
export interface CustomerWork {
  readonly customer: Customer;
  /** Oldest first. */
  readonly periods: readonly Window[];
  /** Of the request to read the customer from its anchor on, which is done with this; null without one. */
  readonly requestRevision: bigint | null;
}

/** A request of ledger.customers_to_read. */
export interface ReadRequest {
  readonly tenant: string;
  readonly customer: string;
  readonly revision: bigint;
}

/** Work for customers that are new, or have new subjects or new credit: every period since their anchor. */
export async function workOfRequests(
  ctx: LedgerContext,
  requests: readonly ReadRequest[],
): Promise<CustomerWork[]> {
  const work: CustomerWork[] = [];
  for (const [tenant, mine] of groupBy(requests, (request) => request.tenant)) {
    const revisions = new Map(mine.map((request) => [request.customer, request.revision]));
    const customers = await customersByIds(ctx.pg, tenant, [...revisions.keys()]);
    const history = await readHistory(
      ctx.ch,
      tenant,
      customers.flatMap((customer) => customer.subjects),
    );
    const bySubject = groupBy(history, (change) => change.subject);
    for (const customer of customers) {
      const changes = customer.subjects.flatMap((subject) => bySubject.get(subject) ?? []);
      work.push(workOf(customer, changes, revisions.get(customer.id) ?? null));
    }
    await noteBeforeAnchor(ctx, tenant, customers, history);
  }
  return work;
}

/** Work for the customers of the changed subjects. What has no customer is noted as unassigned. */
export async function workOfChanges(
  ctx: LedgerContext,
  changes: readonly ChangedSubject[],
): Promise<CustomerWork[]> {
  const work: CustomerWork[] = [];
  for (const [tenant, mine] of groupBy(changes, (change) => change.tenant)) {
    const bySubject = groupBy(mine, (change) => change.subject);
    const customers = await customersOfSubjects(ctx.pg, tenant, [...bySubject.keys()]);
    const owned = new Set<string>();
    for (const customer of customers) {
      const subjects = customer.subjects.filter((subject) => bySubject.has(subject));
      for (const subject of subjects) owned.add(subject);
      work.push(
        workOf(
          customer,
          subjects.flatMap((subject) => bySubject.get(subject)!),
          null,
        ),
      );
    }
    await noteBeforeAnchor(ctx, tenant, customers, mine);
    const unowned = [...bySubject.keys()].filter((subject) => !owned.has(subject));
    await noteUnassigned(
      ctx,
      tenant,
      unowned.map((subject) => ({ subject, untilMs: null })),
    );
  }
  return work;
}

function workOf(
  customer: Customer,
  changes: readonly ChangedSubject[],
  requestRevision: bigint | null,
): CustomerWork {
  const periods = new Map<number, Window>();
  for (const change of changes) {
    for (const period of touchedPeriods(customer.anchorMs, change)) periods.set(period.start, period);
  }
  return {
    customer,
    periods: [...periods.values()].sort((a, b) => a.start - b.start),
    requestRevision,
  };
}

/** The periods of an anchor that overlap the changed hours; none before the anchor. */
export function touchedPeriods(
  anchorMs: number,
  change: Pick<ChangedSubject, 'firstHourMs' | 'lastHourMs'>,
): Window[] {
  const periods: Window[] = [];
  const end = change.lastHourMs + HOUR_MS;
  let time = Math.max(change.firstHourMs, anchorMs);
  while (time < end) {
    const period = monthlyPeriod(anchorMs, time);
    periods.push(period);
    time = period.end;
  }
  return periods;
}

async function noteBeforeAnchor(
  ctx: LedgerContext,
  tenant: string,
  customers: readonly Customer[],
  changes: readonly ChangedSubject[],
): Promise<void> {
  const anchorOf = new Map(
    customers.flatMap((customer) =>
      customer.subjects.map((subject) => [subject, customer.anchorMs] as const),
    ),
  );
  const early = changes.filter((change) => change.firstHourMs < (anchorOf.get(change.subject) ?? -Infinity));
  const subjects = [...new Set(early.map((change) => change.subject))];
  await noteUnassigned(
    ctx,
    tenant,
    subjects.map((subject) => ({ subject, untilMs: anchorOf.get(subject)! })),
  );
}

/** The end of ClickHouse's DateTime: later than any hour. */
const ALL_TIME_MS = (2 ** 32 - 1) * 1_000;

/**
 * Notes, as absolute quantities by meter, usage that nobody is billed for: all of a subject without a customer
 * (`untilMs` null), or what lies before the anchor of the subject's customer.
 */
async function noteUnassigned(
  ctx: LedgerContext,
  tenant: string,
  subjects: readonly { readonly subject: string; readonly untilMs: number | null }[],
): Promise<void> {
  if (subjects.length === 0) return;
  const totals = await readUsageTotals(
    ctx.ch,
    tenant,
    subjects.map(({ subject, untilMs }) => ({
      subjects: [subject],
      window: { start: 0, end: untilMs ?? ALL_TIME_MS },
    })),
  );
  const meters = new Map((await listMeters(ctx.pg, tenant)).map((meter) => [meter.key, meter]));
  const rows = subjects.flatMap(({ subject, untilMs }, at) =>
    [...totals[at]!].flatMap(([key, total]) => {
      const meter = meters.get(key);
      if (meter === undefined) return [];
      return [{ subject, untilMs, meter: key, quantity: quantityIn(total, meter.aggregation) }];
    }),
  );
  await ctx.pg.query(UPSERT_UNASSIGNED, [
    tenant,
    formatInstant(ctx.clock.now()),
    rows.map((row) => row.subject),
    rows.map((row) => row.meter),
    rows.map((row) => (row.untilMs === null ? 'infinity' : formatInstant(row.untilMs))),
    rows.map((row) => formatQuantity(row.quantity)),
  ]);
}

// A subject that got a customer in the meantime is read in full by the next pass.
const UPSERT_UNASSIGNED = `
  INSERT INTO ledger.unassigned_usage (tenant, subject, meter, until, quantity, noted_at)
  SELECT $1, u.subject, u.meter, u.until, u.quantity, $2
  FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::numeric[]) AS u (subject, meter, until, quantity)
  WHERE u.until <> 'infinity'
    OR NOT EXISTS (SELECT 1 FROM ledger.customer_subjects s WHERE s.tenant = $1 AND s.subject = u.subject)
  ORDER BY u.subject, u.meter
  ON CONFLICT (tenant, subject, meter) DO UPDATE SET
    until = excluded.until, quantity = excluded.quantity, noted_at = excluded.noted_at`;
