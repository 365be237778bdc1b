/**
 * Finds the rows of one list of buckets, those of a block mostly. A bucket is looked up once, however many meters it has,
 * and all buckets of the list together: first their slots are read, then what lies at their places, then the rows. In
 * each of these loops nothing waits for what another look finds, so the processor waits for many of them at once.
 */
import type { Buckets } from './bucket.ts';
import { BUCKET_LAST, mixedHash } from './bucket-keys.ts';
import { NEXT, type RollupRows } from './rollup-rows.ts';
import { PAGE_MASK, PAGE_SHIFT } from './row-pages.ts';

const BUCKETS_FIRST = 1_024;

export class BucketRows {
  /** Whether the row that was made last is one that was in memory already. */
  wasKnown = false;
  /** The hash of each bucket, as the generations have it. */
  mixed = new Uint32Array(BUCKETS_FIRST);
  /** Of each bucket the row to look at first; 0 when the bucket has to be settled first. */
  #cursor = new Uint32Array(BUCKETS_FIRST);
  /** Of each bucket what has its hash in the current generation, 0 for nothing; and the last row of that. */
  #place = new Uint32Array(BUCKETS_FIRST);
  #last = new Uint32Array(BUCKETS_FIRST);
  readonly #rows: RollupRows;
  readonly #previous: RollupRows;
  #buckets!: Buckets;
  #tenants!: Uint32Array;
  #view!: DataView;

  /** @param previous the generation from which rows move to the current one when they are wanted. */
  constructor(rows: RollupRows, previous: RollupRows) {
    this.#rows = rows;
    this.#previous = previous;
  }

  /** @param tenants the number in the cache of each tenant of the list */
  begin(buckets: Buckets, tenants: Uint32Array): this {
    this.#buckets = buckets;
    this.#tenants = tenants;
    this.#view = new DataView(buckets.bytes.buffer, buckets.bytes.byteOffset, buckets.bytes.byteLength);
    if (buckets.count > this.mixed.length) {
      this.mixed = new Uint32Array(buckets.count * 2);
      this.#cursor = new Uint32Array(buckets.count * 2);
      this.#place = new Uint32Array(buckets.count * 2);
      this.#last = new Uint32Array(buckets.count * 2);
    }
    this.#readSlots();
    this.#readPlaces();
    this.#readRows();
    return this;
  }

  /** The row in the current generation, or 0. */
  find(bucket: number, meter: number): number {
    const row = this.#rows.find(this.#cursor[bucket]!, meter);
    // The keys of a bucket mostly come in the order in which its rows were made.
    if (row !== 0) this.#cursor[bucket] = this.#rows.nextOf(row);
    return row;
  }

  /** A row that `find` did not find: that of the previous generation, or an empty one. */
  make(bucket: number, meter: number): number {
    const rows = this.#rows;
    let cursor = this.#cursor[bucket]!;
    let place: number;
    if (cursor === 0) {
      place = this.#settled(bucket);
      cursor = rows.firstOf(place);
      const known = rows.find(cursor, meter);
      this.#cursor[bucket] = cursor;
      this.wasKnown = known !== 0;
      if (this.wasKnown) return known;
    } else place = rows.bucketOf(cursor);
    this.wasKnown = false;
    const row = rows.add(place, meter);
    if (cursor === 0) this.#cursor[bucket] = row;
    return row;
  }

  /** The bucket in the current generation, to which all of its rows move. */
  #settled(bucket: number): number {
    const [rows, previous] = [this.#rows, this.#previous];
    const tenant = this.#tenants[this.#buckets.tenant[bucket]!]!;
    const [from, to] = [this.#buckets.start[bucket]!, this.#buckets.start[bucket + 1]!];
    const mixed = this.mixed[bucket]!;
    // Two buckets of the list can be one, where one of them stands for what overflows.
    const known = rows.buckets.find(tenant, this.#view, from, to, mixed);
    if (known !== 0) return known;
    const place = rows.buckets.add(tenant, this.#view, from, to, mixed);
    if (previous.count === 0) return place;
    const before = previous.buckets.find(tenant, this.#view, from, to, mixed);
    if (before === 0) return place;
    const first = previous.firstOf(before);
    let old = first;
    do {
      rows.take(previous, old, place);
      old = previous.nextOf(old);
    } while (old !== first);
    return place;
  }

  #readSlots(): void {
    const { count, tenant, hash } = this.#buckets;
    const { slots, mask } = this.#rows.buckets;
    const [tenants, mixed, place] = [this.#tenants, this.mixed, this.#place];
    for (let at = 0; at < count; at++) {
      const one = mixedHash(tenants[tenant[at]!]!, hash[at * 2]!);
      mixed[at] = one;
      place[at] = slots[(one & mask) * 2]!;
    }
  }

  #readPlaces(): void {
    const { count } = this.#buckets;
    const { slots, mask } = this.#rows.buckets;
    const { words } = this.#rows.pages;
    const [mixed, places, last] = [this.mixed, this.#place, this.#last];
    for (let at = 0; at < count; at++) {
      const one = mixed[at]!;
      let place = places[at]!;
      for (let slot = one & mask; place !== 0 && slots[slot * 2 + 1] !== one;) {
        slot = (slot + 1) & mask;
        place = slots[slot * 2]!;
      }
      places[at] = place;
      last[at] = place === 0 ? 0 : words[place >>> PAGE_SHIFT]![(place & PAGE_MASK) * 2 + BUCKET_LAST]!;
    }
  }

  /** Another bucket with the same hash is settled like one that is not there. */
  #readRows(): void {
    const { count, tenant, start } = this.#buckets;
    const { buckets, pages } = this.#rows;
    const { words } = pages;
    const [tenants, view, places, last, cursor] = [
      this.#tenants,
      this.#view,
      this.#place,
      this.#last,
      this.#cursor,
    ];
    for (let at = 0; at < count; at++) {
      const row = last[at]!;
      cursor[at] =
        row !== 0 && buckets.isAt(places[at]!, tenants[tenant[at]!]!, view, start[at]!, start[at + 1]!)
          ? words[row >>> PAGE_SHIFT]![(row & PAGE_MASK) * 2 + NEXT]!
          : 0;
    }
  }
}
