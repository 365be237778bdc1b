/** What ClickHouse keeps of backfills (contract/backfill.ts). What they make of raw rows is the view `contributions`. */
import { backfillMistakes, type BackfillChange } from '../contract/backfill.ts';
import type { BackfillChanged } from '../contract/control.ts';
import { OVERFLOW_GROUP } from '../contract/meter.ts';
import { endOfMessage } from '../contract/position.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { BackfillAt } from './ports.ts';
import type { RecountScope } from './recount.ts';
import type { Watermark } from './watermark.ts';

/** A row of `backfills`. */
export function backfillRow({ shard, position, changed: { tenant, change, backfill } }: BackfillAt): object {
  const { id, meter, version, fromMs, toMs } = backfill;
  return {
    tenant,
    meter,
    backfill: id,
    change,
    version,
    hour_from: fromMs / 1_000,
    hour_to: toMs / 1_000,
    shard,
    position,
  };
}

/** The changes up to a watermark, in the order of the log. */
export async function loadBackfills(
  ch: ClickHouse,
  shard: number,
  { incarnation, sequence }: Watermark,
): Promise<BackfillChanged[]> {
  const rows = await ch.rows<{
    tenant: string;
    meter: string;
    backfill: string;
    change: BackfillChange;
    version: number;
    from_seconds: number;
    to_seconds: number;
  }>(
    `SELECT tenant, meter, backfill, change, version, toUnixTimestamp(hour_from) AS from_seconds,
       toUnixTimestamp(hour_to) AS to_seconds
     FROM backfill_changes
     WHERE shard = {shard:UInt16} AND position <= {position:UInt64} ORDER BY position`,
    { shard, position: endOfMessage(incarnation, sequence).toString() },
  );
  return rows.map((row): BackfillChanged => {
    const { tenant, change, meter, version } = row;
    const [fromMs, toMs] = [row.from_seconds * 1_000, row.to_seconds * 1_000];
    const backfill = { id: row.backfill, meter, version, fromMs, toMs };
    if (backfillMistakes(backfill).length > 0)
      throw new Error(`the stored backfill ${JSON.stringify(row.backfill)} is not sound`);
    return { tenant, change, backfill };
  });
}

/** The hours that backfills were committed or reverted in between two positions. */
export async function loadChangedScopes(
  ch: ClickHouse,
  o: { shard: number; behind: bigint; until: bigint },
): Promise<RecountScope[]> {
  const rows = await ch.rows<{ tenant: string; meter: string; from_seconds: number; to_seconds: number }>(
    `SELECT DISTINCT tenant, meter, toUnixTimestamp(hour_from) AS from_seconds, toUnixTimestamp(hour_to) AS to_seconds
     FROM backfill_changes
     WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position <= {until:UInt64}
       AND change != 'proposed'`,
    { shard: o.shard, behind: o.behind.toString(), until: o.until.toString() },
  );
  return rows.map(({ tenant, meter, from_seconds, to_seconds }) => ({
    kind: 'meter',
    shard: o.shard,
    tenant,
    meter,
    fromSeconds: from_seconds,
    toSeconds: to_seconds,
  }));
}

/**
 * The hours of a meter, in parts that are recounted one after the other: so many that none has more than a bound of
 * events, unless a day has, and each in one month. One that is large costs memory; many cost time, since a question
 * takes some hundred milliseconds however little it reads.
 */
export async function partsOf(ch: ClickHouse, scope: RecountScope): Promise<RecountScope[]> {
  if (scope.kind !== 'meter') return [scope];
  const { shard, tenant, fromSeconds, toSeconds } = scope;
  const days = await ch.rows<{ day: string | number; month: string | number; events: string }>(
    `SELECT toUnixTimestamp(toStartOfDay(hour, 'UTC')) AS day, toYYYYMM(hour) AS month, count() AS events FROM events
     WHERE shard = {shard:UInt16} AND tenant = {tenant:String}
       AND hour >= toDateTime({from:UInt32}, 'UTC') AND hour < toDateTime({to:UInt32}, 'UTC')
     GROUP BY day, month ORDER BY day`,
    { shard, tenant, from: fromSeconds, to: toSeconds },
  );
  const parts: { fromSeconds: number; toSeconds: number }[] = [];
  let [month, events] = [0, 0];
  for (const one of days) {
    const day = Number(one.day);
    events += Number(one.events);
    const last = parts.at(-1);
    const ends = Math.min(day + DAY_SECONDS, toSeconds);
    if (last === undefined || month !== Number(one.month) || events > PART_EVENTS_MAX) {
      parts.push({ fromSeconds: Math.max(day, fromSeconds), toSeconds: ends });
      events = Number(one.events);
    } else last.toSeconds = ends;
    month = Number(one.month);
  }
  return parts.map((part) => ({ ...scope, ...part }));
}

