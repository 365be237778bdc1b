import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isTenant, makeKey, splitKey } from './key.ts';

test('a key is made and taken apart again', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (random) => {
      fc.pre(random.filter((byte) => byte < 248).length >= 39);
      const { key, id, secret } = makeKey(random);
      expect([id.length, secret.length]).toEqual([12, 27]);
      expect(splitKey(key)).toEqual({ id, secret });
    }),
  );
});

test('every digit is as likely as another: bytes that would favour some are skipped', () => {
  const counts = new Map<string, number>();
  for (let start = 0; start < 256; start++) {
    // Every byte value comes equally often, in windows of 64.
    const { key } = makeKey(Uint8Array.from({ length: 64 }, (_, at) => (start + at) % 256));
    for (const digit of key.slice(3).replace('_', '')) counts.set(digit, (counts.get(digit) ?? 0) + 1);
  }
  expect(counts.size).toBe(62);
});

test('too few random bytes are an error, not a shorter key', () => {
  expect(() => makeKey(new Uint8Array(38))).toThrow(/random/);
  expect(() => makeKey(new Uint8Array(64).fill(255))).toThrow(/random/);
});

test.each([
  '',
  'tl_',
  'tl_abc_def',
  `tl_${'a'.repeat(12)}_${'b'.repeat(26)}`,
  `tl_${'a'.repeat(12)}_${'b'.repeat(28)}`,
  `tl_${'a'.repeat(12)}-${'b'.repeat(27)}`,
  `xx_${'a'.repeat(12)}_${'b'.repeat(27)}`,
  `tl_${'a'.repeat(12)}_${'ü'.repeat(27)}`,
  `tl_${'a'.repeat(12)}_${'b'.repeat(27)}\n`,
])('%j is no key', (text) => {
  expect(splitKey(text)).toBeNull();
});

test.each([
  ['acme', true],
  ['a', true],
  ['9-lives_x', true],
  ['a'.repeat(63), true],
  ['a'.repeat(64), false],
  ['', false],
  ['-a', false],
  ['Acme', false],
  ['a.b', false],
  ['a b', false],
  ['a\n', false],
])('%j as a tenant: %s', (text, expected) => {
  expect(isTenant(text)).toBe(expected);
});
