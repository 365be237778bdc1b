import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Postgres } from '../runtime/postgres.ts';

/** What the ledger's passes work with. */
export interface LedgerContext {
  readonly pg: Postgres;
  readonly ch: ClickHouse;
  readonly clock: Clock;
  readonly log: Log;
  /** {@link POSTING_LIMITS} when absent. */
  readonly postingLimits?: PostingLimits;
}

export interface PostingLimits {
  /** Customers posted in one Postgres transaction; bounds its length and its memory. */
  readonly customersPerTransaction: number;
  /** Changed (subject, month) pairs read from ClickHouse at a time. */
  readonly changesPerPage: number;
}

export const POSTING_LIMITS: PostingLimits = { customersPerTransaction: 1_000, changesPerPage: 20_000 };
