/**
 * Memory that grows a page at a time and is never copied: of many rows, an array that doubles would for a moment take
 * three times what they need, and stop everything while it is filled.
 *
 * A *place* is a number of 8 bytes. What is taken lies in one page, at consecutive places: `page[place >>> PAGE_SHIFT]`
 * at `place & PAGE_MASK`, twice that in words of 32 bits. Place 0 is given to nobody, so it says that there is none.
 */
export const PAGE_SHIFT = 17;
const PAGE_PLACES = 2 ** PAGE_SHIFT;
export const PAGE_MASK = PAGE_PLACES - 1;
/** Most shards of a test, and many of a small installation, never have more. */
const FIRST_PLACES = PAGE_PLACES / 64;
/** Places are told in 32 bits: 32 GiB. */
const PLACES_MAX = 2 ** 32;
const PLACE_BYTES = 8;

export class RowPages {
  readonly doubles: Float64Array[] = [];
  readonly words: Uint32Array[] = [];
  readonly bytes: Uint8Array[] = [];
  #end = 0;
  /** Where the newest page ends. */
  #limit = 0;

  constructor() {
    this.#append(FIRST_PLACES);
    this.#end = 1;
  }

  /** So many consecutive places, all zeros. */
  take(places: number): number {
    if (this.#end + places > this.#limit) {
      this.#end = this.doubles.length * PAGE_PLACES;
      this.#append(PAGE_PLACES);
      if (places > PAGE_PLACES) throw new RangeError(`${places * PLACE_BYTES} bytes do not fit into a page`);
    }
    const place = this.#end;
    this.#end += places;
    return place;
  }

  #append(places: number): void {
    const begin = this.doubles.length * PAGE_PLACES;
    if (begin + places > PLACES_MAX) throw new RangeError('rollup rows of a shard take more than 32 GiB');
    const buffer = new ArrayBuffer(places * PLACE_BYTES);
    this.doubles.push(new Float64Array(buffer));
    this.words.push(new Uint32Array(buffer));
    this.bytes.push(new Uint8Array(buffer));
    this.#limit = begin + places;
  }
}
