-- fires when one identity stands in more than one raw row: an event was counted twice.
SELECT shard, identity, count() AS rows_stored, groupArray(5)(position) AS positions
FROM event_rows
GROUP BY shard, identity
HAVING rows_stored > 1
LIMIT 100
