/**
 * What is in the journal, and how far each block has come. In memory, and only there: a restart begins with all
 * blocks waiting.
 *
 *   waiting ──sent──▶ under way ──acknowledged──▶ acknowledged, at a sequence ──watermark passed──▶ released
 *      ▲                  │ failed                        │
 *      └──────────────────┴──── the log is in doubt ──────┘
 *
 * A block that cannot be sent (the disk does not give it back, or the server refuses it for good) is set aside
 * until the log is in doubt the next time; it is never released.
 *
 * A block takes 26 bytes here in typed arrays, and never less than 300 bytes in its file: the index of a full
 * journal is bounded by a tenth of the journal's bound, however small the blocks are.
 */

/** One block in the journal. */
export interface Place {
  readonly segment: JournalSegment;
  /** Its number in the segment. */
  readonly at: number;
}

const WAITING = 0;
const UNDER_WAY = -1;
const RELEASED = -2;
const ASIDE = -3;
// Above zero: the sequence at which it was acknowledged.

const NONE = 0xffff_ffff;
const FIRST_CAPACITY = 256;

/** The blocks of one file. */
export class JournalSegment {
  readonly number: number;
  readonly tag: Uint8Array;
  readonly openedAtMs: number;
  /** Of the file. */
  bytes: number;
  /** Nothing is appended any more. */
  sealed = false;
  /** Something in it was not sound: it is kept aside instead of removed. */
  damaged = false;
  count = 0;
  /** Blocks not released. */
  held = 0;

  offsets = new Uint32Array(FIRST_CAPACITY);
  lengths = new Uint32Array(FIRST_CAPACITY);
  shards = new Uint16Array(FIRST_CAPACITY);
  /** Milliseconds after `openedAtMs`. */
  keptAfterMs = new Uint32Array(FIRST_CAPACITY);
  /** The next block of the same shard. */
  next = new Uint32Array(FIRST_CAPACITY);
  states = new Float64Array(FIRST_CAPACITY);
  readonly firstOfShard: Uint32Array;
  readonly lastOfShard: Uint32Array;
  /** The lowest sequence acknowledged and not released; Infinity for none. */
  readonly lowestOfShard: Float64Array;
  /** No block before it is held. */
  firstHeld = 0;

  constructor(o: {
    readonly number: number;
    readonly tag: Uint8Array;
    readonly openedAtMs: number;
    readonly bytes: number;
    readonly shards: number;
  }) {
    this.number = o.number;
    this.tag = o.tag;
    this.openedAtMs = o.openedAtMs;
    this.bytes = o.bytes;
    this.firstOfShard = new Uint32Array(o.shards).fill(NONE);
    this.lastOfShard = new Uint32Array(o.shards).fill(NONE);
    this.lowestOfShard = new Float64Array(o.shards).fill(Infinity);
  }

  add(block: BlockFacts, state: number): number {
    if (this.count === this.offsets.length) this.#grow();
    const at = this.count++;
    const { shard } = block;
    this.held += 1;
    this.offsets[at] = block.offset;
    this.lengths[at] = block.blockBytes;
    this.shards[at] = shard;
    this.keptAfterMs[at] = Math.min(Math.max(0, block.keptAtMs - this.openedAtMs), NONE);
    this.next[at] = NONE;
    this.states[at] = state;
    const last = this.lastOfShard[shard]!;
    if (last === NONE) this.firstOfShard[shard] = at;
    else this.next[last] = at;
    this.lastOfShard[shard] = at;
    return at;
  }

  #grow(): void {
    const capacity = this.offsets.length * 2;
    const grown = <T extends Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T => {
      to.set(from as never);
      return to;
    };
    this.offsets = grown(this.offsets, new Uint32Array(capacity));
    this.lengths = grown(this.lengths, new Uint32Array(capacity));
    this.shards = grown(this.shards, new Uint16Array(capacity));
    this.keptAfterMs = grown(this.keptAfterMs, new Uint32Array(capacity));
    this.next = grown(this.next, new Uint32Array(capacity));
    this.states = grown(this.states, new Float64Array(capacity));
  }
}

export interface BlockFacts {
  /** Of its record. */
  readonly offset: number;
  readonly blockBytes: number;
  readonly shard: number;
  readonly keptAtMs: number;
}

/** Where the search for a shard's oldest waiting block goes on: no such block is before it. */
interface Cursor {
  segment: number;
  at: number;
}

export class JournalIndex {
  /** In the order in which they were opened. */
  readonly segments: JournalSegment[] = [];
  /** Blocks not released. */
  held = 0;
  waiting = 0;
  aside = 0;
  readonly #waitingOfShard: Uint32Array;
  readonly #cursors: Cursor[];

  constructor(shards: number) {
    this.#waitingOfShard = new Uint32Array(shards);
    this.#cursors = Array.from({ length: shards }, () => ({ segment: Infinity, at: 0 }));
  }

