-- fires when a rollup row differs from its raw events: a count, sum, minimum, maximum or latest value that the
-- events up to the watermark do not add up to, a row without events, or events without their row.
--
-- Rows that a running flush has written beyond the watermark are left out until it is there. A finding while
-- flushes run may be two tables read a moment apart; one that stands in two runs in a row is real.
WITH
  marks AS (SELECT shard AS mark_shard, position AS mark FROM watermark),
  contributions AS (
    SELECT e.tenant AS tenant, d.meter AS meter, e.subject AS subject, e.hour AS hour,
      arrayMap(path -> substringUTF8(e.data[path], 1, 256), d.group_by) AS dimensions,
      e.shard AS shard, e.time AS time, e.position AS position,
      if(d.aggregation = 'count', toDecimal128(1, 9), toDecimal128OrZero(e.data[d.value_property], 9)) AS value
    FROM event_rows AS e
    INNER JOIN meter_definitions AS d
      ON d.tenant = e.tenant AND d.event_type = e.type AND d.shard = e.shard
    INNER JOIN marks ON mark_shard = e.shard
    WHERE e.position > d.position AND e.position <= mark
  ),
  expected AS (
    SELECT tenant, meter, subject, hour, dimensions, shard,
      count() AS raw_count, sum(value) AS raw_sum, min(value) AS raw_min, max(value) AS raw_max,
      argMax(value, (time, position)) AS raw_latest, max(position) AS raw_position
    FROM contributions
    GROUP BY tenant, meter, subject, hour, dimensions, shard
  ),
  actual AS (
    SELECT tenant, meter, subject, hour, dimensions, shard,
      value_count, value_sum, value_min, value_max, value_latest, position AS row_position, mark
    FROM usage_rows
    LEFT JOIN marks ON mark_shard = shard
  )
SELECT tenant, meter, subject, hour, dimensions, shard,
  raw_count, value_count, raw_sum, value_sum, raw_min, value_min, raw_max, value_max, raw_latest, value_latest
FROM expected
FULL OUTER JOIN actual USING (tenant, meter, subject, hour, dimensions, shard)
WHERE (row_position <= mark OR value_count = 0)
  AND (raw_count != value_count OR raw_sum != value_sum OR raw_min != value_min OR raw_max != value_max
    OR raw_latest != value_latest OR raw_position != row_position)
LIMIT 100
SETTINGS join_use_nulls = 0
