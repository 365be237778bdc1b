import fc from 'fast-check';
import { expect, test } from 'vitest';
import { textHash } from '../test/payload-model.ts';
import { SLACK_BYTES } from './byte-words.ts';
import { TextHash } from './text-hash.ts';

const hash = new TextHash();

test('the hash is that of an independent model, byte by byte or through a view, wherever the text stands', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), fc.nat(9), fc.nat(255), (text, start, around) => {
      const memory = new Uint8Array(start + text.length + SLACK_BYTES).fill(around);
      memory.set(text, start);
      const expected = textHash(text).map(Number);
      hash.of(memory, start, start + text.length);
      expect([hash.low >>> 0, hash.high >>> 0]).toEqual(expected);
      hash.ofView(new DataView(memory.buffer), start, start + text.length);
      expect([hash.low >>> 0, hash.high >>> 0]).toEqual(expected);
    }),
    { numRuns: 1_000 },
  );
});

// Part of the payload hash, which stands in stored rows.
test.each([
  ['', 997022217, 4091481285],
  ['a', 2116487546, 2331436639],
  ['tokens', 3809571374, 1660034312],
  ['llm.request', 1823002488, 1928269798],
])('the hash of %j never changes', (text, low, high) => {
  const bytes = new TextEncoder().encode(text);
  hash.of(bytes, 0, bytes.length);
  expect([hash.low >>> 0, hash.high >>> 0]).toEqual([low, high]);
});

test('short texts that differ in little have different hashes', () => {
  const seen = new Set<string>();
  for (let number = 0; number < 100_000; number++) {
    const bytes = Buffer.from(`cus_${number}`);
    hash.of(bytes, 0, bytes.length);
    seen.add(`${hash.low} ${hash.high}`);
  }
  expect(seen.size).toBe(100_000);
});
