-- Which hours of raw events changed between two positions of a shard, as usage_changes says it of rollups. Without
-- FINAL: a row may show more than once and with an older position, which for "what changed" is no harm.
CREATE VIEW IF NOT EXISTS event_changes AS
SELECT tenant, hour, shard, position
FROM events;

-- Refused events are listed by when the usage was and by when it was accepted; both rise with the position, nearly.
ALTER TABLE refused_events
  ADD INDEX IF NOT EXISTS by_time time TYPE minmax GRANULARITY 1,
  ADD INDEX IF NOT EXISTS by_accepted accepted_at TYPE minmax GRANULARITY 1;
