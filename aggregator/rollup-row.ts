/**
 * The absolute totals of one rollup row while they are being folded.
 *
 * Most meters count whole tokens or bytes, and their sums stay far below 2^53. So a row holds its totals as
 * safe integers of 10^-scale, the scale being the finest seen, for as long as everything fits; the first
 * value that does not turns the row *wide*, into bigints of 10^-9, for good. A product or a sum of safe
 * integers that is itself a safe integer is exact, so the check after the operation is enough.
 *
 * `position` is that of the last event in it. One at or below it is in the totals already: adding it again
 * does nothing, which is what makes any replay a no-op row by row.
 */
import { unpackPosition } from '../contract/position.ts';
import { QUANTITY_SCALE, quantityOf, scaleDecimal, type Quantity } from '../contract/quantity.ts';
import type { Totals } from '../contract/rollup.ts';
import { EARLIER, packed, positionInShard, seenFrom } from './position-in-shard.ts';
import { parseKey, type RollupKey } from './rollup-key.ts';

interface Wide {
  sum: Quantity;
  min: Quantity;
  max: Quantity;
  latest: Quantity;
}

/** A row as ClickHouse returns it: wide integers and decimals as text. */
export interface StoredRow {
  readonly value_count: string;
  readonly value_sum: string;
  readonly value_min: string;
  readonly value_max: string;
  readonly value_latest: string;
  readonly latest_time_ms: string;
  readonly latest_position: string;
  readonly position: string;
}

const POWERS = Array.from({ length: QUANTITY_SCALE + 1 }, (_, exponent) => 10 ** exponent);
const safe = Number.isSafeInteger;

export class RollupRow {
  readonly key: string;
  /** The flush that changed it last; the flush's own mark. */
  touchedIn = 0;
  count = 0;
  position = EARLIER;
  latestTimeMs = -1;

  #scale = 0;
  #sum = 0;
  #min = 0;
  #max = 0;
  #latest = 0;
  #wide: Wide | null = null;
  #latestPosition = EARLIER;
  #latestIncarnation = 0;
  #parts: RollupKey | undefined;

  constructor(key: string) {
    this.key = key;
  }

  /** The key taken apart, once. */
  get parts(): RollupKey {
    return (this.#parts ??= parseKey(this.key));
  }

  /** A row as it was stored, seen from the incarnation that goes on with it. */
  static load(key: string, stored: StoredRow, incarnation: number): RollupRow {
    const row = new RollupRow(key);
    row.count = Number(stored.value_count);
    row.position = seenFrom(incarnation, BigInt(stored.position));
    row.latestTimeMs = Number(stored.latest_time_ms);
    const latest = unpackPosition(BigInt(stored.latest_position));
    row.#latestIncarnation = latest.incarnation;
    row.#latestPosition = positionInShard(latest.sequence, latest.index);
    row.#loadValues([stored.value_sum, stored.value_min, stored.value_max, stored.value_latest]);
    return row;
  }

  #loadValues(texts: readonly [string, string, string, string]): void {
    const scale = Math.max(...texts.map(decimals));
    const whole = texts.map((text) => Number(exactly(text, scale)));
    if (whole.every(safe)) {
      this.#scale = scale;
      [this.#sum, this.#min, this.#max, this.#latest] = whole as [number, number, number, number];
      return;
    }
    const [sum, min, max, latest] = texts.map((text) => exactly(text, QUANTITY_SCALE));
    this.#wide = { sum: sum!, min: min!, max: max!, latest: latest! };
  }

  /**
   * Adds mantissa · 10^-scale, unless its position is in the totals already. Returns whether it was added.
   * Positions must come in order.
   */
  add(mantissa: number, scale: number, timeMs: number, position: number, incarnation: number): boolean {
    if (position <= this.position) return false;
    if (this.#wide !== null) return this.#addWide(quantityOf(mantissa, scale), timeMs, position, incarnation);
    let value = mantissa;
    if (scale < this.#scale) value *= POWERS[this.#scale - scale]!;
    else if (scale > this.#scale && !this.#refine(scale)) value = Number.NaN;
    const sum = this.#sum + value;
    if (!safe(value) || !safe(sum)) {
      this.#widen();
      return this.#addWide(quantityOf(mantissa, scale), timeMs, position, incarnation);
    }
    this.#sum = sum;
    if (this.count === 0 || value < this.#min) this.#min = value;
    if (this.count === 0 || value > this.#max) this.#max = value;
    if (this.#advance(timeMs, position, incarnation)) this.#latest = value;
    return true;
  }

  /** The same for a value that came as text. */
  addQuantity(value: Quantity, timeMs: number, position: number, incarnation: number): boolean {
    if (position <= this.position) return false;
    for (let scale = 0, unit = 10n ** BigInt(QUANTITY_SCALE); scale <= QUANTITY_SCALE; scale++, unit /= 10n) {
      if (value % unit !== 0n) continue;
      const mantissa = Number(value / unit);
      if (safe(mantissa)) return this.add(mantissa, scale, timeMs, position, incarnation);
      break;
    }
    if (this.#wide === null) this.#widen();
    return this.#addWide(value, timeMs, position, incarnation);
  }

  totals(): Totals {
    const wide = this.#wide ?? this.#asWide();
    return {
      count: BigInt(this.count),
      ...wide,
      latestTimeMs: this.latestTimeMs,
      latestPosition: packed(this.#latestIncarnation, this.#latestPosition),
    };
  }

  #addWide(value: Quantity, timeMs: number, position: number, incarnation: number): true {
    const wide = this.#wide!;
    wide.sum += value;
    if (this.count === 0 || value < wide.min) wide.min = value;
    if (this.count === 0 || value > wide.max) wide.max = value;
    if (this.#advance(timeMs, position, incarnation)) wide.latest = value;
    return true;
  }

  /** Counts one in; returns whether it is the latest. Of two at one time, the later in the log is. */
  #advance(timeMs: number, position: number, incarnation: number): boolean {
    this.count += 1;
    this.position = position;
    if (timeMs < this.latestTimeMs) return false;
    this.latestTimeMs = timeMs;
    this.#latestPosition = position;
    this.#latestIncarnation = incarnation;
    return true;
  }

  /** Goes to a finer scale if all totals fit it. */
  #refine(scale: number): boolean {
    const power = POWERS[scale - this.#scale]!;
    const [sum, min, max, latest] = [
      this.#sum * power,
      this.#min * power,
      this.#max * power,
      this.#latest * power,
    ];
    if (!safe(sum) || !safe(min) || !safe(max) || !safe(latest)) return false;
    [this.#scale, this.#sum, this.#min, this.#max, this.#latest] = [scale, sum, min, max, latest];
    return true;
  }

  #widen(): void {
    this.#wide = this.#asWide();
  }

  #asWide(): Wide {
    const scale = this.#scale;
    return {
      sum: quantityOf(this.#sum, scale),
      min: quantityOf(this.#min, scale),
      max: quantityOf(this.#max, scale),
      latest: quantityOf(this.#latest, scale),
    };
  }
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
