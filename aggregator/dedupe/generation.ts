/**
 * One generation of the hot tier: which identities it holds, at which position of the log, with which payload.
 * Exact: all 128 bits of an identity decide, and all 64 of a payload's hash.
 *
 * Entries lie densely, one behind the other in the order in which they came: eight words each (the identity's
 * four, the payload's two, the position's two), which is half a cache line. A directory finds them: 32 bits an
 * entry, its number and as many bits of the identity as are left, so that a look for what is not there hardly ever
 * touches an entry. Half-empty slots of 32 bytes cost 46 to 91 bytes a key (load 0.7 to 0.35); this costs 38 to 43, measured, and a miss costs one cache line instead of a walk over entries.
 *
 * The directory is cut into segments by the first bits of the identity, about 4,096 keys each. A segment grows alone,
 * to twice its slots, so nothing ever pauses for the whole. Entries never move: a
 * generation grows by chunks, which are filled when they are made, because the first touch of a fresh page costs more
 * than the insert.
 *
 * The identity is a keyed hash, so its bits are as good as random, and nobody can choose where he lands. If all keys
 * met in one slot nevertheless, looks would get slow and stay exact: a segment always keeps empty slots, so every walk
 * ends.
 */
import { EARLIER } from '../position-in-shard.ts';

const ENTRY_WORDS = 8;
const ENTRY_BYTES = ENTRY_WORDS * 4;
const PAYLOAD = 4;
const POSITION = 6;

/** 512 KiB of entries. */
const CHUNK_BITS_MAX = 14;
const CHUNK_BITS_LEAST = 4;

const SEGMENT_KEYS = 4_096;
const SEGMENT_BITS_MAX = 16;
const SEGMENT_SLOTS_LEAST = 16;
/** By theory, walks of 2.2 slots for what is there and 6 for what is not; they lie side by side. */
const LOAD_MAX = 0.7;
const SLOT_BYTES = 4;

const GENERATION_KEYS_MAX = 2 ** 30;
/** By the block that filled it, and by those that were asked for together with it. */
const OVERGROWTH_KEYS = 2 ** 20;

/** No entry. */
export const NONE = -1;

/** What the index asks of a generation. Entries are numbers that mean something to the generation alone. */
export interface ExactKeys {
  readonly size: number;
  /** The highest position in it: once that is durable, all of it is. */
  readonly newest: number;
  readonly bytes: number;
  /** The identity's entry, or NONE. */
  find(words: Uint32Array, at: number): number;
  positionOf(entry: number): number;
  samePayload(entry: number, hash: Uint32Array, at: number): boolean;
  /** Keeps the entry with the smaller position when the identity is there already; false when there is no room. */
  put(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): boolean;
  /** Hands over the next identities, each once, and up to so many; returns how many. Nothing is put any more. */
  handOver(most: number, take: (words: Uint32Array, at: number) => void): number;
  /** It is not asked any more: its memory may be used again. */
  release(): void;
}

export class Generation implements ExactKeys {
  size = 0;
  newest = EARLIER;
  readonly #keysMax: number;
  readonly #chunks: Uint32Array[] = [];
  readonly #chunkBits: number;
  readonly #chunkMask: number;
  readonly #segments: Uint32Array[];
  /** Entries of each segment. */
  readonly #sizes: Uint32Array;
  readonly #segmentShift: number;
  /** A slot is 0 or the number of an entry plus one, and above these bits some of the identity's. */
  readonly #entryBits: number;
  readonly #entryMask: number;
  #slots = 0;
  #handedOver = 0;

  /**
   * @param keys how many it is made for; it may outgrow that a little. @param expected for how many its directory has
   * room at once.
   */
  constructor(keys: number, expected = 0) {
    this.#keysMax = keys + OVERGROWTH_KEYS;
    if (!(keys >= 1 && keys <= GENERATION_KEYS_MAX)) throw new RangeError(`a generation of ${keys} keys`);
    // A small generation has small chunks.
    this.#chunkBits = Math.max(CHUNK_BITS_LEAST, Math.min(CHUNK_BITS_MAX, Math.ceil(Math.log2(keys / 16))));
    this.#chunkMask = 2 ** this.#chunkBits - 1;
    this.#entryBits = Math.ceil(Math.log2(this.#keysMax + 2));
    this.#entryMask = 2 ** this.#entryBits - 1;
    const bits = Math.min(SEGMENT_BITS_MAX, Math.max(0, Math.ceil(Math.log2(keys / SEGMENT_KEYS))));
    this.#segmentShift = 32 - bits;
    const each = Math.min(keys, expected) / 2 ** bits;
    // Four standard deviations above the mean, or every other segment would grow once more at the very end.
    const slots = Math.max(SEGMENT_SLOTS_LEAST, Math.ceil((each + 4 * Math.sqrt(each)) / LOAD_MAX));
    this.#segments = Array.from({ length: 2 ** bits }, () => this.#fresh(slots));
    this.#sizes = new Uint32Array(2 ** bits);
  }

  get bytes(): number {
    return this.#chunks.length * 2 ** this.#chunkBits * ENTRY_BYTES + this.#slots * SLOT_BYTES;
  }

