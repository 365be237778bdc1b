/**
 * `data` of an event in JSON, flattened into the fields of a batch: nested objects become places below places, a
 * number its exact mantissa and scale, an array or a word its text.
 */
import { sameWords } from '../../contract/byte-words.ts';
import type { EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LIMITS, FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../../contract/fields.ts';
import { PathTable } from '../../contract/path-table.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { BROKEN, type Draft } from './draft.ts';
import { JsonNumber } from './json-number.ts';
import {
  ARRAY_OPEN,
  COLON,
  COMMA,
  MINUS,
  OBJECT_CLOSE,
  OBJECT_OPEN,
  QUOTE,
  SPACE,
  type JsonSource,
} from './json-source.ts';
import {
  DOUBLED,
  FOLLOWS,
  JsonPlaces,
  KEY_LENGTH,
  KEY_START,
  PARENT,
  ROW_SHIFT,
  SEEN,
} from './json-places.ts';
import { isReservedKey } from './reserved.ts';
import { plainEnd, type JsonText } from './json-text.ts';
import { wordEnd, type JsonValue } from './json-value.ts';

const { ROOT } = PathTable;
const QUOTE_COLON = (COLON << 8) | QUOTE;
const ZERO = 0x30;
const NINE = 0x39;
/** So many digits are a small integer of the engine. */
const FEW_DIGITS = 9;
const EMPTY_OBJECT = new Uint8Array([OBJECT_OPEN, OBJECT_CLOSE]);

export class JsonData {
  readonly #source: JsonSource;
  readonly #text: JsonText;
  readonly #value: JsonValue;
  readonly #number: JsonNumber;
  readonly #places = new JsonPlaces();
  /** The places of the objects that are open, by depth. */
  readonly #parents = new Uint32Array(FIELD_LIMITS.depthMax + 1);

  // The fault that ended the reading, and where in data it is.
  #fault: EdgeRejectionCode | null = null;
  #faultPath = '';
  /** Set by #key. */
  #place = 0;

  constructor(source: JsonSource, text: JsonText, value: JsonValue) {
    this.#source = source;
    this.#text = text;
    this.#value = value;
    this.#number = new JsonNumber(source);
  }

  /** Reads the object that begins at `start` into the draft of the batch; returns the offset behind it. */
  read(start: number, batch: EventBatch, draft: Draft): number {
    this.#fault = null;
    const end = this.#fields(start + 1, batch);
    if (this.#fault === null) return end;
    draft.fail(this.#fault, this.#faultPath);
    // What is left of it must be sound JSON all the same.
    return this.#value.skip(start);
  }

  /** Ends early, with -1, at a fault of either kind. */
  #fields(start: number, batch: EventBatch): number {
    const source = this.#source;
    const { bytes, view, end } = source;
    const { paths } = batch;
    const parents = this.#parents;
    const fieldsEnd = batch.fieldCount + FIELD_LIMITS.fieldsMax;
    const places = this.#places;
    const event = places.begin(paths);
    let { rows } = places;
    // Keys that become places meanwhile are not looked for again in this event, so that it may be outgrown.
    const { keyView } = paths;
    let isDotted = false;
    let depth = 1;
    let parent: number = ROOT;
    let previous: number = ROOT;
    let at = bytes[start]! <= SPACE ? source.space(start) : start;
    if (bytes[at] === OBJECT_CLOSE) return at + 1;
    for (;;) {
      // 1. The key, which is most likely the one that followed the last one the last time.
      let place = rows[(previous << ROW_SHIFT) + FOLLOWS]!;
      let row = place << ROW_SHIFT;
      const length = rows[row + KEY_LENGTH]!;
      const behind = at + length + 3;
      if (
        length > 0 &&
        rows[row + PARENT] === parent &&
        bytes[at] === QUOTE &&
        behind <= end &&
        view.getUint16(behind - 2, true) === QUOTE_COLON &&
        sameWords(keyView, rows[row + KEY_START]!, view, at + 1, length)
      ) {
        at = behind;
      } else {
        at = this.#key(at, batch, parent, previous);
        if (at < 0) return -1;
        place = this.#place;
        row = place << ROW_SHIFT;
        rows = places.rows;
      }
      if (rows[row + SEEN] === event) return this.#refuse('key_repeated', paths, place);
      rows[row + SEEN] = event;
      previous = place;
      // 2. The value.
      if (bytes[at]! <= SPACE) at = source.space(at);
      const byte = bytes[at]!;
      if (byte === OBJECT_OPEN) {
        const next = bytes[at + 1]! <= SPACE ? source.space(at + 1) : at + 1;
        if (bytes[next] !== OBJECT_CLOSE) {
          if (depth === FIELD_LIMITS.depthMax) return this.#refuse('data_too_deep', paths, place);
          parents[depth] = parent;
          depth += 1;
          parent = place;
          at = next;
          continue;
        }
      }
      if (batch.fieldCount === fieldsEnd) return this.#refuse('data_too_many_fields', paths, place);
      if (rows[row + DOUBLED] === 1) isDotted = true;
      if (byte === QUOTE) at = this.#string(at, batch, place);
      else if (byte > ZERO && byte <= NINE) at = this.#whole(at, batch, place);
      else if (byte === MINUS || byte === ZERO) at = this.#numeral(at, batch, place);
      else at = this.#literal(at, batch, place, depth);
      if (at < 0) return -1;
      // 3. What may stand behind it: the ends of what is open, then a comma or the end of it all.
      for (;;) {
        if (bytes[at]! <= SPACE) at = source.space(at);
        const next = bytes[at];
        at += 1;
        if (next === COMMA) {
          if (bytes[at]! <= SPACE) at = source.space(at);
          break;
        }
        if (next !== OBJECT_CLOSE) return source.fault(at - 1);
        depth -= 1;
        if (depth === 0) return isDotted && this.#repeatsPath(batch) ? -1 : at;
        parent = parents[depth]!;
      }
    }
  }

  /** Reads a key and its colon, sets its #place and returns the offset behind the colon. */
  #key(start: number, batch: EventBatch, parent: number, previous: number): number {
    const source = this.#source;
    const text = this.#text;
    const { paths } = batch;
    if (source.bytes[start] !== QUOTE) return source.fault(start);
    const end = text.take(start + 1, batch);
    if (end < 0) return -1;
    const colon = source.space(end);
    if (source.bytes[colon] !== COLON) return source.fault(colon);
    if (text.kind === BROKEN) return this.#refuseBelow('text_not_unicode', paths, parent, start + 1, end - 1);
    const length = text.end - text.start + (parent === ROOT ? 0 : paths.length[parent]! + 1);
    if (length > FIELD_LIMITS.pathLengthMax)
      return this.#refuseBelow('data_path_too_long', paths, parent, start + 1, end - 1);
    // It never becomes a place, so it is never one that is guessed.
    if (parent === ROOT && isReservedKey(batch.bytes, text.start, text.end))
      return this.#refuseBelow('data_path_reserved', paths, parent, start + 1, end - 1);
    const place = paths.child(parent, batch.bytes, text.start, text.end);
    this.#places.follow(paths, previous, place);
    this.#place = place;
    return colon + 1;
  }

  #string(start: number, batch: EventBatch, place: number): number {
    const { bytes, view } = this.#source;
    const close = plainEnd(view, start + 1);
    if (bytes[close] === QUOTE) {
      batch.addField(place, FIELD_TEXT, 0, 0, start + 1, close);
      return close + 1;
    }
    const text = this.#text;
    const at = text.take(start + 1, batch);
    if (at < 0) return -1;
    if (text.kind === BROKEN) return this.#refuse('text_not_unicode', batch.paths, place);
    batch.addField(place, FIELD_TEXT, 0, 0, text.start, text.end);
    return at;
  }

  /** Whole numbers of few digits are most numbers; what else there is has a file of its own. */
  #whole(start: number, batch: EventBatch, place: number): number {
    const { bytes } = this.#source;
    let value = bytes[start]! - ZERO;
    let at = start + 1;
    const last = start + FEW_DIGITS;
    let next = bytes[at]!;
    while (next >= ZERO && next <= NINE && at < last) {
      value = value * 10 + (next - ZERO);
      at += 1;
      next = bytes[at]!;
    }
    if (next !== COMMA && next !== OBJECT_CLOSE) return this.#numeral(start, batch, place);
    batch.addField(place, FIELD_NUMBER, 0, value, 0, 0);
    return at;
  }

  #numeral(start: number, batch: EventBatch, place: number): number {
    const number = this.#number;
    const at = number.read(start);
    if (at < 0) return -1;
    if (!number.exact) return this.#refuse('number_not_exact', batch.paths, place);
    batch.addField(place, FIELD_NUMBER, number.scale, number.mantissa, 0, 0);
    return at;
  }

  #literal(start: number, batch: EventBatch, place: number, depth: number): number {
    const source = this.#source;
    const { bytes } = source;
    if (bytes[start] === ARRAY_OPEN) {
      const value = this.#value;
      const at = value.keepArray(start, depth, batch);
      if (at < 0) return -1;
      if (value.fault !== null) return this.#refuse(value.fault, batch.paths, place);
      batch.addField(place, FIELD_LITERAL, 0, 0, value.start, value.end);
      return at;
    }
    if (bytes[start] === OBJECT_OPEN) {
      // It is empty, or it would have been opened.
      const at = source.space(start + 1) + 1;
      let begin = start;
      if (at !== start + 2) {
        begin = batch.make(EMPTY_OBJECT.length);
        batch.bytes.set(EMPTY_OBJECT, begin);
        batch.made(begin + EMPTY_OBJECT.length);
      }
      batch.addField(place, FIELD_LITERAL, 0, 0, begin, begin + EMPTY_OBJECT.length);
      return at;
    }
    const at = wordEnd(source, start);
    if (at < 0) return -1;
    batch.addField(place, FIELD_LITERAL, 0, 0, start, at);
    return at;
  }

  /** `{"a.b": 1, "a": {"b": 2}}` names one path twice: which one counts would be a guess. */
  #repeatsPath(batch: EventBatch): boolean {
    const repeated = batch.repeatedPath();
    if (repeated < 0) return false;
    this.#refuse('data_path_repeated', batch.paths, repeated);
    return true;
  }

  #refuse(code: EdgeRejectionCode, paths: PathTable, place: number): -1 {
    this.#fault = code;
    this.#faultPath = `data.${paths.path(place)}`;
    return -1;
  }

  /** As #refuse, for a key that has not become a place: the bytes between its quotes. */
  #refuseBelow(code: EdgeRejectionCode, paths: PathTable, parent: number, start: number, end: number): -1 {
    const key = Buffer.from(this.#source.bytes.subarray(start, Math.min(end, start + 256))).toString();
    this.#fault = code;
    this.#faultPath = parent === ROOT ? `data.${key}` : `data.${paths.path(parent)}.${key}`;
    return -1;
  }
}
