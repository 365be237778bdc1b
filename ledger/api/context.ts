import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { KeyRecord, Scope } from '../../contract/key.ts';
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Metrics } from '../../runtime/metrics.ts';
import type { Postgres } from '../../runtime/postgres.ts';
import type { Publisher } from '../publish.ts';

/** What the routes work with. */
export interface ApiContext {
  readonly pg: Postgres;
  /**
   * A few connections of their own, each held while a write works outside of one transaction (a meter that
   * is published, a period that is closed). On the pool of `pg` such writes could hold all connections and
   * wait for one more for ever.
   */
  readonly locks: Postgres;
  /** The read-only user, under the settings of {@link querySettings}. */
  readonly ch: ClickHouse;
  /** Whether the aggregator has made its views yet. */
  readonly usageReady: () => boolean;
  readonly publisher: Publisher;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly apiLimits: ApiLimits;
}

export interface ApiLimits {
  readonly bodyBytesMax: number;
  /** How long a revoked key may still be taken by another process than the one that revoked it. */
  readonly keyCacheMs: number;
  /** Rows of an NDJSON, CSV or Parquet answer. */
  readonly exportRowsMax: number;
  /** Rows that ClickHouse may read for one query. */
  readonly queryRowsMax: number;
  /** How long it may take for it. */
  readonly querySecondsMax: number;
  /** Requests being worked on at a time; more are answered 503. */
  readonly requestsMax: number;
}

export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** Who is calling. The tenant of a request comes from its key and from nowhere else. */
export interface Caller {
  readonly tenant: string;
  readonly keyId: string;
  readonly scopes: KeyRecord['scopes'];
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Null only on routes without a scope. */
    caller: Caller | null;
  }
  interface FastifyContextConfig {
    /** The scope a key needs; absent on routes that anyone may read. */
    scope?: Scope;
  }
}

export function callerOf(request: { readonly caller: Caller | null }): Caller {
  if (request.caller === null) throw new Error('a route without a scope asked for its caller');
  return request.caller;
}
