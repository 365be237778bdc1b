-- fires when the number of raw events of a tenant and shard is not the number that was judged to count: a raw
-- row is missing, or there is one more than was ever counted.
SELECT totals.tenant AS tenant, totals.shard AS shard, totals.events_counted AS events_counted,
  raw.rows_stored AS rows_stored
FROM (
  SELECT v.tenant AS tenant, v.shard AS shard, v.count AS events_counted
  FROM verdicts AS v INNER JOIN watermark AS w ON w.shard = v.shard
  WHERE v.verdict = 'counted' AND v.position <= w.position
) AS totals
FULL OUTER JOIN (
  SELECT e.tenant AS tenant, e.shard AS shard, count() AS rows_stored
  FROM event_rows AS e INNER JOIN watermark AS w ON w.shard = e.shard
  WHERE e.position <= w.position
  GROUP BY tenant, shard
) AS raw ON raw.tenant = totals.tenant AND raw.shard = totals.shard
WHERE events_counted != rows_stored
  -- Counters beyond the watermark belong to a flush that is running.
  AND (if(totals.tenant = '' AND events_counted = 0, raw.tenant, totals.tenant),
       if(totals.tenant = '' AND events_counted = 0, raw.shard, totals.shard)) NOT IN (
    SELECT v.tenant, v.shard FROM verdicts AS v INNER JOIN watermark AS w ON w.shard = v.shard
    WHERE v.verdict = 'counted' AND v.position > w.position)
LIMIT 100
SETTINGS join_use_nulls = 0
