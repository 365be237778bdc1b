/**
 * Closing a period: from usage to an invoice that never changes.
 *
 * 1. The cut: the watermark of every shard. Events behind it are on this invoice, whatever comes later is not.
 * 2. The ledger catches up to the cut.
 * 3. In the posting turn, every price's quantity is computed again from the raw events up to the cut and compared
 *    with the rollups and with what is posted. A difference blocks the invoice and is shown; nothing is papered
 *    over. Events of the very period that arrived behind the cut look like a difference too: with these the steps
 *    begin anew.
 * 4. The same serializable transaction writes the invoice, its lines and its journal
 *    transaction, marks what it took over as invoiced, and adds it to the outbox. A crash before its commit leaves
 *    nothing; closing the period again after it finds the invoice.
 *
 * Usage that was posted to earlier, closed periods since their invoices stands on this one as adjustments, with
 * the period it belongs to.
 */
import type { Meter } from '../contract/meter.ts';
import { formatAmount, formatUnitPrice, type Amount, type Currency } from '../contract/money.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import type { Totals } from '../contract/rollup.ts';
import { formatInstant, monthlyPeriod, type Window } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import { appendAudit } from './audit.ts';
import type { LedgerContext } from './context.ts';
import { readCustomer, type Customer } from './customers.ts';
import { invoiceOfPeriod, type Invoice, type InvoiceTier } from './invoices.ts';
import { move } from './journal.ts';
import { lockHeads, postTransactions } from './journal-store.ts';
import { listMeters } from './meters.ts';
import { addToOutbox } from './outbox.ts';
import type { Plan, Price } from './plan.ts';
import { planRef, readPlanVersions } from './plans.ts';
import { postUsage, readCursors } from './post-usage.ts';
import { takePostingTurn, takeWritingTurn, TURN_ATTEMPTS } from './posting-turn.ts';
import { rate } from './rating.ts';
import {
  hasUsageBeyond,
  quantityIn,
  readRawTotals,
  readUsageTotals,
  readWatermarks,
  type CutUsage,
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
/** Passes until the cut is posted. One does it, unless the customer is put anew in between. */
const CATCH_UP_PASSES = 5;

export async function closePeriod(ctx: LedgerContext, request: CloseRequest): Promise<CloseOutcome> {
  const { tenant, customer: id } = request;
  const customer = await readCustomer(ctx.pg, tenant, id);
  if (customer === null || request.periodStart < customer.anchorMs) return { outcome: 'no_subscription' };
  const period = monthlyPeriod(customer.anchorMs, request.periodStart);
  if (period.start !== request.periodStart) return { outcome: 'not_a_period', periodStartMs: period.start };
  const earlier = await invoiceOfPeriod(ctx.pg, tenant, id, period.start);
  if (earlier !== null) return { outcome: 'already_closed', invoice: earlier };
  if (ctx.clock.now() < period.end) return { outcome: 'period_open', endsAtMs: period.end };

  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const cut: Positions = new Map((await readWatermarks(ctx.ch)).map((one) => [one.shard, one.position]));
    if (!(await catchUp(ctx, customer, cut))) {
      return {
        outcome: 'behind',
        detail: "usage up to the cut is not posted yet; see the ledger's log and try again",
      };
    }
    const result = await ctx.pg.transaction(
      (tx) => writeInvoice(ctx, tx, customer, period, cut, request.actor),
      { attempts: TURN_ATTEMPTS },
    );
    switch (result.outcome) {
      case 'closed': {
        const invoice = await invoiceOfPeriod(ctx.pg, tenant, id, period.start);
        if (invoice === null) throw new Error('an invoice was written and is not there');
        return { outcome: result.isNew ? 'closed' : 'already_closed', invoice };
      }
      case 'usage_mismatch':
        return result;
      case 'moved':
        break;
    }
  }
  return {
    outcome: 'behind',
    detail: 'events of this period keep arriving faster than it can be compared; try again',
  };
}