  find(words: Uint32Array, at: number): number {
    const segment = this.#segments[this.#segmentOf(words[at]!)]!;
    const slots = segment.length;
    const tag = words[at + 2]! >>> this.#entryBits;
    let slot = slotOf(words[at + 1]!, slots);
    for (;;) {
      const kept = segment[slot]!;
      if (kept === 0) return NONE;
      if (kept >>> this.#entryBits === tag) {
        const entry = (kept & this.#entryMask) - 1;
        if (this.#is(entry, words, at)) return entry;
      }
      slot += 1;
      if (slot === slots) slot = 0;
    }
  }

  positionOf(entry: number): number {
    const chunk = this.#chunks[entry >>> this.#chunkBits]!;
    const base = (entry & this.#chunkMask) * ENTRY_WORDS + POSITION;
    // Kept plus one, so that EARLIER, which is -1, is 0.
    return chunk[base + 1]! * 2 ** 32 + chunk[base]! - 1;
  }

  samePayload(entry: number, hash: Uint32Array, at: number): boolean {
    const chunk = this.#chunks[entry >>> this.#chunkBits]!;
    const base = (entry & this.#chunkMask) * ENTRY_WORDS + PAYLOAD;
    return chunk[base] === hash[at] && chunk[base + 1] === hash[at + 1];
  }

  put(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): boolean {
    if (this.size >= this.#keysMax) return false;
    const known = this.find(words, at);
    if (known === NONE) this.#add(words, at, position, hash, hashAt);
    else if (this.positionOf(known) > position) this.#write(known, position, hash, hashAt);
    return true;
  }

  handOver(most: number, take: (words: Uint32Array, at: number) => void): number {
    const begin = this.#handedOver;
    const end = Math.min(this.size, begin + most);
    for (let entry = begin; entry < end; entry++)
      take(this.#chunks[entry >>> this.#chunkBits]!, (entry & this.#chunkMask) * ENTRY_WORDS);
    this.#handedOver = end;
    return end - begin;
  }

  release(): void {}

  #add(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): void {
    const number = this.#segmentOf(words[at]!);
    let segment = this.#segments[number]!;
    const size = this.#sizes[number]! + 1;
    if (size > segment.length * LOAD_MAX) segment = this.#grow(number, segment);
    this.#sizes[number] = size;
    const entry = this.size++;
    // A power worked out here would be a call for each event.
    if (entry >>> this.#chunkBits === this.#chunks.length)
      this.#chunks.push(new Uint32Array(ENTRY_WORDS * (this.#chunkMask + 1)).fill(0));
    const chunk = this.#chunks[entry >>> this.#chunkBits]!;
    const base = (entry & this.#chunkMask) * ENTRY_WORDS;
    for (let word = 0; word < 4; word++) chunk[base + word] = words[at + word]!;
    this.#write(entry, position, hash, hashAt);
    this.#enter(segment, entry, words[at + 1]!, words[at + 2]!);
  }

  #write(entry: number, position: number, hash: Uint32Array, hashAt: number): void {
    const chunk = this.#chunks[entry >>> this.#chunkBits]!;
    const base = (entry & this.#chunkMask) * ENTRY_WORDS;
    chunk[base + PAYLOAD] = hash[hashAt]!;
    chunk[base + PAYLOAD + 1] = hash[hashAt + 1]!;
    chunk[base + POSITION] = (position + 1) % 2 ** 32;
    chunk[base + POSITION + 1] = Math.floor((position + 1) / 2 ** 32);
    if (position > this.newest) this.newest = position;
  }

  #is(entry: number, words: Uint32Array, at: number): boolean {
    const chunk = this.#chunks[entry >>> this.#chunkBits]!;
    const base = (entry & this.#chunkMask) * ENTRY_WORDS;
    return (
      chunk[base + 1] === words[at + 1] &&
      chunk[base + 2] === words[at + 2] &&
      chunk[base] === words[at] &&
      chunk[base + 3] === words[at + 3]
    );
  }

  #enter(segment: Uint32Array, entry: number, slotWord: number, tagWord: number): void {
    let slot = slotOf(slotWord, segment.length);
    while (segment[slot] !== 0) {
      slot += 1;
      if (slot === segment.length) slot = 0;
    }
    segment[slot] = (tagWord & ~this.#entryMask) | (entry + 1);
  }

  #grow(number: number, segment: Uint32Array): Uint32Array {
    const larger = this.#fresh(segment.length * 2);
    for (const kept of segment) {
      if (kept === 0) continue;
      const entry = (kept & this.#entryMask) - 1;
      const chunk = this.#chunks[entry >>> this.#chunkBits]!;
      const base = (entry & this.#chunkMask) * ENTRY_WORDS;
      this.#enter(larger, entry, chunk[base + 1]!, chunk[base + 2]!);
    }
    this.#slots -= segment.length;
    this.#segments[number] = larger;
    return larger;
  }

  #fresh(slots: number): Uint32Array {
    this.#slots += slots;
    return new Uint32Array(slots).fill(0);
  }

  /** Shifting by 32 is shifting by 0 in JavaScript, so one segment alone is a case of its own. */
  #segmentOf(word: number): number {
    return this.#segmentShift === 32 ? 0 : word >>> this.#segmentShift;
  }
}

/** A word as a place among any number of slots: its share of 2^32. Exact, being below 2^53. */
function slotOf(word: number, slots: number): number {
  return Math.floor((word * slots) / 2 ** 32);
}
