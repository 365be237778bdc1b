import { ConfigError, integer, optional, text, url } from '../runtime/config.ts';
import { logFields } from '../runtime/logs.ts';

/** The form of contract/key.ts. */
const KEY = /^tl_[0-9A-Za-z]{12}_[0-9A-Za-z]{27}$/;

export const fields = {
  natsUrl: url('NATS_URL', { describe: 'NATS with JetStream', protocols: ['nats', 'tls'], secret: true }),
  databaseUrl: url('DATABASE_URL', {
    describe: 'Postgres; the schema ledger is ours',
    protocols: ['postgres', 'postgresql'],
    secret: true,
  }),
  clickhouseUrl: url('CLICKHOUSE_URL', {
    describe: 'ClickHouse over HTTP, with user, password and database',
    protocols: ['http', 'https'],
    secret: true,
  }),
  clickhouseReaderUrl: optional(
    url('CLICKHOUSE_READER_URL', {
      describe: 'the same for a user that can only read; CLICKHOUSE_URL when unset',
      protocols: ['http', 'https'],
      secret: true,
    }),
  ),
  ...logFields,
  apiPort: integer('TALLYLINE_API_PORT', {
    describe: 'port of the API; 0 takes any free one',
    default: 8081,
    min: 0,
    max: 65_535,
  }),
  bootstrapTenant: optional(
    text('TALLYLINE_BOOTSTRAP_TENANT', {
      describe: 'a tenant made at the start if missing',
      pattern: /^[a-z0-9][a-z0-9_-]{0,62}$/,
    }),
  ),
  bootstrapKey: optional(
    text('TALLYLINE_BOOTSTRAP_KEY', {
      describe: 'its key with the scopes ingest and read',
      pattern: KEY,
      secret: true,
    }),
  ),
  bootstrapAdminKey: optional(
    text('TALLYLINE_BOOTSTRAP_ADMIN_KEY', {
      describe: 'its key with all scopes',
      pattern: KEY,
      secret: true,
    }),
  ),
  postingIntervalMs: integer('TALLYLINE_LEDGER_POSTING_INTERVAL_MS', {
    describe: 'longest time between two posting passes; a flush notice makes one at once',
    default: 1_000,
    min: 10,
    max: 60_000,
  }),
  residueSeconds: integer('TALLYLINE_LEDGER_RESIDUE_SECONDS', {
    describe: 'how often drift and clearing accounts are measured',
    default: 30,
    min: 1,
    max: 86_400,
  }),
  checkRowsPerMinute: integer('TALLYLINE_LEDGER_CHECK_ROWS_PER_MINUTE', {
    describe: 'raw rows read in a minute to compare rollups with them, about',
    default: 3_000_000,
    min: 1_000,
    max: 1_000_000_000,
  }),
  checkSecondsPerMinute: integer('TALLYLINE_LEDGER_CHECK_SECONDS_PER_MINUTE', {
    describe: 'how much of a minute that may take, on the average; a comparison that has begun is finished',
    default: 6,
    min: 1,
    max: 60,
  }),
  sweepHours: integer('TALLYLINE_LEDGER_SWEEP_HOURS', {
    describe: 'from the beginning of one comparison of everything to that of the next, at least',
    default: 24,
    min: 1,
    max: 8_760,
  }),
  poolMax: integer('TALLYLINE_LEDGER_CONNECTIONS_MAX', {
    describe: 'connections to Postgres; four more hold locks of writes',
    default: 12,
    min: 2,
    max: 500,
  }),
  statementTimeoutMs: integer('TALLYLINE_LEDGER_STATEMENT_TIMEOUT_MS', {
    describe: 'how long one statement may take in Postgres',
    default: 30_000,
    min: 100,
    max: 3_600_000,
  }),
  clickhouseTimeoutMs: integer('TALLYLINE_LEDGER_CLICKHOUSE_TIMEOUT_MS', {
    describe: 'how long one query may take in ClickHouse',
    default: 30_000,
    min: 100,
    max: 3_600_000,
  }),
  bodyBytesMax: integer('TALLYLINE_API_BODY_BYTES_MAX', {
    describe: 'body bytes of one request',
    default: 1_048_576,
    min: 1_024,
    max: 67_108_864,
  }),
  requestsMax: integer('TALLYLINE_API_REQUESTS_MAX', {
    describe: 'requests worked on at a time',
    default: 256,
    min: 1,
    max: 100_000,
  }),
  exportRowsMax: integer('TALLYLINE_API_EXPORT_ROWS_MAX', {
    describe: 'rows of one NDJSON, CSV or Parquet answer',
    default: 1_000_000,
    min: 1,
    max: 100_000_000,
  }),
  queryRowsMax: integer('TALLYLINE_API_QUERY_ROWS_MAX', {
    describe: 'rows that ClickHouse may read for one query of usage or of refused events',
    default: 200_000_000,
    min: 1,
    max: 1_000_000_000_000,
  }),
  querySecondsMax: integer('TALLYLINE_API_QUERY_SECONDS_MAX', {
    describe: 'how long it may take for it; below the bound of the read-only user, and of the request',
    default: 20,
    min: 1,
    max: 3_600,
  }),
  keyCacheMs: integer('TALLYLINE_API_KEY_CACHE_MS', {
    describe: 'how long keys are remembered; so long a key revoked elsewhere may still work',
    default: 2_000,
    min: 0,
    max: 60_000,
  }),
  idempotencyDays: integer('TALLYLINE_API_IDEMPOTENCY_DAYS', {
    describe: 'how long the answer to an Idempotency-Key is kept',
    default: 30,
    min: 1,
    max: 3_660,
  }),
};

export interface Bootstrap {
  readonly tenant: string;
  readonly key: string | undefined;
  readonly adminKey: string | undefined;
}

/** The tenant to make at the start, or null. Throws a ConfigError for keys without their tenant. */
export function bootstrapOf(config: {
  readonly bootstrapTenant: string | undefined;
  readonly bootstrapKey: string | undefined;
  readonly bootstrapAdminKey: string | undefined;
}): Bootstrap | null {
  const { bootstrapTenant: tenant, bootstrapKey: key, bootstrapAdminKey: adminKey } = config;
  if (tenant !== undefined) return { tenant, key, adminKey };
  if (key === undefined && adminKey === undefined) return null;
  throw new ConfigError(['TALLYLINE_BOOTSTRAP_TENANT is required beside a bootstrap key']);
}
