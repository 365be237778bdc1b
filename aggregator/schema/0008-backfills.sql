-- Backfills of meters (contract/backfill.ts), and the rules by which events count: the versions of a meter, as far as
-- no backfill took their place, and the backfills.

-- What each log told of a backfill; the first to tell a change stays.
CREATE TABLE IF NOT EXISTS backfills (
  tenant LowCardinality(String),
  meter LowCardinality(String),
  backfill String,
  change LowCardinality(String),
  version UInt32,
  hour_from DateTime('UTC'),
  hour_to DateTime('UTC'),
  shard UInt16,
  position UInt64,
  first_write UInt64 MATERIALIZED bitNot(position)
) ENGINE = ReplacingMergeTree(first_write)
ORDER BY (tenant, meter, backfill, shard, change)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS backfill_changes AS
SELECT tenant, meter, backfill, change, version, hour_from, hour_to, shard, position
FROM backfills FINAL;

-- One row a backfill and shard, with the positions at which it was proposed, committed and reverted; 0 where it was not.
CREATE VIEW IF NOT EXISTS meter_backfills AS
SELECT tenant, meter, backfill, any(b.version) AS version, any(b.hour_from) AS hour_from, any(b.hour_to) AS hour_to,
  shard, maxIf(b.position, b.change = 'proposed') AS proposed, maxIf(b.position, b.change = 'committed') AS committed,
  maxIf(b.position, b.change = 'reverted') AS reverted
FROM backfills AS b FINAL
GROUP BY tenant, meter, backfill, shard;

-- By which rule an event counts for a meter, of the events of a shard with `hour_from` <= hour < `hour_to`. In force
-- from position `since` on and before `until`. It takes the events behind `events_after`, except those that are both
-- behind `next_position` and in an hour from `next_from` on: these belong to the next version. Between the pairs of
-- positions in `unjudged` events were judged by another rule, and may lack the value that this one needs.
--
-- A version holds for every hour from its first on, but not while a backfill holds the hour: its hours fall into pieces
-- at the bounds of the meter's backfills, and in each piece the time falls into what lies before, between and behind
-- the backfills of the piece, of which no two hold at a time.
CREATE VIEW IF NOT EXISTS meter_rules AS
SELECT d.tenant AS tenant, d.meter AS meter, d.version AS version, d.event_type AS event_type,
  d.aggregation AS aggregation, d.value_property AS value_property, d.group_by AS group_by, d.filters AS filters,
  d.groups_max AS groups_max, d.shard AS shard, rule.1 AS events_after, rule.2 AS next_position,
  rule.3 AS next_from, rule.4 AS hour_from, rule.5 AS hour_to, rule.6 AS since, rule.7 AS until, rule.8 AS unjudged
FROM meter_definitions AS d
LEFT JOIN (
  SELECT tenant, meter, shard,
    groupArray((hour_from, hour_to, committed, if(reverted = 0, 18446744073709551615, reverted), version)) AS held
  FROM meter_backfills WHERE committed > 0 GROUP BY tenant, meter, shard
) AS h ON h.tenant = d.tenant AND h.meter = d.meter AND h.shard = d.shard
ARRAY JOIN arrayConcat(
  -- The version: for each piece of hours, the times from the end of a backfill (or 0) to the beginning of the next.
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
    [(toUInt64(0), one.3)]), arrayFilter(one -> one.5 = d.version, h.held))) AS rule
-- Behind a backfill that is not reverted there is nothing.
WHERE rule.6 < 18446744073709551615;

