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
  #low = new Uint32Array(BUCKETS_FIRST);
  #high = new Uint32Array(BUCKETS_FIRST);
  /** 1 + a number. */
  #slots = new Uint32Array(BUCKETS_FIRST * 2);

  /** Epoch seconds. */
  hourOf(number: number): number {
    return this.view.getUint32(this.start[number]!, true);
  }

  /** The number of the bucket whose bytes are `view[from, to)`, with slack behind, or -1. */
  find(tenant: number, view: DataView, from: number, to: number, low: number, high: number): number {
    const length = to - from;
    const mask = this.#slots.length - 1;
    for (let slot = slotOf(tenant, low) & mask; ; slot = (slot + 1) & mask) {
      const number = this.#slots[slot]! - 1;
      if (number < 0) return -1;
      if (this.#low[number] !== low || this.#high[number] !== high || this.tenant[number] !== tenant)
        continue;
      const start = this.start[number]!;
      if (this.start[number + 1]! - start === length && sameWords(this.view, start, view, from, length))
        return number;
    }
  }

  /** It must not be there. */
  add(tenant: number, view: DataView, from: number, to: number, low: number, high: number): number {
    if (this.count === this.tenant.length) this.#grow();
    const number = this.count++;
    const start = this.start[number]!;
    const end = start + to - from;
    if (end + SLACK_BYTES > this.bytes.length) this.#growBytes(end);
    copyWords(view, from, to, this.view, start);
    this.start[number + 1] = end;
    this.tenant[number] = tenant;
    this.#low[number] = low;
    this.#high[number] = high;
    this.#enter(number);
    return number;
  }

  #enter(number: number): void {
    const mask = this.#slots.length - 1;
    let slot = slotOf(this.tenant[number]!, this.#low[number]!) & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = number + 1;
  }

  #grow(): void {
    const capacity = this.tenant.length * 2;
    this.tenant = grown(this.tenant, new Uint32Array(capacity));
    this.start = grown(this.start, new Float64Array(capacity + 1));
    this.#low = grown(this.#low, new Uint32Array(capacity));
    this.#high = grown(this.#high, new Uint32Array(capacity));
    this.#slots = new Uint32Array(capacity * 2);
    for (let number = 0; number < this.count; number++) this.#enter(number);
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
