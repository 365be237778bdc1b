/**
 * What ClickHouse works out for corrections: which event each of them retires, and the rollup rows that this changes.
 * recount.ts tells why rows are made anew and what makes that exact.
 *
 * Both are one INSERT ... SELECT over raw rows, so nothing that they say depends on who asks, or on how often.
 */
import { PATH_TARGET, PATH_VOIDS } from '../contract/corrections.ts';
import { OVERFLOW_GROUP } from '../contract/meter.ts';
import { guardPredicate, type ClickHouse, type Guard } from '../runtime/clickhouse.ts';
import type { CorrectionRange, Recount, RecountScope, SubjectHour } from './recount.ts';
import type { StoredRollup } from './rollup-key.ts';

const IN_RANGE = 'shard = {shard:UInt16} AND position > {behind:UInt64} AND position <= {last:UInt64}';
const NO_IDENTITY = "toUUID('00000000-0000-0000-0000-000000000000')";

// `fresh` are the corrections of the range, `linked` each with the one before it of the same original. One that is not
// fresh is settled: it stands in the table. The same row may be there twice, and a chain must not have it twice. Where
// the event that a correction should retire is not among the raw rows, it retires nothing: a crash may have written a
// part of a flush, and the log may have lost the rest before it was read again. Sent again, the original then stands
// behind its own amendment: so where that amendment is to be retired, it is looked for from its own position on.
const SETTLE = `
  INSERT INTO corrections (tenant, hour, retired, root, correction, kind, shard, position, type, subject, time)
  WITH
    fresh AS (
      SELECT toString(tenant) AS tenant, toUUIDOrZero(data['${PATH_TARGET}']) AS root, identity AS correction,
        if(mapContains(data, '${PATH_VOIDS}'), 'void', 'amend') AS kind, position
      FROM events
      WHERE ${IN_RANGE} AND mapContains(data, '${PATH_TARGET}')
    ),
    linked AS (
      SELECT tenant, root, correction, kind, position, lagInFrame(kind) OVER chain AS kind_before,
        lagInFrame(correction) OVER chain AS correction_before, lagInFrame(position) OVER chain AS position_before
      FROM (
        SELECT DISTINCT tenant, root, correction, kind, position FROM (
          SELECT tenant, root, correction, kind, position FROM fresh
          UNION ALL
          SELECT toString(tenant) AS tenant, root, correction, toString(kind) AS kind, position FROM corrections
          WHERE shard = {shard:UInt16} AND position <= {behind:UInt64} AND root IN (SELECT root FROM fresh)
        )
      )
      WINDOW chain AS (PARTITION BY root ORDER BY position ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ),
    aimed AS (
      SELECT tenant, root, correction, kind, position,
        multiIf(kind_before = '', root, kind_before = 'amend', correction_before, ${NO_IDENTITY}) AS target,
        if(kind_before = 'amend', position_before, 18446744073709551615) AS target_position
      FROM linked
      WHERE position > {behind:UInt64}
    )
  SELECT a.tenant, e.hour, e.identity, a.root, a.correction, a.kind, {shard:UInt16}, a.position, e.type, e.subject, e.time
  FROM aimed AS a
  LEFT ANY JOIN (
    SELECT identity, hour, toString(type) AS type, subject, time FROM events
    WHERE shard = {shard:UInt16} AND position <= {last:UInt64}
      AND position >= least({originals:UInt64}, (SELECT min(target_position) FROM aimed))
      AND identity IN (SELECT target FROM aimed)
  ) AS e ON e.identity = a.target
  WHERE FENCE
  SETTINGS join_use_nulls = 0`;

export async function settleCorrections(ch: ClickHouse, range: CorrectionRange, fence: Guard): Promise<void> {
  await ch.command(SETTLE.replace('FENCE', guardPredicate(fence)), { ...rangeOf(range), ...fence.params });
}

/** Corrections of the range that retire something. */
const RETIRING = `SELECT tenant, subject, hour FROM corrections WHERE ${IN_RANGE} AND toUnixTimestamp(hour) > 0`;

export async function loadRetired(ch: ClickHouse, range: CorrectionRange): Promise<SubjectHour[]> {
  return ch.rows<SubjectHour>(
    `SELECT tenant, subject, toUnixTimestamp(hour) AS hourSeconds FROM (${RETIRING})
     GROUP BY tenant, subject, hourSeconds`,
    rangeOf(range),
  );
}

/** The rows of a scope among contributions, and the hours of tenants that they lie in. */
interface ScopeSql {
  readonly rows: string;
  readonly hours: string;
  readonly params: Readonly<Record<string, unknown>>;
}

function scopeSql(scope: RecountScope): ScopeSql {
  if (scope.kind === 'meter') {
    const { tenant, meter, fromSeconds, toSeconds } = scope;
    const rows = `tenant = {tenant:String} AND meter = {meter:String}
      AND hour >= toDateTime({from:UInt32}, 'UTC') AND hour < toDateTime({to:UInt32}, 'UTC')`;
    const params = { shard: scope.shard, tenant, meter, from: fromSeconds, to: toSeconds };
    return { rows, hours: rows, params };
  }
  const changed =
    scope.kind === 'corrections'
      ? RETIRING
      : `${RETIRING} UNION ALL SELECT tenant, subject, hour FROM events WHERE ${IN_RANGE}`;
  // One condition for each column, besides that on all three: these reach the primary key through the view.
  const hours = `tenant IN (SELECT tenant FROM (${changed})) AND hour IN (SELECT hour FROM (${changed}))`;
  return {
    rows: `${hours} AND (tenant, subject, hour) IN (SELECT tenant, subject, hour FROM (${changed}))`,
    hours,
    params: rangeOf(scope.range),
  };
}

