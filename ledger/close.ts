/**
 * Closing a period: from usage to an invoice that never changes.
 *
 * 1. The cut: the watermark of every shard. Events behind it are on this invoice, whatever comes later is not.
 * 2. The ledger catches up to the cut.
 * 3. Every price's quantity is computed again from the raw events up to the cut and compared with the rollups and
 *    with what is posted. A difference blocks the invoice and is shown; nothing is papered over. Events that
 *    arrived in between look like a difference too, so with a newer watermark the steps begin anew.
 * 4. One serializable transaction, under the posting lock, writes the invoice, its lines and its journal
 *    transaction, marks what it took over as invoiced, and adds it to the outbox. A crash before its commit leaves
 *    nothing; closing the period again after it finds the invoice.
 *
 * Usage that was posted to earlier, closed periods since their invoices stands on this one as adjustments, with
 * the period it belongs to.
 */
import type { Aggregation } from '../contract/meter.ts';
import { formatAmount, formatUnitPrice, type Amount, type Currency } from '../contract/money.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant, monthlyPeriod, type Window } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import type { LedgerContext } from './context.ts';
import { readCustomer, type Customer } from './customers.ts';
import { invoiceOfPeriod, type Invoice, type InvoiceTier } from './invoices.ts';
import { move } from './journal.ts';
import { postTransactions } from './journal-store.ts';
import { listMeters } from './meters.ts';
import { addToOutbox } from './outbox.ts';
import { planRef, readPlanVersions } from './plans.ts';
import { postUsage, readCursors, takeLock } from './post-usage.ts';
import { rate } from './rating.ts';
import {
  quantityIn,
  readRawQuantity,
  readUsageTotals,
  readWatermarks,
  type Positions,
} from './usage-totals.ts';

export interface UsageDifference {
  readonly priceKey: string;
  readonly meter: string;
  readonly raw: Quantity;
  readonly rollup: Quantity;
  readonly posted: Quantity;
}

export type CloseOutcome =
  | { readonly outcome: 'closed'; readonly invoice: Invoice }
  | { readonly outcome: 'already_closed'; readonly invoice: Invoice }
  | { readonly outcome: 'period_open'; readonly endsAtMs: number }
  | { readonly outcome: 'not_a_period'; readonly periodStartMs: number }
  | { readonly outcome: 'no_subscription' }
  | { readonly outcome: 'behind'; readonly detail: string }
  | { readonly outcome: 'usage_mismatch'; readonly differences: readonly UsageDifference[] };

export interface CloseRequest {
  readonly tenant: string;
  readonly customer: string;
  readonly periodStart: number;
  readonly actor: string;
}

const ATTEMPTS = 5;
const CATCH_UP_PASSES = 50;
const BUSY_PAUSE_MS = 100;

export async function closePeriod(ctx: LedgerContext, request: CloseRequest): Promise<CloseOutcome> {
  const customer = await readCustomer(ctx.pg, request.tenant, request.customer);
  if (customer === null || request.periodStart < customer.anchorMs) return { outcome: 'no_subscription' };
  const period = monthlyPeriod(customer.anchorMs, request.periodStart);
  if (period.start !== request.periodStart) return { outcome: 'not_a_period', periodStartMs: period.start };
  const earlier = await invoiceOfPeriod(ctx.pg, request.tenant, request.customer, period.start);
  if (earlier !== null) return { outcome: 'already_closed', invoice: earlier };
  if (ctx.clock.now() < period.end) return { outcome: 'period_open', endsAtMs: period.end };

  let last: CloseOutcome = {
    outcome: 'behind',
    detail: 'the shards move faster than the period can be compared; try again',
  };
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const cut: Positions = new Map((await readWatermarks(ctx.ch)).map((one) => [one.shard, one.position]));
    if (!(await catchUp(ctx, cut))) {
      return {
        outcome: 'behind',
        detail: "usage up to the cut is not posted yet; see the ledger's log and try again",
      };
    }
    const quantities = await rawQuantities(ctx, customer, period, cut);
    const result = await ctx.pg.transaction((tx) =>
      writeInvoice(ctx, tx, customer, period, cut, quantities, request.actor),
    );
    if (result.outcome === 'closed') {
      const invoice = await invoiceOfPeriod(ctx.pg, request.tenant, request.customer, period.start);
      if (invoice === null) throw new Error('an invoice was written and is not there');
      return { outcome: result.isNew ? 'closed' : 'already_closed', invoice };
    }
    if (result.outcome === 'usage_mismatch') last = result;
    // Only a newer watermark explains a difference; without one it is real.
    if (result.outcome === 'usage_mismatch' && !(await hasMoved(ctx, cut))) return result;
    if (result.outcome === 'busy') await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE_MS));
  }
  return last;
}

