import { createHmac } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { workInbox } from '../billing-sync/inbox.ts';
import { drainOutbox } from '../billing-sync/outbox.ts';
import { reconcile } from '../billing-sync/reconcile.ts';
import { startWebhookServer, type WebhookServer } from '../billing-sync/webhook.ts';
import { readInvoice, type Invoice } from '../ledger/index.ts';
import { move, type Posting } from '../ledger/journal.ts';
import { postTransactions } from '../ledger/journal-store.ts';
import { BillingBench, deadAfterClaim, dyingAt, type StripeInvoice, type StripeLine } from './billing.ts';
import { until } from './until.ts';

// The whole way between the ledger and Stripe: outbox, webhooks, payment, comparison. How one push stands its
// ground against faults is in billing-push.test.ts.

const SECRET = 'whsec_billing';
const TENANT = 'acme';
const OCTOBER = Date.UTC(2026, 9, 1);
const NOVEMBER = Date.UTC(2026, 10, 1);

let bench: BillingBench;
let webhook: WebhookServer;
let answers = 0;

beforeAll(async () => {
  bench = await BillingBench.start(['ledger', 'billing']);
  await bench.pg.query('INSERT INTO ledger.tenants VALUES ($1, $1, now())', [TENANT]);
  await bench.pg.query(`INSERT INTO ledger.plans VALUES ($1, 'pro', 1, '{}', '', now())`, [TENANT]);
  // The stand-in wants to know where webhooks go, and the endpoint needs only Postgres.
  webhook = await startWebhookServer(
    { ...bench.billing({} as never) },
    {
      host: '127.0.0.1',
      port: 0,
      secret: SECRET,
      bodyBytesMax: 100_000,
      toleranceSeconds: 300,
      connectionsMax: 16,
      onEvent: () => {
        answers += 1;
      },
    },
  );
  await bench.startStripe({ url: webhook.url, secret: SECRET });
});
afterAll(async () => {
  await bench?.stop();
  await webhook?.close();
});
beforeEach(async () => {
  await bench.order('POST', 'webhooks', { paused: false, copies: 1, delayMs: 0 });
});
afterEach(async () => {
  await bench.order('DELETE', 'faults');
});

let count = 0;

/** As closing a period leaves it: posted, written, and in the outbox. Amounts in minor units. */
async function issue(amounts: readonly bigint[], currency = 'USD'): Promise<string> {
  const n = ++count;
  const [customer, invoice] = [`customer-${n}`, `invoice-${n}`];
  const total = amounts.reduce((sum, amount) => sum + amount, 0n);
  const nowMs = bench.clock.now();
  await bench.pg.transaction(async (tx) => {
    await tx.query(
      `INSERT INTO ledger.customers VALUES ($1, $2, $3, $4, 'pro', 1, to_timestamp($5::numeric / 1000), now())`,
      [TENANT, customer, `Customer ${n}`, currency, OCTOBER],
    );
    const post = (kind: 'usage' | 'invoice', postings: Posting[]) =>
      postings.length === 0
        ? []
        : [
            {
              tenant: TENANT,
              customer,
              currency: currency as Invoice['currency'],
              kind,
              idempotencyKey: `${kind}/${invoice}`,
              effectiveAtMs: NOVEMBER,
              detail: { invoice },
              postings,
            },
          ];
    await postTransactions(
      tx,
      TENANT,
      [
        ...post('usage', move('revenue', 'accrued_usage', total)),
        ...post('invoice', move('accrued_usage', 'invoice_pending', total)),
      ],
      nowMs,
    );
    await tx.query(
      `INSERT INTO ledger.invoices (tenant, id, number, customer, currency, period_start, period_end, total,
         cut, status, issued_at)
       VALUES ($1, $2, $3, $4, $5, to_timestamp($6::numeric / 1000), to_timestamp($7::numeric / 1000), $8,
         '{}', 'issued', to_timestamp($9::numeric / 1000))`,
      [TENANT, invoice, `ACME-${n}`, customer, currency, OCTOBER, NOVEMBER, total.toString(), nowMs],
    );
    for (const [ordinal, amount] of amounts.entries()) {
      await tx.query(
        `INSERT INTO ledger.invoice_lines (tenant, invoice, id, ordinal, kind, description, period_start,
           period_end, quantity, included, amount, tiers)
         VALUES ($1, $2, $3, $4, $5, $6, to_timestamp($7::numeric / 1000), to_timestamp($8::numeric / 1000),
           0, 0, $9, '[]')`,
        [
          TENANT,
          invoice,
          `line-${ordinal}`,
          ordinal,
          amount < 0n ? 'credit' : 'usage',
          `line ${ordinal} of ${invoice}`,
          OCTOBER,
          NOVEMBER,
          amount.toString(),
        ],
      );
    }
    await tx.query(
      `INSERT INTO ledger.outbox (id, kind, tenant, customer, invoice, next_attempt_at, created_at)
       VALUES ($1, 'invoice.issued', $2, $3, $4, to_timestamp($5::numeric / 1000), now())`,
      [`outbox/${invoice}`, TENANT, customer, invoice, nowMs],
    );
  });
  return invoice;
}

