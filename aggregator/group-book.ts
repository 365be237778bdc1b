/**
 * Which groups of a meter have rollup rows of their own.
 *
 * An hour of a meter may have so many distinct groups in a shard, and no more: whoever sends a request id as a
 * dimension would otherwise make a row of every event. A *group* is a combination of dimensions; subjects do not
 * count, for each of them is a customer. The first N groups of the hour, in the order of the log and by events that
 * count, have rows of their own; what any other group adds goes into the row of OVERFLOW_GROUP. So a group is wholly
 * in one place: its first event is let in or not, and the hour never gets emptier.
 *
 * Why a replay ends in the same rows. Let D be the first N groups of the hour: a function of the log alone. Whoever
 * counts it knows a set K of groups: those with rows in the table when he began, and those that he has let in. Rows
 * are written of groups in D only, also by a flush that crashed half-way or by another owner, so K is always a part
 * of D. And K holds every group in D that the log has named up to where he is: those up to the watermark have rows,
 * those behind it he has met himself. Now an event of a group in D is let in: either it is in K already, or K has
 * fewer than N groups. And one of a group outside of D is not: all N groups of D came before it, so K is full.
 * What K holds besides, of events further on, changes neither.
 *
 * Only events that count let a group in. A refused event or a duplicate leaves no row behind it, so a replay that
 * begins at a watermark could not know of it. An event that is corrected later let its group in when it counted, and
 * the group stays in: its row remains in the table, empty if need be.
 *
 * Sets that were not used for a while are dropped, as rows are (rollup-cache.ts), and loaded again from the table.
 */
import type { Contributions, MeterHour } from './prepare.ts';
import { COUNTED } from './verdict.ts';

/** The groups with rows of their own, by the text of a {@link MeterHour}. */
export type StoredGroups = ReadonlyMap<string, readonly string[]>;

/** A block that was judged. */
export interface JudgedBlock {
  readonly verdicts: Uint8Array;
  readonly contributions: Contributions;
}

export interface Placed {
  /** Of each of the block's keys, 1 if it belongs to the overflow group; null when none does. */
  readonly keys: Uint8Array | null;
  /** The hours in which something went to the overflow group, and how many contributions of counted events. */
  readonly overflowed: ReadonlyMap<MeterHour, number>;
}

const OWN = 1;
const OVERFLOWED = 2;
const NOWHERE: Placed = { keys: null, overflowed: new Map() };

export class GroupBook {
  #current = new Map<string, Set<string>>();
  #previous = new Map<string, Set<string>>();
  #currentHour = -1;
  #previousHour = -1;
  #knownAfter: number;
  readonly #half: number;

  /** @param storedHour the greatest hour (epoch seconds) of the shard in ClickHouse, -1 for none. */
  constructor(groupsMax: number, storedHour: number) {
    this.#half = Math.max(1, Math.floor(groupsMax / 2));
    this.#knownAfter = storedHour;
  }

