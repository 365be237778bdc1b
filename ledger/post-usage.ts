/**
 * Turns rollups into postings. One pass:
 *
 * 1. Read the watermark of every shard. What lies behind it is durable and complete.
 * 2. Ask which subjects changed since the cursor of the shard; find their customers. A subject without a
 *    customer is noted as unassigned; it is read in full once a customer gets it.
 * 3. For a chunk of customers, read the absolute totals of each touched period, rate them, and post what the
 *    price of the total now differs from what is posted: in one serializable transaction, with the credit that
 *    covers it. A crash before its commit leaves nothing; one after it makes the next pass find no difference.
 * 4. After the last chunk, move the cursors. A crash before this reads the same changes again, for no difference.
 *
 * Totals are read from ClickHouse inside of the Postgres transaction that posts them, under an advisory lock: two
 * ledgers take turns, and none can post older totals over newer ones. A pass that finds the lock taken does
 * nothing.
 *
 * Usage of a period that is invoiced already is posted all the same. The invoice keeps what it says; what came
 * later stands in `usage_posted` beside the invoiced part, and the next invoice takes it as an adjustment.
 */
import type { Amount } from '../contract/money.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant, HOUR_MS, monthlyPeriod, type Window } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import type { LedgerContext } from './context.ts';
import { customersOfSubjects, readCustomer, type Customer } from './customers.ts';
import { groupBy } from './group-by.ts';
import { applyCredit, expireGrants } from './grants.ts';
import { move, type TransactionDraft } from './journal.ts';
import { postTransactions } from './journal-store.ts';
import { listMeters } from './meters.ts';
import type { Plan, Price } from './plan.ts';
import { planRef, readPlanVersions } from './plans.ts';
import { rate } from './rating.ts';
import { quantityIn, readChanges, readHistory, readUsageTotals, readWatermarks } from './usage-totals.ts';
import type { ChangedSubject, Watermark } from './usage-totals.ts';

export interface PostResult {
  /** Subjects that had changed. */
  readonly changed: number;
  /** Journal transactions for usage. */
  readonly posted: number;
  /** Another ledger is posting: nothing was done. */
  readonly busy: boolean;
  /** The watermarks up to which everything is posted now. */
  readonly watermarks: readonly Watermark[];
}

/** Customers in one Postgres transaction; bounds its length and its memory. */
const CUSTOMERS_A_CHUNK = 500;
const LOCK = 7_430_001n;

/** One pass over all shards. Throws when an engine is away; nothing is half done then. */
export async function postUsage(ctx: LedgerContext): Promise<PostResult> {
  const watermarks = await readWatermarks(ctx.ch);
  const cursors = await readCursors(ctx.pg);
  const behind = watermarks.filter((one) => one.position > (cursors.get(one.shard) ?? 0n));
  const changes: ChangedSubject[] = [];
  for (const { shard, position } of behind) {
    changes.push(...(await readChanges(ctx.ch, { shard, after: cursors.get(shard) ?? 0n, until: position })));
  }
  const work = await findWork(ctx, changes);
  let posted = 0;
  for (let at = 0; at < work.length; at += CUSTOMERS_A_CHUNK) {
    const chunk = work.slice(at, at + CUSTOMERS_A_CHUNK);
    const result = await ctx.pg.transaction((tx) => postChunk(ctx, tx, chunk));
    if (result === null) return { changed: changes.length, posted, busy: true, watermarks: [] };
    posted += result;
  }
  const done = await ctx.pg.transaction(async (tx) => {
    if (!(await takeLock(tx))) return false;
    await expireGrants(tx, ctx.clock.now());
    await moveCursors(tx, behind);
    return true;
  });
  return { changed: changes.length, posted, busy: !done, watermarks: done ? watermarks : [] };
}

/** Held until the transaction ends; closing a period takes it too. */
export async function takeLock(tx: Db): Promise<boolean> {
  const [row] = await tx.query<{ taken: boolean }>('SELECT pg_try_advisory_xact_lock($1) AS taken', [LOCK]);
  return row?.taken === true;
}

export async function readCursors(db: Db): Promise<Map<number, bigint>> {
  const rows = await db.query<{ shard: number; position: string }>(
    'SELECT shard, position::text AS position FROM ledger.usage_cursors',
  );
  return new Map(rows.map((row) => [row.shard, BigInt(row.position)]));
}

async function moveCursors(tx: Db, watermarks: readonly Watermark[]): Promise<void> {
  if (watermarks.length === 0) return;
  await tx.query(
    `INSERT INTO ledger.usage_cursors AS c (shard, position) SELECT * FROM unnest($1::integer[], $2::numeric[])
     ON CONFLICT (shard) DO UPDATE SET position = greatest(c.position, excluded.position)`,
    [watermarks.map((one) => one.shard), watermarks.map((one) => one.position.toString())],
  );
}

/** A customer and the periods whose totals may have changed. */
interface CustomerWork {
  readonly customer: Customer;
  readonly periods: readonly Window[];
  /** The revision of the request to read it from its anchor on, because it is new or has new subjects or credit. */
  readonly wholeRevision: bigint | null;
}

