/**
 * What a backfill would change: usage as it counts now beside usage as it would, of the hours of the backfill, from raw
 * events. Each question is one query over the events of these hours, within the limits of the connection that asks.
 *
 * A quantity is what the meter's aggregation makes of the events, exactly, and 0 of none. `change` is how far the
 * proposed one is above the present one.
 */
import type { Aggregation } from '../contract/meter.ts';
import { storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { StoredBackfill } from './backfills.ts';

export interface Difference {
  readonly eventsNow: bigint;
  readonly eventsProposed: bigint;
  readonly now: Quantity;
  readonly proposed: Quantity;
}

export interface SubjectDifference extends Difference {
  readonly subject: string;
}

export interface DayDifference extends Difference {
  /** Start of the day, UTC, epoch milliseconds. */
  readonly dayMs: number;
}

export interface WholeDifference extends Difference {
  /** Events that the version would take if they had a value that it can count. */
  readonly uncountable: bigint;
}

/** The quantity of the rows for which `of` holds. ClickHouse cuts a division of decimals, as an average is cut. */
export function quantitySql(aggregation: Aggregation, of: string): string {
  switch (aggregation) {
    case 'count':
      return `toDecimal128(countIf(${of}), 9)`;
    case 'sum':
      return `sumIf(quantity, ${of})`;
    case 'min':
      return `minIf(quantity, ${of})`;
    case 'max':
      return `maxIf(quantity, ${of})`;
    case 'latest':
      return `argMaxIf(quantity, (time, position), ${of})`;
    case 'average':
      return `divide(sumIf(quantity, ${of}), toDecimal128(greatest(countIf(${of}), 1), 0))`;
    case 'unique_count':
      return `toDecimal128(uniqExactIf(value, ${of}), 9)`;
  }
}

/** The rows of an hour as they count now (`is_now`), and as they would (`is_proposed`). */
export const BOTH = `
    SELECT subject, hour, quantity, value, time, position, 1 AS is_now, 0 AS is_proposed, 0 AS is_uncountable
    FROM contributions
    WHERE tenant = {tenant:String} AND meter = {meter:String} AND until = 18446744073709551615
      AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
    UNION ALL
    SELECT subject, hour, quantity, value, time, position, 0 AS is_now, is_counted AS is_proposed,
      NOT is_counted AS is_uncountable
    FROM proposed_contributions
    WHERE tenant = {tenant:String} AND meter = {meter:String} AND backfill = {id:String}
      AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}`;

const columns = (aggregation: Aggregation): string => `
  countIf(is_now = 1) AS events_now, countIf(is_proposed = 1) AS events_proposed,
  CAST(${quantitySql(aggregation, 'is_now = 1')}, 'Decimal(38, 9)') AS now_quantity,
  CAST(${quantitySql(aggregation, 'is_proposed = 1')}, 'Decimal(38, 9)') AS proposed_quantity`;

interface DifferenceRow {
  readonly events_now: string;
  readonly events_proposed: string;
  readonly now_quantity: string;
  readonly proposed_quantity: string;
}

const differenceOf = (row: DifferenceRow): Difference => ({
  eventsNow: BigInt(row.events_now),
  eventsProposed: BigInt(row.events_proposed),
  now: storedQuantity(row.now_quantity),
  proposed: storedQuantity(row.proposed_quantity),
});

export interface Asked {
  readonly backfill: StoredBackfill;
  readonly aggregation: Aggregation;
}

/** Behind which subject a page begins: its change without a sign, and itself. */
export interface SubjectKey {
  readonly change: string;
  readonly subject: string;
}

/** The subjects whose quantity or number of events changes, the largest change first. */
export async function readSubjectDifferences(
  ch: ClickHouse,
  { backfill, aggregation }: Asked,
  o: { after: SubjectKey | null; limit: number },
): Promise<SubjectDifference[]> {
  const rows = await ch.rows<DifferenceRow & { subject: string }>(
    `SELECT subject, ${columns(aggregation)}, abs(proposed_quantity - now_quantity) AS change
     FROM (${BOTH})
     GROUP BY subject
     HAVING (now_quantity != proposed_quantity OR events_now != events_proposed) AND ({paged:UInt8} = 0
       OR change < toDecimal128({change:String}, 9)
       OR (change = toDecimal128({change:String}, 9) AND subject > {subject:String}))
     ORDER BY change DESC, subject
     LIMIT {limit:UInt32}`,
    {
      ...parametersOf(backfill),
      paged: o.after === null ? 0 : 1,
      change: o.after?.change ?? '0',
      subject: o.after?.subject ?? '',
      limit: o.limit,
    },
  );
  return rows.map((row) => ({ subject: row.subject, ...differenceOf(row) }));
}

/** Of all subjects together, and by day: those that change. */
export async function readDayDifferences(
  ch: ClickHouse,
  { backfill, aggregation }: Asked,
): Promise<{ whole: WholeDifference; days: DayDifference[] }> {
  const rows = await ch.rows<
    DifferenceRow & { day: string | number; is_whole: number; uncountable_events: string }
  >(
    `SELECT toUnixTimestamp(day_start) AS day, grouping(day_start) AS is_whole, ${columns(aggregation)},
       countIf(is_uncountable = 1) AS uncountable_events
     FROM (SELECT *, toStartOfDay(hour, 'UTC') AS day_start FROM (${BOTH}))
     GROUP BY GROUPING SETS ((day_start), ())
     ORDER BY is_whole, day_start`,
    parametersOf(backfill),
  );
  const whole = rows.find((row) => Number(row.is_whole) === 1);
  return {
    whole:
      whole === undefined
        ? { ...NOTHING, uncountable: 0n }
        : { ...differenceOf(whole), uncountable: BigInt(whole.uncountable_events) },
    days: rows
      .filter((row) => Number(row.is_whole) === 0)
      .map((row) => ({ dayMs: Number(row.day) * 1_000, ...differenceOf(row) }))
      .filter((one) => one.now !== one.proposed || one.eventsNow !== one.eventsProposed),
  };
}

const NOTHING: Difference = { eventsNow: 0n, eventsProposed: 0n, now: 0n, proposed: 0n };

export function parametersOf({ tenant, meter, id, fromMs, toMs }: StoredBackfill): Record<string, unknown> {
  return { tenant, meter, id, from: second(fromMs), to: second(toMs) };
}

/** As ClickHouse reads a DateTime. */
const second = (ms: number): string => formatInstant(ms).slice(0, 19).replace('T', ' ');
