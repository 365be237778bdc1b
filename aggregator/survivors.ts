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
import { emptyUpTo } from './gap.ts';
import type { Beginning } from './incarnation-rows.ts';
import { sameMark, type StoredMessage, type StreamFacts } from './log-mark.ts';
import type { ShardLog, Tables } from './ports.ts';
import { survivingPrefix } from './surviving-prefix.ts';
import { fingerprintOf, type Watermark } from './watermark.ts';

export interface SurvivorsOptions {
  readonly tables: Pick<Tables, 'loadMarksAt' | 'loadFirstMarks'>;
  readonly shardLog: Pick<ShardLog, 'messageAt'>;
  readonly shard: number;
  readonly beginnings: readonly Beginning[];
  /** Of the incarnation that ends. */
  readonly watermark: Watermark;
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
  const { tables, shardLog, shard, beginnings, watermark, stream } = o;
  // A mark proves that its message was counted only where its incarnation was.
  const countedTo = new Map(
    beginnings.map((one) => [one.watermark.incarnation - 1, one.sequenceBefore] as const),
  );
  countedTo.set(watermark.incarnation, watermark.sequence);
  const isCounted = async (present: StoredMessage): Promise<boolean> => {
    const { sequence } = present;
    const marks = await tables.loadMarksAt(shard, sequence);
    if (marks.length === 0)
      return sequence === watermark.sequence && fingerprintOf(present.message) === watermark.fingerprint;
    return marks.some(
      ({ incarnation, mark }) => sequence <= (countedTo.get(incarnation) ?? 0) && sameMark(mark, present),
    );
  };

  const first = Math.max(1, stream.firstSequence);
  const holes = new Holes(shardLog, first);
  const proven = new Map<number, StoredMessage>();
  const same = async (sequence: number): Promise<boolean> => {
    const present = await holes.lastUpTo(sequence);
    if (present === null || !(await isCounted(present))) return false;
    proven.set(present.sequence, present);
    return true;
  };
  const last = Math.min(
    stream.lastSequence,
    Math.max(...countedTo.values()),
    await passedOverBehind(o, first, isCounted),
  );
  const survived = holes.inFrontOf(await survivingPrefix(first, last, same));
  return { survived, at: proven.get(survived) ?? null };
}

/** What is missing in a log, as far as it was come upon. */
class Holes {
  readonly #log: Pick<ShardLog, 'messageAt'>;
  readonly #first: number;
  readonly #known: { readonly from: number; readonly to: number }[] = [];

  constructor(log: Pick<ShardLog, 'messageAt'>, first: number) {
    this.#log = log;
    this.#first = first;
  }

  /** The newest message up to a sequence; null when there is none. */
  async lastUpTo(sequence: number): Promise<StoredMessage | null> {
    for (let at = this.inFrontOf(sequence); at >= this.#first; at = this.inFrontOf(at - 1)) {
      const present = await this.#log.messageAt(at);
      if (present === null) continue;
      if (at < sequence) this.#known.push({ from: at + 1, to: sequence });
      return present;
    }
    return null;
  }

  /** The sequence itself, or the one in front of the hole that it lies in. */
  inFrontOf(sequence: number): number {
    const hole = this.#known.find(({ from, to }) => from <= sequence && sequence <= to);
    return hole === undefined ? sequence : hole.from - 1;
  }
}

/**
 * Behind which sequence messages stand that were passed over; Infinity when there are none. A hole is passed over only
 * where an incarnation begins: it is what lies between its beginning and the first mark behind.
 */
async function passedOverBehind(
  { tables, shardLog, shard, beginnings }: SurvivorsOptions,
  first: number,
  isCounted: (present: StoredMessage) => Promise<boolean>,
): Promise<number> {
  const began = new Map(beginnings.map(({ watermark }) => [watermark.incarnation, watermark.sequence]));
  const marks = await tables.loadFirstMarks(shard, began);
  const isNew = async (present: StoredMessage): Promise<boolean> => !(await isCounted(present));
  let passed = Infinity;
  for (const [incarnation, behind] of began) {
    const gap = { from: Math.max(behind + 1, first), to: (marks.get(incarnation) ?? 0) - 1 };
    passed = Math.min(passed, (await emptyUpTo(shardLog, gap, isNew)) ?? Infinity);
  }
  return passed;
}
