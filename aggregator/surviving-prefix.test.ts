import fc from 'fast-check';
import { expect, test } from 'vitest';
import { survivingPrefix } from './surviving-prefix.ts';

async function search(
  first: number,
  last: number,
  same: (sequence: number) => boolean,
): Promise<{ end: number; probes: number[] }> {
  const probes: number[] = [];
  const end = await survivingPrefix(first, last, async (sequence) => {
    probes.push(sequence);
    return same(sequence);
  });
  return { end, probes };
}

test('the end of the common beginning is found, wherever it is', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(50), fc.nat(3_000), fc.nat(), async (before, length, cut) => {
      const first = before + 1;
      const last = before + length;
      const end = before + (length === 0 ? 0 : cut % (length + 1));
      const found = await search(first, last, (sequence) => sequence <= end);
      expect(found.end).toBe(end);
      for (const probe of found.probes) expect(probe >= first && probe <= last).toBe(true);
    }),
  );
});

test('a loss of a few messages at the end of a long log takes few looks', async () => {
  const { end, probes } = await search(1, 2 ** 36, (sequence) => sequence <= 2 ** 36 - 1_000);
  expect(end).toBe(2 ** 36 - 1_000);
  expect(probes.length).toBeLessThan(25);
});

test('what is not known any more is never taken for the same', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 500 }), fc.nat(499), fc.nat(), async (last, cut, seed) => {
      const end = cut % (last + 1);
      const known = (sequence: number): boolean => (Math.imul(sequence + seed, 2_654_435_761) >>> 28) % 3 > 0;
      const found = await search(1, last, (sequence) => sequence <= end && known(sequence));
      expect(found.end).toBeLessThanOrEqual(end);
    }),
  );
});

test('an empty log has nothing in common', async () => {
  expect(await search(1, 0, () => true)).toEqual({ end: 0, probes: [] });
  expect(await search(11, 10, () => true)).toEqual({ end: 10, probes: [] });
});
