/**
 * Who is billed. A thousand of the hundred thousand subjects have a customer: every hundredth rank, from the one with
 * the most events into the tail. That is a deployment whose subjects are mostly free users or parts of larger
 * accounts; and it keeps the journal from being what is measured, since the ledger writes one transaction for each
 * price of a customer and pass, however many events are behind it.
 *
 * Each unit of each meter costs a cent, so that what is posted is the quantity itself and no rounding hides anything.
 */
import { METERS, type MeterKey, type Tally } from './tally.ts';
import { subjectName, Workload } from './workload.ts';

export const PROBE = 'probe';
export const PLAN = {
  key: 'bench',
  name: 'Bench',
  currency: 'USD',
  prices: METERS.map(({ key }) => ({
    key,
    meter: key,
    model: 'per_unit',
    included: '0',
    unitPrice: '0.01',
  })),
};
export const PROBE_PLAN = {
  key: PROBE,
  name: 'Probe',
  currency: 'USD',
  prices: [{ key: PROBE, meter: PROBE, model: 'per_unit', included: '0', unitPrice: '0.01' }],
};
/** Counts the events by which the lag is measured, which are no part of the workload. */
export const PROBE_METER = { key: PROBE, eventType: PROBE, aggregation: 'count' };

/** The numbers of the subjects that have a customer. */
export function billedSubjects(subjects: number, customers: number): number[] {
  const workload = new Workload({ seed: 0, subjects, phase: 0 });
  const step = Math.floor(subjects / customers);
  return Array.from({ length: customers }, (_, at) => workload.subjectOfRank(at * step));
}

/** A customer is called as its subject. */
export function customerBody(name: string, plan: string, anchorMs: number): object {
  return { name, currency: 'USD', subjects: [name], plan, anchor: new Date(anchorMs).toISOString() };
}

/** What is posted of a price: the quantity, and in cents the same number. Nothing stands where it is 0. */
export function expectedPostings(tally: Tally, billed: readonly number[]): Map<string, string> {
  const expected = new Map<string, string>();
  for (const subject of billed) {
    for (const { key } of METERS) {
      const value = tally.valueOf(key, subject);
      if (value > 0) expected.set(postingKey(subjectName(subject), key), String(value));
    }
  }
  return expected;
}

export const postingKey = (customer: string, price: MeterKey | typeof PROBE): string =>
  `${customer} ${price}`;
