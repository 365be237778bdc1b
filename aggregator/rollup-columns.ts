/**
 * Rollup rows as rows of `rollup_hour`, in Native format. A row is read once, and all that it says is written where each
 * column wants it, in memory that is kept from one time to the next.
 */
import { QUANTITY_SCALE } from '../contract/quantity.ts';
import { BUCKET_BYTES, BUCKET_TENANT } from './bucket-keys.ts';
import {
  encodeNative,
  lowCardinalityColumn,
  fixedColumn,
  putDecimal,
  putPosition,
  putWhole,
  type Column,
} from './native.ts';
import type { RollupCache } from './rollup-cache.ts';
import {
  BUCKET,
  EVENTS,
  INCARNATION_SHIFT,
  LATEST,
  LATEST_MS,
  LATEST_POSITION,
  MAX,
  METER,
  MIN,
  POSITION,
  POWERS,
  SCALE,
  SCALE_MASK,
  SUM,
  WIDE_ROW,
} from './rollup-rows.ts';
import { PAGE_MASK, PAGE_SHIFT } from './row-pages.ts';

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

/** Rows of one Native block. The memory that is kept is 120 bytes for each, and what texts take. */
const ROWS_MAX = 131_072;
const ROWS_FIRST = 1_024;
const DECIMAL = 'Decimal(38, 9)';

/** The rows whose places are given, of the cache's current generation; so many in a block. */
export function encodeRollups(
  shard: number,
  incarnation: number,
  cache: Pick<RollupCache, 'rows' | 'tenants' | 'meters'>,
  touched: readonly number[],
  rowsMax = ROWS_MAX,
): Uint8Array<ArrayBuffer> {
  const blocks: Uint8Array<ArrayBuffer>[] = [];
  for (let from = 0; from < touched.length || from === 0; from += rowsMax) {
    const to = Math.min(from + rowsMax, touched.length);
    blocks.push(encodeBlock(shard, incarnation, cache, touched, from, to));
  }
  return blocks.length === 1 ? blocks[0]! : new Uint8Array(Buffer.concat(blocks));
}

/** Strings as the format has them, one behind the other. */
class Texts {
  #bytes = new Uint8Array(ROWS_FIRST * 16);
  #end = 0;

  /** Takes the text of a bucket whose length begins at `at`; returns where it ends there. */
  take(source: Uint8Array, at: number): number {
    const length = source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16) | (source[at + 3]! << 24);
    if (this.#end + length + 5 > this.#bytes.length) this.#grow(length + 5);
    const bytes = this.#bytes;
    let to = this.#end;
    let rest = length;
    for (; rest >= 128; rest >>>= 7) bytes[to++] = (rest & 127) | 128;
    bytes[to++] = rest;
    const end = at + 4 + length;
    for (let from = at + 4; from < end; from++) bytes[to++] = source[from]!;
    this.#end = to;
    return end;
  }

  get written(): Uint8Array {
    return this.#bytes.subarray(0, this.#end);
  }

  clear(): void {
    this.#end = 0;
  }

