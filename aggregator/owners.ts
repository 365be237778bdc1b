/** The rows of `owners`: who counts which shard. ownership.ts tells the protocol. */
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { FencedError } from './fence.ts';
import { insertsSettled } from './incarnation.ts';
import { runningInserts } from './incarnation-store.ts';
import type { Timing } from './ports.ts';
import { dateTime } from './rows.ts';

export interface Owner {
  readonly epoch: number;
  readonly owner: string;
}

/** The newest owner of a shard; null before the first. */
async function loadOwner(ch: ClickHouse, shard: number): Promise<Owner | null> {
  const [row] = await ch.rows<{ epoch: string; owner: string }>(
    'SELECT epoch, owner FROM owners WHERE shard = {shard:UInt16} ORDER BY epoch DESC, owner DESC LIMIT 1',
    { shard },
  );
  return row === undefined ? null : { epoch: Number(row.epoch), owner: row.owner };
}

export interface TakeOverOptions {
  readonly ch: ClickHouse;
  /** Unique: no other process, and none before, has it. */
  readonly owner: string;
  readonly shard: number;
  readonly epochAtLeast: number;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}

/** Resolves with the epoch of the new owner. @throws FencedError when somebody newer came in between */
export async function takeOver(o: TakeOverOptions): Promise<number> {
  const { ch, owner, shard, timing, signal } = o;
  const epoch = Math.max(o.epochAtLeast, ((await loadOwner(ch, shard))?.epoch ?? 0) + 1);

  // 1. The row. From here on the server refuses every insert of an older owner that it has not begun with. A crash
  //    after this leaves a shard whose owner is gone: the next one takes a higher epoch.
  const since = dateTime(timing.now());
  await ch.insertJson('owners', [{ shard, epoch, owner, since }]);

  // 2. Those that it had begun with may have passed the fence before. They are waited for, whoever's they are.
  await insertsSettled({ tables: { runningInserts: () => runningInserts(ch) }, timing, signal });

  // 3. Of two that took over at once one is newer, and the other one need not even begin.
  const newest = await loadOwner(ch, shard);
  if (newest?.epoch !== epoch || newest.owner !== owner) throw new FencedError([shard]);
  return epoch;
}
