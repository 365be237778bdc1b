/**
 * The buckets (bucket.ts) of rollup rows in memory, each known by its place. The hash finds the slot, the bytes decide.
 *
 * Of many buckets hardly anything is in the processor's cache, and what a look reads costs more than what it does. So a
 * slot has the place and the hash, and all else lies at the place: words of the tenant, of the length in bytes, of the
 * place of one of its rows (0 while there is none), then the bytes. The rows that are made with a bucket lie behind it.
 */
import { partialMask } from '../contract/byte-words.ts';
import { PAGE_MASK, PAGE_SHIFT, type RowPages } from './row-pages.ts';

const BUCKETS_FIRST = 64;
// Words at the place of a bucket.
export const BUCKET_TENANT = 0;
const LENGTH = 1;
/** The row that was added last. */
export const BUCKET_LAST = 2;
export const BUCKET_BYTES = 3;

export class BucketKeys {
  count = 0;
  /** Pairs: the place of a bucket, 0 for none, and its mixed hash beside it. */
  slots: Uint32Array;
  mask: number;
  readonly #pages: RowPages;

  /** @param expected how many there will be, as far as one knows: so many need no growth. */
  constructor(pages: RowPages, expected: number) {
    this.#pages = pages;
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(BUCKETS_FIRST, expected) * 2));
    this.slots = new Uint32Array(capacity * 2);
    this.mask = capacity - 1;
  }

  tenantOf(bucket: number): number {
    return this.#pages.words[bucket >>> PAGE_SHIFT]![(bucket & PAGE_MASK) * 2 + BUCKET_TENANT]!;
  }

  /** Epoch seconds. */
  hourOf(bucket: number): number {
    return this.#pages.words[bucket >>> PAGE_SHIFT]![(bucket & PAGE_MASK) * 2 + BUCKET_BYTES]!;
  }

  /** Memory with its bytes, and where in it they begin. */
  bytesOf(bucket: number): [bytes: Uint8Array, start: number] {
    const bytes = this.#pages.bytes[bucket >>> PAGE_SHIFT]!;
    return [bytes, (bucket & PAGE_MASK) * 8 + BUCKET_BYTES * 4];
  }

  /** The bucket whose bytes are `view[from, to)`, with slack behind, or 0. */
  find(tenant: number, view: DataView, from: number, to: number, mixed: number): number {
    const { slots, mask } = this;
    for (let slot = mixed & mask; ; slot = (slot + 1) & mask) {
      const bucket = slots[slot * 2]!;
      if (bucket === 0) return 0;
      if (slots[slot * 2 + 1] === mixed && this.isAt(bucket, tenant, view, from, to)) return bucket;
    }
  }

  /** Whether that is what the bucket at a place is. */
  isAt(bucket: number, tenant: number, view: DataView, from: number, to: number): boolean {
    const words = this.#pages.words[bucket >>> PAGE_SHIFT]!;
    const at = (bucket & PAGE_MASK) * 2;
    const length = to - from;
    if (words[at + BUCKET_TENANT] !== tenant || words[at + LENGTH] !== length) return false;
    let word = at + BUCKET_BYTES;
    const whole = to - 3;
    let byte = from;
    for (; byte < whole; byte += 4, word++) if (words[word] !== view.getUint32(byte, true)) return false;
    return byte === to || words[word] === (view.getUint32(byte, true) & partialMask(to - byte)) >>> 0;
  }

  /** It must not be there. */
  add(tenant: number, view: DataView, from: number, to: number, mixed: number): number {
    if (this.count * 2 > this.mask) this.#grow();
    const length = to - from;
    const bucket = this.#pages.take(Math.ceil((BUCKET_BYTES * 4 + length) / 8));
    const words = this.#pages.words[bucket >>> PAGE_SHIFT]!;
    const at = (bucket & PAGE_MASK) * 2;
    words[at + BUCKET_TENANT] = tenant;
    words[at + LENGTH] = length;
    let word = at + BUCKET_BYTES;
    let byte = from;
    for (const whole = to - 3; byte < whole; byte += 4) words[word++] = view.getUint32(byte, true);
    if (byte < to) words[word] = view.getUint32(byte, true) & partialMask(to - byte);
    this.count += 1;
    this.#enter(bucket, mixed);
    return bucket;
  }

  #enter(bucket: number, mixed: number): void {
    const { slots, mask } = this;
    let slot = mixed & mask;
    while (slots[slot * 2] !== 0) slot = (slot + 1) & mask;
    slots[slot * 2] = bucket;
    slots[slot * 2 + 1] = mixed;
  }

  #grow(): void {
    const old = this.slots;
    this.slots = new Uint32Array(old.length * 2);
    this.mask = old.length - 1;
    for (let at = 0; at < old.length; at += 2) if (old[at] !== 0) this.#enter(old[at]!, old[at + 1]!);
  }
}

/** The hash of a bucket with its tenant: subjects of many tenants have the same names. */
export function mixedHash(tenant: number, low: number): number {
  return (low ^ Math.imul(tenant, 0x9e3779b1)) >>> 0;
}
