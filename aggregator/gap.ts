/** Places of a log where messages are missing. */
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
