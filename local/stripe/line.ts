// Invoice items and invoice lines: two views of one record. An item without an invoice is pending; put on a draft
// it also becomes a line with an id of its own. What an item costs is either `amount`, or unit amount times
// quantity, both exact decimals and rounded once, half away from zero.
import { formatDecimal, multiply, parseDecimal } from './amount.ts';
import type { Change } from './change.ts';
import { liveCustomer, readCurrency } from './customer.ts';
import { invalid, missing, unsupported } from './error.ts';
import { editableInvoice, itemsMax, presentInvoice } from './invoice.ts';
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
import type { InvoiceRecord, ItemRecord } from './state.ts';

const costParams = ['amount', 'quantity', 'quantity_decimal', 'price_data', 'pricing'];
const lineParams = [...costParams, 'description', 'discountable', 'metadata', 'period'];
const pagingParams = ['limit', 'starting_after', 'ending_before'];

export function presentItem(item: ItemRecord): JsonObject {
  return {
    id: item.id,
    object: 'invoiceitem',
    amount: item.amount,
    currency: item.currency,
    customer: item.customer,
    customer_account: null,
    date: item.created,
    description: item.description,
    discountable: item.discountable,
    discounts: [],
    invoice: item.invoice,
    livemode: false,
    metadata: item.metadata,
    net_amount: item.amount,
    parent: null,
    period: item.period,
    pricing: pricing(item),
    proration: false,
    quantity: truncated(item.quantityDecimal),
    quantity_decimal: item.quantityDecimal,
    tax_rates: [],
    test_clock: null,
  };
}

export function presentLine(item: ItemRecord): JsonObject {
  return {
    id: item.line,
    object: 'line_item',
    amount: item.amount,
    currency: item.currency,
    description: item.description,
    discount_amounts: [],
    discountable: item.discountable,
    discounts: [],
    invoice: item.invoice,
    livemode: false,
    metadata: item.metadata,
    parent: {
      type: 'invoice_item_details',
      invoice_item_details: {
        invoice_item: item.id,
        proration: false,
        proration_details: { credited_items: null },
        subscription: null,
      },
      subscription_item_details: null,
    },
    period: item.period,
    pretax_credit_amounts: [],
    pricing: pricing(item),
    quantity: truncated(item.quantityDecimal),
    quantity_decimal: item.quantityDecimal,
    subscription: null,
    subtotal: item.amount,
    taxes: [],
  };
}

function pricing(item: ItemRecord): JsonObject {
  return {
    price_details: { price: item.price, product: item.product },
    type: 'price_details',
    unit_amount_decimal: item.unitAmountDecimal,
  };
}

/** `quantity` is `quantity_decimal` with its fraction cut off. */
function truncated(quantity: string): number {
  return Number(quantity.split('.')[0]);
}

interface Cost {
  amount: number;
  unitAmountDecimal: string;
  quantityDecimal: string;
}

/** What the parameters say the line costs; undefined when they say nothing about it. */
function readCost(params: Params, current?: ItemRecord): Cost | undefined {
  if (hash(params, 'pricing') !== undefined) {
    const price = text(hash(params, 'pricing') ?? {}, 'price');
    throw price === undefined ? unsupported('pricing') : missing('price', price, 'pricing[price]', 400);
  }
  const data = hash(params, 'price_data') ?? {};
  const units: [string, string | undefined][] = [
    ['unit_amount_decimal', text(params, 'unit_amount_decimal')],
    ['price_data[unit_amount_decimal]', text(data, 'unit_amount_decimal')],
    ['price_data[unit_amount]', whole(data, 'unit_amount')?.toString()],
  ];
  const amount = whole(params, 'amount');
  const given = units.filter(([, value]) => value !== undefined);
  exclusive([...(amount === undefined ? [] : ['amount']), ...given.map(([name]) => name)]);

  const quantities: [string, string | undefined][] = [
    ['quantity', whole(params, 'quantity')?.toString()],
    ['quantity_decimal', text(params, 'quantity_decimal')],
  ];
  const counts = quantities.filter(([, value]) => value !== undefined);
  exclusive([...(amount === undefined ? [] : ['amount']), ...counts.map(([name]) => name)]);
  const quantity = counts[0]?.[1];
  if (quantity?.startsWith('-') === true) {
    throw invalid(
      'This value must be greater than or equal to 0.',
      'parameter_invalid_integer',
      counts[0]?.[0],
    );
  }

  if (amount !== undefined) return { amount, unitAmountDecimal: String(amount), quantityDecimal: '1' };
  const unit = given[0]?.[1];
  if (unit === undefined && quantity === undefined) return undefined;
  const unitAmountDecimal = formatDecimal(parseDecimal(unit ?? current?.unitAmountDecimal ?? '0'));
  const quantityDecimal = formatDecimal(parseDecimal(quantity ?? current?.quantityDecimal ?? '1'));
  return { amount: multiply(unitAmountDecimal, quantityDecimal), unitAmountDecimal, quantityDecimal };
}

