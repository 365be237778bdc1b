import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatQuantity, QUANTITY_UNIT } from '../contract/quantity.ts';
import { HOUR_MS } from '../contract/window.ts';
import { contributionsOf } from '../test/contributions.ts';
import { BucketWriter } from './bucket.ts';
import { foldBlock } from './fold.ts';
import { packed } from './position-in-shard.ts';
import { RollupCache, type RowsWanted, type Unloaded } from './rollup-cache.ts';
import type { StoredRollup, StoredTotals } from './rollup-key.ts';

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

function find(cache: RollupCache, ...keys: Wanted[]): { rows: number[]; asked: string[] } {
  const unloaded: Unloaded[] = [];
  const rows = cache.find(blockOf(keys), unloaded);
  return { rows: [...rows], asked: unloaded.map((one) => one.key.subject) };
}

let position = 0;

/** Adds a value to a row, of an event behind all before it. */
function add(cache: RollupCache, row: number, mantissa: number, at = ++position): number[] {
  const touched: number[] = [];
  const one = { key: Uint32Array.of(0), mantissa: Float64Array.of(mantissa), scale: Uint8Array.of(0) };
  const block = {
    incarnation: 1,
    sequence: at,
    time: Float64Array.of(7_200_000),
    verdicts: Uint8Array.of(0),
  };
  const contributions = contributionsOf(one);
  foldBlock({ ...block, contributions }, cache.rows, [row], at, touched);
  return touched;
}

const sumAt = (cache: RollupCache, row: number): bigint => cache.rows.totalsOf(row).sum / QUANTITY_UNIT;

test('a row goes only when two turns have passed without it, and then it is asked for again', () => {
  const cache = new RollupCache(3, 3_600, KEY);
  expect(find(cache, key('old', 3_600)).asked).toEqual(['old']); // may be in the table
  const { rows, asked } = find(cache, key('a'), key('b'));
  expect(asked).toEqual([]); // later than everything there
  add(cache, rows[0]!, 7);
  cache.trim();
  const moved = find(cache, key('a')); // used: it moves on
  expect(moved.asked).toEqual([]);
  expect(sumAt(cache, moved.rows[0]!)).toBe(7n);
  find(cache, key('c'));
  cache.trim();
  expect(find(cache, key('a')).asked).toEqual([]);
  expect(find(cache, key('b'), key('d', 10_800)).asked).toEqual(['b']);
  // Of the hour that was dropped, but never there.
  expect(find(cache, key('e')).asked).toEqual([]);
});

test('below its bound nothing goes while an hour lasts', () => {
  const cache = new RollupCache(100, -1, KEY);
  const [row] = find(cache, key('a', 0)).rows;
  for (let turn = 0; turn < 5; turn++) {
    cache.reach(HOUR_MS + turn);
    cache.trim();
  }
  expect(find(cache, key('a', 0))).toEqual({ rows: [row!], asked: [] });
});

test('what was not used for two hours of the log goes, whatever the hours of events are', () => {
  const cache = new RollupCache(100, -1, KEY);
  const hour = (number: number): void => {
    cache.reach(number * HOUR_MS + 5);
    cache.trim();
  };
  hour(10);
  find(cache, key('late', 3_600), key('ahead', 36_000_000), key('used'));
  hour(11);
  expect(cache.size).toBe(3);
  find(cache, key('used'));
  hour(12);
  // The generation before has the three no more, the current one begins.
  expect(cache.size).toBe(1);
  expect(find(cache, key('used'), key('new'), key('ahead again', 36_000_000)).asked).toEqual([]);
  expect(find(cache, key('late', 3_600), key('ahead', 36_000_000)).asked).toEqual(['late', 'ahead']);
  const { size } = cache;
  // A block of an edge that is behind, or of the same hour, turns nothing over.
  for (const again of [11, 12, 3, 12]) hour(again);
  expect(cache.size).toBe(size);
});

test('an hour has the whole bound: rows of the last hour go before any of its own', () => {
  const cache = new RollupCache(6, -1, KEY);
  const names = ['a', 'b', 'c', 'd', 'e'];
  cache.reach(HOUR_MS);
  find(cache, ...names.map((name) => key(name, 3_600)));
  cache.trim();
  cache.reach(2 * HOUR_MS);
  cache.trim();
  for (const name of names) {
    find(cache, key(name));
    cache.trim();
  }
  expect(cache.size).toBe(5);
  expect(find(cache, ...names.map((name) => key(name))).asked).toEqual([]);
  expect(find(cache, key('a', 3_600)).asked).toEqual(['a']);
});

test('an hour with more rows than the bound keeps those that are used, and at most half as many again', () => {
  const cache = new RollupCache(10, -1, KEY);
  cache.reach(HOUR_MS);
  let most = 0;
  for (let turn = 0; turn < 50; turn++) {
    expect(find(cache, key('used'), key(`once ${turn}`)).asked).not.toContain('used');
    most = Math.max(most, cache.size);
    cache.trim();
  }
  expect(most).toBeLessThanOrEqual(15 + 2);
});

