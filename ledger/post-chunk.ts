/**
 * Posts a chunk of customers: what the price of their totals differs from what is posted, in one serializable
 * transaction. post-usage.ts tells how it is come to.
 *
 * 1. The posting turn first: totals read in it are never older than what is posted.
 * 2. The totals, from ClickHouse. Postgres has not been looked at yet, and other writers go on.
 * 3. The writing turn and the journals. Postgres is looked at from here on.
 * 4. The differences to what is posted, and what credit covers of them.
 */
import type { Aggregation } from '../contract/meter.ts';
import type { Amount } from '../contract/money.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant, type Window } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import type { LedgerContext } from './context.ts';
import { customersByIds, type Customer } from './customers.ts';
import { groupBy } from './group-by.ts';
import { applyCredit } from './grants.ts';
import { move, type TransactionDraft } from './journal.ts';
import { lockHeads, postTransactions } from './journal-store.ts';
import type { KnownUsage } from './known-usage.ts';
import { listMeters } from './meters.ts';
import type { Plan, Price } from './plan.ts';
import { planRef, readPlanVersions } from './plans.ts';
import { takePostingTurn, takeWritingTurn, TURN_ATTEMPTS } from './posting-turn.ts';
import { rate } from './rating.ts';
import { readUniqueCounts, uniqueQuantity } from './unique-counts.ts';
import { alongWith, readKnownTotals, type UsageWanted } from './usage-rows.ts';
import { quantityIn, readUsageTotals, type Watermark } from './usage-totals.ts';
import type { CustomerWork } from './usage-work.ts';

/** Which prices: those on unique counts, all others, or all. */
export type PostingPart = 'totals' | 'uniques' | 'all';

export interface Chunk {
  readonly part: PostingPart;
  readonly work: readonly CustomerWork[];
  readonly watermarks: readonly Watermark[];
  /** What the loop knows of totals; null reads whole periods, unique counts in any case. */
  readonly known: KnownUsage | null;
}

/** How many quantities were posted anew. */
export async function postChunk(ctx: LedgerContext, chunk: Chunk): Promise<number> {
  const wanted: TenantWork[] = [];
  const { part, known } = chunk;
  for (const [tenant, work] of groupBy(chunk.work, (one) => one.customer.tenant)) {
    const usage = usageOf(work);
    const along =
      known === null || part !== 'totals'
        ? []
        : await alongWith(ctx.pg, known, { tenant, wanted: usage, nowMs: ctx.clock.now() });
    const customers = [...work, ...along].map((one) => one.customer);
    wanted.push({ tenant, work, usage, along, ...(await pricedMeters(ctx.pg, tenant, customers)) });
  }
  return ctx.pg.transaction((tx) => postInTurn(ctx, tx, chunk, wanted), { attempts: TURN_ATTEMPTS });
}

/** The meters that these customers have a price on: those with a unique count, and all others. */
interface PricedMeters {
  readonly uniques: readonly string[];
  readonly others: readonly string[];
}

interface TenantWork extends PricedMeters {
  readonly tenant: string;
  readonly work: readonly CustomerWork[];
  readonly usage: readonly UsageWanted[];
  /** Read with it, and not posted. */
  readonly along: readonly UsageWanted[];
}

const usageOf = (work: readonly CustomerWork[]): UsageWanted[] =>
  work.flatMap(({ customer, periods }) => periods.map((period) => ({ customer, period })));

