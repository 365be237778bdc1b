import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Fifo } from './fifo.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

test('what was put in comes out once and in order', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -2_000, max: 3_000 }), { maxLength: 20 }), (steps) => {
      const [fifo, put, taken]: [Fifo<number>, number[], number[]] = [new Fifo(), [], []];
      for (const step of steps) {
        for (let n = 0; n < step; n++) {
          put.push(put.length);
          fifo.push(put.length - 1);
        }
        for (let n = 0; n > step; n--) {
          const one = fifo.take();
          if (one !== undefined) taken.push(one);
        }
        expect(fifo.length).toBe(put.length - taken.length);
      }
      for (let one = fifo.take(); one !== undefined; one = fifo.take()) taken.push(one);
      expect(taken).toEqual(put);
    }),
  );
});

test('what was taken is let go, though something always waits behind it', async () => {
  const fifo = new Fifo<object>();
  const takenOnes: WeakRef<object>[] = [];
  for (let n = 0; n < 50; n++) fifo.push({ n });
  for (let n = 0; n < 5_000; n++) {
    fifo.push({ n });
    takenOnes.push(new WeakRef(fifo.take()!));
  }
  // A reference is kept until the turn that made it has ended.
  await new Promise((resolve) => setImmediate(resolve));
  collectGarbage();
  expect(takenOnes.filter((one) => one.deref() !== undefined)).toHaveLength(0);
  expect(fifo.length).toBe(50);
});