/** Posts until every shard's cursor has reached the cut. */
async function catchUp(ctx: LedgerContext, cut: Positions): Promise<boolean> {
  for (let pass = 0; pass < CATCH_UP_PASSES; pass++) {
    const result = await postUsage(ctx);
    const cursors = await readCursors(ctx.pg);
    const [waiting] = await ctx.pg.query('SELECT 1 FROM ledger.customers_to_read LIMIT 1');
    if (
      waiting === undefined &&
      [...cut].every(([shard, position]) => (cursors.get(shard) ?? 0n) >= position)
    )
      return true;
    if (result.busy) await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE_MS));
  }
  return false;
}

async function hasMoved(ctx: LedgerContext, cut: Positions): Promise<boolean> {
  return (await readWatermarks(ctx.ch)).some((one) => one.position > (cut.get(one.shard) ?? 0n));
}

async function rawQuantities(
  ctx: LedgerContext,
  customer: Customer,
  period: Window,
  cut: Positions,
): Promise<Map<string, Quantity>> {
  const meters = await listMeters(ctx.pg, customer.tenant);
  const plan = (
    await readPlanVersions(ctx.pg, customer.tenant, [
      { key: customer.planKey, version: customer.planVersion },
    ])
  ).get(planRef(customer.planKey, customer.planVersion));
  const quantities = new Map<string, Quantity>();
  for (const price of plan?.prices ?? []) {
    const meter = meters.find((one) => one.key === price.meter);
    if (meter === undefined) throw new Error(`price ${price.key} is on a meter that is not there`);
    quantities.set(
      price.key,
      await readRawQuantity(ctx.ch, {
        tenant: customer.tenant,
        meter,
        subjects: customer.subjects,
        window: period,
        cut,
      }),
    );
  }
  return quantities;
}

interface PostedRow {
  price_key: string;
  meter: string;
  plan_key: string;
  plan_version: number;
  period_start: number;
  period_end: number;
  quantity: string;
  amount: string;
  invoiced_quantity: string;
  invoiced_amount: string;
}

interface Line {
  readonly kind: 'usage' | 'adjustment' | 'credit';
  readonly row: PostedRow | null;
  readonly description: string;
  readonly window: Window;
  readonly quantity: Quantity;
  readonly included: Quantity;
  readonly amount: Amount;
  readonly tiers: readonly InvoiceTier[];
}

type Written =
  | { readonly outcome: 'closed'; readonly isNew: boolean }
  | { readonly outcome: 'busy' }
  | { readonly outcome: 'usage_mismatch'; readonly differences: readonly UsageDifference[] };

async function writeInvoice(
  ctx: LedgerContext,
  tx: Db,
  customer: Customer,
  period: Window,
  cut: Positions,
  raw: ReadonlyMap<string, Quantity>,
  actor: string,
): Promise<Written> {
  if (!(await takeLock(tx))) return { outcome: 'busy' };
  if ((await invoiceOfPeriod(tx, customer.tenant, customer.id, period.start)) !== null) {
    return { outcome: 'closed', isNew: false };
  }
  const nowMs = ctx.clock.now();
  const rows = await readUninvoiced(tx, customer, period);
  const differences = await findDifferences(ctx, tx, customer, period, raw, rows);
  if (differences.length > 0) return { outcome: 'usage_mismatch', differences };
  const lines = [
    ...(await usageLines(tx, customer, period, rows)),
    ...(await creditLines(tx, customer, period)),
  ];
  const total = lines.reduce((sum, line) => sum + line.amount, 0n);
  const number = await nextNumber(tx, customer.tenant);
  const id = `inv_${number.replace(/[^0-9]/g, '')}`;
  await insertInvoice(tx, { id, number, customer, period, total, cut, nowMs });
  await insertLines(tx, customer.tenant, id, lines);
  await markInvoiced(tx, customer, period);
  const postings = move('accrued_usage', 'invoice_pending', total);
  if (postings.length > 0) {
    await postTransactions(
      tx,
      customer.tenant,
      [
        {
          tenant: customer.tenant,
          customer: customer.id,
          currency: customer.currency,
          kind: 'invoice',
          idempotencyKey: `invoice/${id}`,
          effectiveAtMs: period.end,
          detail: { invoice: number, periodStart: formatInstant(period.start), actor },
          postings,
        },
      ],
      nowMs,
    );
  }
  await addToOutbox(tx, { tenant: customer.tenant, customer: customer.id, invoiceId: id, nowMs });
  return { outcome: 'closed', isNew: true };
}

