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

/** Of a longer gap so many messages are asked for, evenly: what a broker finds again is a file of its storage. */
const PROBES_MAX = 10_000;

/**
 * Looks for what is there of a gap.
 *
 * @param counts whether a message that is there is one to look for; all are by default
 * @returns the sequence up to which nothing of it is there, when something behind is; null when nothing is
 * @throws LogError
 */
export async function emptyUpTo(
  log: Pick<ShardLog, 'messageAt'>,
  { from, to }: Gap,
  counts: (present: StoredMessage) => Promise<boolean> = async () => true,
): Promise<number | null> {
  const step = Math.ceil((to - from + 1) / PROBES_MAX);
  for (let sequence = from; sequence <= to; sequence += step) {
    const present = await log.messageAt(sequence);
    if (present !== null && (await counts(present))) return Math.max(from - 1, sequence - step);
  }
  return null;
}

/** Says so when something of a gap is there; null when nothing is. @throws LogError */
export async function foundAgain(
  log: Pick<ShardLog, 'messageAt' | 'name'>,
  gap: Gap | null,
): Promise<string | null> {
  if (gap === null || (await emptyUpTo(log, gap)) === null) return null;
  return `${log.name} has messages between ${gap.from} and ${gap.to} again, which were missing and passed over`;
}
