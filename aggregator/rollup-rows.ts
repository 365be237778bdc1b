/**
 * Rollup rows in memory: the absolute totals of one generation of rows (rollup-cache.ts has two).
 *
 * A row stands for a bucket (bucket.ts) and a meter. It is known by its place (row-pages.ts), at which everything of it
 * lies together in ten places: with a hundred thousand customers a row is nowhere in the processor's cache, and a column
 * for each of its fields costs a wait for each. The rows of a bucket are a ring, in the order in which they were made;
 * those that are made together lie next to one another, behind their bucket. No text and no object is made for a row.
 *
 * Most meters count whole tokens or bytes, and their sums stay far below 2^53. So a row holds its totals as safe
 * integers of 10^-scale, the scale being the finest seen, for as long as everything fits; the first value that does not
 * turns the row *wide*, into bigints of 10^-9, for good. A product or a sum of safe integers that is itself a safe
 * integer is exact, so the check after the operation is enough.
 *
 * The position of a row is that of the last event in it. One at or below it is in the totals already: adding it again
 * does nothing, which is what makes any replay a no-op row by row. fold.ts sees to it, and adds what is usual; what it
 * leaves is added here.
 */
import { unpackPosition } from '../contract/position.ts';
import { QUANTITY_SCALE, quantityOf, scaleDecimal, type Quantity } from '../contract/quantity.ts';
import { HOUR_MS } from '../contract/window.ts';
import { BUCKET_LAST, BucketKeys } from './bucket-keys.ts';
import { EARLIER, positionInShard, seenFrom } from './position-in-shard.ts';
import type { StoredTotals } from './rollup-key.ts';
import { PAGE_MASK, PAGE_SHIFT, RowPages } from './row-pages.ts';

export interface Wide {
  sum: Quantity;
  min: Quantity;
  max: Quantity;
  latest: Quantity;
}

export interface RowTotals extends Wide {
  readonly events: number;
  readonly position: number;
  /** Epoch milliseconds, -1 for none. */
  readonly latestTimeMs: number;
  readonly latestPosition: number;
  readonly latestIncarnation: number;
}

// Where the fields of a row are: doubles, counted in places,
export const POSITION = 0;
export const SUM = 1;
export const EVENTS = 2;
export const MIN = 3;
export const MAX = 4;
export const LATEST = 5;
export const LATEST_POSITION = 6;
// and words, counted in halves of a place.
/** The flush that changed it last; the flush's own mark. */
export const TOUCHED = 14;
/** The time of the latest, in milliseconds of the hour. */
export const LATEST_MS = 15;
/** The scale, and from bit 8 on the incarnation of the latest. */
export const SCALE = 16;
export const METER = 17;
/** The next row of the bucket, in a ring. */
export const NEXT = 18;
export const BUCKET = 19;
const ROW_PLACES = 10;

/** A scale that means: the totals are in `wide`. */
export const WIDE_ROW = 255;
export const SCALE_MASK = 255;
export const INCARNATION_SHIFT = 8;

export const POWERS: readonly number[] = Array.from(
  { length: QUANTITY_SCALE + 1 },
  (_, exponent) => 10 ** exponent,
);
const safe = Number.isSafeInteger;

/** A row's page and where in it the row is. */
interface Seat {
  readonly doubles: Float64Array;
  readonly words: Uint32Array;
  readonly at: number;
}

export class RollupRows {
  readonly pages = new RowPages();
  readonly buckets: BucketKeys;
  readonly wide = new Map<number, Wide>();
  count = 0;

  /** @param bucketsExpected see {@link BucketKeys} */
  constructor(bucketsExpected = 0) {
    this.buckets = new BucketKeys(this.pages, bucketsExpected);
  }

  /** The row that was made first of a bucket, 0 for none. */
  firstOf(bucket: number): number {
    const last = this.pages.words[bucket >>> PAGE_SHIFT]![(bucket & PAGE_MASK) * 2 + BUCKET_LAST]!;
    return last === 0 ? 0 : this.nextOf(last);
  }

  nextOf(row: number): number {
    return this.pages.words[row >>> PAGE_SHIFT]![(row & PAGE_MASK) * 2 + NEXT]!;
  }

  meterOf(row: number): number {
    return this.pages.words[row >>> PAGE_SHIFT]![(row & PAGE_MASK) * 2 + METER]!;
  }

  bucketOf(row: number): number {
    return this.pages.words[row >>> PAGE_SHIFT]![(row & PAGE_MASK) * 2 + BUCKET]!;
  }

