-- fires when an hour of a meter has more groups with rows of their own in a shard than the meter may have, or has an
-- overflow row that is not in the overflow group in all its dimensions. The bound is that of the rule by which the hour
-- counts now; where a backfill began or ended, empty rows are of groups that lost their places then.
SELECT tenant, meter, hour, shard, own_groups, groups_max, half_overflowed
FROM (
  SELECT u.tenant AS tenant, u.meter AS meter, u.hour AS hour, u.shard AS shard, d.groups_max AS groups_max,
    uniqExactIf(u.dimensions, NOT has(u.dimensions, '__overflow__')) AS own_groups,
    countIf(has(u.dimensions, '__overflow__') AND arrayUniq(u.dimensions) > 1) AS half_overflowed
  FROM usage_states AS u
  INNER JOIN meter_rules AS d ON d.tenant = u.tenant AND d.meter = u.meter AND d.shard = u.shard
  INNER JOIN watermark AS w ON w.shard = u.shard
  WHERE u.hour >= d.hour_from AND u.hour < d.hour_to AND u.hour < d.next_from AND d.since <= w.position
    AND d.until > w.position AND (d.since = 0 OR u.value_count > 0) AND notEmpty(u.dimensions)
  GROUP BY tenant, meter, hour, shard, groups_max
)
WHERE own_groups > groups_max OR half_overflowed > 0
LIMIT 100
