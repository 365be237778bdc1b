// Invoices in invoice mode, without automatic advancement: draft → open → paid, with void and uncollectible aside.
//
// A draft's money is computed from its lines whenever it is looked at. Finalization fixes it, once:
//   due = total + the customer's balance in the invoice's currency (credit is negative)
//   due <= 0          nothing is asked for, the rest of the credit stays on the balance, the invoice is paid
//   due below the     nothing is asked for, the customer's balance is charged instead, the invoice is paid
//   minimum charge    (https://docs.stripe.com/billing/customer/balance)
//   otherwise         amount_due = due, the balance is used up, the invoice is open
// A negative total is therefore credit to the customer. Voiding gives back what finalization took from the balance.
import { minimumChargeOf, sum } from './amount.ts';
import type { Change } from './change.ts';
import { balanceOf, defaultCurrency, liveCustomer, move, presentCustomer, readCurrency } from './customer.ts';
import { invalid, unsupported } from './error.ts';
import { attachPending, presentLine } from './line.ts';
import { inRange, page } from './list.ts';
import type { JsonObject } from './operation.ts';
import {
  field,
  flag,
  hash,
  hashes,
  mergeMetadata,
  onlySupported,
  requiredText,
  text,
  whole,
} from './params.ts';
import type { Params } from './params.ts';
import type { InvoiceRecord, InvoiceStatus } from './state.ts';

/** Stripe: up to 250 items per invoice. */
export const itemsMax = 250;
/** An invoice object carries this many of its lines; the others are read from `/lines`. */
const embeddedLines = 10;
const daySeconds = 86_400;

const draftParams = [
  'auto_advance',
  'automatic_tax',
  'collection_method',
  'custom_fields',
  'days_until_due',
  'description',
  'due_date',
  'effective_at',
  'footer',
  'metadata',
  'number',
  'statement_descriptor',
];

export function totalOf(change: Change, invoice: InvoiceRecord): number {
  return sum(invoice.items.map((id) => change.require('invoiceitem', id).amount));
}

export function presentInvoice(change: Change, invoice: InvoiceRecord): JsonObject {
  const customer = change.require('customer', invoice.customer);
  const draft = invoice.status === 'draft';
  const total = totalOf(change, invoice);
  const startingBalance = draft ? balanceOf(customer, invoice.currency) : invoice.startingBalance;
  const amountDue = draft ? Math.max(0, sum([total, startingBalance])) : invoice.amountDue;
  const details = invoice.customerDetails ?? customerDetails(presentCustomer(customer));
  const attempted = invoice.paidAt !== null;
  return {
    id: invoice.id,
    object: 'invoice',
    account_country: 'US',
    account_name: 'Local stand-in',
    account_tax_ids: null,
    amount_due: amountDue,
    amount_overpaid: 0,
    amount_paid: invoice.amountPaid,
    amount_paid_off_stripe: invoice.amountPaid,
    amount_remaining: sum([amountDue, -invoice.amountPaid]),
    amount_shipping: 0,
    application: null,
    attempt_count: attempted ? 1 : 0,
    attempted,
    auto_advance: false,
    automatic_tax: { disabled_reason: null, enabled: false, liability: null, provider: null, status: null },
    automatically_finalizes_at: null,
    billing_reason: 'manual',
    collection_method: invoice.collectionMethod,
    created: invoice.created,
    currency: invoice.currency,
    custom_fields: invoice.customFields,
    customer: invoice.customer,
    customer_account: null,
    ...details,
    customer_tax_ids: [],
    default_payment_method: null,
    default_source: null,
    default_tax_rates: [],
    description: invoice.description,
    discounts: [],
    due_date: invoice.dueDate,
    effective_at: invoice.effectiveAt ?? invoice.finalizedAt,
    ending_balance: invoice.endingBalance,
    footer: invoice.footer,
    from_invoice: null,
    hosted_invoice_url: draft ? null : `${change.surroundings.url}/#${invoice.id}`,
    invoice_pdf: null,
    issuer: { type: 'self' },
    last_finalization_error: null,
    latest_revision: null,
    lines: {
      object: 'list',
      data: invoice.items.slice(0, embeddedLines).map((id) => presentLine(change.require('invoiceitem', id))),
      has_more: invoice.items.length > embeddedLines,
      url: `/v1/invoices/${invoice.id}/lines`,
    },
    livemode: false,
    metadata: invoice.metadata,
    next_payment_attempt: null,
    number: invoice.number,
    on_behalf_of: null,
    parent: null,
    payment_settings: { default_mandate: null, payment_method_options: null, payment_method_types: null },
    period_end: invoice.created,
    period_start: invoice.created,
    post_payment_credit_notes_amount: 0,
    pre_payment_credit_notes_amount: 0,
    receipt_number: null,
    rendering: null,
    shipping_cost: null,
    shipping_details: null,
    starting_balance: startingBalance,
    statement_descriptor: invoice.statementDescriptor,
    status: invoice.status,
    status_transitions: {
      finalized_at: invoice.finalizedAt,
      marked_uncollectible_at: invoice.uncollectibleAt,
      paid_at: invoice.paidAt,
      voided_at: invoice.voidedAt,
    },
    subtotal: total,
    subtotal_excluding_tax: total,
    test_clock: null,
    total,
    total_discount_amounts: [],
    total_excluding_tax: total,
    total_pretax_credit_amounts: [],
    total_taxes: [],
    webhooks_delivered_at: invoice.webhooksDeliveredAt,
  };
}