  #grow(more: number): void {
    const larger = new Uint8Array((this.#end + more) * 2);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** The columns of a block, by row. Those of 64 bits take two words a row, and decimals four. */
class Columns {
  readonly subjects = new Texts();
  readonly items = new Texts();
  readonly tenant: Uint32Array;
  readonly meter: Uint32Array;
  readonly hour: Uint32Array;
  readonly itemsEnd: Uint32Array;
  readonly shard: Uint16Array;
  readonly count: Uint32Array;
  readonly sum: Uint32Array;
  readonly min: Uint32Array;
  readonly max: Uint32Array;
  readonly latest: Uint32Array;
  readonly latestTime: Uint32Array;
  readonly latestPosition: Uint32Array;
  readonly position: Uint32Array;

  readonly rows: number;

  constructor(rows: number) {
    this.rows = rows;
    const words = (each: number): Uint32Array => new Uint32Array(rows * each);
    [this.tenant, this.meter, this.hour] = [words(1), words(1), words(1)];
    this.itemsEnd = words(2);
    this.shard = new Uint16Array(rows);
    [this.sum, this.min, this.max, this.latest] = [words(4), words(4), words(4), words(4)];
    [this.count, this.latestTime] = [words(2), words(2)];
    [this.latestPosition, this.position] = [words(2), words(2)];
  }
}

let kept = new Columns(ROWS_FIRST);

function columnsFor(rows: number): Columns {
  if (rows > kept.rows) kept = new Columns(Math.min(ROWS_MAX, rows * 2));
  kept.subjects.clear();
  kept.items.clear();
  return kept;
}

function encodeBlock(
  shard: number,
  incarnation: number,
  { rows, tenants, meters }: Pick<RollupCache, 'rows' | 'tenants' | 'meters'>,
  touched: readonly number[],
  begin: number,
  end: number,
): Uint8Array<ArrayBuffer> {
  const count = end - begin;
  const columns = columnsFor(count);
  const { subjects, items, tenant, meter, hour, itemsEnd } = columns;
  const { pages } = rows;
  let itemCount = 0;
  for (let at = 0; at < count; at++) {
    const row = touched[begin + at]!;
    const doubles = pages.doubles[row >>> PAGE_SHIFT]!;
    const words = pages.words[row >>> PAGE_SHIFT]!;
    const place = row & PAGE_MASK;
    const word = place * 2;
    const bucket = words[word + BUCKET]!;
    meter[at] = words[word + METER]!;

    // The layout of a bucket is told in bucket.ts and bucket-keys.ts.
    const bucketWords = pages.words[bucket >>> PAGE_SHIFT]!;
    const bucketBytes = pages.bytes[bucket >>> PAGE_SHIFT]!;
    const start = (bucket & PAGE_MASK) * 2;
    const hourSeconds = bucketWords[start + BUCKET_BYTES]!;
    tenant[at] = bucketWords[start + BUCKET_TENANT]!;
    hour[at] = hourSeconds;
    let text = subjects.take(bucketBytes, (start + BUCKET_BYTES + 2) * 4);
    for (let left = bucketWords[start + BUCKET_BYTES + 1]!; left > 0; left--) {
      text = items.take(bucketBytes, text);
      itemCount += 1;
    }
    putWhole(itemsEnd, at, itemCount);

    const scales = words[word + SCALE]!;
    const scale = scales & SCALE_MASK;
    if (scale === WIDE_ROW) {
      const wide = rows.wide.get(row)!;
      for (const field of ['sum', 'min', 'max', 'latest'] as const) putWide(columns[field], at, wide[field]);
    } else {
      const power = POWERS[QUANTITY_SCALE - scale]!;
      putNumber(columns.sum, at, doubles[place + SUM]!, scale, power);
      putNumber(columns.min, at, doubles[place + MIN]!, scale, power);
      putNumber(columns.max, at, doubles[place + MAX]!, scale, power);
      putNumber(columns.latest, at, doubles[place + LATEST]!, scale, power);
    }
    putWhole(columns.count, at, doubles[place + EVENTS]!);
    putWhole(columns.latestTime, at, hourSeconds * 1_000 + words[word + LATEST_MS]!);
    // The latest value of a row may come from an earlier incarnation.
    const latestIncarnation = scales >>> INCARNATION_SHIFT;
    putPosition(columns.latestPosition, at, latestIncarnation, doubles[place + LATEST_POSITION]!);
    putPosition(columns.position, at, incarnation, doubles[place + POSITION]!);
  }
  columns.shard.fill(shard, 0, count);
  return encodeNative(count, [
    named('tenant', tenants.names, tenant.subarray(0, count)),
    named('meter', meters.names, meter.subarray(0, count)),
    { name: 'subject', type: 'String', parts: [subjects.written] },
    fixedColumn('hour', "DateTime('UTC')", hour.subarray(0, count)),
    { name: 'dimensions', type: 'Array(String)', parts: [bytesOf(itemsEnd, count * 2), items.written] },
    fixedColumn('shard', 'UInt16', columns.shard.subarray(0, count)),
    fixedColumn('value_count', 'UInt64', columns.count.subarray(0, count * 2)),
    fixedColumn('value_sum', DECIMAL, columns.sum.subarray(0, count * 4)),
    fixedColumn('value_min', DECIMAL, columns.min.subarray(0, count * 4)),
    fixedColumn('value_max', DECIMAL, columns.max.subarray(0, count * 4)),
    fixedColumn('value_latest', DECIMAL, columns.latest.subarray(0, count * 4)),
    fixedColumn('latest_time', "DateTime64(3, 'UTC')", columns.latestTime.subarray(0, count * 2)),
    fixedColumn('latest_position', 'UInt64', columns.latestPosition.subarray(0, count * 2)),
    fixedColumn('position', 'UInt64', columns.position.subarray(0, count * 2)),
  ]);
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

/** A safe integer of 10^-scale. Most are small enough that what it is in 10^-9 is a safe integer too. */
function putNumber(target: Uint32Array, row: number, value: number, scale: number, power: number): void {
  const nanos = value * power;
  if (nanos > Number.MAX_SAFE_INTEGER || nanos < -Number.MAX_SAFE_INTEGER) {
    putDecimal(target, row, value, scale);
    return;
  }
  const high = Math.floor(nanos / 2 ** 32);
  const at = row * 4;
  target[at] = nanos - high * 2 ** 32;
  target[at + 1] = high;
  const sign = value < 0 ? 0xffff_ffff : 0;
  target[at + 2] = sign;
  target[at + 3] = sign;
}

function putWide(target: Uint32Array, row: number, value: bigint): void {
  const halves = BigInt.asUintN(128, value);
  for (let word = 0; word < 4; word++)
    target[row * 4 + word] = Number((halves >> BigInt(word * 32)) & 0xffff_ffffn);
}

const bytesOf = ({ buffer, byteOffset }: Uint32Array, words: number): Uint8Array =>
  new Uint8Array(buffer, byteOffset, words * 4);