async function drain(): Promise<void> {
  await until('the outbox is drained', async () => {
    await drainOutbox(bench.billing());
    const [row] = await bench.pg.query<{ open: bigint }>(
      `SELECT count(*) AS open FROM ledger.outbox o
       WHERE done_at IS NULL AND NOT EXISTS (SELECT 1 FROM billing.stripe_invoices s
         WHERE s.tenant = o.tenant AND s.invoice = o.invoice AND s.state = 'refused')`,
    );
    return row?.open === 0n;
  });
}

async function stripeInvoice(invoice: string): Promise<StripeInvoice> {
  const found = (await bench.has<StripeInvoice>('invoices')).filter(
    (each) => each.metadata['tallyline_invoice'] === invoice,
  );
  expect(found).toHaveLength(1);
  return found[0]!;
}

/** What the customer's accounts stand at, without those at zero. */
async function balances(invoice: string): Promise<Record<string, string>> {
  const rows = await bench.pg.query<{ account: string; amount: string }>(
    `SELECT b.account, b.amount FROM ledger.balances b
     JOIN ledger.invoices i ON i.tenant = b.tenant AND i.customer = b.customer
     WHERE i.id = $1 AND b.amount <> 0 ORDER BY 1`,
    [invoice],
  );
  return Object.fromEntries(rows.map((row) => [row.account, row.amount]));
}

async function ledgerInvoice(invoice: string): Promise<Invoice> {
  const found = await readInvoice(bench.pg, TENANT, invoice);
  if (found === null) throw new Error(`the ledger has no ${invoice}`);
  return found;
}

async function pay(invoice: string): Promise<string> {
  const { id } = await stripeInvoice(invoice);
  await bench.act(`invoices/${id}/pay`, { paid_out_of_band: 'true' });
  return id;
}

async function inboxOf(stripeId: string): Promise<{ type: string; state: string; attempts: number }[]> {
  return bench.pg.query(
    `SELECT type, state, attempts FROM billing.inbox
     WHERE payload::jsonb #>> '{data,object,id}' = $1 ORDER BY type, event`,
    [stripeId],
  );
}

async function workUntil(what: string, condition: () => Promise<boolean>): Promise<void> {
  await until(what, async () => {
    while (await workInbox(bench.billing()));
    return condition();
  });
}

async function openDiscrepancies(invoice: string): Promise<[string, string, string][]> {
  const rows = await bench.pg.query<{ kind: string; line: string; drift: string }>(
    `SELECT kind, line, drift FROM billing.discrepancies
     WHERE invoice = $1 AND resolved_at IS NULL ORDER BY kind, line`,
    [invoice],
  );
  return rows.map((row) => [row.kind, row.line, row.drift]);
}

