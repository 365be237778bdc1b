/** Rollup rows as rows of `rollup_hour`, in Native format. */
import {
  arrayColumn,
  Bytes,
  decimalColumn,
  encodeNative,
  fixedColumn,
  lowCardinalityColumn,
  positionColumn,
  textColumn,
  wholeColumn,
} from './native.ts';
import type { RollupRow } from './rollup-row.ts';

export const ROLLUP_COLUMNS = [
  'tenant',
  'meter',
  'subject',
  'hour',
  'dimensions',
  'shard',
  'value_count',
  'value_sum',
  'value_min',
  'value_max',
  'value_latest',
  'latest_time',
  'latest_position',
  'position',
];

export function encodeRollups(
  shard: number,
  incarnation: number,
  rows: readonly RollupRow[],
): Uint8Array<ArrayBuffer> {
  const keys = rows.map((row) => row.parts);
  const totals = rows.map((row) => row.totals());
  const items = new Bytes(rows.length * 16);
  for (const { dimensions } of keys) for (const value of dimensions) items.text(value);
  return encodeNative(rows.length, [
    texts(
      'tenant',
      keys.map(({ tenant }) => tenant),
    ),
    texts(
      'meter',
      keys.map(({ meter }) => meter),
    ),
    textColumn(
      'subject',
      keys.map(({ subject }) => subject),
    ),
    fixedColumn(
      'hour',
      "DateTime('UTC')",
      Uint32Array.from(keys, ({ hourSeconds }) => hourSeconds),
    ),
    arrayColumn(
      'dimensions',
      keys.map(({ dimensions }) => dimensions.length),
      items,
    ),
    fixedColumn('shard', 'UInt16', new Uint16Array(rows.length).fill(shard)),
    wholeColumn(
      'value_count',
      'UInt64',
      rows.map(({ count }) => count),
    ),
    decimalColumn(
      'value_sum',
      totals.map(({ sum }) => sum),
    ),
    decimalColumn(
      'value_min',
      totals.map(({ min }) => min),
    ),
    decimalColumn(
      'value_max',
      totals.map(({ max }) => max),
    ),
    decimalColumn(
      'value_latest',
      totals.map(({ latest }) => latest),
    ),
    wholeColumn(
      'latest_time',
      "DateTime64(3, 'UTC')",
      totals.map(({ latestTimeMs }) => latestTimeMs),
    ),
    fixedColumn(
      'latest_position',
      'UInt64',
      BigUint64Array.from(totals, ({ latestPosition }) => latestPosition),
    ),
    positionColumn(
      'position',
      new Uint8Array(rows.length).fill(incarnation),
      rows.map(({ position }) => position),
    ),
  ]);
}

function texts(name: string, values: readonly string[]) {
  const numbers = new Map<string, number>();
  const column = Uint32Array.from(values, (value) => {
    let number = numbers.get(value);
    if (number === undefined) numbers.set(value, (number = numbers.size));
    return number;
  });
  return lowCardinalityColumn(name, [...numbers.keys()], column);
}