/** What is posted and not invoiced, of this period and of those before it. */
function readUninvoiced(tx: Db, customer: Customer, period: Window): Promise<PostedRow[]> {
  return tx.query<PostedRow>(
    `SELECT price_key, meter, plan_key, plan_version, period_start, period_end, quantity::text AS quantity,
       amount::text AS amount, invoiced_quantity::text AS invoiced_quantity, invoiced_amount::text AS invoiced_amount
     FROM ledger.usage_posted
     WHERE tenant = $1 AND customer = $2 AND period_start <= $3
       AND (quantity <> invoiced_quantity OR amount <> invoiced_amount)
     ORDER BY period_start DESC, price_key`,
    [customer.tenant, customer.id, formatInstant(period.start)],
  );
}

async function findDifferences(
  ctx: LedgerContext,
  tx: Db,
  customer: Customer,
  period: Window,
  raw: ReadonlyMap<string, Quantity>,
  rows: readonly PostedRow[],
): Promise<UsageDifference[]> {
  const plan = (
    await readPlanVersions(tx, customer.tenant, [{ key: customer.planKey, version: customer.planVersion }])
  ).get(planRef(customer.planKey, customer.planVersion));
  const aggregations = new Map<string, Aggregation>(
    (await listMeters(tx, customer.tenant)).map((meter) => [meter.key, meter.aggregation]),
  );
  const [totals] = await readUsageTotals(ctx.ch, customer.tenant, [
    { subjects: customer.subjects, window: period },
  ]);
  const differences: UsageDifference[] = [];
  for (const price of plan?.prices ?? []) {
    const row = rows.find((one) => one.price_key === price.key && one.period_start === period.start);
    const difference: UsageDifference = {
      priceKey: price.key,
      meter: price.meter,
      raw: raw.get(price.key) ?? 0n,
      rollup: quantityIn(totals?.get(price.meter), aggregations.get(price.meter) ?? 'sum'),
      posted: row === undefined ? 0n : storedQuantity(row.quantity),
    };
    if (difference.raw !== difference.rollup || difference.raw !== difference.posted)
      differences.push(difference);
  }
  return differences;
}

async function usageLines(
  tx: Db,
  customer: Customer,
  period: Window,
  rows: readonly PostedRow[],
): Promise<Line[]> {
  const plans = await readPlanVersions(
    tx,
    customer.tenant,
    rows.map((row) => ({ key: row.plan_key, version: row.plan_version })),
  );
  const lines = rows.map((row): Line & { order: number } => {
    const plan = plans.get(planRef(row.plan_key, row.plan_version));
    const order = plan?.prices.findIndex((price) => price.key === row.price_key) ?? -1;
    const price = plan?.prices[order];
    if (price === undefined)
      throw new Error(`usage is posted under a price ${row.price_key} that is not there`);
    const isThisPeriod = row.period_start === period.start;
    const rated = rate(price, storedQuantity(row.quantity), customer.currency);
    return {
      order,
      kind: isThisPeriod ? 'usage' : 'adjustment',
      row,
      description: isThisPeriod
        ? `${row.price_key} (${row.meter})`
        : `${row.price_key} (${row.meter}): adjustment for the period from ${formatInstant(row.period_start).slice(0, 10)}`,
      window: { start: row.period_start, end: row.period_end },
      quantity: storedQuantity(row.quantity) - storedQuantity(row.invoiced_quantity),
      included: price.included,
      amount: BigInt(row.amount) - BigInt(row.invoiced_amount),
      tiers: rated.tiers.map((tier) => ({
        quantity: formatQuantity(tier.quantity),
        unitPrice: formatUnitPrice(tier.unitPrice),
        flatAmount: formatAmount(tier.flatAmount, customer.currency),
      })),
    };
  });
  // This period first, in the plan's order; then adjustments, the newest period first.
  return lines.sort((a, b) => b.window.start - a.window.start || a.order - b.order);
}

