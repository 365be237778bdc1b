/**
 * The questions that are asked of a month, in the product's own words: queries of GET /v1/usage, from whose SQL they are
 * made (ledger/api/usage/query.ts). Asked as of a cut of the log, a query reads raw events, as an invoice does; asked of
 * the present, it reads rollups wherever they can answer.
 */
import type { Meter } from '../../contract/meter.ts';
import type { UsageQuery } from '../../ledger/api/usage/query.ts';
import { windowStarts, type WindowSize } from '../../ledger/api/usage/window.ts';
import { METERS, type MeterKey } from '../canonical/tally.ts';
import { TENANT } from '../canonical/workload.ts';
import { MONTH, type Month } from './month-sql.ts';
import { nameOfRank, ranksOf } from './month-subjects.ts';

export interface QueryKind {
  readonly name: string;
  readonly reads: 'rollup' | 'raw';
  /** One of them a run, in turns. */
  readonly queries: readonly UsageQuery[];
  /** The name of the kind, of those that read rollups, whose answers these must equal. */
  readonly equals?: string;
}

export const TOP = 100;
const SPREAD = 50;
const DAY_MS = 86_400_000;

const UNMERGED = 'while it is written to';

/** What is asked of a month in several parts, as one is that is written to. */
export function unmergedKinds(month: Month): QueryKind[] {
  const inParts: QueryKind[] = [];
  for (const { reads, queries, equals } of queryKinds(month))
    if (reads === 'rollup' && equals !== undefined) inParts.push({ name: equals, reads, queries });
  return inParts;
}

/** What is asked of a month that rests: its rollups are in one part. */
export function queryKinds({ subjects, shards }: Month): QueryKind[] {
  const one = ranksOf(subjects, SPREAD).map((rank) => [nameOfRank(rank, subjects)]);
  const top = [Array.from({ length: Math.min(TOP, subjects) }, (_, rank) => nameOfRank(rank, subjects))];
  const [first] = top[0]!;
  const everyone = [[]];
  const month = (lists: readonly string[][], meter: MeterKey, isRaw = false): UsageQuery[] =>
    lists.map((list) => query(list, meter, { isRaw, shards }));
  const single = 'a month of a subject';
  const topName = `a month of the ${TOP} largest subjects`;
  const daily = (lists: readonly string[][]): UsageQuery[] =>
    lists.map((list) => query(list, 'input_tokens', { isRaw: false, shards, size: 'day' }));
  return [
    {
      name: single,
      reads: 'rollup',
      queries: month(one, 'input_tokens'),
      equals: `${single}, ${UNMERGED}`,
    },
    { name: single, reads: 'raw', queries: month(one, 'input_tokens', true), equals: single },
    {
      name: topName,
      reads: 'rollup',
      queries: month(top, 'input_tokens'),
      equals: `${topName}, ${UNMERGED}`,
    },
    { name: topName, reads: 'raw', queries: month(top, 'input_tokens', true), equals: topName },
    {
      name: 'the largest subject by day and model',
      reads: 'rollup',
      queries: daily([[first!]]).map((each) => ({ ...each, groupBy: ['model'] })),
    },
    {
      name: 'a tenant by day',
      reads: 'rollup',
      queries: daily(everyone),
      equals: `a tenant by day, ${UNMERGED}`,
    },
    {
      name: 'a day of a tenant',
      reads: 'rollup',
      queries: daily(everyone).map((each) => ({ ...each, range: lastDay(), starts: [lastDay().start] })),
    },
    { name: 'unique users of a subject, a month', reads: 'raw', queries: month(one, 'users') },
    { name: `unique users of the ${TOP} largest subjects`, reads: 'raw', queries: month(top, 'users') },
  ];
}

const lastDay = (): UsageQuery['range'] => ({ start: MONTH.end - DAY_MS, end: MONTH.end });

function query(
  subjects: readonly string[],
  meter: MeterKey,
  o: { readonly isRaw: boolean; readonly shards: number; readonly size?: WindowSize },
): UsageQuery {
  const size = o.size ?? 'total';
  const windows = windowStarts(size, MONTH, 'UTC');
  if (!windows.ok) throw new Error('the month is too long for a query');
  return {
    tenant: TENANT,
    meter: meterOf(meter),
    subjects,
    range: MONTH,
    size,
    starts: windows.starts,
    groupBy: [],
    bySubject: subjects.length > 0,
    filters: [],
    percentiles: [],
    // Behind everything: the cut of an invoice that was made after the month.
    asOf: o.isRaw ? new Map(Array.from({ length: o.shards }, (_, shard) => [shard, 2n ** 63n])) : null,
  };
}

function meterOf(key: MeterKey): Meter {
  const meter = METERS.find((one) => one.key === key)!;
  return {
    key,
    eventType: meter.eventType,
    aggregation: meter.aggregation,
    valueProperty: 'valueProperty' in meter ? meter.valueProperty : null,
    groupBy: 'groupBy' in meter ? meter.groupBy : [],
  };
}
