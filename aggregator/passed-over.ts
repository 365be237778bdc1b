/**
 * Holes that were passed over: messages that were missing where an incarnation began to read, and that no later one has
 * read either. A broker that comes back with what it had before may have them again: then nobody has counted them, and
 * the place where reading is lies behind them.
 *
 * A hole is passed over only where an incarnation begins: it is what lies between its beginning and the first mark behind.
 * It stays one for as long as no incarnation begins in front of it. In another stream than the one that it was met in
 * there is nothing of it; but the start of a stream that was purged can come back, and what was missing in it too.
 *
 * A message that is there need not be a new one: what was counted first, was missing then, and is there again, is not
 * read again. The marks tell. But where the incarnation has read behind the hole and its watermark stands in front of it,
 * whatever is there is new to it: it would be read where counters already stand behind it.
 */
import { firstIn, type Gap } from './gap.ts';
import type { Beginning } from './incarnation-rows.ts';
import { sameMark, type LogMark, type StoredMessage } from './log-mark.ts';
import type { ShardLog, Tables } from './ports.ts';
import { fingerprintOf, type Watermark } from './watermark.ts';

/** What the tables know of the messages of a log. */
export interface KnownLog {
  readonly tables: Pick<Tables, 'loadMarks' | 'loadFirstMarks'>;
  readonly shard: number;
  readonly beginnings: readonly Beginning[];
  /** Of the newest incarnation that has read anything. */
  readonly watermark: Watermark;
}

/** So many marks are asked for at a time where every message of a hole is looked at. */
const MARKS_AT_A_TIME = 1_000;

export interface CountedOptions extends Omit<KnownLog, 'tables'> {
  readonly tables: Pick<Tables, 'loadMarks'>;
}

/** Which messages were counted, as the marks tell it. */
export class Counted {
  readonly #o: CountedOptions;
  /** By incarnation, up to where it was counted: behind that its marks prove nothing. */
  readonly #until: ReadonlyMap<number, number>;
  /** By sequence, as far as they were asked for. */
  readonly #marks = new Map<number, { readonly incarnation: number; readonly mark: LogMark }[]>();

  constructor(o: CountedOptions) {
    this.#o = o;
    const { beginnings, watermark } = o;
    const ends = beginnings.map((one) => [one.watermark.incarnation - 1, one.sequenceBefore] as const);
    this.#until = new Map([...ends, [watermark.incarnation, watermark.sequence]]);
  }

  /** The last sequence that any incarnation has counted. */
  get last(): number {
    return Math.max(...this.#until.values());
  }

  /** @param ahead how many behind it will be asked for too */
  async has(present: StoredMessage, ahead = 0): Promise<boolean> {
    const { sequence } = present;
    const { watermark } = this.#o;
    const marks = await this.#at(sequence, ahead);
    if (marks.length === 0)
      return sequence === watermark.sequence && fingerprintOf(present.message) === watermark.fingerprint;
    return marks.some(
      ({ incarnation, mark }) => sequence <= (this.#until.get(incarnation) ?? 0) && sameMark(mark, present),
    );
  }

  async #at(sequence: number, ahead: number) {
    const known = this.#marks.get(sequence);
    if (known !== undefined) return known;
    const { tables, shard } = this.#o;
    for (let at = sequence; at <= sequence + ahead; at++) this.#marks.set(at, []);
    for (const one of await tables.loadMarks(shard, sequence, sequence + ahead))
      this.#marks.get(one.mark.sequence)!.push(one);
    return this.#marks.get(sequence)!;
  }
}

/**
 * The holes of a stream that were passed over.
 *
 * @param firstMarks by incarnation, the first sequence with a mark behind its beginning; of one that has read nothing yet
 * there is none
 * @param reading the incarnation that reads on, or begins to: what lies behind its beginning it has before it. Null for
 * none
 */
export function gapsOf(
  beginnings: readonly Beginning[],
  firstMarks: ReadonlyMap<number, number>,
  streamCreated: string,
  reading: number | null,
): Gap[] {
  let gaps: Gap[] = [];
  const ordered = [...beginnings].sort((a, b) => a.watermark.incarnation - b.watermark.incarnation);
  for (const { watermark } of ordered) {
    if (watermark.streamCreated !== streamCreated) continue;
    const { incarnation, sequence: behind } = watermark;
    const first = firstMarks.get(incarnation);
    // One that has read nothing has passed over nothing, and read nothing of what the others passed over.
    if (first === undefined && incarnation !== reading) continue;
    gaps = gaps.map(({ from, to }) => ({ from, to: Math.min(to, behind) }));
    if (first !== undefined) gaps.push({ from: behind + 1, to: first - 1 });
  }
  return gaps.filter(({ from, to }) => from <= to);
}

export class PassedOver {
  readonly #counted: Counted;
  readonly #gaps: Gap[];
  readonly #readBehind: number;

  /** @param readBehind behind which sequence reading goes on; Infinity when it does not */
  constructor(counted: Counted, gaps: readonly Gap[], readBehind: number) {
    this.#counted = counted;
    this.#gaps = [...gaps];
    this.#readBehind = readBehind;
  }

  /** One more is passed over now. */
  add(gap: Gap): void {
    this.#gaps.push(gap);
  }

  /**
   * The first message of those that were passed over that is there now, and is new; null when there is none.
   * @throws LogError
   */
  async firstNew(log: Pick<ShardLog, 'messageFrom'>): Promise<number | null> {
    let least: number | null = null;
    for (const gap of this.#gaps) {
      const found = await firstIn(log, gap, async (present) => {
        if (present.sequence > this.#readBehind) return true;
        const ahead = Math.min(MARKS_AT_A_TIME, gap.to - present.sequence);
        return !(await this.#counted.has(present, ahead));
      });
      if (found !== null && (least === null || found < least)) least = found;
    }
    return least;
  }

  /** Those that are empty now. @throws LogError */
  async empty(log: Pick<ShardLog, 'messageFrom'>): Promise<Gap[]> {
    const empty: Gap[] = [];
    for (const gap of this.#gaps) if ((await firstIn(log, gap)) === null) empty.push(gap);
    return empty;
  }

  /** Says so when a new message is there; null when none is. @throws LogError */
  async foundAgain(log: Pick<ShardLog, 'messageFrom' | 'name'>): Promise<string | null> {
    const found = await this.firstNew(log);
    return found === null
      ? null
      : `${log.name} has message ${found} again, which was missing and passed over`;
  }
}

/**
 * What was passed over of a stream, as the tables tell it.
 *
 * @param readsOn whether the incarnation of the watermark reads on behind it, and does not end
 */
export async function loadPassedOver(
  known: KnownLog,
  counted: Counted,
  streamCreated: string,
  readsOn: boolean,
): Promise<PassedOver> {
  const { tables, shard, beginnings, watermark } = known;
  const began = new Map(beginnings.map((one) => [one.watermark.incarnation, one.watermark.sequence]));
  const firstMarks = await tables.loadFirstMarks(shard, began);
  const gaps = gapsOf(beginnings, firstMarks, streamCreated, readsOn ? watermark.incarnation : null);
  return new PassedOver(counted, gaps, readsOn ? watermark.sequence : Infinity);
}
