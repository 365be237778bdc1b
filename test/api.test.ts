// The API in this process, on real Postgres, ClickHouse and NATS, asked over real HTTP.
import { randomBytes, randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import Ajv2020 from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeMeterDefined } from '../contract/control.ts';
import type { Scope } from '../contract/key.ts';
import { BUCKET_KEYS, BUCKET_METERS, streamName, streamSubject } from '../contract/subjects.ts';
import { HOUR_MS } from '../contract/window.ts';
import { buildApi } from '../ledger/api/server.ts';
import type { ApiContext, App } from '../ledger/api/context.ts';
import { PROBLEMS } from '../ledger/api/problems.ts';
import { forgetAnswers } from '../ledger/api/write.ts';
import { openPublisher, type Publisher } from '../ledger/publish.ts';
import { activeKeys, createKey, createTenant } from '../ledger/tenants.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { migrateClickHouse, migratePostgres } from '../runtime/migrate.ts';
import { connectNats, ensureStream, openKeyValue, type NatsLink } from '../runtime/nats.ts';
import { connectPostgres, type Postgres } from '../runtime/postgres.ts';
import { startEngines, type Engines } from './engines.ts';

const SHARDS = 2;
/** All requests happen at this instant, unless a test moves it. */
let nowMs = Date.UTC(2026, 10, 21, 8, 30);

let engines: Engines;
let pg: Postgres;
let locks: Postgres;
let writer: ClickHouse;
let ch: ClickHouse;
let link: NatsLink;
let publisher: Publisher;
let app: App;
let url: string;
let usageReady = true;
const keys: Record<'admin' | 'reader' | 'ingest' | 'other', string> = {
  admin: '',
  reader: '',
  ingest: '',
  other: '',
};

beforeAll(async () => {
  engines = await startEngines({ nats: true, postgres: true, clickhouse: true });
  const log = createLog('test', process.env['TEST_LOG'] ?? 'silent');
  const database = { url: engines.databaseUrl, log, statementTimeoutMs: 20_000 };
  pg = connectPostgres({ ...database, name: 'api', poolMax: 6 });
  locks = connectPostgres({ ...database, name: 'api locks', poolMax: 2 });
  await migratePostgres(pg, {
    directory: new URL('../ledger/migrations/', import.meta.url),
    schema: 'ledger',
  });
  writer = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 20_000 });
  ch = connectClickHouse({ url: engines.clickhouseReaderUrl, name: 'test', requestTimeoutMs: 20_000 });
  await migrateClickHouse(writer, {
    directory: new URL('../aggregator/schema/', import.meta.url),
    component: 'aggregator',
  });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log });
  for (let shard = 0; shard < SHARDS; shard++) {
    await ensureStream(link, {
      name: streamName(shard),
      subjects: [streamSubject(shard)],
      maxBytes: 10_000_000,
      replicas: 1,
    });
  }
  publisher = await openPublisher(link, { shards: SHARDS });
  keys.admin = await keyOf('acme-inc', ['ingest', 'read', 'admin']);
  keys.reader = await keyOf('acme-inc', ['read']);
  keys.ingest = await keyOf('acme-inc', ['ingest']);
  keys.other = await keyOf('globex', ['read', 'admin']);
  const context: ApiContext = {
    pg,
    locks,
    ch,
    usageReady: () => usageReady,
    publisher,
    clock: { now: () => nowMs },
    log,
    metrics: createMetrics('test'),
    randomBytes: (length) => randomBytes(length),
    apiLimits: { bodyBytesMax: 100_000, keyCacheMs: 60_000, exportRowsMax: 50, requestsMax: 100 },
  };
  app = await buildApi(context);
  await app.listen({ host: '127.0.0.1', port: 0 });
  url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  await app?.close();
  await publisher?.close();
  await link?.close();
  await Promise.all([pg?.close(), locks?.close(), writer?.close(), ch?.close()]);
  await engines?.stop();
});

async function keyOf(tenant: string, scopes: readonly Scope[]): Promise<string> {
  return pg.transaction(async (tx) => {
    await createTenant(tx, { tenant, name: tenant, nowMs });
    return (await createKey(tx, { tenant, scopes, label: 'test', nowMs, random: randomBytes(64) })).key;
  });
}

interface Told {
  readonly status: number;
  readonly headers: Headers;
  // The tests say what they expect of it.
  readonly body: never;
}

interface Asked {
  readonly key?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

/** Asks, and holds the answer against what the OpenAPI document says about it. */
async function ask(method: string, path: string, asked: Asked = {}): Promise<Told> {
  const response = await fetch(url + path, {
    method,
    headers: {
      ...(asked.key === '' ? {} : { authorization: `Bearer ${asked.key ?? keys.admin}` }),
      ...(asked.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...asked.headers,
    },
    ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
  });
  const type = response.headers.get('content-type') ?? '';
  const bytes = Buffer.from(await response.arrayBuffer());
  const body: unknown =
    type.includes('json') && !type.includes('ndjson') ? JSON.parse(bytes.toString()) : bytes;
  conforms(method, path, response.status, type, body);
  return { status: response.status, headers: response.headers, body: body as never };
}

interface Media {
  readonly schema?: object;
}

interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly tags?: string[];
  readonly parameters?: { name: string; in: string; required?: boolean; schema?: object }[];
  readonly requestBody?: { content: Record<string, Media> };
  readonly responses: Record<string, { description: string; content?: Record<string, Media> }>;
}

interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { schemas: Record<string, object>; securitySchemes: object };
}

let document: Document | undefined;
let ajv: Ajv2020.default | undefined;

function described(): { document: Document; ajv: Ajv2020.default } {
  document ??= app.swagger() as unknown as Document;
  if (ajv === undefined) {
    ajv = new Ajv2020.default({ strict: false, allErrors: true, validateFormats: false });
    ajv.addSchema({ $id: 'openapi', ...document });
  }
  return { document, ajv };
}

function conforms(method: string, path: string, status: number, type: string, body: unknown): void {
  const { document, ajv } = described();
  const pathname = path.split('?', 1)[0]!;
  const template = Object.keys(document.paths).find((one) =>
    new RegExp(`^${one.replace(/\{[^}]+\}/g, '[^/]+')}$`).test(pathname),
  );
  const operation = template === undefined ? undefined : document.paths[template]?.[method.toLowerCase()];
  if (operation === undefined || template === undefined) return expect(status).toBe(404);
  const answer = operation.responses[String(status)];
  expect(answer, `${method} ${template} does not describe ${status}`).toBeDefined();
  if (status === 204) return;
  const media = type.split(';', 1)[0]!;
  expect(Object.keys(answer?.content ?? {}), `${method} ${template} ${status}`).toContain(media);
  if (!/[/+]json$/.test(media)) return;
  const pointer = [
    'paths',
    template,
    method.toLowerCase(),
    'responses',
    String(status),
    'content',
    media,
    'schema',
  ]
    .map((part) => part.replaceAll('~', '~0').replaceAll('/', '~1'))
    .map(encodeURIComponent)
    .join('/');
  const validate = ajv.getSchema(`openapi#/${pointer}`);
  expect(validate).toBeDefined();
  expect(validate?.(body), `${method} ${path}: ${ajv.errorsText(validate?.errors ?? [])}`).toBe(true);
}

const TOKENS = {
  key: 'input_tokens',
  eventType: 'llm.request',
  aggregation: 'sum',
  valueProperty: 'input_tokens',
  groupBy: ['model', 'user.plan'],
};

