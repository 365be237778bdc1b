-- fires when the rules by which events count are not those that follow from the meters and their backfills, up to the
-- watermark of their shard.
SELECT d.tenant AS tenant, d.meter AS meter, d.version AS version, d.shard AS shard, d.rules AS derived,
  s.rules AS stored
FROM derived_rules AS d
LEFT JOIN (SELECT * FROM rule_sets FINAL) AS s
  ON s.tenant = d.tenant AND s.meter = d.meter AND s.shard = d.shard AND s.version = d.version
INNER JOIN watermark AS w ON w.shard = d.shard
WHERE (d.rules != s.rules OR d.event_type != s.event_type OR d.aggregation != s.aggregation
    OR d.value_property != s.value_property OR d.group_by != s.group_by OR d.filters != s.filters
    OR d.groups_max != s.groups_max)
  -- What no watermark vouches for yet is not taken over yet either.
  AND (d.tenant, d.meter, d.shard) NOT IN (
    SELECT m.tenant, m.meter, m.shard FROM (
      SELECT tenant, meter, shard, position FROM meters FINAL
      UNION ALL SELECT tenant, meter, shard, position FROM backfill_changes
    ) AS m
    INNER JOIN watermark AS of_shard ON of_shard.shard = m.shard
    WHERE m.position > of_shard.position
  )
LIMIT 100
SETTINGS join_use_nulls = 0
