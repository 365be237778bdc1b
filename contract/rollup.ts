import type { Aggregation } from './meter.ts';
import { formatQuantity, QUANTITY_SCALE, unscaleDecimal, type Quantity } from './quantity.ts';

/** The absolute totals of one rollup row. All aggregations are kept, so that a meter can be read in each way. */
export interface Totals {
  readonly count: bigint;
  readonly sum: Quantity;
  readonly min: Quantity;
  readonly max: Quantity;
  /** The value of the event with the greatest (time, position). */
  readonly latest: Quantity;
  readonly latestTimeMs: number;
  readonly latestPosition: bigint;
}

export function totalsOf(value: Quantity, timeMs: number, position: bigint): Totals {
  return {
    count: 1n,
    sum: value,
    min: value,
    max: value,
    latest: value,
    latestTimeMs: timeMs,
    latestPosition: position,
  };
}

/** Commutative and associative: hours fold into days, shards into a subject, in any order. */
export function mergeTotals(a: Totals, b: Totals): Totals {
  const later =
    a.latestTimeMs !== b.latestTimeMs ? a.latestTimeMs > b.latestTimeMs : a.latestPosition > b.latestPosition;
  const newest = later ? a : b;
  return {
    count: a.count + b.count,
    sum: a.sum + b.sum,
    min: a.min < b.min ? a.min : b.min,
    max: a.max > b.max ? a.max : b.max,
    latest: newest.latest,
    latestTimeMs: newest.latestTimeMs,
    latestPosition: newest.latestPosition,
  };
}

/** The totals as a meter reads them, as decimal text. An average is cut toward zero after nine decimals. */
export function readTotals(totals: Totals, aggregation: Aggregation): string {
  switch (aggregation) {
    case 'count':
      return totals.count.toString();
    case 'sum':
      return formatQuantity(totals.sum);
    case 'min':
      return formatQuantity(totals.min);
    case 'max':
      return formatQuantity(totals.max);
    case 'latest':
      return formatQuantity(totals.latest);
    case 'average':
      return unscaleDecimal(totals.sum / totals.count, QUANTITY_SCALE);
    case 'unique_count':
      // How many values are distinct cannot be told from totals: it is asked of the raw events.
      throw new Error('a unique count cannot be read from totals');
  }
}
