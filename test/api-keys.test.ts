import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { KeyRecord } from '../contract/key.ts';
import { BUCKET_KEYS, BUCKET_QUOTAS } from '../contract/subjects.ts';
import { KeyRing } from '../ingest/tenant/keys.ts';
import { Quotas } from '../ingest/tenant/quota.ts';
import { openPublisher } from '../ledger/publish.ts';
import { quotaTexts } from '../ledger/quotas.ts';
import { activeKey, activeKeys, createKey, revokeKey } from '../ledger/tenants.ts';
import { openKeyValue, type KeyValue } from '../runtime/nats.ts';
import { ApiWorld, NOW_MS, SHARDS } from './api-world.ts';
import { runCommand } from './local-stack.ts';

// Keys that are rotated, and quotas: what the API says of them, what Postgres keeps, and what the edges are told.

const DAY_MS = 86_400_000;

let api: ApiWorld;
let keys: KeyValue;
let quotas: KeyValue;
beforeAll(async () => {
  api = await ApiWorld.start();
  keys = await openKeyValue(api.link, BUCKET_KEYS);
  quotas = await openKeyValue(api.link, BUCKET_QUOTAS);
});
afterAll(() => api?.stop());
beforeEach(() => void (api.nowMs = NOW_MS));

const ask: ApiWorld['ask'] = (...asked) => api.ask(...asked);

interface NewKey {
  readonly id: string;
  readonly key: string;
  readonly label: string;
  readonly scopes: string[];
  readonly replaces: { id: string; expiresAt: string };
}

interface ListedKey {
  readonly id: string;
  readonly revokedAt: string | null;
  readonly expiresAt: string | null;
  readonly replacedBy: string | null;
}

async function newKey(scopes: string[] = ['read']): Promise<NewKey> {
  return (await ask('POST', '/v1/keys', { body: { label: 'reports', scopes } })).body;
}

async function rotate(id: string, body: object = {}): Promise<NewKey> {
  const answer = await ask('POST', `/v1/keys/${id}/rotate`, { body });
  expect(answer.status).toBe(201);
  return answer.body;
}

async function listed(id: string): Promise<ListedKey | undefined> {
  const { items } = (await ask('GET', '/v1/keys?limit=500')).body as { items: ListedKey[] };
  return items.find((one) => one.id === id);
}

const inBucket = async (id: string): Promise<KeyRecord | null> => {
  const entry = await keys.get(id);
  return entry === null ? null : (JSON.parse(entry.value) as KeyRecord);
};

const statusWith = async (key: string): Promise<number> => (await ask('GET', '/v1/meters', { key })).status;

/** What an edge makes of the bucket as it is now. */
async function edgeRing(): Promise<KeyRing> {
  const ring = new KeyRing(100);
  const enough = new AbortController();
  await keys.watch((id, json) => void ring.set(id, json), enough.signal);
  enough.abort();
  return ring;
}

