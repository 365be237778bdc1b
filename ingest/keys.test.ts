import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { makeKey, type KeyRecord } from '../contract/key.ts';
import { bearerOf, KeyRing } from './keys.ts';

function made(seed: number, more: Partial<KeyRecord> = {}): { key: string; id: string; json: string } {
  const { key, id, secret } = makeKey(
    Uint8Array.from({ length: 48 }, (_, at) => (at * 11 + seed * 17) % 248),
  );
  const secretHash = createHash('sha256').update(secret).digest('hex');
  const record: KeyRecord = { id, tenant: 'acme', scopes: ['ingest'], secretHash, ...more };
  return { key, id, json: JSON.stringify(record) };
}

test('a key is known by its id and proved by its secret', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(1);
  expect(ring.verify(key)).toBeNull();
  expect(ring.set(id, json)).toBe(true);
  expect(ring.verify(key)).toMatchObject({ id, tenant: 'acme', scopes: ['ingest'] });
  expect(ring.verify(key)).toMatchObject({ id });
  expect(ring.verify(key.slice(0, -1) + (key.endsWith('a') ? 'b' : 'a'))).toBeNull();
  expect(ring.verify('tl_x')).toBeNull();
});

test('a revoked key is refused at once, also one that was proved before', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(2);
  ring.set(id, json);
  expect(ring.verify(key)).not.toBeNull();
  ring.set(id, null);
  expect(ring.verify(key)).toBeNull();
  expect(ring.size).toBe(0);
});

test('a changed record counts from then on', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(3);
  ring.set(id, json);
  ring.verify(key);
  ring.set(id, made(3, { scopes: ['read'] }).json);
  expect(ring.verify(key)?.scopes).toEqual(['read']);
});

test('the memory of proofs is bounded, and a forgotten one is proved again', () => {
  const ring = new KeyRing(2);
  const keys = [4, 5, 6, 7].map((seed) => made(seed));
  for (const { id, json } of keys) ring.set(id, json);
  for (let round = 0; round < 3; round++)
    for (const { key, id } of keys) expect(ring.verify(key)?.id).toBe(id);
});

test.each([
  ['no JSON', '{'],
  ['no object', '5'],
  ['another id', made(8).json],
  ['a tenant that is none', made(9, { tenant: 'A B' }).json],
  ['a hash that is none', made(9, { secretHash: 'ff' }).json],
])('a record with %s is no key', (_, json) => {
  const ring = new KeyRing(10);
  const { key, id } = made(9);
  ring.set(id, made(9).json);
  expect(ring.set(id, json)).toBe(false);
  expect(ring.verify(key)).toBeNull();
});

test('a scope of a later version is let be', () => {
  const ring = new KeyRing(10);
  const { key, id, json } = made(10);
  ring.set(id, json.replace('"ingest"', '"ingest","audit"'));
  expect(ring.verify(key)?.scopes).toEqual(['ingest']);
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
