// Names of the subjects of the workload by rank; rank 0 has the most events.
import { subjectName } from '../canonical/workload.ts';

/** As in bench/canonical/workload.ts: a prime, so that every subject has a name of its own. */
export const NAME_STEP = 7_919;

export const nameOfRank = (rank: number, subjects: number): string =>
  subjectName((rank * NAME_STEP) % subjects);

/** So many ranks from the first to the last, as far apart in their logarithms: every size of subject is among them. */
export function ranksOf(subjects: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) =>
    Math.min(subjects - 1, Math.round(subjects ** (at / Math.max(1, count - 1))) - 1),
  );
}
