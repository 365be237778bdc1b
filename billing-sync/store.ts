import type { Db } from '../runtime/postgres.ts';
import type { Difference } from './difference.ts';

/**
 * The queries over schema `billing`. Instants are epoch ms. Every write here can be repeated.
 */

export async function readInstallation(db: Db): Promise<string> {
  const [row] = await db.query<{ id: string }>('SELECT id FROM billing.installation');
  if (row === undefined) throw new Error('billing.installation has no row');
  return row.id;
}

/**
 * That something is to be created in Stripe, written before Stripe is asked. Whoever tries again uses the
 * same key while it lives; see push.ts.
 */
export interface Intent {
  readonly idempotencyBase: string;
  readonly generation: number;
  readonly generationAtMs: number;
  readonly keySpent: boolean;
  /** Nothing of it can be in Stripe that is older. */
  readonly searchSinceMs: number;
  readonly stripeId: string | null;
  /** This call wrote it: nobody here ever tried before. */
  readonly fresh: boolean;
}

export interface CustomerKey {
  readonly tenant: string;
  readonly customer: string;
}

export interface InvoiceKey {
  readonly tenant: string;
  readonly invoice: string;
}

type IntentRow = Omit<Intent, 'fresh'>;

const CUSTOMER_COLUMNS = `name, idempotency_base AS "idempotencyBase", generation,
  generation_at AS "generationAtMs", key_spent AS "keySpent", search_since AS "searchSinceMs",
  stripe_customer AS "stripeId"`;

/** Writes the intent unless there is one, and returns the one that stands: the first name and key win. */
export async function intendCustomer(
  db: Db,
  key: CustomerKey,
  o: { name: string; idempotencyBase: string; searchSinceMs: number; nowMs: number },
): Promise<Intent & { name: string }> {
  const written = await db.query<IntentRow & { name: string }>(
    `INSERT INTO billing.stripe_customers
       (tenant, customer, name, idempotency_base, generation_at, search_since)
     VALUES ($1, $2, $3, $4, to_timestamp($5::numeric / 1000), to_timestamp($6::numeric / 1000))
     ON CONFLICT DO NOTHING RETURNING ${CUSTOMER_COLUMNS}`,
    [key.tenant, key.customer, o.name, o.idempotencyBase, o.nowMs, o.searchSinceMs],
  );
  if (written[0] !== undefined) return { ...written[0], fresh: true };
  const [row] = await db.query<IntentRow & { name: string }>(
    `SELECT ${CUSTOMER_COLUMNS} FROM billing.stripe_customers WHERE tenant = $1 AND customer = $2`,
    [key.tenant, key.customer],
  );
  if (row === undefined) throw new Error(`the intent of customer ${key.customer} is gone`);
  return { ...row, fresh: false };
}

/** Takes the next key after a search found nothing; null when somebody else did so in the meantime. */
export async function nextCustomerKey(
  db: Db,
  key: CustomerKey,
  generation: number,
  nowMs: number,
): Promise<number | null> {
  const [row] = await db.query<{ generation: number }>(
    `UPDATE billing.stripe_customers
     SET generation = generation + 1, generation_at = to_timestamp($4::numeric / 1000), key_spent = false
     WHERE tenant = $1 AND customer = $2 AND generation = $3 AND stripe_customer IS NULL
     RETURNING generation`,
    [key.tenant, key.customer, generation, nowMs],
  );
  return row?.generation ?? null;
}

export async function spendCustomerKey(db: Db, key: CustomerKey, generation: number): Promise<void> {
  await db.query(
    `UPDATE billing.stripe_customers SET key_spent = true
     WHERE tenant = $1 AND customer = $2 AND generation = $3`,
    [key.tenant, key.customer, generation],
  );
}

/** Returns the Stripe customer that stands: the first one recorded. */
export async function recordCustomer(db: Db, key: CustomerKey, stripeId: string): Promise<string> {
  const [row] = await db.query<{ stripeId: string }>(
    `UPDATE billing.stripe_customers SET stripe_customer = COALESCE(stripe_customer, $3)
     WHERE tenant = $1 AND customer = $2 RETURNING stripe_customer AS "stripeId"`,
    [key.tenant, key.customer, stripeId],
  );
  if (row === undefined) throw new Error(`the intent of customer ${key.customer} is gone`);
  return row.stripeId;
}

