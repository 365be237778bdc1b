/**
 * The envelope of a stream's frame: { batch, events }, as JSON or as a msgpack map, its two keys in either
 * order. Only the envelope is read here; where the events stand is told, and whoever reads bodies reads them,
 * so that an event is looked at once and by the same code, whichever way it came.
 *
 * A number that stands last is read from the end of the frame backwards: the events need not be walked to know
 * where they stop.
 */

export interface Envelope {
  readonly batch: number;
  /** `frame[start, end)` is the value of `events`. */
  readonly start: number;
  readonly end: number;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const ZERO = 0x30;
const NINE = 0x39;
const DIGITS_MAX = 16;

const BATCH = Uint8Array.from([0x62, 0x61, 0x74, 0x63, 0x68]);
const EVENTS = Uint8Array.from([0x65, 0x76, 0x65, 0x6e, 0x74, 0x73]);

/** Null when the frame is not such an object. */
export function jsonEnvelope(frame: Uint8Array): Envelope | null {
  let end = backOverSpace(frame, frame.length);
  if (frame[end - 1] !== CLOSE) return null;
  end = backOverSpace(frame, end - 1);
  let at = overSpace(frame, 0);
  if (frame[at] !== OPEN) return null;
  at = overSpace(frame, at + 1);
  if (isKey(frame, at, BATCH)) return batchFirst(frame, at + BATCH.length + 2, end);
  if (isKey(frame, at, EVENTS)) return eventsFirst(frame, at + EVENTS.length + 2, end);
  return null;
}

/** `at` stands behind the key "batch". */
function batchFirst(frame: Uint8Array, at: number, end: number): Envelope | null {
  const from = overColon(frame, at);
  if (from < 0) return null;
  let to = from;
  while (isDigit(frame[to])) to += 1;
  const batch = numberIn(frame, from, to);
  if (batch < 0) return null;
  let next = overSpace(frame, to);
  if (frame[next] !== COMMA) return null;
  next = overSpace(frame, next + 1);
  if (!isKey(frame, next, EVENTS)) return null;
  const start = overColon(frame, next + EVENTS.length + 2);
  return start < 0 || start >= end ? null : { batch, start, end };
}

/** `at` stands behind the key "events"; the number is the last thing before `end`. */
function eventsFirst(frame: Uint8Array, at: number, end: number): Envelope | null {
  const start = overColon(frame, at);
  if (start < 0) return null;
  let from = end;
  while (from > start && isDigit(frame[from - 1])) from -= 1;
  const batch = numberIn(frame, from, end);
  if (batch < 0) return null;
  let back = backOverSpace(frame, from);
  if (frame[back - 1] !== COLON) return null;
  back = backOverSpace(frame, back - 1) - BATCH.length - 2;
  if (back <= start || !isKey(frame, back, BATCH)) return null;
  back = backOverSpace(frame, back);
  return frame[back - 1] === COMMA ? { batch, start, end: back - 1 } : null;
}

/** The key in quotes stands at `at`. */
function isKey(frame: Uint8Array, at: number, key: Uint8Array): boolean {
  if (frame[at] !== QUOTE || frame[at + key.length + 1] !== QUOTE) return false;
  return isText(frame, at + 1, key);
}

function isText(frame: Uint8Array, at: number, text: Uint8Array): boolean {
  for (let index = 0; index < text.length; index++) if (frame[at + index] !== text[index]) return false;
  return true;
}

/** Behind a colon and its white space, or -1. */
function overColon(frame: Uint8Array, at: number): number {
  const colon = overSpace(frame, at);
  return frame[colon] === COLON ? overSpace(frame, colon + 1) : -1;
}

function overSpace(frame: Uint8Array, at: number): number {
  let next = at;
  while (isSpace(frame[next])) next += 1;
  return next;
}

function backOverSpace(frame: Uint8Array, end: number): number {
  let next = end;
  while (next > 0 && isSpace(frame[next - 1])) next -= 1;
  return next;
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= NINE;
}

/** The decimal number in [start, end) as JSON writes it, or -1 when it is none or not a safe integer. */
function numberIn(frame: Uint8Array, start: number, end: number): number {
  const digits = end - start;
  if (digits < 1 || digits > DIGITS_MAX || (digits > 1 && frame[start] === ZERO)) return -1;
  let value = 0;
  for (let at = start; at < end; at++) value = value * 10 + (frame[at]! - ZERO);
  return Number.isSafeInteger(value) ? value : -1;
}

/** Null when the frame is not such a map. */
export function msgpackEnvelope(frame: Uint8Array): Envelope | null {
  const at = overMapOfTwo(frame);
  if (at < 0) return null;
  const batchValue = overText(frame, at, BATCH);
  if (batchValue > 0) {
    const length = lengthOfNumber(frame, batchValue);
    const batch = msgpackNumber(frame, batchValue, length);
    if (batch < 0) return null;
    const start = overText(frame, batchValue + length, EVENTS);
    return start < 0 || start >= frame.length ? null : { batch, start, end: frame.length };
  }
  const start = overText(frame, at, EVENTS);
  if (start < 0) return null;
  for (const length of [1, 2, 3, 5, 9]) {
    const value = frame.length - length;
    if (value <= start || lengthOfNumber(frame, value) !== length) continue;
    const end = startOfText(frame, value, BATCH);
    const batch = msgpackNumber(frame, value, length);
    if (end > start && batch >= 0) return { batch, start, end };
  }
  return null;
}

/** Behind the head of a map of two entries (fixmap, map 16, map 32), or -1. */
function overMapOfTwo(frame: Uint8Array): number {
  if (frame[0] === 0x82) return 1;
  if (frame[0] === 0xde && frame[1] === 0 && frame[2] === 2) return 3;
  if (frame[0] === 0xdf && frame[1] === 0 && frame[2] === 0 && frame[3] === 0 && frame[4] === 2) return 5;
  return -1;
}

/** Behind the text (fixstr or str 8), or -1. */
function overText(frame: Uint8Array, at: number, text: Uint8Array): number {
  const head =
    frame[at] === (0xa0 | text.length) ? 1 : frame[at] === 0xd9 && frame[at + 1] === text.length ? 2 : 0;
  return head > 0 && isText(frame, at + head, text) ? at + head + text.length : -1;
}

/** Where the text that ends at `end` begins, or -1. */
function startOfText(frame: Uint8Array, end: number, text: Uint8Array): number {
  const at = end - text.length;
  if (at < 1 || !isText(frame, at, text)) return -1;
  if (frame[at - 1] === (0xa0 | text.length)) return at - 1;
  return frame[at - 2] === 0xd9 && frame[at - 1] === text.length ? at - 2 : -1;
}

/** Bytes of the number that stands there (positive fixint, uint 8 to 64, float 64), or 0. */
function lengthOfNumber(frame: Uint8Array, at: number): number {
  const type = frame[at];
  if (type === undefined) return 0;
  if (type < 0x80) return 1;
  switch (type) {
    case 0xcc:
    case 0xd0:
      return 2;
    case 0xcd:
    case 0xd1:
      return 3;
    case 0xce:
    case 0xd2:
      return 5;
    case 0xcb: // JavaScript encoders write integers beyond 32 bits so.
    case 0xcf:
    case 0xd3:
      return 9;
    default:
      return 0;
  }
}

/** The number, or -1 when it is none of 0 and up that is kept exactly. */
function msgpackNumber(frame: Uint8Array, at: number, length: number): number {
  if (length === 0 || at + length > frame.length) return -1;
  const type = frame[at]!;
  if (type < 0x80) return type;
  const view = new DataView(frame.buffer, frame.byteOffset + at + 1, length - 1);
  if (type === 0xcb) {
    const value = view.getFloat64(0);
    return Number.isSafeInteger(value) && value >= 0 ? value : -1;
  }
  // A signed one of 0 and up has the same bytes as the unsigned one; its sign bit must be clear.
  if (type >= 0xd0 && view.getUint8(0) >= 0x80) return -1;
  let value = 0;
  for (let byte = 0; byte < length - 1; byte++) value = value * 256 + view.getUint8(byte);
  return Number.isSafeInteger(value) ? value : -1;
}
