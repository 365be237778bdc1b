import { createHmac } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { BadFault, FaultPlan, readFault } from './fault.ts';
import { sign } from './webhook.ts';

describe('ordered faults', () => {
  test('a fault strikes the next n requests that fit, in the order of the orders', () => {
    const plan = new FaultPlan();
    plan.add(readFault({ kind: 'reset', count: 2, path: '/v1/invoices', method: 'POST' }));
    plan.add(readFault({ kind: 'status', status: 429 }));
    expect(plan.take('POST', '/v1/invoices/in_1/pay')?.kind).toBe('reset');
    expect(plan.take('GET', '/v1/invoices')?.status).toBe(429);
    expect(plan.take('GET', '/v1/invoices')).toBeUndefined();
    expect(plan.take('POST', '/v1/invoices')?.kind).toBe('reset');
    expect(plan.take('POST', '/v1/invoices')).toBeUndefined();
  });

  test('only a 500 is kept under the idempotency key unless the order says otherwise', () => {
    expect(readFault({ kind: 'status', status: 500 }).stored).toBe(true);
    expect(readFault({ kind: 'status', status: 429 }).stored).toBe(false);
    expect(readFault({ kind: 'status', status: 500, stored: false }).stored).toBe(false);
  });

  test.each([
    [null],
    [{ kind: 'fire' }],
    [{ kind: 'cut', when: 'before' }],
    [{ kind: 'status', status: 200 }],
    [{ kind: 'reset', count: 0 }],
    [{ kind: 'reset', often: 2 }],
  ])('%j is refused', (order) => {
    expect(() => readFault(order)).toThrow(BadFault);
  });
});

test('a signature is HMAC-SHA256 over time and body', () => {
  const expected = createHmac('sha256', 'whsec_x').update('1700000000.{"id":"evt_1"}').digest('hex');
  expect(sign('{"id":"evt_1"}', 'whsec_x', 1_700_000_000)).toBe(`t=1700000000,v1=${expected}`);
});
