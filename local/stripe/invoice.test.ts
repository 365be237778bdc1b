// The state machine without HTTP: handlers on a state in memory. Every answer and every event's object is held
// against the SDK's own type for it.
import { Ajv } from 'ajv';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Change } from './change.ts';
import { deriveOperations } from './derive.ts';
import { Refusal } from './error.ts';
import { handle } from './handle.ts';
import type { JsonObject, OperationName, Operations } from './operation.ts';
import { renderPage } from './page.ts';
import type { Params } from './params.ts';
import { State } from './state.ts';

let operations: Operations;
let ajv: Ajv;
let state: State;
let counter = 0;
let nowMs = Date.UTC(2026, 10, 1);

beforeAll(() => {
  operations = deriveOperations();
  ajv = new Ajv({ strict: false });
  ajv.addSchema({ $id: 'stripe', $defs: operations.$defs });
});

beforeEach(() => {
  state = new State();
  counter = 0;
  nowMs = Date.UTC(2026, 10, 1);
});

function checkShape(object: JsonObject): void {
  if (object['object'] === 'list') {
    for (const each of object['data'] as JsonObject[]) checkShape(each);
    return;
  }
  const reference = operations.objects[String(object['object'])]?.$ref;
  if (object['deleted'] === true || reference === undefined) return;
  const validate = ajv.getSchema(`stripe${reference}`);
  if (validate === undefined) throw new Error(`no schema for ${reference}`);
  if (validate(object) !== true) throw new Error(`${reference}: ${ajv.errorsText(validate.errors)}`);
}

function run(name: OperationName, params: Params = {}, ids: { [name: string]: string } = {}): JsonObject {
  const change = new Change(state, {
    nowMs,
    newId: (prefix) => `${prefix}_${String((counter += 1)).padStart(12, '0')}`,
    apiVersion: operations.apiVersion,
    url: 'http://127.0.0.1:1',
    request: { id: 'req_1', idempotency_key: null },
  });
  const answer = handle(name, change, params, ids);
  checkShape(answer);
  const entry = change.entry();
  for (const record of entry.put ?? [])
    if (record.object === 'event') checkShape(record.data['object'] as JsonObject);
  // The journal holds JSON, so the state must be the same after a round trip through it.
  state.apply(JSON.parse(JSON.stringify(entry)) as typeof entry);
  return answer;
}

function refused(name: OperationName, params: Params, ids: { [name: string]: string } = {}): string {
  try {
    run(name, params, ids);
  } catch (error) {
    if (error instanceof Refusal) return error.details.code ?? error.details.message;
    throw error;
  }
  throw new Error(`${name} was not refused`);
}

function customer(params: Params = {}): string {
  return String(run('Customers.create', { name: 'Ada', ...params })['id']);
}

/** A draft with one line an amount. */
function draft(owner: string, amounts: number[], params: Params = {}): string {
  const id = String(run('Invoices.create', { customer: owner, currency: 'usd', ...params })['id']);
  for (const amount of amounts)
    run('InvoiceItems.create', { customer: owner, invoice: id, amount, currency: 'usd' });
  return id;
}

function eventTypes(): string[] {
  return state.all('event').map((event) => event.type);
}

