-- The rules by which events count, worked out once for each change instead of for each question: planning a question
-- over `contributions` took twice the time.

-- What follows from meters and backfills: one row a version of a meter and shard, as in 0008-backfills.sql, with its
-- rules as an array. `changes` is how many definitions and changes of backfills it was worked out from.
CREATE VIEW IF NOT EXISTS derived_rules AS
SELECT d.tenant AS tenant, d.meter AS meter, d.shard AS shard, d.version AS version, d.event_type AS event_type,
  d.aggregation AS aggregation, d.value_property AS value_property, d.group_by AS group_by, d.filters AS filters,
  d.groups_max AS groups_max,
  arrayFilter(rule -> rule.6 < 18446744073709551615, arrayConcat(
    -- The version: for each piece of hours, the times from the end of a backfill (or 0) to the beginning of the next.
    -- Behind a backfill that is not reverted there is nothing.
    arrayFlatten(arrayMap(
      (first, last) -> arrayMap(
        (since, until, unjudged) -> (d.position, d.next_position, d.next_from, greatest(d.effective_from, first), last,
          since, until, unjudged),
        arrayPushFront(arraySort(arrayMap(one -> one.4,
          arrayFilter(one -> one.1 <= first AND one.2 > first, h.held))), 0),
        arrayPushBack(arraySort(arrayMap(one -> one.3,
          arrayFilter(one -> one.1 <= first AND one.2 > first, h.held))), 18446744073709551615),
        arrayMap(number -> arraySlice(arraySort(arrayMap(one -> (one.3, one.4),
            arrayFilter(one -> one.1 <= first AND one.2 > first, h.held))), 1, number),
          range(1 + arrayCount(one -> one.1 <= first AND one.2 > first, h.held)))),
      arraySort(arrayDistinct(arrayConcat(
        [toDateTime(0, 'UTC')], arrayMap(one -> one.1, h.held), arrayMap(one -> one.2, h.held)))),
      arrayPopFront(arraySort(arrayDistinct(arrayConcat(
        [toDateTime(0, 'UTC'), toDateTime(4294967295, 'UTC')], arrayMap(one -> one.1, h.held),
        arrayMap(one -> one.2, h.held))))))),
    -- The backfills that count by the version.
    arrayMap(one -> (toUInt64(0), 18446744073709551615, toDateTime(4294967295, 'UTC'), one.1, one.2, one.3, one.4,
      [(toUInt64(0), one.3)]), arrayFilter(one -> one.5 = d.version, h.held)))) AS rules,
  toUInt64(count() OVER (PARTITION BY d.tenant, d.meter, d.shard)) + h.changes AS changes
FROM meter_definitions AS d
LEFT JOIN (
  SELECT tenant, meter, shard,
    groupArrayIf((hour_from, hour_to, committed, if(reverted = 0, 18446744073709551615, reverted), version),
      committed > 0) AS held,
    sum(1 + (committed > 0) + (reverted > 0)) AS changes
  FROM meter_backfills GROUP BY tenant, meter, shard
) AS h ON h.tenant = d.tenant AND h.meter = d.meter AND h.shard = d.shard
SETTINGS join_use_nulls = 0;

-- What the aggregator takes over from there behind each change (aggregator/rules-store.ts). Whoever does it has written
-- its own change before, so what was worked out from most changes is the whole, and stays.
CREATE TABLE IF NOT EXISTS rule_sets (
  tenant LowCardinality(String),
  meter LowCardinality(String),
  shard UInt16,
  version UInt32,
  event_type String,
  aggregation LowCardinality(String),
  value_property String,
  group_by Array(String),
  filters Array(Tuple(String, Array(String), UInt8)),
  groups_max UInt32,
  rules Array(Tuple(UInt64, UInt64, DateTime('UTC'), DateTime('UTC'), DateTime('UTC'), UInt64, UInt64,
    Array(Tuple(UInt64, UInt64)))),
  changes UInt64
) ENGINE = ReplacingMergeTree(changes)
ORDER BY (tenant, meter, shard, version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

INSERT INTO rule_sets SELECT * FROM derived_rules;

-- One row a rule; 0008-backfills.sql tells what it says.
CREATE OR REPLACE VIEW meter_rules AS
SELECT tenant, meter, version, event_type, aggregation, value_property, group_by, filters, groups_max, shard,
  rule.1 AS events_after, rule.2 AS next_position, rule.3 AS next_from, rule.4 AS hour_from, rule.5 AS hour_to,
  rule.6 AS since, rule.7 AS until, rule.8 AS unjudged
FROM rule_sets FINAL
ARRAY JOIN rules AS rule;
