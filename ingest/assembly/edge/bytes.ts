// Texts sixteen bytes at a time. What is read or overwritten behind a text may be 15 bytes: whoever lays out the memory
// keeps 16 behind every place where texts stand.

/** Whether `length` bytes are the same. */
// @ts-ignore: decorator
@inline
export function same(one: usize, other: usize, length: i32): bool {
  let left = length;
  while (left >= 16) {
    if (i8x16.bitmask(i8x16.eq(v128.load(one), v128.load(other))) != 0xffff) return false;
    one += 16;
    other += 16;
    left -= 16;
  }
  const mask = (1 << left) - 1;
  return (i8x16.bitmask(i8x16.eq(v128.load(one), v128.load(other))) & mask) == mask;
}

/** Copies `length` bytes, and perhaps up to 15 behind them. */
// @ts-ignore: decorator
@inline
export function copy(to: usize, from: usize, length: i32): void {
  if (length > 1_024) {
    memory.copy(to, from, length);
    return;
  }
  for (let at = 0; at < length; at += 16) v128.store(to + at, v128.load(from + at));
}

/** The first byte from `at` on that is not printable ASCII, or is a quote or a backslash: contract of json-text.ts. */
// @ts-ignore: decorator
@inline
export function plainEnd(at: usize): usize {
  while (true) {
    const text = v128.load(at);
    // Compared as signed numbers, so that what is beyond ASCII is below a space.
    const odd = v128.or(
      v128.or(i8x16.lt_s(text, i8x16.splat(0x20)), i8x16.eq(text, i8x16.splat(0x22))),
      v128.or(i8x16.eq(text, i8x16.splat(0x5c)), i8x16.eq(text, i8x16.splat(0x7f))),
    );
    const found = i8x16.bitmask(odd);
    if (found != 0) return at + ctz(found);
    at += 16;
  }
  return at;
}

/** Both halves of the text hash of contract/text-hash.ts, `high` above `low`. */
// @ts-ignore: decorator
@inline
export function hashText(start: usize, length: i32): u64 {
  let low: u32 = 0x9e3779b1 ^ length;
  let high: u32 = 0x85ebca77 + length;
  let left = length;
  while (left >= 4) {
    const word = load<u32>(start);
    low = rotl<u32>((low ^ word) * 0xcc9e2d51, 13);
    high = rotl<u32>((high + word) * 0x1b873593, 15);
    start += 4;
    left -= 4;
  }
  const rest: u32 = left > 0 ? load<u32>(start) & ((1 << (left * 8)) - 1) : 0;
  low = (low ^ rest) * 0xcc9e2d51;
  high = (high + rest) * 0x1b873593;
  const lowEnd = finish(low ^ (high >> 11));
  const highEnd = finish(high + (low >> 9));
  return ((<u64>highEnd) << 32) | lowEnd;
}

// @ts-ignore: decorator
@inline
export function finish(hash: u32): u32 {
  let mixed: u32 = (hash ^ (hash >> 16)) * 0x85ebca6b;
  mixed = (mixed ^ (mixed >> 13)) * 0xc2b2ae35;
  return mixed ^ (mixed >> 16);
}

// The steps of contract/payload.ts.
// @ts-ignore: decorator
@inline
export function absorbLow(lane: u32, word: u32): u32 {
  return rotl<u32>((lane ^ word) * 0xcc9e2d51, 13);
}

// @ts-ignore: decorator
@inline
export function absorbHigh(lane: u32, word: u32): u32 {
  return rotl<u32>((lane + word) * 0x1b873593, 15);
}