/** A delivery of our own making. */
async function deliver(o: {
  event: object;
  secondsAhead?: number;
  secret?: string;
  signature?: string;
}): Promise<{ status: number; outcome: string }> {
  const body = JSON.stringify(o.event);
  const stamp = Math.floor(bench.clock.now() / 1_000) + (o.secondsAhead ?? 0);
  const v1 = createHmac('sha256', o.secret ?? SECRET)
    .update(`${stamp}.${body}`)
    .digest('hex');
  const response = await fetch(webhook.url, {
    method: 'POST',
    headers: { 'stripe-signature': o.signature ?? `t=${stamp},v1=${v1}` },
    body,
  });
  const { outcome } = (await response.json()) as { outcome: string };
  return { status: response.status, outcome };
}

function paidEvent(id: string, o: { invoice: string; amountPaid: number; metadata?: object }): object {
  return {
    id,
    object: 'event',
    type: 'invoice.paid',
    created: Math.floor(bench.clock.now() / 1_000),
    data: {
      object: {
        id: o.invoice,
        object: 'invoice',
        currency: 'usd',
        amount_paid: o.amountPaid,
        status_transitions: { paid_at: Math.floor(NOVEMBER / 1_000) },
        metadata: o.metadata ?? {},
      },
    },
  };
}

describe('the outbox', () => {
  test('an issued invoice reaches Stripe to the cent, and the ledger books it as receivable', async () => {
    // 31.42 + 0.07 - 1.49 = 30.00 dollars.
    const id = await issue([3_142n, 7n, -149n]);
    expect(await balances(id)).toEqual({ invoice_pending: '3000', revenue: '-3000' });
    await drain();
    const sent = await stripeInvoice(id);
    expect(sent).toMatchObject({ status: 'open', total: 3_000, currency: 'usd' });
    const lines = await bench.has<StripeLine>(`invoices/${sent.id}/lines`);
    expect(lines.map((line) => [line.metadata['tallyline_line'], line.amount])).toEqual([
      ['line-0', 3_142],
      ['line-1', 7],
      ['line-2', -149],
    ]);
    expect(lines[0]?.period).toEqual({ start: OCTOBER / 1_000, end: NOVEMBER / 1_000 });
    expect(await balances(id)).toEqual({ receivable: '3000', revenue: '-3000' });
    expect(await ledgerInvoice(id)).toMatchObject({
      status: 'sent',
      delivery: { stripeInvoiceId: sent.id, stripeTotal: 3_000n },
    });
    expect(await openDiscrepancies(id)).toEqual([]);
  });

  test('draining again, and again after the entry was opened once more, creates nothing', async () => {
    const id = await issue([500n]);
    await drain();
    const before = [
      await bench.has('customers'),
      await bench.has('invoices'),
      await bench.has('invoiceitems'),
    ];
    for (let turn = 0; turn < 3; turn++) {
      await bench.pg.query(
        'UPDATE ledger.outbox SET done_at = NULL, next_attempt_at = now() WHERE invoice = $1',
        [id],
      );
      await drain();
    }
    const after = [
      await bench.has('customers'),
      await bench.has('invoices'),
      await bench.has('invoiceitems'),
    ];
    expect(after).toEqual(before);
    expect(await balances(id)).toEqual({ receivable: '500', revenue: '-500' });
  });

  test('two drains side by side send every invoice once', async () => {
    const ids = await Promise.all(Array.from({ length: 8 }, (_, at) => issue([1_000n + BigInt(at)])));
    await Promise.all([drain(), drain()]);
    for (const [at, id] of ids.entries()) {
      expect((await stripeInvoice(id)).total).toBe(1_000 + at);
      expect(await balances(id)).toMatchObject({ receivable: `${1_000 + at}` });
    }
  });

  test('a worker that dies leaves its lease to run out, and the next one makes no second object', async () => {
    for (let at = 1; at <= 8; at++) {
      const id = await issue([200n, 300n]);
      // It dies at one of its requests: nothing is postponed, nothing is given back.
      const dying = bench.billing(dyingAt(at, 'after', bench.gateway()));
      await drainOutbox({ ...dying, pg: deadAfterClaim(bench.pg) });
      await bench.pg.query(
        `UPDATE ledger.outbox SET next_attempt_at = to_timestamp($2::numeric / 1000) WHERE invoice = $1`,
        [id, bench.clock.now()],
      );
      await drain();
      expect(await stripeInvoice(id)).toMatchObject({ status: 'open', total: 500 });
      expect(await balances(id)).toEqual({ receivable: '500', revenue: '-500' });
    }
  });

  test('an invoice that Stripe cannot hold is marked, shown, and left alone', async () => {
    const id = await issue(Array.from({ length: 251 }, () => 1n));
    await drain();
    const [row] = await bench.pg.query<{ state: string; error: string }>(
      'SELECT state, error FROM billing.stripe_invoices WHERE invoice = $1',
      [id],
    );
    expect(row).toEqual({ state: 'refused', error: expect.stringMatching(/^too_many_lines: 251 lines/) });
    expect(await drainOutbox(bench.billing())).toMatchObject({ claimed: 0 });
    await reconcile(bench.billing());
    expect(await bench.metrics.render()).toMatch(/tallyline_stripe_refused_invoices_count\{[^}]*\} 1\n/);
    await bench.pg.query(`UPDATE ledger.outbox SET done_at = now() WHERE invoice = $1`, [id]);
  });
});