describe('a rotated key', () => {
  test('works beside its successor until the overlap is over, here and at the edges', async () => {
    const old = await newKey(['ingest', 'read']);
    const made = await rotate(old.id, { overlapSeconds: 3_600 });
    expect(made).toMatchObject({ label: 'reports', scopes: ['ingest', 'read'] });
    expect(made.replaces).toEqual({ id: old.id, expiresAt: '2026-11-21T09:30:00.000Z' });
    expect(made.id).not.toBe(old.id);
    const endMs = NOW_MS + 3_600_000;
    expect(await inBucket(old.id)).toMatchObject({ id: old.id, expiresAtMs: endMs });
    expect(await inBucket(made.id)).toMatchObject({ id: made.id, expiresAtMs: null });
    expect(await listed(old.id)).toMatchObject({
      revokedAt: null,
      expiresAt: '2026-11-21T09:30:00.000Z',
      replacedBy: made.id,
    });
    expect(await listed(made.id)).toMatchObject({ expiresAt: null, replacedBy: null });

    const ring = await edgeRing();
    for (const [nowMs, status] of [
      [NOW_MS, 200],
      [endMs - 1, 200],
      [endMs, 401],
      [endMs + 30 * DAY_MS, 401],
    ] as const) {
      api.nowMs = nowMs;
      expect(await statusWith(old.key)).toBe(status);
      expect(await statusWith(made.key)).toBe(200);
      expect(ring.verify(old.key, nowMs)?.id).toBe(status === 200 ? old.id : undefined);
      expect(ring.verify(made.key, nowMs)?.id).toBe(made.id);
    }

    // What ended leaves the bucket with the next sync.
    await api.publisher.syncKeys(() => activeKeys(api.pg, endMs - 1));
    expect(await inBucket(old.id)).not.toBeNull();
    await api.publisher.syncKeys(() => activeKeys(api.pg, endMs));
    expect(await inBucket(old.id)).toBeNull();
    expect(await inBucket(made.id)).not.toBeNull();
    api.nowMs = NOW_MS;
    expect(await api.audit('key.rotate')).toContain(`key/${old.id}`);
    expect(await api.audit('key.create')).toContain(`key/${made.id}`);
  });

  test('lasts a day when nothing is said, and not a moment with an overlap of 0', async () => {
    const day = await rotate((await newKey()).id);
    expect(Date.parse(day.replaces.expiresAt)).toBe(NOW_MS + DAY_MS);
    const old = await newKey();
    const made = await rotate(old.id, { overlapSeconds: 0 });
    expect([await statusWith(old.key), await statusWith(made.key)]).toEqual([401, 200]);
    expect(await inBucket(old.id)).toBeNull();
    for (const overlapSeconds of [-1, 0.5, 2_592_001, '60', null]) {
      const answer = await ask('POST', `/v1/keys/${made.id}/rotate`, { body: { overlapSeconds } });
      expect(answer).toMatchObject({ status: 400, body: { code: 'validation_failed' } });
    }
    await rotate(made.id, { overlapSeconds: 2_592_000 });
  });

  test('is revoked at once like any other, and so is its successor', async () => {
    const old = await newKey();
    const made = await rotate(old.id);
    expect((await ask('DELETE', `/v1/keys/${old.id}`)).status).toBe(204);
    expect([await statusWith(old.key), await statusWith(made.key)]).toEqual([401, 200]);
    expect([await inBucket(old.id), (await inBucket(made.id))?.id]).toEqual([null, made.id]);
    expect((await ask('DELETE', `/v1/keys/${made.id}`)).status).toBe(204);
    expect(await statusWith(made.key)).toBe(401);
    expect(await inBucket(made.id)).toBeNull();
  });

  test('is not rotated again, nor is a revoked one, and nothing comes of asking', async () => {
    const old = await newKey();
    const made = await rotate(old.id, { overlapSeconds: 60 });
    const again = () => ask('POST', `/v1/keys/${old.id}/rotate`, { body: {} });
    const refusal = { status: 409, body: { code: 'key_rotated', replacedBy: made.id } };
    expect(await again()).toMatchObject(refusal);
    api.nowMs = NOW_MS + DAY_MS;
    expect(await again()).toMatchObject(refusal);
    api.nowMs = NOW_MS;
    expect(await listed(old.id)).toMatchObject({ expiresAt: '2026-11-21T08:31:00.000Z' });
    // Its successor may be.
    const third = await rotate(made.id);
    expect(await listed(made.id)).toMatchObject({ replacedBy: third.id });

    const revoked = await newKey();
    await ask('DELETE', `/v1/keys/${revoked.id}`);
    expect(await ask('POST', `/v1/keys/${revoked.id}/rotate`, { body: {} })).toMatchObject({
      status: 409,
      body: { code: 'key_revoked' },
    });
    expect(await inBucket(revoked.id)).toBeNull();
    expect(await api.audit('key.rotate')).not.toContain(`key/${revoked.id}`);
  });

  test('is rotated by an administrator of its tenant alone', async () => {
    const { id } = await newKey();
    const path = `/v1/keys/${id}/rotate`;
    const reader = await ask('POST', path, { key: api.keys.reader, body: {} });
    expect(reader).toMatchObject({ status: 403, body: { requiredScope: 'admin' } });
    const other = await ask('POST', path, { key: api.keys.other, body: {} });
    expect(other).toMatchObject({ status: 404, body: { code: 'key_not_found' } });
    expect(await ask('POST', '/v1/keys/000000000000/rotate', { body: {} })).toMatchObject({ status: 404 });
    expect(await listed(id)).toMatchObject({ expiresAt: null, replacedBy: null });
  });

  test('may be the one that asks for it', async () => {
    const admin = (await ask('POST', '/v1/keys', { body: { label: 'root', scopes: ['admin'] } }))
      .body as NewKey;
    const answer = await ask('POST', `/v1/keys/${admin.id}/rotate`, {
      key: admin.key,
      body: { overlapSeconds: 0 },
    });
    const made = answer.body as NewKey;
    expect([await statusWith(admin.key), await statusWith(made.key)]).toEqual([401, 200]);
  });

  test('is rotated once by a repeated request, and the secret is kept nowhere', async () => {
    const { id } = await newKey();
    const asked = { body: { overlapSeconds: 60 }, headers: { 'idempotency-key': randomUUID() } };
    const first = (await ask('POST', `/v1/keys/${id}/rotate`, asked)).body as NewKey;
    const second = await ask('POST', `/v1/keys/${id}/rotate`, asked);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect([second.status, second.body]).toEqual([201, { ...first, key: null }]);
    const dump = JSON.stringify(await api.pg.query('SELECT body FROM ledger.idempotency_keys'));
    expect(dump).toContain(first.id);
    expect(dump).not.toContain(first.key.split('_')[2]);
    const other = await ask('POST', `/v1/keys/${id}/rotate`, { ...asked, body: { overlapSeconds: 61 } });
    expect(other).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
  });

  test('of many rotations at once one is done', async () => {
    const { id } = await newKey();
    const answers = await Promise.all(
      Array.from({ length: 6 }, () => ask('POST', `/v1/keys/${id}/rotate`, { body: {} })),
    );
    expect(answers.map((one) => one.status).sort()).toEqual([201, 409, 409, 409, 409, 409]);
    const made = answers.find((one) => one.status === 201)?.body as unknown as NewKey;
    expect(await listed(id)).toMatchObject({ replacedBy: made.id });
  });
});