describe('meters', () => {
  test('a meter is answered when every shard of the log and the edges have it', async () => {
    const made = await ask('POST', '/v1/meters', { body: TOKENS });
    expect([made.status, made.body]).toEqual([201, TOKENS]);
    for (let shard = 0; shard < SHARDS; shard++) {
      const message = await link.jsm.streams.getMessage(streamName(shard), { seq: 1 });
      expect(decodeMeterDefined(message.data)).toEqual({ tenant: 'acme-inc', meter: TOKENS });
    }
    const bucket = await openKeyValue(link, BUCKET_METERS);
    const entry = await bucket.get('acme-inc.input_tokens');
    expect(JSON.parse(entry?.value ?? '')).toEqual({ tenant: 'acme-inc', meter: TOKENS });
    expect(await audit('meter.create')).toEqual(['meter/input_tokens']);
  });

  test('the same definition again is the same meter, another one is a conflict', async () => {
    const again = await ask('POST', '/v1/meters', { body: { ...TOKENS } });
    expect([again.status, again.body]).toEqual([200, TOKENS]);
    const conflict = await ask('POST', '/v1/meters', { body: { ...TOKENS, groupBy: ['model'] } });
    expect(conflict.status).toBe(409);
    expect(conflict.body).toMatchObject({ code: 'meter_conflict', existing: TOKENS });
    expect((await ask('GET', '/v1/meters/input_tokens')).body).toEqual(TOKENS);
    expect(await audit('meter.create')).toEqual(['meter/input_tokens']);
  });

  test('a meter that could not be published is published by the same request later', async () => {
    const body = { key: 'calls', eventType: 'call', aggregation: 'count' };
    const stored = { ...body, valueProperty: null, groupBy: [] };
    await pg.query(
      `INSERT INTO ledger.meters (tenant, key, definition, state, created_at) VALUES ('acme-inc', 'calls', $1, 'publishing', now())`,
      [JSON.stringify(stored)],
    );
    expect(await ask('POST', '/v1/meters', { body })).toMatchObject({ status: 200, body: stored });
    const message = await link.jsm.streams.getMessage(streamName(1), { last_by_subj: streamSubject(1) });
    expect(decodeMeterDefined(message.data).meter).toEqual(stored);
    expect(await pg.query(`SELECT state FROM ledger.meters WHERE key = 'calls'`)).toEqual([
      { state: 'active' },
    ]);
  });

  test('lists are paged by opaque cursors, and a cursor of another list is refused', async () => {
    const first = (await ask('GET', '/v1/meters?limit=1')).body as {
      items: { key: string }[];
      nextCursor: string;
    };
    expect(first.items.map((meter) => meter.key)).toEqual(['calls']);
    const rest = await ask('GET', `/v1/meters?limit=1&cursor=${first.nextCursor}`);
    expect(rest.body).toEqual({ items: [TOKENS], nextCursor: null });
    for (const cursor of ['nonsense', `${first.nextCursor}A`]) {
      expect((await ask('GET', `/v1/meters?cursor=${cursor}`)).body).toMatchObject({
        code: 'cursor_invalid',
      });
    }
    expect((await ask('GET', `/v1/plans?cursor=${first.nextCursor}`)).body).toMatchObject({
      code: 'cursor_invalid',
    });
    expect((await ask('GET', `/v1/meters?cursor=${first.nextCursor}`, { key: keys.other })).status).toBe(400);
  });
});

describe('what is not valid', () => {
  test('every mistake is listed with its place', async () => {
    const body = { eventType: 5, aggregation: 'median', groupBy: ['model', 7], tenant: 'globex' };
    const answer = await ask('POST', '/v1/meters', { body });
    expect(answer.status).toBe(400);
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    const { code, type, errors } = answer.body as { code: string; type: string; errors: { path: string }[] };
    expect([code, type]).toEqual(['validation_failed', '/docs#validation_failed']);
    expect(errors.map((one) => one.path).sort()).toEqual([
      'aggregation',
      'eventType',
      'groupBy[1]',
      'key',
      'tenant',
    ]);
  });

  test('mistakes of meaning are listed as well', async () => {
    const body = {
      key: 'Bad Key',
      eventType: 'x',
      aggregation: 'count',
      valueProperty: 'n',
      groupBy: ['a', 'a', 'subject'],
    };
    const answer = await ask('POST', '/v1/meters', { body });
    const { errors } = answer.body as { errors: { path: string }[] };
    expect(errors.map((one) => one.path)).toEqual(['key', 'valueProperty', 'groupBy', 'groupBy']);
  });

  test('a plan says each place, and never takes a JSON number for an amount', async () => {
    const price = { key: 'p', meter: 'input_tokens', model: 'per_unit' };
    const floats = { key: 'pro', name: 'Pro', currency: 'USD', prices: [{ ...price, unitPrice: 0.1 }] };
    const refused = await ask('POST', '/v1/plans', { body: floats });
    expect(refused.body).toMatchObject({
      errors: [{ path: 'prices[0].unitPrice', message: 'must be string' }],
    });
    const graduated = {
      ...price,
      model: 'graduated',
      unitPrice: '1',
      tiers: [{ upTo: null, unitPrice: '0.0000000000001', flatAmount: '0.001' }],
    };
    const fine = await ask('POST', '/v1/plans', {
      body: { ...floats, prices: [price, graduated], currency: 'XXX' },
    });
    expect((fine.body as { errors: { path: string }[] }).errors.map((one) => one.path)).toEqual(['currency']);
    const semantic = await ask('POST', '/v1/plans', { body: { ...floats, prices: [price, graduated] } });
    expect((semantic.body as { errors: { path: string }[] }).errors.map((one) => one.path)).toEqual([
      'prices[0].unitPrice',
      'prices[1].unitPrice',
      'prices[1].tiers[0].unitPrice',
      'prices[1].tiers[0].flatAmount',
    ]);
    const unknown = await ask('POST', '/v1/plans', {
      body: { ...floats, prices: [{ ...price, unitPrice: '1', meter: 'nothing' }] },
    });
    expect((unknown.body as { errors: { path: string }[] }).errors.map((one) => one.path)).toEqual([
      'prices[0].meter',
    ]);
  });

  test('query parameters too', async () => {
    const answer = await ask('GET', '/v1/usage?window=week&limit=ten&subjet=a&limit=3');
    const { errors } = answer.body as { errors: { path: string }[] };
    expect(errors.map((one) => one.path).sort()).toEqual(['limit', 'meter', 'subjet', 'window']);
  });

  test('text that cannot be kept as it is', async () => {
    const customer = { ...CUSTOMER, name: 'nul\u0000', subjects: ['fine', '\ud800'] };
    const answer = await ask('PUT', '/v1/customers/odd', { body: customer });
    const { errors } = answer.body as { errors: { path: string }[] };
    expect(errors.map((one) => one.path)).toEqual(['name', 'subjects[1]']);
    expect((await ask('GET', '/v1/meters/%00')).body).toMatchObject({ errors: [{ path: 'key' }] });
    expect((await ask('GET', '/v1/usage?meter=a%00')).body).toMatchObject({ errors: [{ path: 'meter' }] });
  });

  test('a body that is no JSON, of another type, or too large', async () => {
    const headers = { authorization: `Bearer ${keys.admin}`, 'content-type': 'application/json' };
    const send = async (body: string, more = {}) => {
      const response = await fetch(`${url}/v1/meters`, {
        method: 'POST',
        headers: { ...headers, ...more },
        body,
      });
      return ((await response.json()) as { code: string }).code;
    };
    expect(await send('{')).toBe('body_unreadable');
    expect(await send('')).toBe('body_unreadable');
    expect(await send('{"__proto__": {"key": "x"}}')).toBe('body_unreadable');
    expect(await send('x', { 'content-type': 'text/csv' })).toBe('media_type_unsupported');
    expect(await send(JSON.stringify({ key: 'x'.repeat(100_000) }))).toBe('body_too_large');
    const nothing = await ask('GET', '/v2/meters');
    expect([nothing.status, nothing.body]).toMatchObject([404, { code: 'not_found' }]);
  });
});