function customerDetails(customer: JsonObject): JsonObject {
  return {
    customer_address: customer['address'] ?? null,
    customer_email: customer['email'] ?? null,
    customer_name: customer['name'] ?? null,
    customer_phone: customer['phone'] ?? null,
    customer_shipping: customer['shipping'] ?? null,
    customer_tax_exempt: customer['tax_exempt'] ?? null,
  };
}

/** A draft; anything later is refused with `invoice_not_editable`. */
export function editableInvoice(change: Change, id: string, param: string): InvoiceRecord {
  const invoice = change.require('invoice', id, param, param === 'id' ? 404 : 400);
  if (invoice.status !== 'draft')
    throw invalid('This invoice is no longer editable', 'invoice_not_editable', param);
  return invoice;
}

export function createInvoice(change: Change, params: Params): JsonObject {
  onlySupported(params, [...draftParams, 'currency', 'customer', 'pending_invoice_items_behavior']);
  const customer = liveCustomer(change, requiredText(params, 'customer'));
  const hasWebhook = change.all('webhook_endpoint').some((endpoint) => !endpoint.disabled);
  const draft: InvoiceRecord = {
    object: 'invoice',
    id: change.newId('in'),
    created: change.now,
    customer: customer.id,
    currency: readCurrency(text(params, 'currency') ?? customer.currency ?? defaultCurrency),
    status: 'draft',
    collectionMethod: 'charge_automatically',
    daysUntilDue: null,
    dueDate: null,
    number: null,
    description: null,
    footer: null,
    statementDescriptor: null,
    customFields: null,
    metadata: {},
    effectiveAt: null,
    items: [],
    customerDetails: null,
    startingBalance: 0,
    endingBalance: null,
    amountDue: 0,
    amountPaid: 0,
    finalizedAt: null,
    paidAt: null,
    voidedAt: null,
    uncollectibleAt: null,
    webhooksDeliveredAt: hasWebhook ? null : change.now,
  };
  const invoice = change.put(edited(change, draft, params));
  if (text(params, 'pending_invoice_items_behavior') === 'include') attachPending(change, invoice);
  const answer = present(change, invoice.id);
  change.emit('invoice.created', answer);
  return answer;
}

export function updateInvoice(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, draftParams);
  const invoice = change.require('invoice', id);
  const locked = Object.keys(params).find((name) => !['metadata', 'expand', 'auto_advance'].includes(name));
  if (invoice.status !== 'draft' && locked !== undefined) {
    throw invalid(
      `Finalized invoices can't be updated in this way: ${locked}`,
      'invoice_not_editable',
      locked,
    );
  }
  const before = presentInvoice(change, invoice);
  change.put(edited(change, invoice, params));
  const answer = present(change, id);
  change.emitUpdated('invoice.updated', before, answer);
  return answer;
}

function edited(change: Change, invoice: InvoiceRecord, params: Params): InvoiceRecord {
  refuseAutomatic(params);
  const method = (text(params, 'collection_method') ??
    invoice.collectionMethod) as InvoiceRecord['collectionMethod'];
  const daysUntilDue = whole(params, 'days_until_due') ?? invoice.daysUntilDue;
  const givenDueDate = whole(params, 'due_date');
  if (whole(params, 'days_until_due') !== undefined && givenDueDate !== undefined) {
    throw invalid(
      'You may only specify one of these parameters: days_until_due, due_date.',
      'parameters_exclusive',
    );
  }
  const dueDate =
    givenDueDate ??
    ('days_until_due' in params || invoice.dueDate === null
      ? dueAfter(change, daysUntilDue)
      : invoice.dueDate);
  if (method === 'send_invoice' && dueDate === null) {
    throw invalid(
      'If `collection_method` is `send_invoice`, one of `days_until_due` or `due_date` must be given.',
      'parameter_missing',
      'days_until_due',
    );
  }
  if (method === 'charge_automatically' && dueDate !== null) {
    throw invalid(
      '`days_until_due` and `due_date` are valid only if `collection_method` is `send_invoice`.',
      undefined,
      'due_date',
    );
  }
  return {
    ...invoice,
    collectionMethod: method,
    daysUntilDue: givenDueDate === undefined ? daysUntilDue : null,
    dueDate,
    number: readNumber(change, invoice, params),
    description: field(params, 'description', invoice.description),
    footer: field(params, 'footer', invoice.footer),
    statementDescriptor: field(params, 'statement_descriptor', invoice.statementDescriptor),
    customFields: readCustomFields(params, invoice.customFields),
    metadata: mergeMetadata(params, invoice.metadata),
    effectiveAt: 'effective_at' in params ? (whole(params, 'effective_at') ?? null) : invoice.effectiveAt,
  };
}

