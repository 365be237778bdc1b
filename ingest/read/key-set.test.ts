import fc from 'fast-check';
import { beforeEach, expect, test } from 'vitest';
import { KEY_BYTES_MAX, KeySet } from './key-set.ts';

const keys = new KeySet();
const memory = Buffer.alloc(1_000_000);
let used = 0;
const add = (key: string): boolean => {
  const start = used;
  used += memory.write(key, start);
  return keys.add(memory, start, used);
};
beforeEach(() => (used = 0));

test('a key repeats just when it stood in the same object before', () => {
  const key = fc.oneof(fc.nat(60).map(String), fc.string({ unit: 'binary', maxLength: 3 }));
  const step = fc.oneof(
    { weight: 12, arbitrary: key },
    { weight: 2, arbitrary: fc.constant('open') },
    fc.constant('close'),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
      keys.reset();
      keys.open();
      used = 0;
      const model = [new Set<string>()];
      for (const one of steps) {
        if (one === 'open') {
          keys.open();
          model.push(new Set());
        } else if (one === 'close') {
          if (model.length === 1) continue;
          keys.close();
          model.pop();
        } else {
          const innermost = model.at(-1)!;
          // What is no well-formed text is written as U+FFFD, and then two of them are the same.
          const written = Buffer.from(one).toString();
          expect(add(one)).toBe(!innermost.has(written));
          innermost.add(written);
        }
      }
    }),
    { numRuns: 100 },
  );
});

test('an object of as many keys as fit an event is read in time that grows with their number', () => {
  keys.reset();
  keys.open();
  const count = 13_000; // Of five bytes at most: 65,000 are few enough.
  for (let at = 0; at < count; at++) if (!add(at.toString(36))) throw new Error(String(at));
  expect(keys.bytes).toBeLessThan(KEY_BYTES_MAX);
  expect([add('0'), add((count - 1).toString(36)), add('new')]).toEqual([false, false, true]);
});

test('more keys than an event can hold are counted and not kept', () => {
  keys.reset();
  keys.open();
  expect(add('x'.repeat(KEY_BYTES_MAX))).toBe(true);
  expect(add('x'.repeat(KEY_BYTES_MAX))).toBe(true);
  expect(keys.bytes).toBe(2 * KEY_BYTES_MAX);
  keys.close();
  keys.reset();
  expect([keys.bytes, keys.isOpen]).toEqual([0, false]);
});
