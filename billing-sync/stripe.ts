/**
 * Stripe, as far as billing-sync needs it: the one file that knows the SDK.
 *
 * What the SDK does with trouble is not enough for money, so its own retries are off and this file has one
 * rule for all of it:
 *
 * - The effect of a request without a sound answer is unknown: no connection, a timeout, an answer cut in its
 *   body (which the SDK never retries), a 5xx. The same request under the same idempotency key is the only
 *   safe question, so it is repeated, with full jitter, a bounded number of times and not beyond `untilMs`.
 *   The same goes for 409 (the key is in use right now) and 429 (which the SDK never retries either).
 * - The SDK takes an answer without an `error` member as a success whatever its status (a proxy's 404). An
 *   answer counts only with a 2xx status and the `object` that was asked for.
 * - Stripe stores the answer of the first request under a key for 24 hours, a 500 included, and gives it again
 *   with `Idempotent-Replayed: true`. A replayed failure will not change: the key is *spent*. So is a key that
 *   was used with other parameters. The caller then looks for the object, and takes a new key only if there
 *   is none.
 * - Any other 4xx is a refusal: repeating it is pointless until a person changed something.
 */
import Stripe from 'stripe';
import type { Amount } from '../contract/money.ts';
import type { Clock } from '../runtime/clock.ts';
import { retry } from '../runtime/retry.ts';
import type { InvoiceRequest, LineRequest } from './invoice.ts';

export type FailureKind =
  /** Trouble that passes: try again later under the same key. */
  | 'unavailable'
  /** The key answers with a stored failure for ever: look for the object, then take the next key. */
  | 'key_spent'
  /** Stripe says no to this request. */
  | 'refused'
  /** Stripe does not know our API key, or it may not do this: nobody's invoice is at fault. */
  | 'unauthorized'
  /** The caller's time for this piece of work is over. */
  | 'out_of_time';

export class StripeFailure extends Error {
  readonly kind: FailureKind;
  /** Whether the same request may be sent again at once. */
  readonly again: boolean;
  readonly status: number | undefined;
  readonly code: string | undefined;
  constructor(
    kind: FailureKind,
    message: string,
    o: { again?: boolean; status?: number | undefined; code?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, { cause: o.cause });
    this.name = 'StripeFailure';
    this.kind = kind;
    this.again = o.again ?? false;
    this.status = o.status;
    this.code = o.code;
  }
}

export interface StripeOptions {
  readonly apiKey: string;
  /** Scheme, host and port of something that speaks Stripe's API; Stripe itself when undefined. */
  readonly apiBase: string | undefined;
  readonly timeoutMs: number;
  /** Of one request, the first time included. */
  readonly attempts: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  readonly clock: Clock;
  /** No request is begun once it is aborted. */
  readonly stopping?: AbortSignal;
  /** Called once a request has ended, with what came of it, and before each repetition. */
  onRequest?(operation: string, outcome: 'ok' | FailureKind, seconds: number): void;
  onRetry?(operation: string): void;
}

/** A write: its idempotency key, and the instant (epoch ms) after which it must not be sent any more. */
export interface Write {
  readonly key: string;
  readonly untilMs: number;
}

/** A read needs no key. */
export type Read = Pick<Write, 'untilMs'>;

export interface CustomerRequest {
  readonly name: string;
  readonly metadata: Readonly<Record<string, string>>;
}

export type StripeStatus = 'draft' | 'open' | 'paid' | 'uncollectible' | 'void';