describe('finalization', () => {
  // Starting balance, line amounts; then: status, amount due, ending balance. Worked out by hand.
  test.each<[number, number[], string, number, number]>([
    [0, [1000, 234], 'open', 1234, 0],
    [0, [1000, -300], 'open', 700, 0],
    [0, [], 'paid', 0, 0],
    [0, [100, -350], 'paid', 0, -250], // a negative total is credit
    [-400, [1000], 'open', 600, 0], // credit is used up first
    [-1500, [1000], 'paid', 0, -500], // credit covers it all
    [-1000, [1000], 'paid', 0, 0],
    [-200, [-300], 'paid', 0, -500],
    [250, [1000], 'open', 1250, 0], // a debit is added
    [0, [49], 'paid', 0, 49], // below the minimum charge of 0.50 USD
    [0, [50], 'open', 50, 0],
    [-980, [1000], 'paid', 0, 20],
    [30, [25], 'open', 55, 0], // two small debts together are large enough
  ])('balance %i and lines %j', (balance, amounts, status, due, ending) => {
    const owner = customer(balance === 0 ? {} : { balance });
    const id = draft(owner, amounts);
    const total = amounts.reduce((left, right) => left + right, 0);
    expect(run('Invoices.retrieve', {}, { id })).toMatchObject({
      total,
      starting_balance: balance,
      ending_balance: null,
    });

    const invoice = run('Invoices.finalizeInvoice', {}, { id });
    expect(invoice).toMatchObject({
      status,
      amount_due: due,
      total,
      starting_balance: balance,
      ending_balance: ending,
    });
    expect(invoice['amount_remaining']).toBe(due);
    const after = run('Customers.retrieve', {}, { id: owner });
    expect(after['balance']).toBe(ending);

    // The balance is the sum of its transactions.
    const transactions = state.all('customer_balance_transaction').filter((each) => each.customer === owner);
    expect(transactions.reduce((left, each) => left + each.amount, 0)).toBe(ending);
    expect(eventTypes().filter((type) => type === 'invoice.paid').length).toBe(status === 'paid' ? 1 : 0);
  });

  test('numbers count up within a customer and are assigned once', () => {
    const owner = customer({ invoice_prefix: 'ADA' });
    const numbers = [draft(owner, [100]), draft(owner, [100])].map((id) => {
      expect(run('Invoices.retrieve', {}, { id })['number']).toBeNull();
      return run('Invoices.finalizeInvoice', {}, { id })['number'];
    });
    expect(numbers).toEqual(['ADA-0001', 'ADA-0002']);
    const own = draft(owner, [100], { number: 'INV-7' });
    expect(run('Invoices.finalizeInvoice', {}, { id: own })['number']).toBe('INV-7');
    expect(refused('Invoices.create', { customer: owner, number: 'INV-7' })).toMatch(/already in use/);
  });

  test('a finalized invoice cannot change', () => {
    const owner = customer();
    const id = draft(owner, [100]);
    const invoice = run('Invoices.finalizeInvoice', {}, { id });
    const line = (invoice['lines'] as JsonObject)['data'] as JsonObject[];
    const item = state.all('invoiceitem')[0]?.id ?? '';
    expect(refused('InvoiceItems.create', { customer: owner, invoice: id, amount: 1, currency: 'usd' })).toBe(
      'invoice_not_editable',
    );
    expect(refused('InvoiceItems.update', { amount: 1 }, { id: item })).toBe('invoice_not_editable');
    expect(refused('InvoiceItems.del', {}, { id: item })).toBe('invoice_not_editable');
    expect(refused('Invoices.addLines', { lines: [{ amount: 1 }] }, { id })).toBe('invoice_not_editable');
    expect(
      refused('Invoices.updateLineItem', { amount: 1 }, { invoiceId: id, id: String(line[0]?.['id']) }),
    ).toBe('invoice_not_editable');
    expect(refused('Invoices.update', { description: 'x' }, { id })).toBe('invoice_not_editable');
    expect(refused('Invoices.finalizeInvoice', {}, { id })).toBe('invoice_not_editable');
    expect(refused('Invoices.del', {}, { id })).toBe('invoice_not_editable');
    expect(run('Invoices.update', { metadata: { run: '1' } }, { id })['metadata']).toEqual({ run: '1' });
    // The customer's later name does not rewrite it either.
    run('Customers.update', { name: 'Grace' }, { id: owner });
    expect(run('Invoices.retrieve', {}, { id })['customer_name']).toBe('Ada');
  });
});