  /** The row, or 0. The ring is looked through from `from` on, a row of the bucket: neighbours are asked for in turn. */
  find(from: number, meter: number): number {
    if (from === 0) return 0;
    const { words } = this.pages;
    for (let row = from; ;) {
      const page = words[row >>> PAGE_SHIFT]!;
      const at = (row & PAGE_MASK) * 2;
      if (page[at + METER] === meter) return row;
      row = page[at + NEXT]!;
      if (row === from) return 0;
    }
  }

  /** A new row without events. It must not be there. */
  add(bucket: number, meter: number): number {
    const row = this.pages.take(ROW_PLACES);
    this.count += 1;
    const { doubles, words, at } = this.#seatOf(row);
    doubles[at + POSITION] = EARLIER;
    doubles[at + LATEST_POSITION] = EARLIER;
    words[at * 2 + METER] = meter;
    words[at * 2 + BUCKET] = bucket;
    const bucketPage = this.pages.words[bucket >>> PAGE_SHIFT]!;
    const bucketAt = (bucket & PAGE_MASK) * 2;
    const last = bucketPage[bucketAt + BUCKET_LAST]!;
    bucketPage[bucketAt + BUCKET_LAST] = row;
    words[at * 2 + NEXT] = row;
    if (last === 0) return row;
    words[at * 2 + NEXT] = this.nextOf(last);
    this.pages.words[last >>> PAGE_SHIFT]![(last & PAGE_MASK) * 2 + NEXT] = row;
    return row;
  }

  /** A row as it was stored, seen from the incarnation that goes on with it. */
  load(row: number, stored: StoredTotals, incarnation: number): void {
    const { doubles, words, at } = this.#seatOf(row);
    this.wide.delete(row);
    doubles[at + EVENTS] = Number(stored.value_count);
    doubles[at + POSITION] = seenFrom(incarnation, BigInt(stored.position));
    const latest = unpackPosition(BigInt(stored.latest_position));
    doubles[at + LATEST_POSITION] = positionInShard(latest.sequence, latest.index);
    // Of a row without events it is not of its hour, and says nothing.
    words[at * 2 + LATEST_MS] = msOfHour(Number(stored.latest_time_ms));
    const texts = [stored.value_sum, stored.value_min, stored.value_max, stored.value_latest];
    const scale = Math.max(...texts.map(decimals));
    const whole = texts.map((text) => Number(exactly(text, scale)));
    if (whole.every(safe)) {
      words[at * 2 + SCALE] = scale | (latest.incarnation << INCARNATION_SHIFT);
      doubles[at + SUM] = whole[0]!;
      doubles[at + MIN] = whole[1]!;
      doubles[at + MAX] = whole[2]!;
      doubles[at + LATEST] = whole[3]!;
      return;
    }
    words[at * 2 + SCALE] = WIDE_ROW | (latest.incarnation << INCARNATION_SHIFT);
    const [sum, min, max, last] = texts.map((text) => exactly(text, QUANTITY_SCALE));
    this.wide.set(row, { sum: sum!, min: min!, max: max!, latest: last! });
  }

  /** A row of another generation, for a bucket of this one that does not have it. */
  take(from: RollupRows, other: number, bucket: number): void {
    const row = this.add(bucket, from.meterOf(other));
    const { doubles, words, at } = this.#seatOf(row);
    const source = from.#seatOf(other);
    for (let double = POSITION; double <= LATEST_POSITION; double++)
      doubles[at + double] = source.doubles[source.at + double]!;
    for (let word = TOUCHED; word <= SCALE; word++)
      words[at * 2 + word] = source.words[source.at * 2 + word]!;
    const wide = from.wide.get(other);
    if (wide !== undefined) this.wide.set(row, wide);
  }