function exclusive(names: string[]): void {
  if (names.length > 1) {
    throw invalid(
      `You may only specify one of these parameters: ${names.join(', ')}.`,
      'parameters_exclusive',
      names[0],
    );
  }
}

function readPeriod(params: Params, current: ItemRecord['period']): ItemRecord['period'] {
  const given = hash(params, 'period');
  if (given === undefined) return current;
  const period = { start: whole(given, 'start') ?? current.start, end: whole(given, 'end') ?? current.end };
  if (period.end < period.start)
    throw invalid('The period must end at or after its start.', undefined, 'period[end]');
  return period;
}

interface Owner {
  customer: string;
  invoice: InvoiceRecord | undefined;
  currency: string;
}

/** Writes a new item, and its line when the owner is an invoice. The caller writes the invoice's event. */
function newItem(change: Change, params: Params, owner: Owner): ItemRecord {
  const cost = readCost(params);
  if (cost === undefined) throw invalid('Missing required param: amount.', 'parameter_missing', 'amount');
  const data = hash(params, 'price_data') ?? {};
  const productData = hash(data, 'product_data');
  const item: ItemRecord = {
    object: 'invoiceitem',
    id: change.newId('ii'),
    line: null,
    created: change.now,
    customer: owner.customer,
    invoice: null,
    currency: owner.currency,
    ...cost,
    // A one-off price and product of its own, as Stripe makes for an inline amount.
    price: change.newId('price'),
    product: change.newId('prod'),
    description: field(
      params,
      'description',
      productData === undefined ? null : field(productData, 'name', null),
    ),
    discountable: flag(params, 'discountable') ?? cost.amount >= 0,
    metadata: mergeMetadata(params, {}),
    period: readPeriod(params, { start: change.now, end: change.now }),
  };
  change.put(item);
  return owner.invoice === undefined ? item : attach(change, item, owner.invoice.id);
}

/** Puts a pending item on a draft. Refuses the 251st. */
export function attach(change: Change, item: ItemRecord, invoiceId: string): ItemRecord {
  const invoice = change.require('invoice', invoiceId);
  if (item.customer !== invoice.customer) {
    throw invalid(
      `The invoice item ${item.id} belongs to another customer than the invoice.`,
      undefined,
      'customer',
    );
  }
  if (item.currency !== invoice.currency) {
    throw invalid(
      `The currency of the invoice item (${item.currency}) does not match the invoice's currency (${invoice.currency}).`,
      undefined,
      'currency',
    );
  }
  if (invoice.items.length >= itemsMax) {
    throw invalid(`An invoice can have at most ${itemsMax} items.`, undefined, 'invoice');
  }
  change.put({ ...invoice, items: [...invoice.items, item.id] });
  return change.put({ ...item, invoice: invoiceId, line: change.newId('il') });
}

/** A product or price by id cannot exist here: the stand-in keeps no catalogue. */
function refuseCatalogue(params: Params, prefix = ''): void {
  const product = text(hash(params, 'price_data') ?? {}, 'product');
  if (product !== undefined) throw missing('product', product, `${prefix}price_data[product]`, 400);
}

