/**
 * How many distinct values the events of some subjects have, exactly. Unique counts do not add up, over hours,
 * shards or subjects, so each is asked as a whole of the events (view `contributions`), never of rollups.
 */
import { QUANTITY_UNIT, type Quantity } from '../contract/quantity.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { batchesOf, wholeBatchesOf, type Positions, type TotalsWanted } from './usage-batches.ts';

/** What a price on it is rated on; a meter without events has none. */
export function uniqueQuantity(count: bigint | undefined): Quantity {
  return (count ?? 0n) * QUANTITY_UNIT;
}

export interface UniqueWanted {
  readonly tenant: string;
  readonly wanted: readonly TotalsWanted[];
  readonly meters: readonly string[];
  /** What held here; what holds now when absent. */
  readonly cut?: Positions;
}

// As in usage-totals.ts: parallel arrays, and the conditions a second time where they reach the primary key.
const EVENTS = `
  FROM contributions AS c
  INNER JOIN (
    SELECT tupleElement(w, 1) AS subject, tupleElement(w, 2) AS start, tupleElement(w, 3) AS end, tupleElement(w, 4) AS number
    FROM (SELECT arrayJoin(arrayZip({subjects:Array(String)}, {starts:Array(UInt32)}, {ends:Array(UInt32)}, {numbers:Array(UInt32)})) AS w)
  ) AS w ON w.subject = c.subject
  WHERE c.tenant = {tenant:String} AND c.meter IN {meters:Array(String)} AND c.subject IN {subjects:Array(String)}
    AND c.hour >= toDateTime({least:UInt32}, 'UTC') AND c.hour < toDateTime({most:UInt32}, 'UTC')
    AND toUnixTimestamp(c.hour) >= w.start AND toUnixTimestamp(c.hour) < w.end
    AND if({isCut:UInt8} = 0, c.until = 18446744073709551615,
      c.since <= mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[c.shard]
      AND c.until > mapFromArrays({shards:Array(UInt16)}, {cut:Array(UInt64)})[c.shard])`;

const UNIQUE = `SELECT w.number AS wanted, c.meter AS meter, toString(uniqExact(c.value)) AS unique${EVENTS}
  GROUP BY wanted, meter`;

const VALUES = `SELECT DISTINCT c.meter AS meter, c.value AS value${EVENTS}`;

/** By meter, for each of what is wanted, in its order; a meter without events is not in the map. */
export async function readUniqueCounts(ch: ClickHouse, o: UniqueWanted): Promise<Map<string, bigint>[]> {
  const answer = o.wanted.map(() => new Map<string, bigint>());
  if (o.meters.length === 0) return answer;
  for (const { numbers, fits } of wholeBatchesOf(o.wanted)) {
    if (!fits) {
      await uniteValues(ch, o, numbers[0]!, answer[numbers[0]!]!);
      continue;
    }
    const entries = numbers.flatMap((number) =>
      o.wanted[number]!.subjects.map((subject) => ({ subject, number })),
    );
    if (entries.length === 0) continue;
    const rows = await ch.rows<{ wanted: number | string; meter: string; unique: string }>(
      UNIQUE,
      parameters(o, entries),
    );
    for (const row of rows) answer[Number(row.wanted)]!.set(row.meter, BigInt(row.unique));
  }
  return answer;
}

/** For a customer with more subjects than one request takes, the values themselves are brought together here. */
async function uniteValues(
  ch: ClickHouse,
  o: UniqueWanted,
  number: number,
  counts: Map<string, bigint>,
): Promise<void> {
  const seen = new Map<string, Set<string>>();
  for (const subjects of batchesOf(o.wanted[number]!.subjects, (subject) => subject)) {
    const entries = subjects.map((subject) => ({ subject, number }));
    const rows = await ch.rows<{ meter: string; value: string }>(VALUES, parameters(o, entries));
    for (const { meter, value } of rows) {
      const values = seen.get(meter);
      if (values === undefined) seen.set(meter, new Set([value]));
      else values.add(value);
    }
  }
  for (const [meter, values] of seen) counts.set(meter, BigInt(values.size));
}

function parameters(
  o: UniqueWanted,
  entries: readonly { subject: string; number: number }[],
): Record<string, unknown> {
  const windows = entries.map(({ number }) => o.wanted[number]!.window);
  return {
    tenant: o.tenant,
    meters: o.meters,
    subjects: entries.map((entry) => entry.subject),
    starts: windows.map((window) => window.start / 1_000),
    ends: windows.map((window) => window.end / 1_000),
    numbers: entries.map((entry) => entry.number),
    least: windows.reduce((least, { start }) => Math.min(least, start / 1_000), Infinity),
    most: windows.reduce((most, { end }) => Math.max(most, end / 1_000), 0),
    isCut: o.cut === undefined ? 0 : 1,
    shards: [...(o.cut?.keys() ?? [])],
    cut: [...(o.cut?.values() ?? [])],
  };
}
