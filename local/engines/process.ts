// Starts one engine's process, waits until it is ready and explains why it is not.
//
// An engine runs in a process group of its own: Ctrl-C in a terminal reaches the whole foreground group, and
// the engines must outlive the stages that still drain into them. So nothing ends an engine but its owner.
// An owner that is killed cannot end anything; on Linux the kernel then sends the engine a signal
// (PR_SET_PDEATHSIG, through setpriv). Elsewhere the engine's next start finds the left-over process by the
// pid recorded in its data folder and says so.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { EngineError } from './engine.ts';
import type { EngineLog, Exit } from './engine.ts';

const lastLinesMax = 40;
const lineCharactersMax = 2_000;
const probeIntervalMs = 20;

export interface ProcessOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly log: EngineLog;
  /** The port the engine will listen on; named in the message when it is taken. */
  readonly port: number;
  readonly dataDir: string;
  /** Keep the child's stdin open for as long as this process lives; its end tells the child to stop. */
  readonly stdin?: 'pipe' | 'ignore';
  /** True for the line of output that says the engine is ready. */
  readonly readyLine?: (line: string) => boolean;
  /** Asked again and again until it answers true; for engines that have no such line. */
  readonly probe?: () => Promise<boolean>;
  readonly readyDeadlineMs: number;
  readonly stopSignal: NodeJS.Signals;
  readonly stopDeadlineMs: number;
  /** Gives up a start that is under way: the process is killed. No effect once it is ready. */
  readonly signal?: AbortSignal;
}

export interface EngineProcess {
  readonly pid: number;
  readonly exited: Promise<Exit>;
  /** The last lines it printed, oldest first. */
  lastLines(): readonly string[];
  stop(): Promise<void>;
  kill(): void;
}

/** The path of an executable on PATH, or null. */
export function findOnPath(command: string, path = process.env.PATH ?? ''): string | null {
  for (const folder of path.split(delimiter)) {
    if (folder === '') continue;
    const candidate = join(folder, command);
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      continue;
    }
  }
  return null;
}

/** What to put before a command so that the kernel signals it when its parent dies; nothing where that is unavailable. */
export function withParentDeathSignal(signal: 'TERM' | 'INT'): string[] {
  const setpriv = process.platform === 'linux' ? findOnPath('setpriv') : null;
  return setpriv === null ? [] : [setpriv, '--pdeathsig', signal, '--'];
}

/** True while a process with this pid runs, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  return !isZombie(pid);
}

/** One that has ended and whose parent has not asked for its exit: a container's first process may never. */
function isZombie(pid: number): boolean {
  try {
    // The state follows the command's name, which stands in parentheses and may itself hold some.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) === 'Z';
  } catch {
    return false;
  }
}

/**
 * Turns what an engine printed into what a person should do. Pure; exported for its test.
 */
export function explainFailure(
  name: string,
  port: number,
  dataDir: string,
  lines: readonly string[],
): string {
  const text = lines.join('\n');
  if (/address already in use|EADDRINUSE/i.test(text)) {
    return `${name}: port ${port} on 127.0.0.1 is taken. Stop what listens there (ss -ltnp 'sport = :${port}') or choose another port.`;
  }
  if (/no space left on device|ENOSPC|NOT_ENOUGH_SPACE/i.test(text)) {
    return `${name}: the disk that holds ${dataDir} is full. Free some space, or put the data elsewhere, and start again.`;
  }
  if (/permission denied|EACCES|EPERM/i.test(text)) {
    return `${name}: no permission to use ${dataDir} or a file in it. Its last lines:\n${text}`;
  }
  return text === '' ? `${name}: it printed nothing.` : `${name}: its last lines were:\n${text}`;
}

/**
 * Runs what an engine needs before its process starts (folders, configuration, a new cluster), and says of a
 * full disk or a missing right what to do about it.
 */
export async function preparing<T>(name: string, dataDir: string, prepare: () => T | Promise<T>): Promise<T> {
  try {
    return await prepare();
  } catch (error) {
    if (error instanceof EngineError || !(error instanceof Error)) throw error;
    throw new EngineError(explainFailure(name, 0, dataDir, [error.message]), { cause: error });
  }
}

