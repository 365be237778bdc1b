import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { pushInvoice, type PushOutcome } from '../billing-sync/push.ts';
import type { StripeGateway } from '../billing-sync/stripe.ts';
import type { Invoice, InvoiceLine } from '../ledger/index.ts';
import {
  BillingBench,
  dyingAt,
  type StripeCustomer,
  type StripeInvoice,
  type StripeLine,
} from './billing.ts';

// One invoice gets into Stripe exactly once and to the cent, whatever happens on the way.

let bench: BillingBench;
beforeAll(async () => {
  bench = await BillingBench.start(['billing']);
  await bench.startStripe();
});
afterAll(() => bench?.stop());
afterEach(() => bench.order('DELETE', 'faults'));

const OCTOBER = Date.UTC(2026, 9, 1);
const NOVEMBER = Date.UTC(2026, 10, 1);
let count = 0;

/** 10.00 + 2.50 - 0.75 = 11.75 dollars, of a customer that Stripe has not seen. */
function makeInvoice(): Invoice {
  const n = ++count;
  const line = (id: string, kind: InvoiceLine['kind'], amount: bigint): InvoiceLine => ({
    id: `${id}-${n}`,
    kind,
    priceKey: 'input',
    meter: 'input_tokens',
    plan: 'pro@1',
    periodStart: OCTOBER,
    periodEnd: NOVEMBER,
    description: `${kind} ${id}`,
    quantity: 0n,
    included: 0n,
    amount,
    tiers: [],
  });
  return {
    id: `inv-${n}`,
    number: `ACME-${n}`,
    tenant: 'acme',
    customer: { id: `customer-${n}`, name: `Customer ${n}` },
    currency: 'USD',
    periodStart: OCTOBER,
    periodEnd: NOVEMBER,
    status: 'issued',
    lines: [line('a', 'usage', 1_000n), line('b', 'adjustment', 250n), line('c', 'credit', -75n)],
    total: 1_175n,
    issuedAtMs: bench.clock.now(),
    cut: {},
    delivery: null,
  };
}

async function push(invoice: Invoice, ctx = bench.billing()): Promise<PushOutcome> {
  const untilMs = bench.clock.now() + 20_000;
  return pushInvoice(ctx, { invoice, outboxKey: `${ctx.installation}/outbox-${invoice.id}`, untilMs });
}

const IMPATIENT_MS = 250;

/** Attempts until it is pushed; each one as a process of its own would make it. */
async function pushAtLast(invoice: Invoice): Promise<PushOutcome> {
  let outcome: PushOutcome | undefined;
  for (let attempt = 0; attempt < 8; attempt++) {
    outcome = await push(invoice, bench.billing(bench.gateway(IMPATIENT_MS)));
    if (outcome.outcome !== 'postponed') return outcome;
  }
  throw new Error(`still not pushed: ${JSON.stringify(outcome)}`);
}

async function expectExactlyOne(invoice: Invoice): Promise<void> {
  const customers = (await bench.has<StripeCustomer>('customers')).filter(
    (each) => each.metadata['tallyline_customer'] === invoice.customer.id,
  );
  expect(customers).toHaveLength(1);
  const invoices = (await bench.has<StripeInvoice>('invoices')).filter(
    (each) => each.metadata['tallyline_invoice'] === invoice.id,
  );
  expect(invoices).toMatchObject([
    { status: 'open', total: 1_175, currency: 'usd', customer: customers[0]?.id },
  ]);
  const lines = await bench.has<StripeLine>(`invoices/${invoices[0]?.id}/lines`);
  expect(lines.map((each) => [each.metadata['tallyline_line'], each.amount, each.description])).toEqual(
    invoice.lines.map((each) => [each.id, Number(each.amount), each.description]),
  );
  expect(await bench.has('invoiceitems?pending=true')).toEqual([]);
}

