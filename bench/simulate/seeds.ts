/**
 * Runs many seeds, one after the other. Several side by side would need fewer pauses in which promises run, and take
 * half as long again: what one history touches fits into a processor's cache.
 */
import { ALL_GUARDS, historyOf, type Outcome } from './history.ts';
import type { TableGuards } from './simulated-tables.ts';

export interface SeedRun {
  readonly from: number;
  readonly count: number;
  readonly guards?: Partial<TableGuards>;
  /** Called after each; false ends the run. */
  onOutcome(outcome: Outcome): boolean;
}

export async function runSeeds({ from, count, guards = {}, onOutcome }: SeedRun): Promise<void> {
  for (let seed = from; seed < from + count; seed++) {
    if (!onOutcome(await run(historyOf(seed, { ...ALL_GUARDS, ...guards }, false)))) return;
  }
}

/** One seed, with everything that happened in it. */
export function tellSeed(seed: number, guards: Partial<TableGuards> = {}): Promise<Outcome> {
  return run(historyOf(seed, { ...ALL_GUARDS, ...guards }, true));
}

/** Between two steps Node empties its queue of resolved promises. */
function run(history: Generator<void, Outcome, void>): Promise<Outcome> {
  return new Promise((resolve) => {
    const step = (): void => {
      const { done, value } = history.next();
      if (done === true) resolve(value);
      else setImmediate(step);
    };
    step();
  });
}
