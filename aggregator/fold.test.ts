import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatQuantity, quantityOf, type Quantity } from '../contract/quantity.ts';
import { mergeTotals, totalsOf, type Totals } from '../contract/rollup.ts';
import { foldBlock } from './fold.ts';
import { packed, positionInShard } from './position-in-shard.ts';
import { NO_GROUPS } from './group-book.ts';
import { WIDE } from './prepare.ts';
import { RollupRow } from './rollup-row.ts';
import { COUNTED, DUPLICATE } from './verdict.ts';

const INCARNATION = 1;

interface Value {
  readonly key: number;
  readonly value: { readonly mantissa: number; readonly scale: number } | bigint;
  readonly timeMs: number;
  readonly counted: boolean;
}

const KEYS = ['["a"]', '["b"]', '["c"]'];

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
function fold(rows: RollupRow[], log: readonly (readonly Value[])[], blocks: readonly number[]): RollupRow[] {
  const touched: RollupRow[] = [];
  for (const at of blocks) {
    const events = log[at]!;
    const wide: bigint[] = [];
    foldBlock(
      {
        incarnation: INCARNATION,
        sequence: at + 1,
        time: Float64Array.from(events, ({ timeMs }) => timeMs),
        verdicts: Uint8Array.from(events, ({ counted }) => (counted ? COUNTED : DUPLICATE)),
        contributions: {
          keys: KEYS,
          start: Uint32Array.from({ length: events.length + 1 }, (_, event) => event),
          key: Uint32Array.from(events, ({ key }) => key),
          mantissa: Float64Array.from(events, ({ value }) =>
            typeof value === 'bigint' ? wide.push(value) - 1 : value.mantissa,
          ),
          scale: Uint8Array.from(events, ({ value }) => (typeof value === 'bigint' ? WIDE : value.scale)),
          wide,
          groups: NO_GROUPS,
        },
      },
      rows,
      1,
      touched,
    );
  }
  return touched;
}

const freshRows = (): RollupRow[] => KEYS.map((key) => new RollupRow(key));
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

function expectModel(rows: readonly RollupRow[], log: readonly (readonly Value[])[]): void {
  rows.forEach((row, key) => {
    const expected = model(log, key);
    if (expected === null) expect(row.count).toBe(0);
    else expect(row.totals()).toEqual(expected);
  });
}

/** As the row comes back from ClickHouse. */
function reload(row: RollupRow): RollupRow {
  if (row.count === 0) return new RollupRow(row.key);
  const totals = row.totals();
  const stored = {
    value_count: totals.count.toString(),
    value_sum: formatQuantity(totals.sum),
    value_min: formatQuantity(totals.min),
    value_max: formatQuantity(totals.max),
    value_latest: formatQuantity(totals.latest),
    latest_time_ms: String(totals.latestTimeMs),
    latest_position: totals.latestPosition.toString(),
    position: packed(INCARNATION, row.position).toString(),
  };
  return RollupRow.load(row.key, stored, INCARNATION);
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
        const rows = KEYS.map((_, key) => {
          const partial = freshRows();
          fold(partial, log, all(log).slice(0, storedAfter[key]!));
          return reload(partial[key]!);
        });
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
        whole.forEach((row, key) => {
          const parts = [first[key]!, second[key]!]
            .filter(({ count }) => count > 0)
            .map((part) => part.totals());
          if (row.count === 0) expect(parts).toEqual([]);
          else expect(row.totals()).toEqual(parts.reduce(mergeTotals));
        });
      }),
    );
  });

  test('sums of 2^53 and more stay exact', () => {
    const row = new RollupRow(KEYS[0]!);
    for (let index = 0; index < 3; index++) row.add(Number.MAX_SAFE_INTEGER, 0, 0, index, INCARNATION);
    row.add(1, 9, 0, 3, INCARNATION);
    expect(formatQuantity(row.totals().sum)).toBe('27021597764222973.000000001');
    expect(formatQuantity(row.totals().min)).toBe('0.000000001');
  });
});
