/**
 * The shapes of one block: the lists of paths, tags and scales of its events' data, each standing once. A shape is
 * known by the text numbers of its paths, so that it is the same whichever batch, or generation of a path table,
 * its events came in.
 *
 * Events of one product have few shapes, and neighbours mostly the same one: the last event's is tried first, by
 * path numbers, without looking at any text.
 */
import { SLACK_BYTES } from './byte-words.ts';
import type { EventBatch } from './event-batch.ts';
import type { PathTable } from './path-table.ts';
import { absorbHigh, absorbLow, START_FIELD_HIGH, START_FIELD_LOW } from './payload.ts';
import { PROBES_MAX, type TextDictionary } from './text-dictionary.ts';
import { finish } from './text-hash.ts';

const SHAPES_FIRST = 16;
const FIELDS_FIRST = 128;

export class ShapeDictionary {
  size = 0;
  /** Shape `n` has the fields `start[n]` up to, not including, `start[n + 1]`. */
  start = new Uint32Array(SHAPES_FIRST + 1);
  /** As in the block: text number of the path, tag << 8 | scale. */
  fields = new Uint32Array(FIELDS_FIRST * 2);
  /** What the payload hash of a field begins with, by field: its path and code are absorbed already. */
  seedLow = new Int32Array(FIELDS_FIRST);
  seedHigh = new Int32Array(FIELDS_FIRST);

  readonly #texts: TextDictionary;
  #hashes = new Int32Array(SHAPES_FIRST);
  #slots = new Uint32Array(SHAPES_FIRST * 4); // as in the dictionary of texts
  #base = 0;

  #table: PathTable | null = null;
  #generation = 0;
  /** By path number: the serial number of the path's text. */
  #textOfPath = new Uint32Array(64);
  #path = new Uint8Array(256);
  #pathView = new DataView(this.#path.buffer);
  /** The fields looked for, as pairs like those of `fields`. */
  #wanted = new Uint32Array(64 * 2);

  #last = -1;
  #lastPath = new Uint32Array(64);
  #lastCode = new Uint32Array(64);

  constructor(texts: TextDictionary) {
    this.#texts = texts;
  }

  /** Fields of all shapes. */
  get fieldCount(): number {
    return this.start[this.size]!;
  }

  /** The number of the shape of the event's data. */
  of(batch: EventBatch, event: number): number {
    const { paths } = batch;
    if (paths !== this.#table || paths.generation !== this.#generation) this.#turnTo(paths);
    const first = batch.fieldStart[event]!;
    const count = batch.fieldStart[event + 1]! - first;
    const last = this.#last;
    if (last >= 0 && this.start[last + 1]! - this.start[last]! === count) {
      const { path, code } = batch;
      const lastPath = this.#lastPath;
      const lastCode = this.#lastCode;
      let at = 0;
      while (at < count && path[first + at] === lastPath[at] && code[first + at] === lastCode[at]) at += 1;
      if (at === count) return last;
    }
    return this.#look(batch, first, count);
  }

  /** After the dictionary of texts was cleared. */
  clear(): void {
    this.#base += this.size;
    this.size = 0;
    this.#last = -1;
    if (this.#texts.base === 0) this.#table = null; // Serial numbers began again.
    if (this.#base < 2 ** 31) return;
    this.#base = 0;
    this.#slots.fill(0);
  }

  /** Numbers of paths mean something else from now on; the shapes stay. */
  #turnTo(table: PathTable): void {
    this.#table = table;
    this.#generation = table.generation;
    this.#textOfPath.fill(0);
    this.#last = -1;
  }

  #look(batch: EventBatch, first: number, count: number): number {
    if (count > this.#lastPath.length) {
      this.#wanted = new Uint32Array(count * 4);
      this.#lastPath = new Uint32Array(count * 2);
      this.#lastCode = new Uint32Array(count * 2);
    }
    const wanted = this.#wanted;
    let hash = count;
    for (let at = 0; at < count; at++) {
      const path = batch.path[first + at]!;
      const code = batch.code[first + at]!;
      const text = this.#text(batch.paths, path);
      wanted[at * 2] = text;
      wanted[at * 2 + 1] = code;
      hash = absorbLow(hash, (text << 12) ^ code);
      this.#lastPath[at] = path;
      this.#lastCode[at] = code;
    }
    return (this.#last = this.#find(batch, first, count, finish(hash)));
  }

  #find(batch: EventBatch, first: number, count: number, hash: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let slot = hash & mask;
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const serial = slots[slot]!;
      if (serial <= this.#base) {
        slots[slot] = this.#base + this.size + 1;
        return this.#add(batch, first, count, hash);
      }
      const number = serial - this.#base - 1;
      if (this.#hashes[number] === hash && this.#is(number, count)) return number;
      slot = (slot + 1) & mask;
    }
    return this.#add(batch, first, count, hash);
  }

  #is(number: number, count: number): boolean {
    const start = this.start[number]!;
    if (this.start[number + 1]! - start !== count) return false;
    const wanted = this.#wanted;
    for (let at = 0; at < count * 2; at++) if (this.fields[start * 2 + at] !== wanted[at]) return false;
    return true;
  }

