// The stand-in as the product meets it: through the real SDK, over real sockets, with a real process to kill.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import Stripe from 'stripe';
import { afterEach, describe, expect, test } from 'vitest';
import { openJournal } from '../local/stripe/journal.ts';
import { startStripeStandIn } from '../local/stripe/server.ts';
import type { StripeStandIn, StripeStandInOptions } from '../local/stripe/server.ts';
import { State } from '../local/stripe/state.ts';
import { until } from './until.ts';

const key = 'sk_test_standInTest';
const secret = 'whsec_standInTest';
const host = '127.0.0.1';
const root = fileURLToPath(new URL('..', import.meta.url));
const main = join(root, 'dist', 'local', 'stripe', 'main.js');

/** Everything a test opened, closed in reverse. */
const opened: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

function newFolder(): string {
  const parent = join(root, '.tallyline', 'test');
  mkdirSync(parent, { recursive: true });
  const folder = mkdtempSync(join(parent, 'stripe-'));
  opened.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function start(options: Partial<StripeStandInOptions> = {}): Promise<StripeStandIn> {
  const standIn = await startStripeStandIn({
    host,
    port: 0,
    key,
    dataDir: newFolder(),
    faults: true,
    ...options,
  });
  opened.push(() => standIn.close());
  return standIn;
}

function connect(
  port: number,
  config: { maxNetworkRetries?: number; timeout?: number; key?: string } = {},
): Stripe {
  const { key: given = key, ...rest } = config;
  return new Stripe(given, { host, port, protocol: 'http', telemetry: false, maxNetworkRetries: 0, ...rest });
}

async function order(standIn: StripeStandIn, path: string, body: unknown): Promise<void> {
  const response = await fetch(`${standIn.url}/_test/${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await response.text());
}

async function failure(request: Promise<unknown>): Promise<Stripe.errors.StripeError> {
  try {
    await request;
  } catch (error) {
    if (error instanceof Stripe.errors.StripeError) return error;
    throw error;
  }
  throw new Error('the request did not fail');
}

describe('invoice mode through the SDK', () => {
  test('an invoice arrives to the cent, line by line, and is paid', async () => {
    const stripe = connect((await start()).port);
    const customer = await stripe.customers.create({
      name: 'Ada Lovelace',
      email: 'ada@example.com',
      metadata: { tallyline_customer: 'ada' },
    });
    expect(customer.id).toMatch(/^cus_/);
    const draft = await stripe.invoices.create({
      customer: customer.id,
      currency: 'usd',
      auto_advance: false,
      collection_method: 'send_invoice',
      days_until_due: 30,
      metadata: { period: '2026-10' },
    });
    expect(draft).toMatchObject({
      object: 'invoice',
      status: 'draft',
      number: null,
      total: 0,
      auto_advance: false,
    });

    const period = { start: Date.UTC(2026, 9, 1) / 1000, end: Date.UTC(2026, 10, 1) / 1000 };
    // 18,059,974 input tokens at 0.00025 cents are 4,514.9935 cents; 2,032,100 output tokens at 0.0015 are 3,048.15.
    await stripe.invoiceItems.create({
      customer: customer.id,
      invoice: draft.id,
      currency: 'usd',
      unit_amount_decimal: Stripe.Decimal.from('0.00025'),
      quantity_decimal: Stripe.Decimal.from('18059974'),
      description: 'Input tokens',
      period,
    });
    await stripe.invoices.addLines(draft.id, {
      lines: [
        { amount: 3048, description: 'Output tokens', period, metadata: { meter: 'output_tokens' } },
        { amount: -500, description: 'Credit' },
      ],
    });
    const open = await stripe.invoices.finalizeInvoice(draft.id, { auto_advance: false });
    expect(open).toMatchObject({
      status: 'open',
      amount_due: 7063,
      total: 7063,
      amount_remaining: 7063,
      amount_paid: 0,
    });
    expect(open.number).toMatch(/^[A-Z0-9]+-0001$/);

    const lines: Stripe.InvoiceLineItem[] = [];
    for await (const line of stripe.invoices.listLineItems(draft.id, { limit: 2 })) lines.push(line);
    expect(lines.map((line) => [line.description, line.amount])).toEqual([
      ['Input tokens', 4515],
      ['Output tokens', 3048],
      ['Credit', -500],
    ]);
    expect(lines[0]?.quantity_decimal?.toString()).toBe('18059974');
    expect(lines[0]?.pricing?.unit_amount_decimal?.toString()).toBe('0.00025');
    expect(lines[0]?.period).toEqual(period);
    expect(lines[1]?.metadata).toEqual({ meter: 'output_tokens' });

    const paid = await stripe.invoices.pay(draft.id, { paid_out_of_band: true });
    expect(paid).toMatchObject({ status: 'paid', amount_paid: 7063, amount_remaining: 0 });
    const found = await stripe.invoices.list({
      customer: customer.id,
      status: 'paid',
      expand: ['data.customer'],
    });
    expect((found.data[0]?.customer as Stripe.Customer).email).toBe('ada@example.com');

    const types: string[] = [];
    for await (const event of stripe.events.list({
      limit: 3,
      types: ['customer.created', 'invoice.created', 'invoice.finalized', 'invoice.paid'],
    })) {
      types.push(event.type);
    }
    expect(types).toEqual(['invoice.paid', 'invoice.finalized', 'invoice.created', 'customer.created']);
  });

  test('what Stripe would refuse is refused in its shape', async () => {
    const standIn = await start();
    const stripe = connect(standIn.port);
    const loose = stripe as unknown as { rawRequest: Stripe['rawRequest'] };

    const unknown = await failure(stripe.customers.create({ nmae: 'x' } as Stripe.CustomerCreateParams));
    expect(unknown).toMatchObject({
      type: 'StripeInvalidRequestError',
      code: 'parameter_unknown',
      param: 'nmae',
      statusCode: 400,
    });
    expect(unknown.requestId).toMatch(/^req_/);
    const misspelt = await failure(stripe.invoices.list({ status: 'unpaid' }));
    expect(misspelt).toMatchObject({ type: 'StripeInvalidRequestError', param: 'status' });
    const absent = await failure(stripe.invoices.retrieve('in_none'));
    expect(absent).toMatchObject({
      code: 'resource_missing',
      statusCode: 404,
      message: "No such invoice: 'in_none'",
    });
    // A 404 without an `error` would be a success to the SDK.
    expect(await failure(stripe.subscriptions.list())).toMatchObject({
      type: 'StripeInvalidRequestError',
      statusCode: 404,
    });
    expect(await failure(loose.rawRequest('POST', '/v1/nothing', {}))).toMatchObject({ statusCode: 404 });
    const stranger = connect(standIn.port, { key: 'sk_test_someoneElse' });
    expect(await failure(stranger.customers.list())).toMatchObject({
      type: 'StripeAuthenticationError',
      statusCode: 401,
    });

    const json = await fetch(`${standIn.url}/v1/customers`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: '{}',
    });
    expect(json.status).toBe(400);
    const old = await fetch(`${standIn.url}/v1/customers`, {
      headers: { authorization: `Bearer ${key}`, 'stripe-version': '2020-08-27' },
    });
    expect(old.status).toBe(400);
    expect((await fetch(`${standIn.url}/v1/customers`)).status).toBe(401);
    expect((await stripe.customers.list()).data).toEqual([]);
  });

  test('lists page in both directions', async () => {
    const stripe = connect((await start()).port);
    const made: string[] = [];
    for (let index = 0; index < 12; index += 1)
      made.push((await stripe.customers.create({ name: `c${index}` })).id);
    const newestFirst = [...made].reverse();
    const forward: string[] = [];
    for await (const customer of stripe.customers.list({ limit: 5 })) forward.push(customer.id);
    expect(forward).toEqual(newestFirst);
    const backward: string[] = [];
    for await (const customer of stripe.customers.list({ limit: 5, ending_before: made[0] ?? '' }))
      backward.push(customer.id);
    expect(backward).toEqual(made.slice(1));
    expect((await stripe.customers.list()).has_more).toBe(true);
  });

  test('the page shows what arrived', async () => {
    const standIn = await start();
    const stripe = connect(standIn.port);
    const customer = await stripe.customers.create({ name: 'Ada & Co' });
    await stripe.invoiceItems.create({
      customer: customer.id,
      amount: 123456,
      currency: 'usd',
      description: 'Tokens',
    });
    await stripe.invoices.create({
      customer: customer.id,
      currency: 'usd',
      pending_invoice_items_behavior: 'include',
    });
    const page = await (await fetch(standIn.url)).text();
    expect(page).toContain('Ada &#38; Co');
    expect(page).toContain('1234.56 USD');
    expect(page).toContain('Tokens');
  });
});

describe('idempotency keys', () => {
  test('the same request again gets the first answer and has no second effect', async () => {
    const stripe = connect((await start()).port);
    const options = { idempotencyKey: 'outbox-1' };
    const first = await stripe.customers.create({ name: 'Ada' }, options);
    const second = await stripe.customers.create({ name: 'Ada' }, options);
    expect(second).toEqual(first);
    expect(first.lastResponse.headers['idempotent-replayed']).toBeUndefined();
    expect(second.lastResponse.headers['idempotent-replayed']).toBe('true');
    expect(second.lastResponse.headers['original-request']).toBe(first.lastResponse.requestId);
    expect((await stripe.customers.list()).data.length).toBe(1);

    const other = await failure(stripe.customers.create({ name: 'Grace' }, options));
    expect(other).toMatchObject({ type: 'StripeIdempotencyError', statusCode: 400 });
    const elsewhere = await failure(stripe.invoices.create({ customer: first.id }, options));
    expect(elsewhere.type).toBe('StripeIdempotencyError');
  });

  test('a refusal by validation is not kept, a refusal by state is', async () => {
    const stripe = connect((await start()).port);
    const options = { idempotencyKey: 'k' };
    await failure(stripe.customers.create({ nmae: 'x' } as Stripe.CustomerCreateParams, options));
    const customer = await stripe.customers.create({ name: 'x' }, options);
    const invoice = await stripe.invoices.create({ customer: customer.id });
    const voided = { idempotencyKey: 'void' };
    const first = await failure(stripe.invoices.voidInvoice(invoice.id, {}, voided));
    await stripe.invoiceItems.create({
      customer: customer.id,
      invoice: invoice.id,
      amount: 500,
      currency: 'usd',
    });
    await stripe.invoices.finalizeInvoice(invoice.id);
    const second = await failure(stripe.invoices.voidInvoice(invoice.id, {}, voided));
    expect(second.message).toBe(first.message);
    expect(second.headers?.['idempotent-replayed']).toBe('true');
  });

  test('a stored 500 is given again, with or without an effect behind it, until the key is a day old', async () => {
    const standIn = await start();
    const stripe = connect(standIn.port);
    for (const when of ['before', 'after'] as const) {
      await order(standIn, 'faults', { kind: 'status', status: 500, when });
      const create = () => stripe.customers.create({ name: when }, { idempotencyKey: when });
      expect(await failure(create())).toMatchObject({ type: 'StripeAPIError', statusCode: 500 });
      expect((await failure(create())).headers?.['idempotent-replayed']).toBe('true');
    }
    expect((await stripe.customers.list()).data.map((each) => each.name)).toEqual(['after']);
    await order(standIn, 'clock', { advanceSeconds: 86_400 });
    expect((await stripe.customers.create({ name: 'before' }, { idempotencyKey: 'before' })).name).toBe(
      'before',
    );
  });

  test('a 429 is not kept', async () => {
    const standIn = await start();
    const stripe = connect(standIn.port, { maxNetworkRetries: 2 });
    await order(standIn, 'faults', { kind: 'status', status: 429 });
    const create = () => stripe.customers.create({ name: 'Ada' }, { idempotencyKey: 'k' });
    expect(await failure(create())).toMatchObject({ type: 'StripeRateLimitError', statusCode: 429 });
    expect((await create()).name).toBe('Ada');
  });
});

describe('a bad connection', () => {
  test('an effect whose answer is lost happens once, however the answer is lost', async () => {
    const standIn = await start();
    const stripe = connect(standIn.port, { timeout: 300 });
    for (const kind of ['reset', 'cut', 'timeout'] as const) {
      await order(standIn, 'faults', {
        kind,
        when: 'after',
        count: 2,
        method: 'POST',
        path: '/v1/customers',
      });
      const create = () => stripe.customers.create({ name: kind }, { idempotencyKey: kind });
      expect((await failure(create())).type).toBe('StripeConnectionError');
      await fetch(`${standIn.url}/_test/faults`, { method: 'DELETE' });
      const customer = await create();
      expect(customer.lastResponse.headers['idempotent-replayed']).toBe('true');
      expect((await stripe.customers.list({ limit: 1 })).data[0]?.id).toBe(customer.id);
    }
    expect((await stripe.customers.list()).data.map((each) => each.name)).toEqual([
      'timeout',
      'cut',
      'reset',
    ]);
  });

  test('a request that is lost on the way in has no effect, and the SDK sends it again by itself', async () => {
    const standIn = await start();
    const stripe = connect(standIn.port);
    await order(standIn, 'faults', { kind: 'reset', when: 'before' });
    const customer = await stripe.customers.create({ name: 'Ada' });
    expect((await stripe.customers.list()).data.map((each) => each.id)).toEqual([customer.id]);
  });
});

interface Received {
  body: string;
  signature: string;
}

/** A webhook receiver that answers with the next of `statuses`, then 200. */
async function receive(statuses: number[] = []): Promise<{ url: string; received: Received[] }> {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const signature = String(request.headers['stripe-signature']);
      received.push({ body: Buffer.concat(chunks).toString('utf8'), signature });
      response.writeHead(statuses.shift() ?? 200).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  opened.push(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  return { url: `http://${host}:${(server.address() as AddressInfo).port}/hook`, received };
}

describe('webhooks', () => {
  const webhookRetry = { firstMs: 20, maxMs: 100, giveUpAfterMs: 60_000 };

  test('each event is delivered with a signature that the SDK accepts', async () => {
    const { url, received } = await receive();
    const standIn = await start({ webhook: { url, secret } });
    const stripe = connect(standIn.port);
    const customer = await stripe.customers.create({ name: 'Jürgen' });
    const invoice = await stripe.invoices.create({ customer: customer.id });
    await stripe.invoices.finalizeInvoice(invoice.id);
    await until('all events arrive', async () => {
      const events = await stripe.events.list({ limit: 100, delivery_success: false });
      return events.data.length === 0;
    });

    const events = received.map(({ body, signature }) =>
      stripe.webhooks.constructEvent(body, signature, secret),
    );
    const listed = await stripe.events.list({ limit: 100 });
    expect(new Set(events.map((event) => event.id))).toEqual(new Set(listed.data.map((event) => event.id)));
    const paid = events.find((event) => event.type === 'invoice.paid');
    expect((paid?.data.object as Stripe.Invoice | undefined)?.id).toBe(invoice.id);
    expect(paid?.request?.id).toMatch(/^req_/);
    expect((await stripe.invoices.retrieve(invoice.id)).webhooks_delivered_at).not.toBeNull();

    const [first] = received;
    if (first === undefined) throw new Error('nothing was received');
    expect(() => stripe.webhooks.constructEvent(first.body, first.signature, 'whsec_wrong')).toThrow(
      /signature/,
    );
    expect(() => stripe.webhooks.constructEvent(`${first.body} `, first.signature, secret)).toThrow(
      /signature/,
    );
  });

  test('a delivery that fails is tried again until it succeeds', async () => {
    const { url, received } = await receive([500, 302, 404]);
    const standIn = await start({ webhook: { url, secret }, webhookRetry });
    const stripe = connect(standIn.port);
    await stripe.customers.create({ name: 'Ada' });
    await until('four attempts', () => received.length === 4);
    expect(new Set(received.map((each) => each.body)).size).toBe(1);
    await until('nothing pending', async () => (await stripe.events.list()).data[0]?.pending_webhooks === 0);
    expect(received.length).toBe(4);
  });

  test('deliveries can be delayed, doubled and held back', async () => {
    const { url, received } = await receive();
    const standIn = await start({ webhook: { url, secret } });
    const stripe = connect(standIn.port);
    await order(standIn, 'webhooks', { copies: 2, delayMs: 30, paused: true });
    await stripe.customers.create({ name: 'Ada' });
    await order(standIn, 'webhooks', { copies: 1, delayMs: 0 });
    await stripe.customers.create({ name: 'Grace' });
    expect(received.length).toBe(0);
    await order(standIn, 'webhooks', { paused: false });
    await until('both events', () => received.length === 3);
    const names = received.map(
      ({ body }) => (JSON.parse(body) as { data: { object: { name: string } } }).data.object.name,
    );
    expect(names.sort()).toEqual(['Ada', 'Ada', 'Grace']);
  });

  test('what a run could not deliver the next one does, and a registered endpoint signs with its own secret', async () => {
    const dataDir = newFolder();
    const { url, received } = await receive();
    const first = await start({ dataDir });
    const endpoint = await connect(first.port).webhookEndpoints.create({
      url,
      enabled_events: ['customer.created'],
    });
    expect(endpoint.secret).toMatch(/^whsec_/);
    await order(first, 'webhooks', { paused: true });
    const customer = await connect(first.port).customers.create({ name: 'Ada' });
    await connect(first.port).customers.update(customer.id, { name: 'Grace' });
    await first.close();

    const second = await start({ dataDir });
    await until('the event of the first run', () => received.length > 0);
    const [delivery] = received;
    if (delivery === undefined) throw new Error('nothing was received');
    const stripe = connect(second.port);
    const event = stripe.webhooks.constructEvent(delivery.body, delivery.signature, endpoint.secret ?? '');
    expect(event.type).toBe('customer.created');
    await stripe.webhookEndpoints.del(endpoint.id);
    expect((await stripe.webhookEndpoints.list()).data).toEqual([]);
    expect(received.length).toBe(1);
  });
});

interface Process {
  child: ChildProcess;
  port: number;
  exited: Promise<number | null>;
}

/** The stand-in as a process, once it says that it is ready. */
async function launch(dataDir: string, extra: { [name: string]: string } = {}): Promise<Process> {
  if (!existsSync(main)) throw new Error(`${main} is absent: run npm run build`);
  const child = spawn(process.execPath, [main], {
    env: { TALLYLINE_STRIPE_PORT: '0', TALLYLINE_STRIPE_DATA: dataDir, TALLYLINE_STRIPE_KEY: key, ...extra },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  opened.push(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const port = await new Promise<number>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const said = JSON.parse(line) as { ready: boolean; url: string };
      if (said.ready) resolve(Number(new URL(said.url).port));
    });
    void exited.then((code) => reject(new Error(`the stand-in ended with ${code}`)));
  });
  return { child, port, exited };
}

describe('the process', () => {
  test('kill -9 in the middle of requests loses nothing that was answered', async () => {
    const dataDir = newFolder();
    const answered = new Map<string, string>();
    for (let round = 0; round < 3; round += 1) {
      const { child, port, exited } = await launch(dataDir);
      const stripe = connect(port);
      // Four clients write until the process is gone; it is killed while their requests are on the way.
      const clients = [0, 1, 2, 3].map(async (client) => {
        for (let index = 0; ; index += 1) {
          const name = `${round}-${client}-${index}`;
          try {
            const customer = await stripe.customers.create({ name }, { idempotencyKey: name });
            await stripe.invoiceItems.create({ customer: customer.id, amount: index, currency: 'usd' });
            answered.set(name, customer.id);
          } catch {
            return;
          }
        }
      });
      const before = answered.size;
      await until('sixty answers', () => answered.size >= before + 60);
      child.kill('SIGKILL');
      await Promise.all([...clients, exited]);
    }

    const { port } = await launch(dataDir);
    const stripe = connect(port);
    const found = new Map<string, string>();
    for await (const customer of stripe.customers.list({ limit: 100 }))
      found.set(customer.name ?? '', customer.id);
    for (const [name, id] of answered) expect(found.get(name)).toBe(id);
    const items = new Map<string, number>();
    for await (const item of stripe.invoiceItems.list({ limit: 100 }))
      items.set(String(item.customer), item.amount);
    for (const [name, id] of answered) expect(items.get(id)).toBe(Number(name.split('-')[2]));
    // A key that was answered before the kill gives the same object after it.
    const [name, id] = [...answered][0] ?? ['', ''];
    expect((await stripe.customers.create({ name }, { idempotencyKey: name })).id).toBe(id);
  });

  test('a torn last line is dropped, damage anywhere else is not passed over', async () => {
    const dataDir = newFolder();
    const journal = join(dataDir, 'journal.jsonl');
    const first = await start({ dataDir });
    const customer = await connect(first.port).customers.create({ name: 'Ada' });
    await first.close();
    appendFileSync(journal, '{"at":1,"put":[{"object":"cust');

    const second = await start({ dataDir });
    expect((await connect(second.port).customers.list()).data.map((each) => each.id)).toEqual([customer.id]);
    await connect(second.port).customers.create({ name: 'Grace' });
    await second.close();
    const third = await start({ dataDir });
    expect((await connect(third.port).customers.list()).data.length).toBe(2);
    await third.close();

    appendFileSync(journal, 'not JSON\n{}\n');
    await expect(start({ dataDir })).rejects.toThrow(/damaged at line/);
    expect(readFileSync(journal, 'utf8')).toContain('not JSON');
  });

  test('a journal that grew too large is rewritten as what it amounts to', async () => {
    const dataDir = newFolder();
    const standIn = await start({ dataDir });
    const stripe = connect(standIn.port);
    const customer = await stripe.customers.create({ name: '0' }, { idempotencyKey: 'k' });
    for (let index = 1; index <= 20; index += 1)
      await stripe.customers.update(customer.id, { name: String(index) });
    await standIn.close();

    const journal = join(dataDir, 'journal.jsonl');
    const before = readFileSync(journal).length;
    const state = new State();
    const open = (compactAboveBytes: number) =>
      openJournal({
        folder: dataDir,
        replay: (entry) => state.apply(entry),
        snapshot: () => {
          state.expire(Date.now() + 31 * 86_400_000);
          return state.snapshot();
        },
        compactAboveBytes,
      });
    await (await open(before)).close();
    expect(readFileSync(journal).length).toBe(before);
    await (await open(before - 1)).close();
    // The events and the key are older than they are kept; one customer is left.
    expect(readFileSync(journal, 'utf8').trimEnd().split('\n').length).toBe(1);
    const again = await start({ dataDir });
    expect((await connect(again.port).customers.retrieve(customer.id)) as Stripe.Customer).toMatchObject({
      name: '20',
    });
  });

  test('SIGTERM ends it cleanly, and so does the end of its parent', async () => {
    const stopped = await launch(newFolder());
    stopped.child.kill('SIGTERM');
    expect(await stopped.exited).toBe(0);
    const orphan = await launch(newFolder(), { TALLYLINE_STOP_WITH_PARENT: '1' });
    orphan.child.stdin?.end();
    expect(await orphan.exited).toBe(0);
  });

  test('a taken port and a bad configuration are explained', async () => {
    const { port } = await start();
    const run = async (env: { [name: string]: string }) => {
      const child = spawn(process.execPath, [main], { env, stdio: ['ignore', 'ignore', 'pipe'] });
      let said = '';
      child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString('utf8')));
      const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
      return { code, said };
    };
    const taken = await run({
      TALLYLINE_STRIPE_PORT: String(port),
      TALLYLINE_STRIPE_DATA: newFolder(),
      TALLYLINE_STRIPE_KEY: key,
    });
    expect(taken.code).toBe(1);
    expect(taken.said).toMatch(new RegExp(`port ${port} on 127.0.0.1 is taken`));
    const wrong = await run({
      TALLYLINE_STRIPE_PORT: 'x',
      TALLYLINE_STRIPE_KEY: 'sk_live_1',
      TALLYLINE_STRIPE_WEBHOOK_URL: 'http://x',
    });
    expect(wrong.code).toBe(1);
    for (const name of ['PORT', 'DATA', 'KEY', 'WEBHOOK_SECRET'])
      expect(wrong.said).toContain(`TALLYLINE_STRIPE_${name}`);
    expect(wrong.said).not.toContain('sk_live_1');
  });
});
