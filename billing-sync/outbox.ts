/**
 * Drains the ledger's outbox into Stripe.
 *
 *   claimed ──push──▶ pushed ──one transaction──▶ sent
 *      │                 └ postponed (trouble that passes): again after a jittered, growing wait
 *      │                 └ refused (Stripe says no, or an invoice Stripe cannot hold): marked, shown in
 *      │                   tallyline_stripe_refused_invoices_count, again after `refusedRetryMs`
 *      └ nothing: the process died; the lease runs out and somebody else claims it
 *
 * The steps inside a push are in push.ts. Only after Stripe has the finalized invoice and was read back does
 * one transaction write all of: our record, the differences found, the ledger's booking, and the end of the
 * outbox entry. A crash before it repeats the push, which then finds everything there.
 */
import {
  claimOutbox,
  completeOutbox,
  postponeOutbox,
  readInvoice,
  recordInvoiceSent,
  type OutboxEntry,
} from '../ledger/index.ts';
import { backoffMs } from '../runtime/backoff.ts';
import type { Billing } from './context.ts';
import { pushInvoice, type PushOutcome } from './push.ts';
import { markSent, refuseInvoice, replaceDiscrepancies } from './store.ts';

export const COMPARED = [
  'currency',
  'total',
  'line_amount',
  'line_missing',
  'line_repeated',
  'line_unexpected',
] as const;

export interface Drained {
  readonly claimed: number;
  readonly sent: number;
  readonly postponed: number;
  readonly refused: number;
}

/** One pass: claims up to `pushes` entries and works on them side by side. */
export async function drainOutbox(ctx: Billing): Promise<Drained> {
  const { limits, clock } = ctx;
  const claimedAtMs = clock.now();
  const entries = await ctx.pg.transaction(
    (tx) => claimOutbox(tx, { limit: limits.pushes, leaseMs: limits.leaseMs, nowMs: claimedAtMs }),
    { isolation: 'read committed' },
  );
  const untilMs = claimedAtMs + limits.leaseMs - limits.leaseMarginMs;
  const outcomes = await Promise.all(entries.map((entry) => work(ctx, entry, untilMs)));
  const count = (outcome: string) => outcomes.filter((one) => one === outcome).length;
  return {
    claimed: entries.length,
    sent: count('sent'),
    postponed: count('postponed'),
    refused: count('refused'),
  };
}

async function work(
  ctx: Billing,
  entry: OutboxEntry,
  untilMs: number,
): Promise<'sent' | 'postponed' | 'refused'> {
  const startedMs = ctx.clock.now();
  let result: 'sent' | 'postponed' | 'refused';
  try {
    result = await settle(ctx, entry, await push(ctx, entry, untilMs));
  } catch (error) {
    // A bug, or Postgres away. The entry must not come back hot, nor take its neighbours with it.
    ctx.log.error({ error, outbox: entry.id, invoice: entry.invoiceId }, 'a push failed');
    await postpone(ctx, entry, String(error)).catch((failure: unknown) =>
      ctx.log.warn({ error: failure, outbox: entry.id }, 'cannot postpone; its lease will run out'),
    );
    result = 'postponed';
  }
  ctx.measures.pushed(result, Math.max(0, ctx.clock.now() - startedMs) / 1_000);
  return result;
}

async function push(ctx: Billing, entry: OutboxEntry, untilMs: number): Promise<PushOutcome> {
  const invoice = await readInvoice(ctx.pg, entry.tenant, entry.invoiceId);
  if (invoice === null) throw new Error(`outbox ${entry.id} names an invoice that is not there`);
  return pushInvoice(ctx, { invoice, outboxKey: outboxKeyOf(ctx, entry), untilMs });
}

/** Unique among all databases that share a Stripe account. */
function outboxKeyOf(ctx: Billing, entry: OutboxEntry): string {
  return `${ctx.installation}/${entry.id}`;
}

async function settle(
  ctx: Billing,
  entry: OutboxEntry,
  pushed: PushOutcome,
): Promise<'sent' | 'postponed' | 'refused'> {
  const { tenant, invoiceId: invoice } = entry;
  switch (pushed.outcome) {
    case 'pushed': {
      const nowMs = ctx.clock.now();
      const { stripe, differences } = pushed;
      await ctx.pg.transaction(async (tx) => {
        const nextCheckAtMs = nowMs + ctx.limits.recheckMs;
        await markSent(
          tx,
          { tenant, invoice },
          { stripeInvoice: stripe.id, stripeTotal: stripe.total, nowMs, nextCheckAtMs },
        );
        await replaceDiscrepancies(tx, { tenant, invoice }, COMPARED, differences, nowMs);
        await recordInvoiceSent(tx, {
          tenant,
          invoiceId: invoice,
          stripeInvoiceId: stripe.id,
          stripeTotal: stripe.total,
          nowMs,
        });
        await completeOutbox(tx, entry.id, nowMs);
      });
      if (differences.length > 0) {
        ctx.log.error(
          { invoice, stripeInvoice: stripe.id, differences: differences.length },
          'Stripe differs',
        );
      }
      return 'sent';
    }
    case 'refused': {
      ctx.log.error({ invoice, outbox: entry.id, reason: pushed.detail }, 'Stripe cannot take an invoice');
      const nowMs = ctx.clock.now();
      const ledger = await readInvoice(ctx.pg, tenant, invoice);
      await ctx.pg.transaction(async (tx) => {
        await refuseInvoice(
          tx,
          { tenant, invoice },
          {
            customer: entry.customer,
            currency: ledger?.currency ?? '',
            outboxKey: outboxKeyOf(ctx, entry),
            error: pushed.detail,
            nowMs,
          },
        );
        const nextAttemptAtMs = nowMs + ctx.limits.refusedRetryMs;
        await postponeOutbox(tx, { id: entry.id, error: pushed.detail, nextAttemptAtMs });
      });
      return 'refused';
    }
    case 'postponed': {
      ctx.log.warn(
        { invoice, outbox: entry.id, kind: pushed.kind, reason: pushed.detail, attempts: entry.attempts },
        'a push is postponed',
      );
      // Running out of the lease is no failure: what was done is recorded, and the rest goes on at once.
      await postpone(ctx, entry, pushed.detail, pushed.kind === 'out_of_time' ? 0 : undefined);
      return 'postponed';
    }
  }
}

async function postpone(ctx: Billing, entry: OutboxEntry, error: string, waitMs?: number): Promise<void> {
  const { retryBaseMs: baseMs, retryMaxMs: maxMs } = ctx.limits;
  const wait = waitMs ?? backoffMs(entry.attempts, { baseMs, maxMs }, ctx.random);
  const nextAttemptAtMs = ctx.clock.now() + wait;
  await ctx.pg.transaction((tx) =>
    postponeOutbox(tx, { id: entry.id, error: error.slice(0, ERROR_CHARACTERS_MAX), nextAttemptAtMs }),
  );
}

const ERROR_CHARACTERS_MAX = 2_000;
