/**
 * What each aggregation takes of a rollup row and of an event, and how it puts that together: columns `x`, `n`,
 * `t` and `p` of both kinds of row, and one expression over them.
 *
 * Percentiles are exact: the value of the nearest rank, the least one that at least so many of all values do not
 * exceed (ISO 3534-1 calls it a quantile, SQL percentile_disc). The rank is worked out in whole numbers, since
 * ClickHouse's own quantileExact multiplies the level as a float: 0.29 of 100 values is then the 28.999th. Sorting
 * costs about 1.5 times as much as its selection does.
 */
import type { Aggregation } from '../../../contract/meter.ts';

export interface Parts {
  readonly rollup: readonly string[];
  readonly event: readonly string[];
  readonly value: string;
}

const ONE = 'toUInt64(1) AS n';

export function partsOf(aggregation: Aggregation): Parts {
  switch (aggregation) {
    case 'count':
      return { rollup: ['value_count AS n'], event: [ONE], value: 'sum(n)' };
    case 'sum':
      return { rollup: ['value_sum AS x'], event: ['quantity AS x'], value: 'sum(x)' };
    case 'min':
      return { rollup: ['value_min AS x'], event: ['quantity AS x'], value: 'min(x)' };
    case 'max':
      return { rollup: ['value_max AS x'], event: ['quantity AS x'], value: 'max(x)' };
    case 'latest':
      return {
        rollup: ['value_latest AS x', 'latest_time AS t', 'latest_position AS p'],
        event: ['quantity AS x', 'time AS t', 'position AS p'],
        value: 'argMax(x, tuple(t, p))',
      };
    case 'average':
      return {
        rollup: ['value_sum AS x', 'value_count AS n'],
        event: ['quantity AS x', ONE],
        // Division of decimals is one of scaled integers: it keeps the scale of the dividend (9) and cuts.
        value: 'divide(sum(x), toDecimal128(sum(n), 0))',
      };
    case 'unique_count':
      return { rollup: [], event: ['value AS x'], value: 'uniqExact(x)' };
  }
}

const MILLION = 1_000_000;
export const PERCENTILES_MAX = 10;

/** Parts of a million of "0.5", "0.999" or "1"; null when it is none, 0, or has more than six decimals. */
export function percentileOf(text: string): number | null {
  const match = /^(0|1)(?:\.(\d{1,6}))?$/.exec(text);
  if (match === null) return null;
  const parts = Number(match[1]) * MILLION + Number((match[2] ?? '').padEnd(6, '0'));
  return parts > 0 && parts <= MILLION ? parts : null;
}

/** The shortest form that {@link percentileOf} reads. */
export function percentileText(parts: number): string {
  if (parts === MILLION) return '1';
  return `0.${String(parts).padStart(6, '0').replace(/0+$/, '')}`;
}

/** The value of the nearest rank in a sorted array, as SQL; `parts` is an expression too. */
export function rankOf(sorted: string, parts: string): string {
  return `${sorted}[intDiv(${parts} * length(${sorted}) + ${MILLION - 1}, ${MILLION})]`;
}
