// A whole local stack for a test: `npm start` as a person runs it, on a data folder of its own.
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { portsFrom } from '../local/addresses.ts';
import type { RunFile } from '../local/run-file.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const readyDeadlineMs = 60_000;

export interface LocalStack {
  readonly data: string;
  readonly child: ChildProcess;
  /** Everything that was printed so far. */
  output(): string;
  /** run.json as it is now: pids change when a stage is started again. */
  run(): RunFile;
  secrets(): { stripeKey: string };
  /** SIGINT, as Ctrl-C; resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** With ports of its own, which no other stack takes while this one is stopped. */
export function newDataFolder(): string {
  const data = join(root, '.tallyline', 'test', `stack-${process.pid}-${randomBytes(4).toString('hex')}`);
  mkdirSync(data, { recursive: true });
  const ports = portsFrom(10_000 + 100 * randomInt(200));
  writeFileSync(join(data, 'ports.json'), JSON.stringify(ports));
  return data;
}

export function removeDataFolder(data: string): void {
  rmSync(data, { recursive: true, force: true, maxRetries: 5 });
}

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one of our commands to its end. */
export async function runCommand(
  entry: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<Finished> {
  const child = spawn(process.execPath, [join(root, 'dist', entry), ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
}

/** Starts and waits until the stack says it is ready. The ports are whatever is free. */
export async function startLocalStack(data: string, env: Record<string, string> = {}): Promise<LocalStack> {
  const child = spawn(process.execPath, [join(root, 'dist/local/main.js')], {
    cwd: root,
    env: { ...process.env, TALLYLINE_DATA: data, TALLYLINE_STOP_WITH_PARENT: '1', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let output = '';
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`not ready within ${readyDeadlineMs} ms:\n${output}`)),
      readyDeadlineMs,
    );
    const onData = (chunk: Buffer): void => {
      output += chunk.toString();
      if (output.includes('Tallyline is ready')) {
        clearTimeout(timer);
        resolve();
      }
    };
    child.stdout.on('data', onData);
    child.stderr.on('data', onData);
    void closed.then((code) => {
      clearTimeout(timer);
      reject(new Error(`ended with code ${code}:\n${output}`));
    });
  });
  return {
    data,
    child,
    output: () => output,
    run: () => JSON.parse(readFileSync(join(data, 'run.json'), 'utf8')) as RunFile,
    secrets: () => JSON.parse(readFileSync(join(data, 'secrets.json'), 'utf8')) as { stripeKey: string },
    stop: () => {
      child.kill('SIGINT');
      return closed;
    },
  };
}
