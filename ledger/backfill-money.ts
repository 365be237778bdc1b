/**
 * What a backfill would change in money: for each customer whose plan prices the meter, and each of its periods that
 * the backfill touches, what the price comes to now and what it would come to. Both are rated as always, on the total
 * of the whole period, so tiers and allowances are what they are on an invoice; the period's hours outside of the
 * backfill count as they do now. A period that is invoiced keeps its invoice: the difference is an adjustment on the
 * next one.
 */
import type { Amount, Currency } from '../contract/money.ts';
import { storedQuantity } from '../contract/quantity.ts';
import { HOUR_MS, type Window } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Db } from '../runtime/postgres.ts';
import {
  BOTH,
  parametersOf,
  quantitySql,
  readSubjectDifferences,
  type Asked,
  type Difference,
} from './backfill-difference.ts';
import { customersOfSubjects, type Customer } from './customers.ts';
import type { Price } from './plan.ts';
import { planRef, readPlanVersions } from './plans.ts';
import { rate } from './rating.ts';
import { wholeBatchesOf } from './usage-batches.ts';
import { touchedPeriods } from './usage-work.ts';

export interface MoneyLine {
  readonly customer: string;
  readonly currency: Currency;
  readonly price: string;
  readonly period: Window;
  readonly isInvoiced: boolean;
  readonly quantity: Pick<Difference, 'now' | 'proposed'>;
  readonly amountNow: Amount;
  readonly amountProposed: Amount;
}

export interface Money {
  /** Those whose amount changes, the largest change first. */
  readonly lines: readonly MoneyLine[];
  /** Subjects that change and of which no money is told, by why. */
  readonly untold: Readonly<
    Record<'unassigned' | 'unpriced' | 'before_anchor' | 'too_many_subjects', number>
  >;
}

export const MONEY_LIMITS = { subjectsMax: 20_000, periodsMax: 5_000 } as const;

/** 'too_many' when more subjects or periods change than are looked at. */
export async function readMoney(pg: Db, ch: ClickHouse, asked: Asked): Promise<Money | 'too_many'> {
  const { tenant, meter, fromMs, toMs } = asked.backfill;
  const { subjectsMax, periodsMax } = MONEY_LIMITS;
  const changed = await readSubjectDifferences(ch, asked, { after: null, limit: subjectsMax + 1 });
  if (changed.length > subjectsMax) return 'too_many';
  const subjects = new Set(changed.map(({ subject }) => subject));
  const customers = await customersOfSubjects(pg, tenant, [...subjects]);
  const plans = await readPlanVersions(
    pg,
    tenant,
    customers.map(({ planKey, planVersion }) => ({ key: planKey, version: planVersion })),
  );
  const untold = { unassigned: subjects.size, unpriced: 0, before_anchor: 0, too_many_subjects: 0 };
  const wanted: Wanted[] = [];
  for (const customer of customers) {
    const own = customer.subjects.filter((subject) => subjects.has(subject)).length;
    untold.unassigned -= own;
    const plan = plans.get(planRef(customer.planKey, customer.planVersion));
    const prices = (plan?.prices ?? []).filter((price) => price.meter === meter);
    if (prices.length === 0) untold.unpriced += own;
    else {
      if (fromMs < customer.anchorMs) untold.before_anchor += own;
      const hours = { firstHourMs: fromMs, lastHourMs: toMs - HOUR_MS };
      for (const window of touchedPeriods(customer.anchorMs, hours))
        wanted.push({ customer, prices, window, subjects: customer.subjects });
    }
  }
  if (wanted.length > periodsMax) return 'too_many';
  const quantities = await readPeriods(ch, asked, wanted, untold);
  const invoiced = await invoicedPeriods(pg, tenant, customers);
  const lines = wanted.flatMap(({ customer, prices, window }, at) => {
    const quantity = quantities[at];
    if (quantity === undefined) return [];
    return prices.map((price): MoneyLine => ({
      customer: customer.id,
      currency: customer.currency,
      price: price.key,
      period: window,
      isInvoiced: invoiced.has(JSON.stringify([customer.id, window.start])),
      quantity,
      amountNow: rate(price, quantity.now, customer.currency).amount,
      amountProposed: rate(price, quantity.proposed, customer.currency).amount,
    }));
  });
  return {
    lines: lines
      .filter((line) => line.amountNow !== line.amountProposed)
      .sort((a, b) => compare(size(b), size(a)) || compare(a.customer, b.customer)),
    untold,
  };
}

