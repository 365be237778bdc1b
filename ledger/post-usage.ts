/**
 * Turns rollups into postings. One pass:
 *
 * 1. Read the watermark of every shard. What lies behind it is durable and complete.
 * 2. Page through the subjects that changed since the cursor of their shard, and find their customers (those
 *    that asked to be read in full come first). A subject without a customer is noted as unassigned; it is read
 *    in full once a customer gets it.
 * 3. For a chunk of customers, read the absolute totals of each touched period, rate them, and post what the
 *    price of the total now differs from what is posted: in one serializable transaction, with the credit that
 *    covers it. A crash before its commit leaves nothing; one after it makes the next pass find no difference.
 * 4. After the last chunk, move the cursors. A crash before this reads the same changes again, for no difference.
 *
 * Totals are read from ClickHouse inside of the Postgres transaction that posts them, in the posting turn: two
 * ledgers take turns, and none can post older totals over newer ones. What a second one finds to do is nothing.
 *
 * Usage of a period that is invoiced already is posted all the same. The invoice keeps what it says; what came
 * later stands in `usage_posted` beside the invoiced part, and the next invoice takes it as an adjustment.
 */
import type { Amount } from '../contract/money.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import type { Totals } from '../contract/rollup.ts';
import { formatInstant, type Window } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import { POSTING_LIMITS, type LedgerContext } from './context.ts';
import { customersByIds, type Customer } from './customers.ts';
import { groupBy } from './group-by.ts';
import { applyCredit, expireGrants } from './grants.ts';
import { move, type TransactionDraft } from './journal.ts';
import { lockHeads, postTransactions } from './journal-store.ts';
import { listMeters } from './meters.ts';
import type { Plan, Price } from './plan.ts';
import { planRef, readPlanVersions } from './plans.ts';
import { takePostingTurn, TURN_ATTEMPTS } from './posting-turn.ts';
import { rate } from './rating.ts';
import { quantityIn, readChanges, readUsageTotals, readWatermarks } from './usage-totals.ts';
import type { ChangedSubject, PositionRange, Watermark } from './usage-totals.ts';
import { workOfChanges, workOfRequests, type CustomerWork, type ReadRequest } from './usage-work.ts';

export interface PostResult {
  /** Subjects that had changed, once for each month in which they had. */
  readonly changed: number;
  /** Quantities that were posted anew. */
  readonly posted: number;
  /** The watermarks up to which everything is posted now. */
  readonly watermarks: readonly Watermark[];
}

/** One pass over all shards. Throws when an engine is away; nothing is half done then. */
export async function postUsage(ctx: LedgerContext): Promise<PostResult> {
  const limits = ctx.postingLimits ?? POSTING_LIMITS;
  const watermarks = await readWatermarks(ctx.ch);
  const cursors = await readCursors(ctx.pg);
  const ranges = watermarks
    .map(({ shard, position }) => ({ shard, after: cursors.get(shard) ?? 0n, until: position }))
    .filter((range) => range.until > range.after);
  let posted = 0;
  for await (const requests of readRequests(ctx.pg, limits.customersPerTransaction)) {
    posted += await postWork(ctx, await workOfRequests(ctx, requests), watermarks);
  }
  let changed = 0;
  let behind: ChangedSubject | null = null;
  for (let more = ranges.length > 0; more;) {
    const page: ChangedSubject[] = await readChanges(ctx.ch, {
      ranges,
      behind,
      limit: limits.changesPerPage,
    });
    posted += await postWork(ctx, await workOfChanges(ctx, page), watermarks);
    changed += page.length;
    behind = page.at(-1) ?? null;
    more = page.length === limits.changesPerPage;
  }
  await ctx.pg.transaction(
    async (tx) => {
      await takePostingTurn(tx);
      await expireGrants(tx, ctx.clock.now());
      await moveCursors(tx, ranges);
    },
    { attempts: TURN_ATTEMPTS },
  );
  return { changed, posted, watermarks };
}

