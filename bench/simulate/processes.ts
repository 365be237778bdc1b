/**
 * Spreads seeds over processes, one for each processor. Processes and not threads, because how V8 collects garbage can
 * be chosen for them, and half of the time went into that. They are replaced after so many seeds: whatever one of them
 * would leave behind is gone, so that a run may take days.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { TableGuards } from './simulated-tables.ts';
import type { WorkerReport, WorkerTask } from './worker.ts';

export interface SpreadOptions {
  /** The compiled worker.ts. */
  readonly workerFile: string;
  readonly from: number;
  readonly count: number;
  readonly processes: number;
  readonly guards: Partial<TableGuards>;
  /** Ends when a seed is wrong, and not only after all. */
  readonly stopAtFirst: boolean;
  onProgress?(progress: Progress): void;
  onWrong?(seed: number, violation: string): void;
}

export interface Progress {
  readonly done: number;
  readonly wrong: number;
  /** Every seed below it is done. */
  readonly doneTo: number;
}

export interface Spread {
  readonly done: number;
  readonly steps: number;
  /** Seconds of processor time that the seeds took. */
  readonly cpuSeconds: number;
  /** The most memory that a process had, bytes. */
  readonly memoryBytes: number;
  /** Seeds that ended in wrong totals, in order. */
  readonly wrong: readonly { readonly seed: number; readonly violation: string }[];
}

/** Of a process: its first 500 cost twice as much as others, and at the end all end at about the same time. */
const PIECE_MAX = 20_000;

/**
 * A young generation that a history fits in several times but no cache is lost over, collected by the one thread that
 * there is: the processors are all taken. Without it a seed takes a third more. Nobody reads where an error came from;
 * a wrong seed is run again by itself, and tells.
 */
const V8 = [
  '--min-semi-space-size=16',
  '--max-semi-space-size=16',
  '--single-threaded-gc',
  '--stack-trace-limit=0',
];

interface Piece {
  readonly from: number;
  done: number;
}

export async function spread(o: SpreadOptions): Promise<Spread> {
  const { from, count, processes, guards, stopAtFirst } = o;
  const piece = Math.max(1, Math.min(PIECE_MAX, Math.ceil(count / processes)));
  const end = from + count;
  const wrong: { seed: number; violation: string }[] = [];
  let [next, done, steps, cpuSeconds, memoryBytes] = [from, 0, 0, 0, 0];
  const running = new Set<Piece>();
  const children = new Set<ChildProcess>();
  const line = async (): Promise<void> => {
    while (next < end && !(stopAtFirst && wrong.length > 0)) {
      const task: WorkerTask = { from: next, count: Math.min(piece, end - next), guards, stopAtFirst };
      const own: Piece = { from: next, done: 0 };
      running.add(own);
      next += task.count;
      const worker = fork(o.workerFile, [JSON.stringify(task)], { execArgv: V8 });
      children.add(worker);
      worker.on('message', (message) => {
        const report = message as WorkerReport;
        done += report.done;
        own.done += report.done;
        steps += report.steps;
        cpuSeconds += report.cpuSeconds;
        memoryBytes = Math.max(memoryBytes, report.memoryBytes);
        if (report.wrong !== null) {
          wrong.push(report.wrong);
          o.onWrong?.(report.wrong.seed, report.wrong.violation);
        }
        if (stopAtFirst && wrong.length > 0) for (const one of children) one.kill();
        const begun = Array.from(running, (one) => one.from + one.done);
        o.onProgress?.({ done, wrong: wrong.length, doneTo: Math.min(next, ...begun) });
      });
      const [code, signal] = (await once(worker, 'exit')) as [number | null, string | null];
      children.delete(worker);
      running.delete(own);
      if (code !== 0 && !(stopAtFirst && wrong.length > 0))
        throw new Error(`a process of the simulation ended with ${code ?? signal}`);
    }
  };
  await Promise.all(Array.from({ length: processes }, line));
  wrong.sort((a, b) => a.seed - b.seed);
  return { done, steps, cpuSeconds, memoryBytes, wrong };
}
