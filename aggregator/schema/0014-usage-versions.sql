-- What rows of rollups say, with FINAL and without: a row may come in several versions, of which the one with the highest
-- position holds, and two of the same position say the same (aggregator/recount.ts). For whoever knows the rows up to
-- some positions and asks for what is newer: the index on the position reaches what a few flushes have written, where
-- FINAL reads every version of all rows of the hours asked for. Rows of which nothing is left are among them.
CREATE VIEW IF NOT EXISTS usage_versions AS
SELECT tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min, value_max,
  value_latest, latest_time, latest_position, position
FROM rollup_hour;
