/**
 * Rollup rows in columns: the absolute totals of one generation of rows (rollup-cache.ts has two).
 *
 * A row stands for a bucket (bucket.ts) and a meter. The bucket's bytes are looked up once for all meters that group in
 * the same way; bucket and meter are then two small numbers. No text and no object is made for a row.
 *
 * Most meters count whole tokens or bytes, and their sums stay far below 2^53. So a row holds its totals as safe
 * integers of 10^-scale, the scale being the finest seen, for as long as everything fits; the first value that does not
 * turns the row *wide*, into bigints of 10^-9, for good. A product or a sum of safe integers that is itself a safe
 * integer is exact, so the check after the operation is enough.
 *
 * `position` is that of the last event in it. One at or below it is in the totals already: adding it again does
 * nothing, which is what makes any replay a no-op row by row.
 */
import { grown } from '../contract/grown.ts';
import { unpackPosition } from '../contract/position.ts';
import { QUANTITY_SCALE, quantityOf, scaleDecimal, type Quantity } from '../contract/quantity.ts';
import { BucketKeys } from './bucket-keys.ts';
import { EARLIER, positionInShard, seenFrom } from './position-in-shard.ts';
import type { StoredTotals } from './rollup-key.ts';

export interface Wide {
  sum: Quantity;
  min: Quantity;
  max: Quantity;
  latest: Quantity;
}

const POWERS = Array.from({ length: QUANTITY_SCALE + 1 }, (_, exponent) => 10 ** exponent);
const safe = Number.isSafeInteger;
const ROWS_FIRST = 64;
/** A scale that means: the totals are in `wide`. */
export const WIDE_ROW = 255;

export class RollupRows {
  readonly buckets = new BucketKeys();
  count = 0;

  // Columns by row.
  bucket = new Uint32Array(ROWS_FIRST);
  meter = new Uint32Array(ROWS_FIRST);
  events = new Float64Array(ROWS_FIRST);
  position = new Float64Array(ROWS_FIRST);
  scale = new Uint8Array(ROWS_FIRST);
  sum = new Float64Array(ROWS_FIRST);
  min = new Float64Array(ROWS_FIRST);
  max = new Float64Array(ROWS_FIRST);
  latest = new Float64Array(ROWS_FIRST);
  latestTimeMs = new Float64Array(ROWS_FIRST);
  latestPosition = new Float64Array(ROWS_FIRST);
  latestIncarnation = new Uint8Array(ROWS_FIRST);
  /** The flush that changed it last; the flush's own mark. */
  touchedIn = new Uint32Array(ROWS_FIRST);
  readonly wide = new Map<number, Wide>();

  /** 1 + the number of a row, by bucket and meter. */
  #slots = new Uint32Array(ROWS_FIRST * 2);

  /** The row, or -1. */
  find(bucket: number, meter: number): number {
    const mask = this.#slots.length - 1;
    for (let slot = slotOf(bucket, meter) & mask; ; slot = (slot + 1) & mask) {
      const row = this.#slots[slot]! - 1;
      if (row < 0 || (this.bucket[row] === bucket && this.meter[row] === meter)) return row;
    }
  }

  /** A new row without events. It must not be there. */
  add(bucket: number, meter: number): number {
    if (this.count === this.bucket.length) this.#grow();
    const row = this.count++;
    this.bucket[row] = bucket;
    this.meter[row] = meter;
    this.position[row] = EARLIER;
    this.latestTimeMs[row] = -1;
    this.latestPosition[row] = EARLIER;
    this.#enter(row);
    return row;
  }

  /** A row as it was stored, seen from the incarnation that goes on with it. */
  load(row: number, stored: StoredTotals, incarnation: number): void {
    this.wide.delete(row);
    this.events[row] = Number(stored.value_count);
    this.position[row] = seenFrom(incarnation, BigInt(stored.position));
    this.latestTimeMs[row] = Number(stored.latest_time_ms);
    const latest = unpackPosition(BigInt(stored.latest_position));
    this.latestIncarnation[row] = latest.incarnation;
    this.latestPosition[row] = positionInShard(latest.sequence, latest.index);
    const texts = [stored.value_sum, stored.value_min, stored.value_max, stored.value_latest];
    const scale = Math.max(...texts.map(decimals));
    const whole = texts.map((text) => Number(exactly(text, scale)));
    if (whole.every(safe)) {
      this.scale[row] = scale;
      [this.sum[row], this.min[row], this.max[row], this.latest[row]] = whole as [
        number,
        number,
        number,
        number,
      ];
      return;
    }
    const [sum, min, max, last] = texts.map((text) => exactly(text, QUANTITY_SCALE));
    this.#setWide(row, { sum: sum!, min: min!, max: max!, latest: last! });
  }

  /** Takes the row of another generation over. Bucket and meter are set. */
  copy(row: number, from: RollupRows, other: number): void {
    this.events[row] = from.events[other]!;
    this.position[row] = from.position[other]!;
    this.scale[row] = from.scale[other]!;
    this.sum[row] = from.sum[other]!;
    this.min[row] = from.min[other]!;
    this.max[row] = from.max[other]!;
    this.latest[row] = from.latest[other]!;
    this.latestTimeMs[row] = from.latestTimeMs[other]!;
    this.latestPosition[row] = from.latestPosition[other]!;
    this.latestIncarnation[row] = from.latestIncarnation[other]!;
    this.touchedIn[row] = from.touchedIn[other]!;
    const wide = from.wide.get(other);
    if (wide !== undefined) this.wide.set(row, wide);
  }

