// Customers and their invoice balance.
//
// The balance is an amount a currency. Negative is credit that the next finalized invoice uses up, positive is
// added to what the next invoice asks for. Every movement is a balance transaction; the balance is their sum.
import { isCurrency, sum } from './amount.ts';
import type { Change } from './change.ts';
import { invalid } from './error.ts';
import { inRange, page } from './list.ts';
import type { JsonObject } from './operation.ts';
import { field, hash, mergeMetadata, onlySupported, requiredText, text, texts, whole } from './params.ts';
import type { Params } from './params.ts';
import type { BalanceTransactionRecord, CustomerRecord } from './state.ts';

export const defaultCurrency = 'usd';

const supported = [
  'address',
  'balance',
  'business_name',
  'description',
  'email',
  'individual_name',
  'invoice_prefix',
  'metadata',
  'name',
  'next_invoice_sequence',
  'phone',
  'preferred_locales',
  'shipping',
  'tax_exempt',
];

export function presentCustomer(customer: CustomerRecord): JsonObject {
  if (customer.deleted) return { id: customer.id, object: 'customer', deleted: true };
  return {
    id: customer.id,
    object: 'customer',
    address: customer.address,
    balance: balanceOf(customer, customer.currency ?? defaultCurrency),
    ...(customer.businessName === null ? {} : { business_name: customer.businessName }),
    created: customer.created,
    currency: customer.currency,
    customer_account: null,
    default_source: null,
    delinquent: false,
    description: customer.description,
    discount: null,
    email: customer.email,
    ...(customer.individualName === null ? {} : { individual_name: customer.individualName }),
    invoice_credit_balance: { ...customer.balances },
    invoice_prefix: customer.invoicePrefix,
    invoice_settings: {
      custom_fields: null,
      default_payment_method: null,
      footer: null,
      rendering_options: null,
    },
    livemode: false,
    metadata: customer.metadata,
    name: customer.name,
    next_invoice_sequence: customer.nextInvoiceSequence,
    phone: customer.phone,
    preferred_locales: customer.preferredLocales,
    shipping: customer.shipping,
    tax_exempt: customer.taxExempt,
    test_clock: null,
  };
}

export function balanceOf(customer: CustomerRecord, currency: string): number {
  return customer.balances[currency] ?? 0;
}

/** The customer of an id in a parameter; a deleted one is as good as missing. */
export function liveCustomer(change: Change, id: string, param = 'customer'): CustomerRecord {
  const customer = change.require('customer', id, param, param === 'id' ? 404 : 400);
  if (customer.deleted) throw invalid(`Customer ${id} is deleted.`, 'resource_missing', param);
  return customer;
}

export function createCustomer(change: Change, params: Params): JsonObject {
  onlySupported(params, supported);
  const id = change.newId('cus');
  const customer: CustomerRecord = {
    object: 'customer',
    id,
    created: change.now,
    deleted: false,
    name: null,
    email: null,
    description: null,
    phone: null,
    businessName: null,
    individualName: null,
    address: null,
    shipping: null,
    preferredLocales: [],
    taxExempt: 'none',
    metadata: {},
    currency: null,
    balances: {},
    invoicePrefix: id.slice(-8).toUpperCase(),
    nextInvoiceSequence: 1,
  };
  change.put(edited(customer, params));
  moveToBalance(change, id, params, 'initial');
  const answer = presentCustomer(change.require('customer', id));
  change.emit('customer.created', answer);
  return answer;
}

export function updateCustomer(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, supported);
  const customer = liveCustomer(change, id, 'id');
  const before = presentCustomer(customer);
  change.put(edited(customer, params));
  moveToBalance(change, id, params, 'adjustment');
  const answer = presentCustomer(change.require('customer', id));
  change.emitUpdated('customer.updated', before, answer);
  return answer;
}

function edited(customer: CustomerRecord, params: Params): CustomerRecord {
  const prefix = text(params, 'invoice_prefix');
  if (prefix !== undefined && !/^[A-Z0-9]{3,12}$/.test(prefix)) {
    throw invalid(
      'Invoice prefixes must be 3 to 12 uppercase letters or numbers.',
      undefined,
      'invoice_prefix',
    );
  }
  const taxExempt = text(params, 'tax_exempt');
  return {
    ...customer,
    name: field(params, 'name', customer.name),
    email: field(params, 'email', customer.email),
    description: field(params, 'description', customer.description),
    phone: field(params, 'phone', customer.phone),
    businessName: field(params, 'business_name', customer.businessName),
    individualName: field(params, 'individual_name', customer.individualName),
    address: 'address' in params ? fullAddress(hash(params, 'address')) : customer.address,
    shipping: 'shipping' in params ? fullShipping(hash(params, 'shipping')) : customer.shipping,
    preferredLocales: texts(params, 'preferred_locales') ?? customer.preferredLocales,
    taxExempt: taxExempt === undefined ? customer.taxExempt : taxExempt === '' ? 'none' : taxExempt,
    metadata: mergeMetadata(params, customer.metadata),
    invoicePrefix: prefix ?? customer.invoicePrefix,
    nextInvoiceSequence: whole(params, 'next_invoice_sequence') ?? customer.nextInvoiceSequence,
  };
}

