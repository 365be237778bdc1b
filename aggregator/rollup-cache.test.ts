import fc from 'fast-check';
import { expect, test } from 'vitest';
import { contributionsOf } from '../test/contributions.ts';
import { BucketWriter } from './bucket.ts';
import { RollupCache, type RowsWanted, type Unloaded } from './rollup-cache.ts';
import type { StoredRollup } from './rollup-key.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';
const writer = new BucketWriter(KEY);

interface Wanted {
  readonly tenant: string;
  readonly meter: string;
  readonly subject: string;
  readonly hourSeconds: number;
  readonly dimensions: readonly string[];
}

/** A block with these keys, in this order; a bucket may stand in it twice. */
function blockOf(keys: readonly Wanted[], overflowed: Uint8Array | null = null): RowsWanted {
  const tenants = [...new Set(keys.map(({ tenant }) => tenant))];
  const meters = [...new Set(keys.map(({ meter }) => meter))];
  for (const { tenant, subject, hourSeconds, dimensions } of keys) {
    writer.begin(hourSeconds, dimensions.length);
    for (const text of [subject, ...dimensions]) writer.text(text);
    writer.end(tenants.indexOf(tenant));
  }
  return {
    tenants,
    overflowed,
    contributions: contributionsOf({
      key: new Uint32Array(0),
      mantissa: new Float64Array(0),
      scale: new Uint8Array(0),
      buckets: writer.take(),
      meters,
      keyBucket: Uint32Array.from(keys, (_, at) => at),
      keyMeter: Uint32Array.from(keys, ({ meter }) => meters.indexOf(meter)),
    }),
  };
}

const key = (subject: string, hourSeconds = 7_200): Wanted => ({
  tenant: 't',
  meter: 'm',
  subject,
  hourSeconds,
  dimensions: [],
});

function find(cache: RollupCache, ...keys: Wanted[]): { rows: Int32Array; asked: string[] } {
  const unloaded: Unloaded[] = [];
  const rows = cache.find(blockOf(keys), unloaded);
  return { rows, asked: unloaded.map((one) => one.key.subject) };
}

test('a row goes only when two turns have passed without it, and then its hour is no longer known to be new', () => {
  const cache = new RollupCache(4, 3_600, KEY);
  expect(find(cache, key('old', 3_600)).asked).toEqual(['old']); // may be in the table
  const { rows, asked } = find(cache, key('a'), key('b'));
  expect(asked).toEqual([]); // later than everything there
  cache.rows.fold(rows[0]!, 7, 0, 0, 1, 1);
  cache.trim();
  const moved = find(cache, key('a')); // used: it moves on
  expect(moved.asked).toEqual([]);
  expect(cache.rows.sum[moved.rows[0]!]).toBe(7);
  find(cache, key('c'));
  cache.trim();
  expect(find(cache, key('a')).asked).toEqual([]);
  expect(find(cache, key('b'), key('d', 10_800)).asked).toEqual(['b']);
  expect(cache.turn).toBe(2);
});

test('below its bound nothing goes', () => {
  const cache = new RollupCache(100, -1, KEY);
  const [row] = find(cache, key('a', 0)).rows;
  for (let turn = 0; turn < 5; turn++) cache.trim();
  expect(find(cache, key('a', 0))).toEqual({ rows: Int32Array.of(row!), asked: [] });
});

test('what was loaded counts on, and what the table did not have begins with nothing', () => {
  const cache = new RollupCache(100, 7_200, KEY);
  const unloaded: Unloaded[] = [];
  const wanted = blockOf([key('a'), key('b')]);
  const rows = cache.find(wanted, unloaded);
  const totals = { value_sum: '12.5', value_min: '2.5', value_max: '10', value_latest: '10' };
  const rest = { value_count: '2', latest_time_ms: '5', latest_position: '1', position: '1' };
  cache.enter(unloaded, [{ ...unloaded[0]!.key, ...totals, ...rest }], 1);
  expect(cache.find(wanted, unloaded)).toEqual(rows);
  expect(unloaded).toHaveLength(2);
  expect([cache.rows.events[rows[0]!], cache.rows.events[rows[1]!]]).toEqual([2, 0]);
  expect(cache.rows.asWide(rows[0]!).sum).toBe(12_500_000_000n);
});

