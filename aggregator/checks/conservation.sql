-- fires when the events received from the log by a tenant and shard are not the sum of their verdicts: an event
-- was lost without a verdict, or has two.
--
-- Counters that a running flush has written beyond the watermark are left out until it is there.
SELECT tenant, shard, events_received, events_judged
FROM (
  SELECT tenant, shard, sum(taken) AS events_received, sum(judged) AS events_judged, max(position) AS newest
  FROM (
    SELECT tenant, shard, count AS taken, 0 AS judged, position FROM received
    UNION ALL
    SELECT tenant, shard, 0 AS taken, count AS judged, position FROM verdicts
  )
  GROUP BY tenant, shard
) AS totals
INNER JOIN watermark AS w ON w.shard = totals.shard
WHERE newest <= w.position AND events_received != events_judged
LIMIT 100
