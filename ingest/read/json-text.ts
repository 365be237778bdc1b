/**
 * Strings of JSON. Nearly all are printable ASCII without an escape: those are found by `plainEnd`, four bytes at
 * a time, and are a range of the body. For all others there is JsonText.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import { BROKEN, TEXT } from './draft.ts';
import { BACKSLASH, QUOTE, type JsonSource } from './json-source.ts';

const LOWER_U = 0x75;
const DELETE = 0x7f;

/** What an escape of one letter stands for; 0 for a letter that is none. */
const ESCAPED = new Uint8Array(256);
for (const [letter, meaning] of Object.entries({
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
})) {
  ESCAPED[letter.charCodeAt(0)] = meaning.charCodeAt(0);
}

/** The value of a hexadecimal digit; -1 for another byte. */
const HEX = new Int8Array(256).fill(-1);
for (let digit = 0; digit < 16; digit++) {
  HEX[digit.toString(16).charCodeAt(0)] = digit;
  HEX[digit.toString(16).toUpperCase().charCodeAt(0)] = digit;
}

/**
 * The offset of the first byte that is not a printable ASCII character, or is a quote or a backslash. It ends at
 * the zeros behind a body at the latest.
 *
 * Each term has the high bit of a byte set when the byte is odd: below a space, a quote, a backslash, DEL, beyond
 * ASCII. What a subtraction borrows or an addition carries goes upwards only, and only out of a byte that is odd
 * itself; the first odd one is looked for.
 */
export function plainEnd(view: DataView, start: number): number {
  let at = start;
  for (;;) {
    const word = view.getInt32(at, true);
    const odd =
      ((word - 0x20202020) |
        ((word ^ 0x22222222) - 0x01010101) |
        ((word ^ 0x5c5c5c5c) - 0x01010101) |
        (word + 0x01010101) |
        word) &
      0x80808080;
    if (odd !== 0) return at + ((31 - Math.clz32(odd & -odd)) >> 3);
    at += 4;
  }
}

export class JsonText {
  /** The range that `take` has set, of the batch's bytes; nothing when `kind` is BROKEN. */
  start = 0;
  end = 0;
  kind: typeof TEXT | typeof BROKEN = TEXT;
  /** 1: it is known to hold no control character. */
  plain = 0;
  /** Set by `close`: the string has an escape of half a surrogate pair. */
  broken = false;

  readonly #source: JsonSource;
  #escaped = false;

  constructor(source: JsonSource) {
    this.#source = source;
  }

  /** The offset of the quote that ends the string whose first character is at `start`. */
  close(start: number): number {
    const source = this.#source;
    const { bytes, view } = source;
    this.broken = false;
    this.#escaped = false;
    this.plain = 1;
    let at = start;
    for (;;) {
      at = plainEnd(view, at);
      const byte = bytes[at]!;
      if (byte === QUOTE) return at;
      if (byte === BACKSLASH) {
        at = this.#escape(at);
        if (at < 0) return -1;
      } else if (byte === DELETE) {
        this.plain = 0;
        at += 1;
      } else if (byte >= 0x80) {
        if (!source.isUnicode(at)) return -1;
        let next = byte;
        while (next >= 0x80) {
          // C2 80 to C2 9F are U+0080 to U+009F.
          if (next === 0xc2 && bytes[at + 1]! < 0xa0) this.plain = 0;
          at += 1;
          next = bytes[at]!;
        }
      } else {
        return source.fault(at);
      }
    }
  }

  /** Reads over the string whose first character is at `start`; returns the offset behind it. */
  skip(start: number): number {
    const close = this.close(start);
    return close < 0 ? -1 : close + 1;
  }

  /** Reads the string whose first character is at `start`; returns the offset behind it. */
  take(start: number, batch: EventBatch): number {
    const close = this.close(start);
    if (close < 0) return -1;
    this.kind = this.broken ? BROKEN : TEXT;
    this.start = start;
    this.end = close;
    if (this.#escaped && !this.broken) this.#unescape(start, close, batch);
    return close + 1;
  }

  /** Reads over the escape at the backslash `at`, or over both of a surrogate pair. */
  #escape(at: number): number {
    const source = this.#source;
    const { bytes } = source;
    this.#escaped = true;
    const letter = bytes[at + 1]!;
    if (letter !== LOWER_U) {
      const meaning = ESCAPED[letter]!;
      if (meaning === 0) return source.fault(at + 1);
      if (meaning < 0x20) this.plain = 0;

      return at + 2;
    }
    const unit = unitAt(bytes, at + 2);
    if (unit < 0) {
      let digit = at + 2;
      while (HEX[bytes[digit]!] !== -1) digit += 1;
      return source.fault(digit);
    }
    if (unit < 0x20 || (unit >= 0x7f && unit <= 0x9f)) this.plain = 0;
    if (unit < 0xd800 || unit > 0xdfff) return at + 6;
    if (unit <= 0xdbff && isLowSurrogate(bytes, at + 6)) return at + 12;
    this.broken = true;
    return at + 6;
  }

  /** Writes what the sound string `[start, close)` means behind the body. */
  #unescape(start: number, close: number, batch: EventBatch): void {
    const { bytes } = this.#source;
    const begin = batch.make(close - start); // An escape is never shorter than the UTF-8 of what it means.
    const target = batch.bytes;
    let to = begin;
    let at = start;
    while (at < close) {
      const byte = bytes[at]!;
      if (byte !== BACKSLASH) {
        target[to++] = byte;
        at += 1;
      } else if (bytes[at + 1] !== LOWER_U) {
        target[to++] = ESCAPED[bytes[at + 1]!]!;
        at += 2;
      } else {
        let code = unitAt(bytes, at + 2);
        at += 6;
        if (code >= 0xd800 && code <= 0xdfff) {
          code = 0x10000 + ((code - 0xd800) << 10) + (unitAt(bytes, at + 2) - 0xdc00);
          at += 6;
        }
        to = writeUtf8(target, to, code);
      }
    }
    batch.made(to);
    this.start = begin;
    this.end = to;
  }
}

/** The UTF-16 unit of four hexadecimal digits; negative when one of them is none. */
function unitAt(bytes: Uint8Array, at: number): number {
  return (
    (HEX[bytes[at]!]! << 12) |
    (HEX[bytes[at + 1]!]! << 8) |
    (HEX[bytes[at + 2]!]! << 4) |
    HEX[bytes[at + 3]!]!
  );
}

/** Whether `\udc00` to `\udfff` stands at `at`. */
function isLowSurrogate(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== BACKSLASH || bytes[at + 1] !== LOWER_U) return false;
  const unit = unitAt(bytes, at + 2);
  return unit >= 0xdc00 && unit <= 0xdfff;
}

function writeUtf8(target: Uint8Array, start: number, code: number): number {
  let at = start;
  if (code < 0x80) {
    target[at++] = code;
  } else if (code < 0x800) {
    target[at++] = 0xc0 | (code >> 6);
    target[at++] = 0x80 | (code & 0x3f);
  } else if (code < 0x10000) {
    target[at++] = 0xe0 | (code >> 12);
    target[at++] = 0x80 | ((code >> 6) & 0x3f);
    target[at++] = 0x80 | (code & 0x3f);
  } else {
    target[at++] = 0xf0 | (code >> 18);
    target[at++] = 0x80 | ((code >> 12) & 0x3f);
    target[at++] = 0x80 | ((code >> 6) & 0x3f);
    target[at++] = 0x80 | (code & 0x3f);
  }
  return at;
}
