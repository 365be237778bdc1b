import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeKey, encodeKey } from './kv-key.ts';

test.each([
  ['cus_123-A', 'cus_123-A'],
  ['a.b', 'a=2Eb'],
  ['a=b', 'a=3Db'],
  ['*>', '=2A=3E'],
  ['é', '=C3=A9'],
  [' ', '=20'],
])('%j is the token %s', (key, token) => {
  expect(encodeKey(key)).toBe(token);
  expect(decodeKey(token)).toBe(key);
});

test('every well-formed key comes back, as a token that NATS takes', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }), (key) => {
      const token = encodeKey(key);
      expect(token).toMatch(/^[A-Za-z0-9_=-]+$/);
      expect(decodeKey(token)).toBe(key);
    }),
  );
});

test('a key that is empty or has no UTF-8 form is refused', () => {
  expect(() => encodeKey('')).toThrow(RangeError);
  expect(() => encodeKey('a\ud800')).toThrow(RangeError);
});
