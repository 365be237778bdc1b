import { beforeAll, describe, expect, test } from 'vitest';
import { deriveOperations } from './derive.ts';
import { Refusal } from './error.ts';
import { parseForm } from './form.ts';
import { matchOperation, operationsByResource } from './operation.ts';
import type { OperationName, Operations } from './operation.ts';
import { createValidator } from './validate.ts';
import type { Validator } from './validate.ts';

let operations: Operations;
let validator: Validator;

beforeAll(() => {
  operations = deriveOperations();
  validator = createValidator(operations);
});

function refusal(
  name: OperationName,
  form: string,
): { code: string | undefined; param: string | undefined; message: string } {
  try {
    validator.check(name, parseForm(form));
  } catch (error) {
    if (error instanceof Refusal) {
      const { code, param, message } = error.details;
      return { code, param, message };
    }
    throw error;
  }
  throw new Error(`${name} accepted ${form}`);
}

describe('the derivation from the types of the SDK', () => {
  test('every operation of the table has a method, a path and closed parameters', () => {
    const names = Object.entries(operationsByResource).flatMap(([file, methods]) =>
      methods.map((method) => `${file}.${method}`),
    );
    expect(Object.keys(operations.operations)).toEqual(names);
    for (const operation of Object.values(operations.operations)) {
      expect(operation.path).toMatch(/^\/v1\/[a-z_]+/);
      expect(operation.params.additionalProperties).toBe(false);
    }
    expect(operations.apiVersion).toBe('2026-10-28.endive');
  });

  test.each<[string, string, OperationName | undefined, { [name: string]: string }]>([
    ['POST', '/v1/customers', 'Customers.create', {}],
    ['GET', '/v1/invoices/in_1', 'Invoices.retrieve', { id: 'in_1' }],
    ['POST', '/v1/invoices/in_1/finalize', 'Invoices.finalizeInvoice', { id: 'in_1' }],
    ['POST', '/v1/invoices/in_1/lines/il_2', 'Invoices.updateLineItem', { invoiceId: 'in_1', id: 'il_2' }],
    ['DELETE', '/v1/invoiceitems/ii_1', 'InvoiceItems.del', { id: 'ii_1' }],
    ['GET', '/v1/invoices/', undefined, {}],
    ['PUT', '/v1/invoices/in_1', undefined, {}],
    ['GET', '/v1/subscriptions', undefined, {}],
  ])('%s %s', (method, path, name, ids) => {
    const found = matchOperation(operations.operations, method, path);
    expect(found?.name).toBe(name);
    if (name !== undefined) expect(found?.ids).toEqual(ids);
  });
});

describe('the validator', () => {
  test.each<[OperationName, string, string | undefined, string]>([
    ['Customers.create', 'nmae=x', 'parameter_unknown', 'nmae'],
    ['Customers.create', 'address[town]=x', 'parameter_unknown', 'address[town]'],
    ['Customers.create', 'tax_exempt=maybe', undefined, 'tax_exempt'],
    ['Customers.retrieve', 'limit=1', 'parameter_unknown', 'limit'],
    ['Invoices.create', 'collection_method=by_post', undefined, 'collection_method'],
    ['Invoices.create', 'auto_advance=yes', undefined, 'auto_advance'],
    ['Invoices.create', 'days_until_due=ten', 'parameter_invalid_integer', 'days_until_due'],
    ['Invoices.create', 'days_until_due=', 'parameter_invalid_empty', 'days_until_due'],
    ['Invoices.create', 'collection_method=', 'parameter_invalid_empty', 'collection_method'],
    ['Invoices.create', 'subscription_details[x]=1', 'parameter_unknown', 'subscription_details'],
    ['Invoices.list', 'status=unpaid', undefined, 'status'],
    ['Invoices.list', 'created[after]=1', 'parameter_unknown', 'created[after]'],
    ['Invoices.addLines', '', 'parameter_missing', 'lines'],
    ['Invoices.addLines', 'lines[0][amount]=1&lines[1][price]=x', 'parameter_unknown', 'lines[1][price]'],
    ['Invoices.addLines', 'lines[0][period][start]=1', 'parameter_missing', 'lines[0][period][end]'],
    ['Invoices.addLines', 'lines[0][amount]=1.5', 'parameter_invalid_integer', 'lines[0][amount]'],
    ['Invoices.pay', 'paid_out_of_band=1', undefined, 'paid_out_of_band'],
    ['Invoices.finalizeInvoice', 'due_date=1', 'parameter_unknown', 'due_date'],
    ['InvoiceItems.create', 'amount=12345678901234567890', 'parameter_invalid_integer', 'amount'],
    ['InvoiceItems.create', 'unit_amount=5', 'parameter_unknown', 'unit_amount'],
    ['InvoiceItems.create', 'unit_amount_decimal=1e3', 'parameter_invalid_decimal', 'unit_amount_decimal'],
    [
      'InvoiceItems.create',
      'quantity_decimal=0.0000000000001',
      'parameter_invalid_decimal',
      'quantity_decimal',
    ],
    ['InvoiceItems.create', 'price_data[currency]=usd', 'parameter_missing', 'price_data[product]'],
    ['InvoiceItems.create', 'metadata[a][b]=1', undefined, 'metadata[a]'],
    ['WebhookEndpoints.create', 'url=http://x', 'parameter_missing', 'enabled_events'],
    [
      'WebhookEndpoints.create',
      'url=http://x&enabled_events[]=invoice.payed',
      undefined,
      'enabled_events[0]',
    ],
    ['Customers.createBalanceTransaction', 'amount=1', 'parameter_missing', 'currency'],
  ])('%s refuses %s', (name, form, code, param) => {
    const found = refusal(name, form);
    expect(found).toMatchObject({ code, param });
  });

  test.each<[OperationName, string, unknown]>([
    ['Customers.create', 'name=&metadata=&balance=-500', { name: '', metadata: '', balance: -500 }],
    ['Customers.create', 'address[line1]=1+Main&phone=007', { address: { line1: '1 Main' }, phone: '007' }],
    ['Invoices.create', 'auto_advance=false&metadata[n]=1', { auto_advance: false, metadata: { n: '1' } }],
    ['Invoices.list', 'created[gte]=5&limit=3', { created: { gte: 5 }, limit: 3 }],
    ['Invoices.list', 'created=5', { created: 5 }],
    [
      'Invoices.addLines',
      'lines[1][amount]=-2&lines[0][quantity_decimal]=1.5&lines[0][discounts]=',
      { lines: [{ quantity_decimal: '1.5', discounts: '' }, { amount: -2 }] },
    ],
    [
      'Events.list',
      'types[]=invoice.paid&types[]=invoice.voided',
      { types: ['invoice.paid', 'invoice.voided'] },
    ],
    [
      'WebhookEndpoints.create',
      'url=http://x&enabled_events[0]=*',
      { url: 'http://x', enabled_events: ['*'] },
    ],
  ])('%s accepts %s', (name, form, expected) => {
    expect(JSON.parse(JSON.stringify(validator.check(name, parseForm(form))))).toEqual(expected);
  });

  test('the messages are those of Stripe', () => {
    expect(refusal('Customers.create', 'nmae=x').message).toBe('Received unknown parameter: nmae');
    expect(refusal('Invoices.addLines', '').message).toBe('Missing required param: lines.');
    expect(refusal('Invoices.create', 'collection_method=by_post').message).toBe(
      'Invalid collection_method: must be one of charge_automatically, send_invoice',
    );
    expect(refusal('Invoices.create', 'days_until_due=ten').message).toBe('Invalid integer: ten');
  });
});
