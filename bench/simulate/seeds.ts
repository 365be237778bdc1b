/** Runs many seeds in one thread, some at a time: one waits for the loop while the others use it. */
import { ALL_GUARDS, runHistory, type Outcome } from './history.ts';
import type { TableGuards } from './simulated-tables.ts';

const AT_A_TIME = 16;

export interface SeedRun {
  readonly from: number;
  readonly count: number;
  readonly guards?: Partial<TableGuards>;
  /** Called after each; false ends the run. */
  onOutcome(outcome: Outcome): boolean;
}

/** Outcomes come in no particular order, each of them is the same whenever it runs. */
export async function runSeeds({ from, count, guards = {}, onOutcome }: SeedRun): Promise<void> {
  let next = from;
  let going = true;
  const line = async (): Promise<void> => {
    while (going && next < from + count) {
      const outcome = await runHistory(next++, { ...ALL_GUARDS, ...guards });
      if (!onOutcome(outcome)) going = false;
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_A_TIME, count) }, line));
}