describe('webhooks', () => {
  test('an invoice paid in Stripe leaves no receivable', async () => {
    const id = await issue([12_345n]);
    await drain();
    const stripeId = await pay(id);
    await workUntil('the payment is booked', async () => (await ledgerInvoice(id)).status === 'paid');
    expect(await balances(id)).toEqual({ cash: '12345', revenue: '-12345' });
    const types = await inboxOf(stripeId);
    expect(types).toContainEqual({ type: 'invoice.paid', state: 'applied', attempts: 1 });
    expect(types.filter((event) => event.type !== 'invoice.paid').every((e) => e.state === 'ignored')).toBe(
      true,
    );
  });

  test('deliveries in three copies, and two events for one change, are one payment', async () => {
    await bench.order('POST', 'webhooks', { copies: 3 });
    const id = await issue([777n]);
    await drain();
    const stripeId = await pay(id);
    await workUntil('the payment is booked', async () => (await ledgerInvoice(id)).status === 'paid');
    const [event] = await bench.pg.query<{ payload: string }>(
      `SELECT payload FROM billing.inbox WHERE type = 'invoice.paid' AND payload::jsonb #>> '{data,object,id}' = $1`,
      [stripeId],
    );
    const twin = { ...(JSON.parse(event!.payload) as object), id: `evt_twin_of_${id}` };
    expect(await deliver({ event: twin })).toEqual({ status: 200, outcome: 'received' });
    expect(await deliver({ event: twin })).toEqual({ status: 200, outcome: 'duplicate' });
    await workUntil('the twin is worked off', async () =>
      (await inboxOf(stripeId)).every((one) => one.state === 'applied' || one.state === 'ignored'),
    );
    expect((await inboxOf(stripeId)).filter((one) => one.type === 'invoice.paid')).toHaveLength(2);
    expect(await balances(id)).toEqual({ cash: '777', revenue: '-777' });
  });

  test('paid before we know that it was sent: the event waits, and is booked then', async () => {
    const id = await issue([4_200n]);
    // The process dies after the finalization, before anything of it is recorded; the customer pays at once.
    const worker = bench.billing(dyingAt(6, 'after', bench.gateway()));
    await drainOutbox(worker);
    const stripeId = await pay(id);
    await workUntil('the event waits', async () =>
      (await inboxOf(stripeId)).some((one) => one.type === 'invoice.paid' && one.state === 'waiting'),
    );
    expect(await openDiscrepancies(stripeId)).toEqual([['payment', '', '4200']]);
    await drain();
    await workUntil('the payment is booked', async () => (await ledgerInvoice(id)).status === 'paid');
    expect(await openDiscrepancies(stripeId)).toEqual([]);
    expect(await balances(id)).toEqual({ cash: '4200', revenue: '-4200' });
  });

  test('a payment of an invoice that nobody knows is kept, shown and tried again', async () => {
    const metadata = {
      tallyline_installation: bench.installation,
      tallyline_tenant: TENANT,
      tallyline_invoice: 'lost',
    };
    const event = paidEvent('evt_unknown', { invoice: 'in_unknown', amountPaid: 900, metadata });
    expect(await deliver({ event })).toEqual({ status: 200, outcome: 'received' });
    await workUntil('it was tried twice', async () => ((await inboxOf('in_unknown'))[0]?.attempts ?? 0) >= 2);
    expect((await inboxOf('in_unknown'))[0]?.state).toBe('waiting');
    expect(await openDiscrepancies('in_unknown')).toEqual([['payment', '', '900']]);
    await bench.pg.query(`DELETE FROM billing.inbox WHERE event = 'evt_unknown'`);
    await bench.pg.query(`DELETE FROM billing.discrepancies WHERE invoice = 'in_unknown'`);
  });

  test('invoices that are not ours, and types that mean nothing here, are kept and ignored', async () => {
    await deliver({ event: paidEvent('evt_foreign', { invoice: 'in_foreign', amountPaid: 5 }) });
    const metadata = {
      tallyline_installation: 'b',
      tallyline_tenant: TENANT,
      tallyline_invoice: 'invoice-1',
    };
    await deliver({ event: paidEvent('evt_neighbour', { invoice: 'in_b', amountPaid: 5, metadata }) });
    const created = Math.floor(bench.clock.now() / 1_000);
    const other = { id: 'evt_new', object: 'event', type: 'quantum.settled', created };
    expect(await deliver({ event: other })).toEqual({ status: 200, outcome: 'received' });
    await workUntil('all are worked off', async () => {
      const rows = await bench.pg.query<{ state: string }>(
        `SELECT state FROM billing.inbox WHERE event IN ('evt_foreign', 'evt_neighbour', 'evt_new')`,
      );
      return rows.length === 3 && rows.every((row) => row.state === 'ignored');
    });
  });

  test.each<[string, Omit<Parameters<typeof deliver>[0], 'event'>, string]>([
    ['a signature with another secret', { secret: 'whsec_other' }, 'signature_wrong'],
    ['no signature at all', { signature: '' }, 'signature_wrong'],
    ['a timestamp too old', { secondsAhead: -302 }, 'timestamp_outside'],
    ['a timestamp in the future', { secondsAhead: 302 }, 'timestamp_outside'],
  ])('%s is refused and leaves nothing behind', async (_, how, outcome) => {
    const event = paidEvent('evt_forged', { invoice: 'in_forged', amountPaid: 1 });
    expect(await deliver({ event, ...how })).toEqual({ status: 400, outcome });
    expect(await bench.pg.query(`SELECT 1 FROM billing.inbox WHERE event = 'evt_forged'`)).toEqual([]);
  });

  test('a body that is too large, another path and another method are refused', async () => {
    const large = await fetch(webhook.url, { method: 'POST', body: 'x'.repeat(100_001) });
    expect(large.status).toBe(413);
    expect((await fetch(webhook.url)).status).toBe(405);
    expect((await fetch(`${webhook.url}/x`, { method: 'POST' })).status).toBe(404);
    expect(answers).toBeGreaterThan(0);
  });
});

