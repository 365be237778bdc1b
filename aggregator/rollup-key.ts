/** The key of a rollup row within its shard, as texts: for the few rows that are asked for in ClickHouse. */
import { METER_LIMITS } from '../contract/meter.ts';

export interface RollupKey {
  readonly tenant: string;
  readonly meter: string;
  readonly subject: string;
  readonly hourSeconds: number;
  readonly dimensions: readonly string[];
}

/** The totals of a row as ClickHouse returns them: wide integers and decimals as text. */
export interface StoredTotals {
  readonly value_count: string;
  readonly value_sum: string;
  readonly value_min: string;
  readonly value_max: string;
  readonly value_latest: string;
  readonly latest_time_ms: string;
  readonly latest_position: string;
  readonly position: string;
}

export type StoredRollup = RollupKey & StoredTotals;

/** A dimension is a label: its first 256 characters are kept (in SQL: substringUTF8(value, 1, 256)). */
export function dimensionOf(text: string): string {
  const max = METER_LIMITS.dimensionLength;
  return text.length <= max ? text : Array.from(text).slice(0, max).join('');
}
