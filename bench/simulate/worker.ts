/** A process of the simulation: takes its part of the seeds and says how far it is. */
import { runSeeds } from './seeds.ts';
import type { TableGuards } from './simulated-tables.ts';

export interface WorkerTask {
  readonly from: number;
  readonly count: number;
  readonly guards: Partial<TableGuards>;
  readonly stopAtFirst: boolean;
}

/** Since the report before. */
export interface WorkerReport {
  readonly done: number;
  readonly steps: number;
  readonly cpuSeconds: number;
  /** What the process has now. */
  readonly memoryBytes: number;
  readonly wrong: { readonly seed: number; readonly violation: string } | null;
}

const REPORT_EVERY = 50;

const { from, count, guards, stopAtFirst } = JSON.parse(process.argv[2]!) as WorkerTask;
let [done, steps, cpu] = [0, 0, 0];
const report = (wrong: WorkerReport['wrong']): void => {
  const { user, system } = process.cpuUsage();
  const cpuSeconds = (user + system) / 1_000_000 - cpu;
  cpu += cpuSeconds;
  const memoryBytes = process.memoryUsage.rss();
  process.send!({ done, steps, cpuSeconds, memoryBytes, wrong } satisfies WorkerReport);
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
process.disconnect();
