// Invoices as they are stored, and what happens to one after it was issued.
import { isCurrency, type Amount, type Currency } from '../contract/money.ts';
import { storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';
import { move, type TransactionDraft } from './journal.ts';
import type { Positions } from './usage-batches.ts';
import { IdempotencyKeyReused, postTransactions } from './journal-store.ts';

export type InvoiceStatus = 'issued' | 'sent' | 'paid';
export type InvoiceLineKind = 'usage' | 'adjustment' | 'credit';

/** One tier of a line, as decimal text: what was counted in it and at which price. */
export interface InvoiceTier {
  readonly quantity: string;
  readonly unitPrice: string;
  readonly flatAmount: string;
}

export interface InvoiceLine {
  readonly id: string;
  readonly kind: InvoiceLineKind;
  /** Null on a credit line, as are meter and plan. */
  readonly priceKey: string | null;
  readonly meter: string | null;
  /** key@version of the plan that priced it. */
  readonly plan: string | null;
  readonly description: string;
  readonly periodStart: number;
  readonly periodEnd: number;
  readonly quantity: Quantity;
  readonly included: Quantity;
  readonly amount: Amount;
  readonly tiers: readonly InvoiceTier[];
}

export interface Invoice {
  readonly id: string;
  readonly number: string;
  readonly tenant: string;
  readonly customer: { readonly id: string; readonly name: string };
  readonly currency: Currency;
  readonly periodStart: number;
  readonly periodEnd: number;
  readonly status: InvoiceStatus;
  readonly lines: readonly InvoiceLine[];
  readonly total: Amount;
  readonly issuedAtMs: number;
  /** Position by shard up to which raw events were counted, as decimal text. */
  readonly cut: Readonly<Record<string, string>>;
  readonly delivery: { readonly stripeInvoiceId: string; readonly stripeTotal: Amount } | null;
}

/** The cut as positions by shard. */
export function cutOf({ cut }: Pick<Invoice, 'cut'>): Positions {
  return new Map(Object.entries(cut).map(([shard, position]) => [Number(shard), BigInt(position)]));
}

interface InvoiceRow {
  id: string;
  number: string;
  tenant: string;
  customer: string;
  customer_name: string;
  currency: string;
  period_start: number;
  period_end: number;
  total: string;
  cut: Record<string, string>;
  status: InvoiceStatus;
  issued_at: number;
  stripe_invoice_id: string | null;
  stripe_total: string | null;
}

interface LineRow {
  invoice: string;
  id: string;
  kind: InvoiceLineKind;
  price_key: string | null;
  meter: string | null;
  plan_key: string | null;
  plan_version: number | null;
  description: string;
  period_start: number;
  period_end: number;
  quantity: string;
  included: string;
  amount: string;
  tiers: InvoiceTier[];
}

const SELECT = `
  SELECT i.id, i.number, i.tenant, i.customer, c.name AS customer_name, i.currency, i.period_start, i.period_end,
    i.total::text AS total, i.cut, i.status, i.issued_at, i.stripe_invoice_id, i.stripe_total::text AS stripe_total
  FROM ledger.invoices i JOIN ledger.customers c ON c.tenant = i.tenant AND c.id = i.customer`;

async function withLines(db: Db, tenant: string, rows: readonly InvoiceRow[]): Promise<Invoice[]> {
  if (rows.length === 0) return [];
  const lines = await db.query<LineRow>(
    'SELECT * FROM ledger.invoice_lines WHERE tenant = $1 AND invoice = ANY($2::text[]) ORDER BY invoice, ordinal',
    [tenant, rows.map((row) => row.id)],
  );
  return rows.map((row) =>
    invoiceOf(
      row,
      lines.filter((line) => line.invoice === row.id),
    ),
  );
}

function invoiceOf(row: InvoiceRow, lines: readonly LineRow[]): Invoice {
  if (!isCurrency(row.currency)) throw new Error(`invoice ${row.id} has the currency ${row.currency}`);
  const { stripe_invoice_id: stripeInvoiceId, stripe_total: stripeTotal } = row;
  return {
    id: row.id,
    number: row.number,
    tenant: row.tenant,
    customer: { id: row.customer, name: row.customer_name },
    currency: row.currency,
    periodStart: row.period_start,
    periodEnd: row.period_end,
    status: row.status,
    lines: lines.map(lineOf),
    total: BigInt(row.total),
    issuedAtMs: row.issued_at,
    cut: row.cut,
    delivery:
      stripeInvoiceId === null || stripeTotal === null
        ? null
        : { stripeInvoiceId, stripeTotal: BigInt(stripeTotal) },
  };
}

function lineOf(row: LineRow): InvoiceLine {
  return {
    id: row.id,
    kind: row.kind,
    priceKey: row.price_key,
    meter: row.meter,
    plan: row.plan_key === null ? null : `${row.plan_key}@${row.plan_version}`,
    description: row.description,
    periodStart: row.period_start,
    periodEnd: row.period_end,
    quantity: storedQuantity(row.quantity),
    included: storedQuantity(row.included),
    amount: BigInt(row.amount),
    tiers: row.tiers,
  };
}

/** By period, the newest first, before a period's start. */
export async function listInvoices(
  db: Db,
  o: { tenant: string; customer: string; beforeMs: number | null; limit: number },
): Promise<Invoice[]> {
  const rows = await db.query<InvoiceRow>(
    `${SELECT} WHERE i.tenant = $1 AND i.customer = $2 AND ($3::timestamptz IS NULL OR i.period_start < $3)
     ORDER BY i.period_start DESC LIMIT $4`,
    [o.tenant, o.customer, o.beforeMs === null ? null : formatInstant(o.beforeMs), o.limit],
  );
  return withLines(db, o.tenant, rows);
}

export async function readInvoice(db: Db, tenant: string, id: string): Promise<Invoice | null> {
  const rows = await db.query<InvoiceRow>(`${SELECT} WHERE i.tenant = $1 AND i.id = $2`, [tenant, id]);
  return (await withLines(db, tenant, rows))[0] ?? null;
}

export async function invoiceOfPeriod(
  db: Db,
  tenant: string,
  customer: string,
  periodStartMs: number,
): Promise<Invoice | null> {
  const rows = await db.query<InvoiceRow>(
    `${SELECT} WHERE i.tenant = $1 AND i.customer = $2 AND i.period_start = $3`,
    [tenant, customer, formatInstant(periodStartMs)],
  );
  return (await withLines(db, tenant, rows))[0] ?? null;
}

/** The invoices of the customer from this one on, in the order in which they were cut. At most so many. */
export async function readInvoicesFrom(
  db: Db,
  { tenant, id, customer, issuedAtMs }: Pick<Invoice, 'tenant' | 'id' | 'customer' | 'issuedAtMs'>,
  most: number,
): Promise<{ readonly id: string; readonly cut: Positions }[]> {
  const rows = await db.query<{ id: string; cut: Record<string, string> }>(
    `SELECT id, cut FROM ledger.invoices
     WHERE tenant = $1 AND customer = $2 AND issued_at >= $3 AND (issued_at > $3 OR number >= (
       SELECT number FROM ledger.invoices WHERE tenant = $1 AND id = $4))
     ORDER BY issued_at, number LIMIT $5`,
    [tenant, customer.id, formatInstant(issuedAtMs), id, most],
  );
  return rows.map((row) => ({ id: row.id, cut: cutOf(row) }));
}

export interface SentInvoice {
  readonly tenant: string;
  readonly invoiceId: string;
  readonly stripeInvoiceId: string;
  /** As Stripe reports it, minor units. */
  readonly stripeTotal: Amount;
  readonly nowMs: number;
}

/**
 * Notes that Stripe has the finalized invoice. Equal totals make it a receivable; a differing total is noted,
 * shows as drift, and books nothing: what is not agreed on is not owed. Doing it again changes nothing.
 */
export async function recordInvoiceSent(tx: Db, sent: SentInvoice): Promise<'booked' | 'differs'> {
  const invoice = await readInvoice(tx, sent.tenant, sent.invoiceId);
  if (invoice === null) throw new Error(`there is no invoice ${sent.invoiceId}`);
  const agrees = invoice.total === sent.stripeTotal;
  await tx.query(
    `UPDATE ledger.invoices SET stripe_invoice_id = $3, stripe_total = $4, sent_at = coalesce(sent_at, $5),
       status = CASE WHEN status = 'issued' AND $6 THEN 'sent' ELSE status END
     WHERE tenant = $1 AND id = $2`,
    [
      sent.tenant,
      sent.invoiceId,
      sent.stripeInvoiceId,
      sent.stripeTotal.toString(),
      formatInstant(sent.nowMs),
      agrees,
    ],
  );
  if (!agrees) return 'differs';
  // Through stripe_in_flight, so that the books show what was handed over; the pair nets to zero at once.
  const postings = [
    ...move('invoice_pending', 'stripe_in_flight', invoice.total),
    ...move('stripe_in_flight', 'receivable', invoice.total),
  ];
  if (postings.length > 0) {
    const draft: TransactionDraft = {
      tenant: sent.tenant,
      customer: invoice.customer.id,
      currency: invoice.currency,
      kind: 'invoice_sent',
      idempotencyKey: `invoice/${invoice.id}/sent`,
      effectiveAtMs: invoice.issuedAtMs,
      detail: { invoice: invoice.number, stripeInvoice: sent.stripeInvoiceId },
      postings,
    };
    await postTransactions(tx, sent.tenant, [draft], sent.nowMs);
  }
  return 'booked';
}

export interface Payment {
  readonly tenant: string;
  readonly invoiceId: string;
  /** Minor units of the invoice's currency. */
  readonly amount: Amount;
  /** Of the payment at its processor: the same one is booked once. */
  readonly externalId: string;
  readonly paidAtMs: number;
  readonly nowMs: number;
}

/**
 * Books a payment. The invoice is paid once its payments reach its total. The same payment told again changes
 * nothing, even when the processor then says another time of it.
 *
 * @throws IdempotencyKeyReused when the external id stands for another amount or invoice.
 */
export async function recordPayment(tx: Db, payment: Payment): Promise<'booked' | 'known'> {
  const invoice = await readInvoice(tx, payment.tenant, payment.invoiceId);
  if (invoice === null) throw new Error(`there is no invoice ${payment.invoiceId}`);
  const idempotencyKey = `payment/${payment.externalId}`;
  const known = await findPayment(tx, payment.tenant, idempotencyKey);
  if (known !== null) {
    if (known.amount !== payment.amount || known.invoice !== invoice.number) {
      throw new IdempotencyKeyReused(
        `payment ${payment.externalId} is booked with ${known.amount} minor units for ${known.invoice}`,
      );
    }
    return 'known';
  }
  const postings = move('receivable', 'cash', payment.amount);
  if (postings.length > 0) {
    const draft: TransactionDraft = {
      tenant: payment.tenant,
      customer: invoice.customer.id,
      currency: invoice.currency,
      kind: 'payment',
      idempotencyKey,
      effectiveAtMs: payment.paidAtMs,
      detail: { invoice: invoice.number, payment: payment.externalId },
      postings,
    };
    await postTransactions(tx, payment.tenant, [draft], payment.nowMs);
  }
  await tx.query(
    `UPDATE ledger.invoices SET paid_amount = paid_amount + $3,
       status = CASE WHEN paid_amount + $3 >= total THEN 'paid' ELSE status END
     WHERE tenant = $1 AND id = $2`,
    [payment.tenant, payment.invoiceId, payment.amount.toString()],
  );
  return 'booked';
}

async function findPayment(
  tx: Db,
  tenant: string,
  idempotencyKey: string,
): Promise<{ invoice: string; amount: Amount } | null> {
  const [row] = await tx.query<{ invoice: string; amount: string }>(
    `SELECT t.detail ->> 'invoice' AS invoice, p.amount::text AS amount
     FROM ledger.transactions t
     JOIN ledger.postings p ON p.tenant = t.tenant AND p.transaction_id = t.id AND p.account = 'cash'
     WHERE t.tenant = $1 AND t.idempotency_key = $2`,
    [tenant, idempotencyKey],
  );
  return row === undefined ? null : { invoice: row.invoice, amount: BigInt(row.amount) };
}
