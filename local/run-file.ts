// `.tallyline/run.json`: what runs, where, and with which keys. Written when the stack is ready, removed
// when it stops. Scripts, the demo and the tests read it.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isAlive } from './engines/process.ts';
import type { Layout } from './layout.ts';

export interface RunFile {
  readonly edge: string;
  readonly api: string;
  readonly console: string;
  readonly stripe: string;
  readonly metrics: Readonly<Record<string, string>>;
  /** May send events and read. */
  readonly key: string;
  /** May do everything within the demo tenant. */
  readonly adminKey: string;
  readonly data: string;
  readonly embedded: readonly string[];
  /** How to reach the engines, passwords included: the file is readable by its owner alone. */
  readonly engines: { readonly nats: string; readonly database: string; readonly clickhouse: string };
  /** Process ids by name; that of the supervisor is `start`. */
  readonly pids: Readonly<Record<string, number>>;
}

export function writeRunFile(layout: Layout, run: RunFile): void {
  const staged = `${layout.runFile}.new`;
  writeFileSync(staged, `${JSON.stringify(run, null, 2)}\n`, { mode: 0o600 });
  renameSync(staged, layout.runFile);
}

export function removeRunFile(layout: Layout): void {
  rmSync(layout.runFile, { force: true });
}

/** What runs on this data now; null when nothing does (a file left by a killed stack counts as nothing). */
export function readRunFile(layout: Layout): RunFile | null {
  if (!existsSync(layout.runFile)) return null;
  const run = JSON.parse(readFileSync(layout.runFile, 'utf8')) as RunFile;
  const start = run.pids['start'];
  return start !== undefined && isAlive(start) ? run : null;
}
