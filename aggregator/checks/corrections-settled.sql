-- fires when a correction that counts has no row that says which event it retires, has more than one, or when one event
-- is retired by more than one correction: usage was taken out twice, or is still in.
--
-- Corrections beyond the watermark belong to a flush that is running.
SELECT tenant, shard, identity, rows_settled, retired_twice
FROM (
  SELECT e.tenant AS tenant, e.shard AS shard, e.identity AS identity, settled.n AS rows_settled, 0 AS retired_twice
  FROM event_rows AS e
  INNER JOIN watermark AS w ON w.shard = e.shard
  LEFT JOIN (SELECT correction, count() AS n FROM correction_rows GROUP BY correction) AS settled
    ON settled.correction = e.identity
  WHERE mapContains(e.data, 'tallyline.target') AND e.position <= w.position AND settled.n != 1
  UNION ALL
  SELECT tenant, shard, retired AS identity, count() AS rows_settled, 1 AS retired_twice
  FROM correction_rows
  WHERE toUnixTimestamp(hour) > 0
  GROUP BY tenant, shard, retired
  HAVING rows_settled > 1
)
LIMIT 100
SETTINGS join_use_nulls = 0
