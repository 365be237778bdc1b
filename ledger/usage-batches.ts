/** What is asked of ClickHouse about subjects, and how it is cut into requests. */
import type { Window } from '../contract/window.ts';

/** Packed positions by shard. */
export type Positions = ReadonlyMap<number, bigint>;

/** The usage of some subjects together, within a window of whole hours. */
export interface TotalsWanted {
  readonly subjects: readonly string[];
  readonly window: Window;
}

/** ClickHouse takes 128 KiB in one parameter and 1 MiB in a URL, in which a character can be three. */
const BATCH_CHARACTERS_MAX = 40_000;
const BATCH_SUBJECTS_MAX = 2_000;

/** Splits what is asked about subjects into parts that fit one request. */
export function batchesOf<T>(items: readonly T[], subjectOf: (item: T) => string): T[][] {
  const batches: T[][] = [];
  let batch: T[] = [];
  let characters = 0;
  for (const item of items) {
    const length = subjectOf(item).length + 3;
    const isFull = batch.length === BATCH_SUBJECTS_MAX || characters + length > BATCH_CHARACTERS_MAX;
    if (isFull && batch.length > 0) {
      batches.push(batch);
      batch = [];
      characters = 0;
    }
    batch.push(item);
    characters += length;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}

/** Splits what is wanted into parts that fit one request, each wanted whole; `fits` is false for one that is too long for any. */
export function wholeBatchesOf(wanted: readonly TotalsWanted[]): { numbers: number[]; fits: boolean }[] {
  const batches: { numbers: number[]; fits: boolean }[] = [];
  let subjects = 0;
  let characters = 0;
  wanted.forEach((one, number) => {
    const length = one.subjects.reduce((sum, subject) => sum + subject.length + 3, 0);
    if (one.subjects.length > BATCH_SUBJECTS_MAX || length > BATCH_CHARACTERS_MAX) {
      batches.push({ numbers: [number], fits: false });
      return;
    }
    const last = batches.at(-1);
    const isFull =
      subjects + one.subjects.length > BATCH_SUBJECTS_MAX || characters + length > BATCH_CHARACTERS_MAX;
    if (last === undefined || !last.fits || isFull) {
      batches.push({ numbers: [number], fits: true });
      [subjects, characters] = [0, 0];
    } else last.numbers.push(number);
    subjects += one.subjects.length;
    characters += length;
  });
  return batches;
}
