/**
 * Which rollup rows that are not in memory may be in ClickHouse: those that were stored when the shard was taken over,
 * and those that were dropped since. Asking for one costs a hundred times what counting an event does, so it pays to
 * know of most that they are not there.
 *
 * Of what was stored at the start only the greatest hour is known: any row of it, or of an hour before, may be there.
 * Of a generation of rows that is dropped, a filter keeps which buckets it had, in 2 bytes each; a look is wrong for one
 * in a few hundred, which is then asked for in vain. There are so many filters and no more. In place of the oldest, its
 * greatest hour is remembered: by then that is past, however far ahead the times of events were.
 */
import { BlockedBloom, BLOCK_BYTES } from './dedupe/blocked-bloom.ts';
import type { BucketKeys } from './bucket-keys.ts';

const FILTERS_MAX = 8;
const BUCKET_BYTES = 2;

export class DroppedBuckets {
  /** Epoch seconds: of hours up to this one every row may be stored. */
  #storedUntil: number;
  readonly #filters: { readonly lastHour: number; readonly filter: BlockedBloom }[] = [];
  readonly #words = new Uint32Array(3);

  constructor(storedHour: number) {
    this.#storedUntil = storedHour;
  }

  /** Whether rows of a bucket may be stored. */
  mayHave(hourSeconds: number, mixed: number): boolean {
    if (hourSeconds <= this.#storedUntil) return true;
    if (this.#filters.length === 0) return false;
    this.#spread(mixed);
    return this.#filters.some(
      ({ lastHour, filter }) => hourSeconds <= lastHour && filter.has(this.#words, 0),
    );
  }

  /** These are in memory no more. `lastHour` is the greatest of them. */
  drop(buckets: BucketKeys, lastHour: number): void {
    if (buckets.count === 0 || lastHour <= this.#storedUntil) return;
    const filter = new BlockedBloom(Math.ceil((buckets.count * BUCKET_BYTES) / BLOCK_BYTES));
    const { slots } = buckets;
    for (let at = 0; at < slots.length; at += 2) {
      if (slots[at] === 0) continue;
      this.#spread(slots[at + 1]!);
      filter.add(this.#words, 0);
    }
    this.#filters.push({ lastHour, filter });
    if (this.#filters.length > FILTERS_MAX) this.#raise(this.#filters.shift()!.lastHour);
  }

  /** Every row of hours up to this one may be stored, and of all that were dropped. */
  forget(hourSeconds: number): void {
    for (const { lastHour } of this.#filters.splice(0)) this.#raise(lastHour);
    this.#raise(hourSeconds);
  }

  #raise(hourSeconds: number): void {
    this.#storedUntil = Math.max(this.#storedUntil, hourSeconds);
  }

  /** Of a hash of 32 bits the three words that a filter goes by. */
  #spread(mixed: number): void {
    this.#words[0] = finished(mixed ^ 0x9e3779b9);
    this.#words[1] = finished(mixed);
    this.#words[2] = finished(mixed ^ 0x85ebca6b);
  }
}

/** The finalizer of MurmurHash3: a bijection, so different hashes stay different. */
function finished(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}