const DAY_SECONDS = 86_400;
const PART_EVENTS_MAX = 2_000_000;

/**
 * The groups that have rows of their own, of those of these hours (`MeterHour.text`) that a backfill ever held. In such
 * an hour groups find their places anew when a backfill begins or ends, and rows of the time before stay in the table,
 * empty: so it is asked of the events, by the rule that holds at the watermark. No message that changes a rule lies
 * between the watermark and the blocks that are placed, but for hours whose rows are made anew anyway.
 */
export async function loadFilledGroups(
  ch: ClickHouse,
  shard: number,
  meterHours: readonly string[],
): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  const held = await ch.rows<{ tenant: string; meter: string; from_seconds: number; to_seconds: number }>(
    `SELECT tenant, meter, toUnixTimestamp(hour_from) AS from_seconds, toUnixTimestamp(hour_to) AS to_seconds
     FROM meter_backfills WHERE shard = {shard:UInt16} AND committed > 0`,
    { shard },
  );
  const filled = meterHours
    .map((text) => ({ text, key: JSON.parse(text) as [string, string, number] }))
    .filter(({ key: [tenant, meter, hour] }) =>
      held.some(
        (one) =>
          one.tenant === tenant && one.meter === meter && hour >= one.from_seconds && hour < one.to_seconds,
      ),
    );
  for (const { text } of filled) found.set(text, []);
  for (let from = 0; from < filled.length; from += HOURS_MAX) {
    const asked = filled.slice(from, from + HOURS_MAX).map(({ key }) => key);
    const rows = await ch.rows<{
      tenant: string;
      meter: string;
      hour_seconds: number;
      groups: string[][];
    }>(FILLED_GROUPS, {
      shard,
      asked: JSON.stringify(asked),
      hours: [...new Set(asked.map(([, , hour]) => hour))],
    });
    for (const { tenant, meter, hour_seconds, groups } of rows) {
      const key = JSON.stringify([tenant, meter, hour_seconds]);
      found.set(key, [...(found.get(key) ?? []), ...groups.map((dimensions) => JSON.stringify(dimensions))]);
    }
  }
  return found;
}

/** Hours of meters in one question: their texts travel as a parameter. */
const HOURS_MAX = 500;

const FILLED_GROUPS = `
  SELECT tenant, meter, toUnixTimestamp(hour) AS hour_seconds,
    arraySlice(arrayMap(one -> one.2, arraySort(groupArray((came_first, dimensions)))), 1, groups_max) AS groups
  FROM (
    SELECT tenant, meter, hour, dimensions, groups_max, min((since, position)) AS came_first
    FROM contributions
    WHERE shard = {shard:UInt16} AND hour IN (SELECT toDateTime(arrayJoin({hours:Array(UInt32)}), 'UTC'))
      AND (tenant, meter, hour) IN (
        SELECT one.1, one.2, toDateTime(one.3, 'UTC') FROM (
          SELECT arrayJoin(JSONExtract({asked:String}, 'Array(Tuple(String, String, UInt32))')) AS one))
      AND era <= (SELECT max(position) FROM watermarks WHERE shard = {shard:UInt16})
      AND era_end > (SELECT max(position) FROM watermarks WHERE shard = {shard:UInt16})
      AND notEmpty(dimensions) AND NOT has(dimensions, '${OVERFLOW_GROUP}')
    GROUP BY tenant, meter, hour, dimensions, groups_max
  )
  GROUP BY tenant, meter, hour, groups_max`;