function dueAfter(change: Change, days: number | null): number | null {
  return days === null ? null : change.now + days * daySeconds;
}

function readNumber(change: Change, invoice: InvoiceRecord, params: Params): string | null {
  const number = field(params, 'number', invoice.number);
  if (number !== null && number !== invoice.number && isTaken(change, number)) {
    throw invalid(`The invoice number ${number} is already in use.`, undefined, 'number');
  }
  return number;
}

function isTaken(change: Change, number: string): boolean {
  return change.all('invoice').some((each) => each.number === number);
}

function readCustomFields(
  params: Params,
  current: InvoiceRecord['customFields'],
): InvoiceRecord['customFields'] {
  if (params['custom_fields'] === '') return null;
  const given = hashes(params, 'custom_fields');
  if (given === undefined) return current;
  if (given.length > 4)
    throw invalid('An invoice can have up to 4 custom fields.', undefined, 'custom_fields');
  return given.map((each) => ({ name: requiredText(each, 'name'), value: requiredText(each, 'value') }));
}

/** Nothing here advances by itself or is taxed, so asking for it is refused rather than forgotten. */
function refuseAutomatic(params: Params): void {
  if (flag(params, 'auto_advance') === true) throw unsupported('auto_advance=true');
  const tax = hash(params, 'automatic_tax');
  if (tax !== undefined && flag(tax, 'enabled') === true) throw unsupported('automatic_tax[enabled]=true');
}

export function deleteInvoice(change: Change, id: string): JsonObject {
  const invoice = change.require('invoice', id);
  if (invoice.status !== 'draft') {
    throw invalid(
      'You can only delete draft invoices. To cancel a finalized invoice, void it.',
      'invoice_not_editable',
      'id',
    );
  }
  const before = presentInvoice(change, invoice);
  for (const item of invoice.items) change.remove('invoiceitem', item);
  change.remove('invoice', id);
  change.emit('invoice.deleted', before);
  return { id, object: 'invoice', deleted: true };
}

export function listInvoices(change: Change, params: Params): JsonObject {
  onlySupported(params, [
    'collection_method',
    'created',
    'customer',
    'due_date',
    'status',
    'limit',
    'starting_after',
    'ending_before',
  ]);
  const [customer, status, method] = ['customer', 'status', 'collection_method'].map((name) =>
    text(params, name),
  );
  const found = change
    .all('invoice')
    .filter((each) => customer === undefined || each.customer === customer)
    .filter((each) => status === undefined || each.status === status)
    .filter((each) => method === undefined || each.collectionMethod === method)
    .filter((each) => inRange(params, 'created', each.created) && inRange(params, 'due_date', each.dueDate))
    .reverse();
  return page(found, params, '/v1/invoices', 'invoice', (each) => presentInvoice(change, each));
}

export function finalizeInvoice(change: Change, params: Params, id: string): JsonObject {
  refuseAutomatic(params);
  const invoice = change.require('invoice', id);
  if (invoice.status !== 'draft') {
    throw invalid(
      "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
      'invoice_not_editable',
      'id',
    );
  }
  finalize(change, invoice);
  return present(change, id);
}

