-- fires when an hour of a meter has more groups with rows of their own in a shard than the meter may have, or has an
-- overflow row that is not in the overflow group in all its dimensions.
SELECT tenant, meter, hour, shard, own_groups, groups_max, half_overflowed
FROM (
  SELECT u.tenant AS tenant, u.meter AS meter, u.hour AS hour, u.shard AS shard, d.groups_max AS groups_max,
    uniqExactIf(u.dimensions, NOT has(u.dimensions, '__overflow__')) AS own_groups,
    countIf(has(u.dimensions, '__overflow__') AND arrayUniq(u.dimensions) > 1) AS half_overflowed
  FROM usage_rows AS u
  INNER JOIN meter_definitions AS d ON d.tenant = u.tenant AND d.meter = u.meter AND d.shard = u.shard
  WHERE u.hour >= d.effective_from AND u.hour < d.next_from AND notEmpty(u.dimensions)
  GROUP BY tenant, meter, hour, shard, groups_max
)
WHERE own_groups > groups_max OR half_overflowed > 0
LIMIT 100