  get size(): number {
    return sizeOf(this.#current) + sizeOf(this.#previous);
  }

  /**
   * The hours whose groups must be asked for in the table before blocks can be placed that have groups in these hours,
   * block after block.
   */
  unknown(hoursOfBlocks: Iterable<readonly MeterHour[]>): MeterHour[] {
    const unknown = new Map<string, MeterHour>();
    let before: readonly MeterHour[] | null = null;
    for (const hours of hoursOfBlocks) {
      // Blocks of a job that have the same ones share them.
      if (hours === before) continue;
      before = hours;
      for (const hour of hours) {
        if (this.#find(hour) !== undefined) continue;
        if (hour.hourSeconds > this.#knownAfter) this.#add(hour, new Set());
        else unknown.set(hour.text, hour);
      }
    }
    return [...unknown.values()];
  }

  /** What the table said of the unknown. */
  enter(hours: readonly MeterHour[], stored: StoredGroups): void {
    for (const hour of hours) this.#add(hour, new Set(stored.get(hour.text)));
  }

  /** Decides where the keys of a block belong. Blocks come in the order of the log, each hour being known. */
  place({ verdicts, contributions }: JudgedBlock): Placed {
    const { groups } = contributions;
    if (groups.dimensions.length === 0) return NOWHERE;
    const places = this.#places(verdicts, contributions);
    if (!places.includes(OVERFLOWED)) return NOWHERE;
    return {
      keys: Uint8Array.from(groups.ofKey, (group) =>
        group !== 0 && places[group - 1] === OVERFLOWED ? 1 : 0,
      ),
      overflowed: countOverflowed(verdicts, contributions, places),
    };
  }

  /** As `trim` of RollupCache, and at the same moment. `isOver` says that an hour has gone by. */
  trim(isOver: boolean): void {
    if (!isOver && sizeOf(this.#current) < this.#half) return;
    if (this.#previous.size > 0) this.#knownAfter = Math.max(this.#knownAfter, this.#previousHour);
    this.#previous = this.#current;
    this.#previousHour = this.#currentHour;
    this.#current = new Map();
    this.#currentHour = -1;
  }

  /** As `forget` of RollupCache. */
  forget(hourSeconds: number): void {
    this.#knownAfter = Math.max(this.#knownAfter, this.#previousHour, this.#currentHour, hourSeconds);
    [this.#current, this.#previous] = [new Map(), new Map()];
    [this.#currentHour, this.#previousHour] = [-1, -1];
  }

  /** Of each group of the block: OWN, OVERFLOWED, or 0 when no event that counts has it. */
  #places(verdicts: Uint8Array, { groups, start, key }: Contributions): Uint8Array {
    const { meterHours, dimensions, hourOf, ofKey } = groups;
    const known = meterHours.map((hour) => this.#find(hour)!);
    const places = new Uint8Array(dimensions.length);
    let open = 0;
    dimensions.forEach((text, group) => {
      const hour = hourOf[group]!;
      if (known[hour]!.has(text)) places[group] = OWN;
      else if (known[hour]!.size >= meterHours[hour]!.groupsMax) places[group] = OVERFLOWED;
      else open += 1;
    });
    // Only a block with a new group in an hour that is not full is gone through event by event.
    for (let at = 0; open > 0 && at < verdicts.length; at++) {
      if (verdicts[at] !== COUNTED) continue;
      for (let one = start[at]!; one < start[at + 1]!; one++) {
        const group = ofKey[key[one]!]! - 1;
        if (group < 0 || places[group] !== 0) continue;
        const hour = hourOf[group]!;
        const set = known[hour]!;
        // It may stand in the block twice, as a number and as text, and have been let in a moment ago.
        const isOwn = set.has(dimensions[group]!) || set.size < meterHours[hour]!.groupsMax;
        if (isOwn) set.add(dimensions[group]!);
        places[group] = isOwn ? OWN : OVERFLOWED;
        open -= 1;
      }
    }
    return places;
  }

  #find({ text }: MeterHour): Set<string> | undefined {
    const known = this.#current.get(text);
    if (known !== undefined) return known;
    const older = this.#previous.get(text);
    if (older === undefined) return undefined;
    this.#previous.delete(text);
    this.#current.set(text, older);
    this.#currentHour = Math.max(this.#currentHour, this.#previousHour);
    return older;
  }

  #add(hour: MeterHour, known: Set<string>): void {
    this.#current.set(hour.text, known);
    this.#currentHour = Math.max(this.#currentHour, hour.hourSeconds);
  }
}

/** An empty hour takes room as well. */
function sizeOf(sets: ReadonlyMap<string, ReadonlySet<string>>): number {
  let size = sets.size;
  for (const set of sets.values()) size += set.size;
  return size;
}

function countOverflowed(
  verdicts: Uint8Array,
  { groups, start, key }: Contributions,
  places: Uint8Array,
): Map<MeterHour, number> {
  const counts = new Map<MeterHour, number>();
  for (let at = 0; at < verdicts.length; at++) {
    if (verdicts[at] !== COUNTED) continue;
    for (let one = start[at]!; one < start[at + 1]!; one++) {
      const group = groups.ofKey[key[one]!]! - 1;
      if (group < 0 || places[group] !== OVERFLOWED) continue;
      const hour = groups.meterHours[groups.hourOf[group]!]!;
      counts.set(hour, (counts.get(hour) ?? 0) + 1);
    }
  }
  return counts;
}