/** Credit that covers this and earlier periods and stands on no invoice yet, as one negative line a period. */
async function creditLines(tx: Db, customer: Customer, period: Window): Promise<Line[]> {
  const rows = await tx.query<{ period_start: number; amount: string }>(
    `SELECT period_start, (amount - invoiced_amount)::text AS amount FROM ledger.credit_applied
     WHERE tenant = $1 AND customer = $2 AND period_start <= $3 AND amount <> invoiced_amount ORDER BY period_start DESC`,
    [customer.tenant, customer.id, formatInstant(period.start)],
  );
  return rows.map((row) => ({
    kind: 'credit',
    row: null,
    description: 'credit applied',
    window: monthlyPeriod(customer.anchorMs, row.period_start),
    quantity: 0n,
    included: 0n,
    amount: -BigInt(row.amount),
    tiers: [],
  }));
}

async function nextNumber(tx: Db, tenant: string): Promise<string> {
  const [row] = await tx.query<{ last: bigint }>(
    `INSERT INTO ledger.invoice_numbers AS n (tenant, last) VALUES ($1, 1)
     ON CONFLICT (tenant) DO UPDATE SET last = n.last + 1 RETURNING last`,
    [tenant],
  );
  return `INV-${String(row!.last).padStart(6, '0')}`;
}

async function insertInvoice(
  tx: Db,
  o: {
    id: string;
    number: string;
    customer: Customer;
    period: Window;
    total: Amount;
    cut: Positions;
    nowMs: number;
  },
): Promise<void> {
  const cut = Object.fromEntries([...o.cut].map(([shard, position]) => [String(shard), position.toString()]));
  const currency: Currency = o.customer.currency;
  await tx.query(
    `INSERT INTO ledger.invoices (tenant, id, number, customer, currency, period_start, period_end, total, cut, status, issued_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'issued', $10)`,
    [
      o.customer.tenant,
      o.id,
      o.number,
      o.customer.id,
      currency,
      formatInstant(o.period.start),
      formatInstant(o.period.end),
      o.total.toString(),
      JSON.stringify(cut),
      formatInstant(o.nowMs),
    ],
  );
}

async function insertLines(tx: Db, tenant: string, invoice: string, lines: readonly Line[]): Promise<void> {
  for (const [ordinal, line] of lines.entries()) {
    await tx.query(
      `INSERT INTO ledger.invoice_lines (tenant, invoice, id, ordinal, kind, price_key, meter, plan_key, plan_version,
         description, period_start, period_end, quantity, included, amount, tiers)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
      [
        tenant,
        invoice,
        `line_${ordinal + 1}`,
        ordinal,
        line.kind,
        line.row?.price_key ?? null,
        line.row?.meter ?? null,
        line.row?.plan_key ?? null,
        line.row?.plan_version ?? null,
        line.description,
        formatInstant(line.window.start),
        formatInstant(line.window.end),
        formatQuantity(line.quantity),
        formatQuantity(line.included),
        line.amount.toString(),
        JSON.stringify(line.tiers),
      ],
    );
  }
}

async function markInvoiced(tx: Db, customer: Customer, period: Window): Promise<void> {
  const key = [customer.tenant, customer.id, formatInstant(period.start)];
  await tx.query(
    `UPDATE ledger.usage_posted SET invoiced_quantity = quantity, invoiced_amount = amount
     WHERE tenant = $1 AND customer = $2 AND period_start <= $3`,
    key,
  );
  await tx.query(
    `UPDATE ledger.credit_applied SET invoiced_amount = amount WHERE tenant = $1 AND customer = $2 AND period_start <= $3`,
    key,
  );
}