interface Wanted {
  readonly customer: Customer;
  readonly prices: readonly Price[];
  readonly window: Window;
  readonly subjects: readonly string[];
}

const size = ({ amountNow, amountProposed }: MoneyLine): bigint =>
  amountNow < amountProposed ? amountProposed - amountNow : amountNow - amountProposed;

const compare = <T extends bigint | string>(a: T, b: T): number => (a < b ? -1 : a > b ? 1 : 0);

// Hours of the period outside of the backfill are on both sides what they are now.
const periodsSql = (quantityOf: (of: string) => string): string => `
  SELECT w.number AS wanted, CAST(${quantityOf('is_now = 1')}, 'Decimal(38, 9)') AS now_quantity,
    CAST(${quantityOf('is_proposed = 1')}, 'Decimal(38, 9)') AS proposed_quantity
  FROM (${BOTH}
    UNION ALL
    SELECT subject, hour, quantity, value, time, position, 1 AS is_now, 1 AS is_proposed, 0 AS is_uncountable
    FROM contributions
    WHERE tenant = {tenant:String} AND meter = {meter:String} AND until = 18446744073709551615
      AND hour >= toDateTime({least:UInt32}, 'UTC') AND hour < toDateTime({most:UInt32}, 'UTC')
      AND NOT (hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')})
      AND subject IN {subjects:Array(String)}
  ) AS u
  INNER JOIN (
    SELECT tupleElement(w, 1) AS subject, tupleElement(w, 2) AS start, tupleElement(w, 3) AS end, tupleElement(w, 4) AS number
    FROM (SELECT arrayJoin(arrayZip({subjects:Array(String)}, {starts:Array(UInt32)}, {ends:Array(UInt32)}, {numbers:Array(UInt32)})) AS w)
  ) AS w ON w.subject = u.subject
  WHERE toUnixTimestamp(u.hour) >= w.start AND toUnixTimestamp(u.hour) < w.end
  GROUP BY wanted`;

/** The quantities of each period that is wanted, in its order; none for one whose customer has too many subjects. */
async function readPeriods(
  ch: ClickHouse,
  { backfill, aggregation }: Asked,
  wanted: readonly Wanted[],
  untold: { too_many_subjects: number },
): Promise<(Pick<Difference, 'now' | 'proposed'> | undefined)[]> {
  const found = wanted.map((): Pick<Difference, 'now' | 'proposed'> | undefined => undefined);
  const sql = periodsSql((of) => quantitySql(aggregation, of));
  for (const { numbers, fits } of wholeBatchesOf(wanted)) {
    if (!fits) {
      untold.too_many_subjects += wanted[numbers[0]!]!.subjects.length;
      continue;
    }
    const entries = numbers.flatMap((number) => {
      const { subjects, window } = wanted[number]!;
      return subjects.map((subject) => ({ subject, number, window }));
    });
    if (entries.length === 0) continue;
    const rows = await ch.rows<{
      wanted: number | string;
      now_quantity: string;
      proposed_quantity: string;
    }>(sql, {
      ...parametersOf(backfill),
      subjects: entries.map(({ subject }) => subject),
      starts: entries.map(({ window }) => window.start / 1_000),
      ends: entries.map(({ window }) => window.end / 1_000),
      numbers: entries.map(({ number }) => number),
      least: entries.reduce((least, { window }) => Math.min(least, window.start / 1_000), Infinity),
      most: entries.reduce((most, { window }) => Math.max(most, window.end / 1_000), 0),
    });
    for (const row of rows) {
      found[Number(row.wanted)] = {
        now: storedQuantity(row.now_quantity),
        proposed: storedQuantity(row.proposed_quantity),
      };
    }
  }
  return found;
}

async function invoicedPeriods(pg: Db, tenant: string, customers: readonly Customer[]): Promise<Set<string>> {
  const rows = await pg.query<{ customer: string; period_start: number }>(
    'SELECT customer, period_start FROM ledger.invoices WHERE tenant = $1 AND customer = ANY($2::text[])',
    [tenant, customers.map(({ id }) => id)],
  );
  return new Set(rows.map(({ customer, period_start }) => JSON.stringify([customer, period_start])));
}
