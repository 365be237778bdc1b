import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EventQueue, type Entry } from './queue.ts';

const entryOf = (number: number, event: object): Entry => {
  const json = JSON.stringify(event);
  return { number, json, bytes: json.length };
};

test('a correction is known by what it is, wherever it comes from, and a text is none', () => {
  const corrects = (event: object): boolean => {
    const queue = new EventQueue();
    queue.push(entryOf(1, event));
    return queue.correctsWithin(1);
  };
  expect(corrects({ id: 'void', voids: 'a' })).toBe(true);
  expect(corrects({ id: 'b', data: { n: 1 }, amends: 'a' })).toBe(true);
  expect(corrects({ id: 'b', type: 'voids', subject: '"amends":"a"', data: { text: '{"voids":"a"}' } })).toBe(
    false,
  );
  expect(new EventQueue().correctsWithin(10)).toBe(false);
});

test('whether the next batch corrects is told right, whatever was taken and put back', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('push' as const), corrects: fc.boolean() }),
    fc.record({
      kind: fc.constantFrom('take' as const, 'putBack' as const),
      count: fc.integer({ min: 1, max: 4 }),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const queue = new EventQueue();
      let model: { number: number; corrects: boolean }[] = [];
      const taken: Entry[][] = [];
      const kinds = new Map<number, boolean>();
      for (const one of steps) {
        if (one.kind === 'push') {
          const number = kinds.size + 1;
          kinds.set(number, one.corrects);
          queue.push(entryOf(number, one.corrects ? { voids: 'a' } : { id: 'a' }));
          model.push({ number, corrects: one.corrects });
        } else if (one.kind === 'take') {
          const batch = queue.take(one.count, 1_000);
          expect(batch.map(({ number }) => number)).toEqual(
            model.splice(0, one.count).map(({ number }) => number),
          );
          taken.push(batch);
        } else {
          const batch = taken.shift() ?? [];
          queue.putBack(batch);
          const back = batch.map(({ number }) => ({ number, corrects: kinds.get(number)! }));
          model = [...model, ...back].sort((a, b) => a.number - b.number);
        }
        for (const within of [1, 2, 50])
          expect(queue.correctsWithin(within)).toBe(model.slice(0, within).some(({ corrects }) => corrects));
      }
    }),
  );
});