async function findWork(ctx: LedgerContext, changes: readonly ChangedSubject[]): Promise<CustomerWork[]> {
  const work = new Map<
    string,
    { customer: Customer; periods: Map<number, Window>; wholeRevision: bigint | null }
  >();
  const add = (
    customer: Customer,
    subjects: readonly ChangedSubject[],
    wholeRevision: bigint | null,
  ): void => {
    const key = JSON.stringify([customer.tenant, customer.id]);
    let entry = work.get(key);
    if (entry === undefined) work.set(key, (entry = { customer, periods: new Map(), wholeRevision }));
    entry.wholeRevision ??= wholeRevision;
    for (const subject of subjects) {
      for (const period of touchedPeriods(customer, subject)) entry.periods.set(period.start, period);
    }
  };
  // New customers first: their subjects need no look at what changed.
  const toRead = await ctx.pg.query<{ tenant: string; customer: string; revision: bigint }>(
    'SELECT tenant, customer, revision FROM ledger.customers_to_read ORDER BY tenant, customer LIMIT 10000',
  );
  for (const { tenant, customer: id, revision } of toRead) {
    const customer = await readCustomer(ctx.pg, tenant, id);
    if (customer !== null) add(customer, await readHistory(ctx.ch, tenant, customer.subjects), revision);
  }
  for (const [tenant, mine] of groupBy(changes, (change) => change.tenant)) {
    const subjects = [...new Set(mine.map((change) => change.subject))];
    const owner = new Map<string, Customer>();
    for (const customer of await customersOfSubjects(ctx.pg, tenant, subjects)) {
      for (const subject of customer.subjects) owner.set(subject, customer);
    }
    for (const change of mine) {
      const customer = owner.get(change.subject);
      if (customer !== undefined) add(customer, [change], null);
    }
    await noteUnassigned(
      ctx,
      tenant,
      subjects.filter((subject) => !owner.has(subject)),
    );
  }
  return [...work.values()].map((entry) => ({
    customer: entry.customer,
    periods: [...entry.periods.values()].sort((a, b) => a.start - b.start),
    wholeRevision: entry.wholeRevision,
  }));
}

/** The periods of a customer that overlap the changed hours; none before its anchor. */
function touchedPeriods(customer: Customer, change: ChangedSubject): Window[] {
  const periods: Window[] = [];
  const end = change.lastHourMs + HOUR_MS;
  let time = Math.max(change.firstHourMs, customer.anchorMs);
  while (time < end) {
    const period = monthlyPeriod(customer.anchorMs, time);
    periods.push(period);
    time = period.end;
  }
  return periods;
}

async function noteUnassigned(
  ctx: LedgerContext,
  tenant: string,
  subjects: readonly string[],
): Promise<void> {
  if (subjects.length === 0) return;
  // The tenant may be one that this ledger does not know: its key was made elsewhere. Noted all the same.
  await ctx.pg.query(
    `INSERT INTO ledger.unassigned_usage (tenant, subject, first_seen_at)
     SELECT $1, subject, $3 FROM unnest($2::text[]) AS u (subject)
     WHERE NOT EXISTS (SELECT 1 FROM ledger.customer_subjects s WHERE s.tenant = $1 AND s.subject = u.subject)
     ON CONFLICT DO NOTHING`,
    [tenant, subjects, formatInstant(ctx.clock.now())],
  );
}

interface PostedRow {
  customer: string;
  price_key: string;
  period_start: number;
  quantity: string;
  amount: string;
  revision: bigint;
}

/** What a price of a customer came to in a period, beside what is posted of it. */
interface Change {
  readonly customer: Customer;
  readonly plan: Plan;
  readonly price: Price;
  readonly period: Window;
  readonly quantity: Quantity;
  readonly amount: Amount;
  readonly quantityBefore: Quantity;
  readonly amountBefore: Amount;
  readonly revision: bigint;
}

/** Returns the number of transactions posted, or null when another ledger holds the lock. */
async function postChunk(ctx: LedgerContext, tx: Db, chunk: readonly CustomerWork[]): Promise<number | null> {
  // 1. The lock first: totals read under it are never older than what is posted.
  if (!(await takeLock(tx))) return null;
  const nowMs = ctx.clock.now();
  let posted = 0;
  for (const [tenant, work] of groupBy(chunk, (one) => one.customer.tenant)) {
    // 2. Absolute totals, rated.
    const changes = await findChanges(ctx, tx, tenant, work);
    // 3. The differences, and what credit covers of them.
    await postTransactions(
      tx,
      tenant,
      changes.flatMap((change) => usageTransaction(change)),
      nowMs,
    );
    await recordPosted(tx, tenant, changes, nowMs);
    const whole = work.filter((one) => one.wholeRevision !== null);
    const customers = new Set([
      ...changes.map((change) => change.customer.id),
      ...whole.map((one) => one.customer.id),
    ]);
    await applyCredit(tx, tenant, [...customers], nowMs);
    await tx.query(
      `DELETE FROM ledger.customers_to_read r USING unnest($2::text[], $3::bigint[]) AS done (customer, revision)
       WHERE r.tenant = $1 AND r.customer = done.customer AND r.revision = done.revision`,
      [tenant, whole.map((one) => one.customer.id), whole.map((one) => String(one.wholeRevision))],
    );
    posted += changes.length;
  }
  return posted;
}