  /**
   * Adds mantissa · 10^-scale, unless its position is in the totals already. Returns whether it was added.
   * Positions must come in order.
   */
  fold(
    row: number,
    mantissa: number,
    scale: number,
    timeMs: number,
    position: number,
    incarnation: number,
  ): boolean {
    if (position <= this.position[row]!) return false;
    const ours = this.scale[row]!;
    if (ours === WIDE_ROW) {
      this.#foldWide(row, quantityOf(mantissa, scale), timeMs, position, incarnation);
      return true;
    }
    let value = mantissa;
    if (scale < ours) value *= POWERS[ours - scale]!;
    else if (scale > ours && !this.#refine(row, scale)) value = Number.NaN;
    const sum = this.sum[row]! + value;
    if (!safe(value) || !safe(sum)) {
      this.#setWide(row, this.asWide(row));
      this.#foldWide(row, quantityOf(mantissa, scale), timeMs, position, incarnation);
      return true;
    }
    this.sum[row] = sum;
    if (this.events[row] === 0) {
      this.min[row] = value;
      this.max[row] = value;
    } else {
      if (value < this.min[row]!) this.min[row] = value;
      if (value > this.max[row]!) this.max[row] = value;
    }
    if (this.#advance(row, timeMs, position, incarnation)) this.latest[row] = value;
    return true;
  }

  /** The same for a value that came as text. */
  foldQuantity(row: number, value: Quantity, timeMs: number, position: number, incarnation: number): boolean {
    if (position <= this.position[row]!) return false;
    for (let scale = 0, unit = 10n ** BigInt(QUANTITY_SCALE); scale <= QUANTITY_SCALE; scale++, unit /= 10n) {
      if (value % unit !== 0n) continue;
      const mantissa = Number(value / unit);
      if (safe(mantissa)) return this.fold(row, mantissa, scale, timeMs, position, incarnation);
      break;
    }
    if (this.scale[row] !== WIDE_ROW) this.#setWide(row, this.asWide(row));
    this.#foldWide(row, value, timeMs, position, incarnation);
    return true;
  }

  /** The values as exact quantities. */
  asWide(row: number): Wide {
    const wide = this.wide.get(row);
    if (wide !== undefined) return { ...wide };
    const scale = this.scale[row]!;
    return {
      sum: quantityOf(this.sum[row]!, scale),
      min: quantityOf(this.min[row]!, scale),
      max: quantityOf(this.max[row]!, scale),
      latest: quantityOf(this.latest[row]!, scale),
    };
  }

  #setWide(row: number, wide: Wide): void {
    this.scale[row] = WIDE_ROW;
    this.wide.set(row, wide);
  }

  #foldWide(row: number, value: Quantity, timeMs: number, position: number, incarnation: number): void {
    const wide = this.wide.get(row)!;
    wide.sum += value;
    if (this.events[row] === 0 || value < wide.min) wide.min = value;
    if (this.events[row] === 0 || value > wide.max) wide.max = value;
    if (this.#advance(row, timeMs, position, incarnation)) wide.latest = value;
  }

  /** Counts one in; returns whether it is the latest. Of two at one time, the later in the log is. */
  #advance(row: number, timeMs: number, position: number, incarnation: number): boolean {
    this.events[row]! += 1;
    this.position[row] = position;
    if (timeMs < this.latestTimeMs[row]!) return false;
    this.latestTimeMs[row] = timeMs;
    this.latestPosition[row] = position;
    this.latestIncarnation[row] = incarnation;
    return true;
  }

  /** Goes to a finer scale if all totals fit it. */
  #refine(row: number, scale: number): boolean {
    const power = POWERS[scale - this.scale[row]!]!;
    const sum = this.sum[row]! * power;
    const min = this.min[row]! * power;
    const max = this.max[row]! * power;
    const latest = this.latest[row]! * power;
    if (!safe(sum) || !safe(min) || !safe(max) || !safe(latest)) return false;
    this.scale[row] = scale;
    this.sum[row] = sum;
    this.min[row] = min;
    this.max[row] = max;
    this.latest[row] = latest;
    return true;
  }

  #enter(row: number): void {
    const mask = this.#slots.length - 1;
    let slot = slotOf(this.bucket[row]!, this.meter[row]!) & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = row + 1;
  }

  #grow(): void {
    const capacity = this.bucket.length * 2;
    this.bucket = grown(this.bucket, new Uint32Array(capacity));
    this.meter = grown(this.meter, new Uint32Array(capacity));
    this.events = grown(this.events, new Float64Array(capacity));
    this.position = grown(this.position, new Float64Array(capacity));
    this.scale = grown(this.scale, new Uint8Array(capacity));
    this.sum = grown(this.sum, new Float64Array(capacity));
    this.min = grown(this.min, new Float64Array(capacity));
    this.max = grown(this.max, new Float64Array(capacity));
    this.latest = grown(this.latest, new Float64Array(capacity));
    this.latestTimeMs = grown(this.latestTimeMs, new Float64Array(capacity));
    this.latestPosition = grown(this.latestPosition, new Float64Array(capacity));
    this.latestIncarnation = grown(this.latestIncarnation, new Uint8Array(capacity));
    this.touchedIn = grown(this.touchedIn, new Uint32Array(capacity));
    this.#slots = new Uint32Array(capacity * 2);
    for (let row = 0; row < this.count; row++) this.#enter(row);
  }
}

/** Buckets are numbered in order, so a multiplication spreads them, and nobody outside chooses the numbers. */
function slotOf(bucket: number, meter: number): number {
  const mixed = Math.imul(bucket ^ Math.imul(meter, 0x85ebca6b), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
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
