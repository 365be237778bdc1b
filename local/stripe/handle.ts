// The table from operation to handler, and `expand`.
import type { Change } from './change.ts';
import {
  createBalanceTransaction,
  createCustomer,
  deleteCustomer,
  listBalanceTransactions,
  listCustomers,
  presentBalanceTransaction,
  presentCustomer,
  updateCustomer,
} from './customer.ts';
import {
  createEndpoint,
  deleteEndpoint,
  listEndpoints,
  presentEndpoint,
  updateEndpoint,
} from './endpoint.ts';
import { invalid, missing } from './error.ts';
import { listEvents, presentEvent } from './event.ts';
import {
  createInvoice,
  deleteInvoice,
  finalizeInvoice,
  listInvoices,
  markUncollectible,
  payInvoice,
  presentInvoice,
  sendInvoice,
  updateInvoice,
  voidInvoice,
} from './invoice.ts';
import {
  addLines,
  createItem,
  deleteItem,
  listItems,
  listLines,
  presentItem,
  removeLines,
  updateItem,
  updateLine,
  updateLines,
} from './line.ts';
import type { Json, JsonObject, OperationName } from './operation.ts';
import { texts } from './params.ts';
import type { Params } from './params.ts';

type Handler = (change: Change, params: Params, id: string, ids: { [name: string]: string }) => JsonObject;

const handlers: { [name in OperationName]: Handler } = {
  'Customers.create': createCustomer,
  'Customers.retrieve': (change, _, id) => presentCustomer(change.require('customer', id)),
  'Customers.update': updateCustomer,
  'Customers.del': (change, _, id) => deleteCustomer(change, id),
  'Customers.list': listCustomers,
  'Customers.createBalanceTransaction': createBalanceTransaction,
  'Customers.retrieveBalanceTransaction': (change, _, id, ids) => {
    const transaction = change.require('customer_balance_transaction', id);
    if (transaction.customer !== ids['customerId']) throw missing('customer_balance_transaction', id, 'id');
    return presentBalanceTransaction(transaction);
  },
  'Customers.listBalanceTransactions': listBalanceTransactions,
  'Invoices.create': createInvoice,
  'Invoices.retrieve': (change, _, id) => presentInvoice(change, change.require('invoice', id)),
  'Invoices.update': updateInvoice,
  'Invoices.del': (change, _, id) => deleteInvoice(change, id),
  'Invoices.list': listInvoices,
  'Invoices.addLines': addLines,
  'Invoices.updateLines': updateLines,
  'Invoices.removeLines': removeLines,
  'Invoices.updateLineItem': (change, params, id, ids) =>
    updateLine(change, params, ids['invoiceId'] ?? '', id),
  'Invoices.listLineItems': listLines,
  'Invoices.finalizeInvoice': finalizeInvoice,
  'Invoices.pay': payInvoice,
  'Invoices.sendInvoice': sendInvoice,
  'Invoices.voidInvoice': voidInvoice,
  'Invoices.markUncollectible': markUncollectible,
  'InvoiceItems.create': createItem,
  'InvoiceItems.retrieve': (change, _, id) => presentItem(change.require('invoiceitem', id)),
  'InvoiceItems.update': updateItem,
  'InvoiceItems.del': (change, _, id) => deleteItem(change, id),
  'InvoiceItems.list': listItems,
  'Events.retrieve': (change, _, id) => presentEvent(change.require('event', id)),
  'Events.list': listEvents,
  'WebhookEndpoints.create': createEndpoint,
  'WebhookEndpoints.retrieve': (change, _, id) =>
    presentEndpoint(change.require('webhook_endpoint', id), change.surroundings.apiVersion),
  'WebhookEndpoints.update': updateEndpoint,
  'WebhookEndpoints.del': (change, _, id) => deleteEndpoint(change, id),
  'WebhookEndpoints.list': listEndpoints,
};

/** Does one validated request within `change` and returns the answer. Throws a Refusal. */
export function handle(
  name: OperationName,
  change: Change,
  params: Params,
  ids: { [name: string]: string },
): JsonObject {
  const answer = handlers[name](change, params, ids['id'] ?? '', ids);
  for (const path of texts(params, 'expand') ?? []) expand(change, answer, path.split('.'), path);
  return answer;
}

const expandDepthMax = 4;

/** Replaces ids by their objects along `data.customer`, `invoice.customer`, …; refuses what is not an id. */
function expand(change: Change, at: Json | undefined, steps: string[], path: string): void {
  const [step, ...rest] = steps;
  if (step === undefined || at === null) return;
  if (steps.length > expandDepthMax)
    throw invalid(`You cannot expand more than ${expandDepthMax} levels of a property.`);
  if (Array.isArray(at)) {
    for (const element of at) expand(change, element, steps, path);
    return;
  }
  if (typeof at !== 'object' || !(step in at)) {
    throw invalid(`This property cannot be expanded (${path}).`, undefined, 'expand');
  }
  const value = at[step] ?? null;
  if (typeof value === 'string') {
    const object = expanded(change, value);
    if (object === undefined)
      throw invalid(`This property cannot be expanded (${path}).`, undefined, 'expand');
    at[step] = object;
  }
  expand(change, at[step], rest, path);
}

function expanded(change: Change, id: string): JsonObject | undefined {
  const customer = change.get('customer', id);
  if (customer !== undefined) return presentCustomer(customer);
  const invoice = change.get('invoice', id);
  if (invoice !== undefined) return presentInvoice(change, invoice);
  const item = change.get('invoiceitem', id);
  return item === undefined ? undefined : presentItem(item);
}
