/**
 * Numbers for the places in `data`: the keys of nested objects, as a tree. A place is found by its parent's
 * number and the bytes of its key, so that nobody has to put a dotted path together, or make a string, to know
 * which field this is. Events of one product have few places, and nearly always in the same order: who reads
 * them asks `follows` first and compares a dozen bytes.
 *
 * The table grows with what senders use. It is emptied between batches once it is large (`trim`), which
 * changes `generation`: numbers from before mean nothing then.
 */
import { SLACK_BYTES, sameWords } from './byte-words.ts';
import { TextHash, finish } from './text-hash.ts';

const CAPACITY_FIRST = 256;
/** The largest that V8 keeps without a box. */
const MARK_LAST = 0x3fff_ffff;
const DOT = 0x2e;
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

export class PathTable {
  /** `data` itself. */
  static readonly ROOT = 0;

  /** Places known, the root included. */
  size = 1;
  generation = 0;

  // Columns by number.
  /** Bytes of the dotted path. */
  length = new Uint32Array(CAPACITY_FIRST);
  /** The least number with the same dotted path: {"a.b": 1} and {"a": {"b": 1}} are two places with one path. */
  canonical = new Uint32Array(CAPACITY_FIRST);
  /** Hash of the dotted path. */
  hashLow = new Uint32Array(CAPACITY_FIRST);
  hashHigh = new Uint32Array(CAPACITY_FIRST);
  /** The place that came after this one the last time; 0 for none. Written by readers, as a guess for the next. */
  follows = new Uint32Array(CAPACITY_FIRST);
  /** The `freshMark` of the event in which a reader last saw the place. */
  mark = new Uint32Array(CAPACITY_FIRST);
  /** The bytes of the key stand in `keys[keyStart, keyEnd)`. */
  parent = new Uint32Array(CAPACITY_FIRST);
  keyStart = new Uint32Array(CAPACITY_FIRST);
  keyEnd = new Uint32Array(CAPACITY_FIRST);
  keys = new Uint8Array(CAPACITY_FIRST * 16);
  /** The same memory. SLACK_BYTES at least stand behind every key. */
  keyView = new DataView(this.keys.buffer);

  #keyBytes = 0;
  #lastMark = 0;
  #slots = new Uint32Array(CAPACITY_FIRST * 2); // open addressing; 0 is free, the root is never looked up
  readonly #seed: number;
  readonly #hash = new TextHash();
  #pathBytes = new Uint8Array(CAPACITY_FIRST);
  /** By dotted path, from the first key on that holds a dot or is empty: until then no two places share one. */
  #byPath: Map<string, number> | null = null;

  /**
   * @param seed any number that senders do not know: with a known one they could choose keys that are all looked up
   *   in one row, and a body of them would take minutes.
   */
  constructor(seed = 0) {
    this.#seed = seed | 0;
  }

