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
}