describe('keys', () => {
  test('a request needs a key that is known and has the scope', async () => {
    const missing = await ask('GET', '/v1/meters', { key: '' });
    expect(missing).toMatchObject({ status: 401, body: { code: 'key_missing' } });
    expect(missing.headers.get('www-authenticate')).toBe('Bearer realm="tallyline"');
    const last = keys.admin.at(-1) === 'a' ? 'b' : 'a';
    for (const key of ['x', `tl_${'0'.repeat(12)}_${'0'.repeat(27)}`, keys.admin.slice(0, -1) + last]) {
      expect(await ask('GET', '/v1/meters', { key })).toMatchObject({
        status: 401,
        body: { code: 'key_invalid' },
      });
    }
    const ingest = await ask('GET', '/v1/meters', { key: keys.ingest });
    expect(ingest).toMatchObject({ status: 403, body: { code: 'scope_missing', requiredScope: 'read' } });
    const reader = await ask('POST', '/v1/meters', { key: keys.reader, body: TOKENS });
    expect(reader).toMatchObject({ status: 403, body: { requiredScope: 'admin' } });
    expect((await ask('GET', '/v1/keys', { key: keys.reader })).status).toBe(403);
  });

  test('a new key works at once and is told to the edges; a revoked one is refused at once', async () => {
    const made = await ask('POST', '/v1/keys', { body: { label: 'for a day', scopes: ['read'] } });
    const { id, key } = made.body as { id: string; key: string };
    expect(made.status).toBe(201);
    const bucket = await openKeyValue(link, BUCKET_KEYS);
    const entry = JSON.parse((await bucket.get(id))?.value ?? '') as object;
    expect(entry).toMatchObject({ id, tenant: 'acme-inc', scopes: ['read'] });
    expect(Object.keys(entry)).toEqual(['id', 'tenant', 'scopes', 'secretHash']);
    expect((await ask('GET', '/v1/meters', { key })).status).toBe(200);
    expect((await ask('DELETE', `/v1/keys/${id}`, { key: keys.other })).status).toBe(404);
    expect((await ask('DELETE', `/v1/keys/${id}`)).status).toBe(204);
    expect(await ask('GET', '/v1/meters', { key })).toMatchObject({
      status: 401,
      body: { code: 'key_invalid' },
    });
    expect(await bucket.get(id)).toBeNull();
    expect((await ask('DELETE', `/v1/keys/${id}`)).status).toBe(204);
    const { items } = (await ask('GET', '/v1/keys')).body as {
      items: { id: string; revokedAt: string | null }[];
    };
    expect(items.find((one) => one.id === id)?.revokedAt).toBe('2026-11-21T08:30:00.000Z');
    expect(await audit('key.create')).toContain(`key/${id}`);
    expect(await audit('key.revoke')).toContain(`key/${id}`);
  });

  test('a secret is told once and kept nowhere, not even for a repeated request', async () => {
    const asked = { body: { label: 'once', scopes: ['read'] }, headers: { 'idempotency-key': randomUUID() } };
    const first = (await ask('POST', '/v1/keys', asked)).body as { id: string; key: string };
    const second = await ask('POST', '/v1/keys', asked);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(second.body).toEqual({ ...(first as object), key: null });
    const secret = first.key.split('_')[2] ?? '';
    const dump = await pg.query('SELECT body FROM ledger.idempotency_keys');
    expect(JSON.stringify(dump)).not.toContain(secret);
  });

  test('what the edges know is brought in line with Postgres', async () => {
    const bucket = await openKeyValue(link, BUCKET_KEYS);
    await bucket.put('zzzzzzzzzzzz', '{"id":"zzzzzzzzzzzz"}');
    expect(await publisher.syncKeys(() => activeKeys(pg))).toBeGreaterThan(0);
    expect(await bucket.get('zzzzzzzzzzzz')).toBeNull();
    const [record] = await activeKeys(pg);
    expect(JSON.parse((await bucket.get(record!.id))?.value ?? '')).toEqual({ ...record });
    expect(await publisher.syncKeys(() => activeKeys(pg))).toBe(0);
  });
});

const PLAN = {
  key: 'pro',
  name: 'Pro',
  currency: 'USD',
  prices: [{ key: 'input', meter: 'input_tokens', model: 'per_unit', included: '100', unitPrice: '0.05' }],
  entitlements: [{ key: 'input_cap', meter: 'input_tokens', limit: '1000' }],
};
const CUSTOMER = {
  name: 'Acme',
  currency: 'USD',
  subjects: ['acme', 'a,b'],
  plan: 'pro',
  anchor: '2026-10-01T00:00:00Z',
};

describe('plans and customers', () => {
  test('a published plan is a version; the same again is no new one', async () => {
    const first = await ask('POST', '/v1/plans', { body: PLAN });
    expect([first.status, first.body]).toEqual([201, { ...PLAN, version: 1 }]);
    expect((await ask('POST', '/v1/plans', { body: PLAN })).status).toBe(200);
    const second = await ask('POST', '/v1/plans', { body: { ...PLAN, name: 'Pro 2' } });
    expect([second.status, second.body]).toMatchObject([201, { version: 2 }]);
    expect((await ask('GET', '/v1/plans/pro?version=1')).body).toEqual({ ...PLAN, version: 1 });
    expect((await ask('GET', '/v1/plans/pro')).body).toMatchObject({ version: 2 });
    expect((await ask('GET', '/v1/plans/pro?version=3')).body).toMatchObject({ code: 'plan_not_found' });
    expect(await audit('plan.publish')).toEqual(['plan/pro/1', 'plan/pro/2']);
  });

  test('a customer is put, changed and read', async () => {
    const made = await ask('PUT', '/v1/customers/acme', { body: { ...CUSTOMER, planVersion: 1 } });
    const expected = {
      id: 'acme',
      name: 'Acme',
      currency: 'USD',
      subjects: ['a,b', 'acme'],
      plan: 'pro',
      planVersion: 1,
      anchor: '2026-10-01T00:00:00.000Z',
      createdAt: '2026-11-21T08:30:00.000Z',
    };
    expect([made.status, made.body]).toEqual([201, expected]);
    const { anchor: _anchor, ...later } = CUSTOMER;
    const changed = await ask('PUT', '/v1/customers/acme', { body: { ...later, name: 'Acme Inc.' } });
    expect([changed.status, changed.body]).toEqual([200, { ...expected, name: 'Acme Inc.' }]);
    expect((await ask('GET', '/v1/customers/acme')).body).toEqual({ ...expected, name: 'Acme Inc.' });
    const taken = await ask('PUT', '/v1/customers/other', { body: { ...CUSTOMER, planVersion: 1 } });
    expect(taken).toMatchObject({ status: 409, body: { code: 'subject_taken' } });
    expect((await ask('GET', '/v1/customers/other')).status).toBe(404);
    const plan = await ask('PUT', '/v1/customers/other', {
      body: { ...CUSTOMER, subjects: [], plan: 'none' },
    });
    expect(plan).toMatchObject({ status: 422, body: { code: 'plan_unknown' } });
    const anchor = await ask('PUT', '/v1/customers/other', {
      body: { ...CUSTOMER, anchor: '2026-10-01T00:30:00Z' },
    });
    expect(anchor).toMatchObject({ status: 400, body: { errors: [{ path: 'anchor' }] } });
    for (const id of ['b1', 'b2']) {
      await ask('PUT', `/v1/customers/${id}`, { body: { ...CUSTOMER, subjects: [id] } });
    }
    const page = (await ask('GET', '/v1/customers?limit=2')).body as {
      items: { id: string }[];
      nextCursor: string;
    };
    const rest = (await ask('GET', `/v1/customers?limit=2&cursor=${page.nextCursor}`)).body as typeof page;
    expect([...page.items, ...rest.items].map((one) => one.id)).toEqual(['acme', 'b1', 'b2']);
    expect(rest.nextCursor).toBeNull();
  });
});

