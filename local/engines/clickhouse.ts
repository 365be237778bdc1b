// ClickHouse for one machine: the process in local/clickhouse, which owns the data folder and speaks
// ClickHouse's HTTP protocol.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EngineError } from './engine.ts';
import type { Engine, EngineLog } from './engine.ts';
import { preparing, startProcess } from './process.ts';

const startDeadlineMs = 30_000;
const stopDeadlineMs = 3_000;
/** Statements run on libuv's threads: this many less a few at once. */
const threads = 40;

export interface ClickHouseOptions {
  /** Holds the tables and the passwords; created when missing. */
  readonly dataDir: string;
  readonly port: number;
  readonly log: EngineLog;
  /** Limits of the process, by the names of its environment variables. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface ClickHouseEngine extends Engine {
  /** The same database for a user that can only read. */
  readonly readerUrl: string;
}

interface Passwords {
  readonly writer: string;
  readonly reader: string;
}

/** The passwords of this data folder, made at its first start. */
function passwordsOf(dataDir: string): Passwords {
  const path = join(dataDir, 'passwords.json');
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as Passwords;
  const passwords = {
    writer: randomBytes(18).toString('base64url'),
    reader: randomBytes(18).toString('base64url'),
  };
  const staged = `${path}.new`;
  writeFileSync(staged, JSON.stringify(passwords), { mode: 0o600 });
  renameSync(staged, path);
  return passwords;
}

/** The compiled entry point: beside this file in dist, or in the project's dist when this runs from the sources. */
function entryPoint(): string {
  const beside = fileURLToPath(new URL('../clickhouse/main.js', import.meta.url));
  if (existsSync(beside)) return beside;
  const built = fileURLToPath(new URL('../../dist/local/clickhouse/main.js', import.meta.url));
  if (existsSync(built)) return built;
  throw new EngineError(`ClickHouse: ${built} is missing. Run npm run build first.`);
}

/**
 * Starts ClickHouse on 127.0.0.1 on the tables in `dataDir`.
 *
 * @throws EngineError when it cannot start; the message says what to do.
 */
export async function startClickHouse(options: ClickHouseOptions): Promise<ClickHouseEngine> {
  const { dataDir, port, log } = options;
  const passwords = await preparing('ClickHouse', dataDir, () => {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    return passwordsOf(dataDir);
  });
  let version = 'unknown';
  const server = await startProcess({
    name: 'ClickHouse',
    command: process.execPath,
    args: [entryPoint()],
    env: {
      ...options.env,
      TALLYLINE_CLICKHOUSE_DATA: dataDir,
      TALLYLINE_CLICKHOUSE_PORT: String(port),
      TALLYLINE_CLICKHOUSE_PASSWORD: passwords.writer,
      TALLYLINE_CLICKHOUSE_READER_PASSWORD: passwords.reader,
      TALLYLINE_STOP_WITH_PARENT: '1',
      UV_THREADPOOL_SIZE: String(threads),
      NODE_OPTIONS: '',
      TZ: 'UTC',
    },
    log,
    port,
    dataDir,
    stdin: 'pipe',
    readyLine: (line) => {
      if (!line.startsWith('{"ready":true')) return false;
      version = (JSON.parse(line) as { version: string }).version;
      return true;
    },
    readyDeadlineMs: startDeadlineMs,
    stopSignal: 'SIGTERM',
    stopDeadlineMs,
  });
  const { pid, exited, stop, kill } = server;
  const urlFor = (user: string, password: string): string =>
    `http://${user}:${password}@127.0.0.1:${port}/tallyline`;
  return {
    name: 'clickhouse',
    url: urlFor('tallyline', passwords.writer),
    readerUrl: urlFor('tallyline_reader', passwords.reader),
    pid,
    version,
    exited,
    stop,
    kill,
  };
}
