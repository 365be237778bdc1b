/**
 * ClickHouse's Native format, written column by column: no object a row, and the server does not parse.
 *
 * A block is the number of columns, the number of rows, then each column as name, type, data. Integers are
 * little-endian, lengths are LEB128, strings are length and bytes. Several blocks may follow one another.
 * The type named need not be the table's (the server casts), but where it is nothing is done twice.
 */
import { QUANTITY_SCALE } from '../contract/quantity.ts';

export interface Column {
  readonly name: string;
  readonly type: string;
  readonly parts: readonly Uint8Array[];
}

const encoder = new TextEncoder();

/** Up to so many bytes a loop is faster than a view and a call. */
const LOOP_MAX = 64;

/** Growing bytes, for the columns whose length is not known ahead. */
export class Bytes {
  #bytes: Uint8Array<ArrayBuffer>;
  #length = 0;

  constructor(expected = 1_024) {
    this.#bytes = new Uint8Array(expected);
  }

  /** A view: it holds until something more is written. */
  get written(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Begins anew, in the same memory. */
  clear(): void {
    this.#length = 0;
  }

  /** A string as the format has it, from UTF-8 that is there already. */
  slice(source: Uint8Array, start: number, end: number): void {
    const length = end - start;
    this.#room(length + 5);
    this.#varint(length);
    this.#copy(source, start, end);
  }

  text(text: string): void {
    // Up to 127 units of ASCII take one byte of length; anything else is encoded first.
    if (text.length <= 42) {
      this.#room(1 + text.length * 3);
      const start = this.#length + 1;
      const end = writeText(this.#bytes, start, text);
      this.#bytes[this.#length] = end - start;
      this.#length = end;
      return;
    }
    const encoded = encoder.encode(text);
    this.slice(encoded, 0, encoded.length);
  }

  /** Begins a string that is written in pieces, and returns its place for `end`. */
  begin(): number {
    this.#room(1);
    this.#length += 1;
    return this.#length;
  }

  /** Ends the string that was begun there: its length comes to stand in front of it. */
  end(start: number): void {
    const length = this.#length - start;
    if (length >= 128) {
      let more = 0;
      for (let rest = length; rest >= 128; rest = Math.floor(rest / 128)) more += 1;
      this.#room(more);
      this.#bytes.copyWithin(start + more, start, this.#length);
      this.#length = start - 1;
      this.#varint(length);
      this.#length += length;
    } else this.#bytes[start - 1] = length;
  }

  /** A piece, and the byte that ends it. */
  piece(source: Uint8Array, start: number, end: number, terminator: number): void {
    this.#room(end - start + 1);
    this.#copy(source, start, end);
    this.#bytes[this.#length++] = terminator;
  }

  /**
   * A piece that is a safe integer of 10^-scale as decimal text, without zeros at the end of its fraction, and the byte
   * that ends it.
   */
  decimal(mantissa: number, scale: number, terminator: number): void {
    this.#room(32);
    let rest = Math.abs(mantissa);
    let places = scale;
    while (places > 0 && rest % 10 === 0) {
      rest /= 10;
      places -= 1;
    }
    const digits = Math.max(digitsOf(rest), places + 1);
    const length = digits + (places > 0 ? 1 : 0) + (mantissa < 0 ? 1 : 0);
    const bytes = this.#bytes;
    const start = this.#length;
    // From the last digit on. A quotient is exact: below 2^53 no k - 0.1 is rounded up to k.
    let at = start + length;
    for (let place = 0; place < digits; place++) {
      if (place === places && places > 0) bytes[--at] = 0x2e;
      const tens = Math.floor(rest / 10);
      bytes[--at] = 0x30 + (rest - tens * 10);
      rest = tens;
    }
    if (mantissa < 0) bytes[start] = 0x2d;
    bytes[start + length] = terminator;
    this.#length = start + length + 1;
  }

  varint(value: number): void {
    this.#room(8);
    this.#varint(value);
  }

  u64(value: number): void {
    this.#room(8);
    for (let byte = 0, rest = value; byte < 8; byte++, rest = Math.floor(rest / 256)) {
      this.#bytes[this.#length++] = rest % 256;
    }
  }

  raw(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** There must be room. */
  #copy(source: Uint8Array, start: number, end: number): void {
    const length = end - start;
    const bytes = this.#bytes;
    let at = this.#length;
    if (length <= LOOP_MAX) for (let from = start; from < end; from++) bytes[at++] = source[from]!;
    else bytes.set(source.subarray(start, end), at);
    this.#length += length;
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#length++] = (rest % 128) + 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  #room(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const larger = new Uint8Array((this.#length + more) * 2);
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}

function digitsOf(size: number): number {
  let digits = 1;
  for (let bound = 10; size >= bound; bound *= 10) digits += 1;
  return digits;
}

/** One block. With no rows there is nothing to send, so that is a mistake of the caller. */
export function encodeNative(rows: number, columns: readonly Column[]): Uint8Array<ArrayBuffer> {
  if (rows === 0) throw new Error('a Native block without rows');
  let size = 16;
  for (const column of columns) {
    size += column.name.length + column.type.length + 10;
    for (const part of column.parts) size += part.length;
  }
  const block = new Bytes(size);
  block.varint(columns.length);
  block.varint(rows);
  for (const column of columns) {
    block.text(column.name);
    block.text(column.type);
    for (const part of column.parts) block.raw(part);
  }
  return block.written;
}

const bytesOf = (view: ArrayBufferView): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Numbers that already lie as the column wants them: UInt16, UInt32, DateTime (seconds), UInt64, UUID. */
export function fixedColumn(name: string, type: string, values: ArrayBufferView): Column {
  return { name, type, parts: [bytesOf(values)] };
}

export function textColumn(name: string, texts: readonly string[]): Column {
  const bytes = new Bytes(texts.length * 16);
  for (const text of texts) bytes.text(text);
  return { name, type: 'String', parts: [bytes.written] };
}

/** Strings collected in a {@link Bytes}, one `slice` or `text` a row. */
export function collectedTexts(name: string, texts: Bytes): Column {
  return { name, type: 'String', parts: [texts.written] };
}

/** A dictionary of distinct texts, or of the bytes of such, and the number of one for each row. */
export function lowCardinalityColumn(
  name: string,
  dictionary: readonly (string | Uint8Array)[],
  numbers: Uint32Array,
): Column {
  const head = new Bytes(64 + dictionary.length * 16);
  head.u64(1); // version: shared dictionaries with additional keys
  head.u64(2 + 2 ** 9 + 2 ** 10); // u32 numbers; the keys come along; they are the whole dictionary
  head.u64(dictionary.length);
  for (const one of dictionary) {
    if (typeof one === 'string') head.text(one);
    else head.slice(one, 0, one.length);
  }
  head.u64(numbers.length);
  return { name, type: 'LowCardinality(String)', parts: [head.written, bytesOf(numbers)] };
}

/** The end of each row's items, counted over all rows. */
function offsetsOf(counts: ArrayLike<number>): Uint8Array {
  const offsets = new Uint32Array(counts.length * 2);
  let end = 0;
  for (let row = 0; row < counts.length; row++) {
    end += counts[row]!;
    offsets[row * 2] = end;
    offsets[row * 2 + 1] = Math.floor(end / 2 ** 32);
  }
  return bytesOf(offsets);
}

export function arrayColumn(name: string, counts: ArrayLike<number>, items: Bytes): Column {
  return { name, type: 'Array(String)', parts: [offsetsOf(counts), items.written] };
}

const LIMB = 2 ** 22;
const LIMB_SQUARED = 2 ** 44;
const POWERS = Array.from({ length: QUANTITY_SCALE + 1 }, (_, exponent) => 10 ** exponent);

/**
 * Writes a safe integer of 10^-scale as a Decimal(38, 9): 128-bit two's complement, four words. In doubles, three limbs
 * of 22 bits, each times at most 10^9 and less than 2^53 with its carry; bigints take six times as long.
 */
export function putDecimal(target: Uint32Array, row: number, value: number, scale: number): void {
  const power = POWERS[QUANTITY_SCALE - scale]!;
  const size = Math.abs(value);
  const low = (size % LIMB) * power;
  const middle = (Math.floor(size / LIMB) % LIMB) * power + Math.floor(low / LIMB);
  const high = Math.floor(size / LIMB_SQUARED) * power + Math.floor(middle / LIMB);
  const first = low % LIMB;
  const second = middle % LIMB;
  // first + second · 2^22 + high · 2^44
  const at = row * 4;
  target[at] = first + (second % 2 ** 10) * LIMB;
  target[at + 1] = Math.floor(second / 2 ** 10) + (high % 2 ** 20) * 2 ** 12;
  target[at + 2] = Math.floor(high / 2 ** 20);
  target[at + 3] = 0;
  if (value < 0) negate(target, at);
}

function negate(words: Uint32Array, at: number): void {
  let carry = 1;
  for (let word = at; word < at + 4; word++) {
    const inverted = (~words[word]! >>> 0) + carry;
    words[word] = inverted;
    carry = inverted > 0xffff_ffff ? 1 : 0;
  }
}

/** Whole numbers of up to 2^53 as 64-bit columns: DateTime64(3) from epoch milliseconds, UInt64 from counts. */
export function wholeColumn(name: string, type: string, values: ArrayLike<number>): Column {
  const words = new Uint32Array(values.length * 2);
  for (let row = 0; row < values.length; row++) putWhole(words, row, values[row]!);
  return fixedColumn(name, type, words);
}

export function putWhole(target: Uint32Array, row: number, value: number): void {
  // What is stored in 32 bits is the value modulo 2^32, which is much less work than %.
  target[row * 2] = value;
  target[row * 2 + 1] = Math.floor(value / 2 ** 32);
}

/** Packed positions. `inShard` is sequence · 2^16 + index, as the index in memory has it. */
export function positionColumn(
  name: string,
  incarnations: ArrayLike<number>,
  inShard: ArrayLike<number>,
): Column {
  const words = new Uint32Array(inShard.length * 2);
  for (let row = 0; row < inShard.length; row++) putPosition(words, row, incarnations[row]!, inShard[row]!);
  return fixedColumn(name, 'UInt64', words);
}

export function putPosition(target: Uint32Array, row: number, incarnation: number, inShard: number): void {
  target[row * 2] = inShard;
  target[row * 2 + 1] = Math.floor(inShard / 2 ** 32) + incarnation * 2 ** 24;
}

/** Writes UTF-8 and returns the end. Short ASCII, which nearly every text is, does without the encoder's call. */
function writeText(target: Uint8Array, start: number, text: string): number {
  const length = text.length;
  if (length <= 64) {
    let at = 0;
    for (; at < length; at++) {
      const unit = text.charCodeAt(at);
      if (unit >= 0x80) break;
      target[start + at] = unit;
    }
    if (at === length) return start + length;
  }
  return start + encoder.encodeInto(text, target.subarray(start)).written;
}

/** Writes an identity's four words where and how a UUID column has them: two halves, each little-endian. */
export function putIdentity(target: Uint32Array, row: number, words: Uint32Array, at: number): void {
  target[row * 4] = words[at + 1]!;
  target[row * 4 + 1] = words[at]!;
  target[row * 4 + 2] = words[at + 3]!;
  target[row * 4 + 3] = words[at + 2]!;
}

/** The value of a digit of a UUID in lower case; 16 for what is none. */
const DIGITS = new Uint8Array(256).fill(16);
for (let value = 0; value < 16; value++) DIGITS[value.toString(16).charCodeAt(0)] = value;
const DASH = 0x2d;

/**
 * Writes a UUID that stands in `source` as text where and how a column has it. False, and nothing of use written, when
 * it is not one as ClickHouse writes it (36 bytes, in lower case), or is all zeros: those say that there is none.
 */
export function putUuid(
  target: Uint32Array,
  row: number,
  source: Uint8Array,
  start: number,
  end: number,
): boolean {
  if (end - start !== 36) return false;
  const dashes = source[start + 8] === DASH && source[start + 13] === DASH;
  if (!dashes || source[start + 18] !== DASH || source[start + 23] !== DASH) return false;
  let seen = 0;
  let some = 0;
  let at = start;
  for (let word = 0; word < 4; word++) {
    let value = 0;
    for (let digit = 0; digit < 8; digit++) {
      if (source[at] === DASH) at += 1;
      const nibble = DIGITS[source[at++]!]!;
      seen |= nibble;
      value = (value << 4) | nibble;
    }
    target[row * 4 + (word ^ 1)] = value;
    some |= value;
  }
  return seen < 16 && some !== 0 && at === end;
}
