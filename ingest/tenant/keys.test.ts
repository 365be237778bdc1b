import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { makeKey, type KeyRecord } from '../../contract/key.ts';
import { bearerOf, KeyRing } from './keys.ts';

const NOW_MS = Date.UTC(2026, 10, 21, 8, 30);

const BOTH = ['ingest', 'read'] as const;

interface Made {
  readonly key: string;
  readonly id: string;
  readonly json: string;
}

function made(seed: number, more: Partial<KeyRecord> = {}): Made {
  const { key, id, secret } = makeKey(
    Uint8Array.from({ length: 48 }, (_, at) => (at * 11 + seed * 17) % 248),
  );
  const secretHash = createHash('sha256').update(secret).digest('hex');
  const record: KeyRecord = {
    id,
    tenant: 'acme',
    scopes: ['ingest'],
    secretHash,
    expiresAtMs: null,
    ...more,
  };
  return { key, id, json: JSON.stringify(record) };
}

test('a key is known by its id and proved by its secret', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(1);
  expect(ring.verify(key, NOW_MS)).toBeNull();
  expect(ring.set(id, json)).toBe(true);
  expect(ring.verify(key, NOW_MS)).toMatchObject({ id, tenant: 'acme', scopes: ['ingest'] });
  expect(ring.verify(key, NOW_MS)).toMatchObject({ id });
  expect(ring.verify(key.slice(0, -1) + (key.endsWith('a') ? 'b' : 'a'), NOW_MS)).toBeNull();
  expect(ring.verify('tl_x', NOW_MS)).toBeNull();
});

test('a revoked key is refused at once, also one that was proved before', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(2);
  ring.set(id, json);
  expect(ring.verify(key, NOW_MS)).not.toBeNull();
  ring.set(id, null);
  expect(ring.verify(key, NOW_MS)).toBeNull();
  expect(ring.size).toBe(0);
});

test('a changed record counts from then on', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(3);
  ring.set(id, json);
  ring.verify(key, NOW_MS);
  ring.set(id, made(3, { scopes: ['read'] }).json);
  expect(ring.verify(key, NOW_MS)?.scopes).toEqual(['read']);
});

test('the memory of proofs is bounded, and a forgotten one is proved again', () => {
  const ring = new KeyRing(2);
  const keys = [4, 5, 6, 7].map((seed) => made(seed));
  for (const { id, json } of keys) ring.set(id, json);
  for (let round = 0; round < 3; round++)
    for (const { key, id } of keys) expect(ring.verify(key, NOW_MS)?.id).toBe(id);
});

test.each([
  ['no JSON', '{'],
  ['no object', '5'],
  ['another id', made(8).json],
  ['a tenant that is none', made(9, { tenant: 'A B' }).json],
  ['a hash that is none', made(9, { secretHash: 'ff' }).json],
  ['an end that is none', made(9).json.replace('"expiresAtMs":null', '"expiresAtMs":"2026"')],
  ['an end between milliseconds', made(9, { expiresAtMs: NOW_MS + 0.5 }).json],
])('a record with %s is no key', (_, json) => {
  const ring = new KeyRing(10);
  const { key, id } = made(9);
  ring.set(id, made(9).json);
  expect(ring.set(id, json)).toBe(false);
  expect(ring.verify(key, NOW_MS)).toBeNull();
});

test('a scope of a later version is let be', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(10);
  ring.set(id, json.replace('"ingest"', '"ingest","audit"'));
  expect(ring.verify(key, NOW_MS)?.scopes).toEqual(['ingest']);
});

test('a record of an earlier version has no end', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(11);
  expect(ring.set(id, json.replace(',"expiresAtMs":null', ''))).toBe(true);
  expect(ring.verify(key, Number.MAX_SAFE_INTEGER)?.expiresAtMs).toBeNull();
});

test('from the millisecond of its end on a key is refused, also one that was proved before', () => {
  const ring = new KeyRing(10);
  const [proved, late] = [12, 13].map((seed) => made(seed, { expiresAtMs: NOW_MS })) as [Made, Made];
  for (const { id, json } of [proved, late]) ring.set(id, json);
  expect(ring.verify(proved.key, NOW_MS - 1)).toMatchObject({ id: proved.id, expiresAtMs: NOW_MS });
  expect(ring.isValid(proved.id, NOW_MS - 1)).toBe(true);
  for (const { key, id } of [proved, late]) {
    expect(ring.verify(key, NOW_MS)).toBeNull();
    expect(ring.isValid(id, NOW_MS)).toBe(false);
  }
});

test('a key that gets an end keeps working until then, and no longer for having been proved', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(14);
  ring.set(id, json);
  ring.verify(key, NOW_MS);
  ring.set(id, made(14, { expiresAtMs: NOW_MS + 1_000 }).json);
  expect(ring.verify(key, NOW_MS + 999)).not.toBeNull();
  expect(ring.verify(key, NOW_MS + 1_000)).toBeNull();
});

describe('who keeps something open under a key is told', () => {
  function listening(ring: KeyRing): string[] {
    const gone: string[] = [];
    ring.onGone((id) => void gone.push(id));
    return gone;
  }

  test.each([
    ['it is revoked', () => null],
    ['it may do less', () => made(15, { scopes: ['read'] }).json],
    ['it is of another tenant', () => made(15, { scopes: BOTH, tenant: 'globex' }).json],
    ['it has another secret', () => made(15, { scopes: BOTH, secretHash: '0'.repeat(64) }).json],
    ['its record is not sound', () => '{'],
  ])('when %s, once', (_, next) => {
    const ring = new KeyRing(10);
    const { id, json } = made(15, { scopes: BOTH });
    ring.set(id, json);
    const gone = listening(ring);
    for (let told = 0; told < 3; told++) ring.set(id, next());
    expect(gone).toEqual([id]);
    expect(ring.expire(NOW_MS)).toBe(0);
  });

  test('when its end has come and somebody looked', () => {
    const ring = new KeyRing(10);
    const { id, json } = made(16, { expiresAtMs: NOW_MS });
    ring.set(id, json);
    ring.set(made(17).id, made(17).json);
    const gone = listening(ring);
    expect([ring.expire(NOW_MS - 1), gone]).toEqual([0, []]);
    expect([ring.expire(NOW_MS), gone, ring.size]).toEqual([1, [id], 1]);
    // The bucket's deletion comes later and says nothing new.
    ring.set(id, null);
    expect([ring.expire(NOW_MS), gone]).toEqual([0, [id]]);
  });

  test('and not when it is new, may do more, got an end, or is told again', () => {
    const ring = new KeyRing(10);
    const gone = listening(ring);
    const { key, id } = made(18);
    for (const more of [{}, { scopes: BOTH }, { scopes: BOTH, expiresAtMs: NOW_MS }]) {
      for (let told = 0; told < 2; told++) ring.set(id, made(18, more).json);
    }
    expect(ring.verify(key, NOW_MS - 1)?.scopes).toEqual(BOTH);
    expect(gone).toEqual([]);
  });

  test('until he wants it no longer', () => {
    const ring = new KeyRing(10);
    const gone: string[] = [];
    const end = ring.onGone((id) => void gone.push(id));
    ring.set(made(19).id, made(19).json);
    end();
    ring.set(made(19).id, null);
    expect(gone).toEqual([]);
  });
});

test.each([
  ['Bearer tl_x', 'tl_x'],
  ['bearer  tl_x ', 'tl_x'],
  ['Basic tl_x', null],
  ['Bearer', null],
  ['Bearer a b', null],
  ['', null],
])('%j carries %s', (header, key) => {
  expect(bearerOf(header)).toBe(key);
});
