/**
 * What of a flush is recounted instead of folded, shard by shard (recount.ts). Everything that a message of the log can
 * ask to have recounted goes through here: `Decided.recount` says what, `scopesOf` makes a scope of rows of it, and
 * `rowsOutside` keeps the rows in it from being written as they were folded.
 */
import { endOfMessage } from '../contract/position.ts';
import type { ShardConsumer } from './consume.ts';
import type { Decided } from './consume.ts';
import type { EncodedRows } from './ports.ts';
import { EARLIER, packed } from './position-in-shard.ts';
import type { CorrectionRange, RecountNeeded, RecountScope, SubjectHour } from './recount.ts';
import { encodeRollups } from './rollup-columns.ts';
import type { RollupRows } from './rollup-rows.ts';

type MeterNeeded = Extract<RecountNeeded, { kind: 'meter' }>;

/** What the messages of a shard ask for. */
export interface NeededOfShard {
  readonly consumer: ShardConsumer;
  /** The last position of the flush. */
  readonly until: bigint;
  /** The smallest position of an original that is corrected; null when there are no corrections. */
  readonly oldestOriginal: number | null;
  readonly meters: readonly MeterNeeded[];
}

export interface RecountOfShard extends NeededOfShard {
  /** The rows that were folded, and in which generation they lie. */
  readonly rows: RollupRows;
  readonly touched: readonly number[];
  /** Texts of the hours of meters that overflow in this flush. */
  readonly overflowing: readonly string[];
}

/** A recount that knows what its corrections retire. */
export interface Recounting {
  readonly of: RecountOfShard;
  readonly scopes: readonly RecountScope[];
  readonly retired: readonly SubjectHour[];
}

/** Null when nothing is recounted. */
export function neededBy(consumer: ShardConsumer, items: readonly Decided[]): NeededOfShard | null {
  let oldestOriginal: number | null = null;
  const meters: MeterNeeded[] = [];
  for (const { recount } of items) {
    if (recount === null) continue;
    if (recount.kind === 'meter') meters.push(recount);
    else oldestOriginal = Math.min(oldestOriginal ?? recount.oldestOriginal, recount.oldestOriginal);
  }
  if (oldestOriginal === null && meters.length === 0) return null;
  const until = endOfMessage(consumer.state.incarnation, items.at(-1)!.sequence);
  return { consumer, until, oldestOriginal, meters };
}

/** The corrections of the flush; null when there are none. To be asked when the flush before it has ended. */
export function rangeOf({ consumer, until, oldestOriginal }: NeededOfShard): CorrectionRange | null {
  if (oldestOriginal === null) return null;
  const { shard, state } = consumer;
  const { incarnation, sequence } = state.watermark;
  const originalsFrom = oldestOriginal === EARLIER ? 0n : packed(state.incarnation, oldestOriginal);
  return { shard, behind: endOfMessage(incarnation, sequence), until, originalsFrom };
}

export function scopesOf(needed: NeededOfShard): RecountScope[] {
  const { shard } = needed.consumer;
  const scopes: RecountScope[] = needed.meters.map((meter) => ({ ...meter, shard }));
  const range = rangeOf(needed);
  if (range !== null) scopes.push({ kind: 'corrections', range });
  return scopes;
}

/** The folded rows that nothing makes anew. */
export function rowsOutside({ of, retired }: Recounting): EncodedRows[] {
  const { consumer, rows, touched, meters } = of;
  const { shard, state } = consumer;
  const { rollups, incarnation } = state;
  const hours = new Set(retired.map(({ hourSeconds }) => hourSeconds));
  const subjectHours = new Set(
    retired.map(({ tenant, subject, hourSeconds }) => JSON.stringify([tenant, subject, hourSeconds])),
  );
  const isOutside = (row: number): boolean => {
    const hour = rows.buckets.hourOf(rows.bucketOf(row));
    const mayBeIn = hours.has(hour) || meters.some((one) => hour >= one.fromSeconds && hour < one.toSeconds);
    if (!mayBeIn) return true;
    const { tenant, meter, subject } = rollups.keyIn(rows, row);
    if (subjectHours.has(JSON.stringify([tenant, subject, hour]))) return false;
    return !meters.some(
      (one) =>
        one.tenant === tenant && one.meter === meter && hour >= one.fromSeconds && hour < one.toSeconds,
    );
  };
  const outside = touched.filter(isOutside);
  if (outside.length === 0) return [];
  const { tenants, meters: names } = rollups;
  const body = encodeRollups(shard, incarnation, { rows, tenants, meters: names }, outside);
  return [{ rows: outside.length, body }];
}
