/**
 * Works off the webhook inbox.
 *
 *   received ──▶ applied   its payment is in the ledger (or was already, from another delivery)
 *            ──▶ ignored   nothing here acts on it; it stays as it came
 *            ──▶ waiting   a payment for an invoice that is not recorded as sent: tried again with a growing
 *                          wait, for ever, and an open discrepancy until then
 *
 * Stripe delivers in any order, repeatedly, and now and then two events for one change. Nothing here depends
 * on order: an event carries the invoice's absolute amount paid, and a payment is booked under the name of
 * the invoice and the change, not of the delivery. The booking and the end of the event are one transaction.
 */
import { readInvoice, recordPayment, type Invoice } from '../ledger/index.ts';
import { backoffMs } from '../runtime/backoff.ts';
import type { Db } from '../runtime/postgres.ts';
import type { Billing } from './context.ts';
import {
  closeEvent,
  invoiceByStripeId,
  lockEvent,
  postponeEvent,
  replaceDiscrepancies,
  type InboxEvent,
} from './store.ts';
import { paidInvoiceOf, type PaidInvoice } from './stripe.ts';

type Verdict =
  | { readonly verdict: 'applied' | 'ignored'; readonly detail: string }
  | { readonly verdict: 'waiting'; readonly detail: string };

/** Works on one event. False when none is due. */
export async function workInbox(ctx: Billing): Promise<boolean> {
  let taken: InboxEvent | null = null;
  try {
    const done = await ctx.pg.transaction(async (tx) => {
      taken = null;
      const nowMs = ctx.clock.now();
      const event = await lockEvent(tx, nowMs);
      taken = event;
      if (event === null) return null;
      const verdict = await judge(ctx, tx, event, nowMs);
      if (verdict.verdict === 'waiting') {
        const nextAttemptAtMs = nowMs + waitMs(ctx, event.attempts);
        await postponeEvent(tx, { event: event.event, detail: verdict.detail, nextAttemptAtMs });
      } else {
        const { verdict: state, detail } = verdict;
        await closeEvent(tx, { event: event.event, state, detail, nowMs });
      }
      return { event, verdict };
    });
    if (done === null) return false;
    ctx.measures.inbox(done.verdict.verdict);
    if (done.verdict.verdict === 'waiting') {
      ctx.log.warn({ event: done.event.event, reason: done.verdict.detail }, 'a webhook event waits');
    }
    return true;
  } catch (error) {
    const event = taken as InboxEvent | null;
    if (event === null) throw error;
    // The event must not stand in the way of the others.
    ctx.log.error({ error, event: event.event }, 'a webhook event failed');
    ctx.measures.inbox('failed');
    const nextAttemptAtMs = ctx.clock.now() + waitMs(ctx, event.attempts);
    await postponeEvent(ctx.pg, { event: event.event, detail: String(error), nextAttemptAtMs });
    return true;
  }
}

function waitMs(ctx: Billing, attempts: number): number {
  const { retryBaseMs: baseMs, retryMaxMs: maxMs } = ctx.limits;
  return backoffMs(attempts, { baseMs, maxMs }, ctx.random);
}

async function judge(ctx: Billing, tx: Db, event: InboxEvent, nowMs: number): Promise<Verdict> {
  if (event.type !== 'invoice.paid') return { verdict: 'ignored', detail: 'nothing acts on this type' };
  const paid = paidInvoiceOf(event.payload);
  if (paid === null) return { verdict: 'ignored', detail: 'it carries no sound invoice' };
  return applyPayment(ctx, tx, paid, nowMs);
}

/**
 * Books the payment that a paid invoice of Stripe's stands for. Idempotent, whether it comes from a webhook,
 * from another event about the same change, or from the reconciliation.
 */
export async function applyPayment(
  ctx: Pick<Billing, 'installation'>,
  tx: Db,
  paid: PaidInvoice,
  nowMs: number,
): Promise<Verdict> {
  const known = await invoiceByStripeId(tx, paid.id);
  const tenant = known?.tenant ?? paid.metadata['tallyline_tenant'];
  const ours = known !== null || paid.metadata['tallyline_installation'] === ctx.installation;
  if (tenant === undefined || !ours) {
    return { verdict: 'ignored', detail: 'an invoice of Stripe that is not ours' };
  }
  const unknown = { tenant, invoice: paid.id };
  const ledger = known?.state === 'sent' ? await readInvoice(tx, tenant, known.invoice) : null;
  const trouble = troubleWith(paid, known?.state ?? null, ledger);
  if (trouble !== null || known === null || ledger === null) {
    const detail = trouble ?? 'the ledger has no such invoice';
    const one = { line: '', ledger: 0n, stripe: paid.amountPaid, drift: paid.amountPaid, detail };
    await replaceDiscrepancies(tx, unknown, ['payment'], [{ kind: 'payment', ...one }], nowMs);
    return { verdict: 'waiting', detail };
  }
  await recordPayment(tx, {
    tenant,
    invoiceId: known.invoice,
    amount: paid.amountPaid,
    externalId: `${paid.id}/invoice.paid`,
    paidAtMs: paid.paidAtMs ?? nowMs,
    nowMs,
  });
  await replaceDiscrepancies(tx, unknown, ['payment'], [], nowMs);
  return { verdict: 'applied', detail: `${paid.amountPaid} minor units for ${known.invoice}` };
}

function troubleWith(paid: PaidInvoice, state: string | null, ledger: Invoice | null): string | null {
  if (state === null) return 'paid in Stripe, but no invoice of ours is known under this id';
  if (state !== 'sent') return 'paid in Stripe, but not recorded as sent yet';
  if (ledger?.status === 'issued') return "paid in Stripe, whose total is not the ledger's: nothing is owed";
  if (ledger !== null && ledger.currency.toLowerCase() !== paid.currency)
    return `paid in ${paid.currency}, the ledger's invoice is in ${ledger.currency}`;
  return null;
}