  /** The number of the place `bytes[start, end)` below `parent`; a new one when it was not known. */
  child(parent: number, bytes: Uint8Array, start: number, end: number): number {
    const mask = this.#slots.length - 1;
    let slot = slotHash(this.#seed, parent, bytes, start, end) & mask;
    for (;;) {
      const found = this.#slots[slot]!;
      if (found === 0) break;
      if (this.parent[found] === parent && this.isKey(found, bytes, start, end)) return found;
      slot = (slot + 1) & mask;
    }
    const number = this.#add(parent, bytes, start, end);
    this.#slots[slot] = number;
    if (this.size * 2 > this.#slots.length) this.#rehash();
    return number;
  }

  /** A mark that no place has: one for each event, whoever reads it. */
  freshMark(): number {
    if (this.#lastMark === MARK_LAST) {
      this.mark.fill(0);
      this.#lastMark = 0;
    }
    this.#lastMark += 1;
    return this.#lastMark;
  }

  isKey(number: number, bytes: Uint8Array, start: number, end: number): boolean {
    const from = this.keyStart[number]!;
    const length = end - start;
    if (this.keyEnd[number]! - from !== length) return false;
    const { keys } = this;
    for (let at = 0; at < length; at++) if (keys[from + at] !== bytes[start + at]) return false;
    return true;
  }

  /** The same of the bytes of a view, which goes on for SLACK_BYTES behind them: half the time. */
  isKeyInView(number: number, view: DataView, start: number, end: number): boolean {
    const from = this.keyStart[number]!;
    const length = end - start;
    if (this.keyEnd[number]! - from !== length) return false;
    return sameWords(this.keyView, from, view, start, length);
  }

  /** Writes the dotted path, which takes `length[number]` bytes, and returns its end. */
  write(number: number, target: Uint8Array, start: number): number {
    let end = start + this.length[number]!;
    const last = end;
    for (let place = number; place !== PathTable.ROOT; place = this.parent[place]!) {
      const from = this.keyStart[place]!;
      const length = this.keyEnd[place]! - from;
      end -= length;
      for (let at = 0; at < length; at++) target[end + at] = this.keys[from + at]!;
      if (this.parent[place] !== PathTable.ROOT) target[--end] = DOT;
    }
    return last;
  }

  path(number: number): string {
    const bytes = new Uint8Array(this.length[number]!);
    this.write(number, bytes, 0);
    return utf8.decode(bytes);
  }

  /** Forgets everything when more than `sizeMax` places are known. Never while a batch is being read. */
  trim(sizeMax: number): void {
    if (this.size <= sizeMax) return;
    this.size = 1;
    this.generation += 1;
    this.#keyBytes = 0;
    this.#byPath = null;
    this.#slots = new Uint32Array(CAPACITY_FIRST * 2);
    this.#resize(CAPACITY_FIRST, false);
    this.keys = new Uint8Array(CAPACITY_FIRST * 16);
    this.keyView = new DataView(this.keys.buffer);
  }

  #add(parent: number, bytes: Uint8Array, start: number, end: number): number {
    const number = this.size;
    if (number === this.parent.length) this.#resize(number * 2, true);
    const keyLength = end - start;
    if (this.#keyBytes + keyLength + SLACK_BYTES > this.keys.length) {
      const larger = new Uint8Array((this.#keyBytes + keyLength + SLACK_BYTES) * 2);
      larger.set(this.keys);
      this.keys = larger;
      this.keyView = new DataView(larger.buffer);
    }
    for (let at = 0; at < keyLength; at++) this.keys[this.#keyBytes + at] = bytes[start + at]!;
    this.size = number + 1;
    this.parent[number] = parent;
    this.keyStart[number] = this.#keyBytes;
    this.#keyBytes += keyLength;
    this.keyEnd[number] = this.#keyBytes;
    this.length[number] = parent === PathTable.ROOT ? keyLength : this.length[parent]! + 1 + keyLength;
    this.follows[number] = 0;
    this.mark[number] = 0;
    const length = this.length[number]!;
    if (length > this.#pathBytes.length) this.#pathBytes = new Uint8Array(length * 2);
    this.write(number, this.#pathBytes, 0);
    this.#hash.of(this.#pathBytes, 0, length);
    this.hashLow[number] = this.#hash.low;
    this.hashHigh[number] = this.#hash.high;
    this.canonical[number] = number;
    const isAmbiguous = keyLength === 0 || holdsDot(bytes, start, end);
    if (isAmbiguous && this.#byPath === null) {
      this.#byPath = new Map();
      for (let one = 1; one < number; one++) this.#canonize(one);
    }
    if (this.#byPath !== null) this.#canonize(number);
    return number;
  }

  #canonize(number: number): void {
    const path = this.path(number);
    const first = this.#byPath!.get(path);
    if (first === undefined) this.#byPath!.set(path, number);
    else this.canonical[number] = first;
  }

  #rehash(): void {
    const slots = new Uint32Array(this.#slots.length * 2);
    const mask = slots.length - 1;
    for (let number = 1; number < this.size; number++) {
      const [start, end] = [this.keyStart[number]!, this.keyEnd[number]!];
      let slot = slotHash(this.#seed, this.parent[number]!, this.keys, start, end) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = number;
    }
    this.#slots = slots;
  }

  #resize(capacity: number, keep: boolean): void {
    const resized = (column: Uint32Array): Uint32Array<ArrayBuffer> => {
      const larger = new Uint32Array(capacity);
      if (keep) larger.set(column);
      return larger;
    };
    this.length = resized(this.length);
    this.canonical = resized(this.canonical);
    this.hashLow = resized(this.hashLow);
    this.hashHigh = resized(this.hashHigh);
    this.follows = resized(this.follows);
    this.mark = resized(this.mark);
    this.parent = resized(this.parent);
    this.keyStart = resized(this.keyStart);
    this.keyEnd = resized(this.keyEnd);
  }
}

function holdsDot(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] === DOT) return true;
  return false;
}

/** The seed goes in first, so that keys which collide under one seed do not under another. */
export function slotHash(
  seed: number,
  parent: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): number {
  let hash = seed ^ Math.imul(parent, 0x9e3779b1);
  for (let at = start; at < end; at++) {
    hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
    hash ^= hash >>> 15;
  }
  return finish(hash);
}