export function createItem(change: Change, params: Params): JsonObject {
  onlySupported(params, [...lineParams, 'unit_amount_decimal', 'currency', 'customer', 'invoice']);
  refuseCatalogue(params);
  const customer = liveCustomer(change, requiredText(params, 'customer')).id;
  const invoiceId = text(params, 'invoice');
  const invoice = invoiceId === undefined ? undefined : editableInvoice(change, invoiceId, 'invoice');
  if (invoice === undefined && change.pendingItems(customer).length >= itemsMax) {
    throw invalid(`A customer can have at most ${itemsMax} pending invoice items.`, undefined, 'customer');
  }
  const currency = readCurrency(requiredText(params, 'currency'));
  const before = invoice && presentInvoice(change, invoice);
  const item = newItem(change, params, { customer, invoice, currency });
  change.emit('invoiceitem.created', presentItem(item));
  if (before !== undefined && item.invoice !== null) emitInvoiceUpdated(change, item.invoice, before);
  return presentItem(item);
}

export function updateItem(change: Change, params: Params, id: string): JsonObject {
  onlySupported(params, [...lineParams, 'unit_amount_decimal']);
  refuseCatalogue(params);
  return presentItem(edit(change, params, change.require('invoiceitem', id)));
}

function edit(change: Change, params: Params, item: ItemRecord): ItemRecord {
  const invoice = item.invoice === null ? undefined : editableInvoice(change, item.invoice, 'invoice');
  const before = invoice && presentInvoice(change, invoice);
  const edited = change.put({
    ...item,
    ...readCost(params, item),
    description: field(params, 'description', item.description),
    discountable: flag(params, 'discountable') ?? item.discountable,
    metadata: mergeMetadata(params, item.metadata),
    period: readPeriod(params, item.period),
  });
  if (before !== undefined && invoice !== undefined) emitInvoiceUpdated(change, invoice.id, before);
  return edited;
}

export function deleteItem(change: Change, id: string): JsonObject {
  const item = change.require('invoiceitem', id);
  if (item.invoice !== null) {
    const invoice = editableInvoice(change, item.invoice, 'invoice');
    const before = presentInvoice(change, invoice);
    detach(change, item);
    emitInvoiceUpdated(change, invoice.id, before);
  }
  change.remove('invoiceitem', id);
  change.emit('invoiceitem.deleted', presentItem(item));
  return { id, object: 'invoiceitem', deleted: true };
}

/** Takes an item off its draft; it is pending again. */
function detach(change: Change, item: ItemRecord): void {
  if (item.invoice === null) return;
  const invoice = change.require('invoice', item.invoice);
  change.put({ ...invoice, items: invoice.items.filter((each) => each !== item.id) });
  change.put({ ...item, invoice: null, line: null });
}

function emitInvoiceUpdated(change: Change, id: string, before: JsonObject): void {
  change.emitUpdated('invoice.updated', before, presentInvoice(change, change.require('invoice', id)));
}

export function listItems(change: Change, params: Params): JsonObject {
  onlySupported(params, [...pagingParams, 'created', 'customer', 'invoice', 'pending']);
  const customer = text(params, 'customer');
  const invoice = text(params, 'invoice');
  const pending = flag(params, 'pending');
  const found = change
    .all('invoiceitem')
    .filter((each) => customer === undefined || each.customer === customer)
    .filter((each) => invoice === undefined || each.invoice === invoice)
    .filter((each) => pending === undefined || (each.invoice === null) === pending)
    .filter((each) => inRange(params, 'created', each.created))
    .reverse();
  return page(found, params, '/v1/invoiceitems', 'invoiceitem', presentItem);
}

export function listLines(change: Change, params: Params, invoiceId: string): JsonObject {
  onlySupported(params, pagingParams);
  const items = change.require('invoice', invoiceId).items.map((id) => change.require('invoiceitem', id));
  return page(
    items,
    params,
    `/v1/invoices/${invoiceId}/lines`,
    'line_item',
    presentLine,
    (item) => item.line ?? '',
  );
}

