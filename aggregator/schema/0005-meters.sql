-- Versions of a meter, its filters and the bound of its groups; and what an event adds to which meter, as one view.

-- `versions_before` is 0 for the first definition of a key. (A column that joins the sorting key has no default
-- other than 0, so it counts the versions before and not the version itself.) `filters` are tuples of a property,
-- its values, and 1 when these are what the filter leaves out. `effective_from` is 1970 for a first version.
ALTER TABLE meters
  ADD COLUMN IF NOT EXISTS versions_before UInt32 AFTER meter,
  ADD COLUMN IF NOT EXISTS filters Array(Tuple(String, Array(String), UInt8)) AFTER group_by,
  ADD COLUMN IF NOT EXISTS groups_max UInt32 DEFAULT 10000 AFTER filters,
  ADD COLUMN IF NOT EXISTS effective_from DateTime('UTC') AFTER groups_max,
  MODIFY ORDER BY (tenant, meter, shard, versions_before);

-- One row a version. Of the version behind it in the same log, where there is one, `next_position` and `next_from`
-- say from which position and hour on that one holds; the highest numbers there are, where there is none.
CREATE OR REPLACE VIEW meter_definitions AS
SELECT tenant, meter, toUInt32(versions_before + 1) AS version, event_type, aggregation, value_property, group_by, filters,
  groups_max, effective_from, shard, position,
  leadInFrame(position, 1, toUInt64(18446744073709551615)) OVER versions AS next_position,
  leadInFrame(effective_from, 1, toDateTime(4294967295, 'UTC')) OVER versions AS next_from
FROM meters FINAL
WINDOW versions AS (PARTITION BY tenant, meter, shard ORDER BY versions_before
  ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING);

-- What each counted event adds to each meter: a row for an event and a meter that takes it. This says in SQL what
-- aggregator/prepare.ts does, and everything that reads raw events for a meter reads them here. An event belongs to
-- the last version that stands before it in the log and begins at or before its hour; positions and hours both rise
-- with the version, so it is the one whose successor does not hold yet.
--
-- `dimensions` are cut as in a rollup row; one that names the overflow group is in it in all dimensions. Which further
-- groups go there for want of room depends on all events of the hour: that is in `rollup_hour` only, and
-- checks/rollup-equals-raw.sql tells it from this. `value` is the text of the value property, `quantity` what a sum
-- adds: 1 for a count or a count of unique values.
CREATE OR REPLACE VIEW contributions AS
SELECT e.tenant AS tenant, d.meter AS meter, d.version AS version, e.subject AS subject, e.hour AS hour,
  if(has(arrayMap(path -> substringUTF8(e.data[path], 1, 256), d.group_by), '__overflow__'),
    arrayMap(path -> '__overflow__', d.group_by),
    arrayMap(path -> substringUTF8(e.data[path], 1, 256), d.group_by)) AS dimensions,
  e.shard AS shard, e.time AS time, e.position AS position, e.identity AS identity,
  e.data[d.value_property] AS value,
  if(d.aggregation IN ('count', 'unique_count'), toDecimal128(1, 9),
    toDecimal128OrZero(e.data[d.value_property], 9)) AS quantity,
  d.groups_max AS groups_max
FROM events AS e FINAL
INNER JOIN meter_definitions AS d ON d.tenant = e.tenant AND d.event_type = e.type AND d.shard = e.shard
WHERE e.position > d.position AND e.hour >= d.effective_from
  AND NOT (e.position > d.next_position AND e.hour >= d.next_from)
  AND arrayAll(filter -> has(filter.2, e.data[filter.1]) != filter.3, d.filters);
