/**
 * `data` of an event in msgpack, flattened into the fields of a batch: nested maps become places below places, a
 * number its exact mantissa and scale, an array or a word its JSON text. A key is first compared with the one that
 * stood in this place the last time.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LIMITS, FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../../contract/fields.ts';
import { PathTable } from '../../contract/path-table.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import type { Draft } from './draft.ts';
import { MsgpackArray } from './msgpack-array.ts';
import {
  ARRAY,
  BROKEN_BODY,
  FALSE,
  FOREIGN,
  INEXACT,
  MAP,
  NIL,
  NUMBER,
  STRING,
  TRUE,
  isUnicode,
  type MsgpackScan,
} from './msgpack-scan.ts';
import { isReservedKey } from './reserved.ts';

const { ROOT } = PathTable;

/** The words that a byte of msgpack means. They stand behind every body, and all events share them. */
const WORDS = new TextEncoder().encode('nullfalsetrue{}');
const WORD_NULL = [0, 4] as const;
const WORD_FALSE = [4, 9] as const;
const WORD_TRUE = [9, 13] as const;
const WORD_EMPTY = [13, 15] as const;

/** Told by #fault: `data` was left in the middle. */
const LEFT = false;

export class MsgpackData {
  readonly #scan: MsgpackScan;
  readonly #array = new MsgpackArray();

  // The maps that are open, by depth: `data` itself is 1.
  readonly #places = new Uint32Array(FIELD_LIMITS.depthMax + 1);
  /** Pairs that are still to be read. */
  readonly #pairs = new Uint32Array(FIELD_LIMITS.depthMax + 1);
  #depth = 0;

  #words = 0;
  #code: EdgeRejectionCode | null = null;
  #path = '';

  constructor(scan: MsgpackScan) {
    this.#scan = scan;
  }