// Of everything that ever added to a row, what still does.
const recountSql = (rows: string, placed: string, having: string): string => `
  INSERT INTO rollup_hour (tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min,
    value_max, value_latest, latest_time, latest_position, position)
  SELECT tenant, meter, subject, hour, ${placed} AS placed,
    {shard:UInt16} AS of_shard, countIf(holds) AS n, sumIf(quantity, holds) AS total, minIf(quantity, holds) AS least,
    maxIf(quantity, holds) AS most, argMaxIf(quantity, (time, position), holds) AS newest_value,
    maxIf(time, holds) AS newest_time, argMaxIf(position, (time, position), holds) AS newest_place,
    greatest(max(since), maxIf(until, NOT holds)) AS version
  FROM (
    SELECT tenant, meter, subject, hour, era, dimensions, quantity, time, position, since, until,
      until > {cut:UInt64} AS holds
    FROM contributions
    WHERE shard = {shard:UInt16} AND since <= {cut:UInt64} AND ${rows}
  )
  GROUP BY tenant, meter, subject, hour, placed
  HAVING ${having} AND FENCE
  SETTINGS optimize_on_insert = 0, max_partitions_per_insert_block = 0`;

// Which groups have rows of their own is a function of the raw rows too, retired ones included: the first of the log,
// as group-book.ts tells. Where a backfill began or ended, it is worked out for each rule by which the hour was counted
// (`era`), for the rows that it had as for those that it has.
const placedAmong = (hours: string): string => `
    if((tenant, meter, hour, era, dimensions) IN (
      SELECT tenant, meter, hour, era, arrayJoin(arraySlice(
        arrayMap(one -> one.2, arraySort(groupArray((came_first, dimensions)))), groups_max + 1))
      FROM (
        SELECT tenant, meter, hour, era, dimensions, groups_max, min((since, position)) AS came_first
        FROM contributions
        WHERE shard = {shard:UInt16} AND since <= {cut:UInt64} AND ${hours}
          AND notEmpty(dimensions) AND NOT has(dimensions, '${OVERFLOW_GROUP}')
        GROUP BY tenant, meter, hour, era, dimensions, groups_max
      )
      GROUP BY tenant, meter, hour, era, groups_max
      HAVING count() > groups_max
    ), arrayMap(one -> '${OVERFLOW_GROUP}', dimensions), dimensions)`;

export async function recount(
  ch: ClickHouse,
  { scope, until, overflowing }: Recount,
  fence: Guard,
): Promise<void> {
  const { rows, hours, params } = scopeSql(scope);
  // Working out the places of groups reads the hours of all subjects, so it is done only where a place can matter. What
  // a crashed flush left may lack the overflow row that would tell, and a backfill brings groups of its own.
  const mayOverflow =
    scope.kind !== 'corrections' || overflowing.length > 0 || (await hasOverflow(ch, hours, params));
  const having = scope.kind === 'unfinished' ? 'version > {behind:UInt64}' : '1';
  const sql = recountSql(rows, mayOverflow ? placedAmong(hours) : 'dimensions', having);
  await ch.command(sql.replace('FENCE', guardPredicate(fence)), {
    ...params,
    cut: until.toString(),
    ...fence.params,
  });
}

/** Whether any row of these hours is an overflow group's. */
async function hasOverflow(ch: ClickHouse, hours: string, params: ScopeSql['params']): Promise<boolean> {
  const found = await ch.rows(
    `SELECT 1 FROM rollup_hour WHERE shard = {shard:UInt16} AND ${hours} AND has(dimensions, '${OVERFLOW_GROUP}') LIMIT 1`,
    params,
  );
  return found.length > 0;
}

export async function loadScope(ch: ClickHouse, scope: RecountScope): Promise<StoredRollup[]> {
  const { rows, params } = scopeSql(scope);
  // With the meters of the tenants the condition is on the whole beginning of the primary key.
  const keys =
    scope.kind === 'meter'
      ? rows
      : `(tenant, meter, subject, hour) IN (
          SELECT c.tenant, m.meter, c.subject, c.hour FROM (${RETIRING}) AS c
          INNER JOIN (SELECT DISTINCT tenant, meter FROM meters) AS m ON m.tenant = c.tenant)`;
  return ch.rows<StoredRollup>(
    `SELECT tenant, meter, subject, toUnixTimestamp(hour) AS hourSeconds, dimensions, value_count, value_sum,
       value_min, value_max, value_latest, toString(toUnixTimestamp64Milli(latest_time)) AS latest_time_ms,
       latest_position, position
     FROM rollup_hour FINAL
     WHERE shard = {shard:UInt16} AND ${keys}`,
    params,
  );
}

function rangeOf({ shard, behind, until, originalsFrom }: CorrectionRange): Record<string, unknown> {
  return {
    shard,
    behind: behind.toString(),
    last: until.toString(),
    originals: originalsFrom.toString(),
  };
}
