import type { QuantityFault } from '../../contract/quantity.ts';

/** As `scaleDecimal` of contract/quantity.ts: longer text is none of ours, whatever it says. */
const LENGTH_MAX = 64;
const DECIMALS_MAX = 9;
/** 10^18, the bound of one value, is the least number of 19 digits. */
const WHOLE_DIGITS_MAX = 18;

const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;

/**
 * Why `parseQuantity` of contract/quantity.ts would refuse the text `bytes[start, end)`, or null when it takes it:
 * the same answer without a string, a regular expression or a bigint (18 ns, against 215 with the string at hand
 * and 355 when it must be made). What is no decimal is said before what has too many decimals, and that before
 * what is too large.
 */
export function decimalFault(bytes: Uint8Array, start: number, end: number): QuantityFault | null {
  if (end - start > LENGTH_MAX) return 'not_a_decimal';
  let at = start;
  if (at < end && bytes[at] === MINUS) at += 1;
  const whole = at;
  while (at < end && isDigit(bytes[at]!)) at += 1;
  const wholeDigits = at - whole;
  if (wholeDigits === 0 || (wholeDigits > 1 && bytes[whole] === ZERO)) return 'not_a_decimal';
  if (at < end) {
    if (bytes[at] !== POINT || at + 1 === end) return 'not_a_decimal';
    const fraction = at + 1;
    let significant = fraction;
    for (at = fraction; at < end; at++) {
      const byte = bytes[at]!;
      if (!isDigit(byte)) return 'not_a_decimal';
      if (byte !== ZERO) significant = at + 1;
    }
    if (significant - fraction > DECIMALS_MAX) return 'too_many_decimals';
  }
  return wholeDigits > WHOLE_DIGITS_MAX ? 'too_large' : null;
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= 0x39;
}
