// What the stand-in remembers, and the one way it changes: `apply(entry)`.
//
// An entry is everything one request did: the records as they are afterwards, the events it wrote, and the answer
// kept under its idempotency key. It is one line of the journal, so that a request is remembered whole or not at
// all, and a replay of the journal is the same calls of `apply` in the same order.
import type { JsonObject } from './operation.ts';

export interface Metadata {
  [name: string]: string;
}

export interface CustomerRecord {
  object: 'customer';
  id: string;
  created: number;
  deleted: boolean;
  name: string | null;
  email: string | null;
  description: string | null;
  phone: string | null;
  businessName: string | null;
  individualName: string | null;
  address: JsonObject | null;
  shipping: JsonObject | null;
  preferredLocales: string[];
  taxExempt: string;
  metadata: Metadata;
  /** Set by the first invoice or balance transaction. */
  currency: string | null;
  /** Minor units by currency. Negative is credit of the customer, positive is owed by the customer. */
  balances: { [currency: string]: number };
  invoicePrefix: string;
  nextInvoiceSequence: number;
}

export type InvoiceStatus = 'draft' | 'open' | 'paid' | 'uncollectible' | 'void';

export interface InvoiceRecord {
  object: 'invoice';
  id: string;
  created: number;
  customer: string;
  currency: string;
  status: InvoiceStatus;
  collectionMethod: 'charge_automatically' | 'send_invoice';
  daysUntilDue: number | null;
  dueDate: number | null;
  number: string | null;
  description: string | null;
  footer: string | null;
  statementDescriptor: string | null;
  customFields: { name: string; value: string }[] | null;
  metadata: Metadata;
  effectiveAt: number | null;
  /** Invoice item ids in the order of the lines. */
  items: string[];
  /** The customer as it was at finalization; a draft shows the customer as it is. */
  customerDetails: JsonObject | null;
  startingBalance: number;
  endingBalance: number | null;
  /** Fixed at finalization; a draft computes it. */
  amountDue: number;
  amountPaid: number;
  finalizedAt: number | null;
  paidAt: number | null;
  voidedAt: number | null;
  uncollectibleAt: number | null;
  webhooksDeliveredAt: number | null;
}

export interface ItemRecord {
  object: 'invoiceitem';
  id: string;
  /** The id of its invoice line, once it is on an invoice. */
  line: string | null;
  created: number;
  customer: string;
  invoice: string | null;
  currency: string;
  amount: number;
  unitAmountDecimal: string;
  quantityDecimal: string;
  price: string;
  product: string;
  description: string | null;
  discountable: boolean;
  metadata: Metadata;
  period: { start: number; end: number };
}

export interface BalanceTransactionRecord {
  object: 'customer_balance_transaction';
  id: string;
  created: number;
  customer: string;
  currency: string;
  amount: number;
  endingBalance: number;
  type: 'adjustment' | 'applied_to_invoice' | 'initial' | 'invoice_too_small' | 'unapplied_from_invoice';
  invoice: string | null;
  description: string | null;
  metadata: Metadata;
}

export interface EventRecord {
  object: 'event';
  id: string;
  created: number;
  type: string;
  apiVersion: string;
  data: JsonObject;
  request: { id: string; idempotency_key: string | null };
  /** Endpoints that have not yet answered 2xx. */
  pending: string[];
}

export interface EndpointRecord {
  object: 'webhook_endpoint';
  id: string;
  created: number;
  url: string;
  /** Null for the configured endpoint, whose secret is not kept. */
  secret: string | null;
  enabledEvents: string[];
  description: string | null;
  disabled: boolean;
  metadata: Metadata;
}

export interface Records {
  customer: CustomerRecord;
  invoice: InvoiceRecord;
  invoiceitem: ItemRecord;
  customer_balance_transaction: BalanceTransactionRecord;
  event: EventRecord;
  webhook_endpoint: EndpointRecord;
}
export type ObjectName = keyof Records;
export type AnyRecord = Records[ObjectName];

/** The answer kept under an idempotency key. */
export interface KeptAnswer {
  key: string;
  /** Epoch ms. */
  at: number;
  /** Of method, path and parameters. */
  fingerprint: string;
  /** The id of the request that did the work. */
  request: string;
  status: number;
  body: JsonObject;
}

export interface Entry {
  /** Epoch ms. */
  at: number;
  put?: AnyRecord[];
  remove?: { object: ObjectName; id: string }[];
  answer?: KeptAnswer;
}

/** Reads records; a change in progress reads its own writes through the same interface. */
export interface Reader {
  get<K extends ObjectName>(object: K, id: string): Records[K] | undefined;
  /** Oldest first. */
  all<K extends ObjectName>(object: K): Records[K][];
  /** Ids of a customer's items that are on no invoice, oldest first. */
  pendingItems(customer: string): string[];
}

/** `events.list` reaches back this far. */
export const eventsKeptMs = 30 * 24 * 3_600_000;
/** Stripe keeps idempotency keys for at least 24 hours; here it is exactly that. */
export const answersKeptMs = 24 * 3_600_000;

type Table<K extends ObjectName> = Map<string, Records[K]>;

export class State implements Reader {
  readonly answers = new Map<string, KeptAnswer>();
  private readonly tables: { [K in ObjectName]: Table<K> } = {
    customer: new Map(),
    invoice: new Map(),
    invoiceitem: new Map(),
    customer_balance_transaction: new Map(),
    event: new Map(),
    webhook_endpoint: new Map(),
  };
  private readonly pending = new Map<string, Set<string>>();

  get<K extends ObjectName>(object: K, id: string): Records[K] | undefined {
    return this.tables[object].get(id);
  }

  all<K extends ObjectName>(object: K): Records[K][] {
    return [...this.tables[object].values()];
  }

  pendingItems(customer: string): string[] {
    return [...(this.pending.get(customer) ?? [])];
  }

  apply(entry: Entry): void {
    for (const record of entry.put ?? []) {
      (this.tables[record.object] as Map<string, AnyRecord>).set(record.id, record);
      if (record.object === 'invoiceitem') this.index(record, record.invoice === null);
    }
    for (const { object, id } of entry.remove ?? []) {
      const item = object === 'invoiceitem' ? this.tables.invoiceitem.get(id) : undefined;
      if (item !== undefined) this.index(item, false);
      this.tables[object].delete(id);
    }
    if (entry.answer !== undefined) {
      // Deleted first, so that the map stays ordered by age for `expire`.
      this.answers.delete(entry.answer.key);
      this.answers.set(entry.answer.key, entry.answer);
    }
  }

  /** Forgets events and kept answers that are too old. Both tables are in the order of time. */
  expire(nowMs: number): void {
    for (const event of this.tables.event.values()) {
      if (event.created * 1000 > nowMs - eventsKeptMs) break;
      this.tables.event.delete(event.id);
    }
    for (const answer of this.answers.values()) {
      if (answer.at > nowMs - answersKeptMs) break;
      this.answers.delete(answer.key);
    }
  }

  /** The whole state as entries, for a compacted journal. */
  *snapshot(): Generator<Entry> {
    for (const table of Object.values(this.tables) as Map<string, AnyRecord>[]) {
      for (const record of table.values()) yield { at: record.created * 1000, put: [record] };
    }
    for (const answer of this.answers.values()) yield { at: answer.at, answer };
  }

  private index(item: ItemRecord, isPending: boolean): void {
    let ids = this.pending.get(item.customer);
    if (ids === undefined) this.pending.set(item.customer, (ids = new Set()));
    if (isPending) ids.add(item.id);
    else ids.delete(item.id);
  }
}