const INVOICE_COLUMNS = `outbox_key AS "idempotencyBase", generation, generation_at AS "generationAtMs",
  key_spent AS "keySpent", search_since AS "searchSinceMs", stripe_invoice AS "stripeId"`;

export async function intendInvoice(
  db: Db,
  key: InvoiceKey,
  o: { customer: string; currency: string; outboxKey: string; searchSinceMs: number; nowMs: number },
): Promise<Intent> {
  const written = await db.query<IntentRow>(
    `INSERT INTO billing.stripe_invoices
       (tenant, invoice, customer, currency, outbox_key, generation_at, search_since)
     VALUES ($1, $2, $3, $4, $5, to_timestamp($6::numeric / 1000), to_timestamp($7::numeric / 1000))
     ON CONFLICT DO NOTHING RETURNING ${INVOICE_COLUMNS}`,
    [key.tenant, key.invoice, o.customer, o.currency, o.outboxKey, o.nowMs, o.searchSinceMs],
  );
  if (written[0] !== undefined) return { ...written[0], fresh: true };
  const [row] = await db.query<IntentRow>(
    `SELECT ${INVOICE_COLUMNS} FROM billing.stripe_invoices WHERE tenant = $1 AND invoice = $2`,
    [key.tenant, key.invoice],
  );
  if (row === undefined) throw new Error(`the intent of invoice ${key.invoice} is gone`);
  return { ...row, fresh: false };
}

export async function nextInvoiceKey(
  db: Db,
  key: InvoiceKey,
  generation: number,
  nowMs: number,
): Promise<number | null> {
  const [row] = await db.query<{ generation: number }>(
    `UPDATE billing.stripe_invoices
     SET generation = generation + 1, generation_at = to_timestamp($4::numeric / 1000), key_spent = false
     WHERE tenant = $1 AND invoice = $2 AND generation = $3 RETURNING generation`,
    [key.tenant, key.invoice, generation, nowMs],
  );
  return row?.generation ?? null;
}

export async function spendInvoiceKey(db: Db, key: InvoiceKey, generation: number): Promise<void> {
  await db.query(
    `UPDATE billing.stripe_invoices SET key_spent = true
     WHERE tenant = $1 AND invoice = $2 AND generation = $3`,
    [key.tenant, key.invoice, generation],
  );
}

export async function recordInvoice(db: Db, key: InvoiceKey, stripeId: string): Promise<string> {
  const [row] = await db.query<{ stripeId: string }>(
    `UPDATE billing.stripe_invoices SET stripe_invoice = COALESCE(stripe_invoice, $3)
     WHERE tenant = $1 AND invoice = $2 RETURNING stripe_invoice AS "stripeId"`,
    [key.tenant, key.invoice, stripeId],
  );
  if (row === undefined) throw new Error(`the intent of invoice ${key.invoice} is gone`);
  return row.stripeId;
}

