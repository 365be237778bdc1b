-- What the aggregator writes. Every table is a ReplacingMergeTree whose version is the position of the log
-- that a row speaks for, so writing a row again, later or by another owner changes nothing.
--
-- Durable means on disk: each table syncs its parts and their folders on insert. Without it a power loss takes
-- acknowledged rows. TALLYLINE_CLICKHOUSE_FSYNC=0 switches it off where a test or a cache does not need it.

-- The truth: every counted event, once. The first in the log wins: `first_write` falls as the position rises.
-- Hour before type and subject, because an hour's parts then merge in few long runs; identity comes last and
-- makes the key unique.
CREATE TABLE IF NOT EXISTS events (
  tenant LowCardinality(String),
  hour DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  type LowCardinality(String),
  subject String CODEC(ZSTD(1)),
  time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
  identity UUID,
  source LowCardinality(String),
  id String CODEC(ZSTD(1)),
  data Map(String, String) CODEC(ZSTD(1)),
  payload_hash UInt64 CODEC(NONE),
  accepted_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
  shard UInt16 CODEC(ZSTD(1)),
  position UInt64 CODEC(Delta, ZSTD(1)),
  first_write UInt64 MATERIALIZED bitNot(position) CODEC(Delta, ZSTD(1)),
  INDEX by_identity identity TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX by_position position TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(first_write)
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, type, subject, time, identity)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Absolute totals of an hour, all aggregations at once. `dimensions` are the values of the meter's groupBy, in
-- its order, '' for one that the event lacked. A row holds the events of its shard up to `position`.
CREATE TABLE IF NOT EXISTS rollup_hour (
  tenant LowCardinality(String),
  meter LowCardinality(String),
  subject String CODEC(ZSTD(1)),
  hour DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  dimensions Array(String) CODEC(ZSTD(1)),
  shard UInt16 CODEC(ZSTD(1)),
  value_count UInt64 CODEC(T64, ZSTD(1)),
  value_sum Decimal(38, 9) CODEC(ZSTD(1)),
  value_min Decimal(38, 9) CODEC(ZSTD(1)),
  value_max Decimal(38, 9) CODEC(ZSTD(1)),
  value_latest Decimal(38, 9) CODEC(ZSTD(1)),
  latest_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
  latest_position UInt64 CODEC(Delta, ZSTD(1)),
  position UInt64 CODEC(Delta, ZSTD(1)),
  INDEX by_position position TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(position)
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, meter, subject, hour, dimensions, shard)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What was read and did not count, kept whole: conflicts, late events, rejections with their code. A message
-- that no decoder takes stands here once, with its bytes in base64 as `data['message']` and no tenant.
CREATE TABLE IF NOT EXISTS refused_events (
  tenant LowCardinality(String),
  verdict LowCardinality(String),
  code LowCardinality(String),
  type LowCardinality(String),
  subject String CODEC(ZSTD(1)),
  id String CODEC(ZSTD(1)),
  source LowCardinality(String),
  time DateTime64(3, 'UTC'),
  data Map(String, String) CODEC(ZSTD(1)),
  identity UUID,
  payload_hash UInt64,
  accepted_at DateTime64(3, 'UTC'),
  shard UInt16,
  position UInt64
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (tenant, shard, position)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Absolute counters of the conservation table: events by verdict (and code), and events read from the log.
CREATE TABLE IF NOT EXISTS verdict_totals (
  tenant LowCardinality(String),
  shard UInt16,
  verdict LowCardinality(String),
  code LowCardinality(String),
  count UInt64,
  position UInt64
) ENGINE = ReplacingMergeTree(position)
ORDER BY (tenant, shard, verdict, code)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS received_totals (
  tenant LowCardinality(String),
  shard UInt16,
  count UInt64,
  position UInt64
) ENGINE = ReplacingMergeTree(position)
ORDER BY (tenant, shard)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Meter definitions as the log told them, per shard. The first definition of a key stays.
CREATE TABLE IF NOT EXISTS meters (
  tenant LowCardinality(String),
  meter LowCardinality(String),
  event_type String,
  aggregation LowCardinality(String),
  value_property String,
  group_by Array(String),
  shard UInt16,
  position UInt64,
  first_write UInt64 MATERIALIZED bitNot(position)
) ENGINE = ReplacingMergeTree(first_write)
ORDER BY (tenant, meter, shard)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- How far a shard's log is in the tables above, and which log that was: the stream's creation time and the
-- SHA-256 of the last message. Written last in every flush. `accepted_at` is the acceptance time of the newest
-- block behind it.
CREATE TABLE IF NOT EXISTS watermarks (
  shard UInt16,
  incarnation UInt8,
  sequence UInt64,
  position UInt64,
  stream_created String,
  fingerprint String,
  accepted_at DateTime64(3, 'UTC'),
  flushed_at DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree(position)
ORDER BY shard
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