function readLines(stream: Readable | null, onLine: (line: string) => void): void {
  if (stream === null) return;
  createInterface({ input: stream, crlfDelay: Infinity }).on('line', (line) =>
    onLine(line.slice(0, lineCharactersMax)),
  );
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    // `close` comes after the last line of output, `exit` before it.
    child.once('close', (code, signal) => resolve({ code, signal }));
    child.once('error', () => resolve({ code: -1, signal: null }));
  });
}

/** Resolves after `ms` unless cancelled; never keeps the process alive on its own account. */
function timer(ms: number): { readonly done: Promise<'timeout'>; cancel(): void } {
  let cancel = (): void => undefined;
  const done = new Promise<'timeout'>((resolve) => {
    const handle = setTimeout(() => resolve('timeout'), ms);
    cancel = () => clearTimeout(handle);
  });
  return { done, cancel: () => cancel() };
}

async function probeUntil(probe: () => Promise<boolean>, isOver: () => boolean): Promise<'ready'> {
  while (!isOver()) {
    if (await probe().catch(() => false)) return 'ready';
    await timer(probeIntervalMs).done;
  }
  return new Promise(() => undefined);
}

/**
 * Spawns the process and resolves once it is ready.
 *
 * @throws EngineError when it ends first or the deadline passes; the process is gone by then.
 */
export async function startProcess(options: ProcessOptions): Promise<EngineProcess> {
  const { name, log, port, dataDir } = options;
  const child = spawn(options.command, options.args, {
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'],
    detached: true,
  });
  // The child may be gone when its stdin is closed.
  child.stdin?.on('error', () => undefined);

  const lines: string[] = [];
  let sawReadyLine = (): void => undefined;
  const readyLine = new Promise<'ready'>((resolve) => {
    sawReadyLine = () => resolve('ready');
  });
  const onLine = (line: string): void => {
    lines.push(line);
    if (lines.length > lastLinesMax) lines.shift();
    log(line);
    if (options.readyLine?.(line) === true) sawReadyLine();
  };
  child.once('error', (error) => onLine(error.message));
  readLines(child.stdout, onLine);
  readLines(child.stderr, onLine);

  let ended = false;
  const exited = exitOf(child).then((exit) => {
    ended = true;
    return exit;
  });

  const kill = (): void => {
    if (!ended) child.kill('SIGKILL');
  };
  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopping ??= (async () => {
      if (ended) return;
      child.kill(options.stopSignal);
      const deadline = timer(options.stopDeadlineMs);
      const first = await Promise.race([exited, deadline.done]);
      deadline.cancel();
      if (first === 'timeout') {
        log(`${name} did not stop within ${options.stopDeadlineMs} ms and is killed`);
        kill();
        await exited;
      }
    })();
    return stopping;
  };

  const deadline = timer(options.readyDeadlineMs);
  let over = false;
  const { signal } = options;
  const givenUp = new Promise<'given up'>((resolve) => {
    if (signal?.aborted === true) resolve('given up');
    else signal?.addEventListener('abort', () => resolve('given up'), { once: true });
  });
  const outcome = await Promise.race([
    readyLine,
    ...(options.probe === undefined ? [] : [probeUntil(options.probe, () => over)]),
    exited,
    deadline.done,
    givenUp,
  ]);
  over = true;
  deadline.cancel();

  if (outcome === 'ready') {
    if (child.pid === undefined) throw new EngineError(`${name} has no pid`);
    return { pid: child.pid, exited, lastLines: () => [...lines], stop, kill };
  }
  if (outcome === 'given up') {
    kill();
    await exited;
    throw new EngineError(`${name}: its start was given up.`);
  }
  if (outcome === 'timeout') {
    kill();
    await exited;
    throw new EngineError(
      `${name} was not ready within ${options.readyDeadlineMs} ms. ${explainFailure(name, port, dataDir, lines)}`,
    );
  }
  throw new EngineError(explainFailure(name, port, dataDir, lines));
}