test('every key has one row, whatever the texts are, in whatever order and block they come', () => {
  const text = fc.constantFrom('', 'a', 'ab', 'b', 'é', '__overflow__', 'a\u0000', 'x'.repeat(40));
  const wanted = fc.record({
    tenant: fc.constantFrom('t', 'u'),
    meter: fc.constantFrom('m', 'n'),
    subject: text,
    hourSeconds: fc.constantFrom(0, 3_600, 7_200),
    dimensions: fc.array(text, { maxLength: 2 }),
  });
  const blocks = fc.array(
    fc.array(fc.record({ key: wanted, over: fc.boolean() }), { minLength: 1, maxLength: 12 }),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(blocks, fc.integer({ min: 2, max: 40 }), (log, max) => {
      const cache = new RollupCache(max, -1, KEY);
      const sums = new Map<string, number>();
      const stored = new Map<string, number>();
      let position = 0;
      for (const block of log) {
        const keys = block.map((one) => one.key);
        const over = Uint8Array.from(block, (one) => (one.over && one.key.dimensions.length > 0 ? 1 : 0));
        const unloaded: Unloaded[] = [];
        const rows = cache.find(blockOf(keys, over.includes(1) ? over : null), unloaded);
        // What was dropped stands in the table, as it was.
        for (const { key: asked, rows: of, row } of unloaded) of.sum[row] = stored.get(textOf(asked)) ?? 0;
        keys.forEach((one, at) => {
          const dimensions = over[at] === 1 ? one.dimensions.map(() => '__overflow__') : one.dimensions;
          const text = textOf({ ...one, dimensions });
          expect(textOf(cache.keyOf(rows[at]!))).toBe(text);
          cache.rows.fold(rows[at]!, 1, 0, 0, ++position, 1);
          sums.set(text, (sums.get(text) ?? 0) + 1);
          expect(cache.rows.sum[rows[at]!]).toBe(sums.get(text));
          stored.set(text, sums.get(text)!);
        });
        cache.trim();
      }
    }),
    { numRuns: 500 },
  );
});

const textOf = ({ tenant, meter, subject, hourSeconds, dimensions }: Wanted): string =>
  JSON.stringify([tenant, meter, subject, hourSeconds, dimensions]);

test('rows that were made anew are taken as they are stored, in either generation; others stay', () => {
  const cache = new RollupCache(4, -1, KEY);
  const stored = (subject: string, sum: string): StoredRollup => ({
    ...key(subject),
    ...{ value_count: '1', value_sum: sum, value_min: sum, value_max: sum, value_latest: sum },
    ...{ latest_time_ms: '5', latest_position: '72057594038009855', position: '72057594038009855' },
  });
  const add = (subject: string, value: number): void => {
    const [row] = find(cache, key(subject)).rows;
    cache.rows.fold(row!, value, 0, 1, 70_000, 1);
  };
  const sumOf = (subject: string): bigint => {
    const [row] = find(cache, key(subject)).rows;
    return cache.rows.asWide(row!).sum;
  };
  // Too large for a number: the row goes wide, and must forget it.
  add('older', Number.MAX_SAFE_INTEGER);
  cache.rows.fold(find(cache, key('older')).rows[0]!, Number.MAX_SAFE_INTEGER, 0, 1, 70_001, 1);
  add('other', 7);
  cache.trim();
  add('newer', 8);
  cache.refresh([stored('older', '1.5'), stored('newer', '2'), stored('unheard of', '3')], 1);
  expect([sumOf('older'), sumOf('newer'), sumOf('other')]).toEqual([
    1_500_000_000n,
    2_000_000_000n,
    7_000_000_000n,
  ]);
  // What lies at or below the stored position is in it.
  const [row] = find(cache, key('newer')).rows;
  expect(cache.rows.fold(row!, 1, 0, 1, 72_000, 1)).toBe(false);
  expect(cache.rows.fold(row!, 1, 0, 1, 200_000, 1)).toBe(true);
});

test('what is forgotten is asked for anew, up to the hour that is given', () => {
  const cache = new RollupCache(100, -1, KEY);
  expect(find(cache, key('a')).asked).toEqual([]);
  cache.forget(10_800);
  expect(cache.size).toBe(0);
  expect(find(cache, key('a'), key('b', 10_800), key('c', 14_400)).asked).toEqual(['a', 'b']);
});