  /** Begins a body. */
  begin(batch: EventBatch): void {
    this.#words = batch.make(WORDS.length);
    batch.bytes.set(WORDS, this.#words);
    batch.made(this.#words + WORDS.length);
  }

  /** Reads the `pairs` of the map whose head was read last. False when the body is broken. */
  read(pairs: number, batch: EventBatch, draft: Draft): boolean {
    this.#code = null;
    if (this.#fields(pairs, batch)) return true;
    if (this.#code === null) return false;
    draft.fail(this.#code, this.#path);
    // What is left of it must be sound msgpack all the same.
    let left = 0;
    for (let depth = 1; depth <= this.#depth; depth++) left += this.#pairs[depth]! * 2;
    return this.#scan.skip(left);
  }

  /** False at a fault of either kind. One of the event has the rest of its pair skipped. */
  #fields(count: number, batch: EventBatch): boolean {
    const scan = this.#scan;
    const { paths } = batch;
    const pairs = this.#pairs;
    const places = this.#places;
    const fieldsEnd = batch.fieldCount + FIELD_LIMITS.fieldsMax;
    const mark = paths.freshMark();
    let isDotted = false;
    let depth = 1;
    let parent: number = ROOT;
    let previous: number = ROOT;
    pairs[1] = count;
    places[1] = ROOT;
    this.#depth = 1;
    for (;;) {
      while (pairs[depth] === 0) {
        depth -= 1;
        this.#depth = depth;
        if (depth === 0) return !isDotted || !this.#repeatsPath(batch);
        parent = places[depth]!;
      }
      pairs[depth]! -= 1;
      // 1. The key, which is most likely the one that followed the last one the last time.
      if (!scan.shortString()) {
        const key = scan.next();
        if (key !== STRING) return this.#keyNotText(key, paths, parent);
      }
      const { start, stop } = scan;
      let place = paths.follows[previous]!;
      if (
        place === 0 ||
        paths.parent[place] !== parent ||
        !paths.isKeyInView(place, scan.view, start, stop)
      ) {
        place = this.#place(paths, parent, start, stop);
        if (place === 0) return LEFT;
        paths.follows[previous] = place;
      }
      if (paths.mark[place] === mark) return this.#skipAndFail('key_repeated', paths, place);
      paths.mark[place] = mark;
      previous = place;
      // 2. The value.
      const kind = scan.shortString() ? STRING : scan.next();
      if (kind === MAP && scan.count > 0) {
        if (depth === FIELD_LIMITS.depthMax) return this.#leaveAndFail('data_too_deep', paths, place, kind);
        depth += 1;
        this.#depth = depth;
        pairs[depth] = scan.count;
        places[depth] = place;
        parent = place;
        continue;
      }
      if (kind === BROKEN_BODY) return false;
      if (batch.fieldCount === fieldsEnd)
        return this.#leaveAndFail('data_too_many_fields', paths, place, kind);
      if (paths.canonical[place] !== place) isDotted = true;
      if (kind === STRING) {
        if (!isUnicode(scan, scan.start, scan.stop)) return this.#fail('text_not_unicode', paths, place);
        batch.addField(place, FIELD_TEXT, 0, 0, scan.start, scan.stop);
      } else if (kind === NUMBER) {
        batch.addField(place, FIELD_NUMBER, scan.scale, scan.mantissa, 0, 0);
      } else if (!this.#literal(kind, batch, place, depth)) {
        return LEFT;
      }
    }
  }

  #literal(kind: number, batch: EventBatch, place: number, depth: number): boolean {
    switch (kind) {
      case NIL:
        return this.#word(batch, place, WORD_NULL);
      case FALSE:
        return this.#word(batch, place, WORD_FALSE);
      case TRUE:
        return this.#word(batch, place, WORD_TRUE);
      case MAP: // It is empty, or it would have been opened.
        return this.#word(batch, place, WORD_EMPTY);
      case ARRAY:
        return this.#keepArray(batch, place, depth + 1);
      case INEXACT:
        return this.#fail('number_not_exact', batch.paths, place);
      case FOREIGN:
        return this.#fail('value_not_json', batch.paths, place);
      default:
        throw new Error(`a value of kind ${kind}`);
    }
  }

  #word(batch: EventBatch, place: number, [start, end]: readonly [number, number]): boolean {
    batch.addField(place, FIELD_LITERAL, 0, 0, this.#words + start, this.#words + end);
    return true;
  }

  #keepArray(batch: EventBatch, place: number, depth: number): boolean {
    const scan = this.#scan;
    const array = this.#array;
    const { at, count } = scan;
    if (!scan.skip(count)) return false;
    const arrayEnd = scan.at;
    scan.at = at;
    const code = array.write(scan, count, depth, arrayEnd, batch);
    scan.at = arrayEnd;
    if (code !== null) return this.#fail(code, batch.paths, place);
    batch.addField(place, FIELD_LITERAL, 0, 0, array.start, array.end);
    return true;
  }

  /** The number of a key that was not guessed; 0 after #fail. */
  #place(paths: PathTable, parent: number, start: number, stop: number): number {
    const scan = this.#scan;
    const length = stop - start + (parent === ROOT ? 0 : paths.length[parent]! + 1);
    const isText = isUnicode(scan, start, stop);
    const isShort = length <= FIELD_LIMITS.pathLengthMax;
    if (isText && isShort && !(parent === ROOT && isReservedKey(scan.bytes, start, stop)))
      return paths.child(parent, scan.bytes, start, stop);
    if (!scan.skip(1)) return 0;
    const key = Buffer.from(scan.bytes.subarray(start, Math.min(stop, start + 256))).toString();
    if (!isText) this.#code = 'text_not_unicode';
    else this.#code = isShort ? 'data_path_reserved' : 'data_path_too_long';
    this.#path = parent === ROOT ? `data.${key}` : `data.${paths.path(parent)}.${key}`;
    return 0;
  }

  #keyNotText(kind: number, paths: PathTable, parent: number): boolean {
    if (!this.#scan.leave(kind) || !this.#scan.skip(1)) return LEFT;
    this.#code = 'key_not_text';
    this.#path = parent === ROOT ? 'data' : `data.${paths.path(parent)}`;
    return LEFT;
  }

  /** Fails at a key whose value was not read. */
  #skipAndFail(code: EdgeRejectionCode, paths: PathTable, place: number): boolean {
    return this.#scan.skip(1) ? this.#fail(code, paths, place) : LEFT;
  }

  /** Fails at a value of which only the head was read. */
  #leaveAndFail(code: EdgeRejectionCode, paths: PathTable, place: number, kind: number): boolean {
    return this.#scan.leave(kind) ? this.#fail(code, paths, place) : LEFT;
  }

  #fail(code: EdgeRejectionCode, paths: PathTable, place: number): boolean {
    this.#code = code;
    this.#path = `data.${paths.path(place)}`;
    return LEFT;
  }

  /** `{"a.b": 1, "a": {"b": 2}}` names one path twice: which one counts would be a guess. */
  #repeatsPath(batch: EventBatch): boolean {
    const repeated = batch.repeatedPath();
    if (repeated < 0) return false;
    this.#fail('data_path_repeated', batch.paths, repeated);
    return true;
  }
}