  /** Adds mantissa · 10^-scale, of an event behind the row's position. */
  addNumber(
    row: number,
    mantissa: number,
    scale: number,
    timeMs: number,
    position: number,
    incarnation: number,
  ): void {
    const { doubles, words, at } = this.#seatOf(row);
    const ours = words[at * 2 + SCALE]! & SCALE_MASK;
    const isFit = ours !== WIDE_ROW && (scale <= ours || this.#refine(row, scale));
    const value = isFit ? mantissa * POWERS[Math.max(0, ours - scale)]! : Number.NaN;
    const sum = doubles[at + SUM]! + value;
    if (!safe(value) || !safe(sum)) {
      this.#addWide(row, quantityOf(mantissa, scale), timeMs, position, incarnation);
      return;
    }
    doubles[at + SUM] = sum;
    const isFirst = doubles[at + EVENTS] === 0;
    if (isFirst || value < doubles[at + MIN]!) doubles[at + MIN] = value;
    if (isFirst || value > doubles[at + MAX]!) doubles[at + MAX] = value;
    if (this.#advance(row, timeMs, position, incarnation)) doubles[at + LATEST] = value;
  }

  /** The same for a value that came as text. */
  addQuantity(row: number, value: Quantity, timeMs: number, position: number, incarnation: number): void {
    for (let scale = 0, unit = 10n ** BigInt(QUANTITY_SCALE); scale <= QUANTITY_SCALE; scale++, unit /= 10n) {
      if (value % unit !== 0n) continue;
      const mantissa = Number(value / unit);
      if (!safe(mantissa)) break;
      this.addNumber(row, mantissa, scale, timeMs, position, incarnation);
      return;
    }
    this.#addWide(row, value, timeMs, position, incarnation);
  }

  /** What a row says, its values as exact quantities. */
  totalsOf(row: number): RowTotals {
    const { doubles, words, at } = this.#seatOf(row);
    const events = doubles[at + EVENTS]!;
    const hourMs = this.buckets.hourOf(this.bucketOf(row)) * 1_000;
    return {
      ...this.#wideOf(row),
      events,
      position: doubles[at + POSITION]!,
      latestTimeMs: events === 0 ? -1 : hourMs + words[at * 2 + LATEST_MS]!,
      latestPosition: doubles[at + LATEST_POSITION]!,
      latestIncarnation: words[at * 2 + SCALE]! >>> INCARNATION_SHIFT,
    };
  }

  #wideOf(row: number): Wide {
    const wide = this.wide.get(row);
    if (wide !== undefined) return { ...wide };
    const { doubles, words, at } = this.#seatOf(row);
    const scale = words[at * 2 + SCALE]! & SCALE_MASK;
    return {
      sum: quantityOf(doubles[at + SUM]!, scale),
      min: quantityOf(doubles[at + MIN]!, scale),
      max: quantityOf(doubles[at + MAX]!, scale),
      latest: quantityOf(doubles[at + LATEST]!, scale),
    };
  }

  #addWide(row: number, value: Quantity, timeMs: number, position: number, incarnation: number): void {
    const { doubles, words, at } = this.#seatOf(row);
    const wide = this.#wideOf(row);
    const isFirst = doubles[at + EVENTS] === 0;
    wide.sum += value;
    if (isFirst || value < wide.min) wide.min = value;
    if (isFirst || value > wide.max) wide.max = value;
    words[at * 2 + SCALE]! |= WIDE_ROW;
    if (this.#advance(row, timeMs, position, incarnation)) wide.latest = value;
    this.wide.set(row, wide);
  }

  /** Counts one in; returns whether it is the latest. Of two at one time, the later in the log is. */
  #advance(row: number, timeMs: number, position: number, incarnation: number): boolean {
    const { doubles, words, at } = this.#seatOf(row);
    const ms = msOfHour(timeMs);
    const isLatest = doubles[at + EVENTS] === 0 || ms >= words[at * 2 + LATEST_MS]!;
    doubles[at + EVENTS]! += 1;
    doubles[at + POSITION] = position;
    if (!isLatest) return false;
    words[at * 2 + LATEST_MS] = ms;
    words[at * 2 + SCALE] = (words[at * 2 + SCALE]! & SCALE_MASK) | (incarnation << INCARNATION_SHIFT);
    doubles[at + LATEST_POSITION] = position;
    return true;
  }

  /** Goes to a finer scale if all totals fit it. */
  #refine(row: number, scale: number): boolean {
    const { doubles, words, at } = this.#seatOf(row);
    const ours = words[at * 2 + SCALE]! & SCALE_MASK;
    const power = POWERS[scale - ours]!;
    const finer = [SUM, MIN, MAX, LATEST].map((field) => doubles[at + field]! * power);
    if (!finer.every(safe)) return false;
    [SUM, MIN, MAX, LATEST].forEach((field, nth) => (doubles[at + field] = finer[nth]!));
    words[at * 2 + SCALE]! += scale - ours;
    return true;
  }

  #seatOf(row: number): Seat {
    const page = row >>> PAGE_SHIFT;
    return { doubles: this.pages.doubles[page]!, words: this.pages.words[page]!, at: row & PAGE_MASK };
  }
}

/** The hour of an event is that of its rows. */
export function msOfHour(timeMs: number): number {
  return timeMs - Math.floor(timeMs / HOUR_MS) * HOUR_MS;
}

function decimals(text: string): number {
  const dot = text.indexOf('.');
  return dot < 0 ? 0 : text.slice(dot + 1).replace(/0+$/, '').length;
}

function exactly(text: string, scale: number): bigint {
  const value = scaleDecimal(text, scale);
  if (typeof value === 'string') throw new Error(`stored quantity ${JSON.stringify(text)}: ${value}`);
  return value;
}
