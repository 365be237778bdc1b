/**
 * Which customers a posting pass has to look at, and in which periods. Too much is no harm: totals are absolute,
 * and what is posted already makes no difference.
 */
import { HOUR_MS, monthlyPeriod, type Window } from '../contract/window.ts';
import type { LedgerContext } from './context.ts';
import { customersByIds, customersOfSubjects, type Customer } from './customers.ts';
import { groupBy } from './group-by.ts';
import { readHistory, type ChangedSubject } from './usage-totals.ts';

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
  }
  return work;
}

/** Work for the customers of the changed subjects; one that has no customer is read in full when it gets one. */
export async function workOfChanges(
  ctx: LedgerContext,
  changes: readonly ChangedSubject[],
): Promise<CustomerWork[]> {
  const work: CustomerWork[] = [];
  for (const [tenant, mine] of groupBy(changes, (change) => change.tenant)) {
    const bySubject = groupBy(mine, (change) => change.subject);
    const customers = await customersOfSubjects(ctx.pg, tenant, [...bySubject.keys()]);
    for (const customer of customers) {
      const subjects = customer.subjects.filter((subject) => bySubject.has(subject));
      work.push(
        workOf(
          customer,
          subjects.flatMap((subject) => bySubject.get(subject)!),
          null,
        ),
      );
    }
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
