// Runs one of our own processes and keeps it running: a stage that ends without being asked to is started
// again, with growing pauses, because everything in Tallyline is built to be killed. One that cannot stay up
// ends the stack with its last lines, instead of restarting for ever out of sight.
import { createWriteStream, existsSync, mkdirSync, renameSync } from 'node:fs';
import type { WriteStream } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../runtime/retry.ts';
import { EngineError } from './engines/engine.ts';
import { startProcess, type EngineProcess } from './engines/process.ts';
import { nodeFlagsOf } from './node-flags.ts';

const readyDeadlineMs = 60_000;
const stopDeadlineMs = 15_000;
const restartsMax = 20;
const restartWindowMs = 60_000;
const pauseMsMax = 3_000;

export interface StageOptions {
  readonly name: string;
  readonly entry: string;
  readonly env: Readonly<Record<string, string>>;
  readonly port: number;
  readonly dataDir: string;
  readonly logs: string;
  /** Told of every restart; the pid has changed. */
  readonly onRestart: (pid: number) => void;
  readonly onGaveUp: (error: Error) => void;
}

/** A log file per stage; the one of the last start is kept beside it. */
export function openLog(logs: string, name: string): WriteStream {
  mkdirSync(logs, { recursive: true });
  const path = join(logs, `${name}.log`);
  if (existsSync(path)) renameSync(path, join(logs, `${name}.previous.log`));
  const stream = createWriteStream(path);
  stream.on('error', () => undefined); // A full disk must not end the stack; the stages say so themselves.
  return stream;
}

export class SupervisedStage {
  readonly #options: StageOptions;
  readonly #log: WriteStream;
  readonly #restarts: number[] = [];
  #process: EngineProcess | null = null;
  #stopping = false;
  readonly #abort = new AbortController();

  constructor(options: StageOptions) {
    this.#options = options;
    this.#log = openLog(options.logs, options.name);
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Resolves when the stage is ready for the first time. */
  async start(): Promise<void> {
    const { name, entry, env, port, dataDir } = this.#options;
    this.#process = await startProcess({
      name,
      command: process.execPath,
      args: ['--enable-source-maps', ...nodeFlagsOf(entry), entry],
      env: { ...env, TALLYLINE_STOP_WITH_PARENT: '1' },
      log: (line) => void this.#log.write(`${line}\n`),
      port,
      dataDir,
      stdin: 'pipe',
      readyLine: (line) => line.startsWith('{') && line.includes('"ready":true'),
      readyDeadlineMs,
      stopSignal: 'SIGTERM',
      stopDeadlineMs,
      signal: this.#abort.signal,
    });
    void this.#process.exited.then(() => this.#onExit());
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#abort.abort();
    await this.#process?.stop();
    this.#log.end();
  }

  async #onExit(): Promise<void> {
    while (!this.#stopping) {
      const now = performance.now();
      while (this.#restarts.length > 0 && this.#restarts[0]! < now - restartWindowMs) this.#restarts.shift();
      if (this.#restarts.length >= restartsMax) {
        const last = this.#process?.lastLines().slice(-5).join('\n') ?? '';
        this.#options.onGaveUp(
          new EngineError(
            `${this.#options.name} ended ${restartsMax} times within a minute. Its last lines:\n${last}`,
          ),
        );
        return;
      }
      const pause = Math.min(pauseMsMax, 50 * 2 ** this.#restarts.length);
      this.#restarts.push(now);
      await sleep(pause);
      if (this.#stopping) return;
      try {
        await this.start();
        this.#options.onRestart(this.pid);
        return;
      } catch {
        // It ended before it was ready: the next round waits longer, and the bound above ends it.
      }
    }
  }
}
