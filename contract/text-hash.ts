import { partialMask } from './byte-words.ts';

/**
 * A 64-bit hash of a text's bytes in two 32-bit lanes, four bytes a step: for dictionaries, and as the part of
 * a payload's fingerprint that a text makes. It guards against chance, not against an adversary: a table that
 * uses it must bound its probes.
 *
 * The lanes are `low` and `high` of the object until the next call, as signed numbers, which the engine keeps
 * unboxed: a result object a text would be most of the cost.
 */
export class TextHash {
  low = 0;
  high = 0;

  /** Sets `low` and `high` for `bytes[start, end)`. */
  of(bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    let low = 0x9e3779b1 ^ length;
    let high = (0x85ebca77 + length) | 0;
    let at = start;
    for (const whole = end - 3; at < whole; at += 4) {
      const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
      low = Math.imul(low ^ word, 0xcc9e2d51);
      low = (low << 13) | (low >>> 19);
      high = Math.imul((high + word) | 0, 0x1b873593);
      high = (high << 15) | (high >>> 17);
    }
    let rest = 0;
    for (let shift = 0; at < end; at++, shift += 8) rest |= bytes[at]! << shift;
    this.#end(low, high, rest);
  }

  /** The same of the bytes of a view, with slack behind them: a step is one load, half the time. */
  ofView(view: DataView, start: number, end: number): void {
    const length = end - start;
    let low = 0x9e3779b1 ^ length;
    let high = (0x85ebca77 + length) | 0;
    let at = start;
    for (const whole = end - 3; at < whole; at += 4) {
      const word = view.getInt32(at, true);
      low = Math.imul(low ^ word, 0xcc9e2d51);
      low = (low << 13) | (low >>> 19);
      high = Math.imul((high + word) | 0, 0x1b873593);
      high = (high << 15) | (high >>> 17);
    }
    this.#end(low, high, at < end ? view.getInt32(at, true) & partialMask(end - at) : 0);
  }

  #end(low: number, high: number, rest: number): void {
    const lastLow = Math.imul(low ^ rest, 0xcc9e2d51);
    const lastHigh = Math.imul((high + rest) | 0, 0x1b873593);
    this.low = finish(lastLow ^ (lastHigh >>> 11));
    this.high = finish((lastHigh + (lastLow >>> 9)) | 0);
  }
}

/** Spreads every bit over all others (the finalizer of MurmurHash3, public domain, A. Appleby). */
export function finish(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}
