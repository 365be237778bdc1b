/** The worker threads. Memory is moved to them and back. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import type { DecidedBlock, RawRows } from './raw-rows.ts';
import type { PrepareAnswer, PrepareTask } from './worker.ts';

export interface Workers {
  readonly threads: number;
  /** With which they hash buckets; drawn when they are started. */
  readonly bucketKey: string;
  /** Takes the message's memory; it comes back in the answer. */
  prepare(task: PrepareTask): Promise<PrepareAnswer>;
  /** Takes the blocks' memory for good. */
  encode(blocks: readonly DecidedBlock[]): Promise<RawRows>;
  close(): Promise<void>;
}

export function startWorkers(threads: number): Workers {
  const pool = new Piscina({
    filename: workerFile(),
    minThreads: threads,
    maxThreads: threads,
  });
  return {
    threads,
    bucketKey: randomBytes(16).toString('hex'),
    prepare: (task) =>
      pool.run(task, { name: 'prepare', transferList: [task.message.buffer] }) as Promise<PrepareAnswer>,
    encode: (blocks) =>
      pool.run(blocks, {
        name: 'encode',
        transferList: blocks.map(({ block }) => block.identity.buffer as ArrayBuffer),
      }) as Promise<RawRows>,
    close: () => pool.destroy(),
  };
}

/** A thread needs compiled JavaScript: beside this file in dist, or in dist when this runs from the sources. */
function workerFile(): string {
  const beside = fileURLToPath(new URL('./worker.js', import.meta.url));
  return existsSync(beside)
    ? beside
    : fileURLToPath(new URL('../dist/aggregator/worker.js', import.meta.url));
}
