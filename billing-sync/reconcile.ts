/**
 * Compares what was sent with what Stripe has, for ever: INVOICE = LEDGER = STRIPE, line by line.
 *
 * Each pass takes a bounded number of sent invoices, the longest waiting first, reads Stripe's invoice and its
 * lines, and makes the open discrepancies of that invoice exactly what differs now. Nothing is corrected: an
 * invoice that was finalized is changed by people, with a credit note or a void, on either side. The one
 * exception is a payment whose webhook never came (Stripe gives up after three days): the invoice says it is
 * paid, and booking it is the same idempotent step as from the webhook.
 */
import { readInvoice, type Invoice } from '../ledger/index.ts';
import type { Billing } from './context.ts';
import { applyPayment } from './inbox.ts';
import { COMPARED } from './outbox.ts';
import { differencesOf } from './push.ts';
import {
  claimChecks,
  readStanding,
  recordCheck,
  replaceDiscrepancies,
  type Discrepancy,
  type SentInvoice,
} from './store.ts';
import { StripeFailure, type StripeInvoice } from './stripe.ts';

/** How long a claimed comparison is ours; longer than its requests can take. */
const CHECK_LEASE_MS = 120_000;

/** One pass; returns how many invoices were taken. Also brings the gauges up to date. */
export async function reconcile(ctx: Billing): Promise<number> {
  const nowMs = ctx.clock.now();
  const due = await claimChecks(ctx.pg, { limit: ctx.limits.checks, nowMs, leaseMs: CHECK_LEASE_MS });
  const untilMs = nowMs + CHECK_LEASE_MS;
  for (const sent of due) ctx.measures.checked(await check(ctx, sent, untilMs));
  ctx.measures.standing(await readStanding(ctx.pg));
  return due.length;
}

type Checked = 'same' | 'different' | 'unavailable';

async function check(ctx: Billing, sent: SentInvoice, untilMs: number): Promise<Checked> {
  const key = { tenant: sent.tenant, invoice: sent.invoice };
  const ledger = await readInvoice(ctx.pg, sent.tenant, sent.invoice);
  if (ledger === null) throw new Error(`invoice ${sent.invoice} was sent, and the ledger does not have it`);
  let found: Discrepancy[];
  let stripe: StripeInvoice | null = null;
  try {
    stripe = await ctx.stripe.retrieveInvoice(sent.stripeInvoice, { untilMs });
    const lines = await ctx.stripe.listLines(stripe.id, { untilMs });
    found = [...differencesOf(ledger, stripe, lines), ...statusDifference(ledger, stripe)];
  } catch (error) {
    if (!(error instanceof StripeFailure)) throw error;
    if (error.status !== 404) {
      // The claim runs out by itself, and the next pass after that comes back to it.
      ctx.log.warn({ error, invoice: sent.invoice }, 'an invoice could not be compared');
      return 'unavailable';
    }
    found = [gone(ledger)];
  }
  const nowMs = ctx.clock.now();
  const late = stripe !== null && isUnbooked(ctx, ledger, stripe, nowMs) ? stripe : null;
  const { recheckMs, recheckDifferentMs } = ctx.limits;
  await ctx.pg.transaction(async (tx) => {
    await replaceDiscrepancies(tx, key, [...COMPARED, 'status'], found, nowMs);
    const nextCheckAtMs = nowMs + (found.length === 0 ? recheckMs : recheckDifferentMs);
    await recordCheck(tx, key, { nowMs, nextCheckAtMs });
    if (late !== null) await applyPayment(ctx, tx, late, nowMs);
  });
  if (late !== null) ctx.log.warn({ invoice: sent.invoice }, 'a payment was booked without its webhook');
  if (found.length > 0) {
    ctx.log.error({ invoice: sent.invoice, kinds: found.map((one) => one.kind) }, 'Stripe differs');
  }
  return found.length === 0 ? 'same' : 'different';
}

/** Paid in Stripe for longer than a webhook takes, and not in the ledger. */
function isUnbooked(ctx: Billing, ledger: Invoice, stripe: StripeInvoice, nowMs: number): boolean {
  if (stripe.status !== 'paid' || ledger.status === 'paid') return false;
  // Below its minimum charge Stripe asks for nothing and carries the amount over to the next invoice.
  if (stripe.amountPaid === 0n && ledger.total > 0n) return false;
  return nowMs - (stripe.paidAtMs ?? nowMs) >= ctx.limits.paymentGraceMs;
}

function statusDifference(ledger: Invoice, stripe: StripeInvoice): Discrepancy[] {
  const odd =
    stripe.status === 'paid' || stripe.status === 'open'
      ? ledger.status === 'paid' && stripe.status === 'open'
      : true;
  if (!odd) return [];
  const detail = `${stripe.status} in Stripe, ${ledger.status} in the ledger`;
  return [
    {
      kind: 'status',
      line: '',
      ledger: ledger.total,
      stripe: stripe.total,
      // A void or written-off invoice asks the customer for nothing any more.
      drift: ledger.total < 0n ? -ledger.total : ledger.total,
      detail,
    },
  ];
}

function gone(ledger: Invoice): Discrepancy {
  const drift = ledger.total < 0n ? -ledger.total : ledger.total;
  const detail = 'Stripe does not have the invoice any more';
  return { kind: 'status', line: '', ledger: ledger.total, stripe: 0n, drift, detail };
}
