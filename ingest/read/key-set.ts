/**
 * The keys of open objects, to find one that stands twice in the same object: for objects whose keys are no places
 * (those in arrays), and top-level fields that are not ours. Objects are opened and closed like brackets. Keys are
 * compared by their bytes, one by one while they are few; an object of many is kept as a set of strings, whose
 * hashes V8 seeds, so that no choice of keys makes it slow.
 */
const FEW = 16;

/** Bytes of keys in one event; with more it is larger than any that is admitted, and its keys are of no interest. */
export const KEY_BYTES_MAX = 65_536;

export class KeySet {
  /** The length of all keys taken since the reset. Above KEY_BYTES_MAX no repetition is found any more. */
  bytes = 0;

  /** The ranges of the keys of all open objects, the innermost last: start and end in turns, up to `#used`. */
  readonly #ranges: number[] = [];
  #used = 0;
  #depth = 0;
  /** Where the ranges of each open object begin. */
  readonly #begins: number[] = [];
  /** For each open object: its keys as strings, once they are many. */
  readonly #many: (Set<string> | null)[] = [];

  reset(): void {
    this.bytes = 0;
    while (this.#depth > 0) this.close();
  }

  get isOpen(): boolean {
    return this.#depth > 0;
  }

  open(): void {
    this.#begins[this.#depth] = this.#used;
    this.#many[this.#depth] = null;
    this.#depth += 1;
  }

  close(): void {
    this.#depth -= 1;
    this.#used = this.#begins[this.#depth]!;
    this.#many[this.#depth] = null;
  }

  /**
   * Takes a key of the innermost object; false when the object has it already. Ranges are kept and not copied: those
   * taken before must still say the same in `bytes`.
   */
  add(bytes: Uint8Array, start: number, end: number): boolean {
    this.bytes += end - start;
    if (this.bytes > KEY_BYTES_MAX) return true;
    const innermost = this.#depth - 1;
    const many = this.#many[innermost]!;
    if (many !== null) {
      const { size } = many;
      return many.add(textOf(bytes, start, end)).size > size;
    }
    const ranges = this.#ranges;
    const begin = this.#begins[innermost]!;
    for (let at = begin; at < this.#used; at += 2) {
      if (isSame(bytes, ranges[at]!, ranges[at + 1]!, start, end)) return false;
    }
    ranges[this.#used] = start;
    ranges[this.#used + 1] = end;
    this.#used += 2;
    if (this.#used - begin === FEW * 2) this.#many[innermost] = this.#asSet(bytes, begin);
    return true;
  }

  /** The keys from `begin` on, which are no longer kept as ranges. */
  #asSet(bytes: Uint8Array, begin: number): Set<string> {
    const set = new Set<string>();
    for (let at = begin; at < this.#used; at += 2) {
      set.add(textOf(bytes, this.#ranges[at]!, this.#ranges[at + 1]!));
    }
    this.#used = begin;
    return set;
  }
}

/** One character a byte: the strings are the same just when the bytes are. */
function textOf(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
}

function isSame(bytes: Uint8Array, from: number, to: number, start: number, end: number): boolean {
  const length = to - from;
  if (length !== end - start) return false;
  for (let at = 0; at < length; at++) if (bytes[from + at] !== bytes[start + at]) return false;
  return true;
}