-- As in 0007-corrections.sql, by the rules. A row adds from `since` on: the position of its event, or later, where a
-- backfill began or ended; and not any more from `until` on: when its rule ended, or its event was retired. The rule
-- itself holds from `era` on and before `era_end`: in each era the groups of an hour find their places anew
-- (aggregator/group-book.ts).
--
-- What was judged by another rule may lack a value, or have one that is no quantity: then it adds nothing here. (The
-- text `null` is taken for what it looks like.) The pattern says in SQL what parseQuantity of contract/quantity.ts
-- does. Looking at every value costs a fifth of the time of a question over millions of events; a part of its own for the
-- rules that need it would cost every question twice the planning, and most questions are small.
CREATE OR REPLACE VIEW contributions AS
SELECT e.tenant AS tenant, r.meter AS meter, r.version AS version, e.subject AS subject, e.hour AS hour,
  if(has(arrayMap(path -> substringUTF8(e.data[path], 1, 256), r.group_by), '__overflow__'),
    arrayMap(path -> '__overflow__', r.group_by),
    arrayMap(path -> substringUTF8(e.data[path], 1, 256), r.group_by)) AS dimensions,
  e.shard AS shard, e.time AS time, e.position AS position, e.identity AS identity,
  e.data[r.value_property] AS value,
  if(r.aggregation IN ('count', 'unique_count'), toDecimal128(1, 9),
    toDecimal128OrZero(e.data[r.value_property], 9)) AS quantity,
  r.groups_max AS groups_max, r.since AS era, r.until AS era_end,
  greatest(e.position, r.since) AS since,
  if(ifNull(c.position, 0) = 0, r.until, least(r.until, assumeNotNull(c.position))) AS until
FROM events AS e FINAL
INNER JOIN meter_rules AS r ON r.tenant = e.tenant AND r.event_type = e.type AND r.shard = e.shard
LEFT ANY JOIN corrections AS c ON c.tenant = e.tenant AND c.hour = e.hour AND c.retired = e.identity
WHERE e.position > r.events_after AND e.hour >= r.hour_from AND e.hour < r.hour_to AND e.position < r.until
  AND NOT (e.position > r.next_position AND e.hour >= r.next_from)
  AND arrayAll(filter -> has(filter.2, e.data[filter.1]) != filter.3, r.filters)
  AND (ifNull(c.position, 0) = 0 OR c.position > r.since)
  AND (NOT arrayExists(span -> e.position > span.1 AND e.position < span.2, r.unjudged)
    OR multiIf(
      r.aggregation = 'count', 1,
      r.aggregation = 'unique_count',
      mapContains(e.data, r.value_property) AND e.data[r.value_property] != 'null',
      length(e.data[r.value_property]) <= 64
        AND match(e.data[r.value_property], '^-?(0|[1-9][0-9]{0,17})([.][0-9]{1,9}0*)?$')));

-- What each event would add to a meter if a backfill were committed now, in whatever state it is: as `contributions`.
CREATE VIEW IF NOT EXISTS proposed_contributions AS
SELECT r.backfill AS backfill, e.tenant AS tenant, r.meter AS meter, e.subject AS subject, e.hour AS hour,
  e.shard AS shard, e.time AS time, e.position AS position, e.data[r.value_property] AS value,
  if(r.aggregation IN ('count', 'unique_count'), toDecimal128(1, 9),
    toDecimal128OrZero(e.data[r.value_property], 9)) AS quantity,
  multiIf(
    r.aggregation = 'count', 1,
    r.aggregation = 'unique_count',
    mapContains(e.data, r.value_property) AND e.data[r.value_property] != 'null',
    length(e.data[r.value_property]) <= 64
      AND match(e.data[r.value_property], '^-?(0|[1-9][0-9]{0,17})([.][0-9]{1,9}0*)?$')) AS is_counted
FROM events AS e FINAL
INNER JOIN (
  SELECT b.backfill AS backfill, b.hour_from AS hour_from, b.hour_to AS hour_to, d.tenant AS tenant, d.meter AS meter,
    d.shard AS shard, d.event_type AS event_type, d.aggregation AS aggregation, d.value_property AS value_property,
    d.filters AS filters
  FROM meter_backfills AS b
  INNER JOIN meter_definitions AS d
    ON d.tenant = b.tenant AND d.meter = b.meter AND d.shard = b.shard AND d.version = b.version
) AS r ON r.tenant = e.tenant AND r.event_type = e.type AND r.shard = e.shard
LEFT ANY JOIN corrections AS c ON c.tenant = e.tenant AND c.hour = e.hour AND c.retired = e.identity
WHERE e.hour >= r.hour_from AND e.hour < r.hour_to AND ifNull(c.position, 0) = 0
  AND arrayAll(filter -> has(filter.2, e.data[filter.1]) != filter.3, r.filters);
