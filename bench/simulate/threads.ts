/** Spreads seeds over threads. They are taken in pieces, so that all threads end at about the same time. */
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { TableGuards } from './simulated-tables.ts';
import type { WorkerReport, WorkerTask } from './worker.ts';

export interface SpreadOptions {
  /** The compiled worker.ts. */
  readonly workerFile: string;
  readonly from: number;
  readonly count: number;
  readonly threads: number;
  readonly guards: Partial<TableGuards>;
  /** Ends when a seed is wrong, and not only after all. */
  readonly stopAtFirst: boolean;
  onProgress?(done: number): void;
}

export interface Spread {
  readonly done: number;
  readonly steps: number;
  /** Seeds that ended in wrong totals, in order. */
  readonly wrong: readonly { readonly seed: number; readonly violation: string }[];
}

/** Of a piece: small enough for an even end, large enough that a thread's start does not count. */
const PIECE_MAX = 20_000;

export async function spread(o: SpreadOptions): Promise<Spread> {
  const { from, count, threads, guards, stopAtFirst } = o;
  const piece = Math.max(1, Math.min(PIECE_MAX, Math.ceil(count / threads)));
  const end = from + count;
  const wrong: { seed: number; violation: string }[] = [];
  let [next, done, steps] = [from, 0, 0];
  const line = async (): Promise<void> => {
    while (next < end && !(stopAtFirst && wrong.length > 0)) {
      const task: WorkerTask = { from: next, count: Math.min(piece, end - next), guards, stopAtFirst };
      next += task.count;
      await runWorker(o.workerFile, task, (report) => {
        done += report.done;
        steps += report.steps;
        if (report.wrong !== null) wrong.push(report.wrong);
        o.onProgress?.(done);
      });
    }
  };
  await Promise.all(Array.from({ length: threads }, line));
  return { done, steps, wrong: wrong.sort((a, b) => a.seed - b.seed) };
}

function runWorker(
  file: string,
  workerData: WorkerTask,
  onReport: (report: WorkerReport) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(pathToFileURL(file), { workerData });
    worker.on('message', onReport);
    worker.on('error', reject);
    worker.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`a thread of the simulation ended with ${code}`)),
    );
  });
}
