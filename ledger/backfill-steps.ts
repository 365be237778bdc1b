/**
 * The way of a backfill from Postgres into the logs, and how it is known to have arrived.
 *
 * 1. The row, in a state that something has to be told in: `proposed`, `committing`, `reverting`. From here on it
 *    goes on by itself: what a crash interrupts, the next start or the next look at it does again.
 * 2. The message, in every shard's log. Telling it again changes nothing there.
 * 3. It has arrived when the tables of every shard have it at or before their watermark: then the aggregator has
 *    counted the hours anew, and all of it is durable. The row becomes `ready`, `committed`, `reverted`.
 *
 * Two backfills of a meter never hold the same hour, in no order in which a log may get the messages: an hour is free
 * for another one only when step 3 of a revert is done.
 *
 * A message that came to a log which does not know the version (one that was missed) changes nothing there. Such a
 * backfill stays `proposed`, the answer says how many shards have it, and it can be discarded.
 */
import type { BackfillChange } from '../contract/backfill.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Db } from '../runtime/postgres.ts';
import { moveBackfill, noteTold, type BackfillState, type StoredBackfill } from './backfills.ts';
import type { Publisher } from './publish.ts';

export interface BackfillContext {
  readonly pg: Db;
  readonly ch: ClickHouse;
  readonly publisher: Pick<Publisher, 'publishBackfill' | 'shards'>;
}

/** A log that lost the message gets it again after this time. */
const TELL_AGAIN_MS = 600_000;

/** What is told in a state, and the state that follows when all shards have it. */
const STEPS: Partial<Record<BackfillState, { readonly tell: BackfillChange; readonly then: BackfillState }>> =
  {
    proposed: { tell: 'proposed', then: 'ready' },
    committing: { tell: 'committed', then: 'committed' },
    reverting: { tell: 'reverted', then: 'reverted' },
  };

export interface BackfillProgress {
  readonly state: BackfillState;
  /** Shards that have what the state is waiting for; all of them when it waits for nothing. */
  readonly shardsDone: number;
}

/** Takes it on as far as it goes now. Throws PublishFailed, QueryError. */
export async function advanceBackfill(
  { pg, ch, publisher }: BackfillContext,
  stored: StoredBackfill,
  nowMs: number,
): Promise<BackfillProgress> {
  const step = STEPS[stored.state];
  if (step === undefined) return { state: stored.state, shardsDone: publisher.shards };
  const { tenant, id, meter, version, fromMs, toMs, toldAtMs } = stored;
  if (toldAtMs === null || toldAtMs < nowMs - TELL_AGAIN_MS) {
    await publisher.publishBackfill({
      tenant,
      change: step.tell,
      backfill: { id, meter, version, fromMs, toMs },
    });
    await noteTold(pg, stored, nowMs);
  }
  const shardsDone = await countShards(ch, stored, step.tell);
  if (shardsDone < publisher.shards) return { state: stored.state, shardsDone };
  await moveBackfill(pg, stored, { from: stored.state, to: step.then, nowMs });
  return { state: step.then, shardsDone };
}

const ARRIVED = `
  SELECT uniqExact(b.shard) AS shards FROM backfill_changes AS b
  INNER JOIN watermark AS w ON w.shard = b.shard
  WHERE b.tenant = {tenant:String} AND b.meter = {meter:String} AND b.backfill = {id:String}
    AND b.change = {change:String} AND b.position <= w.position`;

async function countShards(
  ch: ClickHouse,
  { tenant, meter, id }: StoredBackfill,
  change: BackfillChange,
): Promise<number> {
  const [row] = await ch.rows<{ shards: string }>(ARRIVED, { tenant, meter, id, change });
  return Number(row?.shards ?? 0);
}
