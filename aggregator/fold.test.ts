import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatQuantity, quantityOf, type Quantity } from '../contract/quantity.ts';
import { mergeTotals, totalsOf, type Totals } from '../contract/rollup.ts';
import { contributionsOf } from '../test/contributions.ts';
import { mixedHash } from './bucket-keys.ts';
import { BucketWriter } from './bucket.ts';
import { foldBlock } from './fold.ts';
import { packed, positionInShard } from './position-in-shard.ts';
import { WIDE } from './prepare.ts';
import { RollupRows } from './rollup-rows.ts';
import { COUNTED, DUPLICATE } from './verdict.ts';

const INCARNATION = 1;

interface Value {
  readonly key: number;
  readonly value: { readonly mantissa: number; readonly scale: number } | bigint;
  readonly timeMs: number;
  readonly counted: boolean;
}

const KEYS = [0, 1, 2];
/** Of the three rows, once they were made. */
let ROWS: number[] = [];

const values: fc.Arbitrary<Value> = fc.record({
  key: fc.nat(2),
  value: fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ mantissa: fc.integer({ min: -1_000, max: 1_000 }), scale: fc.constant(0) }),
    },
    { weight: 3, arbitrary: fc.record({ mantissa: fc.maxSafeInteger(), scale: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.bigInt({ min: -(10n ** 27n) + 1n, max: 10n ** 27n - 1n }) },
  ),
  timeMs: fc.nat(5),
  counted: fc.boolean(),
});
const logs = fc.array(fc.array(values, { maxLength: 8 }), { minLength: 1, maxLength: 10 });

const exact = (value: Value['value']): Quantity =>
  typeof value === 'bigint' ? value : quantityOf(value.mantissa, value.scale);

/** Folds the blocks whose numbers are given, in that order. */
function fold(rows: RollupRows, log: readonly (readonly Value[])[], blocks: readonly number[]): number[] {
  const touched: number[] = [];
  for (const at of blocks) {
    const events = log[at]!;
    const wide: bigint[] = [];
    foldBlock(
      {
        incarnation: INCARNATION,
        sequence: at + 1,
        time: Float64Array.from(events, ({ timeMs }) => timeMs),
        verdicts: Uint8Array.from(events, ({ counted }) => (counted ? COUNTED : DUPLICATE)),
        contributions: contributionsOf({
          key: Uint32Array.from(events, ({ key }) => key),
          mantissa: Float64Array.from(events, ({ value }) =>
            typeof value === 'bigint' ? wide.push(value) - 1 : value.mantissa,
          ),
          scale: Uint8Array.from(events, ({ value }) => (typeof value === 'bigint' ? WIDE : value.scale)),
          wide,
        }),
      },
      rows,
      ROWS,
      1,
      touched,
    );
  }
  return touched;
}

/** A row for each key: two meters of one bucket, and one of another. */
function freshRows(): RollupRows {
  const rows = new RollupRows();
  const writer = new BucketWriter('000102030405060708090a0b0c0d0e0f');
  const bucketOf = (subject: string): number => {
    writer.begin(0, 0);
    writer.text(subject);
    writer.end(0);
    const { bytes, start, hash } = writer.take();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return rows.buckets.add(0, view, 0, start[1]!, mixedHash(0, hash[0]!));
  };
  const [first, second] = [bucketOf('a'), bucketOf('b')];
  ROWS = [rows.add(first, 0), rows.add(first, 1), rows.add(second, 0)];
  return rows;
}

const totalsAt = (rows: RollupRows, key: number): Totals => {
  const { events, position, latestPosition, latestIncarnation, ...totals } = rows.totalsOf(ROWS[key]!);
  void position;
  return { ...totals, count: BigInt(events), latestPosition: packed(latestIncarnation, latestPosition) };
};
const eventsAt = (rows: RollupRows, key: number): number => rows.totalsOf(ROWS[key]!).events;

const all = (log: readonly unknown[]): number[] => log.map((_, at) => at);

