import { randomUUID } from 'node:crypto';
import Ajv2020 from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeMeterDefined, parseMeterVersions } from '../contract/control.ts';
import { BUCKET_KEYS, BUCKET_METERS, streamName, streamSubject } from '../contract/subjects.ts';
import { HOUR_MS } from '../contract/window.ts';
import { PROBLEMS } from '../ledger/api/problems.ts';
import { forgetAnswers } from '../ledger/api/write.ts';
import { activeKeys } from '../ledger/tenants.ts';
import { openKeyValue } from '../runtime/nats.ts';
import { ApiWorld, NOW_MS, SHARDS, TOKENS, type OpenApi } from './api-world.ts';

let api: ApiWorld;
beforeAll(async () => {
  api = await ApiWorld.start();
});
afterAll(() => api?.stop());

const ask: ApiWorld['ask'] = (...asked) => api.ask(...asked);

describe('meters', () => {
  test('a meter is answered when every shard of the log and the edges have it', async () => {
    const made = await ask('POST', '/v1/meters', { body: TOKENS });
    const { valueProperty, groupBy } = TOKENS;
    const first = {
      ...{ version: 1, effectiveFrom: null, valueProperty, groupBy, filters: [], groupsMax: 10_000 },
    };
    expect([made.status, made.body]).toEqual([201, { ...TOKENS, ...first, versions: [first] }]);
    for (let shard = 0; shard < SHARDS; shard++) {
      const message = await api.link.jsm.streams.getMessage(streamName(shard), { seq: 1 });
      expect(decodeMeterDefined(message.data)).toEqual({ tenant: 'acme-inc', meter: TOKENS });
    }
    const bucket = await openKeyValue(api.link, BUCKET_METERS);
    const entry = await bucket.get('acme-inc.input_tokens');
    expect(JSON.parse(entry?.value ?? '')).toEqual({ tenant: 'acme-inc', meter: TOKENS });
    expect(await api.audit('meter.create')).toEqual(['meter/input_tokens']);
  });

  test('the same definition again is the same meter, another one is a conflict', async () => {
    const again = await ask('POST', '/v1/meters', { body: { ...TOKENS } });
    expect(again).toMatchObject({ status: 200, body: TOKENS });
    const conflict = await ask('POST', '/v1/meters', { body: { ...TOKENS, groupBy: ['model'] } });
    expect(conflict.status).toBe(409);
    expect(conflict.body).toMatchObject({ code: 'meter_conflict', existing: TOKENS });
    expect((await ask('GET', '/v1/meters/input_tokens')).body).toMatchObject(TOKENS);
    expect(await api.audit('meter.create')).toEqual(['meter/input_tokens']);
  });

  test('a meter that could not be published is published by the same request later', async () => {
    const body = { key: 'calls', eventType: 'call', aggregation: 'count' };
    const stored = { ...body, valueProperty: null, groupBy: [] };
    await api.pg.query(
      `INSERT INTO ledger.meters (tenant, key, definition, state, created_at) VALUES ('acme-inc', 'calls', $1, 'publishing', now())`,
      [JSON.stringify(stored)],
    );
    expect(await ask('POST', '/v1/meters', { body })).toMatchObject({ status: 200, body: stored });
    const message = await api.link.jsm.streams.getMessage(streamName(1), { last_by_subj: streamSubject(1) });
    expect(decodeMeterDefined(message.data).meter).toEqual(stored);
    expect(await api.pg.query(`SELECT state FROM ledger.meters WHERE key = 'calls'`)).toEqual([
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
    expect(rest.body).toMatchObject({ items: [TOKENS], nextCursor: null });
    for (const cursor of ['nonsense', `${first.nextCursor}A`]) {
      expect((await ask('GET', `/v1/meters?cursor=${cursor}`)).body).toMatchObject({
        code: 'cursor_invalid',
      });
    }
    expect((await ask('GET', `/v1/plans?cursor=${first.nextCursor}`)).body).toMatchObject({
      code: 'cursor_invalid',
    });
    expect((await ask('GET', `/v1/meters?cursor=${first.nextCursor}`, { key: api.keys.other })).status).toBe(
      400,
    );
  });

  test('a new version is answered when the logs and the edges have it, and it stands in the history', async () => {
    const filtered = {
      key: 'filtered',
      eventType: 'call',
      aggregation: 'unique_count',
      valueProperty: 'user',
      groupBy: ['model'],
      filters: [{ property: 'model', notIn: ['test'] }],
      groupsMax: 50,
    };
    expect(await ask('POST', '/v1/meters', { body: filtered })).toMatchObject({
      status: 201,
      body: { ...filtered, version: 1 },
    });
    const versions = '/v1/meters/filtered/versions';
    const from = Math.ceil(NOW_MS / HOUR_MS) * HOUR_MS + 4 * HOUR_MS;
    const effectiveFrom = new Date(from).toISOString();
    const body = {
      effectiveFrom,
      groupBy: ['model', 'region'],
      filters: [{ property: 'region', in: ['eu'] }],
    };
    const made = await ask('POST', versions, { body });
    expect(made).toMatchObject({
      status: 201,
      body: {
        ...filtered,
        ...{ ...body, version: 2 },
        versions: [
          { version: 1, effectiveFrom: null, groupBy: ['model'], groupsMax: 50 },
          { version: 2, effectiveFrom, groupBy: ['model', 'region'], groupsMax: 50 },
        ],
      },
    });
    const second = {
      ...filtered,
      filters: body.filters,
      groupBy: body.groupBy,
      version: 2,
      effectiveFromMs: from,
    };
    for (let shard = 0; shard < SHARDS; shard++) {
      const message = await api.link.jsm.streams.getMessage(streamName(shard), {
        last_by_subj: streamSubject(shard),
      });
      expect(decodeMeterDefined(message.data)).toEqual({ tenant: 'acme-inc', meter: second });
    }
    const entry = await (await openKeyValue(api.link, BUCKET_METERS)).get('acme-inc.filtered');
    expect(parseMeterVersions(entry?.value ?? '')?.versions).toEqual([filtered, second]);
    expect(await api.audit('meter.version')).toEqual(['meter/filtered/2']);

    // Told again it is the same version; the first definition is what it was.
    expect(await ask('POST', versions, { body })).toMatchObject({ status: 200, body: made.body });
    expect(await ask('POST', '/v1/meters', { body: filtered })).toMatchObject({ status: 200 });
    expect(await api.audit('meter.version')).toHaveLength(1);
    const refused = async (wrong: object): Promise<unknown> => {
      const answer = await ask('POST', versions, { body: { effectiveFrom, ...wrong } });
      expect(answer).toMatchObject({ status: 400, body: { code: 'validation_failed' } });
      return (answer.body as { errors: { path: string }[] }).errors.map(({ path }) => path);
    };
    const later = new Date(from + HOUR_MS).toISOString();
    expect(await refused({ groupsMax: 60 })).toEqual(['effectiveFrom']); // not behind the second
    expect(await refused({ effectiveFrom: later, groupBy: ['region', 'model'] })).toEqual(['groupBy']);
    expect(await refused({ effectiveFrom: later, filters: [{ property: 'a' }] })).toContain('filters[0]');
    expect(await refused({ effectiveFrom: new Date(from + HOUR_MS + 1).toISOString() })).toContain(
      'effectiveFrom',
    );
    expect(await ask('POST', '/v1/meters/calls/versions', { body: { effectiveFrom: 'soon' } })).toMatchObject(
      {
        status: 400,
      },
    );
    const hasty = new Date(from - 2 * HOUR_MS).toISOString();
    expect(await ask('POST', '/v1/meters/calls/versions', { body: { effectiveFrom: hasty } })).toMatchObject({
      status: 400,
      body: { errors: [{ path: 'effectiveFrom' }] },
    });
    expect(await ask('POST', '/v1/meters/nothing/versions', { body: { effectiveFrom } })).toMatchObject({
      status: 404,
    });
  });

  test('a version that was not published in time is given up, and the next one takes its place', async () => {
    const from = Math.ceil(NOW_MS / HOUR_MS) * HOUR_MS;
    const missed = { key: 'filtered', version: 3, effectiveFromMs: from + HOUR_MS };
    await api.pg.query(
      `INSERT INTO ledger.meter_versions (tenant, key, version, definition, state, created_at)
       SELECT 'acme-inc', 'filtered', 3, definition || $1::jsonb, 'publishing', now() FROM ledger.meters
       WHERE key = 'filtered'`,
      [JSON.stringify(missed)],
    );
    const effectiveFrom = new Date(from + 6 * HOUR_MS).toISOString();
    const made = await ask('POST', '/v1/meters/filtered/versions', { body: { effectiveFrom, groupsMax: 7 } });
    expect(made).toMatchObject({ status: 201, body: { version: 4, groupsMax: 7 } });
    expect((made.body as { versions: { version: number }[] }).versions.map(({ version }) => version)).toEqual(
      [1, 2, 4],
    );
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
    const headers = { authorization: `Bearer ${api.keys.admin}`, 'content-type': 'application/json' };
    const send = async (body: string, more = {}) => {
      const response = await fetch(`${api.url}/v1/meters`, {
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
    const last = api.keys.admin.at(-1) === 'a' ? 'b' : 'a';
    for (const key of ['x', `tl_${'0'.repeat(12)}_${'0'.repeat(27)}`, api.keys.admin.slice(0, -1) + last]) {
      expect(await ask('GET', '/v1/meters', { key })).toMatchObject({
        status: 401,
        body: { code: 'key_invalid' },
      });
    }
    const ingest = await ask('GET', '/v1/meters', { key: api.keys.ingest });
    expect(ingest).toMatchObject({ status: 403, body: { code: 'scope_missing', requiredScope: 'read' } });
    const reader = await ask('POST', '/v1/meters', { key: api.keys.reader, body: TOKENS });
    expect(reader).toMatchObject({ status: 403, body: { requiredScope: 'admin' } });
    expect((await ask('GET', '/v1/keys', { key: api.keys.reader })).status).toBe(403);
  });

  test('a new key works at once and is told to the edges; a revoked one is refused at once', async () => {
    const made = await ask('POST', '/v1/keys', { body: { label: 'for a day', scopes: ['read'] } });
    const { id, key } = made.body as { id: string; key: string };
    expect(made.status).toBe(201);
    const bucket = await openKeyValue(api.link, BUCKET_KEYS);
    const entry = JSON.parse((await bucket.get(id))?.value ?? '') as object;
    expect(entry).toMatchObject({ id, tenant: 'acme-inc', scopes: ['read'] });
    expect(Object.keys(entry)).toEqual(['id', 'tenant', 'scopes', 'secretHash', 'expiresAtMs']);
    expect((await ask('GET', '/v1/meters', { key })).status).toBe(200);
    expect((await ask('DELETE', `/v1/keys/${id}`, { key: api.keys.other })).status).toBe(404);
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
    expect(await api.audit('key.create')).toContain(`key/${id}`);
    expect(await api.audit('key.revoke')).toContain(`key/${id}`);
  });

  test('a secret is told once and kept nowhere, not even for a repeated request', async () => {
    const asked = { body: { label: 'once', scopes: ['read'] }, headers: { 'idempotency-key': randomUUID() } };
    const first = (await ask('POST', '/v1/keys', asked)).body as { id: string; key: string };
    const second = await ask('POST', '/v1/keys', asked);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(second.body).toEqual({ ...(first as object), key: null });
    const secret = first.key.split('_')[2] ?? '';
    const dump = await api.pg.query('SELECT body FROM ledger.idempotency_keys');
    expect(JSON.stringify(dump)).not.toContain(secret);
  });

  test('what the edges know is brought in line with Postgres', async () => {
    const bucket = await openKeyValue(api.link, BUCKET_KEYS);
    await bucket.put('zzzzzzzzzzzz', '{"id":"zzzzzzzzzzzz"}');
    expect(await api.publisher.syncKeys(() => activeKeys(api.pg, NOW_MS))).toBeGreaterThan(0);
    expect(await bucket.get('zzzzzzzzzzzz')).toBeNull();
    const [record] = await activeKeys(api.pg, NOW_MS);
    expect(JSON.parse((await bucket.get(record!.id))?.value ?? '')).toEqual({ ...record });
    expect(await api.publisher.syncKeys(() => activeKeys(api.pg, NOW_MS))).toBe(0);
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
    expect(await api.audit('plan.publish')).toEqual(['plan/pro/1', 'plan/pro/2']);
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
    const later = { name: 'Acme', currency: 'USD', subjects: CUSTOMER.subjects, plan: 'pro' };
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

  test('customers and credit that are put side by side are all answered, and none is run again', async () => {
    const plan = { ...PLAN, prices: [{ ...PLAN.prices[0], meter: 'side' }], entitlements: [] };
    await ask('POST', '/v1/meters', { key: api.keys.other, body: { ...TOKENS, key: 'side' } });
    expect((await ask('POST', '/v1/plans', { key: api.keys.other, body: plan })).status).toBe(201);
    const before = api.pg.retries;
    const clients = Array.from({ length: 8 }, async (_, client) => {
      const statuses: number[] = [];
      for (let n = 0; n < 25; n++) {
        const id = `side-${client}-${n}`;
        const subjects = [id, `${id}-b`];
        const put = await ask('PUT', `/v1/customers/${id}`, {
          key: api.keys.other,
          body: { ...CUSTOMER, subjects },
        });
        const credit = { amount: '1.00', reason: 'welcome' };
        const given = await ask('POST', `/v1/customers/${id}/grants`, {
          key: api.keys.other,
          body: credit,
          headers: { 'idempotency-key': id },
        });
        statuses.push(put.status, given.status);
      }
      return statuses;
    });
    expect(new Set((await Promise.all(clients)).flat())).toEqual(new Set([201]));
    expect(api.pg.retries - before).toBe(0);
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
    expect(await api.audit('grant.issue')).toHaveLength(1);
  });

  test('another request under the same key is refused, on whatever path', async () => {
    const headers = { 'idempotency-key': 'grant-1' };
    const other = await ask('POST', path, { body: { ...grant, amount: '12.35' }, headers });
    expect(other).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    const elsewhere = await ask('POST', '/v1/plans', { body: PLAN, headers });
    expect(elsewhere).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
    // Keys are the tenant's own.
    const globex = await ask('POST', '/v1/meters', { key: api.keys.other, body: TOKENS, headers });
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
    await api.locks.transaction(async (tx) => {
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
    expect(await forgetAnswers(api.pg, NOW_MS)).toBe(0);
    expect(await forgetAnswers(api.pg, NOW_MS + 1)).toBeGreaterThan(0);
    // Even then the same key makes no second grant.
    await ask('POST', path, { body: grant, headers: { 'idempotency-key': 'grant-1' } });
    expect(((await ask('GET', path)).body as { items: unknown[] }).items).toHaveLength(2);
  });
});

describe('the OpenAPI document', () => {
  test('is OpenAPI 3.1, describes every route, and every reference leads somewhere', async () => {
    const response = await fetch(`${api.url}/openapi.json`);
    const served = (await response.json()) as OpenApi;
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
    const response = await fetch(`${api.url}/docs`);
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
  'GET /v1/invoices/{id}',
  'GET /v1/keys',
  'GET /v1/meters',
  'GET /v1/meters/{key}',
  'GET /v1/meters/{key}/backfills',
  'GET /v1/meters/{key}/backfills/{id}',
  'GET /v1/plans',
  'GET /v1/plans/{key}',
  'GET /v1/quota',
  'GET /v1/refused',
  'GET /v1/refused/types',
  'GET /v1/usage',
  'GET /v1/usage/late',
  'POST /v1/customers/{id}/grants',
  'POST /v1/customers/{id}/invoices',
  'POST /v1/keys',
  'POST /v1/keys/{id}/rotate',
  'POST /v1/meters',
  'POST /v1/meters/{key}/backfills',
  'POST /v1/meters/{key}/backfills/{id}/commit',
  'POST /v1/meters/{key}/backfills/{id}/discard',
  'POST /v1/meters/{key}/backfills/{id}/revert',
  'POST /v1/meters/{key}/versions',
  'POST /v1/plans',
  'PUT /v1/customers/{id}',
];

/** Every schema object that hangs directly on the document: components, parameters, bodies and answers. */
function schemasOf(from: OpenApi): { place: string; schema: object }[] {
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
