/**
 * Texts four bytes at a time, which is two to three times as fast as byte by byte. The price is that up to 3 bytes
 * behind a text are read, or overwritten by a copy: whoever holds texts keeps `SLACK_BYTES` behind the last.
 */
export const SLACK_BYTES = 3;

/** Of a word, the first `bytes` bytes, which are 1 to 3. */
export function partialMask(bytes: number): number {
  return (1 << (bytes * 8)) - 1;
}

/** Whether `length` bytes from `start` of one are those from `from` of the other. */
export function sameWords(
  one: DataView,
  start: number,
  other: DataView,
  from: number,
  length: number,
): boolean {
  let at = 0;
  for (const whole = length - 3; at < whole; at += 4)
    if (one.getInt32(start + at, true) !== other.getInt32(from + at, true)) return false;
  if (at === length) return true;
  const differs = one.getInt32(start + at, true) ^ other.getInt32(from + at, true);
  return (differs & partialMask(length - at)) === 0;
}

/** Copies `source[from, to)` to `start` of the target. */
export function copyWords(source: DataView, from: number, to: number, target: DataView, start: number): void {
  const shift = start - from;
  for (let at = from; at < to; at += 4) target.setInt32(at + shift, source.getInt32(at, true), true);
}