  #add(batch: EventBatch, first: number, count: number, hash: number): number {
    const number = this.size;
    const start = this.start[number]!;
    if (start + count > this.seedLow.length) this.#growFields((start + count) * 2);
    const { hashLow, hashHigh } = batch.paths;
    for (let at = 0; at < count; at++) {
      const path = batch.path[first + at]!;
      const code = batch.code[first + at]!;
      const field = start + at;
      this.fields[field * 2] = this.#wanted[at * 2]!;
      this.fields[field * 2 + 1] = code;
      this.seedLow[field] = absorbLow(absorbLow(START_FIELD_LOW, hashLow[path]!), code);
      this.seedHigh[field] = absorbHigh(absorbHigh(START_FIELD_HIGH, hashHigh[path]!), code);
    }
    this.#hashes[number] = hash;
    this.size = number + 1;
    this.start[number + 1] = start + count;
    if (number + 1 === this.#hashes.length) this.#growShapes();
    return number;
  }

  /** The text number of a path; its text comes into the block when it is needed first. */
  #text(table: PathTable, path: number): number {
    const texts = this.#texts;
    if (path >= this.#textOfPath.length) {
      const larger = new Uint32Array(Math.max(table.size, path + 1) * 2);
      larger.set(this.#textOfPath);
      this.#textOfPath = larger;
    }
    const serial = this.#textOfPath[path]!;
    if (serial > texts.base) return serial - texts.base - 1;
    const length = table.length[path]!;
    if (length + SLACK_BYTES > this.#path.length) {
      this.#path = new Uint8Array((length + SLACK_BYTES) * 2);
      this.#pathView = new DataView(this.#path.buffer);
    }
    table.write(path, this.#path, 0);
    const number = texts.find(this.#pathView, 0, length, table.hashLow[path]! | 0, table.hashHigh[path]! | 0);
    this.#textOfPath[path] = texts.base + number + 1;
    return number;
  }

  #growFields(capacity: number): void {
    const fields = new Uint32Array(capacity * 2);
    fields.set(this.fields);
    this.fields = fields;
    const low = new Int32Array(capacity);
    low.set(this.seedLow);
    this.seedLow = low;
    const high = new Int32Array(capacity);
    high.set(this.seedHigh);
    this.seedHigh = high;
  }

  #growShapes(): void {
    const capacity = this.size * 2;
    const start = new Uint32Array(capacity + 1);
    start.set(this.start);
    this.start = start;
    const hashes = new Int32Array(capacity);
    hashes.set(this.#hashes);
    this.#hashes = hashes;
    const slots = new Uint32Array(capacity * 4);
    const mask = slots.length - 1;
    for (let number = 0; number < this.size; number++) {
      let slot = hashes[number]! & mask;
      for (let probe = 0; probe < PROBES_MAX; probe++) {
        if (slots[slot] === 0) {
          slots[slot] = this.#base + number + 1;
          break;
        }
        slot = (slot + 1) & mask;
      }
    }
    this.#slots = slots;
  }
}
