/**
 * The aggregator's invariants as queries: each must return no row, and opens with when it fires. They read the
 * public views, and the one on rules its table. Tests, gauges and people run the same files.
 */
export const CHECKS = [
  'rollup-equals-raw',
  'groups-within-bound',
  'conservation',
  'counted-equals-raw-rows',
  'raw-identities-unique',
  'corrections-settled',
  'rules-follow',
] as const;

export type CheckName = (typeof CHECKS)[number];

export function checkFile(name: CheckName): URL {
  return new URL(`./checks/${name}.sql`, import.meta.url);
}
