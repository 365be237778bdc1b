/**
 * Numbers of JSON, exactly: what is kept is mantissa · 10^-scale with the mantissa a safe integer and the scale 0
 * to 9, in its shortest form (1.50 is 15 and 1, 1e3 is 1000 and 0). Digits are added up in a double, which is
 * exact below 2^53; a number of more than 15 digits, or with an exponent, is worked out from its digits.
 */
import { QUANTITY_SCALE } from '../../contract/quantity.ts';
import { MINUS, type JsonSource } from './json-source.ts';

const ZERO = 0x30;
const NINE = 0x39;
const DOT = 0x2e;
const PLUS = 0x2b;
const LOWER_E = 0x65;
/** So many digits of any number are below 2^53. */
const SAFE_DIGITS = 15;
/** Above it nothing depends on an exponent any more: no body has so many digits. */
const EXPONENT_MAX = 1e12;

export class JsonNumber {
  mantissa = 0;
  scale = 0;
  /** False: the number cannot be kept; the two above mean nothing. */
  exact = true;

  readonly #source: JsonSource;

  constructor(source: JsonSource) {
    this.#source = source;
  }

  /** Reads the number that begins at `start`; returns the offset behind it. */
  read(start: number): number {
    const { bytes } = this.#source;
    let at = bytes[start] === MINUS ? start + 1 : start;
    const first = at;
    let value = 0;
    let digit = bytes[at]! - ZERO;
    while (digit >= 0 && digit <= 9) {
      value = value * 10 + digit;
      at += 1;
      digit = bytes[at]! - ZERO;
    }
    if (at === first) return this.#source.fault(at);
    if (bytes[first] === ZERO && at > first + 1) return this.#source.fault(first + 1);
    let scale = 0;
    if (bytes[at] === DOT) {
      const fraction = at + 1;
      at = fraction;
      digit = bytes[at]! - ZERO;
      while (digit >= 0 && digit <= 9) {
        value = value * 10 + digit;
        at += 1;
        digit = bytes[at]! - ZERO;
      }
      scale = at - fraction;
      if (scale === 0) return this.#source.fault(at);
    }
    if ((bytes[at]! | 0x20) === LOWER_E) return this.#exponent(start, at);
    if (at - first > SAFE_DIGITS) {
      this.#settle(start, at, 0);
      return at;
    }
    while (scale > 0 && value % 10 === 0) {
      value /= 10;
      scale -= 1;
    }
    this.exact = scale <= QUANTITY_SCALE;
    this.scale = scale;
    this.mantissa = first === start || value === 0 ? value : -value; // There is no -0.
    return at;
  }

  #exponent(start: number, mark: number): number {
    const { bytes } = this.#source;
    let at = mark + 1;
    const negative = bytes[at] === MINUS;
    if (negative || bytes[at] === PLUS) at += 1;
    const first = at;
    let exponent = 0;
    for (; bytes[at]! >= ZERO && bytes[at]! <= NINE; at++) {
      exponent = Math.min(exponent * 10 + (bytes[at]! - ZERO), EXPONENT_MAX);
    }
    if (at === first) return this.#source.fault(at);
    this.#settle(start, mark, negative ? -exponent : exponent);
    return at;
  }

  /** Sets the value of the digits, and perhaps a point, in `[start, end)`, times ten to the power. */
  #settle(start: number, end: number, power: number): void {
    const { bytes } = this.#source;
    // 1. From the first digit that is not 0 to the last: `digits` of them, and the power of ten behind them.
    let from = start;
    while (from < end && !isSignificant(bytes[from]!)) from += 1;
    let to = end;
    while (to > from && !isSignificant(bytes[to - 1]!)) to -= 1;
    let exponent = power;
    let digits = 0;
    let beyondDot = false;
    let beforeDot = 0; // Zeros between the last significant digit and the point, or the end.
    for (let at = start; at < end; at++) {
      if (bytes[at] === DOT) {
        beyondDot = true;
      } else if (at >= from && at < to) {
        digits += 1;
        if (beyondDot) exponent -= 1;
      } else if (at >= to && !beyondDot) {
        beforeDot += 1;
      } else if (beyondDot && at < from) {
        exponent -= 1;
      }
    }
    exponent += beforeDot;
    // 2. No digit: nought, whatever its exponent.
    this.mantissa = 0;
    this.scale = 0;
    this.exact = true;
    if (digits === 0) return;
    // 3. The mantissa with its zeros, if they are part of a whole number.
    this.exact = digits <= 16 && exponent >= -QUANTITY_SCALE && exponent <= 16;
    if (!this.exact) return;
    let value = 0;
    for (let at = from; at < to; at++) if (bytes[at] !== DOT) value = value * 10 + (bytes[at]! - ZERO);
    for (let zeros = exponent; zeros > 0; zeros--) value *= 10;
    // Every step up to the first beyond 2^53 was exact, and none after it comes back.
    this.exact = value <= Number.MAX_SAFE_INTEGER;
    this.mantissa = bytes[start] === MINUS ? -value : value;
    this.scale = exponent < 0 ? -exponent : 0;
  }
}

function isSignificant(byte: number): boolean {
  return byte > ZERO && byte <= NINE;
}

/** Reads over the number that begins at `start`, whatever it is worth; returns the offset behind it. */
export function numberEnd(source: JsonSource, start: number): number {
  const { bytes } = source;
  const first = bytes[start] === MINUS ? start + 1 : start;
  let at = digitsEnd(bytes, first);
  if (at === first) return source.fault(at);
  if (bytes[first] === ZERO && at > first + 1) return source.fault(first + 1);
  if (bytes[at] === DOT) {
    const fraction = at + 1;
    at = digitsEnd(bytes, fraction);
    if (at === fraction) return source.fault(at);
  }
  if ((bytes[at]! | 0x20) !== LOWER_E) return at;
  at += 1;
  if (bytes[at] === MINUS || bytes[at] === PLUS) at += 1;
  const exponent = at;
  at = digitsEnd(bytes, exponent);
  return at === exponent ? source.fault(at) : at;
}

function digitsEnd(bytes: Uint8Array, start: number): number {
  let at = start;
  while (bytes[at]! >= ZERO && bytes[at]! <= NINE) at += 1;
  return at;
}
