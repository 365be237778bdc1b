-- What others read. The tables may change; these names and columns stay. FINAL makes a half-merged table
-- exact: one row a key, the one with the highest version.

CREATE VIEW IF NOT EXISTS usage_rows AS
SELECT tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min, value_max,
  value_latest, latest_time, latest_position, position
FROM rollup_hour FINAL;

-- Which rows changed between two positions of a shard. Without FINAL: a row may show more than once and at
-- older positions, which for "what changed" is no harm and reads far less.
CREATE VIEW IF NOT EXISTS usage_changes AS
SELECT tenant, meter, subject, hour, shard, position
FROM rollup_hour;

CREATE VIEW IF NOT EXISTS watermark AS
SELECT shard, position, accepted_at, flushed_at
FROM watermarks FINAL;

CREATE VIEW IF NOT EXISTS event_rows AS
SELECT tenant, hour, type, subject, time, identity, source, id, data, payload_hash, accepted_at, shard, position
FROM events FINAL;

CREATE VIEW IF NOT EXISTS refused AS
SELECT tenant, verdict, code, type, subject, id, source, time, data, identity, payload_hash, accepted_at, shard,
  position
FROM refused_events FINAL;

CREATE VIEW IF NOT EXISTS verdicts AS
SELECT tenant, shard, verdict, code, count, position
FROM verdict_totals FINAL;

CREATE VIEW IF NOT EXISTS received AS
SELECT tenant, shard, count, position
FROM received_totals FINAL;

-- `value_property` is '' for a count.
CREATE VIEW IF NOT EXISTS meter_definitions AS
SELECT tenant, meter, event_type, aggregation, value_property, group_by, shard, position
FROM meters FINAL;
