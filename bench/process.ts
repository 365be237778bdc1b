// Processes that a benchmark starts: each prints JSON lines, the first of which says where it is.
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { nodeFlagsOf } from '../local/node-flags.ts';

export interface Running {
  readonly pid: number;
  readonly child: ChildProcess;
  /** Called with every line of JSON it prints. */
  onLine(listener: (line: Record<string, unknown>) => void): void;
  /** Resolves with the first line for which `wanted` holds. Rejects when the process ends before. */
  line(wanted: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>>;
  readonly exited: Promise<number | null>;
  stop(): Promise<void>;
}

/** From the sources, where a test runs this file, as well as from the build. */
function builtFile(file: string): string {
  const beside = fileURLToPath(new URL(`../${file}`, import.meta.url));
  return existsSync(beside) ? beside : fileURLToPath(new URL(`../dist/${file}`, import.meta.url));
}

/** Settings of Tallyline's that were made for the benchmark are those of the stages that it starts. */
function ownSettings(): Record<string, string> {
  const settings = Object.entries(process.env).filter(([name]) => name.startsWith('TALLYLINE_'));
  return Object.fromEntries(settings) as Record<string, string>;
}

/** `file` is relative to the folder above bench, in the build: 'ingest/main.js'. */
export function start(
  file: string,
  args: readonly string[],
  env: Record<string, string> = {},
  /** `nodeArgs` go to Node itself: --cpu-prof. */
  { nodeArgs = [] }: { readonly nodeArgs?: readonly string[] } = {},
): Running {
  const path = builtFile(file);
  const child = spawn(process.execPath, [...nodeFlagsOf(file), ...nodeArgs, path, ...args], {
    env: { PATH: process.env['PATH'] ?? '', TALLYLINE_STOP_WITH_PARENT: '1', ...ownSettings(), ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const listeners = new Set<(line: Record<string, unknown>) => void>();
  const early: Record<string, unknown>[] = [];
  let printed = '';
  child.stderr.on('data', (chunk: Buffer) => (printed = (printed + chunk.toString()).slice(-4_000)));
  createInterface({ input: child.stdout }).on('line', (text) => {
    let line: Record<string, unknown>;
    try {
      line = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return;
    }
    if (listeners.size === 0) early.push(line);
    for (const listener of [...listeners]) listener(line);
  });
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const onLine = (listener: (line: Record<string, unknown>) => void): void => {
    listeners.add(listener);
    for (const line of early.splice(0)) listener(line);
  };
  return {
    pid: child.pid ?? 0,
    child,
    onLine,
    exited,
    line: (wanted) =>
      new Promise((resolve, reject) => {
        onLine((line) => {
          if (wanted(line)) resolve(line);
        });
        void exited.then((code) => reject(new Error(`${file} ended with ${code}:\n${printed}`)));
      }),
    async stop() {
      // The end of its input stops it too, and what is told twice ends at once: without giving up its shards, say.
      child.kill('SIGTERM');
      await exited;
    },
  };
}