  /** A block that lies there from an earlier life: it waits. */
  addFound(segment: JournalSegment, block: BlockFacts): void {
    this.waitingAgain(this.#add(segment, block));
  }

  /** A block that was appended just now; its owner says at once what it waits for. */
  addNew(segment: JournalSegment, block: BlockFacts): Place {
    return this.#add(segment, block);
  }

  #add(segment: JournalSegment, block: BlockFacts): Place {
    this.held += 1;
    return { segment, at: segment.add(block, UNDER_WAY) };
  }

  waitingOf(shard: number): number {
    return this.#waitingOfShard[shard]!;
  }

  /** The shard's oldest block that waits; null when none does. */
  oldestWaiting(shard: number): Place | null {
    const cursor = this.#cursors[shard]!;
    if (this.#waitingOfShard[shard] === 0) {
      cursor.segment = Infinity;
      return null;
    }
    for (let index = this.#indexFrom(cursor.segment); index < this.segments.length; index++) {
      const segment = this.segments[index]!;
      let at = segment.number === cursor.segment ? cursor.at : segment.firstOfShard[shard]!;
      while (at !== NONE && segment.states[at] !== WAITING) at = segment.next[at]!;
      if (at === NONE) continue;
      cursor.segment = segment.number;
      cursor.at = at;
      return { segment, at };
    }
    throw new Error('a waiting block cannot be found');
  }

  sent({ segment, at }: Place): void {
    this.#leave(segment, at);
    segment.states[at] = UNDER_WAY;
  }

  acknowledged({ segment, at }: Place, sequence: number): void {
    if (segment.states[at] === RELEASED) return;
    this.#leave(segment, at);
    segment.states[at] = sequence;
    const shard = segment.shards[at]!;
    if (sequence < segment.lowestOfShard[shard]!) segment.lowestOfShard[shard] = sequence;
  }

  waitingAgain({ segment, at }: Place): void {
    const state = segment.states[at]!;
    if (state === RELEASED || state === WAITING) return;
    this.#leave(segment, at);
    segment.states[at] = WAITING;
    const shard = segment.shards[at]!;
    this.waiting += 1;
    this.#waitingOfShard[shard]! += 1;
    const cursor = this.#cursors[shard]!;
    if (segment.number > cursor.segment || (segment.number === cursor.segment && at >= cursor.at)) return;
    cursor.segment = segment.number;
    cursor.at = at;
  }

  setAside({ segment, at }: Place): void {
    if (segment.states[at] === RELEASED) return;
    this.#leave(segment, at);
    segment.states[at] = ASIDE;
    this.aside += 1;
  }

  /** Nothing was promised of it, or it was counted. */
  release({ segment, at }: Place): void {
    if (segment.states[at] === RELEASED) return;
    this.#leave(segment, at);
    segment.states[at] = RELEASED;
    segment.held -= 1;
    this.held -= 1;
  }

  /** What is known of the shard's log is in doubt: every block that is not released waits again. */
  forget(shard: number): void {
    for (const segment of this.segments) {
      segment.lowestOfShard[shard] = Infinity;
      if (segment.held === 0) continue;
      for (let at = segment.firstOfShard[shard]!; at !== NONE; at = segment.next[at]!) {
        if (segment.states[at]! !== RELEASED) this.waitingAgain({ segment, at });
      }
    }
  }

  /** The lowest sequence of the shard that is acknowledged and not released; Infinity for none. */
  lowestAcknowledged(shard: number): number {
    let lowest = Infinity;
    for (const { lowestOfShard } of this.segments) {
      if (lowestOfShard[shard]! < lowest) lowest = lowestOfShard[shard]!;
    }
    return lowest;
  }

  /**
   * Releases the shard's blocks acknowledged at or below the sequence. Looks into those segments only that
   * have one, which are few: sequences rise in the journal's order, but for repeats.
   */
  releaseUpTo(shard: number, sequence: number): void {
    for (const segment of this.segments) {
      if (segment.lowestOfShard[shard]! > sequence) continue;
      let lowest = Infinity;
      for (let at = segment.firstOfShard[shard]!; at !== NONE; at = segment.next[at]!) {
        const state = segment.states[at]!;
        if (state <= 0) continue;
        if (state <= sequence) this.release({ segment, at });
        else if (state < lowest) lowest = state;
      }
      segment.lowestOfShard[shard] = lowest;
    }
  }

  /** When the oldest block that is not released was kept, epoch milliseconds; null when there is none. */
  oldestHeldMs(): number | null {
    for (const segment of this.segments) {
      if (segment.held === 0) continue;
      while (segment.states[segment.firstHeld] === RELEASED) segment.firstHeld += 1;
      return segment.openedAtMs + segment.keptAfterMs[segment.firstHeld]!;
    }
    return null;
  }

  /** Where the first segment of this number or a higher one stands. */
  #indexFrom(number: number): number {
    let low = 0;
    let high = this.segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.segments[middle]!.number < number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Leaves the counts of the state it is in. */
  #leave(segment: JournalSegment, at: number): void {
    const state = segment.states[at]!;
    if (state === WAITING) {
      this.waiting -= 1;
      this.#waitingOfShard[segment.shards[at]!]! -= 1;
    } else if (state === ASIDE) {
      this.aside -= 1;
    }
  }
}
