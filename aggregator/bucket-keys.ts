/** The buckets (bucket.ts) of rollup rows in memory, each by a number. The hash finds the slot, the bytes decide. */
import { copyWords, sameWords, SLACK_BYTES } from '../contract/byte-words.ts';
import { grown } from '../contract/grown.ts';

const BUCKETS_FIRST = 64;
const BYTES_FIRST = 4_096;

export class BucketKeys {
  count = 0;
  tenant = new Uint32Array(BUCKETS_FIRST);
  /** Bucket `n` is `bytes[start[n], start[n + 1])`. */
  start = new Float64Array(BUCKETS_FIRST + 1);
  bytes = new Uint8Array(BYTES_FIRST);
  view = new DataView(this.bytes.buffer);
  /**
   * Pairs: 1 + a number, and half of the bucket's hash beside it. Of many buckets hardly anything is in the processor's
   * cache, so what a look reads costs more than what it does.
   */
  #slots = new Uint32Array(BUCKETS_FIRST * 4);
  #mask = BUCKETS_FIRST * 2 - 1;

  /** Epoch seconds. */
  hourOf(number: number): number {
    return this.view.getUint32(this.start[number]!, true);
  }

  /** The number of the bucket whose bytes are `view[from, to)`, with slack behind, or -1. */
  find(tenant: number, view: DataView, from: number, to: number, low: number): number {
    const length = to - from;
    const slots = this.#slots;
    const mask = this.#mask;
    for (let slot = slotOf(tenant, low) & mask; ; slot = (slot + 1) & mask) {
      const number = slots[slot * 2]! - 1;
      if (number < 0) return -1;
      if (slots[slot * 2 + 1] !== low || this.tenant[number] !== tenant) continue;
      const start = this.start[number]!;
      if (this.start[number + 1]! - start === length && sameWords(this.view, start, view, from, length))
        return number;
    }
  }

  /** It must not be there. */
  add(tenant: number, view: DataView, from: number, to: number, low: number): number {
    if (this.count === this.tenant.length) this.#grow();
    const number = this.count++;
    const start = this.start[number]!;
    const end = start + to - from;
    if (end + SLACK_BYTES > this.bytes.length) this.#growBytes(end);
    copyWords(view, from, to, this.view, start);
    this.start[number + 1] = end;
    this.tenant[number] = tenant;
    this.#enter(number, low);
    return number;
  }

  #enter(number: number, low: number): void {
    const slots = this.#slots;
    const mask = this.#mask;
    let slot = slotOf(this.tenant[number]!, low) & mask;
    while (slots[slot * 2] !== 0) slot = (slot + 1) & mask;
    slots[slot * 2] = number + 1;
    slots[slot * 2 + 1] = low;
  }

  #grow(): void {
    const capacity = this.tenant.length * 2;
    this.tenant = grown(this.tenant, new Uint32Array(capacity));
    this.start = grown(this.start, new Float64Array(capacity + 1));
    const old = this.#slots;
    this.#slots = new Uint32Array(capacity * 4);
    this.#mask = capacity * 2 - 1;
    for (let at = 0; at < old.length; at += 2) if (old[at] !== 0) this.#enter(old[at]! - 1, old[at + 1]!);
  }

  #growBytes(least: number): void {
    this.bytes = grown(this.bytes, new Uint8Array((least + SLACK_BYTES) * 2));
    this.view = new DataView(this.bytes.buffer);
  }
}

/** Subjects of many tenants have the same names. */
function slotOf(tenant: number, low: number): number {
  return low ^ Math.imul(tenant, 0x9e3779b1);
}