describe('a push', () => {
  test('an invoice reaches Stripe to the cent, and a second push creates nothing new', async () => {
    const invoice = makeInvoice();
    const first = await push(invoice);
    expect(first).toMatchObject({ outcome: 'pushed', differences: [], stripe: { total: 1_175n } });
    await expectExactlyOne(invoice);
    expect(await push(invoice)).toEqual(first);
    await expectExactlyOne(invoice);
  });

  const steps: [string, string, string][] = [
    ['the customer', 'POST', '/v1/customers'],
    ['the draft', 'POST', '/v1/invoices'],
    ['the lines', 'POST', '/v1/invoiceitems'],
    ['the finalization', 'POST', '/v1/invoices/'],
    ['the reading of the invoice', 'GET', '/v1/invoices/'],
  ];
  const faults: [string, object][] = [
    ['500 before the effect', { kind: 'status', status: 500, when: 'before' }],
    ['500 before the effect, not stored', { kind: 'status', status: 500, when: 'before', stored: false }],
    ['500 after the effect', { kind: 'status', status: 500, when: 'after' }],
    ['a storm of 429', { kind: 'status', status: 429, when: 'before', count: 5 }],
    ['409', { kind: 'status', status: 409, when: 'before' }],
    ['a reset before the effect', { kind: 'reset', when: 'before' }],
    ['resets after the effect', { kind: 'reset', when: 'after', count: 3 }],
    ['bodies cut after the headers', { kind: 'cut', when: 'after', count: 4 }],
    ['a timeout after the effect', { kind: 'timeout', when: 'after' }],
  ];
  for (const [step, method, path] of steps) {
    test.each(faults)(`at ${step}, %s: exactly one of each`, async (_, fault) => {
      const invoice = makeInvoice();
      // The prefix /v1/invoices would also match what comes after the draft; there it would be another step.
      await bench.order('POST', 'faults', { ...fault, method, path });
      expect(await pushAtLast(invoice)).toMatchObject({ outcome: 'pushed', differences: [] });
      await expectExactlyOne(invoice);
    });
  }

  test('killed at any request, before it or before its answer is recorded: exactly one of each', async () => {
    for (let at = 1; at <= 9; at++) {
      const invoice = makeInvoice();
      for (const when of ['after', 'before'] as const) {
        const dying = bench.billing(dyingAt(at, when, bench.gateway()));
        const outcome = await push(invoice, dying).catch((error: Error) => error.message);
        if (when === 'after') expect(outcome).toBe('killed');
      }
      expect(await pushAtLast(invoice)).toMatchObject({ outcome: 'pushed', differences: [] });
      await expectExactlyOne(invoice);
    }
  });

  test('two workers on one invoice make one of each', async () => {
    for (let round = 0; round < 5; round++) {
      const invoice = makeInvoice();
      await Promise.all([push(invoice), push(invoice), push(invoice)]);
      expect(await pushAtLast(invoice)).toMatchObject({ outcome: 'pushed', differences: [] });
      await expectExactlyOne(invoice);
    }
  });

  test('when the keys are forgotten, what Stripe has is found and taken', async () => {
    for (const at of [1, 2, 3, 6, 7]) {
      const invoice = makeInvoice();
      const dying = bench.billing(dyingAt(at, 'after', bench.gateway()));
      await expect(push(invoice, dying)).rejects.toThrow('killed');
      await bench.pass(25);
      expect(await pushAtLast(invoice)).toMatchObject({ outcome: 'pushed', differences: [] });
      await expectExactlyOne(invoice);
    }
  });

  test('when our own records are gone too, an old invoice is looked for before anything is made', async () => {
    const invoice = makeInvoice();
    await push(invoice);
    await bench.pg.query('DELETE FROM billing.stripe_lines WHERE invoice = $1', [invoice.id]);
    await bench.pg.query('DELETE FROM billing.stripe_invoices WHERE invoice = $1', [invoice.id]);
    await bench.pg.query('DELETE FROM billing.stripe_customers WHERE customer = $1', [invoice.customer.id]);
    await bench.pass(25);
    expect(await push(invoice)).toMatchObject({ outcome: 'pushed', differences: [] });
    await expectExactlyOne(invoice);
  });

  test('two databases that share a Stripe account have the same invoice numbers, and two invoices', async () => {
    const invoice = makeInvoice();
    await push(invoice);
    const forget = async () => {
      await bench.pg.query('DELETE FROM billing.stripe_lines WHERE invoice = $1', [invoice.id]);
      await bench.pg.query('DELETE FROM billing.stripe_invoices WHERE invoice = $1', [invoice.id]);
      await bench.pg.query('DELETE FROM billing.stripe_customers WHERE customer = $1', [invoice.customer.id]);
    };
    await forget();
    const [one, ...rest] = invoice.lines;
    const other: Invoice = { ...invoice, lines: [{ ...one!, amount: 999n }, ...rest], total: 1_174n };
    const there = { ...bench.billing(), installation: 'there' };
    expect(await push(other, there)).toMatchObject({ outcome: 'pushed', differences: [] });
    const totals = (await bench.has<StripeInvoice>('invoices'))
      .filter((each) => each.metadata['tallyline_invoice'] === invoice.id)
      .map((each) => [each.metadata['tallyline_installation'], each.total]);
    expect(totals.sort()).toEqual(
      [
        [bench.installation, 1_175],
        ['there', 1_174],
      ].sort(),
    );
    await forget();
  });

  test('a draft that somebody added to is not finalized', async () => {
    const invoice = makeInvoice();
    const stripe = bench.gateway();
    const meddling: StripeGateway = {
      ...stripe,
      async addLine(customer, draft, request, write) {
        const item = await stripe.addLine(customer, draft, request, write);
        const foreign = { ...request, metadata: {}, amount: 1 };
        await stripe.addLine(customer, draft, foreign, { ...write, key: `foreign/${write.key}` });
        return item;
      },
    };
    const outcome = await push(invoice, bench.billing(meddling));
    expect(outcome).toMatchObject({ outcome: 'refused', detail: expect.stringMatching(/line_unexpected/) });
    const [draft] = (await bench.has<StripeInvoice>('invoices')).filter(
      (each) => each.metadata['tallyline_invoice'] === invoice.id,
    );
    expect(draft?.status).toBe('draft');
  });

  test('a lease that is over stops before the next write', async () => {
    const invoice = makeInvoice();
    const outcome = await pushInvoice(bench.billing(), {
      invoice,
      outboxKey: 'late',
      untilMs: bench.clock.now(),
    });
    expect(outcome).toMatchObject({ outcome: 'postponed', kind: 'out_of_time' });
    expect(await bench.has<StripeCustomer>('customers')).not.toContainEqual(
      expect.objectContaining({
        metadata: expect.objectContaining({ tallyline_customer: invoice.customer.id }),
      }),
    );
  });
});