async function findChanges(
  ctx: LedgerContext,
  tx: Db,
  tenant: string,
  work: readonly CustomerWork[],
): Promise<Change[]> {
  const meters = new Map((await listMeters(tx, tenant)).map((meter) => [meter.key, meter]));
  const plans = await readPlanVersions(
    tx,
    tenant,
    work.map(({ customer }) => ({ key: customer.planKey, version: customer.planVersion })),
  );
  const wanted = work.flatMap(({ customer, periods }) => periods.map((period) => ({ customer, period })));
  const totals = await readUsageTotals(
    ctx.ch,
    tenant,
    wanted.map(({ customer, period }) => ({ subjects: customer.subjects, window: period })),
  );
  const before = await readPosted(
    tx,
    tenant,
    wanted.map(({ customer }) => customer.id),
  );
  const changes: Change[] = [];
  wanted.forEach(({ customer, period }, at) => {
    const plan = plans.get(planRef(customer.planKey, customer.planVersion));
    if (plan === undefined) throw new Error(`customer ${customer.id} has a plan that is not there`);
    for (const price of plan.prices) {
      const meter = meters.get(price.meter);
      if (meter === undefined)
        throw new Error(`price ${price.key} of plan ${plan.key} is on a meter that is not there`);
      const quantity = quantityIn(totals[at]!.get(price.meter), meter.aggregation);
      const row = before.get(postedKey(customer.id, price.key, period.start));
      const quantityBefore = row === undefined ? 0n : storedQuantity(row.quantity);
      if (quantity === quantityBefore) continue;
      const amount = rate(price, quantity, plan.currency).amount;
      const amountBefore = row === undefined ? 0n : BigInt(row.amount);
      const revision = (row?.revision ?? 0n) + 1n;
      changes.push({
        customer,
        plan,
        price,
        period,
        quantity,
        amount,
        quantityBefore,
        amountBefore,
        revision,
      });
    }
  });
  return changes;
}

const postedKey = (customer: string, price: string, periodStart: number): string =>
  JSON.stringify([customer, price, periodStart]);

async function readPosted(
  tx: Db,
  tenant: string,
  customers: readonly string[],
): Promise<Map<string, PostedRow>> {
  const rows = await tx.query<PostedRow>(
    `SELECT customer, price_key, period_start, quantity::text AS quantity, amount::text AS amount, revision
     FROM ledger.usage_posted WHERE tenant = $1 AND customer = ANY($2::text[])`,
    [tenant, [...new Set(customers)]],
  );
  return new Map(rows.map((row) => [postedKey(row.customer, row.price_key, row.period_start), row]));
}

/** None when the quantity changed and the amount did not: within the allowance, say. */
function usageTransaction(change: Change): TransactionDraft[] {
  const { customer, plan, price, period } = change;
  const postings = move('revenue', 'accrued_usage', change.amount - change.amountBefore);
  if (postings.length === 0) return [];
  const periodStart = formatInstant(period.start);
  return [
    {
      tenant: customer.tenant,
      customer: customer.id,
      currency: plan.currency,
      kind: 'usage',
      idempotencyKey: `usage/${customer.id}/${price.key}/${periodStart}/${change.revision}`,
      effectiveAtMs: period.start,
      detail: {
        price: price.key,
        meter: price.meter,
        plan: planRef(plan.key, plan.version),
        periodStart,
        quantityBefore: formatQuantity(change.quantityBefore),
        quantity: formatQuantity(change.quantity),
        amountBefore: change.amountBefore.toString(),
        amount: change.amount.toString(),
      },
      postings,
    },
  ];
}

async function recordPosted(
  tx: Db,
  tenant: string,
  changes: readonly Change[],
  nowMs: number,
): Promise<void> {
  if (changes.length === 0) return;
  const column = <T>(read: (change: Change) => T): T[] => changes.map(read);
  await tx.query(
    `INSERT INTO ledger.usage_posted AS p (tenant, customer, price_key, period_start, period_end, meter, plan_key,
       plan_version, quantity, amount, revision, updated_at)
     SELECT $1, u.*, $2::timestamptz FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
       $8::text[], $9::integer[], $10::numeric[], $11::numeric[], $12::bigint[]) AS u
     ON CONFLICT (tenant, customer, period_start, price_key) DO UPDATE SET
       quantity = excluded.quantity, amount = excluded.amount, revision = excluded.revision, updated_at = excluded.updated_at`,
    [
      tenant,
      formatInstant(nowMs),
      column((change) => change.customer.id),
      column((change) => change.price.key),
      column((change) => formatInstant(change.period.start)),
      column((change) => formatInstant(change.period.end)),
      column((change) => change.price.meter),
      column((change) => change.plan.key),
      column((change) => change.plan.version),
      column((change) => formatQuantity(change.quantity)),
      column((change) => change.amount.toString()),
      column((change) => change.revision.toString()),
    ],
  );
}
