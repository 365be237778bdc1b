/**
 * Up to where the present log is certain to be counted already, so that a new incarnation reads on behind it.
 *
 * The log that was counted and the one that is there now have a beginning in common, and the marks tell its end to the
 * message (surviving-prefix.ts). Two things break the rule that all before a message that is the same are the same:
 *
 * - A hole. What is missing now cannot be compared, and what was counted of it stays counted. So the message in front of
 *   the hole speaks for it. Otherwise a log with two holes would be begun again in front of the first for ever, since no
 *   incarnation gets beyond the second.
 * - A hole that was passed over, and is filled again: a broker comes back with what it had before. Nobody has counted those
 *   messages, so the prefix ends in front of them, and what stands behind is read again.
 */
import type { StoredMessage, StreamFacts } from './log-mark.ts';
import { Counted, loadPassedOver, type KnownLog } from './passed-over.ts';
import type { ShardLog } from './ports.ts';
import { survivingPrefix } from './surviving-prefix.ts';

/** The watermark is that of the incarnation that ends. */
export interface SurvivorsOptions extends KnownLog {
  readonly shardLog: Pick<ShardLog, 'messageAt' | 'messageFrom'>;
  readonly stream: StreamFacts;
}

export interface Survivors {
  /** The last sequence of the prefix; 0, or that in front of the first message, when nothing of it is there. */
  readonly survived: number;
  /**
   * The message there: the one that was compared, not one that is asked for afterwards. The log may be cut back again in
   * between, and grow with others; whoever reads on behind this message finds out, and whoever knew of none would skip
   * them.
   */
  readonly at: StoredMessage | null;
}

export async function findSurvivors(o: SurvivorsOptions): Promise<Survivors> {
  const { shardLog, stream } = o;
  const counted = new Counted(o);
  const first = Math.max(1, stream.firstSequence);
  const holes = new Holes(shardLog, first);
  const proven = new Map<number, StoredMessage>();
  const same = async (sequence: number): Promise<boolean> => {
    const present = await holes.lastUpTo(sequence);
    if (present === null || !(await counted.has(present))) return false;
    proven.set(present.sequence, present);
    return true;
  };
  // What was passed over, and is there again, is read now, and so is all that stands behind it.
  const passedOver = await loadPassedOver(o, counted, stream.created, false);
  const again = await passedOver.firstNew(shardLog);
  const last = Math.min(stream.lastSequence, counted.last, again === null ? Infinity : again - 1);
  const survived = holes.inFrontOf(await survivingPrefix(first, last, same));
  return { survived, at: proven.get(survived) ?? null };
}

/** What is missing in a log, as far as it was come upon. */
class Holes {
  readonly #log: Pick<ShardLog, 'messageAt' | 'messageFrom'>;
  readonly #first: number;
  readonly #known: { readonly from: number; readonly to: number }[] = [];

  constructor(log: Pick<ShardLog, 'messageAt' | 'messageFrom'>, first: number) {
    this.#log = log;
    this.#first = first;
  }

  /** The newest message up to a sequence; null when there is none. */
  async lastUpTo(sequence: number): Promise<StoredMessage | null> {
    const at = this.inFrontOf(sequence);
    if (at < this.#first) return null;
    const present = (await this.#log.messageAt(at)) ?? (await this.#lastIn(this.#first, at - 1));
    const before = present?.sequence ?? this.#first - 1;
    if (before < sequence) this.#known.push({ from: before + 1, to: sequence });
    return present;
  }

  /** The newest of these, by halving: a hole may be long, and the broker can be asked for what comes first only. */
  async #lastIn(from: number, to: number): Promise<StoredMessage | null> {
    let last: StoredMessage | null = null;
    for (let [low, high] = [from, to]; low <= high;) {
      const middle = Math.floor((low + high) / 2);
      const present = await this.#log.messageFrom(middle, high);
      if (present === null) high = middle - 1;
      else {
        last = present;
        low = present.sequence + 1;
      }
    }
    return last;
  }

  /** The sequence itself, or the one in front of the hole that it lies in. */
  inFrontOf(sequence: number): number {
    const hole = this.#known.find(({ from, to }) => from <= sequence && sequence <= to);
    return hole === undefined ? sequence : hole.from - 1;
  }
}
