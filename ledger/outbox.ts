// What other processes are to be told, written in the transaction that made it true. An entry is leased: a
// worker that dies leaves it to the next one when the lease ends. Its id is stable, so that whatever is made
// for it elsewhere can be found again.
import { formatInstant } from '../contract/window.ts';
import type { Db } from '../runtime/postgres.ts';

export interface OutboxEntry {
  readonly id: string;
  readonly kind: 'invoice.issued';
  readonly tenant: string;
  readonly customer: string;
  readonly invoiceId: string;
  /** How often it was claimed before. */
  readonly attempts: number;
}

interface OutboxRow {
  id: string;
  kind: 'invoice.issued';
  tenant: string;
  customer: string;
  invoice: string;
  attempts: number;
}

/** Heard by whoever listens; entries are found by polling too. */
export const OUTBOX_CHANNEL = 'tallyline_outbox';

export async function addToOutbox(
  tx: Db,
  entry: { tenant: string; customer: string; invoiceId: string; nowMs: number },
): Promise<void> {
  await tx.query(
    `INSERT INTO ledger.outbox (id, kind, tenant, customer, invoice, next_attempt_at, created_at)
     VALUES ($1, 'invoice.issued', $2, $3, $4, $5, $5)`,
    [
      `${entry.tenant}/${entry.invoiceId}`,
      entry.tenant,
      entry.customer,
      entry.invoiceId,
      formatInstant(entry.nowMs),
    ],
  );
  await tx.query('SELECT pg_notify($1, $2)', [OUTBOX_CHANNEL, '']);
}

/** Takes entries that are due, for `leaseMs`. Two workers never take the same one. */
export async function claimOutbox(
  tx: Db,
  o: { limit: number; leaseMs: number; nowMs: number },
): Promise<OutboxEntry[]> {
  const rows = await tx.query<OutboxRow>(
    `UPDATE ledger.outbox o SET attempts = o.attempts + 1, next_attempt_at = $3
     FROM (SELECT id FROM ledger.outbox WHERE done_at IS NULL AND next_attempt_at <= $1
       ORDER BY next_attempt_at, id LIMIT $2 FOR UPDATE SKIP LOCKED) due
     WHERE o.id = due.id
     RETURNING o.id, o.kind, o.tenant, o.customer, o.invoice, o.attempts - 1 AS attempts`,
    [formatInstant(o.nowMs), o.limit, formatInstant(o.nowMs + o.leaseMs)],
  );
  return rows.map(({ invoice, ...row }) => ({ ...row, invoiceId: invoice }));
}

export async function completeOutbox(tx: Db, id: string, nowMs: number): Promise<void> {
  await tx.query(
    'UPDATE ledger.outbox SET done_at = $2, last_error = NULL WHERE id = $1 AND done_at IS NULL',
    [id, formatInstant(nowMs)],
  );
}

export async function postponeOutbox(
  tx: Db,
  o: { id: string; error: string; nextAttemptAtMs: number },
): Promise<void> {
  await tx.query(
    'UPDATE ledger.outbox SET last_error = left($2, 2000), next_attempt_at = $3 WHERE id = $1 AND done_at IS NULL',
    [o.id, o.error, formatInstant(o.nextAttemptAtMs)],
  );
}
