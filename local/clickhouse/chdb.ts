// The only file that touches chdb. It takes the package's native functions rather than its Session class, for
// two reasons: Session.close() waits for every operation of the process, so one long query would keep all
// later sessions open; and only the native insert tells how many rows were written. Both functions run on the
// thread pool of libuv, so UV_THREADPOOL_SIZE bounds how many statements run at once.
//
// The package is pinned to one exact version; its behaviour here is held by the tests of the HTTP front.
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

interface NativeResult {
  readonly bytes: Uint8Array;
  readonly elapsed: number;
  readonly rowsRead: number;
  readonly bytesRead: number;
}

interface NativeInsert {
  readonly elapsed: number;
  readonly rowsWritten: number;
  readonly bytesWritten: number;
}

interface Native {
  CreateConnection(path: string): unknown;
  CloseConnection(connection: unknown): void;
  QueryAsyncConnection(connection: unknown, sql: string, format: string): Promise<NativeResult>;
  InsertRawAsyncConnection(
    connection: unknown,
    sql: string,
    data: Buffer,
    countLines: boolean,
  ): Promise<NativeInsert>;
}

export interface QueryResult {
  readonly bytes: Uint8Array;
  readonly rowsRead: number;
  readonly bytesRead: number;
}

/** Rows and bytes include what materialized views wrote, as in ClickHouse's own summary. */
export interface InsertResult {
  readonly rowsWritten: number;
  readonly bytesWritten: number;
}

/** One session: its settings, parameters and database are its own. */
export interface Connection {
  query(sql: string, format: string): Promise<QueryResult>;
  insert(sql: string): Promise<InsertResult>;
  /** Call it only when no statement of this connection is running: the engine does not survive that. */
  close(): void;
}

export interface Chdb {
  connect(): Connection;
  close(): void;
}

const noData = Buffer.alloc(0);

function loadNative(): Native {
  const require = createRequire(import.meta.url);
  const loader: unknown = createRequire(require.resolve('chdb'))('./dist/loader.js');
  return (loader as { loadNative(): Native }).loadNative();
}

/** The pid in the engine's own lock file, when it is there. */
function ownerOf(dataDir: string): string | null {
  try {
    return /^PID: (\d+)$/m.exec(readFileSync(join(dataDir, 'status'), 'utf8'))?.[1] ?? null;
  } catch {
    return null;
  }
}

function connectionOf(native: Native, handle: unknown): Connection {
  return {
    async query(sql, format) {
      const { bytes, rowsRead, bytesRead } = await native.QueryAsyncConnection(handle, sql, format);
      return { bytes, rowsRead, bytesRead };
    },
    async insert(sql) {
      const { rowsWritten, bytesWritten } = await native.InsertRawAsyncConnection(handle, sql, noData, false);
      return { rowsWritten, bytesWritten };
    },
    close: () => native.CloseConnection(handle),
  };
}

/**
 * Opens the engine on a data directory, which it locks. One connection stays open for as long as the engine is
 * to run: the engine ends with its last one.
 *
 * @throws Error when another process uses the directory, or it cannot be opened.
 */
export function openChdb(dataDir: string): Chdb {
  mkdirSync(dataDir, { recursive: true });
  const native = loadNative();
  let keeper: unknown;
  try {
    keeper = native.CreateConnection(dataDir);
  } catch (error) {
    const owner = ownerOf(dataDir);
    const why =
      owner !== null && owner !== String(process.pid)
        ? `perhaps the process ${owner} already uses it; only one can`
        : 'is it writable, and is there space on the disk?';
    throw new Error(`ClickHouse cannot open ${dataDir}: ${why}`, { cause: error });
  }
  return {
    connect: () => connectionOf(native, native.CreateConnection(dataDir)),
    close: () => native.CloseConnection(keeper),
  };
}
