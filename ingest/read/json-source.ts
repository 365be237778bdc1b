/**
 * The bytes of a body of JSON, and what its readers share: white space, the place of the first fault, and whether
 * the bytes are UTF-8.
 *
 * Behind the body stand zeros (BODY_PADDING), and a zero is not allowed anywhere in JSON. So no reader asks where
 * the body ends: it meets a byte that cannot stand there, and `fault` is told.
 *
 * All of this is one JSON text after RFC 8259 in UTF-8, without a byte order mark. A reader returns the offset
 * behind what it has read, or -1 after `fault`.
 */
import { isUtf8 } from 'node:buffer';
import type { EventBatch } from '../../contract/event-batch.ts';

export const QUOTE = 0x22;
export const BACKSLASH = 0x5c;
export const COMMA = 0x2c;
export const COLON = 0x3a;
export const MINUS = 0x2d;
export const OBJECT_OPEN = 0x7b;
export const OBJECT_CLOSE = 0x7d;
export const ARRAY_OPEN = 0x5b;
export const ARRAY_CLOSE = 0x5d;
export const SPACE = 0x20;
export const LINE_FEED = 0x0a;
const TAB = 0x09;
const CARRIAGE_RETURN = 0x0d;

const NOTHING = new Uint8Array(0);

export class JsonSource {
  bytes: Uint8Array = NOTHING;
  /** The same memory. */
  view = new DataView(NOTHING.buffer);
  end = 0;
  /** Where the first fault is; -1 while there is none. */
  faultAt = -1;
  /** The fault is that the bytes are no UTF-8. */
  notUnicode = false;

  #lines = false;
  #unicode: 'unknown' | 'sound' | 'broken' = 'unknown';
  #lineChecked = -1;
  #lineStart = 0;

  /** `lines`: a line feed is no white space, but the end of a text. */
  begin(batch: EventBatch, lines: boolean): void {
    this.bytes = batch.bytes;
    this.view = batch.view;
    this.end = batch.bodyEnd;
    this.faultAt = -1;
    this.notUnicode = false;
    this.#lines = lines;
    this.#unicode = 'unknown';
    this.#lineChecked = -1;
    this.#lineStart = 0;
  }

  beginLine(at: number): void {
    this.faultAt = -1;
    this.notUnicode = false;
    this.#lineStart = at;
  }

  /** The offset of the first byte that is no white space. */
  space(start: number): number {
    const { bytes } = this;
    let at = start;
    for (;;) {
      const byte = bytes[at]!;
      const isSpace =
        byte === SPACE || byte === TAB || byte === CARRIAGE_RETURN || (byte === LINE_FEED && !this.#lines);
      if (!isSpace) return at;
      at += 1;
    }
  }

  fault(at: number): -1 {
    if (this.faultAt < 0) this.faultAt = at;
    return -1;
  }

  /** The offset of the next line feed, or the end of the body. */
  lineEnd(at: number): number {
    // Not beyond the body, behind which megabytes may stand that are none of it.
    const found = this.bytes.subarray(at, this.end).indexOf(LINE_FEED);
    return found < 0 ? this.end : at + found;
  }

  /**
   * Asked by whoever meets a byte beyond ASCII: most bodies have none, and are never asked about. False after a
   * fault: the body (of lines: the line) is not UTF-8.
   */
  isUnicode(at: number): boolean {
    if (this.#unicode === 'unknown') {
      this.#unicode = isUtf8(this.bytes.subarray(0, this.end)) ? 'sound' : 'broken';
    }
    if (this.#unicode === 'sound') return true;
    if (this.#lines) {
      if (this.#lineChecked === this.#lineStart) return true;
      if (isUtf8(this.bytes.subarray(this.#lineStart, this.lineEnd(at)))) {
        this.#lineChecked = this.#lineStart;
        return true;
      }
    }
    this.notUnicode = true;
    this.fault(at);
    return false;
  }
}
