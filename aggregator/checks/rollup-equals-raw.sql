-- fires when a rollup row differs from its raw events: a count, sum, minimum, maximum or latest value that the
-- events up to the watermark do not add up to, a row without events, or events without their row.
--
-- Events that a correction up to the watermark retired add nothing, but their row stays: so what is expected is made of
-- all contributions, and says how many of them hold. The row's position is that of the last one that came, or went.
--
-- In an hour of a meter that has an overflow row in a shard, the first groups of the log, as many as the meter may
-- have, must have rows of their own, and all others together are the overflow row. (That an hour has no more groups
-- than it may have is checked by groups-within-bound.sql.) Where a backfill begins or ends, the groups of its hours find
-- their places anew (`era`), and the rows that they had before stay, with nothing in them.
--
-- Rows that a running flush has written beyond the watermark are left out until it is there. A finding while
-- flushes run may be two tables read a moment apart; one that stands in two runs in a row is real.
WITH
  marks AS (SELECT shard AS mark_shard, position AS mark FROM watermark),
  overflowing AS (
    SELECT DISTINCT tenant, meter, hour, shard FROM usage_states WHERE dimensions[1] = '__overflow__'
  ),
  overflowed AS (
    SELECT tenant, meter, hour, shard, era,
      arrayJoin(arraySlice(
        arrayMap(one -> one.2, arraySort(groupArray((first_position, dimensions)))), groups_max + 1)) AS dimensions
    FROM (
      SELECT tenant, meter, hour, shard, era, dimensions, groups_max, min((since, position)) AS first_position
      FROM contributions
      WHERE (tenant, meter, hour, shard) IN overflowing AND notEmpty(dimensions)
        AND NOT has(dimensions, '__overflow__')
      GROUP BY tenant, meter, hour, shard, era, dimensions, groups_max
    )
    GROUP BY tenant, meter, hour, shard, era, groups_max
  ),
  expected AS (
    SELECT tenant, meter, subject, hour,
      if((tenant, meter, hour, shard, era, dimensions) IN overflowed, arrayMap(one -> '__overflow__', dimensions),
        dimensions) AS placed,
      shard,
      countIf(until > mark) AS raw_count, sumIf(quantity, until > mark) AS raw_sum,
      minIf(quantity, until > mark) AS raw_min, maxIf(quantity, until > mark) AS raw_max,
      argMaxIf(quantity, (time, position), until > mark) AS raw_latest,
      greatest(max(since), maxIf(until, until <= mark)) AS raw_position
    FROM contributions
    INNER JOIN marks ON mark_shard = shard
    WHERE since <= mark
    GROUP BY tenant, meter, subject, hour, placed, shard
  ),
  actual AS (
    SELECT tenant, meter, subject, hour, dimensions AS placed, shard,
      value_count, value_sum, value_min, value_max, value_latest, position AS row_position, mark,
      1 AS is_there
    FROM usage_states
    LEFT JOIN marks ON mark_shard = shard
  )
SELECT tenant, meter, subject, hour, placed AS dimensions, shard,
  raw_count, value_count, raw_sum, value_sum, raw_min, value_min, raw_max, value_max, raw_latest, value_latest
FROM expected
FULL OUTER JOIN actual USING (tenant, meter, subject, hour, placed, shard)
WHERE (row_position <= mark OR is_there = 0)
  AND (raw_count != value_count OR raw_sum != value_sum OR raw_min != value_min OR raw_max != value_max
    OR raw_latest != value_latest OR raw_position != row_position)
LIMIT 100
SETTINGS join_use_nulls = 0
