/**
 * From one admitted event in JSON to a template for others: the bytes that stand around its values, and what kind of value
 * stands between them. assembly/edge/scan.ts reads events by it.
 *
 * Whoever has the bytes of a template around values of its kinds has also what admission said of them: the same keys, none
 * twice, none unknown; the same paths, depth and number of fields; the same type. So a template is made only of events
 * all of whose values are of kinds that can be checked one by one, and everything else of an event, a specversion or the
 * text of an extension attribute, is part of what must be the same.
 */
import { ID, SOURCE, SUBJECT, TYPE, type EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../../contract/fields.ts';
import { ABSENT, TEXT, TIME, type Draft } from './draft.ts';
import {
  ARRAY_OPEN,
  BACKSLASH,
  COLON,
  MINUS,
  OBJECT_CLOSE,
  OBJECT_OPEN,
  QUOTE,
  SPACE,
} from './json-source.ts';

// What follows the literal of a step, as assembly/edge/scan.ts has it.
export const STEP_END = 0;
export const STEP_ATTRIBUTE = 1;
export const STEP_TYPE = 2;
export const STEP_TIME = 3;
export const STEP_TEXT = 4;
export const STEP_NUMBER = 5;
export const STEP_WORD = 6;

/** The literal is a range of the batch's bytes; `what` is an attribute, a place, or the length of the type. */
export interface Step {
  readonly kind: number;
  readonly what: number;
  readonly start: number;
  readonly end: number;
}

const ZULU = 0x5a;
/** "2026-11-21T08:30:00Z", and the same with milliseconds. */
const TIME_LENGTHS = [20, 24];

/**
 * The steps of the event that was committed last, which stands in the body from `start` to `end` and whose attributes are
 * those of the draft; null when it has something that cannot be told so.
 */
export function templateOf(batch: EventBatch, draft: Draft, start: number, end: number): Step[] | null {
  if (draft.corrects) return null;
  const { bytes, path, code, textStart, textEnd } = batch;
  const fieldsEnd = batch.fieldCount;
  let field = batch.fieldStart[batch.count - 1]!;
  let attributes = 0;
  for (const attribute of [ID, SOURCE, TYPE, SUBJECT, TIME]) {
    // An empty source is none, and part of the literal.
    const isKept = draft.kind[attribute] === TEXT && draft.end[attribute]! > draft.start[attribute]!;
    if (isKept) attributes += 1;
    else if (draft.kind[attribute] !== ABSENT && attribute !== SOURCE) return null;
  }
  const steps: Step[] = [];
  let literal = start;
  const step = (kind: number, what: number, from: number, to: number): void => {
    steps.push({ kind, what, start: literal, end: from });
    literal = to;
  };
  let depth = 0;
  let at = start;
  while (at < end) {
    const byte = bytes[at]!;
    if (byte === QUOTE) {
      const from = at + 1;
      const to = closeOf(bytes, from);
      at = to + 1;
      let next = at;
      while (bytes[next]! <= SPACE && next < end) next += 1;
      if (bytes[next] === COLON) continue;
      const attribute = depth === 1 ? attributeAt(draft, from, to) : -1;
      if (attribute === TYPE) {
        steps.push({ kind: STEP_TYPE, what: to - from, start: literal, end: to });
        literal = to;
      } else if (attribute === TIME) {
        if (!TIME_LENGTHS.includes(to - from) || bytes[to - 1] !== ZULU) return null;
        step(STEP_TIME, 0, from, to);
      } else if (attribute >= 0) {
        step(STEP_ATTRIBUTE, attribute, from, to);
      } else if (depth > 1) {
        const isField =
          field < fieldsEnd &&
          code[field]! >> 8 === FIELD_TEXT &&
          textStart[field] === from &&
          textEnd[field] === to;
        if (!isField) return null;
        step(STEP_TEXT, path[field]!, from, to);
        field += 1;
        continue;
      } else continue;
      attributes -= 1;
    } else if (byte === OBJECT_OPEN) {
      depth += 1;
      at += 1;
      // An empty object in data is a value of its own, and no field follows it.
      let next = at;
      while (bytes[next]! <= SPACE && next < end) next += 1;
      if (depth > 2 && bytes[next] === OBJECT_CLOSE) return null;
    } else if (byte === OBJECT_CLOSE) {
      depth -= 1;
      at += 1;
    } else if (byte === ARRAY_OPEN) {
      return null;
    } else if (isOfNumber(byte) || isLetter(byte)) {
      const from = at;
      while (isOfNumber(bytes[at]!) || isLetter(bytes[at]!)) at += 1;
      if (depth <= 1) continue;
      const isNumber = isOfNumber(byte);
      if (field === fieldsEnd || code[field]! >> 8 !== (isNumber ? FIELD_NUMBER : FIELD_LITERAL)) return null;
      step(isNumber ? STEP_NUMBER : STEP_WORD, path[field]!, from, at);
      field += 1;
    } else at += 1;
  }
  if (attributes !== 0 || field !== fieldsEnd) return null;
  step(STEP_END, 0, end, end);
  return steps;
}

/** The quote that ends the string whose first byte is at `start`. */
function closeOf(bytes: Uint8Array, start: number): number {
  let at = start;
  while (bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1;
  return at;
}

/** The attribute whose text is the range, as it stands; -1 for none. */
function attributeAt(draft: Draft, start: number, end: number): number {
  for (const attribute of [ID, SOURCE, TYPE, SUBJECT, TIME]) {
    if (draft.kind[attribute] === TEXT && draft.start[attribute] === start && draft.end[attribute] === end)
      return end > start ? attribute : -1;
  }
  return -1;
}

/** A digit, or what may stand in a number beside them; exponents are letters. */
function isOfNumber(byte: number): boolean {
  return (byte >= 0x30 && byte <= 0x39) || byte === MINUS || byte === 0x2b || byte === 0x2e;
}

function isLetter(byte: number): boolean {
  return (byte >= 0x61 && byte <= 0x7a) || (byte >= 0x41 && byte <= 0x5a);
}