function finalize(change: Change, invoice: InvoiceRecord): void {
  const before = presentInvoice(change, invoice);
  const customer = change.require('customer', invoice.customer);
  const customerBefore = presentCustomer(customer);
  const startingBalance = balanceOf(customer, invoice.currency);
  const due = sum([totalOf(change, invoice), startingBalance]);
  const tooSmall = due > 0 && due < minimumChargeOf(invoice.currency);
  const amountDue = due <= 0 || tooSmall ? 0 : due;
  const endingBalance = sum([due, -amountDue]);

  let sequence = customer.nextInvoiceSequence;
  let number = invoice.number;
  while (number === null) {
    const candidate = `${customer.invoicePrefix}-${String(sequence).padStart(4, '0')}`;
    sequence += 1;
    if (!isTaken(change, candidate)) number = candidate;
  }
  change.put({ ...customer, nextInvoiceSequence: sequence, currency: customer.currency ?? invoice.currency });
  if (endingBalance !== startingBalance) {
    move(change, {
      customer: customer.id,
      currency: invoice.currency,
      amount: sum([endingBalance, -startingBalance]),
      type: tooSmall ? 'invoice_too_small' : 'applied_to_invoice',
      invoice: invoice.id,
    });
  }

  change.put({
    ...invoice,
    number,
    status: amountDue === 0 ? 'paid' : 'open',
    customerDetails: customerDetails(presentCustomer(customer)),
    dueDate: dueAfter(change, invoice.daysUntilDue) ?? invoice.dueDate,
    startingBalance,
    endingBalance,
    amountDue,
    finalizedAt: change.now,
    paidAt: amountDue === 0 ? change.now : null,
  });
  const after = present(change, invoice.id);
  change.emitUpdated(
    'customer.updated',
    customerBefore,
    presentCustomer(change.require('customer', customer.id)),
  );
  change.emit('invoice.finalized', after);
  change.emitUpdated('invoice.updated', before, after);
  if (amountDue === 0) emitPaid(change, after);
}

function emitPaid(change: Change, invoice: JsonObject): void {
  change.emit('invoice.paid', invoice);
  change.emit('invoice.payment_succeeded', invoice);
}

/** Marks the invoice paid outside of Stripe. There are no payment methods here to charge. A draft is finalized first. */
export function payInvoice(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, ['paid_out_of_band']);
  const original = change.require('invoice', id);
  requireStatus(
    original,
    ['draft', 'open', 'uncollectible'],
    original.status === 'paid' ? 'Invoice is already paid' : undefined,
  );
  if (flag(params, 'paid_out_of_band') !== true) {
    throw invalid(
      'This customer has no attached payment source or default payment method. ' +
        'The local stand-in has no payment methods; pass `paid_out_of_band`.',
      'resource_missing',
    );
  }
  if (original.status === 'draft') finalize(change, original);
  const invoice = change.require('invoice', id);
  if (invoice.status === 'paid') return present(change, id);
  return transition(
    change,
    invoice,
    { status: 'paid', amountPaid: invoice.amountDue, paidAt: change.now },
    (after) => emitPaid(change, after),
  );
}

export function sendInvoice(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, []);
  const original = change.require('invoice', id);
  requireStatus(original, ['draft', 'open']);
  if (original.collectionMethod !== 'send_invoice') {
    throw invalid(
      'You can only manually send an invoice if `collection_method` is `send_invoice`.',
      undefined,
      'id',
    );
  }
  if (original.status === 'draft') finalize(change, original);
  const answer = present(change, id);
  change.emit('invoice.sent', answer);
  return answer;
}

export function voidInvoice(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, []);
  const invoice = change.require('invoice', id);
  requireStatus(
    invoice,
    ['open', 'uncollectible'],
    "You can only pass in open invoices. This invoice isn't open.",
  );
  const taken = sum([invoice.endingBalance ?? 0, -invoice.startingBalance]);
  if (taken !== 0) {
    const customerBefore = presentCustomer(change.require('customer', invoice.customer));
    move(change, {
      customer: invoice.customer,
      currency: invoice.currency,
      amount: -taken,
      type: 'unapplied_from_invoice',
      invoice: id,
    });
    const customerAfter = presentCustomer(change.require('customer', invoice.customer));
    change.emitUpdated('customer.updated', customerBefore, customerAfter);
  }
  return transition(change, invoice, { status: 'void', voidedAt: change.now }, (after) =>
    change.emit('invoice.voided', after),
  );
}

export function markUncollectible(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, []);
  const invoice = change.require('invoice', id);
  requireStatus(invoice, ['open'], "You can only pass in open invoices. This invoice isn't open.");
  return transition(change, invoice, { status: 'uncollectible', uncollectibleAt: change.now }, (after) =>
    change.emit('invoice.marked_uncollectible', after),
  );
}

function requireStatus(invoice: InvoiceRecord, allowed: InvoiceStatus[], message?: string): void {
  if (allowed.includes(invoice.status)) return;
  throw invalid(message ?? `This cannot be done with an invoice that is ${invoice.status}.`, undefined, 'id');
}

function transition(
  change: Change,
  invoice: InvoiceRecord,
  to: Partial<InvoiceRecord>,
  emit: (after: JsonObject) => void,
): JsonObject {
  const before = presentInvoice(change, invoice);
  change.put({ ...invoice, ...to });
  const after = present(change, invoice.id);
  change.emitUpdated('invoice.updated', before, after);
  emit(after);
  return after;
}

function present(change: Change, id: string): JsonObject {
  return presentInvoice(change, change.require('invoice', id));
}
