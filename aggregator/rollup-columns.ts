/** Rollup rows as rows of `rollup_hour`, in Native format. */
import {
  arrayColumn,
  Bytes,
  collectedTexts,
  encodeNative,
  fixedColumn,
  lowCardinalityColumn,
  positionColumn,
  putDecimal,
  wholeColumn,
  type Column,
} from './native.ts';
import type { RollupCache } from './rollup-cache.ts';
import { WIDE_ROW, type RollupRows } from './rollup-rows.ts';

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

/** The rows whose numbers are given, of the cache's current generation. */
export function encodeRollups(
  shard: number,
  incarnation: number,
  { rows, tenants, meters }: Pick<RollupCache, 'rows' | 'tenants' | 'meters'>,
  touched: readonly number[],
): Uint8Array<ArrayBuffer> {
  const count = touched.length;
  const { buckets } = rows;
  const tenant = new Uint32Array(count);
  const meter = new Uint32Array(count);
  const hour = new Uint32Array(count);
  const dimensions = new Uint32Array(count);
  const subjects = new Bytes(count * 16);
  const items = new Bytes(count * 16);
  for (let at = 0; at < count; at++) {
    const row = touched[at]!;
    const bucket = rows.bucket[row]!;
    tenant[at] = buckets.tenant[bucket]!;
    meter[at] = rows.meter[row]!;
    // The layout of a bucket is told in bucket.ts.
    const { view, bytes } = buckets;
    const start = buckets.start[bucket]!;
    hour[at] = view.getUint32(start, true);
    const named = view.getUint32(start + 4, true);
    dimensions[at] = named;
    let length = view.getUint32(start + 8, true);
    let text = start + 12;
    subjects.slice(bytes, text, text + length);
    for (let left = named; left > 0; left--) {
      text += length + 4;
      length = view.getUint32(text - 4, true);
      items.slice(bytes, text, text + length);
    }
  }
  return encodeNative(count, [
    named('tenant', tenants.names, tenant),
    named('meter', meters.names, meter),
    collectedTexts('subject', subjects),
    fixedColumn('hour', "DateTime('UTC')", hour),
    arrayColumn('dimensions', dimensions, items),
    fixedColumn('shard', 'UInt16', new Uint16Array(count).fill(shard)),
    wholeColumn('value_count', 'UInt64', picked(rows.events, touched)),
    decimals('value_sum', rows, rows.sum, 'sum', touched),
    decimals('value_min', rows, rows.min, 'min', touched),
    decimals('value_max', rows, rows.max, 'max', touched),
    decimals('value_latest', rows, rows.latest, 'latest', touched),
    wholeColumn('latest_time', "DateTime64(3, 'UTC')", picked(rows.latestTimeMs, touched)),
    latestPositions(rows, touched),
    positionColumn('position', new Uint8Array(count).fill(incarnation), picked(rows.position, touched)),
  ]);
}

function picked(values: Float64Array, rows: readonly number[]): Float64Array {
  const found = new Float64Array(rows.length);
  for (let at = 0; at < found.length; at++) found[at] = values[rows[at]!]!;
  return found;
}

/** The names that occur, and which one each row has. */
function named(name: string, names: readonly string[], numbers: Uint32Array): Column {
  const local = new Int32Array(names.length).fill(-1);
  const occurring: string[] = [];
  for (let at = 0; at < numbers.length; at++) {
    const number = numbers[at]!;
    if (local[number]! < 0) local[number] = occurring.push(names[number]!) - 1;
    numbers[at] = local[number]!;
  }
  return lowCardinalityColumn(name, occurring, numbers);
}

function decimals(
  name: string,
  { scale, wide }: RollupRows,
  values: Float64Array,
  which: 'sum' | 'min' | 'max' | 'latest',
  touched: readonly number[],
): Column {
  const words = new Uint32Array(touched.length * 4);
  for (let at = 0; at < touched.length; at++) {
    const row = touched[at]!;
    if (scale[row] === WIDE_ROW) {
      const value = wide.get(row)![which];
      const halves = BigInt.asUintN(128, value);
      for (let word = 0; word < 4; word++)
        words[at * 4 + word] = Number((halves >> BigInt(word * 32)) & 0xffff_ffffn);
    } else putDecimal(words, at, values[row]!, scale[row]!);
  }
  return fixedColumn(name, 'Decimal(38, 9)', words);
}

/** The latest value of a row may come from an earlier incarnation. */
function latestPositions(rows: RollupRows, touched: readonly number[]): Column {
  const incarnations = new Uint8Array(touched.length);
  for (let at = 0; at < touched.length; at++) incarnations[at] = rows.latestIncarnation[touched[at]!]!;
  return positionColumn('latest_position', incarnations, picked(rows.latestPosition, touched));
}