async function postWork(
  ctx: LedgerContext,
  work: readonly CustomerWork[],
  watermarks: readonly Watermark[],
): Promise<number> {
  const { customersPerTransaction: size } = ctx.postingLimits ?? POSTING_LIMITS;
  let posted = 0;
  for (let at = 0; at < work.length; at += size) {
    posted += await ctx.pg.transaction((tx) => postChunk(ctx, tx, work.slice(at, at + size), watermarks), {
      attempts: TURN_ATTEMPTS,
    });
  }
  return posted;
}

/** Pages of the customers that asked to be read in full, as they are at the start of each page. */
async function* readRequests(db: Db, limit: number): AsyncGenerator<ReadRequest[]> {
  let [tenant, customer] = ['', ''];
  for (;;) {
    const page = await db.query<ReadRequest>(
      `SELECT tenant, customer, revision FROM ledger.customers_to_read
       WHERE (tenant, customer) > ($1, $2) ORDER BY tenant, customer LIMIT $3`,
      [tenant, customer, limit],
    );
    if (page.length > 0) yield page;
    if (page.length < limit) return;
    ({ tenant, customer } = page.at(-1)!);
  }
}

export async function readCursors(db: Db): Promise<Map<number, bigint>> {
  const rows = await db.query<{ shard: number; position: string }>(
    'SELECT shard, position::text AS position FROM ledger.usage_cursors',
  );
  return new Map(rows.map((row) => [row.shard, BigInt(row.position)]));
}

