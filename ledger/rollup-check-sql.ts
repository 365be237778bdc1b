/** The queries of rollup-check.ts, over the aggregator's views. */

const RANGE = `position > mapFromArrays({shards:Array(UInt16)}, {after:Array(UInt64)})[shard]
  AND position <= mapFromArrays({shards:Array(UInt16)}, {until:Array(UInt64)})[shard]
  AND shard IN {shards:Array(UInt16)} AND position > {least:UInt64} AND position <= {most:UInt64}`;

/** Hours that got or lost a raw event, or got a rollup row, between two positions of their shard. */
export const NOTE = `
SELECT tenant, toUnixTimestamp(hour) AS at FROM (
  SELECT tenant, hour FROM usage_changes WHERE ${RANGE}
  UNION ALL
  SELECT tenant, hour FROM event_changes WHERE ${RANGE}
  UNION ALL
  SELECT tenant, hour FROM correction_changes WHERE ${RANGE}
)
GROUP BY tenant, hour
LIMIT {limit:UInt32}`;

/** A list of hours of one tenant, or a range of hours of all. */
const SCOPE = `({tenant:String} = '' OR tenant = {tenant:String})
  AND ({isList:UInt8} = 0 OR hour IN {hours:Array(DateTime('UTC'))})
  AND ({isList:UInt8} = 1 OR (hour >= toDateTime({from:UInt32}, 'UTC') AND hour < toDateTime({to:UInt32}, 'UTC')))`;

/** Raw rows by hour, about: rows that wait for a merge count twice. */
export const WEIGH = `
SELECT toUnixTimestamp(hour) AS at, count() AS events FROM event_changes
WHERE ${SCOPE}
GROUP BY hour
ORDER BY hour`;

/** The first and last hour of everything. */
export const SPAN = `
SELECT toUnixTimestamp(min(h)) AS first, toUnixTimestamp(max(h)) AS last, count() AS hours FROM (
  SELECT min(hour) AS h FROM event_changes HAVING count() > 0
  UNION ALL SELECT max(hour) AS h FROM event_changes HAVING count() > 0
  UNION ALL SELECT min(hour) AS h FROM usage_changes HAVING count() > 0
  UNION ALL SELECT max(hour) AS h FROM usage_changes HAVING count() > 0
)`;

const MARK = 'mapFromArrays({shards:Array(UInt16)}, {marks:Array(UInt64)})[shard]';

/** What differs, but for rows that are being written beyond the marks. */
export const COMPARE = `
WITH raw AS (
  SELECT tenant, meter, subject, hour, count() AS n, sum(quantity) AS total, min(quantity) AS least,
    max(quantity) AS most, argMax(quantity, (time, position)) AS latest
  FROM contributions
  WHERE ${SCOPE} AND since <= ${MARK} AND until > ${MARK}
  GROUP BY tenant, meter, subject, hour
), rolled AS (
  SELECT tenant, meter, subject, hour, sum(value_count) AS n, sum(value_sum) AS total,
    minIf(value_min, value_count > 0) AS least, maxIf(value_max, value_count > 0) AS most,
    argMaxIf(value_latest, (latest_time, latest_position), value_count > 0) AS latest,
    max(position > ${MARK}) AS moving
  FROM usage_states
  WHERE ${SCOPE}
  GROUP BY tenant, meter, subject, hour
)
SELECT tenant, meter, subject, toUnixTimestamp(hour) AS at,
  map('rawCount', toString(raw.n), 'rollupCount', toString(rolled.n),
    'rawSum', toString(raw.total), 'rollupSum', toString(rolled.total),
    'rawMin', toString(raw.least), 'rollupMin', toString(rolled.least),
    'rawMax', toString(raw.most), 'rollupMax', toString(rolled.most),
    'rawLatest', toString(raw.latest), 'rollupLatest', toString(rolled.latest)) AS detail
FROM raw FULL OUTER JOIN rolled USING (tenant, meter, subject, hour)
WHERE NOT moving AND (raw.n != rolled.n OR raw.total != rolled.total OR raw.least != rolled.least
  OR raw.most != rolled.most OR raw.latest != rolled.latest)
LIMIT {limit:UInt32}`;

/** What is being written beyond the marks. */
export const MOVING = `
SELECT DISTINCT tenant, meter, subject, toUnixTimestamp(hour) AS at FROM usage_states
WHERE ${SCOPE} AND position > ${MARK}`;
