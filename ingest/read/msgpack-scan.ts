/**
 * The values of a msgpack body, one after the other (https://github.com/msgpack/msgpack/blob/master/spec.md), over its
 * bytes. Nothing is made of them here: a text is a range, a container its count.
 *
 * A body is not to be trusted: five bytes can announce four billion elements. Every element takes a byte at
 * least, so a count is held against the bytes that are left before anybody acts on it, and what is skipped is
 * counted and not descended into. Once the body turned out broken, `brokenAt` says where, and nothing more is read.
 */
import { isUtf8 } from 'node:buffer';
import type { EventBatch } from '../../contract/event-batch.ts';
import { ExactDouble } from './exact-double.ts';

/** The kinds of value. Not an enum: they are compared millions of times a second. */
export const BROKEN_BODY = 0;
/** `bytes[start, stop)`, not yet known to be UTF-8. */
export const STRING = 1;
/** `mantissa` · 10^-`scale`. */
export const NUMBER = 2;
/** A number, but none that can be kept exactly. */
export const INEXACT = 3;
export const NIL = 4;
export const FALSE = 5;
export const TRUE = 6;
/** `count` values stand behind it. */
export const ARRAY = 7;
/** `count` keys and as many values stand behind it, in turn. */
export const MAP = 8;
/** Binary, an extension, a timestamp: it was stepped over. */
export const FOREIGN = 9;

const TWO_32 = 4_294_967_296;

export class MsgpackScan {
  bytes: Uint8Array = new Uint8Array(0);
  /** The same memory. */
  view = new DataView(new ArrayBuffer(0));
  /** The next byte to be read. */
  at = 0;
  end = 0;

  /** Where the body stopped being msgpack; its length when it ends too early; -1 as long as it is sound. */
  brokenAt = -1;

  // What `next` has read.
  start = 0;
  stop = 0;
  mantissa = 0;
  scale = 0;
  count = 0;

  readonly #exact = new ExactDouble();

  /** Begins the body of the batch. What is made behind it later may move the batch's bytes, but not these. */
  begin(batch: EventBatch): void {
    this.bytes = batch.bytes;
    this.view = batch.view;
    this.at = 0;
    this.end = batch.bodyEnd;
    this.brokenAt = -1;
  }

  /** Reads a string of at most 31 bytes, if one stands here: most are, and this is small enough to be inlined. */
  shortString(): boolean {
    const { at } = this;
    const head = this.bytes[at]!;
    const stop = at + 1 + (head & 0x1f);
    if ((head & 0xe0) !== 0xa0 || stop > this.end) return false;
    this.start = at + 1;
    this.stop = stop;
    this.at = stop;
    return true;
  }

  /** Reads a scalar, or the head of a container. */
  next(): number {
    const { at } = this;
    if (at >= this.end) return this.#endsEarly();
    const head = this.bytes[at]!;
    if (head < 0x80) return this.#integer(head, at + 1);
    if (head < 0x90) return this.#container(MAP, head & 0x0f, 2, at + 1);
    if (head < 0xa0) return this.#container(ARRAY, head & 0x0f, 1, at + 1);
    if (head < 0xc0) return this.#string(head & 0x1f, at + 1);
    if (head >= 0xe0) return this.#integer(head - 0x100, at + 1);
    if (head === 0xd9 && at + 1 < this.end) return this.#string(this.bytes[at + 1]!, at + 2); // most ids
    return this.#wide(head, at + 1);
  }

  /** Steps over `values` values. False when the body is broken. */
  skip(values: number): boolean {
    const { bytes, end } = this;
    let { at } = this;
    for (let pending = values; pending > 0; pending--) {
      if (pending > end - at) {
        this.#endsEarly();
        return false;
      }
      const head = bytes[at]!;
      if (head < 0x80 || head >= 0xe0) at += 1;
      else if (head >= 0xa0 && head < 0xc0) at += 1 + (head & 0x1f);
      else {
        this.at = at;
        const kind = this.next();
        if (kind === BROKEN_BODY) return false;
        if (kind === ARRAY) pending += this.count;
        else if (kind === MAP) pending += this.count * 2;
        at = this.at;
      }
    }
    this.at = at;
    if (at <= end) return true;
    this.#endsEarly();
    return false;
  }

  /** Steps over what stands in the value whose head was read last, and was of that kind. False when the body is broken. */
  leave(kind: number): boolean {
    if (kind === ARRAY) return this.skip(this.count);
    if (kind === MAP) return this.skip(this.count * 2);
    return kind !== BROKEN_BODY;
  }