/** A plan's version does not change; a customer that has another one by now is left out (withoutChanged). */
async function pricedMeters(db: Db, tenant: string, customers: readonly Customer[]): Promise<PricedMeters> {
  const plans = await readPlanVersions(
    db,
    tenant,
    customers.map(({ planKey, planVersion }) => ({ key: planKey, version: planVersion })),
  );
  const priced = new Set([...plans.values()].flatMap((plan) => plan.prices.map((price) => price.meter)));
  const meters = (await listMeters(db, tenant)).filter(({ key }) => priced.has(key));
  const isUnique = ({ aggregation }: { aggregation: Aggregation }): boolean => aggregation === 'unique_count';
  return {
    uniques: meters.filter(isUnique).map(({ key }) => key),
    others: meters.filter((meter) => !isUnique(meter)).map(({ key }) => key),
  };
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

/** Quantities of a period by meter; a meter that is not there has none. */
type Quantities = (price: Price, aggregation: Aggregation) => Quantity;

interface ReadWork {
  readonly work: CustomerWork;
  /** By period of the work. */
  readonly quantities: readonly Quantities[];
}

async function postInTurn(
  ctx: LedgerContext,
  tx: Db,
  { part, watermarks, known }: Chunk,
  wanted: readonly TenantWork[],
): Promise<number> {
  await takePostingTurn(tx);
  const read = new Map<string, ReadWork[]>();
  for (const one of wanted) read.set(one.tenant, await readQuantities(ctx, part, one, known));
  await takeWritingTurn(tx);
  await lockHeads(tx, [...read.keys()]);
  const nowMs = ctx.clock.now();
  let posted = 0;
  for (const [tenant, all] of read) {
    const work = await withoutChanged(tx, tenant, all);
    const changes = await findChanges(tx, tenant, part, work);
    const drafts = changes.flatMap((change) => usageTransaction(change, watermarks));
    await postTransactions(tx, tenant, drafts, nowMs);
    await recordPosted(tx, tenant, changes, nowMs);
    const requested = work.map((one) => one.work).filter((one) => one.requestRevision !== null);
    const customers = new Set([
      ...changes.map((change) => change.customer.id),
      ...requested.map((one) => one.customer.id),
    ]);
    if (customers.size > 0) await applyCredit(tx, tenant, [...customers], nowMs);
    await finishRequests(tx, tenant, requested);
    posted += changes.length;
  }
  return posted;
}

async function readQuantities(
  { ch, clock }: LedgerContext,
  part: PostingPart,
  { tenant, work: all, usage, along, uniques, others }: TenantWork,
  known: KnownUsage | null,
): Promise<ReadWork[]> {
  const wanted = usage.map(({ customer, period }) => ({ subjects: customer.subjects, window: period }));
  const nowMs = clock.now();
  const totals =
    part === 'uniques'
      ? []
      : known === null
        ? await readUsageTotals(ch, tenant, wanted, { meters: others })
        : await readKnownTotals(ch, known, { tenant, wanted: [...usage, ...along], meters: others, nowMs });
  const counts = part === 'totals' ? [] : await readUniqueCounts(ch, { tenant, wanted, meters: uniques });
  const quantities = wanted.map(
    (_, at): Quantities =>
      ({ meter }, aggregation) =>
        aggregation === 'unique_count'
          ? uniqueQuantity(counts[at]?.get(meter))
          : quantityIn(totals[at]?.get(meter), aggregation),
  );
  let next = 0;
  return all.map((work) => ({
    work,
    quantities: quantities.slice(next, (next += work.periods.length)),
  }));
}

/** A price that this part does not post keeps what is posted of it. */
const isOf = (part: PostingPart, aggregation: Aggregation): boolean =>
  part === 'all' || (part === 'uniques') === (aggregation === 'unique_count');

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
}

async function findChanges(
  tx: Db,
  tenant: string,
  part: PostingPart,
  all: readonly ReadWork[],
): Promise<Change[]> {
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
  return all.flatMap(({ work, quantities }) => {
    const { customer, periods } = work;
    const plan = plans.get(planRef(customer.planKey, customer.planVersion));
    if (plan === undefined) throw new Error(`customer ${customer.id} has a plan that is not there`);
    return periods.flatMap((period, at) =>
      plan.prices.flatMap((price): Change[] => {
        const meter = meters.get(price.meter);
        if (meter === undefined)
          throw new Error(`price ${price.key} of plan ${plan.key} is on a meter that is not there`);
        if (!isOf(part, meter.aggregation)) return [];
        const row = before.get(postedKey(customer.id, price.key, period.start));
        const quantity = quantities[at]!(price, meter.aggregation);
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