function itemOfLine(
  change: Change,
  invoice: InvoiceRecord,
  line: string,
  param: string,
  status: 400 | 404,
): ItemRecord {
  const item = invoice.items
    .map((id) => change.require('invoiceitem', id))
    .find((each) => each.line === line);
  if (item === undefined) throw missing('invoice line item', line, param, status);
  return item;
}

export function updateLine(change: Change, params: Params, invoiceId: string, line: string): JsonObject {
  onlySupported(params, lineParams);
  refuseCatalogue(params);
  const invoice = editableInvoice(change, invoiceId, 'id');
  return presentLine(edit(change, params, itemOfLine(change, invoice, line, 'id', 404)));
}

/** `add_lines`: each line is a new item, or a pending one by `invoice_item`. All or none. */
export function addLines(change: Change, params: Params, invoiceId: string): JsonObject {
  return changeLines(change, params, invoiceId, (line, invoice, name) => {
    onlySupported(line, [...lineParams, 'invoice_item']);
    refuseCatalogue(line, name);
    const pending = text(line, 'invoice_item');
    if (pending === undefined) {
      const given = text(hash(line, 'price_data') ?? {}, 'currency');
      const currency =
        given === undefined ? invoice.currency : readCurrency(given, `${name}[price_data][currency]`);
      const item = newItem(change, line, { customer: invoice.customer, invoice, currency });
      change.emit('invoiceitem.created', presentItem(item));
      return;
    }
    const item = change.require('invoiceitem', pending, `${name}[invoice_item]`, 400);
    if (item.invoice !== null)
      throw invalid(`The invoice item ${pending} is already on an invoice.`, undefined, name);
    attach(change, item, invoice.id);
  });
}

export function updateLines(change: Change, params: Params, invoiceId: string): JsonObject {
  return changeLines(change, params, invoiceId, (line, invoice, name) => {
    onlySupported(line, [...lineParams, 'id']);
    refuseCatalogue(line, name);
    const item = itemOfLine(change, invoice, requiredText(line, 'id'), `${name}[id]`, 400);
    change.put({
      ...item,
      ...readCost(line, item),
      description: field(line, 'description', item.description),
      discountable: flag(line, 'discountable') ?? item.discountable,
      metadata: mergeMetadata(line, item.metadata),
      period: readPeriod(line, item.period),
    });
  });
}

export function removeLines(change: Change, params: Params, invoiceId: string): JsonObject {
  return changeLines(change, params, invoiceId, (line, invoice, name) => {
    const item = itemOfLine(change, invoice, requiredText(line, 'id'), `${name}[id]`, 400);
    detach(change, item);
    if (text(line, 'behavior') !== 'delete') return;
    change.remove('invoiceitem', item.id);
    change.emit('invoiceitem.deleted', presentItem(item));
  });
}

/** The frame of the three bulk operations: a draft, its lines one by one, one `invoice.updated`, the invoice. */
function changeLines(
  change: Change,
  params: Params,
  invoiceId: string,
  each: (line: Params, invoice: InvoiceRecord, name: string) => void,
): JsonObject {
  const original = editableInvoice(change, invoiceId, 'id');
  const before = presentInvoice(change, original);
  change.put({ ...original, metadata: mergeMetadata(params, original.metadata, 'invoice_metadata') });
  for (const [index, line] of (hashes(params, 'lines') ?? []).entries()) {
    each(line, change.require('invoice', invoiceId), `lines[${index}]`);
  }
  emitInvoiceUpdated(change, invoiceId, before);
  return presentInvoice(change, change.require('invoice', invoiceId));
}

/** Pending items of the customer in the invoice's currency, newest first, onto a new draft. */
export function attachPending(change: Change, invoice: InvoiceRecord): void {
  for (const id of change.pendingItems(invoice.customer).reverse()) {
    const item = change.require('invoiceitem', id);
    if (item.currency === invoice.currency) attach(change, item, invoice.id);
  }
}