function fullAddress(given: JsonObject | undefined): JsonObject | null {
  if (given === undefined) return null;
  const names = ['city', 'country', 'line1', 'line2', 'postal_code', 'state'];
  return Object.fromEntries(names.map((name) => [name, field(given, name, null)]));
}

function fullShipping(given: JsonObject | undefined): JsonObject | null {
  if (given === undefined) return null;
  return {
    address: fullAddress(hash(given, 'address')),
    name: field(given, 'name', null),
    phone: field(given, 'phone', null),
  };
}

/** `balance` of a customer's parameters is the balance to have; the difference becomes a transaction. */
function moveToBalance(change: Change, id: string, params: Params, type: 'initial' | 'adjustment'): void {
  const wanted = whole(params, 'balance');
  if (wanted === undefined) return;
  const customer = change.require('customer', id);
  const currency = customer.currency ?? defaultCurrency;
  const amount = sum([wanted, -balanceOf(customer, currency)]);
  if (amount !== 0) move(change, { customer: id, currency, amount, type });
}

/** Moves a customer's balance and records the transaction. The caller writes the event of the customer. */
export function move(
  change: Change,
  movement: Pick<BalanceTransactionRecord, 'customer' | 'currency' | 'amount' | 'type'> &
    Partial<Pick<BalanceTransactionRecord, 'invoice' | 'description' | 'metadata'>>,
): BalanceTransactionRecord {
  const customer = change.require('customer', movement.customer);
  const endingBalance = sum([balanceOf(customer, movement.currency), movement.amount]);
  change.put({
    ...customer,
    currency: customer.currency ?? movement.currency,
    balances: { ...customer.balances, [movement.currency]: endingBalance },
  });
  return change.put({
    object: 'customer_balance_transaction',
    id: change.newId('cbtxn'),
    created: change.now,
    invoice: null,
    description: null,
    metadata: {},
    ...movement,
    endingBalance,
  });
}

export function deleteCustomer(change: Change, id: string): JsonObject {
  const customer = change.require('customer', id);
  const before = presentCustomer(customer);
  if (!customer.deleted) {
    change.put({ ...customer, deleted: true });
    for (const item of change.pendingItems(id)) change.remove('invoiceitem', item);
    change.emit('customer.deleted', before);
  }
  return { id, object: 'customer', deleted: true };
}

export function listCustomers(change: Change, params: Params): JsonObject {
  onlySupported(params, ['created', 'email', 'limit', 'starting_after', 'ending_before']);
  const email = text(params, 'email');
  const found = change
    .all('customer')
    .filter((each) => !each.deleted && (email === undefined || each.email === email))
    .filter((each) => inRange(params, 'created', each.created))
    .reverse();
  return page(found, params, '/v1/customers', 'customer', presentCustomer);
}

export function presentBalanceTransaction(transaction: BalanceTransactionRecord): JsonObject {
  return {
    id: transaction.id,
    object: 'customer_balance_transaction',
    amount: transaction.amount,
    checkout_session: null,
    created: transaction.created,
    credit_note: null,
    currency: transaction.currency,
    customer: transaction.customer,
    customer_account: null,
    description: transaction.description,
    ending_balance: transaction.endingBalance,
    invoice: transaction.invoice,
    livemode: false,
    metadata: transaction.metadata,
    type: transaction.type,
  };
}

export function createBalanceTransaction(change: Change, params: Params, customerId: string): JsonObject {
  onlySupported(params, ['amount', 'currency', 'description', 'metadata']);
  const before = presentCustomer(liveCustomer(change, customerId, 'id'));
  const transaction = move(change, {
    customer: customerId,
    currency: readCurrency(requiredText(params, 'currency')),
    amount: whole(params, 'amount') ?? 0,
    type: 'adjustment',
    description: field(params, 'description', null),
    metadata: mergeMetadata(params, {}),
  });
  change.emitUpdated('customer.updated', before, presentCustomer(change.require('customer', customerId)));
  return presentBalanceTransaction(transaction);
}

export function listBalanceTransactions(change: Change, params: Params, customer: string): JsonObject {
  onlySupported(params, ['created', 'invoice', 'limit', 'starting_after', 'ending_before']);
  change.require('customer', customer);
  const invoice = text(params, 'invoice');
  const found = change
    .all('customer_balance_transaction')
    .filter((each) => each.customer === customer && (invoice === undefined || each.invoice === invoice))
    .filter((each) => inRange(params, 'created', each.created))
    .reverse();
  const url = `/v1/customers/${customer}/balance_transactions`;
  return page(found, params, url, 'customer_balance_transaction', presentBalanceTransaction);
}

/** A currency code in lower case, refused when Stripe (or the stand-in) does not know it. */
export function readCurrency(given: string, param = 'currency'): string {
  const currency = given.toLowerCase();
  if (!isCurrency(currency)) throw invalid(`Invalid currency: ${given}.`, undefined, param);
  return currency;
}