describe('Idempotency-Key', () => {
  const grant = { amount: '12.34', reason: 'welcome' };
  const path = '/v1/customers/acme/grants';

  test('the same request is answered the same and done once', async () => {
    const headers = { 'idempotency-key': 'grant-1' };
    const first = await ask('POST', path, { body: grant, headers });
    expect(first).toMatchObject({
      status: 201,
      body: { amount: '12.34', remaining: '12.34', priority: 50, expiresAt: null },
    });
    expect(first.headers.get('idempotent-replayed')).toBeNull();
    const second = await ask('POST', path, { body: { reason: 'welcome', amount: '12.34' }, headers });
    expect([second.status, second.body]).toEqual([201, first.body]);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(((await ask('GET', path)).body as { items: unknown[] }).items).toEqual([first.body]);
    expect(await audit('grant.issue')).toHaveLength(1);
  });

  test('another request under the same key is refused, on whatever path', async () => {
    const headers = { 'idempotency-key': 'grant-1' };
    const other = await ask('POST', path, { body: { ...grant, amount: '12.35' }, headers });
    expect(other).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    const elsewhere = await ask('POST', '/v1/plans', { body: PLAN, headers });
    expect(elsewhere).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    // Keys are the tenant's own.
    const globex = await ask('POST', '/v1/meters', { key: keys.other, body: TOKENS, headers });
    expect(globex.status).toBe(201);
  });

  test('of many at once one is done, and the others are told to wait or get its answer', async () => {
    const headers = { 'idempotency-key': 'grant-many' };
    const answers = await Promise.all(
      Array.from({ length: 12 }, () => ask('POST', path, { body: grant, headers })),
    );
    const done = answers.filter((answer) => answer.status === 201);
    const waiting = answers.filter((answer) => answer.status === 409);
    expect(done.length).toBeGreaterThan(0);
    expect(done.length + waiting.length).toBe(12);
    expect(new Set(done.map((answer) => JSON.stringify(answer.body))).size).toBe(1);
    for (const answer of waiting) expect(answer.body).toMatchObject({ code: 'idempotency_in_progress' });
    expect(((await ask('GET', path)).body as { items: unknown[] }).items).toHaveLength(2);
    expect((await ask('POST', path, { body: grant, headers })).status).toBe(201);
  });

  test('while one is under way the others are told so, also for a write of several steps', async () => {
    await locks.transaction(async (tx) => {
      await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', ['idempotency acme-inc held']);
      for (const [method, target, body] of [
        ['POST', path, grant],
        ['POST', '/v1/meters', TOKENS],
      ] as const) {
        const answer = await ask(method, target, { body, headers: { 'idempotency-key': 'held' } });
        expect(answer).toMatchObject({ status: 409, body: { code: 'idempotency_in_progress' } });
      }
    });
    expect(
      (await ask('POST', '/v1/meters', { body: TOKENS, headers: { 'idempotency-key': 'held' } })).status,
    ).toBe(200);
  });

  test('a refusal is kept, unless it may be gone the next time', async () => {
    const headers = { 'idempotency-key': 'refused' };
    const conflict = { ...TOKENS, aggregation: 'max' };
    const first = await ask('POST', '/v1/meters', { body: conflict, headers });
    const second = await ask('POST', '/v1/meters', { body: conflict, headers });
    expect([first.status, second.status, second.headers.get('idempotent-replayed')]).toEqual([
      409,
      409,
      'true',
    ]);
    expect({ ...(second.body as object), instance: '' }).toEqual({ ...(first.body as object), instance: '' });
    const open = { body: { periodStart: '2026-11-01T00:00:00Z' }, headers: { 'idempotency-key': 'open' } };
    for (let time = 0; time < 2; time++) {
      const answer = await ask('POST', '/v1/customers/acme/invoices', open);
      expect(answer).toMatchObject({
        status: 409,
        body: { code: 'period_open', endsAt: '2026-12-01T00:00:00.000Z' },
      });
      expect(answer.headers.get('idempotent-replayed')).toBeNull();
    }
  });

  test('a key that is no key is refused, and an old answer is forgotten', async () => {
    for (const key of ['with space', 'x'.repeat(256)]) {
      const answer = await ask('POST', path, { body: grant, headers: { 'idempotency-key': key } });
      expect(answer).toMatchObject({ status: 400, body: { errors: [{ path: 'idempotency-key' }] } });
    }
    expect(await forgetAnswers(pg, nowMs)).toBe(0);
    expect(await forgetAnswers(pg, nowMs + 1)).toBeGreaterThan(0);
    // Even then the same key makes no second grant.
    await ask('POST', path, { body: grant, headers: { 'idempotency-key': 'grant-1' } });
    expect(((await ask('GET', path)).body as { items: unknown[] }).items).toHaveLength(2);
  });
});

/** Rollup rows as the aggregator writes them, one event an hour row unless told otherwise. */
interface Rolled {
  readonly tenant?: string;
  readonly meter?: string;
  readonly subject: string;
  readonly hour: string;
  readonly dimensions?: readonly string[];
  readonly shard?: number;
  readonly count?: number;
  readonly sum: string;
  readonly min?: string;
  readonly max?: string;
  readonly latest?: string;
  readonly latestTime?: string;
  readonly position?: number;
}

async function roll(rows: readonly Rolled[]): Promise<void> {
  const seconds = (text: string) => Date.parse(text) / 1_000;
  await writer.insertJson(
    'rollup_hour',
    rows.map((row) => ({
      tenant: row.tenant ?? 'acme-inc',
      meter: row.meter ?? 'input_tokens',
      subject: row.subject,
      hour: seconds(row.hour),
      dimensions: row.dimensions ?? ['gpt-4', 'free'],
      shard: row.shard ?? 0,
      value_count: row.count ?? 1,
      value_sum: row.sum,
      value_min: row.min ?? row.sum,
      value_max: row.max ?? row.sum,
      value_latest: row.latest ?? row.sum,
      latest_time: Date.parse(row.latestTime ?? row.hour),
      latest_position: row.position ?? 1,
      position: row.position ?? 1,
    })),
  );
}

interface Usage {
  readonly rows: {
    windowStart: string;
    windowEnd: string;
    subject: string | null;
    group: object;
    value: string;
  }[];
  readonly nextCursor: string | null;
}

async function usage(query: string): Promise<Usage> {
  const answer = await ask('GET', `/v1/usage?meter=input_tokens&${query}`, { key: keys.reader });
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body;
}

