/**
 * Puts one invoice of the ledger into Stripe, exactly once, from wherever an earlier attempt stopped.
 *
 *   intent ──▶ customer ──▶ draft ──▶ lines ──▶ compared ──▶ finalized ──▶ compared again
 *
 * Stripe has no transaction with us, so each arrow is made repeatable instead:
 *
 * 1. The intent is written to Postgres before Stripe is asked for anything, with the idempotency key of the
 *    request and the instant before which nothing of it can exist in Stripe.
 * 2. A request is sent under that key. A crash before its answer is recorded sends it again: Stripe gives the
 *    first answer, and there is one object.
 * 3. When the key cannot be relied on any more (Stripe may have forgotten it after a day, or stored a failure
 *    under it), Stripe is searched by creation time and metadata. What is found is adopted. Only when there
 *    is nothing does the generation rise, and with it the key.
 * 4. Lines are created one by one under keys of their own. An invoice that was begun earlier is listed first,
 *    and only what is missing is added.
 * 5. Before finalizing, which cannot be undone, the draft is read back and must equal the ledger's invoice
 *    line by line. Afterwards it is read back once more, and that is what the ledger gets to know.
 *
 * Two workers on one invoice (a lease ran out while its holder was still at it) send the same requests under
 * the same keys. A holder stops writing `leaseMarginMs` before its lease ends, so that it does not go on
 * while another one searches.
 */
import type { Invoice } from '../ledger/index.ts';
import type { Billing } from './context.ts';
import { compareInvoices, type Difference } from './difference.ts';
import {
  assembleInvoice,
  customerMetadata,
  invoiceMetadata,
  type InvoiceRequest,
  type LineRequest,
} from './invoice.ts';
import { idempotencyKey, mustSearch } from './key.ts';
import {
  intendCustomer,
  intendInvoice,
  nextCustomerKey,
  nextInvoiceKey,
  recordCustomer,
  recordInvoice,
  recordLine,
  spendCustomerKey,
  spendInvoiceKey,
} from './store.ts';
import { StripeFailure, type FailureKind, type StripeInvoice, type StripeLine } from './stripe.ts';

export type PushOutcome =
  | {
      readonly outcome: 'pushed';
      readonly stripe: StripeInvoice;
      /** What the finalized invoice differs by; empty when all is well. */
      readonly differences: readonly Difference[];
    }
  | { readonly outcome: 'postponed'; readonly kind: Exclude<FailureKind, 'refused'>; readonly detail: string }
  | { readonly outcome: 'refused'; readonly detail: string };

/** Where we stand with one invoice. */
interface Push {
  readonly ctx: Billing;
  readonly invoice: Invoice;
  /** Begins every idempotency key: unique to this outbox entry of this installation. */
  readonly outboxKey: string;
  /** No write begins after this instant. */
  readonly untilMs: number;
}

/** Something that only a person can put right. Ends the push from any depth. */
class Refusal extends Error {}

export async function pushInvoice(
  ctx: Billing,
  o: { invoice: Invoice; outboxKey: string; untilMs: number },
): Promise<PushOutcome> {
  const assembly = assembleInvoice(o.invoice, {
    installation: ctx.installation,
    daysUntilDue: ctx.limits.daysUntilDue,
  });
  if (assembly.outcome === 'unsendable') {
    return { outcome: 'refused', detail: `${assembly.code}: ${assembly.detail}` };
  }
  const push: Push = { ctx, ...o };
  try {
    const customer = await ensureCustomer(push);
    const stripe = await ensureFinalized(push, customer, assembly.invoice, assembly.lines);
    const lines = await ctx.stripe.listLines(stripe.id, push);
    return { outcome: 'pushed', stripe, differences: differencesOf(o.invoice, stripe, lines) };
  } catch (error) {
    if (error instanceof Refusal) return { outcome: 'refused', detail: error.message };
    if (!(error instanceof StripeFailure)) throw error;
    if (error.kind === 'refused') return { outcome: 'refused', detail: error.message };
    return { outcome: 'postponed', kind: error.kind, detail: error.message };
  }
}

export function differencesOf(
  invoice: Invoice,
  stripe: StripeInvoice,
  lines: readonly StripeLine[],
): Difference[] {
  return compareInvoices(invoice, { currency: stripe.currency, total: stripe.total, lines });
}

async function ensureCustomer(push: Push): Promise<string> {
  const { ctx, invoice } = push;
  const key = { tenant: invoice.tenant, customer: invoice.customer.id };
  const nowMs = ctx.clock.now();
  const intent = await intendCustomer(ctx.pg, key, {
    name: invoice.customer.name,
    idempotencyBase: push.outboxKey,
    searchSinceMs: searchSince(push, nowMs),
    nowMs,
  });
  if (intent.stripeId !== null) return intent.stripeId;
  const metadata = customerMetadata(ctx.installation, { tenant: key.tenant, id: key.customer });
  let generation = intent.generation;
  if (mustSearch(intent, { issuedAtMs: invoice.issuedAtMs, nowMs, keyLifeMs: ctx.limits.keyLifeMs })) {
    const [found, ...others] = await ctx.stripe.findCustomers(metadata, intent.searchSinceMs, push);
    if (others.length > 0) throw new Refusal(`Stripe has ${others.length + 1} customers for this one`);
    if (found !== undefined) return recordCustomer(ctx.pg, key, found);
    generation = theirs(await nextCustomerKey(ctx.pg, key, generation, nowMs));
  }
  const write = {
    key: idempotencyKey(intent.idempotencyBase, 'customer', generation),
    untilMs: push.untilMs,
  };
  // The name is the intent's, so that attempts for different invoices ask for the same under the same key.
  const made = await ctx.stripe
    .createCustomer({ name: intent.name, metadata }, write)
    .catch((error: unknown) => spend(error, () => spendCustomerKey(ctx.pg, key, generation)));
  return recordCustomer(ctx.pg, key, made);
}

