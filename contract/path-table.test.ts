import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PathTable, slotHash } from './path-table.ts';

const { ROOT } = PathTable;

/** The number of the place under these keys. */
function placeOf(table: PathTable, keys: readonly string[]): number {
  return keys.reduce((parent, key) => {
    const bytes = Buffer.from(`<${key}>`);
    return table.child(parent, bytes, 1, bytes.length - 1);
  }, ROOT as number);
}

const key = fc.oneof(fc.constantFrom('a', 'b', 'a.b', '', '.', 'ü'), fc.string({ maxLength: 40 }));
const places = fc.array(fc.array(key, { minLength: 1, maxLength: 4 }), { maxLength: 60, size: 'max' });

test.each([0, 1, 0xdead_beef])(
  'places have one number each, and their dotted paths, under seed %i',
  (seed) => {
    const table = new PathTable(seed);
    fc.assert(
      fc.property(places, fc.boolean(), (all, empties) => {
        if (empties) table.trim(1);
        const numbers = new Map<string, number>();
        const canonical = new Map<string, number>();
        for (const keys of [...all, ...all]) {
          const number = placeOf(table, keys);
          const path = keys.join('.');
          const name = JSON.stringify(keys);
          expect(numbers.get(name) ?? number).toBe(number);
          numbers.set(name, number);
          expect(table.path(number)).toBe(Buffer.from(path).toString());
          expect(table.length[number]).toBe(Buffer.byteLength(path));
          // Places of one path, and only those, share the canonical one and the hash.
          const first = table.canonical[number]!;
          expect(table.path(first)).toBe(table.path(number));
          expect(canonical.get(path) ?? first).toBe(first);
          canonical.set(path, first);
          expect([table.hashLow[first], table.hashHigh[first]]).toEqual([
            table.hashLow[number],
            table.hashHigh[number],
          ]);
        }
        expect(new Set(numbers.values()).size).toBe(numbers.size);
      }),
      { numRuns: 200 },
    );
  },
);

test('places that were there before the first dot are found by later ones', () => {
  const table = new PathTable();
  const nested = placeOf(table, ['a', 'b']);
  const dotted = placeOf(table, ['a.b']);
  expect(dotted).not.toBe(nested);
  expect(table.canonical[dotted]).toBe(nested);
  expect(table.canonical[nested]).toBe(nested);
});

test('an emptied table begins again, and says so', () => {
  const table = new PathTable();
  const keys = Array.from({ length: 1_000 }, (_, at) => `key-${at}`);
  for (const one of keys) placeOf(table, ['object', one]);
  expect(table.size).toBe(1_002);
  table.trim(1_002);
  expect([table.size, table.generation]).toEqual([1_002, 0]);
  table.trim(1_001);
  expect([table.size, table.generation]).toEqual([1, 1]);
  expect(keys.map((one) => table.path(placeOf(table, ['other', one])))).toEqual(
    keys.map((one) => `other.${one}`),
  );
});

test('a fresh mark is on no place', () => {
  const table = new PathTable();
  const place = placeOf(table, ['a']);
  for (let times = 0; times < 3; times++) {
    const mark = table.freshMark();
    expect(table.mark[place]).not.toBe(mark);
    table.mark[place] = mark;
  }
});

describe('somebody who knows the hash', () => {
  const slotOf = (seed: number, text: string): number =>
    slotHash(seed, ROOT, Buffer.from(text), 0, text.length) & 2_047;

  test('does not know which keys meet under another seed', () => {
    // Keys that fall into the same of 2,048 slots under seed 0, found by trying.
    const chosen: string[] = [];
    for (let at = 0; chosen.length < 500; at++) {
      const text = at.toString(36).padStart(5, '0');
      if (slotOf(0, text) === 7) chosen.push(text);
    }
    const slots = (seed: number): number => new Set(chosen.map((text) => slotOf(seed, text))).size;
    expect(slots(0)).toBe(1);
    // 500 keys thrown into 2,048 slots at random hit 443 of them.
    for (const seed of [1, 2, 0x1234_5678]) expect(slots(seed)).toBeGreaterThan(400);
  });
});