/** The contract's own way of adding up, one event at a time. */
function model(log: readonly (readonly Value[])[], key: number): Totals | null {
  let totals: Totals | null = null;
  log.forEach((events, at) =>
    events.forEach((event, index) => {
      if (event.key !== key || !event.counted) return;
      const position = packed(INCARNATION, positionInShard(at + 1, index));
      const one = totalsOf(exact(event.value), event.timeMs, position);
      totals = totals === null ? one : mergeTotals(totals, one);
    }),
  );
  return totals;
}

function expectModel(rows: RollupRows, log: readonly (readonly Value[])[]): void {
  for (const key of KEYS) {
    const expected = model(log, key);
    if (expected === null) expect(eventsAt(rows, key)).toBe(0);
    else expect(totalsAt(rows, key)).toEqual(expected);
  }
}

/** Sets a row as it comes back from ClickHouse. */
function reload(rows: RollupRows, key: number, from: RollupRows): void {
  if (eventsAt(from, key) === 0) return;
  const totals = totalsAt(from, key);
  const stored = {
    value_count: totals.count.toString(),
    value_sum: formatQuantity(totals.sum),
    value_min: formatQuantity(totals.min),
    value_max: formatQuantity(totals.max),
    value_latest: formatQuantity(totals.latest),
    latest_time_ms: String(totals.latestTimeMs),
    latest_position: totals.latestPosition.toString(),
    position: packed(INCARNATION, from.totalsOf(ROWS[key]!).position).toString(),
  };
  rows.load(ROWS[key]!, stored, INCARNATION);
}

describe('fold', () => {
  test('totals are those of the contract, to the last digit, whatever the sizes', () => {
    fc.assert(
      fc.property(logs, (log) => {
        const rows = freshRows();
        fold(rows, log, all(log));
        expectModel(rows, log);
      }),
      { numRuns: 500 },
    );
  });

  test('a replay from any earlier block changes nothing and touches no row', () => {
    fc.assert(
      fc.property(logs, fc.nat(9), (log, from) => {
        const rows = freshRows();
        fold(rows, log, all(log));
        expect(fold(rows, log, all(log).slice(from))).toEqual([]);
        expectModel(rows, log);
      }),
    );
  });

  test('rows that were stored at different moments of a crash all come to the same totals', () => {
    fc.assert(
      fc.property(logs, fc.array(fc.nat(10), { minLength: 3, maxLength: 3 }), (log, storedAfter) => {
        // Each row was last written after another block; the replay starts before all of them.
        const rows = freshRows();
        for (const key of KEYS) {
          const partial = freshRows();
          fold(partial, log, all(log).slice(0, storedAfter[key]!));
          reload(rows, key, partial);
        }
        fold(rows, log, all(log).slice(Math.min(...storedAfter)));
        expectModel(rows, log);
      }),
    );
  });

  test('fold(a ++ b) = merge(fold(a), fold(b))', () => {
    fc.assert(
      fc.property(logs, fc.nat(10), (log, split) => {
        const whole = freshRows();
        const first = freshRows();
        const second = freshRows();
        fold(whole, log, all(log));
        fold(first, log, all(log).slice(0, split));
        fold(second, log, all(log).slice(split));
        for (const key of KEYS) {
          const parts = [first, second]
            .filter((part) => eventsAt(part, key) > 0)
            .map((part) => totalsAt(part, key));
          if (eventsAt(whole, key) === 0) expect(parts).toEqual([]);
          else expect(totalsAt(whole, key)).toEqual(parts.reduce(mergeTotals));
        }
      }),
    );
  });

  test('sums of 2^53 and more stay exact', () => {
    const rows = freshRows();
    const most = { key: 0, value: { mantissa: Number.MAX_SAFE_INTEGER, scale: 0 }, timeMs: 0, counted: true };
    const least = { ...most, value: { mantissa: 1, scale: 9 } };
    fold(rows, [[most, most, most, least]], [0]);
    expect(formatQuantity(totalsAt(rows, 0).sum)).toBe('27021597764222973.000000001');
    expect(formatQuantity(totalsAt(rows, 0).min)).toBe('0.000000001');
  });
});