export interface StripeInvoice {
  readonly id: string;
  readonly status: StripeStatus;
  /** Lower case. */
  readonly currency: string;
  readonly total: Amount;
  readonly amountPaid: Amount;
  readonly paidAtMs: number | null;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface StripeLine {
  readonly id: string;
  /** The invoice item behind it, when there is one. */
  readonly item: string | null;
  /** The ledger's line, from the metadata. */
  readonly line: string | null;
  readonly amount: Amount;
}

export interface StripeGateway {
  createCustomer(request: CustomerRequest, write: Write): Promise<string>;
  /** Customers created since an instant (epoch ms) that carry all of the metadata. Consistent, unlike Stripe's search. */
  findCustomers(metadata: Readonly<Record<string, string>>, sinceMs: number, read: Read): Promise<string[]>;
  createInvoice(customer: string, request: InvoiceRequest, write: Write): Promise<StripeInvoice>;
  findInvoices(
    customer: string,
    metadata: Readonly<Record<string, string>>,
    sinceMs: number,
    read: Read,
  ): Promise<StripeInvoice[]>;
  /** Puts one line on a draft and returns its invoice item. */
  addLine(customer: string, invoice: string, request: LineRequest, write: Write): Promise<string>;
  finalizeInvoice(invoice: string, write: Write): Promise<StripeInvoice>;
  retrieveInvoice(invoice: string, read: Read): Promise<StripeInvoice>;
  listLines(invoice: string, read: Read): Promise<StripeLine[]>;
}

const PAGE = 100;
/** 100 pages of 100: a search beyond that is a failure and not a "not found". */
const PAGES_MAX = 100;

interface Answer {
  readonly object: string;
}

interface Page<T> extends Answer {
  readonly data: T[];
  readonly has_more: boolean;
}

export function connectStripe(o: StripeOptions): StripeGateway {
  const base = o.apiBase === undefined ? undefined : new URL(o.apiBase);
  const sdk = new Stripe(o.apiKey, {
    maxNetworkRetries: 0,
    timeout: o.timeoutMs,
    telemetry: false,
    appInfo: { name: 'tallyline' },
    ...(base === undefined
      ? {}
      : {
          host: base.hostname,
          port: base.port === '' ? (base.protocol === 'http:' ? 80 : 443) : Number(base.port),
          protocol: base.protocol === 'http:' ? 'http' : 'https',
        }),
  });

  async function ask<T extends Answer>(
    operation: string,
    object: string,
    untilMs: number,
    send: () => Promise<T>,
  ): Promise<T> {
    const startedMs = o.clock.now();
    const once = async (): Promise<T> => {
      if (o.clock.now() >= untilMs || o.stopping?.aborted === true)
        throw new StripeFailure('out_of_time', `${operation}: no time left`);
      let answer: T;
      try {
        answer = await send();
      } catch (error) {
        throw failureOf(operation, error);
      }
      return soundAnswer(operation, answer, object);
    };
    const end = (outcome: 'ok' | FailureKind) =>
      o.onRequest?.(operation, outcome, Math.max(0, o.clock.now() - startedMs) / 1_000);
    try {
      const answer = await retry(once, {
        attempts: o.attempts,
        baseMs: o.retryBaseMs,
        maxMs: o.retryMaxMs,
        retryable: (error) => error instanceof StripeFailure && error.again && o.clock.now() < untilMs,
        onRetry: () => o.onRetry?.(operation),
      });
      end('ok');
      return answer;
    } catch (error) {
      if (error instanceof StripeFailure) end(error.kind);
      throw error;
    }
  }

  /** All of a list, oldest page last, as Stripe orders it. */
  async function pages<T extends { id: string }>(
    operation: string,
    read: Read,
    fetch: (page: { limit: number; starting_after?: string }) => Promise<Page<T>>,
  ): Promise<T[]> {
    const found: T[] = [];
    let after: string | undefined;
    for (let turn = 0; turn < PAGES_MAX; turn++) {
      const page = { limit: PAGE, ...(after === undefined ? {} : { starting_after: after }) };
      const { data, has_more: more } = await ask(operation, 'list', read.untilMs, () => fetch(page));
      found.push(...data);
      after = data.at(-1)?.id;
      if (!more || after === undefined) return found;
    }
    throw new StripeFailure('refused', `${operation}: more than ${PAGES_MAX * PAGE} objects to look through`);
  }

  return {
    async createCustomer(request, write) {
      const made = await ask('create_customer', 'customer', write.untilMs, () =>
        sdk.customers.create({ name: request.name, metadata: request.metadata }, keyed(write)),
      );
      return made.id;
    },

    async findCustomers(metadata, sinceMs, read) {
      const created = { gte: Math.floor(sinceMs / 1_000) };
      const found = await pages('list_customers', read, (page) => sdk.customers.list({ ...page, created }));
      return found.filter((each) => carries(each.metadata, metadata)).map((each) => each.id);
    },

    async createInvoice(customer, request, write) {
      const made = await ask('create_invoice', 'invoice', write.untilMs, () =>
        sdk.invoices.create(
          {
            customer,
            currency: request.currency,
            collection_method: 'send_invoice',
            days_until_due: request.daysUntilDue,
            // We finalize. Nothing of the customer's that waits elsewhere gets onto it, no tax is computed.
            auto_advance: false,
            pending_invoice_items_behavior: 'exclude',
            automatic_tax: { enabled: false },
            description: request.description,
            custom_fields: [{ name: 'Invoice', value: request.number }],
            metadata: request.metadata,
          },
          keyed(write),
        ),
      );
      return readInvoice(made);
    },

    async findInvoices(customer, metadata, sinceMs, read) {
      const filter = { customer, created: { gte: Math.floor(sinceMs / 1_000) } };
      const found = await pages('list_invoices', read, (page) => sdk.invoices.list({ ...page, ...filter }));
      return found.filter((each) => carries(each.metadata, metadata)).map(readInvoice);
    },

    async addLine(customer, invoice, request, write) {
      const made = await ask('create_invoice_item', 'invoiceitem', write.untilMs, () =>
        sdk.invoiceItems.create(
          {
            customer,
            invoice,
            amount: request.amount,
            currency: request.currency,
            description: request.description,
            period: request.period,
            // The ledger's credits are lines of their own; a coupon of Stripe's would be counted by nobody.
            discountable: false,
            metadata: request.metadata,
          },
          keyed(write),
        ),
      );
      return made.id;
    },

    async finalizeInvoice(invoice, write) {
      return readInvoice(
        await ask('finalize_invoice', 'invoice', write.untilMs, () =>
          sdk.invoices.finalizeInvoice(invoice, { auto_advance: false }, keyed(write)),
        ),
      );
    },

    async retrieveInvoice(invoice, read) {
      return readInvoice(
        await ask('retrieve_invoice', 'invoice', read.untilMs, () => sdk.invoices.retrieve(invoice)),
      );
    },

    async listLines(invoice, read) {
      const found = await pages('list_lines', read, (page) => sdk.invoices.listLineItems(invoice, page));
      return found.map((each) => ({
        id: each.id,
        item: idOf(each.parent?.invoice_item_details?.invoice_item),
        line: each.metadata['tallyline_line'] ?? null,
        amount: exact(each.amount),
      }));
    },
  };
}

function keyed(write: Write): { idempotencyKey: string } {
  return { idempotencyKey: write.key };
}

function soundAnswer<T extends Answer>(operation: string, answer: T, object: string): T {
  const status = (answer as { lastResponse?: { statusCode?: number } }).lastResponse?.statusCode;
  // Some answers of the SDK come without lastResponse; the object must still be the one asked for.
  const good = status === undefined || (status >= 200 && status < 300);
  if (good && (answer as Partial<Answer>).object === object) return answer;
  throw new StripeFailure('unavailable', `${operation}: an answer that is no ${object}`, {
    again: true,
    status,
  });
}

function failureOf(operation: string, error: unknown): unknown {
  if (!(error instanceof Stripe.errors.StripeError)) return error;
  const { statusCode: status, code } = error;
  const details = { status, code, cause: error };
  const message = `${operation}: ${error.message}`;
  const headers = error.headers ?? {};
  const replayed = headers['idempotent-replayed'] === 'true';
  if (error.rawType === 'idempotency_error' && status !== 409) {
    return new StripeFailure('key_spent', message, details);
  }
  if (status === undefined || status < 400) {
    return new StripeFailure('unavailable', message, { ...details, again: true });
  }
  if (status === 401 || status === 403) return new StripeFailure('unauthorized', message, details);
  if (status === 409 || status === 429) {
    return new StripeFailure('unavailable', message, { ...details, again: true });
  }
  if (replayed) return new StripeFailure('key_spent', message, details);
  // The header says that repeating is pointless right now; the outbox comes back later.
  if (status >= 500) {
    const again = headers['stripe-should-retry'] !== 'false';
    return new StripeFailure('unavailable', message, { ...details, again });
  }
  return new StripeFailure('refused', message, details);
}

const STATUSES: readonly string[] = ['draft', 'open', 'paid', 'uncollectible', 'void'];

function readInvoice(invoice: Stripe.Invoice): StripeInvoice {
  // Enums are open in the SDK's types: a status we do not know must not pass for one that we do.
  if (invoice.status === null || !STATUSES.includes(invoice.status)) {
    throw new StripeFailure('refused', `invoice ${invoice.id} has the unknown status ${invoice.status}`);
  }
  const paidAt = invoice.status_transitions.paid_at;
  return {
    id: invoice.id,
    status: invoice.status as StripeStatus,
    currency: invoice.currency,
    total: exact(invoice.total),
    amountPaid: exact(invoice.amount_paid),
    paidAtMs: paidAt === null ? null : paidAt * 1_000,
    metadata: invoice.metadata ?? {},
  };
}

/** A JSON number of minor units. One that is not exact has lost money before we saw it. */
function exact(amount: number): Amount {
  if (!Number.isSafeInteger(amount)) throw new StripeFailure('refused', `${amount} is no exact amount`);
  return BigInt(amount);
}

function idOf(value: string | { id: string } | null | undefined): string | null {
  if (value === null || value === undefined) return null;
  return typeof value === 'string' ? value : value.id;
}

function carries(
  has: Readonly<Record<string, string>> | null,
  wanted: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(wanted).every(([name, value]) => has?.[name] === value);
}

export interface PaidInvoice {
  readonly id: string;
  readonly currency: string;
  readonly amountPaid: Amount;
  readonly paidAtMs: number | null;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface WebhookEvent {
  readonly id: string;
  readonly type: string;
  readonly createdMs: number;
}

export type SignatureFault = 'signature_missing' | 'signature_wrong' | 'timestamp_outside' | 'not_an_event';

/**
 * Checks `Stripe-Signature` over the bytes as they came. The SDK bounds how old a timestamp may be and takes
 * any in the future, so that a signature made ahead would stay good for as long as somebody likes; here both
 * sides are bounded by the same tolerance.
 */
export function verifyWebhook(o: {
  readonly body: Uint8Array;
  readonly signature: string | undefined;
  readonly secret: string;
  readonly nowMs: number;
  readonly toleranceSeconds: number;
}): { outcome: 'verified'; event: WebhookEvent } | { outcome: 'refused'; code: SignatureFault } {
  if (o.signature === undefined) return { outcome: 'refused', code: 'signature_missing' };
  const stamps = [...o.signature.matchAll(/(?:^|,)\s*t=([^,]*)/g)].map((match) => match[1] ?? '');
  const stamp = stamps.length === 1 && /^[0-9]{1,12}$/.test(stamps[0]!) ? Number(stamps[0]) : undefined;
  if (stamp === undefined) return { outcome: 'refused', code: 'signature_wrong' };
  if (Math.abs(Math.floor(o.nowMs / 1_000) - stamp) > o.toleranceSeconds) {
    return { outcome: 'refused', code: 'timestamp_outside' };
  }
  let event: unknown;
  try {
    event = Stripe.webhooks.constructEvent(
      o.body,
      o.signature,
      o.secret,
      o.toleranceSeconds,
      undefined,
      o.nowMs,
    );
  } catch (error) {
    const forged = error instanceof Stripe.errors.StripeSignatureVerificationError;
    return { outcome: 'refused', code: forged ? 'signature_wrong' : 'not_an_event' };
  }
  const { id, type, created, object } = (event ?? {}) as Record<string, unknown>;
  if (object !== 'event' || typeof id !== 'string' || id === '' || typeof type !== 'string') {
    return { outcome: 'refused', code: 'not_an_event' };
  }
  if (!Number.isSafeInteger(created)) return { outcome: 'refused', code: 'not_an_event' };
  return { outcome: 'verified', event: { id, type, createdMs: (created as number) * 1_000 } };
}

/** The invoice inside an `invoice.*` event, or null when the payload has no sound one. */
export function paidInvoiceOf(payload: string): PaidInvoice | null {
  const event = JSON.parse(payload) as { data?: { object?: Partial<Stripe.Invoice> } } | null;
  const invoice = event?.data?.object;
  if (invoice?.object !== 'invoice' || typeof invoice.id !== 'string') return null;
  if (typeof invoice.currency !== 'string' || !Number.isSafeInteger(invoice.amount_paid)) return null;
  const paidAt = invoice.status_transitions?.paid_at;
  return {
    id: invoice.id,
    currency: invoice.currency,
    amountPaid: BigInt(invoice.amount_paid as number),
    paidAtMs: typeof paidAt === 'number' ? paidAt * 1_000 : null,
    metadata: invoice.metadata ?? {},
  };
}
