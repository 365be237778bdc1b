/**
 * An array in `data`, as the JSON text that is kept of it: what JSON.stringify would write, so that an event has
 * the same content whether it came as JSON from JavaScript or as msgpack. The array was skipped once before, so
 * that its end is known and its structure is sound.
 *
 * Nesting is bounded by the depth of `data`, so this may call itself.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LIMITS } from '../../contract/fields.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { EVENT_BYTES_MAX } from './admit.ts';
import { KeySet } from './key-set.ts';
import {
  ARRAY,
  FALSE,
  FOREIGN,
  INEXACT,
  isUnicode,
  MAP,
  NIL,
  NUMBER,
  STRING,
  TRUE,
  type MsgpackScan,
} from './msgpack-scan.ts';

/**
 * The most that a byte of msgpack becomes: the byte of `false` in an array is "false," and a control character is
 * "\u0001". All else is less: a number of 9 bytes has 17 characters at most.
 */
const GROWTH = 6;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const HEX = '0123456789abcdef';

/** The letter that stands for a control character behind a backslash, by its code; 0 where it takes \u00xx. */
const SHORT_ESCAPES = new Uint8Array(0x20);
for (const [code, letter] of [
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
] as const) {
  SHORT_ESCAPES[code] = letter.charCodeAt(0);
}

const POWERS = [1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9] as const;

export class MsgpackArray {
  /** The text, in the batch's bytes, after `write` returned null. */
  start = 0;
  end = 0;

  #target: Uint8Array = new Uint8Array(0);
  #to = 0;
  #last = 0;
  readonly #keys = new KeySet();

  /**
   * Writes the array of `count` elements at `scan`, which is a container `depth` deep and ends at `arrayEnd`. After a
   * code, `scan` stands somewhere inside of it, and nothing was made. A text longer than an event may be is not
   * written to its end.
   */
  write(
    scan: MsgpackScan,
    count: number,
    depth: number,
    arrayEnd: number,
    batch: EventBatch,
  ): EdgeRejectionCode | null {
    this.#keys.reset();
    const room = Math.min((arrayEnd - scan.at + 1) * GROWTH, EVENT_BYTES_MAX * (GROWTH + 1)) + 8;
    this.start = batch.make(room);
    this.#target = batch.bytes;
    this.#to = this.start;
    this.#last = this.start + EVENT_BYTES_MAX;
    const code = this.#elements(scan, count, depth);
    if (code !== null) return code;
    this.end = this.#to;
    batch.made(this.end);
    return null;
  }

  #elements(scan: MsgpackScan, count: number, depth: number): EdgeRejectionCode | null {
    if (depth > FIELD_LIMITS.depthMax) return 'data_too_deep';
    this.#put(0x5b);
    for (let element = 0; element < count; element++) {
      if (element > 0) this.#put(COMMA);
      const code = this.#value(scan, depth);
      if (code !== null) return code;
    }
    this.#put(0x5d);
    return null;
  }

  #pairs(scan: MsgpackScan, count: number, depth: number): EdgeRejectionCode | null {
    if (depth > FIELD_LIMITS.depthMax) return 'data_too_deep';
    const keys = this.#keys;
    keys.open();
    this.#put(0x7b);
    for (let pair = 0; pair < count; pair++) {
      if (pair > 0) this.#put(COMMA);
      if (scan.next() !== STRING) return 'key_not_text';
      if (!isUnicode(scan, scan.start, scan.stop)) return 'text_not_unicode';
      if (!keys.add(scan.bytes, scan.start, scan.stop)) return 'key_repeated';
      if (!this.#string(scan.bytes, scan.start, scan.stop)) return 'event_too_large';
      this.#put(COLON);
      const code = this.#value(scan, depth);
      if (code !== null) return code;
    }
    keys.close();
    this.#put(0x7d);
    return null;
  }

  #value(scan: MsgpackScan, depth: number): EdgeRejectionCode | null {
    if (this.#to > this.#last) return 'event_too_large';
    switch (scan.next()) {
      case STRING:
        if (!isUnicode(scan, scan.start, scan.stop)) return 'text_not_unicode';
        return this.#string(scan.bytes, scan.start, scan.stop) ? null : 'event_too_large';
      case NUMBER:
        // The quotient of two exact doubles is the double that was sent, whose text JSON.stringify would write.
        this.#ascii(String(scan.mantissa / POWERS[scan.scale]!));
        return null;
      case INEXACT:
        return 'number_not_exact';
      case NIL:
        this.#ascii('null');
        return null;
      case FALSE:
        this.#ascii('false');
        return null;
      case TRUE:
        this.#ascii('true');
        return null;
      case ARRAY:
        return this.#elements(scan, scan.count, depth + 1);
      case MAP:
        return this.#pairs(scan, scan.count, depth + 1);
      case FOREIGN:
        return 'value_not_json';
      default:
        throw new Error('an array that was skipped once is not sound the second time');
    }
  }

  /** False when it would be too long. */
  #string(bytes: Uint8Array, start: number, stop: number): boolean {
    if (this.#to + (stop - start) > this.#last) return false;
    const target = this.#target;
    let to = this.#to;
    target[to++] = QUOTE;
    for (let at = start; at < stop; at++) {
      const byte = bytes[at]!;
      if (byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH) {
        target[to++] = byte;
        continue;
      }
      target[to++] = BACKSLASH;
      if (byte >= 0x20) target[to++] = byte;
      else if (SHORT_ESCAPES[byte] !== 0) target[to++] = SHORT_ESCAPES[byte]!;
      else {
        target[to++] = 0x75; // u
        target[to++] = 0x30;
        target[to++] = 0x30;
        target[to++] = HEX.charCodeAt(byte >> 4);
        target[to++] = HEX.charCodeAt(byte & 0x0f);
      }
    }
    target[to++] = QUOTE;
    this.#to = to;
    return true;
  }

  #ascii(text: string): void {
    for (let at = 0; at < text.length; at++) this.#put(text.charCodeAt(at));
  }

  #put(byte: number): void {
    this.#target[this.#to++] = byte;
  }
}
