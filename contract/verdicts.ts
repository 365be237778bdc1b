/**
 * What became of one event of the log. Verdicts are decided from the log alone, without a wall clock,
 * so that any replay by any owner decides the same.
 *
 * - `counted`: the first of its identity; it is in the raw rows and in the rollups of its meters.
 * - `duplicate`: the same identity with the same payload stands earlier in the log.
 * - `conflict`: the same identity with another payload stands earlier in the log; kept for inspection.
 * - `late`: its period was cut before it came; it counts in the next generation.
 * - `rejected`: it can never count as it is; the code says why, the payload is kept.
 */
export const VERDICTS = ['counted', 'duplicate', 'conflict', 'late', 'rejected'] as const;
export type Verdict = (typeof VERDICTS)[number];

/** CONSERVATION: received = the sum over all verdicts. Zero when nothing was lost. */
export function unaccounted(received: bigint, byVerdict: Readonly<Record<Verdict, bigint>>): bigint {
  return VERDICTS.reduce((rest, verdict) => rest - byVerdict[verdict], received);
}
