/**
 * Values of JSON as a whole: skipped, when nothing in them is kept, or checked and kept as text, when they are an
 * array in `data`. Nesting is kept in lists and not on the call stack: a million brackets are no reason to fall over.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LIMITS } from '../../contract/fields.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { BROKEN } from './draft.ts';
import {
  ARRAY_CLOSE,
  ARRAY_OPEN,
  BACKSLASH,
  COLON,
  COMMA,
  MINUS,
  OBJECT_CLOSE,
  OBJECT_OPEN,
  QUOTE,
  SPACE,
  type JsonSource,
} from './json-source.ts';
import { numberEnd } from './json-number.ts';
import type { JsonText } from './json-text.ts';
import { KEY_BYTES_MAX, KeySet } from './key-set.ts';

const WORD_TRUE = 0x65757274; // "true" and its like, the first byte lowest
const WORD_FALSE = 0x736c6166;
const WORD_NULL = 0x6c6c756e;
const LOWER_E = 0x65;
const WORDS = ['true', 'false', 'null'].map((word) => new TextEncoder().encode(word));

/** Reads over `true`, `false` or `null`. */
export function wordEnd(source: JsonSource, at: number): number {
  const word = source.view.getInt32(at, true);
  if (word === WORD_TRUE || word === WORD_NULL) return at + 4;
  if (word === WORD_FALSE && source.bytes[at + 4] === LOWER_E) return at + 5;
  const meant = WORDS.find(([first]) => first === source.bytes[at]);
  let length = 0;
  while (meant !== undefined && source.bytes[at + length] === meant[length]) length += 1;
  return source.fault(at + length);
}

export function isNull(source: JsonSource, at: number): boolean {
  return source.view.getInt32(at, true) === WORD_NULL;
}

export class JsonValue {
  /** Set by `keepArray`: what is wrong with it though it is JSON; null when it is kept. */
  fault: EdgeRejectionCode | null = null;
  /** Set by `keepArray`: the range of its text. */
  start = 0;
  end = 0;

  readonly #source: JsonSource;
  readonly #text: JsonText;
  /** For each open level a bit, whether it is an object: a body of brackets alone takes an eighth of its size. */
  #levels = new Uint32Array(32);
  readonly #keys = new KeySet();
  /** White space stood between the brackets and values of the last walk. */
  #spaced = false;

  constructor(source: JsonSource, text: JsonText) {
    this.#source = source;
    this.#text = text;
  }

  /** Reads over the value that begins at `start`; returns the offset behind it. */
  skip(start: number): number {
    return this.#walk(start, null, 0);
  }

  /**
   * Reads the array that begins at `start` and keeps its text as it was sent, but for the white space between its
   * parts. `depth` is that of the object it stands in.
   */
  keepArray(start: number, depth: number, batch: EventBatch): number {
    this.fault = null;
    this.#spaced = false;
    const end = this.#walk(start, batch, FIELD_LIMITS.depthMax - depth);
    this.#keys.reset();
    if (end < 0) return -1;
    this.start = start;
    this.end = end;
    if (this.#spaced && this.fault === null) this.#compact(start, end, batch);
    return end;
  }

  /** Checks what it walks through when there is a batch, up to the first fault. */
  #walk(start: number, batch: EventBatch | null, depthMax: number): number {
    const source = this.#source;
    const { bytes } = source;
    let depth = 0;
    let isObject = false; // The innermost level.
    let at = start;
    for (;;) {
      // 1. A value, or the beginning of one.
      const byte = bytes[at];
      if (byte === OBJECT_OPEN || byte === ARRAY_OPEN) {
        this.#setLevel(depth, isObject);
        depth += 1;
        isObject = byte === OBJECT_OPEN;
        if (batch !== null && this.fault === null) {
          if (depth > depthMax) this.fault = 'data_too_deep';
          if (isObject) this.#keys.open();
        }
        at = this.#space(at + 1);
        if (bytes[at] !== (isObject ? OBJECT_CLOSE : ARRAY_CLOSE)) {
          if (isObject) at = this.#key(at, batch);
          if (at < 0) return -1;
          continue;
        }
      } else {
        at = this.#scalar(at);
        if (at < 0) return -1;
      }
      // 2. What may stand behind a value: the ends of what is open, then a comma or the end of it all.
      for (;;) {
        if (depth === 0) return at;
        at = this.#space(at);
        const next = bytes[at];
        if (next === COMMA) {
          at = this.#space(at + 1);
          if (isObject) at = this.#key(at, batch);
          if (at < 0) return -1;
          break;
        }
        if (next !== (isObject ? OBJECT_CLOSE : ARRAY_CLOSE)) return source.fault(at);
        at += 1;
        if (isObject && batch !== null && this.fault === null) this.#keys.close();
        depth -= 1;
        isObject = this.#level(depth);
      }
    }
  }

  #setLevel(depth: number, isObject: boolean): void {
    if (depth >> 5 === this.#levels.length) {
      const larger = new Uint32Array(this.#levels.length * 2);
      larger.set(this.#levels);
      this.#levels = larger;
    }
    const bit = 1 << (depth & 31);
    if (isObject) this.#levels[depth >> 5]! |= bit;
    else this.#levels[depth >> 5]! &= ~bit;
  }

  #level(depth: number): boolean {
    return (this.#levels[depth >> 5]! & (1 << (depth & 31))) !== 0;
  }

  /** Reads a key and its colon; returns the offset of the value. */
  #key(start: number, batch: EventBatch | null): number {
    const source = this.#source;
    const text = this.#text;
    if (source.bytes[start] !== QUOTE) return source.fault(start);
    const checked = batch !== null && this.fault === null;
    let at = checked ? text.take(start + 1, batch) : text.skip(start + 1);
    if (at < 0) return -1;
    if (checked) {
      if (text.kind === BROKEN) this.fault = 'text_not_unicode';
      else if (!this.#keys.add(batch.bytes, text.start, text.end)) this.fault = 'key_repeated';
      else if (this.#keys.bytes > KEY_BYTES_MAX) this.fault = 'event_too_large';
    }
    at = this.#space(at);
    if (source.bytes[at] !== COLON) return source.fault(at);
    return this.#space(at + 1);
  }

  #scalar(at: number): number {
    const byte = this.#source.bytes[at]!;
    if (byte === QUOTE) {
      const end = this.#text.skip(at + 1);
      if (this.#text.broken) this.fault ??= 'text_not_unicode';
      return end;
    }
    return byte === MINUS || (byte >= 0x30 && byte <= 0x39)
      ? numberEnd(this.#source, at)
      : wordEnd(this.#source, at);
  }

  #space(at: number): number {
    if (this.#source.bytes[at]! > SPACE) return at;
    const end = this.#source.space(at);
    if (end > at) this.#spaced = true;
    return end;
  }

  /** Writes `[start, end)` behind the body without the white space that is in no string. */
  #compact(start: number, end: number, batch: EventBatch): void {
    const begin = batch.make(end - start);
    const { bytes } = batch;
    let to = begin;
    let inString = false;
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      if (byte <= SPACE && !inString) continue;
      bytes[to++] = byte;
      if (byte === QUOTE) inString = !inString;
      else if (byte === BACKSLASH) bytes[to++] = bytes[++at]!;
    }
    batch.made(to);
    this.start = begin;
    this.end = to;
  }
}