describe('after finalization', () => {
  test('paying out of band settles the invoice and says so', () => {
    const id = draft(customer(), [1234]);
    run('Invoices.finalizeInvoice', {}, { id });
    const before = state.all('event').length;
    expect(refused('Invoices.pay', {}, { id })).toBe('resource_missing');
    const paid = run('Invoices.pay', { paid_out_of_band: true }, { id });
    expect(paid).toMatchObject({ status: 'paid', amount_due: 1234, amount_paid: 1234, amount_remaining: 0 });
    expect(eventTypes().slice(before)).toEqual([
      'invoice.updated',
      'invoice.paid',
      'invoice.payment_succeeded',
    ]);
    expect(refused('Invoices.pay', { paid_out_of_band: true }, { id })).toBe('Invoice is already paid');
    expect(refused('Invoices.voidInvoice', {}, { id })).toMatch(/isn't open/);
  });

  test('paying a draft finalizes it first', () => {
    const id = draft(customer(), [1234]);
    expect(run('Invoices.pay', { paid_out_of_band: true }, { id })).toMatchObject({
      status: 'paid',
      amount_paid: 1234,
    });
    expect(eventTypes()).toContain('invoice.finalized');
  });

  test('voiding gives back the credit that finalization used', () => {
    const owner = customer({ balance: -400 });
    const id = draft(owner, [1000]);
    run('Invoices.finalizeInvoice', {}, { id });
    expect(run('Customers.retrieve', {}, { id: owner })['balance']).toBe(0);
    expect(run('Invoices.voidInvoice', {}, { id })['status']).toBe('void');
    expect(run('Customers.retrieve', {}, { id: owner })['balance']).toBe(-400);
    const list = run('Customers.listBalanceTransactions', {}, { id: owner });
    const types = (list['data'] as JsonObject[]).map((each) => each['type']);
    expect(types).toEqual(['unapplied_from_invoice', 'applied_to_invoice', 'initial']);
    expect(refused('Invoices.pay', { paid_out_of_band: true }, { id })).toMatch(/void/);
  });

  test('an uncollectible invoice can still be paid or voided', () => {
    const [first, second] = [draft(customer(), [100]), draft(customer(), [100])];
    for (const id of [first, second]) {
      run('Invoices.finalizeInvoice', {}, { id });
      expect(run('Invoices.markUncollectible', {}, { id })['status']).toBe('uncollectible');
    }
    expect(run('Invoices.pay', { paid_out_of_band: true }, { id: first })['status']).toBe('paid');
    expect(run('Invoices.voidInvoice', {}, { id: second })['status']).toBe('void');
  });
});

describe('lines', () => {
  test('the 251st item is refused, whole requests at a time', () => {
    const owner = customer();
    const id = draft(owner, []);
    const lines = Array.from({ length: 250 }, (_, index) => ({
      amount: index,
      description: `line ${index}`,
    }));
    expect(refused('Invoices.addLines', { lines: [...lines, { amount: 1 }] }, { id })).toMatch(/at most 250/);
    expect(run('Invoices.retrieve', {}, { id })['total']).toBe(0);
    expect(run('Invoices.addLines', { lines }, { id })['total']).toBe(31_125); // 0 + 1 + … + 249
    expect(
      refused('InvoiceItems.create', { customer: owner, invoice: id, amount: 1, currency: 'usd' }),
    ).toMatch(/at most 250/);
  });

  test('an invoice shows ten lines, the others are read page by page in order', () => {
    const id = draft(customer(), []);
    run(
      'Invoices.addLines',
      { lines: Array.from({ length: 25 }, (_, index) => ({ amount: index })) },
      { id },
    );
    const shown = run('Invoices.retrieve', {}, { id })['lines'] as JsonObject;
    expect(shown['has_more']).toBe(true);
    expect((shown['data'] as JsonObject[]).length).toBe(10);
    const amounts: unknown[] = [];
    let after: Params = {};
    for (;;) {
      const page = run('Invoices.listLineItems', { limit: 7, ...after }, { id });
      const data = page['data'] as JsonObject[];
      amounts.push(...data.map((line) => line['amount']));
      if (page['has_more'] !== true) break;
      after = { starting_after: data.at(-1)?.['id'] ?? null };
    }
    expect(amounts).toEqual(Array.from({ length: 25 }, (_, index) => index));
  });

  test('unit amount times quantity is exact and rounded once', () => {
    const owner = customer();
    const id = draft(owner, []);
    const item = run('InvoiceItems.create', {
      customer: owner,
      invoice: id,
      currency: 'usd',
      unit_amount_decimal: '0.0025',
      quantity_decimal: '18059974.5',
    });
    // 0.0025 × 18,059,974.5 = 45,149.93625
    expect(item).toMatchObject({ amount: 45150, quantity: 18059974, quantity_decimal: '18059974.5' });
    expect(refused('InvoiceItems.create', { customer: owner, currency: 'usd', amount: 1, quantity: 2 })).toBe(
      'parameters_exclusive',
    );
    expect(refused('InvoiceItems.create', { customer: owner, currency: 'usd' })).toBe('parameter_missing');
    expect(refused('InvoiceItems.create', { customer: owner, amount: 1 })).toBe('parameter_missing');
    expect(
      refused('InvoiceItems.create', { customer: owner, amount: 1, currency: 'eur', invoice: id }),
    ).toMatch(/does not match/);
  });

  test('pending items join a new invoice only when asked to, newest first', () => {
    const owner = customer();
    for (const amount of [1, 2, 3]) run('InvoiceItems.create', { customer: owner, amount, currency: 'usd' });
    run('InvoiceItems.create', { customer: owner, amount: 9, currency: 'eur' });
    expect(run('Invoices.create', { customer: owner, currency: 'usd' })['total']).toBe(0);
    const invoice = run('Invoices.create', {
      customer: owner,
      currency: 'usd',
      pending_invoice_items_behavior: 'include',
    });
    const lines = (invoice['lines'] as JsonObject)['data'] as JsonObject[];
    expect(lines.map((line) => line['amount'])).toEqual([3, 2, 1]);
    expect(
      (run('InvoiceItems.list', { pending: true })['data'] as JsonObject[]).map((each) => each['amount']),
    ).toEqual([9]);
  });

  test('lines can be changed and taken off again', () => {
    const id = draft(customer(), [10, 20, 30]);
    const lines = (run('Invoices.retrieve', {}, { id })['lines'] as JsonObject)['data'] as JsonObject[];
    const [first, second, third] = lines.map((line) => String(line['id']));
    run('Invoices.updateLineItem', { amount: 11 }, { invoiceId: id, id: first ?? '' });
    run('Invoices.updateLines', { lines: [{ id: second ?? '', description: 'x', amount: 22 }] }, { id });
    expect(run('Invoices.retrieve', {}, { id })['total']).toBe(63);
    const after = run(
      'Invoices.removeLines',
      {
        lines: [
          { id: first ?? '', behavior: 'delete' },
          { id: third ?? '', behavior: 'unassign' },
        ],
      },
      { id },
    );
    expect(after['total']).toBe(22);
    expect(state.all('invoiceitem').map((item) => item.amount)).toEqual([22, 30]);
  });
});

describe('what is not there is refused, not ignored', () => {
  test.each<[OperationName, Params, string]>([
    ['Invoices.create', { customer: 'cus_none' }, 'resource_missing'],
    ['Invoices.create', {}, 'parameter_missing'],
    ['Invoices.create', { customer: '$', auto_advance: true }, 'stand_in_unsupported'],
    ['Invoices.create', { customer: '$', automatic_tax: { enabled: true } }, 'stand_in_unsupported'],
    ['Invoices.create', { customer: '$', subscription: 'sub_1' }, 'stand_in_unsupported'],
    ['Invoices.create', { customer: '$', collection_method: 'send_invoice' }, 'parameter_missing'],
    [
      'InvoiceItems.create',
      { customer: '$', currency: 'usd', pricing: { price: 'price_1' } },
      'resource_missing',
    ],
    ['Customers.create', { source: 'tok_visa' }, 'stand_in_unsupported'],
    ['Customers.list', { limit: 101 }, 'parameter_invalid_integer'],
    ['Customers.list', { starting_after: 'cus_none' }, 'resource_missing'],
    ['Invoices.list', { expand: ['data.total'] }, 'ok'],
  ])('%s %j', (name, params, code) => {
    const filled = Object.fromEntries(
      Object.entries(params).map(([key, value]) => [key, value === '$' ? customer() : value]),
    );
    if (code === 'ok') expect(run(name, filled)['data']).toEqual([]);
    else expect(refused(name, filled)).toBe(code);
    expect(state.all('invoice')).toEqual([]);
  });

  test('expand puts the object in the place of its id', () => {
    const owner = customer();
    const id = draft(owner, [100]);
    const invoice = run('Invoices.retrieve', { expand: ['customer'] }, { id });
    expect((invoice['customer'] as JsonObject)['name']).toBe('Ada');
    const items = run('InvoiceItems.list', { expand: ['data.invoice.customer'] });
    expect(JSON.stringify(items)).toContain('"name":"Ada"');
    expect(refused('Invoices.retrieve', { expand: ['currency'] }, { id })).toMatch(/cannot be expanded/);
    expect(refused('Invoices.retrieve', { expand: ['nothing'] }, { id })).toMatch(/cannot be expanded/);
  });
});

test('an update event carries the attributes as they were', () => {
  const owner = customer({ metadata: { plan: 'a', team: 'x' } });
  run('Customers.update', { name: 'Grace', metadata: { plan: 'b', team: '' } }, { id: owner });
  run('Customers.update', { name: 'Grace' }, { id: owner });
  const events = state.all('event');
  expect(events.map((event) => event.type)).toEqual(['customer.created', 'customer.updated']);
  expect(events[1]?.data['previous_attributes']).toEqual({ name: 'Ada', metadata: { plan: 'a', team: 'x' } });
  expect((events[1]?.data['object'] as JsonObject)['metadata']).toEqual({ plan: 'b' });
});

test('events are forgotten after 30 days', () => {
  customer();
  nowMs += 30 * 86_400_000 - 1000;
  state.expire(nowMs);
  customer();
  expect(eventTypes().length).toBe(2);
  nowMs += 2000;
  state.expire(nowMs);
  expect(eventTypes().length).toBe(1);
  expect(state.all('customer').length).toBe(2);
});

test('a snapshot rebuilds the same state', () => {
  const id = draft(customer({ balance: -50 }), [100, 200]);
  run('Invoices.finalizeInvoice', {}, { id });
  run('InvoiceItems.create', { customer: customer(), amount: 5, currency: 'usd' });
  const copy = new State();
  for (const entry of state.snapshot()) copy.apply(entry);
  expect([...copy.snapshot()]).toEqual([...state.snapshot()]);
  for (const each of state.all('customer'))
    expect(copy.pendingItems(each.id)).toEqual(state.pendingItems(each.id));
});

test('the page shows amounts and lets no markup through', () => {
  const owner = customer({ name: '<script>alert(1)</script>' });
  const id = draft(owner, [123456]);
  run('Invoices.finalizeInvoice', {}, { id });
  const page = renderPage(state);
  expect(page).toContain('1234.56 USD');
  expect(page).toContain(`id="${id}"`);
  expect(page).not.toContain('<script>');
});
