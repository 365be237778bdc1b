import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { assertBalanced, chainHash, GENESIS, inputHashOf, move, type TransactionDraft } from './journal.ts';
import { linkFaults } from './verify.ts';

const draft = (o: Partial<TransactionDraft> = {}): TransactionDraft => ({
  tenant: 't',
  customer: 'c',
  currency: 'USD',
  kind: 'usage',
  idempotencyKey: 'k',
  effectiveAtMs: 1_000,
  detail: { b: '2', a: '1' },
  postings: move('revenue', 'accrued_usage', 250n),
  ...o,
});

test('a move is a debit of one account and a credit of another, and a negative one the reverse', () => {
  expect(move('revenue', 'accrued_usage', 5n)).toEqual([
    { account: 'accrued_usage', amount: 5n },
    { account: 'revenue', amount: -5n },
  ]);
  expect(move('revenue', 'accrued_usage', -5n)).toEqual([
    { account: 'accrued_usage', amount: -5n },
    { account: 'revenue', amount: 5n },
  ]);
  expect(move('revenue', 'accrued_usage', 0n)).toEqual([]);
});

test('what does not sum to zero is no transaction', () => {
  expect(() => assertBalanced(draft())).not.toThrow();
  const wrong: TransactionDraft['postings'][] = [
    [],
    [{ account: 'cash', amount: 0n }],
    [{ account: 'cash', amount: 1n }],
    [
      { account: 'cash', amount: 1n },
      { account: 'receivable', amount: -2n },
    ],
  ];
  for (const postings of wrong) expect(() => assertBalanced(draft({ postings }))).toThrow('does not balance');
});

test('the input hash does not depend on the order of the detail, and on everything else', () => {
  const hash = inputHashOf(draft());
  expect(inputHashOf(draft({ detail: { a: '1', b: '2' } }))).toBe(hash);
  const others: Partial<TransactionDraft>[] = [
    { tenant: 'u' },
    { customer: 'd' },
    { currency: 'EUR' },
    { kind: 'payment' },
    { idempotencyKey: 'l' },
    { effectiveAtMs: 1_001 },
    { detail: { a: '1', b: '3' } },
    { postings: move('revenue', 'accrued_usage', 251n) },
  ];
  const hashes = others.map((one) => inputHashOf(draft(one)));
  expect(new Set([hash, ...hashes]).size).toBe(others.length + 1);
});

test('a link covers the hash before it, its place, its time and its content', () => {
  const posted = { ...draft(), id: 1n, postedAtMs: 2_000 };
  const content = JSON.stringify([
    't',
    'c',
    'USD',
    'usage',
    'k',
    1000,
    [
      ['a', '1'],
      ['b', '2'],
    ],
    [
      ['accrued_usage', '250'],
      ['revenue', '-250'],
    ],
  ]);
  const expected = createHash('sha256')
    .update(Buffer.concat([Buffer.alloc(32), Buffer.from(`1 2000 ${content}`)]))
    .digest('hex');
  expect(Buffer.from(chainHash(GENESIS, posted)).toString('hex')).toBe(expected);
});

test('a changed, moved or missing transaction is found at its place', () => {
  const one = { ...draft(), id: 1n, postedAtMs: 2_000 };
  const sound = { ...one, inputHash: inputHashOf(one), previousHash: GENESIS, hash: chainHash(GENESIS, one) };
  const before = { id: 0n, hash: GENESIS };
  expect(linkFaults(before, sound)).toEqual([]);
  const changed = { ...sound, postings: move('revenue', 'accrued_usage', 1n) };
  expect(linkFaults(before, changed)).toEqual([
    'transaction 1 is not what was hashed when it was posted',
    'transaction 1 has an input hash that is not its own',
  ]);
  expect(linkFaults(before, { ...sound, postedAtMs: 2_001 })).toHaveLength(1);
  expect(linkFaults({ id: 1n, hash: sound.hash }, { ...sound, id: 3n })).toHaveLength(3);
});
