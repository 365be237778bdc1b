/** A thread of the simulation: takes its part of the seeds and says how far it is. */
import { parentPort, workerData } from 'node:worker_threads';
import { runSeeds } from './seeds.ts';
import type { TableGuards } from './simulated-tables.ts';

export interface WorkerTask {
  readonly from: number;
  readonly count: number;
  readonly guards: Partial<TableGuards>;
  readonly stopAtFirst: boolean;
}

export interface WorkerReport {
  readonly done: number;
  readonly steps: number;
  readonly wrong: { readonly seed: number; readonly violation: string } | null;
}

const REPORT_EVERY = 50;

const { from, count, guards, stopAtFirst } = workerData as WorkerTask;
let done = 0;
let steps = 0;
const report = (wrong: WorkerReport['wrong']): void => {
  parentPort!.postMessage({ done, steps, wrong } satisfies WorkerReport);
  [done, steps] = [0, 0];
};
await runSeeds({
  from,
  count,
  guards,
  onOutcome({ seed, violation, steps: taken }) {
    done += 1;
    steps += taken;
    if (violation !== null) report({ seed, violation });
    else if (done === REPORT_EVERY) report(null);
    return violation === null || !stopAtFirst;
  },
});
report(null);
