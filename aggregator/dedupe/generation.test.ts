import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EARLIER } from '../position-in-shard.ts';
import { Generation, NONE } from './generation.ts';

/** Words that spread as a keyed hash spreads: one multiplication each, by odd constants. */
const spread = (key: number): Uint32Array =>
  Uint32Array.of(
    Math.imul(key + 1, 0x9e37_79b1),
    Math.imul(key + 1, 0x85eb_ca6b),
    Math.imul(key + 1, 0xc2b2_ae35),
    key,
  );
const hash = (value: number): Uint32Array => Uint32Array.of(value, value ^ 0xffff);

/** Identities that meet in one segment, one slot and one tag, and differ where `word` says. */
const colliding = (word: number, key: number): Uint32Array => {
  const words = Uint32Array.of(7, 7, 7, 7);
  words[word] = word === 0 ? key : key >>> 0;
  return words;
};

describe('a generation', () => {
  test('agrees with a Map through every growth, in any order of puts', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ key: fc.nat(3_000), position: fc.integer({ min: -1, max: 2 ** 50 }) }), {
          maxLength: 4_000,
          size: 'max',
        }),
        fc.integer({ min: 1, max: 40_000 }),
        fc.nat(5_000),
        (puts, keys, expected) => {
          const generation = new Generation(keys, expected);
          const model = new Map<number, { position: number; payload: number }>();
          puts.forEach(({ key, position }, payload) => {
            generation.put(spread(key), 0, position, hash(payload), 0);
            const known = model.get(key);
            if (known === undefined || known.position > position) model.set(key, { position, payload });
          });
          expect(generation.size).toBe(model.size);
          for (let key = 0; key <= 3_000; key++) {
            const known = model.get(key);
            const entry = generation.find(spread(key), 0);
            expect(entry === NONE).toBe(known === undefined);
            if (known === undefined) continue;
            expect(generation.positionOf(entry)).toBe(known.position);
            expect(generation.samePayload(entry, hash(known.payload), 0)).toBe(true);
            expect(generation.samePayload(entry, hash(known.payload + 1), 0)).toBe(false);
          }
        },
      ),
      { numRuns: 20 },
    );
  }, 60_000);

  test.each([0, 1, 2, 3])('tells identities apart that differ in word %i alone', (word) => {
    const generation = new Generation(10_000);
    for (let key = 0; key < 600; key++) generation.put(colliding(word, key), 0, key, hash(key), 0);
    for (let key = 0; key < 600; key++) {
      const entry = generation.find(colliding(word, key), 0);
      expect(generation.positionOf(entry)).toBe(key);
      expect(generation.samePayload(entry, hash(key), 0)).toBe(true);
    }
    expect(generation.find(colliding(word, 600), 0)).toBe(NONE);
    expect(generation.size).toBe(600);
  });

  test('a payload differs that differs in one bit', () => {
    const generation = new Generation(10);
    generation.put(spread(1), 0, 5, Uint32Array.of(0x8000_0000, 1), 0);
    const entry = generation.find(spread(1), 0);
    expect(generation.samePayload(entry, Uint32Array.of(0x8000_0000, 1), 0)).toBe(true);
    for (let bit = 0; bit < 32; bit++) {
      const flip = (1 << bit) >>> 0;
      expect(generation.samePayload(entry, Uint32Array.of((0x8000_0000 ^ flip) >>> 0, 1), 0)).toBe(false);
      expect(generation.samePayload(entry, Uint32Array.of(0x8000_0000, (1 ^ flip) >>> 0), 0)).toBe(false);
    }
  });

  test('what an earlier incarnation counted is before everything', () => {
    const generation = new Generation(10);
    generation.put(spread(5), 0, EARLIER, hash(1), 0);
    generation.put(spread(5), 0, 0, hash(2), 0);
    const entry = generation.find(spread(5), 0);
    expect(generation.positionOf(entry)).toBe(EARLIER);
    expect(generation.samePayload(entry, hash(1), 0)).toBe(true);
  });

  test('holds a position up to the last that a log can have', () => {
    const generation = new Generation(10);
    const last = Number.MAX_SAFE_INTEGER;
    generation.put(spread(1), 0, last, hash(1), 0);
    expect(generation.positionOf(generation.find(spread(1), 0))).toBe(last);
    expect(generation.newest).toBe(last);
  });

  test('takes 38 bytes a key when it is full, and no more than it says', () => {
    const keys = 200_000;
    const generation = new Generation(keys, keys);
    for (let key = 0; key < keys; key++) generation.put(spread(key), 0, key, hash(key), 0);
    expect(generation.size).toBe(keys);
    // A chunk may be begun, which is 3 bytes a key at this size.
    expect(generation.bytes / keys).toBeGreaterThan(36);
    expect(generation.bytes / keys).toBeLessThan(42);
  });
});