describe('usage', () => {
  beforeAll(async () => {
    await roll([
      // Each side of midnight of Berlin (22:00 UTC in October's summer time, 23:00 UTC in winter).
      { subject: 'acme', hour: '2026-10-24T21:00:00Z', sum: '1' },
      { subject: 'acme', hour: '2026-10-24T22:00:00Z', sum: '10' },
      { subject: 'acme', hour: '2026-10-25T22:00:00Z', sum: '100' },
      { subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '1000' },
      // An older state of the same row loses against it.
      { subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '777', position: 0 },
      { subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '0.000000001', shard: 1 },
      {
        subject: 'a,b',
        hour: '2026-10-25T23:00:00Z',
        sum: '12345678901234567.123456789',
        dimensions: ['gpt-5', ''],
      },
      { subject: 'acme', hour: '2026-11-01T00:00:00Z', sum: '5', dimensions: ['gpt-5', 'pro'] },
      { tenant: 'globex', subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '666' },
    ]);
  });
  const october = 'from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z';

  test('a total of all subjects, and of one', async () => {
    const window = { windowStart: '2026-10-01T00:00:00.000Z', windowEnd: '2026-11-01T00:00:00.000Z' };
    expect(await usage(october)).toEqual({
      rows: [{ ...window, subject: null, group: {}, value: '12345678901235678.12345679' }],
      nextCursor: null,
    });
    expect((await usage(`${october}&subject=acme`)).rows).toEqual([
      { ...window, subject: 'acme', group: {}, value: '1111.000000001' },
    ]);
    const both = await usage(`${october}&subject=acme&subject=a%2Cb`);
    expect(both.rows.map((row) => [row.subject, row.value])).toEqual([
      ['a,b', '12345678901234567.123456789'],
      ['acme', '1111.000000001'],
    ]);
    expect(await usage('from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z')).toEqual({
      rows: [],
      nextCursor: null,
    });
  });

  test('days of a zone are cut where its clocks say, and hours where UTC says', async () => {
    const days = await usage(`${october}&subject=acme&window=day&timezone=Europe/Berlin`);
    expect(days.rows.map((row) => [row.windowStart, row.windowEnd, row.value])).toEqual([
      ['2026-10-23T22:00:00.000Z', '2026-10-24T22:00:00.000Z', '1'],
      // 25 hours.
      ['2026-10-24T22:00:00.000Z', '2026-10-25T23:00:00.000Z', '110'],
      ['2026-10-25T23:00:00.000Z', '2026-10-26T23:00:00.000Z', '1000.000000001'],
    ]);
    const utc = await usage(`${october}&subject=acme&window=day`);
    expect(utc.rows.map((row) => [row.windowStart.slice(0, 10), row.value])).toEqual([
      ['2026-10-24', '11'],
      ['2026-10-25', '1100.000000001'],
    ]);
    const hours = await usage(`${october}&subject=acme&window=hour`);
    expect(hours.rows.map((row) => row.value)).toEqual(['1', '10', '100', '1000.000000001']);
    const months = await usage('from=2026-10-01T00:00:00Z&to=2026-12-01T00:00:00Z&subject=acme&window=month');
    expect(months.rows.map((row) => row.value)).toEqual(['1111.000000001', '5']);
  });

  test('without from and to it is the current month', async () => {
    expect((await usage('subject=acme')).rows).toEqual([
      {
        windowStart: '2026-11-01T00:00:00.000Z',
        windowEnd: '2026-11-21T09:00:00.000Z',
        subject: 'acme',
        group: {},
        value: '5',
      },
    ]);
  });

  test('groups and filters by dimensions of the meter, and by nothing else', async () => {
    const all = 'from=2026-10-01T00:00:00Z&to=2026-12-01T00:00:00Z';
    expect((await usage(`${all}&groupBy=model,user.plan`)).rows.map((row) => [row.group, row.value])).toEqual(
      [
        [{ model: 'gpt-4', 'user.plan': 'free' }, '1111.000000001'],
        [{ model: 'gpt-5', 'user.plan': '' }, '12345678901234567.123456789'],
        [{ model: 'gpt-5', 'user.plan': 'pro' }, '5'],
      ],
    );
    expect((await usage(`${all}&groupBy=user.plan&groupBy=subject`)).rows.map((row) => row.subject)).toEqual([
      'a,b',
      'acme',
      'acme',
    ]);
    expect((await usage(`${all}&filter.model=gpt-5&filter.user.plan=pro`)).rows).toMatchObject([
      { value: '5' },
    ]);
    expect((await usage(`${all}&filter.user.plan=pro&filter.user.plan=free`)).rows).toMatchObject([
      { value: '1116.000000001' },
    ]);
    const refused = await ask('GET', `/v1/usage?meter=input_tokens&groupBy=color&filter.size=1`);
    expect(refused).toMatchObject({
      status: 422,
      body: { code: 'group_by_unknown', known: ['subject', 'model', 'user.plan'] },
    });
  });

  test('text from outside is only ever a value', async () => {
    const hostile = [
      `' OR 1=1 --`,
      `acme'; DROP TABLE rollup_hour; --`,
      '\\',
      '{tenant:String}',
      '\t',
      '💰"`',
    ];
    for (const text of hostile) {
      const value = encodeURIComponent(text);
      expect((await usage(`${october}&subject=${value}`)).rows).toEqual([]);
      expect((await usage(`${october}&filter.model=${value}`)).rows).toEqual([]);
      const unknown = await ask('GET', `/v1/usage?meter=input_tokens&groupBy=${value}`);
      expect(unknown.body).toMatchObject({ code: 'group_by_unknown' });
      const zone = await ask('GET', `/v1/usage?meter=input_tokens&timezone=${value}`);
      expect(zone.body).toMatchObject({ code: 'timezone_unknown' });
      expect([400, 404]).toContain((await ask('GET', `/v1/usage?meter=${value}`)).status);
    }
    const odd = '2026-09-01T00:00:00Z';
    await roll([{ subject: hostile[1]!, hour: odd, sum: '3', dimensions: [hostile[0]!, hostile[5]!] }]);
    const window = `from=${odd}&to=2026-09-02T00:00:00Z&groupBy=subject,model,user.plan`;
    expect((await usage(window)).rows).toMatchObject([
      { subject: hostile[1], group: { model: hostile[0], 'user.plan': hostile[5] }, value: '3' },
    ]);
  });

  test('pages give every row once, in order', async () => {
    const rows = Array.from({ length: 60 }, (_, n) => ({
      subject: `s${n % 7}`,
      hour: new Date(Date.UTC(2026, 7, 1) + Math.floor(n / 7) * HOUR_MS).toISOString(),
      sum: String(n),
      dimensions: [`m${n % 3}`, ''],
    }));
    await roll(rows);
    for (const window of ['hour', 'day', 'total']) {
      const query = `from=2026-08-01T00:00:00Z&to=2026-08-03T00:00:00Z&window=${window}&groupBy=subject,model`;
      const whole = (await usage(query)).rows;
      const paged: Usage['rows'] = [];
      let cursor: string | null = null;
      do {
        const page = await usage(`${query}&limit=7${cursor === null ? '' : `&cursor=${cursor}`}`);
        expect(page.rows.length).toBeLessThanOrEqual(7);
        paged.push(...page.rows);
        cursor = page.nextCursor;
      } while (cursor !== null);
      expect(paged).toEqual(whole);
      expect(whole.length).toBe(window === 'hour' ? 60 : 21);
    }
    const { nextCursor } = await usage(
      'from=2026-08-01T00:00:00Z&to=2026-08-03T00:00:00Z&window=hour&limit=1',
    );
    const other = await ask('GET', `/v1/usage?meter=input_tokens&window=day&cursor=${nextCursor}`);
    expect(other.body).toMatchObject({ code: 'cursor_invalid' });
    const many = await ask(
      'GET',
      '/v1/usage?meter=input_tokens&format=csv&window=hour&groupBy=subject,model&from=2026-08-01T00:00:00Z&to=2026-08-03T00:00:00Z',
    );
    expect(many).toMatchObject({ status: 422, body: { code: 'usage_too_many_rows' } });
  });

  test('NDJSON, CSV and Parquet say the same as JSON', async () => {
    const query = `${october}&window=day&timezone=Europe/Berlin&groupBy=subject,model`;
    const { rows } = await usage(query);
    expect(rows).toHaveLength(4);
    const path = `/v1/usage?meter=input_tokens&${query}`;

    const ndjson = await ask('GET', `${path}&format=ndjson`);
    expect(ndjson.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = String(ndjson.body).trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(rows);
    const alone = await ask('GET', `/v1/usage?meter=input_tokens&${october}`, {
      headers: { accept: 'application/x-ndjson' },
    });
    expect(JSON.parse(String(alone.body))).toEqual((await usage(october)).rows[0]);

    const csv = await ask('GET', path, { headers: { accept: 'text/html, text/csv;q=0.9' } });
    expect(csv.headers.get('content-type')).toBe('text/csv; charset=utf-8; header=present');
    expect(String(csv.body)).toBe(
      [
        'windowStart,windowEnd,subject,model,value',
        '"2026-10-23T22:00:00.000Z","2026-10-24T22:00:00.000Z","acme","gpt-4",1',
        '"2026-10-24T22:00:00.000Z","2026-10-25T23:00:00.000Z","acme","gpt-4",110',
        '"2026-10-25T23:00:00.000Z","2026-10-26T23:00:00.000Z","a,b","gpt-5",12345678901234567.123456789',
        '"2026-10-25T23:00:00.000Z","2026-10-26T23:00:00.000Z","acme","gpt-4",1000.000000001',
        '',
      ].join('\n'),
    );

    const parquet = await ask('GET', `${path}&format=parquet`);
    await writer.command(
      `CREATE TABLE read_back (windowStart DateTime64(3, 'UTC'), windowEnd DateTime64(3, 'UTC'), subject String, group Map(String, String), value Decimal(38, 9)) ENGINE = Memory`,
    );
    const { origin, username, password } = new URL(engines.clickhouseUrl);
    const insert = `${origin}/?database=tallyline&query=${encodeURIComponent('INSERT INTO read_back FORMAT Parquet')}`;
    const inserted = await fetch(insert, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` },
      body: parquet.body,
    });
    expect(await inserted.text()).toBe('');
    const back = await writer.rows<{ start: string }>(
      'SELECT toString(toUnixTimestamp64Milli(windowStart)) AS start, subject, `group`, toString(value) AS value FROM read_back ORDER BY windowStart, subject',
    );
    expect(back.map((row) => ({ ...row, start: new Date(Number(row.start)).toISOString() }))).toEqual(
      rows.map((row) => ({
        start: row.windowStart,
        subject: row.subject,
        group: row.group,
        value: row.value,
      })),
    );
    const image = await ask('GET', path, { headers: { accept: 'image/png' } });
    expect(image).toMatchObject({ status: 406, body: { code: 'format_not_acceptable' } });
  });

  test('each aggregation is read exactly, over hours and shards', async () => {
    const property = { eventType: 'gauge', valueProperty: 'v' };
    const expected = { min: '-7', max: '9.5', latest: '-7', average: '0.833333333', count: '6', sum: '5' };
    const window = 'from=2026-11-02T00:00:00Z&to=2026-11-03T00:00:00Z&window=day';
    for (const [aggregation, value] of Object.entries(expected)) {
      const key = `gauge_${aggregation}`;
      const body = { ...property, key, aggregation };
      await ask('POST', '/v1/meters', {
        body: aggregation === 'count' ? { key, eventType: 'gauge', aggregation } : body,
      });
      await roll([
        {
          meter: key,
          subject: 'g',
          hour: '2026-11-02T01:00:00Z',
          count: 3,
          sum: '8.5',
          min: '-2',
          max: '9.5',
          latest: '1',
          dimensions: [],
        },
        // The newest by time, though its position is the lower.
        {
          meter: key,
          subject: 'g',
          hour: '2026-11-02T02:00:00Z',
          shard: 1,
          count: 3,
          sum: '-3.5',
          min: '-7',
          max: '2',
          latest: '-7',
          latestTime: '2026-11-02T02:30:00Z',
          position: 1,
          dimensions: [],
        },
        { meter: key, subject: 'g', hour: '2026-11-01T02:00:00Z', count: 3, sum: '500', dimensions: [] },
      ]);
      const json = await ask('GET', `/v1/usage?meter=${key}&${window}`);
      expect((json.body as Usage).rows[0]?.value, aggregation).toBe(value);
      const csv = await ask('GET', `/v1/usage?meter=${key}&${window}&format=csv`);
      expect(String(csv.body).split('\n')[1]?.split(',').at(-1), aggregation).toBe(value);
    }
    // Cut toward zero: -5 / 3.
    const negative = {
      meter: 'gauge_average',
      subject: 'n',
      hour: '2026-11-05T01:00:00Z',
      count: 3,
      sum: '-5',
      dimensions: [],
    };
    await roll([negative]);
    const answer = await ask('GET', '/v1/usage?meter=gauge_average&subject=n');
    expect((answer.body as Usage).rows[0]?.value).toBe('-1.666666666');
  });

  test('ranges that cannot be cut exactly are refused', async () => {
    const code = async (query: string) =>
      ((await ask('GET', `/v1/usage?meter=input_tokens&${query}`)).body as { code: string }).code;
    expect(await code('from=2026-10-01T00:30:00Z')).toBe('range_not_whole_hours');
    expect(await code('from=2026-10-02T00:00:00Z&to=2026-10-01T00:00:00Z')).toBe('range_invalid');
    expect(await code('window=hour&from=2020-01-01T00:00:00Z')).toBe('range_invalid');
    expect(await code('window=day&timezone=Asia/Kolkata&from=2026-10-01T00:00:00Z')).toBe(
      'timezone_not_whole_hours',
    );
    expect(await code('from=yesterday')).toBe('validation_failed');
    expect((await usage('window=hour&timezone=Asia/Kolkata&subject=acme')).rows).toHaveLength(1);
  });

  test('before the aggregator has made its views it says so', async () => {
    usageReady = false;
    try {
      for (const path of [
        '/v1/usage?meter=input_tokens',
        '/v1/conservation',
        '/v1/events/refused',
        '/v1/customers/acme/entitlements',
      ]) {
        const answer = await ask('GET', path);
        expect(answer).toMatchObject({ status: 503, body: { code: 'usage_not_ready' } });
        expect(answer.headers.get('retry-after')).toBe('2');
      }
    } finally {
      usageReady = true;
    }
  });

  test('refused events are listed, newest first, by verdict and code', async () => {
    const refused = (position: number, verdict: string, code: string, tenant = 'acme-inc') => ({
      tenant,
      verdict,
      code,
      type: 'llm.request',
      subject: 'acme',
      id: `e${position}`,
      source: 's',
      time: Date.UTC(2026, 10, 20),
      data: { input_tokens: 'many' },
      identity: randomUUID(),
      payload_hash: 1,
      accepted_at: Date.UTC(2026, 10, 20, position),
      shard: position % SHARDS,
      position,
    });
    await writer.insertJson('refused_events', [
      refused(1, 'rejected', 'meter_value_not_a_number'),
      refused(2, 'conflict', ''),
      refused(3, 'rejected', 'meter_value_missing'),
      refused(4, 'rejected', 'meter_value_missing', 'globex'),
    ]);
    const list = async (query: string) =>
      (await ask('GET', `/v1/events/refused?${query}`)).body as {
        items: { id: string; code: string }[];
        nextCursor: string;
      };
    expect((await list('')).items.map((one) => one.id)).toEqual(['e3', 'e2', 'e1']);
    expect((await list('verdict=rejected')).items.map((one) => one.id)).toEqual(['e3', 'e1']);
    expect((await list('code=meter_value_missing')).items.map((one) => one.id)).toEqual(['e3']);
    expect((await list('verdict=conflict')).items).toMatchObject([
      { code: 'conflict', data: { input_tokens: 'many' } },
    ]);
    const first = await list('limit=1');
    const second = await list(`limit=1&cursor=${first.nextCursor}`);
    const third = await list(`limit=1&cursor=${second.nextCursor}`);
    expect([first, second, third].map((page) => page.items[0]?.id)).toEqual(['e3', 'e2', 'e1']);
    expect(third.nextCursor).toBeNull();
  });
});

describe('TENANT-WALL', () => {
  test('a key sees nothing of another tenant', async () => {
    const key = keys.other;
    for (const path of [
      '/v1/customers/acme',
      '/v1/customers/acme/balance',
      '/v1/customers/acme/entitlements',
      '/v1/customers/acme/ledger',
      '/v1/customers/acme/grants',
      '/v1/customers/acme/invoices',
      '/v1/plans/pro',
      '/v1/meters/calls',
      '/v1/usage?meter=calls',
    ]) {
      expect((await ask('GET', path, { key })).status, path).toBe(404);
    }
    for (const path of ['/v1/customers', '/v1/plans']) {
      expect((await ask('GET', path, { key })).body).toEqual({ items: [], nextCursor: null });
    }
    const theirs = await ask('GET', '/v1/usage?meter=input_tokens&from=2026-10-01T00:00:00Z&subject=acme', {
      key,
    });
    expect((theirs.body as Usage).rows).toMatchObject([{ value: '666' }]);
    const ids = ((await ask('GET', '/v1/keys', { key })).body as { items: { id: string }[] }).items.map(
      (one) => one.id,
    );
    expect(ids).toEqual([keys.other.split('_')[1]]);
    for (const asked of ['/v1/meters?tenant=acme-inc', '/v1/usage?meter=input_tokens&tenant=acme-inc']) {
      expect(await ask('GET', asked, { key })).toMatchObject({
        status: 400,
        body: { errors: [{ path: 'tenant' }] },
      });
    }
    const grant = await ask('POST', '/v1/customers/acme/grants', {
      key,
      body: { amount: '1.00', reason: 'x' },
    });
    expect(grant).toMatchObject({ status: 404, body: { code: 'customer_not_found' } });
  });

  test('no route takes a tenant from the request', () => {
    for (const [path, methods] of Object.entries(described().document.paths)) {
      expect(path).not.toContain('tenant');
      for (const { parameters = [] } of Object.values(methods)) {
        expect(parameters.map((one) => one.name)).not.toContain('tenant');
      }
    }
  });
});

describe('a period', () => {
  const OCTOBER = { periodStart: '2026-10-01T00:00:00Z' };
  /** Raw events, their rollup and the watermark, as the aggregator would have written them. */
  async function count(o: { subject: string; values: readonly string[]; rollup: string }): Promise<void> {
    await writer.insertJson('meters', [
      {
        tenant: 'acme-inc',
        meter: 'output_tokens',
        event_type: 'llm.answer',
        aggregation: 'sum',
        value_property: 'n',
        group_by: [],
        shard: 0,
        position: 1,
      },
    ]);
    await writer.insertJson(
      'events',
      o.values.map((value, at) => ({
        tenant: 'acme-inc',
        hour: Date.UTC(2026, 9, 5) / 1_000,
        type: 'llm.answer',
        subject: o.subject,
        time: Date.UTC(2026, 9, 5, 0, at),
        identity: randomUUID(),
        source: '',
        id: `${o.subject} ${at}`,
        data: { n: value },
        payload_hash: at,
        accepted_at: Date.UTC(2026, 9, 5),
        shard: 0,
        position: 100 + at,
      })),
    );
    await roll([
      {
        meter: 'output_tokens',
        subject: o.subject,
        hour: '2026-10-05T00:00:00Z',
        sum: o.rollup,
        count: o.values.length,
        dimensions: [],
        position: 100 + o.values.length,
      },
    ]);
    await writer.insertJson('watermarks', [
      {
        shard: 0,
        incarnation: 0,
        sequence: 9,
        position: 100_000,
        stream_created: '',
        fingerprint: '',
        accepted_at: Date.UTC(2026, 9, 5),
        flushed_at: Date.UTC(2026, 9, 5),
      },
    ]);
  }

  beforeAll(async () => {
    await ask('POST', '/v1/meters', {
      body: { key: 'output_tokens', eventType: 'llm.answer', aggregation: 'sum', valueProperty: 'n' },
    });
    const price = {
      key: 'output',
      meter: 'output_tokens',
      model: 'per_unit',
      included: '100',
      unitPrice: '0.05',
    };
    const entitlements = [{ key: 'cap', meter: 'output_tokens', limit: '140' }];
    await ask('POST', '/v1/plans', {
      body: { key: 'out', name: 'Out', currency: 'USD', prices: [price], entitlements },
    });
    for (const id of ['closed', 'torn']) {
      await ask('PUT', `/v1/customers/${id}`, { body: { ...CUSTOMER, plan: 'out', subjects: [id] } });
    }
    await count({ subject: 'closed', values: ['100', '33.5', '7'], rollup: '140.5' });
    await count({ subject: 'torn', values: ['100', '50'], rollup: '151' });
  });

  test('is closed once, and every repetition shows the same invoice', async () => {
    await ask('POST', '/v1/customers/closed/grants', { body: { amount: '0.50', reason: 'sorry' } });
    const closed = await ask('POST', '/v1/customers/closed/invoices', { body: OCTOBER });
    // (140.5 - 100) at 0.05 is 2.025: 2.03, half away from zero. Credit covers 0.50 of it.
    expect(closed).toMatchObject({
      status: 201,
      body: {
        customer: { id: 'closed', name: 'Acme' },
        currency: 'USD',
        periodStart: '2026-10-01T00:00:00.000Z',
        periodEnd: '2026-11-01T00:00:00.000Z',
        status: 'issued',
        total: '1.53',
        lines: [
          {
            kind: 'usage',
            priceKey: 'output',
            quantity: '140.5',
            included: '100',
            amount: '2.03',
            tiers: [{ quantity: '40.5', unitPrice: '0.05' }],
          },
          { kind: 'credit', amount: '-0.50' },
        ],
        delivery: null,
      },
    });
    const again = await ask('POST', '/v1/customers/closed/invoices', { body: OCTOBER });
    expect([again.status, again.body]).toEqual([200, closed.body]);
    const { id } = closed.body as { id: string };
    expect((await ask('GET', `/v1/invoices/${id}`)).body).toEqual(closed.body);
    expect((await ask('GET', '/v1/customers/closed/invoices')).body).toEqual({
      items: [closed.body],
      nextCursor: null,
    });
    expect((await ask('GET', `/v1/invoices/${id}`, { key: keys.other })).status).toBe(404);
    expect(await audit('period.close')).toEqual([`invoice/${id}`]);
  });

  test('shows in balance, ledger and entitlements', async () => {
    expect((await ask('GET', '/v1/customers/closed/balance')).body).toEqual({
      currency: 'USD',
      accruedUsage: '0.00',
      credit: '0.00',
      invoicePending: '1.53',
      receivable: '0.00',
      net: '1.53',
      asOf: '2026-11-21T08:30:00.000Z',
      periods: [],
    });
    const ledger = (await ask('GET', '/v1/customers/closed/ledger')).body as {
      items: { id: string; kind: string; postings: { account: string; amount: string }[] }[];
    };
    expect(ledger.items.map((one) => one.kind)).toEqual(['invoice', 'credit_burn', 'usage', 'grant_issue']);
    expect(ledger.items[2]?.postings).toEqual(
      expect.arrayContaining([
        { account: 'accrued_usage', amount: '2.03' },
        { account: 'revenue', amount: '-2.03' },
      ]),
    );
    const pages: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = (await ask('GET', `/v1/customers/closed/ledger?limit=3${cursor}`))
        .body as typeof ledger & { nextCursor: string | null };
      pages.push(...page.items.map((one) => one.id));
      cursor = page.nextCursor === null ? null : `&cursor=${page.nextCursor}`;
    }
    expect(pages).toEqual(ledger.items.map((one) => one.id));
    expect((await ask('GET', '/v1/customers/closed/entitlements?at=2026-10-31T23:59:59Z')).body).toEqual({
      items: [
        {
          key: 'cap',
          meter: 'output_tokens',
          limit: '140',
          used: '140.5',
          remaining: '-0.5',
          allowed: false,
          periodStart: '2026-10-01T00:00:00.000Z',
          periodEnd: '2026-11-01T00:00:00.000Z',
          asOf: '2026-11-21T08:30:00.000Z',
        },
      ],
    });
    expect((await ask('GET', '/v1/customers/closed/entitlements')).body).toMatchObject({
      items: [{ used: '0', allowed: true }],
    });
  });

  test('is held back while raw events and rollups differ, with the difference', async () => {
    const torn = await ask('POST', '/v1/customers/torn/invoices', { body: OCTOBER });
    expect(torn).toMatchObject({
      status: 409,
      body: {
        code: 'usage_mismatch',
        differences: [
          { priceKey: 'output', meter: 'output_tokens', raw: '150', rollup: '151', posted: '151' },
        ],
      },
    });
    expect((await ask('GET', '/v1/customers/torn/invoices')).body).toEqual({ items: [], nextCursor: null });
  });

  test('is one of the customer', async () => {
    const close = (body: object, id = 'closed') => ask('POST', `/v1/customers/${id}/invoices`, { body });
    expect(await close({ periodStart: '2026-10-02T00:00:00Z' })).toMatchObject({
      status: 422,
      body: { code: 'not_a_period', periodStart: '2026-10-01T00:00:00.000Z' },
    });
    expect((await close({ periodStart: '2026-09-01T00:00:00Z' })).body).toMatchObject({
      code: 'no_subscription',
    });
    expect((await close(OCTOBER, 'nobody')).body).toMatchObject({ code: 'customer_not_found' });
    expect((await close({ periodStart: 'October' })).body).toMatchObject({
      errors: [{ path: 'periodStart' }],
    });
  });

  test('and all of it is accounted for', async () => {
    await writer.insertJson('received_totals', [{ tenant: 'acme-inc', shard: 0, count: 12, position: 1 }]);
    await writer.insertJson('verdict_totals', [
      { tenant: 'acme-inc', shard: 0, verdict: 'counted', code: '', count: 7, position: 1 },
      { tenant: 'acme-inc', shard: 0, verdict: 'duplicate', code: '', count: 3, position: 1 },
      {
        tenant: 'acme-inc',
        shard: 0,
        verdict: 'rejected',
        code: 'meter_value_missing',
        count: 1,
        position: 1,
      },
    ]);
    expect((await ask('GET', '/v1/conservation')).body).toMatchObject({
      received: '12',
      counted: '7',
      duplicate: '3',
      conflict: '0',
      late: '0',
      rejected: '1',
      unaccounted: '1',
    });
    expect((await ask('GET', '/v1/conservation', { key: keys.other })).body).toMatchObject({
      received: '0',
      unaccounted: '0',
    });
  });
});

describe('the OpenAPI document', () => {
  test('is OpenAPI 3.1, describes every route, and every reference leads somewhere', async () => {
    const response = await fetch(`${url}/openapi.json`);
    const served = (await response.json()) as Document;
    expect(served.openapi).toBe('3.1.0');
    const operations = Object.entries(served.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    );
    const routes = operations.map(({ path, method }) => `${method.toUpperCase()} ${path}`).sort();
    expect(routes).toEqual(ROUTES);
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(operations.length);
    for (const { path, method, operation } of operations) {
      const where = `${method} ${path}`;
      expect(operation.summary, where).toMatch(/^[A-Z].+[^.]$/);
      expect(operation.tags, where).toHaveLength(1);
      const inPath = [...path.matchAll(/\{([^}]+)\}/g)].map((match) => match[1]);
      const declared = (operation.parameters ?? []).filter((one) => one.in === 'path');
      expect(
        declared.map((one) => one.name),
        where,
      ).toEqual(inPath);
      for (const parameter of operation.parameters ?? []) expect(parameter.schema, where).toBeDefined();
      for (const status of ['400', '401', '403', '500', '503'])
        expect(operation.responses, where).toHaveProperty(status);
      for (const [status, answer] of Object.entries(operation.responses)) {
        expect(answer.description, where).not.toBe('');
        if (Number(status) >= 400)
          expect(Object.keys(answer.content ?? {})).toEqual(['application/problem+json']);
      }
      const writes = method !== 'get';
      expect(
        (operation.parameters ?? []).some((one) => one.name === 'idempotency-key'),
        where,
      ).toBe(writes);
    }
    // Every schema of it is a JSON Schema of 2020-12, as OpenAPI 3.1 wants.
    const checker = new Ajv2020.default({ strict: false });
    const found = schemasOf(served);
    expect(found.length).toBeGreaterThan(50);
    for (const { place, schema } of found) expect(checker.validateSchema(schema), place).toBe(true);
    for (const reference of JSON.stringify(served).matchAll(/"\$ref":"([^"]+)"/g)) {
      const name = /^#\/components\/schemas\/(.+)$/.exec(reference[1]!)?.[1];
      expect(served.components.schemas, reference[1]).toHaveProperty(name ?? '?');
    }
    expect(JSON.stringify(served)).not.toContain('def-');
  });

  test('the page for people shows every route and every problem, and asks nobody else for anything', async () => {
    const response = await fetch(`${url}/docs`);
    const html = await response.text();
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    for (const route of ROUTES) expect(html).toContain(`<code>${route.split(' ')[1]}</code>`);
    for (const code of Object.keys(PROBLEMS)) expect(html).toContain(`<tr id="${code}">`);
    expect(html).not.toMatch(/<script|<link|<img|src=|url\(|https?:\/\//);
  });
});

const ROUTES = [
  'DELETE /v1/keys/{id}',
  'GET /v1/conservation',
  'GET /v1/customers',
  'GET /v1/customers/{id}',
  'GET /v1/customers/{id}/balance',
  'GET /v1/customers/{id}/entitlements',
  'GET /v1/customers/{id}/grants',
  'GET /v1/customers/{id}/invoices',
  'GET /v1/customers/{id}/ledger',
  'GET /v1/events/refused',
  'GET /v1/invoices/{id}',
  'GET /v1/keys',
  'GET /v1/meters',
  'GET /v1/meters/{key}',
  'GET /v1/plans',
  'GET /v1/plans/{key}',
  'GET /v1/usage',
  'POST /v1/customers/{id}/grants',
  'POST /v1/customers/{id}/invoices',
  'POST /v1/keys',
  'POST /v1/meters',
  'POST /v1/plans',
  'PUT /v1/customers/{id}',
];

/** Every schema object that hangs directly on the document: components, parameters, bodies and answers. */
function schemasOf(from: Document): { place: string; schema: object }[] {
  const found = Object.entries(from.components.schemas).map(([place, schema]) => ({ place, schema }));
  const walk = (value: unknown, place: string): void => {
    if (typeof value !== 'object' || value === null) return;
    for (const [name, one] of Object.entries(value)) {
      if (name === 'schema' && typeof one === 'object' && one !== null)
        found.push({ place, schema: one as object });
      else walk(one, `${place}/${name}`);
    }
  };
  walk(from.paths, '');
  return found;
}

async function audit(action: string): Promise<string[]> {
  const rows = await pg.query<{ object: string; actor: string }>(
    `SELECT object, actor FROM ledger.audit_log WHERE action = $1 AND tenant = 'acme-inc' ORDER BY id`,
    [action],
  );
  for (const { actor } of rows) expect(actor).toBe(keys.admin.split('_')[1]);
  return rows.map((row) => row.object);
}
