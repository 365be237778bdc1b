import { expect, test } from 'vitest';
import { RollupCache } from './rollup-cache.ts';
import { formatKey } from './rollup-key.ts';
import { RollupRow } from './rollup-row.ts';

const row = (subject: string, hourSeconds: number): RollupRow =>
  new RollupRow(formatKey({ tenant: 't', meter: 'm', subject, hourSeconds, dimensions: [] }));

test('a row goes only when two turns have passed without it, and then its hour is no longer known to be new', () => {
  const cache = new RollupCache(4, 3_600);
  const [a, b, c, d] = [row('a', 7_200), row('b', 7_200), row('c', 7_200), row('d', 10_800)];
  expect(cache.mustBeNew(3_600)).toBe(false);
  expect(cache.mustBeNew(7_200)).toBe(true);
  for (const one of [a, b]) cache.add(one);
  cache.trim();
  expect(cache.get(a.key)).toBe(a); // used: it moves on
  cache.add(c);
  cache.trim();
  expect(cache.get(b.key)).toBeUndefined();
  expect(cache.get(a.key)).toBe(a);
  expect(cache.mustBeNew(7_200)).toBe(false);
  expect(cache.mustBeNew(10_800)).toBe(true);
  cache.add(d);
  expect(cache.size).toBe(3);
});

test('below its bound nothing goes', () => {
  const cache = new RollupCache(100, -1);
  const kept = row('a', 0);
  cache.add(kept);
  for (let turn = 0; turn < 5; turn++) cache.trim();
  expect(cache.get(kept.key)).toBe(kept);
});
