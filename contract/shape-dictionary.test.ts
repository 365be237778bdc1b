import { expect, test } from 'vitest';
import type { PlainField } from '../test/batch-events.ts';
import { fillBatch } from '../test/event-batch.ts';
import { EventBatch } from './event-batch.ts';
import { FIELD_NUMBER } from './fields.ts';
import { absorbLow } from './payload.ts';
import { ShapeDictionary } from './shape-dictionary.ts';
import { TextDictionary } from './text-dictionary.ts';

const PATHS = 512; // a power of 2
const batch = new EventBatch();

function shapesOf(shapes: ShapeDictionary, datas: readonly (readonly PlainField[])[]): number[] {
  const event = { id: 'e', source: '', type: 't', subject: 's', timeMs: 0, timeGiven: true };
  fillBatch(
    batch,
    'acme',
    datas.map((fields) => ({ ...event, fields })),
  );
  return datas.map((_, at) => shapes.of(batch, at));
}

interface Place {
  readonly path: number;
  readonly scale: number;
}

const fieldOf = ({ path, scale }: Place): PlainField => ({ path: `k${path}`, number: [1, scale] });

const wordOf = ({ path, scale }: Place): number => (path << 12) ^ ((FIELD_NUMBER << 8) + scale);

const laneOf = (places: readonly Place[]): number =>
  places.reduce((lane, place) => absorbLow(lane, wordOf(place)), 3);

/**
 * Two shapes of three fields whose hashes are equal when `k0`, `k1`, … have their numbers as text numbers: what the
 * first two make of the hash differs in such bits only as the third can make good.
 */
function collision(): Place[][] {
  const reach = ((PATHS - 1) << 12) | 7;
  const seen = new Map<number, Place[]>();
  for (let first = 0; first < PATHS; first++) {
    for (let second = first + 1; second < PATHS; second++) {
      const one = [
        { path: first, scale: 0 },
        { path: second, scale: 0 },
      ];
      const lane = laneOf(one);
      const other = seen.get(lane & ~reach);
      seen.set(lane & ~reach, one);
      if (other === undefined) continue;
      const difference = lane ^ laneOf(other);
      const last = { path: (first + second) % PATHS, scale: 0 };
      const otherLast = { path: last.path ^ (difference >>> 12), scale: difference & 7 };
      const isSound = !one.some(({ path }) => path === last.path);
      if (isSound && !other.some(({ path }) => path === otherLast.path))
        return [
          [...one, last],
          [...other, otherLast],
        ];
    }
  }
  throw new Error('no two shapes have one hash');
}

test('shapes with equal hashes stay apart', () => {
  const shapes = new ShapeDictionary(new TextDictionary());
  const paths = Array.from({ length: PATHS }, (_, path) => [fieldOf({ path, scale: 0 })]);
  expect(shapesOf(shapes, paths)).toEqual(paths.map((_, path) => path));
  const twins = collision();
  expect(laneOf(twins[0]!)).toBe(laneOf(twins[1]!));
  const datas = twins.map((places) => places.map(fieldOf));
  expect(shapesOf(shapes, [...datas, ...datas])).toEqual([PATHS, PATHS + 1, PATHS, PATHS + 1]);
});
