/**
 * What the reader of JSON remembers of the places in `data`, to guess the next key: for each place a row of eight
 * numbers in one array, which is one bounds check and one pointer instead of six.
 */
import type { PathTable } from '../../contract/path-table.ts';
import { BACKSLASH, QUOTE, SPACE } from './json-source.ts';

/** The row of place `p` begins at `p << ROW_SHIFT`. */
export const ROW_SHIFT = 3;
/** The place that came after it the last time; 0 for none. */
export const FOLLOWS = 0;
/** Of the next three, a copy of the path table's. */
export const PARENT = 1;
export const KEY_START = 2;
/** -1: the place is not to be guessed, because its key has a character that JSON escapes; 0: the row is empty. */
export const KEY_LENGTH = 3;
/** The number of the event in which it was seen last. */
export const SEEN = 4;
/** 1: another place has the same dotted path, and a lower number. */
export const DOUBLED = 5;

const PLACES_FIRST = 256;
/** Event numbers begin again above it. */
const EVENT_LAST = 0x7fff_fffe;

export class JsonPlaces {
  rows = new Int32Array(PLACES_FIRST << ROW_SHIFT);
  #paths: PathTable | null = null;
  #generation = 0;
  #event = 0;

  /** Begins an event and returns its number. Rows of another table, or of one that was emptied, are forgotten. */
  begin(paths: PathTable): number {
    if (paths !== this.#paths || paths.generation !== this.#generation || this.#event === EVENT_LAST) {
      this.#paths = paths;
      this.#generation = paths.generation;
      this.#event = 0;
      this.rows = new Int32Array(PLACES_FIRST << ROW_SHIFT);
    }
    this.#event += 1;
    return this.#event;
  }

  /** `place` came after `previous`. */
  follow(paths: PathTable, previous: number, place: number): void {
    if ((place + 1) << ROW_SHIFT > this.rows.length) {
      const larger = new Int32Array(paths.parent.length << ROW_SHIFT);
      larger.set(this.rows);
      this.rows = larger;
    }
    const { rows } = this;
    const row = place << ROW_SHIFT;
    if (rows[row + KEY_LENGTH] === 0) {
      const start = paths.keyStart[place]!;
      const end = paths.keyEnd[place]!;
      rows[row + PARENT] = paths.parent[place]!;
      rows[row + KEY_START] = start;
      rows[row + KEY_LENGTH] = isPlain(paths.keys, start, end) ? end - start : -1;
      rows[row + DOUBLED] = paths.canonical[place] === place ? 0 : 1;
    }
    rows[(previous << ROW_SHIFT) + FOLLOWS] = place;
  }
}

/** Whether the key stands in JSON as it is. An empty one is too short to be compared. */
function isPlain(keys: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = keys[at]!;
    if (byte < SPACE || byte === QUOTE || byte === BACKSLASH) return false;
  }
  return end > start;
}