describe('several processes', () => {
  /** A key in Postgres that nobody told the edges of. */
  async function untold(): Promise<string> {
    const random = crypto.getRandomValues(new Uint8Array(64));
    const o = { tenant: 'acme-inc', scopes: ['read'] as const, label: 'untold', nowMs: NOW_MS, random };
    return api.pg.transaction(async (tx) => (await createKey(tx, o)).record.id);
  }

  /** Reads, and right after that another process revokes the key and tells the edges. */
  function revokedAfterReading<T>(id: string, read: () => Promise<T>): () => Promise<T> {
    let first = true;
    return async () => {
      const was = await read();
      if (first) {
        first = false;
        const other = await openPublisher(api.link, { shards: SHARDS });
        await api.pg.transaction((tx) => revokeKey(tx, { tenant: 'acme-inc', id, nowMs: NOW_MS }));
        await other.tellKey(id, () => activeKey(api.pg, id, NOW_MS));
        await other.close();
      }
      return was;
    };
  }

  test('a key that one revokes while another brings the bucket in line is not put back', async () => {
    const id = await untold();
    await api.publisher.syncKeys(revokedAfterReading(id, () => activeKeys(api.pg, NOW_MS)));
    expect(await inBucket(id)).toBeNull();
  });

  test('nor is one that another tells the edges of', async () => {
    const id = await untold();
    await api.publisher.tellKey(
      id,
      revokedAfterReading(id, () => activeKey(api.pg, id, NOW_MS)),
    );
    expect(await inBucket(id)).toBeNull();
  });
});