export async function recordLine(
  db: Db,
  key: InvoiceKey,
  o: { line: string; stripeItem: string; amount: bigint },
): Promise<void> {
  await db.query(
    `INSERT INTO billing.stripe_lines (tenant, invoice, line, stripe_item, amount)
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
    [key.tenant, key.invoice, o.line, o.stripeItem, o.amount.toString()],
  );
}

/** Marks it as not to be had without a person; the outbox still looks at it now and then. */
export async function refuseInvoice(
  db: Db,
  key: InvoiceKey,
  o: { customer: string; currency: string; outboxKey: string; error: string; nowMs: number },
): Promise<void> {
  await db.query(
    `INSERT INTO billing.stripe_invoices
       (tenant, invoice, customer, currency, outbox_key, generation_at, search_since, state, error)
     VALUES ($1, $2, $3, $4, $5, to_timestamp($6::numeric / 1000), to_timestamp($6::numeric / 1000),
             'refused', $7)
     ON CONFLICT (tenant, invoice) DO UPDATE SET state = 'refused', error = excluded.error
     WHERE stripe_invoices.state <> 'sent'`,
    [key.tenant, key.invoice, o.customer, o.currency, o.outboxKey, o.nowMs, o.error],
  );
}

export async function markSent(
  db: Db,
  key: InvoiceKey,
  o: { stripeInvoice: string; stripeTotal: bigint; nowMs: number; nextCheckAtMs: number },
): Promise<void> {
  await db.query(
    `UPDATE billing.stripe_invoices
     SET state = 'sent', stripe_invoice = $3, stripe_total = $4, error = NULL,
         sent_at = COALESCE(sent_at, to_timestamp($5::numeric / 1000)),
         checked_at = to_timestamp($5::numeric / 1000), next_check_at = to_timestamp($6::numeric / 1000)
     WHERE tenant = $1 AND invoice = $2`,
    [key.tenant, key.invoice, o.stripeInvoice, o.stripeTotal.toString(), o.nowMs, o.nextCheckAtMs],
  );
}

export interface SentInvoice extends InvoiceKey {
  readonly stripeInvoice: string;
}

/** Sent invoices that are due for a comparison, the longest waiting first, taken off the list for `leaseMs`. */
export function claimChecks(
  db: Db,
  o: { limit: number; nowMs: number; leaseMs: number },
): Promise<SentInvoice[]> {
  return db.query<SentInvoice>(
    `UPDATE billing.stripe_invoices AS target SET next_check_at = to_timestamp($2::numeric / 1000)
     FROM (SELECT tenant, invoice FROM billing.stripe_invoices
           WHERE state = 'sent' AND next_check_at <= to_timestamp($1::numeric / 1000)
           ORDER BY next_check_at LIMIT $3 FOR UPDATE SKIP LOCKED) AS due
     WHERE target.tenant = due.tenant AND target.invoice = due.invoice
     RETURNING target.tenant, target.invoice, target.stripe_invoice AS "stripeInvoice"`,
    [o.nowMs, o.nowMs + o.leaseMs, o.limit],
  );
}

export async function recordCheck(
  db: Db,
  key: InvoiceKey,
  o: { nowMs: number; nextCheckAtMs: number },
): Promise<void> {
  await db.query(
    `UPDATE billing.stripe_invoices
     SET checked_at = to_timestamp($3::numeric / 1000), next_check_at = to_timestamp($4::numeric / 1000)
     WHERE tenant = $1 AND invoice = $2`,
    [key.tenant, key.invoice, o.nowMs, o.nextCheckAtMs],
  );
}

export async function invoiceByStripeId(
  db: Db,
  stripeInvoice: string,
): Promise<(InvoiceKey & { state: 'pushing' | 'refused' | 'sent' }) | null> {
  const [row] = await db.query<InvoiceKey & { state: 'pushing' | 'refused' | 'sent' }>(
    `SELECT tenant, invoice, state FROM billing.stripe_invoices WHERE stripe_invoice = $1`,
    [stripeInvoice],
  );
  return row ?? null;
}

/** What can be amiss: with the copy in Stripe, with its status there, with a payment. */
export type DiscrepancyKind = Difference['kind'] | 'status' | 'payment';

export interface Discrepancy extends Omit<Difference, 'kind'> {
  readonly kind: DiscrepancyKind;
}

/**
 * Makes the open discrepancies of these kinds exactly the given ones: new ones are written, known ones seen
 * again, and those that are gone resolved.
 */
export async function replaceDiscrepancies(
  db: Db,
  key: InvoiceKey,
  kinds: readonly DiscrepancyKind[],
  found: readonly Discrepancy[],
  nowMs: number,
): Promise<void> {
  for (const one of found) {
    await db.query(
      `INSERT INTO billing.discrepancies
         (tenant, invoice, kind, line, ledger_amount, stripe_amount, drift, detail, first_seen_at, last_seen_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
               to_timestamp($9::numeric / 1000), to_timestamp($9::numeric / 1000))
       ON CONFLICT (tenant, invoice, kind, line) DO UPDATE SET
         ledger_amount = excluded.ledger_amount, stripe_amount = excluded.stripe_amount,
         drift = excluded.drift, detail = excluded.detail, last_seen_at = excluded.last_seen_at,
         first_seen_at = CASE WHEN discrepancies.resolved_at IS NULL THEN discrepancies.first_seen_at
                              ELSE excluded.first_seen_at END,
         resolved_at = NULL`,
      [
        key.tenant,
        key.invoice,
        one.kind,
        one.line,
        one.ledger.toString(),
        one.stripe.toString(),
        one.drift.toString(),
        one.detail,
        nowMs,
      ],
    );
  }
  await db.query(
    `UPDATE billing.discrepancies SET resolved_at = to_timestamp($5::numeric / 1000)
     WHERE tenant = $1 AND invoice = $2 AND kind = ANY ($3::text[]) AND resolved_at IS NULL
       AND NOT (kind || '/' || line = ANY ($4::text[]))`,
    [key.tenant, key.invoice, kinds, found.map((one) => `${one.kind}/${one.line}`), nowMs],
  );
}

export interface Standing {
  /** Minor units, summed over open discrepancies. */
  readonly drift: bigint;
  readonly discrepancies: bigint;
  readonly refused: bigint;
  readonly inboxOpen: bigint;
}

export async function readStanding(db: Db): Promise<Standing> {
  const [row] = await db.query<Omit<Standing, 'drift'> & { drift: string }>(
    `SELECT
       (SELECT COALESCE(sum(drift), 0) FROM billing.discrepancies WHERE resolved_at IS NULL) AS drift,
       (SELECT count(*) FROM billing.discrepancies WHERE resolved_at IS NULL) AS discrepancies,
       (SELECT count(*) FROM billing.stripe_invoices WHERE state = 'refused') AS refused,
       (SELECT count(*) FROM billing.inbox WHERE state IN ('received', 'waiting')) AS "inboxOpen"`,
  );
  if (row === undefined) throw new Error('a query without FROM gave no row');
  return { ...row, drift: BigInt(row.drift) };
}

export interface InboxEvent {
  readonly event: string;
  readonly type: string;
  readonly payload: string;
  readonly attempts: number;
}

/** False when the event is there already: a duplicate. */
export async function insertEvent(
  db: Db,
  o: { event: string; type: string; createdMs: number; payload: string; nowMs: number },
): Promise<boolean> {
  const rows = await db.query(
    `INSERT INTO billing.inbox (event, type, created_at, received_at, payload, next_attempt_at)
     VALUES ($1, $2, to_timestamp($3::numeric / 1000), to_timestamp($4::numeric / 1000), $5,
             to_timestamp($4::numeric / 1000))
     ON CONFLICT (event) DO NOTHING RETURNING event`,
    [o.event, o.type, o.createdMs, o.nowMs, o.payload],
  );
  return rows.length === 1;
}

/** The next open event, locked until the transaction ends. */
export async function lockEvent(tx: Db, nowMs: number): Promise<InboxEvent | null> {
  const [row] = await tx.query<InboxEvent>(
    `SELECT event, type, payload, attempts FROM billing.inbox
     WHERE state IN ('received', 'waiting') AND next_attempt_at <= to_timestamp($1::numeric / 1000)
     ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED`,
    [nowMs],
  );
  return row ?? null;
}

export async function closeEvent(
  tx: Db,
  o: { event: string; state: 'applied' | 'ignored'; detail: string; nowMs: number },
): Promise<void> {
  await tx.query(
    `UPDATE billing.inbox SET state = $2, detail = $3, attempts = attempts + 1,
       processed_at = to_timestamp($4::numeric / 1000) WHERE event = $1`,
    [o.event, o.state, o.detail, o.nowMs],
  );
}

export async function postponeEvent(
  db: Db,
  o: { event: string; detail: string; nextAttemptAtMs: number },
): Promise<void> {
  await db.query(
    `UPDATE billing.inbox SET state = 'waiting', detail = $2, attempts = attempts + 1,
       next_attempt_at = to_timestamp($3::numeric / 1000)
     WHERE event = $1 AND state IN ('received', 'waiting')`,
    [o.event, o.detail, o.nextAttemptAtMs],
  );
}
