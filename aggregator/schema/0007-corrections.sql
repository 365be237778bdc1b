-- Corrections: events that take back an earlier one, or stand in its place (contract/corrections.ts, and
-- aggregator/corrections.ts for how they are worked out).

-- One row for each counted correction: which event it retires, and where in the log. All of it follows from raw rows:
-- the first correction of an original retires the original, one that comes after an amendment retires that amendment,
-- and one that comes after a void retires nothing. So an event is retired once at most, and the last correction of an
-- original holds. `root` is the identity of the original, `correction` that of the correction itself; `hour`, `type`,
-- `subject` and `time` are those of the retired event. A correction that retires nothing has zeros there, and 1970.
CREATE TABLE IF NOT EXISTS corrections (
  tenant LowCardinality(String),
  hour DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
  retired UUID,
  root UUID,
  correction UUID,
  kind LowCardinality(String),
  shard UInt16 CODEC(ZSTD(1)),
  position UInt64 CODEC(Delta, ZSTD(1)),
  type LowCardinality(String),
  subject String CODEC(ZSTD(1)),
  time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
  INDEX by_root root TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX by_position position TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree
ORDER BY (tenant, hour, retired, root, position)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- A row whose events are all retired stays, with nothing in it: it says that its hour changed, and that its group has a
-- row of its own (aggregator/group-book.ts). Who reads usage does not see it; who compares does, in usage_states.
CREATE OR REPLACE VIEW usage_rows AS
SELECT tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min, value_max,
  value_latest, latest_time, latest_position, position
FROM rollup_hour FINAL
WHERE value_count > 0;

-- As in 0005-meters.sql, and when it held: a row adds to its meter from the position `since` of its shard on, and from
-- `until` on it does not any more; 18446744073709551615 stands for never. Who reads usage as of a cut takes what has
-- since <= cut AND until > cut, and who reads the present what has until = 18446744073709551615.
--
-- ANY: of two equal rows of `corrections` that were not merged yet, one.
CREATE OR REPLACE VIEW contributions AS
SELECT e.tenant AS tenant, d.meter AS meter, d.version AS version, e.subject AS subject, e.hour AS hour,
  if(has(arrayMap(path -> substringUTF8(e.data[path], 1, 256), d.group_by), '__overflow__'),
    arrayMap(path -> '__overflow__', d.group_by),
    arrayMap(path -> substringUTF8(e.data[path], 1, 256), d.group_by)) AS dimensions,
  e.shard AS shard, e.time AS time, e.position AS position, e.identity AS identity,
  e.data[d.value_property] AS value,
  if(d.aggregation IN ('count', 'unique_count'), toDecimal128(1, 9),
    toDecimal128OrZero(e.data[d.value_property], 9)) AS quantity,
  d.groups_max AS groups_max,
  e.position AS since,
  if(ifNull(c.position, 0) = 0, toUInt64(18446744073709551615), assumeNotNull(c.position)) AS until
FROM events AS e FINAL
INNER JOIN meter_definitions AS d ON d.tenant = e.tenant AND d.event_type = e.type AND d.shard = e.shard
LEFT ANY JOIN corrections AS c ON c.tenant = e.tenant AND c.hour = e.hour AND c.retired = e.identity
WHERE e.position > d.position AND e.hour >= d.effective_from
  AND NOT (e.position > d.next_position AND e.hour >= d.next_from)
  AND arrayAll(filter -> has(filter.2, e.data[filter.1]) != filter.3, d.filters);

-- Which hours lost an event between two positions of a shard, as event_changes says where they got one. Without
-- FINAL, as there.
CREATE VIEW IF NOT EXISTS correction_changes AS
SELECT tenant, hour, shard, position
FROM corrections
WHERE toUnixTimestamp(hour) > 0;

-- Which event each correction retired, for who asks why an event does not count.
CREATE VIEW IF NOT EXISTS correction_rows AS
SELECT tenant, hour, retired, root, correction, kind, shard, position, type, subject, time
FROM corrections FINAL;

-- Last, because readers wait for it.
CREATE VIEW IF NOT EXISTS usage_states AS
SELECT tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min, value_max,
  value_latest, latest_time, latest_position, position
FROM rollup_hour FINAL;