/** Posts until every shard's cursor has reached the cut and nothing of the customer waits to be read. */
async function catchUp(ctx: LedgerContext, customer: Customer, cut: Positions): Promise<boolean> {
  for (let pass = 0; pass < CATCH_UP_PASSES; pass++) {
    await postUsage(ctx);
    const cursors = await Promise.all([readCursors(ctx.pg, 'totals'), readCursors(ctx.pg, 'uniques')]);
    const waiting = await ctx.pg.query(
      'SELECT 1 FROM ledger.customers_to_read WHERE tenant = $1 AND customer = $2',
      [customer.tenant, customer.id],
    );
    const reached = [...cut].every(([shard, position]) =>
      cursors.every((one) => (one.get(shard) ?? 0n) >= position),
    );
    if (reached && waiting.length === 0) return true;
  }
  return false;
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

interface LinePrice {
  readonly key: string;
  readonly meter: string;
  readonly planKey: string;
  readonly planVersion: number;
}

interface Line {
  readonly kind: 'usage' | 'adjustment' | 'credit';
  readonly price: LinePrice | null;
  readonly description: string;
  readonly window: Window;
  readonly quantity: Quantity;
  readonly included: Quantity;
  readonly amount: Amount;
  readonly tiers: readonly InvoiceTier[];
}

type Written =
  | { readonly outcome: 'closed'; readonly isNew: boolean }
  | { readonly outcome: 'moved' }
  | { readonly outcome: 'usage_mismatch'; readonly differences: readonly UsageDifference[] };

async function writeInvoice(
  ctx: LedgerContext,
  tx: Db,
  before: Customer,
  period: Window,
  cut: Positions,
  actor: string,
): Promise<Written> {
  await takePostingTurn(tx);
  const { tenant, subjects } = before;
  const usage: CutUsage = { tenant, subjects, window: period, cut };
  const raw = await readRawTotals(ctx.ch, usage);
  const [rollups = new Map<string, Totals>()] = await readUsageTotals(ctx.ch, tenant, [usage]);
  const hasMoved = await hasUsageBeyond(ctx.ch, usage);
  await takeWritingTurn(tx);
  await lockHeads(tx, [tenant]);
  const customer = await readCustomer(tx, tenant, before.id);
  // Put anew since the period was worked out: its anchor or subjects may be others now.
  if (customer === null || JSON.stringify(customer) !== JSON.stringify(before)) return { outcome: 'moved' };
  if ((await invoiceOfPeriod(tx, tenant, customer.id, period.start)) !== null) {
    return { outcome: 'closed', isNew: false };
  }
  const nowMs = ctx.clock.now();
  const plan = (
    await readPlanVersions(tx, tenant, [{ key: customer.planKey, version: customer.planVersion }])
  ).get(planRef(customer.planKey, customer.planVersion));
  if (plan === undefined) throw new Error(`customer ${customer.id} has a plan that is not there`);
  const rows = await readUninvoiced(tx, customer, period);
  const differences = findDifferences(await listMeters(tx, tenant), plan, period, raw, rollups, rows);
  if (differences.length > 0)
    return hasMoved ? { outcome: 'moved' } : { outcome: 'usage_mismatch', differences };
  const lines = [
    ...usageLines(customer, plan, period, rows),
    ...(await adjustmentLines(tx, customer, period, rows)),
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
  await appendAudit(tx, { tenant, keyId: actor }, 'period.close', `invoice/${id}`, nowMs);
  return { outcome: 'closed', isNew: true };
}

/**
 * What is posted and not invoiced: of this period, and of those that were closed before. Usage of another period
 * that is still open stays for its own invoice.
 */
function readUninvoiced(tx: Db, customer: Customer, period: Window): Promise<PostedRow[]> {
  return tx.query<PostedRow>(
    `SELECT price_key, meter, plan_key, plan_version, period_start, period_end, quantity::text AS quantity,
       amount::text AS amount, invoiced_quantity::text AS invoiced_quantity, invoiced_amount::text AS invoiced_amount
     FROM ledger.usage_posted u
     WHERE u.tenant = $1 AND u.customer = $2 AND (quantity <> invoiced_quantity OR amount <> invoiced_amount)
       AND (u.period_start = $3 OR EXISTS (SELECT 1 FROM ledger.invoices i
         WHERE i.tenant = u.tenant AND i.customer = u.customer AND i.period_start = u.period_start))
     ORDER BY period_start DESC, price_key`,
    [customer.tenant, customer.id, formatInstant(period.start)],
  );
}

function findDifferences(
  meters: readonly Meter[],
  plan: Plan,
  period: Window,
  raw: ReadonlyMap<string, Totals>,
  rollups: ReadonlyMap<string, Totals>,
  rows: readonly PostedRow[],
): UsageDifference[] {
  const differences: UsageDifference[] = [];
  for (const price of plan.prices) {
    const meter = meters.find((one) => one.key === price.meter);
    if (meter === undefined) throw new Error(`price ${price.key} is on a meter that is not there`);
    const row = rows.find((one) => one.price_key === price.key && one.period_start === period.start);
    const difference: UsageDifference = {
      priceKey: price.key,
      meter: price.meter,
      raw: quantityIn(raw.get(price.meter), meter.aggregation),
      rollup: quantityIn(rollups.get(price.meter), meter.aggregation),
      posted: row === undefined ? 0n : storedQuantity(row.quantity),
    };
    if (difference.raw !== difference.rollup || difference.raw !== difference.posted)
      differences.push(difference);
  }
  return differences;
}

/** One line for every price of the plan, in its order; one without usage says so. */
function usageLines(customer: Customer, plan: Plan, period: Window, rows: readonly PostedRow[]): Line[] {
  return plan.prices.map((price): Line => {
    const row = rows.find((one) => one.price_key === price.key && one.period_start === period.start);
    const quantity = row === undefined ? 0n : storedQuantity(row.quantity);
    return {
      kind: 'usage',
      price: { key: price.key, meter: price.meter, planKey: plan.key, planVersion: plan.version },
      description: `${price.key} (${price.meter})`,
      window: period,
      quantity,
      included: price.included,
      amount: row === undefined ? 0n : BigInt(row.amount),
      tiers: tiersOf(price, quantity, customer.currency),
    };
  });
}

/** What was posted to closed periods since their invoices, the newest period first. */
async function adjustmentLines(
  tx: Db,
  customer: Customer,
  period: Window,
  rows: readonly PostedRow[],
): Promise<Line[]> {
  const late = rows.filter((row) => row.period_start !== period.start);
  const plans = await readPlanVersions(
    tx,
    customer.tenant,
    late.map((row) => ({ key: row.plan_key, version: row.plan_version })),
  );
  return late.map((row): Line => {
    const price = plans
      .get(planRef(row.plan_key, row.plan_version))
      ?.prices.find((one) => one.key === row.price_key);
    if (price === undefined)
      throw new Error(`usage is posted under a price ${row.price_key} that is not there`);
    const day = formatInstant(row.period_start).slice(0, 10);
    return {
      kind: 'adjustment',
      price: { key: price.key, meter: price.meter, planKey: row.plan_key, planVersion: row.plan_version },
      description: `${price.key} (${price.meter}): adjustment for the period from ${day}`,
      window: { start: row.period_start, end: row.period_end },
      quantity: storedQuantity(row.quantity) - storedQuantity(row.invoiced_quantity),
      included: price.included,
      amount: BigInt(row.amount) - BigInt(row.invoiced_amount),
      // Of the whole period as it stands now, of which the line is the difference.
      tiers: tiersOf(price, storedQuantity(row.quantity), customer.currency),
    };
  });
}

function tiersOf(price: Price, quantity: Quantity, currency: Currency): InvoiceTier[] {
  return rate(price, quantity, currency).tiers.map((tier) => ({
    quantity: formatQuantity(tier.quantity),
    unitPrice: formatUnitPrice(tier.unitPrice),
    flatAmount: formatAmount(tier.flatAmount, currency),
  }));
}

/** Credit that covers what is on this invoice, as one negative line a period. */
async function creditLines(tx: Db, customer: Customer, period: Window): Promise<Line[]> {
  const rows = await tx.query<{ period_start: number; amount: string }>(
    `SELECT period_start, (amount - invoiced_amount)::text AS amount FROM ledger.credit_applied a
     WHERE a.tenant = $1 AND a.customer = $2 AND amount <> invoiced_amount
       AND (a.period_start = $3 OR EXISTS (SELECT 1 FROM ledger.invoices i
         WHERE i.tenant = a.tenant AND i.customer = a.customer AND i.period_start = a.period_start))
     ORDER BY period_start DESC`,
    [customer.tenant, customer.id, formatInstant(period.start)],
  );
  return rows.map((row) => ({
    kind: 'credit',
    price: null,
    description:
      row.period_start === period.start
        ? 'credit applied'
        : `credit applied to the adjustment for the period from ${formatInstant(row.period_start).slice(0, 10)}`,
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
        line.price?.key ?? null,
        line.price?.meter ?? null,
        line.price?.planKey ?? null,
        line.price?.planVersion ?? null,
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

/** What the lines took over is on an invoice now: the rows that readUninvoiced and creditLines read. */
async function markInvoiced(tx: Db, customer: Customer, period: Window): Promise<void> {
  const taken = `p.tenant = $1 AND p.customer = $2 AND (p.period_start = $3 OR EXISTS (SELECT 1 FROM ledger.invoices i
       WHERE i.tenant = p.tenant AND i.customer = p.customer AND i.period_start = p.period_start))`;
  const key = [customer.tenant, customer.id, formatInstant(period.start)];
  await tx.query(
    `UPDATE ledger.usage_posted p SET invoiced_quantity = quantity, invoiced_amount = amount
     WHERE ${taken} AND (quantity <> invoiced_quantity OR amount <> invoiced_amount)`,
    key,
  );
  await tx.query(
    `UPDATE ledger.credit_applied p SET invoiced_amount = amount
     WHERE ${taken} AND amount <> invoiced_amount`,
    key,
  );
}
