/**
 * The texts of one block, each standing once, found by their bytes. Open addressing; the bytes themselves
 * decide, so texts with equal hashes stay apart.
 *
 * A text that finds `PROBES_MAX` places taken by others is appended without a place: it may then stand in the block
 * more than once, which the format allows. So somebody who crafts texts with equal hashes makes a block larger,
 * up to its limit, and the edge no slower.
 */
import { copyWords, sameWords, SLACK_BYTES } from './byte-words.ts';
import { TextHash } from './text-hash.ts';

const TEXTS_FIRST = 128;
const BYTES_FIRST = 2_048;
/** The table is a quarter full at most: texts that are not crafted need a few. */
export const PROBES_MAX = 32;
/** Serial numbers begin again above this; one block holds fewer texts than are left above it. */
const SERIAL_MAX = 0xf000_0000;

export class TextDictionary {
  size = 0;
  /** Text `n` is `bytes[start[n], start[n + 1])`. A word can be read wherever a byte of a text stands. */
  bytes = new Uint8Array(BYTES_FIRST);
  start = new Uint32Array(TEXTS_FIRST + 1);
  /** Hashes by number. */
  low = new Int32Array(TEXTS_FIRST);
  high = new Int32Array(TEXTS_FIRST);
  /**
   * Texts of the blocks before: what remembers a text as `base + number + 1` finds it out of date, because not above
   * `base`, as soon as the dictionary is cleared. So nothing has to be wiped for a block of one event.
   */
  base = 0;

  #view = new DataView(this.bytes.buffer);
  #slots = new Uint32Array(TEXTS_FIRST * 4);
  readonly #hash = new TextHash();
  readonly #serialMax: number;

  constructor(serialMax = SERIAL_MAX) {
    this.#serialMax = serialMax;
  }

  /** Bytes of all texts. */
  get length(): number {
    return this.start[this.size]!;
  }

  /** The number of the text `source[from, to)`, which is probably `guess`; any guess will do. */
  of(source: DataView, from: number, to: number, guess: number): number {
    if (guess < this.size) {
      const begin = this.start[guess]!;
      const length = to - from;
      if (this.start[guess + 1]! - begin === length && sameWords(this.#view, begin, source, from, length))
        return guess;
    }
    this.#hash.ofView(source, from, to);
    return this.find(source, from, to, this.#hash.low, this.#hash.high);
  }

  /** The same for a text whose hash is known. */
  find(source: DataView, from: number, to: number, low: number, high: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    const { base } = this;
    let slot = low & mask;
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const serial = slots[slot]!;
      if (serial <= base) {
        slots[slot] = base + this.size + 1;
        return this.#add(source, from, to, low, high);
      }
      const number = serial - base - 1;
      if (this.low[number] === low) {
        const begin = this.start[number]!;
        if (
          this.start[number + 1]! - begin === to - from &&
          sameWords(this.#view, begin, source, from, to - from)
        )
          return number;
      }
      slot = (slot + 1) & mask;
    }
    return this.#add(source, from, to, low, high);
  }

  clear(): void {
    this.base += this.size;
    this.size = 0;
    if (this.base < this.#serialMax) return;
    this.base = 0;
    this.#slots.fill(0);
  }

  #add(source: DataView, from: number, to: number, low: number, high: number): number {
    const number = this.size;
    const begin = this.start[number]!;
    const end = begin + to - from;
    if (end + SLACK_BYTES > this.bytes.length) {
      const larger = new Uint8Array((end + SLACK_BYTES) * 2);
      larger.set(this.bytes.subarray(0, begin));
      this.bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    copyWords(source, from, to, this.#view, begin);
    this.low[number] = low;
    this.high[number] = high;
    this.size = number + 1;
    this.start[number + 1] = end;
    if (number + 1 === this.low.length) this.#grow();
    return number;
  }

  #grow(): void {
    const capacity = this.size * 2;
    const start = new Uint32Array(capacity + 1);
    start.set(this.start);
    this.start = start;
    const low = new Int32Array(capacity);
    low.set(this.low);
    this.low = low;
    const high = new Int32Array(capacity);
    high.set(this.high);
    this.high = high;
    const slots = new Uint32Array(capacity * 4);
    const mask = slots.length - 1;
    for (let number = 0; number < this.size; number++) {
      let slot = low[number]! & mask;
      for (let probe = 0; probe < PROBES_MAX; probe++) {
        if (slots[slot] === 0) {
          slots[slot] = this.base + number + 1;
          break;
        }
        slot = (slot + 1) & mask;
      }
    }
    this.#slots = slots;
  }
}
