/**
 * Totals of customers, for a posting pass that knows some of them: of these what is newer is read (usage_versions), of
 * others the whole period, its open hours row by row. known-usage.ts tells why both come to the same.
 *
 * Everything is read in the posting turn, and up to now rather than up to the watermark: totals are as new as any that
 * may have been posted.
 */
import type { Totals } from '../contract/rollup.ts';
import { monthlyPeriod, type Window } from '../contract/window.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Db } from '../runtime/postgres.ts';
import { listCustomers, type Customer } from './customers.ts';
import { groupBy } from './group-by.ts';
import type { KnownUsage, UsageRow } from './known-usage.ts';
import { batchesOf, type Positions } from './usage-batches.ts';
import { readUsageTotals, totalsIn, type TotalsColumns } from './usage-totals.ts';

/** A customer's usage in a period. */
export interface UsageWanted {
  readonly customer: Customer;
  readonly period: Window;
}

const ROWS = (view: string, condition: string): string => `
  SELECT meter, subject, toUnixTimestamp(hour) AS at, concat(toString(shard), ' ', toJSONString(dimensions)) AS place,
    toString(position) AS version, toString(value_count) AS count, toString(value_sum) AS sum, toString(value_min) AS min,
    toString(value_max) AS max, toString(value_latest) AS latest,
    toString(toUnixTimestamp64Milli(latest_time)) AS latestTimeMs, toString(latest_position) AS latestPosition
  FROM ${view}
  WHERE tenant = {tenant:String} AND meter IN {meters:Array(String)} AND subject IN {subjects:Array(String)}
    AND hour >= toDateTime({from:UInt32}, 'UTC') AND hour < toDateTime({to:UInt32}, 'UTC')${condition}`;

const WHOLE = ROWS('usage_rows', '');
// A shard that is not among these has no position, and is asked for from the beginning. The least reaches the index.
const NEWER = ROWS(
  'usage_versions',
  `
    AND position > {least:UInt64}
    AND position > mapFromArrays({shards:Array(UInt16)}, {after:Array(UInt64)})[shard]`,
);

interface RowColumns extends TotalsColumns {
  meter: string;
  subject: string;
  at: number | string;
  place: string;
  version: string;
}

/** Customers that are read along with one that is unknown. */
const ALONG_MAX = 1_000;

/**
 * Further customers of a tenant to be read when some are unknown, so that the next ones that change are known already:
 * of 1,000 customers with a long tail some change for the first time in nearly every pass, and reading one whole costs
 * nearly as much as reading all.
 */
export async function alongWith(
  db: Db,
  known: KnownUsage,
  o: { tenant: string; wanted: readonly UsageWanted[]; nowMs: number },
): Promise<UsageWanted[]> {
  const { tenant, wanted, nowMs } = o;
  const isUnknown = ({ customer, period }: UsageWanted): boolean => !known.has(customer, period);
  if (!wanted.some((one) => isUnknown(one) && known.openFrom(one.period, nowMs) !== null)) return [];
  const others = await listCustomers(db, tenant, { afterId: known.alongAfter(tenant), limit: ALONG_MAX });
  known.setAlong(tenant, others.length < ALONG_MAX ? null : others.at(-1)!.id);
  const present = new Set(wanted.map(({ customer, period }) => `${customer.id}\0${period.start}`));
  return others
    .filter(({ anchorMs }) => anchorMs <= nowMs)
    .map((customer) => ({ customer, period: monthlyPeriod(customer.anchorMs, nowMs) }))
    .filter((one) => isUnknown(one) && !present.has(`${one.customer.id}\0${one.period.start}`));
}

/** By meter, for each of what is wanted, in its order, of these meters, none of which counts uniques. */
export async function readKnownTotals(
  ch: ClickHouse,
  known: KnownUsage,
  o: { tenant: string; wanted: readonly UsageWanted[]; meters: readonly string[]; nowMs: number },
): Promise<ReadonlyMap<string, Totals>[]> {
  const { wanted, meters, nowMs } = o;
  if (meters.length === 0) return wanted.map(() => new Map());
  const answer = new Map<UsageWanted, ReadonlyMap<string, Totals>>();
  const told = wanted.filter(({ customer, period }) => known.has(customer, period));
  const news = await readRows(ch, { ...o, wanted: told, after: known.positions });
  told.forEach((one, at) => {
    known.tell(one.customer, one.period, news[at]!);
    const totals = known.totals(one.customer, one.period);
    if (totals !== null) answer.set(one, totals);
  });

  const unknown = wanted.filter((one) => !answer.has(one));
  const openFrom = unknown.map(({ period }) => known.openFrom(period, nowMs));
  const closed = await readUsageTotals(
    ch,
    o.tenant,
    unknown.map(({ customer, period: { start, end } }, at) => ({
      subjects: customer.subjects,
      window: { start, end: openFrom[at] ?? end },
    })),
    { meters },
  );
  const open = unknown.flatMap((one, at) => {
    const [openFromMs, totals] = [openFrom[at]!, closed[at]!];
    if (openFromMs !== null) return [{ one, openFromMs, closed: totals }];
    answer.set(one, totals);
    return [];
  });
  const rows = await readRows(ch, {
    ...o,
    wanted: open.map(({ one: { customer, period }, openFromMs }) => ({
      customer,
      period: { start: openFromMs, end: period.end },
    })),
    after: null,
  });
  open.forEach(({ one, ...account }, at) =>
    answer.set(one, known.put(one.customer, one.period, { ...account, rows: rows[at]!, nowMs })),
  );
  return wanted.map((one) => answer.get(one)!);
}

/** Rows of each of what is wanted: those beyond the positions, or all that hold (null). */
async function readRows(
  ch: ClickHouse,
  o: { tenant: string; wanted: readonly UsageWanted[]; meters: readonly string[]; after: Positions | null },
): Promise<UsageRow[][]> {
  const { tenant, wanted, meters, after } = o;
  const answer = wanted.map((): UsageRow[] => []);
  const entries = wanted.flatMap(({ customer, period }, number) =>
    customer.subjects.map((subject) => ({ subject, period, number })),
  );
  for (const batch of batchesOf(entries, (entry) => entry.subject)) {
    const bySubject = groupBy(batch, (entry) => entry.subject);
    const rows = await ch.rows<RowColumns>(after === null ? WHOLE : NEWER, {
      tenant,
      meters,
      subjects: [...bySubject.keys()],
      from: batch.reduce((least, { period }) => Math.min(least, period.start), Infinity) / 1_000,
      to: batch.reduce((most, { period }) => Math.max(most, period.end), 0) / 1_000,
      ...(after === null ? {} : positionsOf(after)),
    });
    for (const row of rows) {
      const one = usageRowOf(row);
      for (const { period, number } of bySubject.get(row.subject) ?? [])
        if (one.hourMs >= period.start && one.hourMs < period.end) answer[number]!.push(one);
    }
  }
  return answer;
}

function positionsOf(after: Positions): Record<string, unknown> {
  const positions = [...after.values()];
  return {
    shards: [...after.keys()],
    after: positions,
    least: positions.reduce((least, one) => (one < least ? one : least), positions[0] ?? 0n),
  };
}

function usageRowOf(row: RowColumns): UsageRow {
  return {
    meter: row.meter,
    subject: row.subject,
    hourMs: Number(row.at) * 1_000,
    place: row.place,
    position: BigInt(row.version),
    totals: totalsIn(row),
  };
}
