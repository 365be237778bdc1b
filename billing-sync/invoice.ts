import { minorDigits, type Amount, type Currency } from '../contract/money.ts';
import type { Invoice, InvoiceLine } from '../ledger/index.ts';

/**
 * From the ledger's invoice to what Stripe is asked to make of it: one Stripe line for every line, with the
 * amount the ledger rounded. Stripe multiplies and rounds nothing; it gets whole minor units and adds them.
 */

/** https://docs.stripe.com/billing/invoices/overview: an invoice holds 250 items. */
export const LINES_MAX = 250;
/** Of a description; Stripe takes more, but a person does not read more. */
const DESCRIPTION_CHARACTERS_MAX = 500;
/** Of the value of a custom field. */
const FIELD_CHARACTERS_MAX = 140;

export interface InvoiceRequest {
  readonly currency: string;
  readonly daysUntilDue: number;
  /** Shown at the head of the invoice. */
  readonly number: string;
  readonly description: string;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface LineRequest {
  /** The ledger's line. */
  readonly line: string;
  /** Minor units as Stripe counts them; negative for credit. */
  readonly amount: number;
  readonly currency: string;
  readonly description: string;
  /** Epoch seconds; whole, since periods begin on a whole hour. */
  readonly period: { readonly start: number; readonly end: number };
  readonly metadata: Readonly<Record<string, string>>;
}

/** Why an invoice cannot be put into Stripe as it is. Retrying does not help; a person has to decide. */
export type Unsendable = 'too_many_lines' | 'amount_not_chargeable' | 'amount_too_large';

export type Assembly =
  | {
      readonly outcome: 'assembled';
      readonly invoice: InvoiceRequest;
      readonly lines: readonly LineRequest[];
    }
  | { readonly outcome: 'unsendable'; readonly code: Unsendable; readonly detail: string };

/**
 * Throws when the lines do not add up to the total or a line has another sign than its kind allows: the
 * ledger wrote a wrong invoice, and nothing of it may reach a customer.
 */
export function assembleInvoice(
  invoice: Invoice,
  o: { readonly installation: string; readonly daysUntilDue: number },
): Assembly {
  const sum = invoice.lines.reduce((total, line) => total + line.amount, 0n);
  if (sum !== invoice.total) {
    throw new Error(`invoice ${invoice.id}: its lines sum to ${sum}, its total is ${invoice.total}`);
  }
  const positiveCredit = invoice.lines.find((line) => line.kind === 'credit' && line.amount > 0n);
  if (positiveCredit !== undefined) {
    throw new Error(`invoice ${invoice.id}: credit line ${positiveCredit.id} would charge the customer`);
  }
  if (new Set(invoice.lines.map((line) => line.id)).size !== invoice.lines.length) {
    throw new Error(`invoice ${invoice.id}: two lines have the same id`);
  }
  if (invoice.lines.length > LINES_MAX) {
    const detail = `${invoice.lines.length} lines; Stripe takes ${LINES_MAX}`;
    return { outcome: 'unsendable', code: 'too_many_lines', detail };
  }
  for (const { id, amount } of [...invoice.lines, { id: 'total', amount: invoice.total }]) {
    const fault = amountFault(amount, invoice.currency);
    if (fault !== null) {
      return {
        outcome: 'unsendable',
        code: fault,
        detail: `${id}: ${amount} minor units ${invoice.currency}`,
      };
    }
  }
  return {
    outcome: 'assembled',
    invoice: {
      currency: invoice.currency.toLowerCase(),
      daysUntilDue: o.daysUntilDue,
      number: cut(invoice.number, FIELD_CHARACTERS_MAX),
      description: `Usage from ${day(invoice.periodStart)} to ${day(invoice.periodEnd)} (end excluded, UTC)`,
      metadata: invoiceMetadata(o.installation, invoice),
    },
    lines: invoice.lines.map((line) => lineRequest(invoice, line)),
  };
}

/** What an invoice of ours is known by in Stripe. */
export function invoiceMetadata(
  installation: string,
  invoice: { readonly tenant: string; readonly id: string },
): Record<string, string> {
  return {
    tallyline_installation: installation,
    tallyline_tenant: invoice.tenant,
    tallyline_invoice: invoice.id,
  };
}

/** What a customer of ours is known by in Stripe. */
export function customerMetadata(
  installation: string,
  customer: { readonly tenant: string; readonly id: string },
): Record<string, string> {
  return {
    tallyline_installation: installation,
    tallyline_tenant: customer.tenant,
    tallyline_customer: customer.id,
  };
}

function lineRequest(invoice: Invoice, line: InvoiceLine): LineRequest {
  return {
    line: line.id,
    amount: Number(line.amount),
    currency: invoice.currency.toLowerCase(),
    description: cut(line.description, DESCRIPTION_CHARACTERS_MAX),
    // The line's own: an adjustment is for a period before the invoice's.
    period: { start: Math.floor(line.periodStart / 1_000), end: Math.floor(line.periodEnd / 1_000) },
    metadata: { tallyline_tenant: invoice.tenant, tallyline_invoice: invoice.id, tallyline_line: line.id },
  };
}

/**
 * Stripe counts in the same minor units as we do: none for JPY and KRW, two for most, three for KWD. A
 * three-decimal amount must end in 0 there (https://docs.stripe.com/currencies#three-decimal); rounding one
 * that does not would make Stripe's invoice differ from the ledger's, so it is refused. An amount is a JSON
 * number on the wire and must be exact as one.
 */
function amountFault(amount: Amount, currency: Currency): Unsendable | null {
  if (minorDigits(currency) === 3 && amount % 10n !== 0n) return 'amount_not_chargeable';
  const magnitude = amount < 0n ? -amount : amount;
  return magnitude > BigInt(Number.MAX_SAFE_INTEGER) ? 'amount_too_large' : null;
}

/** Cut to a number of characters, never inside a surrogate pair. */
function cut(text: string, charactersMax: number): string {
  const characters = [...text];
  return characters.length <= charactersMax ? text : `${characters.slice(0, charactersMax - 1).join('')}…`;
}

function day(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10);
}