test('places hold while they are held; what was due is trimmed then', () => {
  const cache = new RollupCache(2, -1, KEY);
  cache.hold();
  const { rows } = find(cache, key('a'), key('b'));
  const generation = cache.rows;
  cache.trim();
  expect(cache.rows).toBe(generation);
  add(cache, rows[0]!, 5);
  cache.release();
  expect(cache.rows).not.toBe(generation);
  expect(sumAt(cache, find(cache, key('a')).rows[0]!)).toBe(5n);
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
  expect([...rows].map((row) => cache.rows.totalsOf(row).events)).toEqual([2, 0]);
  expect(cache.rows.totalsOf(rows[0]!).sum).toBe(12_500_000_000n);
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
  const one = fc.record({
    key: wanted,
    over: fc.boolean(),
    value: fc.oneof(fc.integer({ min: -9, max: 99 }), fc.maxSafeInteger()),
  });
  const blocks = fc.array(
    fc.record({ hour: fc.nat(2), events: fc.array(one, { minLength: 1, maxLength: 12 }) }),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(blocks, fc.integer({ min: 2, max: 40 }), (log, max) => {
      const cache = new RollupCache(max, -1, KEY);
      const sums = new Map<string, bigint>();
      const stored = new Map<string, StoredTotals>();
      let hour = 0;
      for (const { hour: passed, events: block } of log) {
        const keys = block.map((one) => one.key);
        const over = Uint8Array.from(block, (one) => (one.over && one.key.dimensions.length > 0 ? 1 : 0));
        const unloaded: Unloaded[] = [];
        const rows = cache.find(blockOf(keys, over.includes(1) ? over : null), unloaded);
        // What was dropped stands in the table, as it was; what is not asked for does not.
        const found = unloaded.flatMap(({ key: asked }) => {
          const totals = stored.get(textOf(asked));
          return totals === undefined ? [] : [{ ...asked, ...totals }];
        });
        cache.enter(unloaded, found, 1);
        block.forEach(({ key: one, value }, at) => {
          const dimensions = over[at] === 1 ? one.dimensions.map(() => '__overflow__') : one.dimensions;
          const text = textOf({ ...one, dimensions });
          const row = rows[at]!;
          const added = [add(cache, row, value), add(cache, row, value, position)];
          const sum = (sums.get(text) ?? 0n) + BigInt(value);
          sums.set(text, sum);
          expect([textOf(cache.keyOf(row)), sumAt(cache, row), added]).toEqual([text, sum, [[row], []]]);
          stored.set(text, storedOf(cache, row));
        });
        hour += passed;
        cache.reach(hour * HOUR_MS);
        cache.trim();
      }
    }),
    { numRuns: 150 },
  );
});

/** A row as the table has it when it was written. */
function storedOf(cache: RollupCache, row: number): StoredTotals {
  const totals = cache.rows.totalsOf(row);
  return {
    value_count: String(totals.events),
    value_sum: formatQuantity(totals.sum),
    value_min: formatQuantity(totals.min),
    value_max: formatQuantity(totals.max),
    value_latest: formatQuantity(totals.latest),
    latest_time_ms: String(totals.latestTimeMs),
    latest_position: packed(1, totals.latestPosition).toString(),
    position: packed(1, totals.position).toString(),
  };
}

const textOf = ({ tenant, meter, subject, hourSeconds, dimensions }: Wanted): string =>
  JSON.stringify([tenant, meter, subject, hourSeconds, dimensions]);

test('rows that were made anew are taken as they are stored, in either generation; others stay', () => {
  const cache = new RollupCache(4, -1, KEY);
  const stored = (subject: string, sum: string): StoredRollup => ({
    ...key(subject),
    ...{ value_count: '1', value_sum: sum, value_min: sum, value_max: sum, value_latest: sum },
    ...{ latest_time_ms: '5', latest_position: '72057594038009855', position: '72057594038009855' },
  });
  const addTo = (subject: string, value: number, sequence: number): number[] =>
    add(cache, find(cache, key(subject)).rows[0]!, value, sequence);
  const sumOf = (subject: string): bigint => {
    const [row] = find(cache, key(subject)).rows;
    return cache.rows.totalsOf(row!).sum;
  };
  // Too large for a number: the row goes wide, and must forget it.
  addTo('older', Number.MAX_SAFE_INTEGER, 1);
  addTo('older', Number.MAX_SAFE_INTEGER, 2);
  addTo('other', 7, 1);
  cache.trim();
  addTo('newer', 8, 1);
  cache.refresh([stored('older', '1.5'), stored('newer', '2'), stored('unheard of', '3')], 1);
  expect([sumOf('older'), sumOf('newer'), sumOf('other')]).toEqual([
    1_500_000_000n,
    2_000_000_000n,
    7_000_000_000n,
  ]);
  // What lies at or below the stored position is in it.
  expect(addTo('newer', 1, 1)).toHaveLength(0);
  expect(addTo('newer', 1, 2)).toHaveLength(1);
});

test('what is forgotten is asked for anew, up to the hour that is given', () => {
  const cache = new RollupCache(100, -1, KEY);
  expect(find(cache, key('a')).asked).toEqual([]);
  cache.forget(10_800);
  expect(cache.size).toBe(0);
  expect(find(cache, key('a'), key('b', 10_800), key('c', 14_400)).asked).toEqual(['a', 'b']);
});
