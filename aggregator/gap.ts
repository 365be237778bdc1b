/**
 * Messages that were missing where an incarnation began to read, and were passed over. A broker that comes back with
 * what it had before may have them again: then nobody has counted them, and the place where reading is lies behind them.
 */
import type { StoredMessage } from './log-mark.ts';
import type { ShardLog } from './ports.ts';

/** Both included. */
export interface Gap {
  readonly from: number;
  readonly to: number;
}

/**
 * Looks for what is there of a gap. A gap that is empty takes one request, however long it is.
 *
 * @param counts whether a message that is there is one to look for; all are by default
 * @returns the first one; null when there is none
 * @throws LogError
 */
export async function firstIn(
  log: Pick<ShardLog, 'messageFrom'>,
  { from, to }: Gap,
  counts: (present: StoredMessage) => Promise<boolean> = async () => true,
): Promise<number | null> {
  for (let sequence = from; sequence <= to;) {
    const present = await log.messageFrom(sequence, to);
    if (present === null) return null;
    if (await counts(present)) return present.sequence;
    sequence = present.sequence + 1;
  }
  return null;
}

/** Says so when something of a gap is there; null when nothing is. @throws LogError */
export async function foundAgain(
  log: Pick<ShardLog, 'messageFrom' | 'name'>,
  gap: Gap | null,
): Promise<string | null> {
  if (gap === null || (await firstIn(log, gap)) === null) return null;
  return `${log.name} has messages between ${gap.from} and ${gap.to} again, which were missing and passed over`;
}