  /** The heads of one byte and a number of more, 0xc0 to 0xdf. `at` stands behind the head. */
  #wide(head: number, at: number): number {
    const { view } = this;
    const left = this.end - at;
    switch (head) {
      case 0xc0:
        return this.#scalar(NIL, at);
      case 0xc1: // never used, says the specification
        this.brokenAt = at - 1;
        return BROKEN_BODY;
      case 0xc2:
        return this.#scalar(FALSE, at);
      case 0xc3:
        return this.#scalar(TRUE, at);
      case 0xc4:
      case 0xc5:
      case 0xc6: {
        const size = 1 << (head - 0xc4);
        return left < size ? this.#endsEarly() : this.#foreign(this.#unsigned(at, size), at + size);
      }
      case 0xc7:
      case 0xc8:
      case 0xc9: {
        const size = 1 << (head - 0xc7);
        if (left < size + 1) return this.#endsEarly();
        return this.#foreign(this.#unsigned(at, size), at + size + 1);
      }
      case 0xca:
        return left < 4 ? this.#endsEarly() : this.#double(view.getFloat32(at), at + 4);
      case 0xcb:
        return left < 8 ? this.#endsEarly() : this.#double(view.getFloat64(at), at + 8);
      case 0xcc:
      case 0xcd:
      case 0xce: {
        const size = 1 << (head - 0xcc);
        return left < size ? this.#endsEarly() : this.#integer(this.#unsigned(at, size), at + size);
      }
      case 0xcf:
        return left < 8 ? this.#endsEarly() : this.#long(view.getUint32(at), at);
      case 0xd0:
        return left < 1 ? this.#endsEarly() : this.#integer(view.getInt8(at), at + 1);
      case 0xd1:
        return left < 2 ? this.#endsEarly() : this.#integer(view.getInt16(at), at + 2);
      case 0xd2:
        return left < 4 ? this.#endsEarly() : this.#integer(view.getInt32(at), at + 4);
      case 0xd3:
        return left < 8 ? this.#endsEarly() : this.#long(view.getInt32(at), at);
      case 0xd9:
      case 0xda:
      case 0xdb: {
        const size = 1 << (head - 0xd9);
        return left < size ? this.#endsEarly() : this.#string(this.#unsigned(at, size), at + size);
      }
      case 0xdc:
        return left < 2 ? this.#endsEarly() : this.#container(ARRAY, view.getUint16(at), 1, at + 2);
      case 0xdd:
        return left < 4 ? this.#endsEarly() : this.#container(ARRAY, view.getUint32(at), 1, at + 4);
      case 0xde:
        return left < 2 ? this.#endsEarly() : this.#container(MAP, view.getUint16(at), 2, at + 2);
      case 0xdf:
        return left < 4 ? this.#endsEarly() : this.#container(MAP, view.getUint32(at), 2, at + 4);
      default: // fixext: 0xd4 to 0xd8, of 1, 2, 4, 8 and 16 bytes
        return left < 1 ? this.#endsEarly() : this.#foreign(1 << (head - 0xd4), at + 1);
    }
  }

  #unsigned(at: number, size: number): number {
    if (size === 1) return this.bytes[at]!;
    return size === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  #scalar(kind: number, next: number): number {
    this.at = next;
    return kind;
  }

  #integer(value: number, next: number): number {
    this.mantissa = value;
    this.scale = 0;
    this.at = next;
    return NUMBER;
  }

  /** An integer of 64 bits whose upper half is `high`. */
  #long(high: number, at: number): number {
    const value = high * TWO_32 + this.view.getUint32(at + 4);
    if (Number.isSafeInteger(value)) return this.#integer(value, at + 8);
    this.at = at + 8;
    return INEXACT;
  }

  #double(value: number, next: number): number {
    this.at = next;
    if (!this.#exact.read(value)) return INEXACT;
    this.mantissa = this.#exact.mantissa;
    this.scale = this.#exact.scale;
    return NUMBER;
  }

  #string(length: number, start: number): number {
    if (length > this.end - start) return this.#endsEarly();
    this.start = start;
    this.stop = start + length;
    this.at = start + length;
    return STRING;
  }

  #foreign(length: number, start: number): number {
    if (length > this.end - start) return this.#endsEarly();
    this.at = start + length;
    return FOREIGN;
  }

  #container(kind: number, count: number, valuesEach: number, next: number): number {
    if (count * valuesEach > this.end - next) return this.#endsEarly();
    this.count = count;
    this.at = next;
    return kind;
  }

  #endsEarly(): number {
    this.brokenAt = this.end;
    return BROKEN_BODY;
  }
}

/**
 * Whether `bytes[start, end)` is UTF-8. The strings of a msgpack body stand between bytes that are none, so the
 * body cannot be asked as a whole, and a native call for each string would cost more than reading it (48 ns): four
 * bytes a step here, and the native check for what is not plain ASCII.
 */
export function isUnicode(scan: MsgpackScan, start: number, end: number): boolean {
  const { view } = scan;
  let at = start;
  for (const whole = end - 3; at < whole; at += 4) {
    if ((view.getInt32(at, true) & 0x80808080) !== 0) return isUtf8(scan.bytes.subarray(at, end));
  }
  if (at === end) return true;
  // The last one to three bytes; what stands behind them is shifted out. The padding makes this safe at the end.
  const rest = view.getInt32(at, true) << (32 - (end - at) * 8);
  return (rest & 0x80808080) === 0 || isUtf8(scan.bytes.subarray(at, end));
}

/** Whether `bytes[start, end)` is printable ASCII throughout: then it is UTF-8 and has no control character. */
export function isPrintable(scan: MsgpackScan, start: number, end: number): boolean {
  const { view } = scan;
  let at = start;
  for (const whole = end - 3; at < whole; at += 4) {
    if (!isPrintableWord(view.getInt32(at, true))) return false;
  }
  if (at === end) return true;
  const bits = (end - at) * 8;
  return isPrintableWord((view.getInt32(at, true) << (32 - bits)) | (0x20202020 >>> bits));
}

/**
 * Four bytes at once. Each sum has the high bit of a byte set when the byte is 0x20 or more, or is not 0x7f; a carry
 * goes upwards only, and only out of a byte that is itself beyond ASCII.
 */
function isPrintableWord(word: number): boolean {
  return ((word + 0x60606060) & ~(word + 0x01010101) & ~word & 0x80808080) === (0x80808080 | 0);
}