describe('reconciliation', () => {
  /** Makes every sent invoice due, and compares until none is. */
  async function compareAll(): Promise<void> {
    await bench.pg.query('UPDATE billing.stripe_invoices SET next_check_at = checked_at');
    while ((await reconcile(bench.billing())) > 0);
  }

  async function driftShown(): Promise<number> {
    const match = /^tallyline_stripe_drift_cents\{[^}]*\} (.*)$/m.exec(await bench.metrics.render());
    return Number(match?.[1]);
  }

  test('what is the same has no drift', async () => {
    await issue([1_000n, 50n]);
    await drain();
    await compareAll();
    expect(await driftShown()).toBe(0);
  });

  test('an invoice voided in Stripe is a discrepancy of its amount until it is no more', async () => {
    const id = await issue([6_400n]);
    await drain();
    await bench.act(`invoices/${(await stripeInvoice(id)).id}/void`, {});
    await compareAll();
    expect(await openDiscrepancies(id)).toEqual([['status', '', '6400']]);
    expect(await driftShown()).toBe(6_400);
    await bench.pg.query('DELETE FROM billing.discrepancies WHERE invoice = $1', [id]);
    await bench.pg.query(`UPDATE billing.stripe_invoices SET state = 'refused' WHERE invoice = $1`, [id]);
  });

  test('a record of ours that no longer matches Stripe is found line by line', async () => {
    const [id, other] = [await issue([100n, 200n]), await issue([300n])];
    await drain();
    // Our record points at another invoice of Stripe's: nothing of it may pass for the same.
    const stripeIds = [(await stripeInvoice(id)).id, (await stripeInvoice(other)).id];
    await bench.pg.query(
      `UPDATE billing.stripe_invoices SET stripe_invoice = NULL, state = 'pushing' WHERE invoice = $1`,
      [other],
    );
    await bench.pg.query('UPDATE billing.stripe_invoices SET stripe_invoice = $2 WHERE invoice = $1', [
      id,
      stripeIds[1],
    ]);
    await compareAll();
    expect(await openDiscrepancies(id)).toEqual([
      ['line_amount', 'line-0', '200'],
      ['line_missing', 'line-1', '200'],
    ]);
    await bench.pg.query('UPDATE billing.stripe_invoices SET stripe_invoice = $2 WHERE invoice = $1', [
      id,
      stripeIds[0],
    ]);
    await compareAll();
    expect(await openDiscrepancies(id)).toEqual([]);
    expect(await driftShown()).toBe(0);
    await bench.pg.query(
      `UPDATE billing.stripe_invoices SET stripe_invoice = $2, state = 'sent' WHERE invoice = $1`,
      [other, stripeIds[1]],
    );
  });

  test('a payment whose webhook never came is booked, and the webhook that comes after all changes nothing', async () => {
    await bench.order('POST', 'webhooks', { paused: true });
    const id = await issue([9_900n]);
    await drain();
    const stripeId = await pay(id);
    await compareAll();
    expect((await ledgerInvoice(id)).status).toBe('sent');
    await bench.pass(1);
    await compareAll();
    expect(await balances(id)).toEqual({ cash: '9900', revenue: '-9900' });
    await bench.order('POST', 'webhooks', { paused: false });
    await workUntil('the late webhook is worked off', async () =>
      (await inboxOf(stripeId)).some((one) => one.type === 'invoice.paid' && one.state === 'applied'),
    );
    expect(await balances(id)).toEqual({ cash: '9900', revenue: '-9900' });
  });

  test('an invoice of nothing is paid in Stripe at once, and settled here', async () => {
    const id = await issue([500n, -500n]);
    await drain();
    expect((await stripeInvoice(id)).status).toBe('paid');
    await workUntil('it is settled', async () => (await ledgerInvoice(id)).status === 'paid');
    expect(await balances(id)).toEqual({});
  });
});
