import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BlockedBloom } from './blocked-bloom.ts';
import { COLD_BYTES_PER_KEY, ColdKeys } from './cold-keys.ts';
import { RandomWords } from '../../bench/random-words.ts';

describe('the cold tier', () => {
  test('never denies what was added, at any bound and through every filter', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 1, max: 5_000 }),
        fc.constantFrom(0, 64, 1_000, 100_000, 10_000_000),
        fc.integer({ min: 1, max: 700 }),
        fc.nat(3_000),
        (seed, keys, bytesMax, keysLeast, reserved) => {
          const cold = new ColdKeys(bytesMax, keysLeast);
          if (reserved > 0) cold.reserve(reserved);
          const random = new RandomWords(seed);
          const words = random.some(keys);
          for (let key = 0; key < keys; key++) cold.add(words, key * 4);
          for (let key = 0; key < keys; key++) {
            if (!cold.has(words, key * 4)) throw new Error(`key ${key} was denied`);
          }
          // One block at least, or nothing could be kept at all.
          expect(cold.bytes).toBeLessThanOrEqual(Math.max(64, bytesMax));
        },
      ),
      { numRuns: 60 },
    );
  });

  test('answers falsely as often as it says, and a full filter one time in a thousand', () => {
    const keys = 200_000;
    const cold = new ColdKeys(2 ** 30, keys);
    const random = new RandomWords(7);
    const words = random.some(keys);
    for (let key = 0; key < keys; key++) cold.add(words, key * 4);
    const others = random.some(400_000);
    let falsely = 0;
    for (let key = 0; key < 400_000; key++) if (cold.has(others, key * 4)) falsely += 1;
    const share = falsely / 400_000;
    expect(cold.filters).toBe(1);
    expect(share).toBeLessThan(0.002);
    expect(Math.abs(share - cold.falseShare())).toBeLessThan(0.000_5);
  });

  test('doubles, so that filters stay few', () => {
    const cold = new ColdKeys(2 ** 30, 1_000);
    const words = new RandomWords(1).some(100_000);
    for (let key = 0; key < 100_000; key++) cold.add(words, key * 4);
    expect(cold.filters).toBeLessThanOrEqual(8);
    expect(cold.bytes).toBeLessThanOrEqual(100_000 * COLD_BYTES_PER_KEY * 2);
  });

  test('beyond its bound it denies less and less', () => {
    const cold = new ColdKeys(20_000, 100);
    const random = new RandomWords(3);
    let before = 0;
    for (let round = 0; round < 6; round++) {
      const words = random.some(20_000);
      for (let key = 0; key < 20_000; key++) cold.add(words, key * 4);
      expect(cold.falseShare()).toBeGreaterThanOrEqual(before);
      before = cold.falseShare();
    }
    expect(before).toBeGreaterThan(0.9);
    expect(cold.bytes).toBeLessThanOrEqual(20_000);
  });

  test('identities of one shard, which agree modulo the number of shards, spread as others do', () => {
    const keys = 100_000;
    const filter = new BlockedBloom(Math.ceil((keys * COLD_BYTES_PER_KEY) / 64));
    const words = new RandomWords(5).some(keys * 2);
    for (let key = 0; key < keys * 2; key++) words[key * 4 + 3] = (words[key * 4 + 3]! & ~0xff) >>> 0;
    for (let key = 0; key < keys; key++) filter.add(words, key * 4);
    let falsely = 0;
    for (let key = keys; key < keys * 2; key++) if (filter.has(words, key * 4)) falsely += 1;
    expect(falsely / keys).toBeLessThan(0.003);
  });
});
