// A process that owns one data directory of chdb (ClickHouse as a library) and speaks ClickHouse's HTTP
// protocol on 127.0.0.1, for machines without a ClickHouse server. Everything else in the product talks to it,
// or to a real server, through @clickhouse/client.
//
// Prints one line of JSON, {"ready": true, "url": …, "version": …}, when it answers. SIGTERM and SIGINT stop
// it; so does the end of stdin when TALLYLINE_STOP_WITH_PARENT=1. Acknowledged inserts need no stop: their
// files are complete, and on disk when the insert asked for fsync.
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { User } from './access.ts';
import { openChdb } from './chdb.ts';
import { makePipes } from './pipe.ts';
import { createFront } from './server.ts';
import type { FrontLimits } from './server.ts';
import { loadForbiddenFunctions, runOnce } from './session.ts';

const database = 'tallyline';
const stopGraceMs = 500;
const threadsSpare = 8;
/** libuv's own default, when nobody set it. */
const threadsDefault = 4;

interface Settings {
  readonly dataDir: string;
  readonly port: number;
  readonly users: readonly User[];
  readonly limits: FrontLimits;
}

function integer(name: string, fallback: number, min: number, max: number): number {
  const text = process.env[name];
  if (text === undefined || text === '') return fallback;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new Error(`${name} must be a whole number from ${min} to ${max}`);
  }
  return value;
}

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set`);
  return value;
}

function readSettings(): Settings {
  // Statements run on libuv's threads, and so do files and compression, which need some to themselves.
  const threads = integer('UV_THREADPOOL_SIZE', threadsDefault, 1, 1024);
  return {
    dataDir: required('TALLYLINE_CLICKHOUSE_DATA'),
    port: integer('TALLYLINE_CLICKHOUSE_PORT', 8123, 0, 65_535),
    users: [
      { name: 'tallyline', password: required('TALLYLINE_CLICKHOUSE_PASSWORD'), role: 'writer' },
      {
        name: 'tallyline_reader',
        password: required('TALLYLINE_CLICKHOUSE_READER_PASSWORD'),
        role: 'reader',
      },
    ],
    limits: {
      bodyBytesMax: integer('TALLYLINE_CLICKHOUSE_BODY_BYTES_MAX', 1024 ** 3, 1024, 64 * 1024 ** 3),
      statementBytesMax: integer(
        'TALLYLINE_CLICKHOUSE_STATEMENT_BYTES_MAX',
        16 * 1024 ** 2,
        1024,
        256 * 1024 ** 2,
      ),
      runningMax: Math.max(1, threads - threadsSpare),
      waitingMax: integer('TALLYLINE_CLICKHOUSE_WAITING_MAX', 256, 0, 10_000),
      requestsMax: integer('TALLYLINE_CLICKHOUSE_REQUESTS_MAX', 512, 1, 10_000),
      holdBytesMax: 1024 ** 2,
      idleMs: integer('TALLYLINE_CLICKHOUSE_IDLE_SECONDS', 300, 1, 86_400) * 1000,
      reader: {
        executionSecondsMax: integer('TALLYLINE_CLICKHOUSE_READER_SECONDS_MAX', 30, 1, 3_600),
        resultRowsMax: integer('TALLYLINE_CLICKHOUSE_READER_ROWS_MAX', 10_000_000, 1, 1_000_000_000),
        memoryBytesMax: integer(
          'TALLYLINE_CLICKHOUSE_READER_MEMORY_BYTES_MAX',
          2 * 1024 ** 3,
          1024 ** 2,
          1024 ** 4,
        ),
      },
    },
  };
}

function say(fields: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(fields)}\n`);
}

function fail(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}

async function main(): Promise<void> {
  const { dataDir, port, users, limits } = readSettings();
  const spoolDir = join(dataDir, 'spool');
  // 1. The engine first: it locks the directory, so everything after it is ours alone.
  const chdb = openChdb(join(dataDir, 'chdb'));
  // 2. What a killed predecessor was still receiving was never acknowledged.
  rmSync(spoolDir, { recursive: true, force: true });
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 });
  const pipes = makePipes(spoolDir, limits.runningMax);
  await runOnce(chdb, `CREATE DATABASE IF NOT EXISTS ${database}`, 'Null');
  const version = (await runOnce(chdb, 'SELECT version()', 'TSVRaw')).trim();
  const forbiddenToReader = await loadForbiddenFunctions(chdb);

  const front = createFront({
    chdb,
    version,
    database,
    users,
    limits,
    spoolDir,
    pipes,
    forbiddenToReader,
    onError: (what, error) =>
      say({ error: what, reason: error instanceof Error ? error.message : String(error) }),
  });

  // An exit in order would wait for the threads that run statements, and one that writes a result nobody reads
  // waits for ever. There is nothing half done to wait for: a part of a table is written under another name and
  // renamed.
  const end = (): void => void process.kill(process.pid, 'SIGKILL');
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    // 1. No new requests; what is under way may end by itself.
    front.server.close(end);
    front.server.closeIdleConnections();
    // 2. What has not is cancelled.
    setTimeout(() => {
      front.cancelAll();
      end();
    }, stopGraceMs);
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  if (process.env.TALLYLINE_STOP_WITH_PARENT === '1') {
    process.stdin.on('end', stop).on('error', stop).resume();
  }

  front.server.once('error', fail);
  front.server.listen({ host: '127.0.0.1', port }, () => {
    const address = front.server.address();
    const bound = typeof address === 'object' && address !== null ? address.port : port;
    say({ ready: true, url: `http://127.0.0.1:${bound}`, version });
  });
}

main().catch(fail);
