import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ABSENT, DedupeIndex } from './dedupe-index.ts';
import { EARLIER } from './position-in-shard.ts';

const words = (key: number): Uint32Array => Uint32Array.of(key % 7, key, key * 31, 0xffff_ffff - key);
const hash = (value: number): Uint32Array => Uint32Array.of(value, value ^ 0xffff);

describe('the dedupe index', () => {
  test('agrees with a Map while it is within its bound, through every growth', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ key: fc.nat(1_500), payload: fc.nat(3) }), { maxLength: 2_000, size: 'max' }),
        (puts) => {
          const index = new DedupeIndex(1_000_000);
          const model = new Map<number, { position: number; payload: number }>();
          puts.forEach(({ key, payload }, position) => {
            index.put(words(key), 0, position, hash(payload), 0);
            if (!model.has(key)) model.set(key, { position, payload });
          });
          expect(index.size).toBe(model.size);
          for (let key = 0; key <= 1_500; key++) {
            const known = model.get(key);
            expect(index.look(words(key), 0)).toBe(known?.position ?? ABSENT);
            if (known !== undefined) {
              expect(index.samePayload(hash(known.payload), 0)).toBe(true);
              expect(index.samePayload(hash(known.payload + 1), 0)).toBe(false);
            }
          }
        },
      ),
      { numRuns: 10 },
    );
  });

  test('an entry keeps its smallest position, whatever the order', () => {
    const index = new DedupeIndex(100);
    index.put(words(1), 0, 70, hash(1), 0);
    index.put(words(1), 0, 90, hash(2), 0);
    index.put(words(1), 0, 50, hash(3), 0);
    expect(index.look(words(1), 0)).toBe(50);
    expect(index.samePayload(hash(3), 0)).toBe(true);
  });

  test('beyond its bound it forgets the oldest, says so, and never what is not durable', () => {
    fc.assert(
      fc.property(fc.integer({ min: 10, max: 60 }), fc.nat(60), (keysMax, lag) => {
        const index = new DedupeIndex(keysMax);
        const lost: number[] = [];
        let largest = 0;
        for (let position = 0; position < 300; position++) {
          index.put(words(position), 0, position, hash(0), 0);
          const durable = position - lag;
          index.rotate(durable);
          const keep = index.complete ? 0 : Math.max(0, durable + 1);
          for (let key = keep; key <= position; key++) {
            if (index.look(words(key), 0) !== key) lost.push(key);
          }
          largest = Math.max(largest, index.size);
        }
        expect(lost).toEqual([]);
        expect(index.complete).toBe(false);
        // Two halves, and the generations that wait for a flush.
        expect(largest).toBeLessThanOrEqual(2 * keysMax + lag);
      }),
      { numRuns: 30 },
    );
  });

  test('what an earlier incarnation counted is before everything', () => {
    const index = new DedupeIndex(100);
    index.put(words(5), 0, EARLIER, hash(1), 0);
    expect(index.look(words(5), 0)).toBe(EARLIER);
    index.put(words(5), 0, 0, hash(1), 0);
    expect(index.look(words(5), 0)).toBe(EARLIER);
  });
});
