import { availableParallelism } from 'node:os';
import { flag, integer, text, url, type ConfigOf } from '../runtime/config.ts';
import type { BaseConfig } from '../runtime/lifecycle.ts';
import { logFields } from '../runtime/logs.ts';

export const MEBIBYTE = 1024 ** 2;

export const fields = {
  natsUrl: url('NATS_URL', { describe: 'NATS with JetStream', secret: true, protocols: ['nats', 'tls'] }),
  clickhouseUrl: url('CLICKHOUSE_URL', {
    describe: 'ClickHouse over HTTP, with user, password and database',
    secret: true,
    protocols: ['http', 'https'],
  }),
  ...logFields,
  owned: text('TALLYLINE_AGGREGATOR_SHARDS', {
    describe: 'shards that this process may take: all, or such as 0-1,3',
    default: 'all',
  }),
  name: text('TALLYLINE_AGGREGATOR_NAME', {
    describe:
      'name among the aggregators, unique; started again under it, a process takes its shards at once, not after the TTL',
    default: '',
  }),
  leaseTtlMs: integer('TALLYLINE_LEASE_TTL_MS', {
    describe: 'after how long without a heartbeat others take the shards of an aggregator',
    default: 5_000,
    min: 300,
    max: 600_000,
  }),
  threads: integer('TALLYLINE_AGGREGATOR_THREADS', {
    describe: 'worker threads',
    default: Math.max(1, Math.min(4, availableParallelism() - 1)),
    min: 1,
    max: 64,
  }),
  flushIntervalMs: integer('TALLYLINE_FLUSH_INTERVAL_MS', {
    describe: 'least time between the beginnings of two flushes',
    default: 500,
    min: 1,
    max: 60_000,
  }),
  flushEventsMax: integer('TALLYLINE_FLUSH_EVENTS_MAX', {
    describe: 'events that are flushed together; more begin a flush at once',
    default: 500_000,
    min: 1,
    max: 5_000_000,
  }),
  backlogBytesMax: integer('TALLYLINE_AGGREGATOR_BACKLOG_BYTES_MAX', {
    describe: 'bytes read from the log and not durable yet; reading waits beyond',
    default: 128 * MEBIBYTE,
    min: 64 * 1024,
    max: 2 ** 40,
  }),
  readBytesMax: integer('TALLYLINE_AGGREGATOR_READ_BYTES_MAX', {
    describe: 'bytes of one shard fetched ahead from NATS',
    default: 8 * MEBIBYTE,
    min: 64 * 1024,
    max: 2 ** 31,
  }),
  logSilenceMs: integer('TALLYLINE_AGGREGATOR_LOG_SILENCE_MS', {
    describe:
      'how long a log may deliver nothing before it is asked whether it has messages that it does not deliver',
    default: 10_000,
    min: 500,
    max: 3_600_000,
  }),
  dedupeKeysMax: integer('TALLYLINE_DEDUPE_KEYS_MAX', {
    describe:
      'identities kept exactly in memory, over all shards, at about 31 bytes each; older ones go into filters',
    default: 20_000_000,
    min: 1_000,
    max: 2_000_000_000,
  }),
  dedupeFilterBytesMax: integer('TALLYLINE_DEDUPE_FILTER_BYTES_MAX', {
    describe:
      'filters of older identities, over all shards, 2 bytes each; beyond, more is asked of ClickHouse',
    default: 256 * MEBIBYTE,
    min: 0,
    max: 2 ** 40,
  }),
  rollupRowsMax: integer('TALLYLINE_ROLLUP_ROWS_MAX', {
    describe:
      'rollup rows kept in memory, over all shards, at about 120 bytes each; an hour should not have more, since others are loaded when they are needed',
    default: 5_000_000,
    min: 100,
    max: 100_000_000,
  }),
  keepBytes: integer('TALLYLINE_LOG_KEEP_BYTES', {
    describe: 'bytes of a shard that stay in the log behind the watermark when it is purged',
    default: 64 * MEBIBYTE,
    min: 0,
    max: 2 ** 50,
  }),
  purge: flag('TALLYLINE_LOG_PURGE', {
    describe: 'purge a log behind the watermark when it is more than half full',
    default: true,
  }),
  fsync: flag('TALLYLINE_CLICKHOUSE_FSYNC', {
    describe: 'sync inserts to the disk; without it a power loss takes acknowledged rows',
    default: true,
  }),
  clickhouseTimeoutMs: integer('TALLYLINE_CLICKHOUSE_TIMEOUT_MS', {
    describe: 'how long one request to ClickHouse may take',
    default: 60_000,
    min: 100,
    max: 3_600_000,
  }),
};

export type Config = ConfigOf<typeof fields> & BaseConfig;
