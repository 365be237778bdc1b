/**
 * Which identities were counted, where in the log, and with which payload: exact, on typed arrays, because
 * a Map of ten million strings costs 120 bytes a key and a microsecond a look.
 *
 * Open addressing with linear probing. The identity is a keyed hash, so its first word is the slot. Tables
 * are a power of two and grow to it by doubling; fresh memory is filled at once, since touching a new page
 * in the hot loop costs more than the insert.
 *
 * Bounded by generations: new keys go to the current one; when it holds half of the bound it becomes the
 * previous one, and what was the previous one is dropped. A dropped key is still in ClickHouse, so from then
 * on a miss here means "ask there" (`complete` is false). Keys that are not durable yet cannot be asked for:
 * a generation that holds one is kept, and the bound waits for the flush, whose backlog has a bound itself.
 */
import { EARLIER } from './position-in-shard.ts';

/** No entry. Below EARLIER, so that "was before" is one comparison. */
export const ABSENT = -2;

const CAPACITY_LEAST = 1_024;
const LOAD_MAX = 0.7;
const SLOT_BYTES = 32;

class Generation {
  size = 0;
  /** The highest position in it: once that is durable, all of it is. */
  newest = EARLIER;
  words: Uint32Array;
  position: Float64Array;
  hash: Uint32Array;
  #mask: number;
  #growAt: number;

  constructor(expected: number) {
    let capacity = CAPACITY_LEAST;
    while (capacity * LOAD_MAX < expected) capacity *= 2;
    this.words = new Uint32Array(capacity * 4).fill(0);
    this.position = new Float64Array(capacity).fill(ABSENT);
    this.hash = new Uint32Array(capacity * 2).fill(0);
    this.#mask = capacity - 1;
    this.#growAt = Math.floor(capacity * LOAD_MAX);
  }

  get bytes(): number {
    return (this.#mask + 1) * SLOT_BYTES;
  }

  /** The slot of the identity, or the empty one where it would go. */
  slot(words: Uint32Array, at: number): number {
    const [w0, w1, w2, w3] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!];
    const { words: kept, position } = this;
    let slot = w0 & this.#mask;
    while (position[slot] !== ABSENT) {
      const base = slot * 4;
      if (kept[base] === w0 && kept[base + 1] === w1 && kept[base + 2] === w2 && kept[base + 3] === w3)
        return slot;
      slot = (slot + 1) & this.#mask;
    }
    return slot;
  }

  /** Keeps the entry with the smaller position when the identity is there already. */
  put(words: Uint32Array, at: number, position: number, low: number, high: number): void {
    const slot = this.slot(words, at);
    const known = this.position[slot]!;
    if (known !== ABSENT && known <= position) return;
    if (known === ABSENT) {
      this.size += 1;
      const base = slot * 4;
      for (let word = 0; word < 4; word++) this.words[base + word] = words[at + word]!;
    }
    this.position[slot] = position;
    this.hash[slot * 2] = low;
    this.hash[slot * 2 + 1] = high;
    if (position > this.newest) this.newest = position;
    if (this.size > this.#growAt) this.#grow();
  }

  #grow(): void {
    const larger = new Generation(this.#growAt * 2);
    for (let slot = 0; slot < this.position.length; slot++) {
      const position = this.position[slot]!;
      if (position === ABSENT) continue;
      larger.put(this.words, slot * 4, position, this.hash[slot * 2]!, this.hash[slot * 2 + 1]!);
    }
    this.words = larger.words;
    this.position = larger.position;
    this.hash = larger.hash;
    this.#mask = larger.#mask;
    this.#growAt = larger.#growAt;
  }
}

export class DedupeIndex {
  /** False once an entry was dropped or left out: a miss then proves nothing. */
  complete = true;
  readonly #half: number;
  /** Newest first. */
  #generations: Generation[];
  #found: Generation;
  #foundSlot = 0;

  /** @param keysMax the bound; @param expected how many keys are about to be loaded. */
  constructor(keysMax: number, expected = 0) {
    this.#half = Math.max(1, Math.floor(keysMax / 2));
    this.#found = new Generation(Math.min(expected, this.#half));
    this.#generations = [this.#found];
  }

  get size(): number {
    return this.#generations.reduce((sum, generation) => sum + generation.size, 0);
  }

  get bytes(): number {
    return this.#generations.reduce((sum, generation) => sum + generation.bytes, 0);
  }

  /** The position of the identity's first event, EARLIER, or ABSENT. */
  look(words: Uint32Array, at: number): number {
    for (const generation of this.#generations) {
      const slot = generation.slot(words, at);
      const position = generation.position[slot]!;
      if (position !== ABSENT) {
        this.#found = generation;
        this.#foundSlot = slot;
        return position;
      }
    }
    return ABSENT;
  }

  /** Whether what the last `look` found said the same. */
  samePayload(hash: Uint32Array, at: number): boolean {
    const { hash: kept } = this.#found;
    return kept[this.#foundSlot * 2] === hash[at] && kept[this.#foundSlot * 2 + 1] === hash[at + 1];
  }

  put(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): void {
    this.#generations[0]!.put(words, at, position, hash[hashAt]!, hash[hashAt + 1]!);
  }

  /** Turns the generations over if it is time. Call it between blocks; `durable` is the watermark. */
  rotate(durable: number): void {
    if (this.#generations[0]!.size < this.#half) return;
    const kept = this.#generations.filter((generation, age) => age === 0 || generation.newest > durable);
    if (kept.length < this.#generations.length) this.complete = false;
    this.#begin(kept);
  }

  /** Ends the current generation early: what is put next is newer. For loading older entries first. */
  seal(): void {
    this.#begin(this.#generations);
  }

  #begin(older: readonly Generation[]): void {
    this.#found = new Generation(Math.min(this.#half, older[0]!.size));
    this.#generations = [this.#found, ...older];
  }
}
