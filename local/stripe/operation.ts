// What the stand-in can do, named as the SDK names it: `<resource file>.<method>`.
//
// Only the names are written here. The HTTP method, the path and the schema of the parameters of each come
// out of the installed SDK itself (see derive.ts), so that this table cannot drift away from what
// `stripe.invoices.finalizeInvoice()` really sends.

/** A JSON value as it leaves the stand-in. Amounts are integers in minor units, decimals are strings. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export interface JsonObject {
  [key: string]: Json;
}

/** The subset of JSON schema that the derivation emits and that validate.ts coerces and checks. */
export interface Schema {
  type?: 'string' | 'integer' | 'number' | 'boolean' | 'object' | 'array' | 'null';
  enum?: (string | number | boolean | null)[];
  pattern?: string;
  properties?: { [name: string]: Schema };
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  anyOf?: Schema[];
  $ref?: string;
}

export const operationsByResource = {
  Customers: [
    'create',
    'retrieve',
    'update',
    'del',
    'list',
    'createBalanceTransaction',
    'retrieveBalanceTransaction',
    'listBalanceTransactions',
  ],
  Invoices: [
    'create',
    'retrieve',
    'update',
    'del',
    'list',
    'addLines',
    'updateLines',
    'removeLines',
    'updateLineItem',
    'listLineItems',
    'finalizeInvoice',
    'pay',
    'sendInvoice',
    'voidInvoice',
    'markUncollectible',
  ],
  InvoiceItems: ['create', 'retrieve', 'update', 'del', 'list'],
  Events: ['retrieve', 'list'],
  WebhookEndpoints: ['create', 'retrieve', 'update', 'del', 'list'],
} as const;

type Table = typeof operationsByResource;
/** For example `Invoices.finalizeInvoice`. */
export type OperationName = { [R in keyof Table]: `${R}.${Table[R][number]}` }[keyof Table];

export interface Operation {
  method: 'GET' | 'POST' | 'DELETE';
  /** With the SDK's own names for the ids in it: `/v1/invoices/{invoiceId}/lines/{id}`. */
  path: string;
  params: Schema;
}

/** The content of operations.json. */
export interface Operations {
  sdkVersion: string;
  apiVersion: string;
  operations: { [name in OperationName]: Operation };
  /** Schemas of what Stripe answers, by the value of `object`; the tests hold every answer against them. */
  objects: { [object: string]: Schema };
  $defs: { [name: string]: Schema };
}

/** The types in the SDK that describe each answered `object`, and the file that declares them. */
export const answeredTypes: { [object: string]: { file: string; type: string } } = {
  customer: { file: 'Customers', type: 'Customer' },
  invoice: { file: 'Invoices', type: 'Invoice' },
  line_item: { file: 'InvoiceLineItems', type: 'InvoiceLineItem' },
  invoiceitem: { file: 'InvoiceItems', type: 'InvoiceItem' },
  event: { file: 'Events', type: 'EventBase' },
  webhook_endpoint: { file: 'WebhookEndpoints', type: 'WebhookEndpoint' },
  customer_balance_transaction: { file: 'CustomerBalanceTransactions', type: 'CustomerBalanceTransaction' },
};

/** Finds the operation of a request. Literal path segments win over ids; undefined when Stripe has no such URL. */
export function matchOperation(
  operations: Operations['operations'],
  method: string,
  path: string,
): { name: OperationName; ids: { [name: string]: string } } | undefined {
  const segments = path.split('/');
  for (const [name, operation] of Object.entries(operations)) {
    if (operation.method !== method) continue;
    const wanted = operation.path.split('/');
    if (wanted.length !== segments.length) continue;
    const ids: { [name: string]: string } = {};
    const fits = wanted.every((part, index) => {
      const segment = segments[index] ?? '';
      if (!part.startsWith('{')) return part === segment;
      ids[part.slice(1, -1)] = segment;
      return segment !== '';
    });
    if (fits) return { name: name as OperationName, ids };
  }
  return undefined;
}
