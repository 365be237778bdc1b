import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { makeKey, type KeyRecord } from '../../contract/key.ts';
import { Account, Accounts } from './account.ts';
import { KeyRing } from './keys.ts';
import { Senders } from './senders.ts';

const NOW_MS = 1_795_000_000_000;

function made(seed: number, more: Partial<KeyRecord> = {}): { key: string; record: KeyRecord } {
  const { key, id, secret } = makeKey(
    Uint8Array.from({ length: 48 }, (_, at) => (at * 11 + seed * 17) % 248),
  );
  const secretHash = createHash('sha256').update(secret).digest('hex');
  return { key, record: { id, tenant: 'acme', scopes: ['ingest'], secretHash, expiresAtMs: null, ...more } };
}

function ringOf(...records: readonly KeyRecord[]): KeyRing {
  const ring = new KeyRing(100);
  for (const record of records) ring.set(record.id, JSON.stringify(record));
  return ring;
}

test('a header says which account it is, again and again the same', () => {
  const { key, record } = made(1);
  const accounts = new Accounts();
  const senders = new Senders(ringOf(record), accounts, 10);
  for (const header of [`Bearer ${key}`, `bearer   ${key} `, `Bearer ${key}`])
    expect(senders.of(header, NOW_MS)).toBe(accounts.of('acme'));
  expect(senders.of('', NOW_MS)).toBe('key_missing');
  expect(senders.of(`Basic ${key}`, NOW_MS)).toBe('key_missing');
  expect(senders.of(`Bearer ${key}x`, NOW_MS)).toBe('key_invalid');
});

test('a key that is revoked, has ended, or may not send any more is refused at once', () => {
  const [revoked, ended, narrowed, moved] = [
    made(2),
    made(3, { expiresAtMs: NOW_MS }),
    made(4),
    made(5),
  ] as const;
  const ring = ringOf(revoked.record, ended.record, narrowed.record, moved.record);
  const senders = new Senders(ring, new Accounts(), 10);
  const of = (key: string, nowMs = NOW_MS): Account | string => senders.of(`Bearer ${key}`, nowMs);
  for (const { key } of [revoked, ended, narrowed, moved])
    expect(of(key, NOW_MS - 1)).toBeInstanceOf(Account);

  expect(of(ended.key)).toBe('key_invalid');
  ring.set(revoked.record.id, null);
  expect(of(revoked.key)).toBe('key_invalid');
  ring.set(narrowed.record.id, JSON.stringify({ ...narrowed.record, scopes: ['read'] }));
  expect(of(narrowed.key)).toBe('scope_missing');
  ring.set(moved.record.id, JSON.stringify({ ...moved.record, tenant: 'other' }));
  expect(of(moved.key)).toMatchObject({ tenant: 'other' });
});

test('a key that gets an end, or a scope, while it is remembered has it from then on', () => {
  const [ending, widened] = [made(6), made(7, { scopes: ['read'] })] as const;
  const ring = ringOf(ending.record, widened.record);
  const senders = new Senders(ring, new Accounts(), 10);
  expect(senders.of(`Bearer ${ending.key}`, NOW_MS)).toBeInstanceOf(Account);
  ring.set(ending.record.id, JSON.stringify({ ...ending.record, expiresAtMs: NOW_MS + 5 }));
  expect(senders.of(`Bearer ${ending.key}`, NOW_MS + 4)).toBeInstanceOf(Account);
  expect(senders.of(`Bearer ${ending.key}`, NOW_MS + 5)).toBe('key_invalid');

  expect(senders.of(`Bearer ${widened.key}`, NOW_MS)).toBe('scope_missing');
  ring.set(widened.record.id, JSON.stringify({ ...widened.record, scopes: ['read', 'ingest'] }));
  expect(senders.of(`Bearer ${widened.key}`, NOW_MS)).toBeInstanceOf(Account);
});

test('more headers than are remembered are checked anew, and none is taken for another', () => {
  const all = [8, 9, 10, 11].map((seed) => made(seed, { tenant: `tenant-${seed}` }));
  const senders = new Senders(ringOf(...all.map(({ record }) => record)), new Accounts(), 2);
  for (let round = 0; round < 3; round++) {
    for (const { key, record } of all)
      expect(senders.of(`Bearer ${key}`, NOW_MS)).toMatchObject({ tenant: record.tenant });
  }
});