describe('a quota', () => {
  const quota = (...args: string[]) =>
    runCommand('local/cli.js', ['quota', ...args], {
      DATABASE_URL: api.engines.databaseUrl,
      NATS_URL: api.engines.natsUrl,
      TALLYLINE_DATA: api.engines.dir,
    });
  const told = async (tenant: string) => (await quotas.get(tenant))?.value ?? null;
  const own = async () => (await ask('GET', '/v1/quota', { key: api.keys.reader })).body as object;

  test('is the default until the operator sets one; then the tenant and the edges see it', async () => {
    const nothing = { source: 'default', eventsPerSecond: null, bytesPerSecond: null, updatedAt: null };
    expect(await own()).toEqual(nothing);
    const shown = await quota('acme-inc');
    expect(shown).toMatchObject({ code: 0, stderr: '' });
    expect(shown.stdout).toMatch(/^acme-inc: no quota of its own/);

    const set = await quota('acme-inc', '--events', '5000', '--bytes', 'none');
    expect(set).toMatchObject({ code: 0, stderr: '' });
    expect(set.stdout).toMatch(/^acme-inc: 5000 events a second, no limit of bytes, at each edge, since 20/);
    expect((await quota('acme-inc')).stdout).toBe(set.stdout);
    expect(await own()).toMatchObject({ source: 'operator', eventsPerSecond: 5000, bytesPerSecond: null });
    expect(await told('acme-inc')).toBe('{"eventsPerSecond":5000,"bytesPerSecond":null}');
    expect(await told('globex')).toBeNull();
    const edge = new Quotas({
      defaults: { eventsPerSecond: 1, bytesPerSecond: 1 },
      burstSeconds: 2,
      tenantsMax: 10,
    });
    expect(edge.set('acme-inc', await told('acme-inc'))).toBe(true);
    expect(edge.state('acme-inc', 0)).toMatchObject({ events: { limit: 10_000 }, bytes: null });

    // One of the two alone leaves the other as it is.
    expect((await quota('acme-inc', '--bytes', '9007199254740991')).code).toBe(0);
    expect(await told('acme-inc')).toBe('{"eventsPerSecond":5000,"bytesPerSecond":9007199254740991}');
    expect((await quota('acme-inc', '--events', 'default', '--bytes', 'default')).code).toBe(0);
    expect([await told('acme-inc'), await own()]).toEqual([null, nothing]);
    const audit = await api.pg.query<{ action: string; actor: string }>(
      `SELECT action, actor FROM ledger.audit_log WHERE action LIKE 'quota%' AND tenant = 'acme-inc' ORDER BY id`,
    );
    expect(audit.map(({ action, actor }) => `${actor} ${action}`)).toEqual([
      'operator quota.set',
      'operator quota.set',
      'operator quota.remove',
    ]);
  });

  test('that makes no sense changes nothing, and it is said why', async () => {
    for (const [args, reason] of [
      [[], /name one tenant/],
      [['globex', 'acme-inc'], /name one tenant/],
      [['nobody'], /There is no tenant nobody/],
      [['nobody', '--events', '5', '--bytes', '5'], /There is no tenant nobody/],
      [['globex', '--events', '0', '--bytes', 'none'], /--events is a whole number above 0/],
      [['globex', '--events', '9007199254740992', '--bytes', 'none'], /--events is a whole number/],
      [['globex', '--events', '5', '--bytes', '1e3'], /--bytes is a whole number/],
      [['globex', '--events', '5'], /no quota of its own yet: say both/],
      [['globex', '--events', 'default'], /default is said for both/],
      [['globex', '--event', '5'], /Unknown option '--event'/],
    ] as const) {
      const refused = await quota(...args);
      expect(refused, args.join(' ')).toMatchObject({ code: 2, stdout: '' });
      expect(refused.stderr).toMatch(reason);
    }
    expect(await told('globex')).toBeNull();
    expect(await api.pg.query(`SELECT * FROM ledger.quotas`)).toEqual([]);
  });

  test('reaches the edges through the ledger when the command could not tell them', async () => {
    const away = await runCommand('local/cli.js', ['quota', 'globex', '--events', '7', '--bytes', '8'], {
      DATABASE_URL: api.engines.databaseUrl,
      NATS_URL: 'nats://127.0.0.1:1',
      TALLYLINE_DATA: api.engines.dir,
    });
    expect(away.code).toBe(0);
    expect(away.stderr).toMatch(/stored, but the edges could not be told/);
    await quotas.put('nobody', '{"eventsPerSecond":1,"bytesPerSecond":1}');
    expect(await told('globex')).toBeNull();
    expect(await api.publisher.syncQuotas(() => quotaTexts(api.pg))).toBe(2);
    expect([await told('globex'), await told('nobody')]).toEqual([
      '{"eventsPerSecond":7,"bytesPerSecond":8}',
      null,
    ]);
    expect(await api.publisher.syncQuotas(() => quotaTexts(api.pg))).toBe(0);
  });

  test('can be read by the keys of its tenant, and changed by none', async () => {
    expect((await ask('GET', '/v1/quota', { key: api.keys.other })).body).toMatchObject({
      eventsPerSecond: 7,
    });
    expect(await own()).toMatchObject({ source: 'default' });
    expect((await ask('GET', '/v1/quota', { key: api.keys.ingest })).status).toBe(403);
    for (const method of ['PUT', 'POST', 'PATCH', 'DELETE']) {
      const body = { eventsPerSecond: 1_000_000 };
      const answer = await fetch(`${api.url}/v1/quota`, {
        method,
        headers: { authorization: `Bearer ${api.keys.admin}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      expect(answer.status, method).toBe(404);
    }
  });
});
