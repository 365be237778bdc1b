/**
 * Postgres over a bounded pool.
 *
 * `transaction` runs its function again when Postgres says that the transaction lost against another one
 * (40001 serialization failure, 40P01 deadlock), so the function must have no effect but through `tx`. An
 * error of COMMIT whose answer was lost is not retried: it may have been committed, and only the caller's
 * idempotency key can tell.
 */
import pg from 'pg';
import { backoffMs } from './backoff.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';
import { exactTypes } from './pg-types.ts';
import { retry, sleep } from './retry.ts';

export interface Db {
  /** Rows with int8 as bigint, numeric as string, timestamptz as epoch ms, json parsed. */
  query<T>(sql: string, params?: readonly unknown[]): Promise<T[]>;
}

export interface TransactionOptions {
  /** Default serializable. */
  readonly isolation?: 'serializable' | 'read committed';
  readonly readOnly?: boolean;
  /** How often it runs at most, the first time included. Default 10. */
  readonly attempts?: number;
}

export interface Postgres extends Db {
  transaction<T>(fn: (tx: Db) => Promise<T>, o?: TransactionOptions): Promise<T>;
  /** How many transactions were run again since the start. */
  readonly retries: number;
  /**
   * Resolves once listening, and goes on until the signal. Notifications sent while the connection was
   * away are lost, so onNotify('') is called after each reconnect: look at everything then.
   */
  listen(channel: string, onNotify: (payload: string) => void, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export interface PostgresOptions {
  /** postgres://user:password@host:port/database */
  readonly url: string;
  /** Shown as application_name. */
  readonly name: string;
  readonly poolMax: number;
  readonly log: Log;
  readonly statementTimeoutMs: number;
  readonly metrics?: Metrics;
}

const CONNECT_TIMEOUT_MS = 10_000;
const ATTEMPTS = 10;
const RETRY = { baseMs: 4, maxMs: 250 };
const RECONNECT = { baseMs: 50, maxMs: 2_000 };
/** How often a listening connection is asked whether it still stands, and how long it may take to answer. */
const LISTEN_PING_MS = 15_000;
const LISTEN_ANSWER_MS = 5_000;

const LOST_A_RACE = new Set(['40001', '40P01']);

export function connectPostgres(o: PostgresOptions): Postgres {
  return new PostgresPool(o);
}

/** The SQLSTATE of an error from Postgres (23505 unique violation, …), or undefined. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

class PostgresPool implements Postgres {
  retries = 0;
  private readonly options: PostgresOptions;
  private readonly config: pg.ClientConfig;
  private readonly pool: pg.Pool;
  private readonly countRetry: () => void;

  constructor(o: PostgresOptions) {
    this.options = o;
    this.config = {
      connectionString: o.url,
      application_name: o.name,
      types: exactTypes,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: o.statementTimeoutMs,
      idle_in_transaction_session_timeout: o.statementTimeoutMs,
    };
    this.pool = new pg.Pool({ ...this.config, max: o.poolMax });
    const onError = (error: Error) => o.log.warn({ error }, 'Postgres connection lost');
    this.pool.on('error', onError);
    // A connection that is lost while taken out emits an error of its own, which nobody else listens for.
    this.pool.on('connect', (client) => client.on('error', () => {}));

    const retried = o.metrics?.counter(
      'tallyline_postgres_transaction_retries_total',
      'transactions run again after a serialization failure or a deadlock',
    );
    o.metrics?.gauge('tallyline_postgres_pool_limit_connections', 'connections at most').set(o.poolMax);
    o.metrics?.gauge(
      'tallyline_postgres_pool_busy_connections',
      'connections in use',
      [],
      () => this.pool.totalCount - this.pool.idleCount,
    );
    o.metrics?.gauge(
      'tallyline_postgres_pool_waiting_count',
      'callers waiting for a connection',
      [],
      () => this.pool.waitingCount,
    );
    this.countRetry = () => {
      this.retries++;
      retried?.inc();
    };
  }

  async query<T>(sql: string, params?: readonly unknown[]): Promise<T[]> {
    const client = await this.pool.connect();
    let lost: Error | undefined;
    try {
      return await run<T>(client, sql, params);
    } catch (error) {
      lost = connectionLost(error);
      throw error;
    } finally {
      client.release(lost);
    }
  }

  transaction<T>(fn: (tx: Db) => Promise<T>, o: TransactionOptions = {}): Promise<T> {
    return retry(() => this.attempt(fn, o), {
      attempts: o.attempts ?? ATTEMPTS,
      ...RETRY,
      retryable: (error) => LOST_A_RACE.has(sqlState(error) ?? ''),
      onRetry: this.countRetry,
    });
  }

  private async attempt<T>(fn: (tx: Db) => Promise<T>, o: TransactionOptions): Promise<T> {
    const client = await this.pool.connect();
    let lost: Error | undefined;
    let open = true;
    const tx: Db = {
      query<R>(sql: string, params?: readonly unknown[]) {
        if (!open) throw new Error('the transaction is over');
        return run<R>(client, sql, params);
      },
    };
    try {
      const isolation = (o.isolation ?? 'serializable').toUpperCase();
      await client.query(`BEGIN ISOLATION LEVEL ${isolation}${o.readOnly ? ' READ ONLY' : ''}`);
      const result = await fn(tx);
      open = false;
      const { command } = await client.query('COMMIT');
      // Postgres answers COMMIT with ROLLBACK when a statement had failed and fn swallowed its error.
      if (command !== 'COMMIT') throw new Error('a statement had failed; the transaction was rolled back');
      return result;
    } catch (error) {
      open = false;
      lost = connectionLost(error) ?? (await rollback(client));
      throw error;
    } finally {
      client.release(lost);
    }
  }

  listen(channel: string, onNotify: (payload: string) => void, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      let listening = false;
      const onListening = () => {
        if (listening) onNotify('');
        listening = true;
        resolve();
      };
      this.listenForEver(channel, onNotify, onListening, signal).then(resolve, reject);
    });
  }

  private async listenForEver(
    channel: string,
    onNotify: (payload: string) => void,
    onListening: () => void,
    signal: AbortSignal,
  ): Promise<void> {
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        await this.listenOnce(channel, onNotify, signal, () => {
          attempt = 0;
          onListening();
        });
      } catch (error) {
        this.options.log.warn({ error, channel }, 'not listening to Postgres, trying again');
      }
      await sleep(backoffMs(attempt, RECONNECT, Math.random), signal);
    }
  }

  /** Listens on a connection of its own until that is lost (throws) or the signal aborts (returns). */
  private async listenOnce(
    channel: string,
    onNotify: (payload: string) => void,
    signal: AbortSignal,
    onListening: () => void,
  ): Promise<void> {
    const client = new pg.Client({
      ...this.config,
      application_name: `${this.options.name} listen`,
      query_timeout: LISTEN_ANSWER_MS,
    });
    let ping: NodeJS.Timeout | undefined;
    let stop = () => {};
    const over = new Promise<void>((resolve, reject) => {
      stop = resolve;
      client.once('error', reject);
      client.once('end', () => reject(new Error('the connection ended')));
    });
    over.catch(() => {}); // It is awaited below, but may reject while connect() is.
    client.on('error', () => {});
    signal.addEventListener('abort', stop);
    try {
      await client.connect();
      client.on('notification', (notification) => onNotify(notification.payload ?? ''));
      await client.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
      onListening();
      ping = setInterval(() => {
        client.query('SELECT 1').catch((error: unknown) => client.emit('error', error));
      }, LISTEN_PING_MS);
      if (!signal.aborted) await over;
    } finally {
      clearInterval(ping);
      signal.removeEventListener('abort', stop);
      client.end().catch(() => {});
    }
  }

  /** Waits for the connections in use; then none is left open. */
  async close(): Promise<void> {
    if (!this.pool.ending) await this.pool.end();
  }
}

async function run<T>(client: pg.PoolClient, sql: string, params?: readonly unknown[]): Promise<T[]> {
  // Without values the simple protocol is used, which takes several statements at once (migrations).
  const result = await client.query(sql, params === undefined ? undefined : [...params]);
  return result.rows as T[];
}

/** Rolls back; returns the error when not even that works and the connection is of no more use. */
async function rollback(client: pg.PoolClient): Promise<Error | undefined> {
  try {
    await client.query('ROLLBACK');
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** The error, if it means that the connection is of no more use: anything that Postgres did not say, and
 * what it says when it ends the connection (class 08, and 57P01 to 57P05). */
function connectionLost(error: unknown): Error | undefined {
  const state = sqlState(error);
  if (state !== undefined && !state.startsWith('08') && !state.startsWith('57P')) return undefined;
  return error instanceof Error ? error : new Error(String(error));
}