async function ensureFinalized(
  push: Push,
  customer: string,
  request: InvoiceRequest,
  lines: readonly LineRequest[],
): Promise<StripeInvoice> {
  const { ctx, invoice } = push;
  const key = { tenant: invoice.tenant, invoice: invoice.id };
  const nowMs = ctx.clock.now();
  const intent = await intendInvoice(ctx.pg, key, {
    customer: invoice.customer.id,
    currency: invoice.currency,
    outboxKey: push.outboxKey,
    searchSinceMs: searchSince(push, nowMs),
    nowMs,
  });
  const searching = mustSearch(intent, {
    issuedAtMs: invoice.issuedAtMs,
    nowMs,
    keyLifeMs: ctx.limits.keyLifeMs,
  });
  let generation = intent.generation;
  const write = (step: string) => ({
    key: idempotencyKey(intent.idempotencyBase, step, generation),
    untilMs: push.untilMs,
  });
  const spent = (error: unknown) => spend(error, () => spendInvoiceKey(ctx.pg, key, generation));

  // 1. The draft: the one we know, the one that a search finds, or a new one.
  let id = intent.stripeId;
  if (id === null && searching) {
    const owner = invoiceMetadata(ctx.installation, invoice);
    const [found, ...others] = await ctx.stripe.findInvoices(customer, owner, intent.searchSinceMs, push);
    if (others.length > 0) throw new Refusal(`Stripe has ${others.length + 1} invoices for this one`);
    if (found !== undefined) id = await recordInvoice(ctx.pg, key, found.id);
  }
  // Whether Stripe can have lines that we do not know of.
  const begun = id !== null || !intent.fresh;
  let looked: StripeLine[] = [];
  if (id !== null) looked = await ctx.stripe.listLines(id, push);
  // Everything that could lie behind the old key has been looked for by now.
  if (searching) generation = theirs(await nextInvoiceKey(ctx.pg, key, generation, nowMs));
  if (id === null) {
    const made = await ctx.stripe.createInvoice(customer, request, write('invoice')).catch(spent);
    id = await recordInvoice(ctx.pg, key, made.id);
    if (begun) looked = await ctx.stripe.listLines(id, push);
  }

  const draft = begun ? await ctx.stripe.retrieveInvoice(id, push) : null;
  if (draft === null || draft.status === 'draft') {
    // 2. The lines that are missing, in the ledger's order.
    const present = new Map(looked.map((line) => [line.line, line]));
    for (const line of lines) {
      const known = present.get(line.line);
      const stripeItem =
        known === undefined
          ? await ctx.stripe.addLine(customer, id, line, write(`line/${line.line}`)).catch(spent)
          : (known.item ?? known.id);
      await recordLine(ctx.pg, key, { line: line.line, stripeItem, amount: BigInt(line.amount) });
    }
    // 3. The comparison before the step that cannot be undone.
    const before = await ctx.stripe.retrieveInvoice(id, push);
    const differences = differencesOf(invoice, before, await ctx.stripe.listLines(id, push));
    if (before.status === 'draft' && differences.length > 0) {
      throw new Refusal(
        `the draft ${id} differs: ${differences.map((one) => `${one.kind} ${one.line}: ${one.detail}`).join('; ')}`,
      );
    }
    // 4. Finalize. A refusal may mean that somebody did so a moment ago; the reading below decides.
    if (before.status === 'draft') {
      await ctx.stripe.finalizeInvoice(id, write('finalize')).catch(async (error: unknown) => {
        if (!(error instanceof StripeFailure) || error.kind !== 'refused') return spent(error);
        const now = await ctx.stripe.retrieveInvoice(id, push);
        if (now.status === 'draft') throw error;
        return now;
      });
    }
  }

  // 5. As Stripe has it now.
  const stripe = await ctx.stripe.retrieveInvoice(id, push);
  if (stripe.status !== 'open' && stripe.status !== 'paid') {
    throw new Refusal(`the invoice ${id} is ${stripe.status} in Stripe`);
  }
  return stripe;
}

/** Nothing of this invoice can be in Stripe before it was issued. */
function searchSince(push: Push, nowMs: number): number {
  return Math.min(push.invoice.issuedAtMs, nowMs) - push.ctx.limits.clockSkewMs;
}

/** The new generation, unless somebody else took it: then this attempt is over and the next one sees theirs. */
function theirs(generation: number | null): number {
  if (generation === null) throw new StripeFailure('unavailable', 'another worker is at the same invoice');
  return generation;
}

/** Remembers that the key is spent, so that the next attempt searches. Always throws the error again. */
async function spend(error: unknown, remember: () => Promise<void>): Promise<never> {
  if (error instanceof StripeFailure && error.kind === 'key_spent') await remember();
  throw error;
}