async function moveCursors(tx: Db, ranges: readonly PositionRange[]): Promise<void> {
  if (ranges.length === 0) return;
  await tx.query(
    `INSERT INTO ledger.usage_cursors AS c (shard, position) SELECT * FROM unnest($1::integer[], $2::numeric[])
     ON CONFLICT (shard) DO UPDATE SET position = greatest(c.position, excluded.position)`,
    [ranges.map((range) => range.shard), ranges.map((range) => range.until.toString())],
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

interface ReadWork {
  readonly work: CustomerWork;
  /** By period of the work, the totals by meter. */
  readonly totals: readonly ReadonlyMap<string, Totals>[];
}

async function postChunk(
  ctx: LedgerContext,
  tx: Db,
  chunk: readonly CustomerWork[],
  watermarks: readonly Watermark[],
): Promise<number> {
  // 1. The turn first: totals read in it are never older than what is posted.
  await takePostingTurn(tx);
  const read = await readTotals(ctx, chunk);
  // 2. The journals, which other writers then wait for. Postgres is looked at from here on.
  await lockHeads(tx, [...read.keys()]);
  const nowMs = ctx.clock.now();
  let posted = 0;
  for (const [tenant, all] of read) {
    const work = await withoutChanged(tx, tenant, all);
    // 3. The differences to what is posted, and what credit covers of them.
    const changes = await findChanges(tx, tenant, work);
    const drafts = changes.flatMap((change) => usageTransaction(change, watermarks));
    await postTransactions(tx, tenant, drafts, nowMs);
    await recordPosted(tx, tenant, changes, nowMs);
    const requested = work.map((one) => one.work).filter((one) => one.requestRevision !== null);
    const customers = new Set([
      ...changes.map((change) => change.customer.id),
      ...requested.map((one) => one.customer.id),
    ]);
    await applyCredit(tx, tenant, [...customers], nowMs);
    await finishRequests(tx, tenant, requested);
    posted += changes.length;
  }
  return posted;
}

async function readTotals(
  ctx: LedgerContext,
  chunk: readonly CustomerWork[],
): Promise<Map<string, ReadWork[]>> {
  const read = new Map<string, ReadWork[]>();
  for (const [tenant, all] of groupBy(chunk, (one) => one.customer.tenant)) {
    const wanted = all.flatMap(({ customer, periods }) =>
      periods.map((window) => ({ subjects: customer.subjects, window })),
    );
    const totals = await readUsageTotals(ctx.ch, tenant, wanted);
    let next = 0;
    read.set(
      tenant,
      all.map((work) => ({ work, totals: totals.slice(next, (next += work.periods.length)) })),
    );
  }
  return read;
}

/**
 * Leaves out customers that were put anew since the work was found: with another anchor, plan or subjects its
 * periods are not the right ones. They have asked to be read, and the next pass does.
 */
async function withoutChanged(tx: Db, tenant: string, all: readonly ReadWork[]): Promise<ReadWork[]> {
  const ids = all.map(({ work }) => work.customer.id);
  const now = new Map((await customersByIds(tx, tenant, ids)).map((one) => [one.id, one]));
  const terms = (one: Customer | undefined): string =>
    JSON.stringify([one?.anchorMs, one?.planKey, one?.planVersion, one?.currency, one?.subjects]);
  return all.filter(({ work }) => terms(work.customer) === terms(now.get(work.customer.id)));
}

async function finishRequests(tx: Db, tenant: string, requested: readonly CustomerWork[]): Promise<void> {
  if (requested.length === 0) return;
  await tx.query(
    `DELETE FROM ledger.customers_to_read r USING unnest($2::text[], $3::bigint[]) AS done (customer, revision)
     WHERE r.tenant = $1 AND r.customer = done.customer AND r.revision = done.revision`,
    [tenant, requested.map((one) => one.customer.id), requested.map((one) => String(one.requestRevision))],
  );
  // What was noted of these subjects before they had a customer is billed now.
  await tx.query(
    `DELETE FROM ledger.unassigned_usage WHERE tenant = $1 AND subject = ANY($2::text[]) AND until = 'infinity'`,
    [tenant, requested.flatMap((one) => one.customer.subjects)],
  );
}

async function findChanges(tx: Db, tenant: string, all: readonly ReadWork[]): Promise<Change[]> {
  const customers = all.map(({ work }) => work.customer);
  const meters = new Map((await listMeters(tx, tenant)).map((meter) => [meter.key, meter]));
  const plans = await readPlanVersions(
    tx,
    tenant,
    customers.map((customer) => ({ key: customer.planKey, version: customer.planVersion })),
  );
  const before = await readPosted(
    tx,
    tenant,
    customers.map((customer) => customer.id),
  );
  return all.flatMap(({ work, totals }) => {
    const { customer, periods } = work;
    const plan = plans.get(planRef(customer.planKey, customer.planVersion));
    if (plan === undefined) throw new Error(`customer ${customer.id} has a plan that is not there`);
    return periods.flatMap((period, at) =>
      plan.prices.flatMap((price): Change[] => {
        const meter = meters.get(price.meter);
        if (meter === undefined)
          throw new Error(`price ${price.key} of plan ${plan.key} is on a meter that is not there`);
        const row = before.get(postedKey(customer.id, price.key, period.start));
        const quantity = quantityIn(totals[at]!.get(price.meter), meter.aggregation);
        const quantityBefore = row === undefined ? 0n : storedQuantity(row.quantity);
        if (quantity === quantityBefore) return [];
        return [
          {
            customer,
            plan,
            price,
            period,
            quantity,
            amount: rate(price, quantity, plan.currency).amount,
            quantityBefore,
            amountBefore: row === undefined ? 0n : BigInt(row.amount),
            revision: (row?.revision ?? 0n) + 1n,
          },
        ];
      }),
    );
  });
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
function usageTransaction(change: Change, watermarks: readonly Watermark[]): TransactionDraft[] {
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
        ...(watermarks.length > WATERMARKS_IN_DETAIL_MAX ? {} : { watermark: watermarkText(watermarks) }),
      },
      postings,
    },
  ];
}

/** A deployment of very many shards does not repeat them all in every transaction. */
const WATERMARKS_IN_DETAIL_MAX = 16;

function watermarkText(watermarks: readonly Watermark[]): string {
  return watermarks.map(({ shard, position }) => `${shard}:${position}`).join(' ');
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
