// Reads events that look like one seen before: the same bytes around values of the same kinds. Such a *template* was made of
// an event that the reader of JSON took and admission let in (json-template.ts). So whoever has the same keys in the same
// order, with the same punctuation and the same type, has no key twice, none that is unknown, no path that is too long; what is
// left to be looked at are the values: texts of printable ASCII without an escape, numbers of at most 15 digits without an
// exponent, `true`, `false` and `null`, and instants in UTC.
//
// An event that differs in anything else is not taken, whether it is sound or not, and nothing is left of the attempt: what
// is written of an event stands behind the last one that counts.
import { plainEnd, same } from './bytes';
import * as m from './memory';

/** Bytes of one template, and where its words and its steps stand. */
const TEMPLATE_BYTES: usize = 4_096;
const NEXT: usize = 0;
const STAMP: usize = 4;
const UNMATCHED: usize = 8;
const STEPS: usize = 16;

// What follows the literal of a step.
const END: i32 = 0;
/** The text of the attribute in the second word. */
const ATTRIBUTE: i32 = 1;
/** The literal ends with the type, whose length is the second word. */
const TYPE: i32 = 2;
const TIME: i32 = 3;
/** The value of the place in the second word. */
const TEXT: i32 = 4;
const NUMBER: i32 = 5;
const WORD: i32 = 6;

const FIELD_TEXT: u32 = 0;
const FIELD_NUMBER: u32 = 1 << 8;
const FIELD_LITERAL: u32 = 2 << 8;
const FIELDS_MAX: i32 = 64;
const DIGITS_MAX: i32 = 15;
const SCALE_MAX: i32 = 9;

// The limits of contract/event.ts and of read/admit.ts, in bytes.
const ID_MAX: i32 = 256;
const SOURCE_MAX: i32 = 512;
const SUBJECT_MAX: i32 = 256;
const EVENT_MAX: i32 = 65_536;
const FIELD_ADDED_MAX: i32 = 264;

const HOUR_MS: i64 = 3_600_000;

const QUOTE: u32 = 0x22;
const COMMA: u32 = 0x2c;
const LINE_FEED: u32 = 0x0a;
const OBJECT_OPEN: u32 = 0x7b;

const WORD_TRUE: u32 = 0x65757274;
const WORD_FALS: u32 = 0x736c6166;
const WORD_NULL: u32 = 0x6c6c756e;

let templates: usize = 0;
let candidates: usize = 0;
let count: i32 = 0;
let stamp: i32 = 0;

let timeMin: f64 = 0;
let timeMax: f64 = 0;
let nowMs: f64 = 0;

let fields: i32 = 0;

// "2026-11-21T08" of the last instant, and the hour it says.
let hourFirst: u64 = 0;
let hourLast: u64 = 0;
let hourMs: i64 = 0;

export function setTemplates(at: usize, listAt: usize): void {
  templates = at;
  candidates = listAt;
}

/** For the events of one body: how many templates are listed, and between which times an event may lie. */
export function begin(listed: i32, from: f64, to: f64, now: f64): void {
  count = listed;
  timeMin = from;
  timeMax = to;
  nowMs = now;
  stamp += 1;
  for (let at = 0; at < listed; at++) store<i32>(template(load<i32>(candidates + <usize>at * 4)), stamp, STAMP);
}

// @ts-ignore: decorator
@inline
function template(number: i32): usize {
  return templates + <usize>number * TEMPLATE_BYTES;
}

/**
 * Reads events from offset `start` of the body on, the first of which becomes event `first`, until one is none of ours or
 * `most` are read. Returns where it stopped; the words of the result: whether that is behind an event (1) or before one
 * (0), how many events were read, the number of fields in the batch, how many of the events no meter counts.
 */
export function scan(start: i32, bodyEnd: i32, first: i32, firstField: i32, most: i32, isLines: bool): i32 {
  fields = firstField;
  let fieldsBefore = fields;
  let event = first;
  let unmatched = 0;
  let isBehind = 0;
  let at = m.bytes + start;
  let begun = at;
  let last: usize = 0;
  let next = load<i32>(candidates);
  while (event - first < most) {
    if (event + 2 >= m.eventsMax || fields + FIELDS_MAX > m.fieldsMax) break;
    if (load<u8>(at) != OBJECT_OPEN) break;
    let found = template(next);
    let end = take(found, at, event);
    if (end == 0) {
      for (let other = 0; other < count; other++) {
        const candidate = load<i32>(candidates + <usize>other * 4);
        if (candidate == next) continue;
        found = template(candidate);
        end = take(found, at, event);
        if (end == 0) continue;
        if (last != 0) store<i32>(last, candidate, NEXT);
        break;
      }
      if (end == 0) break;
    }
    const behind = space(end, isLines);
    if (isLines && load<u8>(behind) != LINE_FEED && behind != m.bytes + bodyEnd) {
      // The line goes on, and so it is none.
      fields = fieldsBefore;
      break;
    }
    fieldsBefore = fields;
    event += 1;
    store<i32>(m.fieldStart + <usize>event * 4, fields);
    unmatched += load<i32>(found, UNMATCHED);
    last = found;
    const guess = load<i32>(found, NEXT);
    next = load<i32>(template(guess), STAMP) == stamp ? guess : load<i32>(candidates);
    // What stands between two events.
    at = behind;
    isBehind = 1;
    begun = end;
    if (event - first == most) break;
    if (isLines) {
      if (load<u8>(at) != LINE_FEED) break;
      begun = at + 1;
      at = space(begun, true);
    } else {
      if (load<u8>(at) != COMMA) break;
      at = space(at + 1, false);
      begun = at;
    }
    isBehind = 0;
  }
  store<i32>(m.result, isBehind);
  store<i32>(m.result, event - first, 4);
  store<i32>(m.result, fields, 8);
  store<i32>(m.result, unmatched, 12);
  return <i32>(begun - m.bytes);
}

// @ts-ignore: decorator
@inline
function space(at: usize, isLines: bool): usize {
  let byte = <u32>load<u8>(at);
  while (byte == 0x20 || byte == 0x09 || byte == 0x0d || (byte == LINE_FEED && !isLines)) {
    at += 1;
    byte = <u32>load<u8>(at);
  }
  return at;
}

/** Reads the event at `start` as the template says; returns its end, or 0 when it is another one. */
function take(template: usize, start: usize, event: i32): usize {
  const attributes = <usize>event * 16;
  const firstField = fields;
  let field = firstField;
  let at = start;
  // Without a source or a time.
  store<u32>(m.start + attributes, 0, 4);
  store<u32>(m.end + attributes, 0, 4);
  store<f64>(m.timeMs + <usize>event * 8, nowMs);
  store<u8>(m.timeGiven + event, 0);
  let step = template + STEPS;
  while (true) {
    const literal = template + load<usize>(step, 8);
    const length = load<i32>(step, 12);
    if (!same(at, literal, length)) return 0;
    at += length;
    const kind = load<i32>(step);
    const what = load<i32>(step, 4);
    step += 16;
    if (kind >= TEXT) {
      const column = <usize>field;
      if (kind == NUMBER) {
        let digit = <u32>load<u8>(at);
        const isNegative = digit == 0x2d;
        if (isNegative) at += 1;
        const begin = at;
        let value: i64 = 0;
        digit = <u32>load<u8>(at) - 0x30;
        const leading = digit;
        while (digit <= 9) {
          value = value * 10 + digit;
          at += 1;
          digit = <u32>load<u8>(at) - 0x30;
          if (<i32>(at - begin) > DIGITS_MAX) return 0;
        }
        if (at == begin || (leading == 0 && at - begin > 1)) return 0;
        let scale = 0;
        if (load<u8>(at) == 0x2e) {
          const fraction = at + 1;
          at = fraction;
          digit = <u32>load<u8>(at) - 0x30;
          while (digit <= 9) {
            value = value * 10 + digit;
            at += 1;
            digit = <u32>load<u8>(at) - 0x30;
            if (<i32>(at - begin) > DIGITS_MAX) return 0;
          }
          scale = <i32>(at - fraction);
          if (scale == 0) return 0;
          while (scale > 0 && value % 10 == 0) {
            value /= 10;
            scale -= 1;
          }
          if (scale > SCALE_MAX) return 0;
        }
        store<u16>(m.code + column * 2, <u16>(FIELD_NUMBER | scale));
        store<f64>(m.mantissa + column * 8, <f64>(isNegative ? -value : value));
        store<u32>(m.textStart + column * 4, 0);
        store<u32>(m.textEnd + column * 4, 0);
      } else {
        let end: usize;
        if (kind == TEXT) {
          // That a quote ends it is said by the next literal.
          end = plainEnd(at);
          store<u16>(m.code + column * 2, <u16>FIELD_TEXT);
        } else {
          const word = load<u32>(at);
          if (word == WORD_TRUE || word == WORD_NULL) end = at + 4;
          else if (word == WORD_FALS && load<u8>(at, 4) == 0x65) end = at + 5;
          else return 0;
          store<u16>(m.code + column * 2, <u16>FIELD_LITERAL);
        }
        store<f64>(m.mantissa + column * 8, 0);
        store<u32>(m.textStart + column * 4, <u32>(at - m.bytes));
        store<u32>(m.textEnd + column * 4, <u32>(end - m.bytes));
        at = end;
      }
      store<u32>(m.path + column * 4, what);
      field += 1;
    } else if (kind == ATTRIBUTE) {
      const end = plainEnd(at);
      const length = <i32>(end - at);
      const most = what == 1 ? SOURCE_MAX : what == 0 ? ID_MAX : SUBJECT_MAX;
      if (length == 0 || length > most) return 0;
      const column = attributes + <usize>what * 4;
      store<u32>(m.start + column, <u32>(at - m.bytes));
      store<u32>(m.end + column, <u32>(end - m.bytes));
      at = end;
    } else if (kind == TYPE) {
      store<u32>(m.start + attributes, <u32>(at - m.bytes - what), 8);
      store<u32>(m.end + attributes, <u32>(at - m.bytes), 8);
    } else if (kind == TIME) {
      const end = plainEnd(at);
      const time = instant(at, <i32>(end - at));
      if (time < 0) return 0;
      const timeMs = <f64>time;
      if (!(timeMs >= timeMin && timeMs <= timeMax)) return 0;
      store<f64>(m.timeMs + <usize>event * 8, timeMs);
      store<u8>(m.timeGiven + event, 1);
      at = end;
    } else {
      if (<i32>(at - start) + (field - firstField) * FIELD_ADDED_MAX > EVENT_MAX) return 0;
      fields = field;
      return at;
    }
  }
  return 0;
}

/** Epoch milliseconds of "2026-11-21T08:30:00.123Z", or of the same without its milliseconds; -1 for anything else. */
// @ts-ignore: decorator
@inline
function instant(at: usize, length: i32): i64 {
  if (length != 24 && length != 20) return -1;
  const first = load<u64>(at);
  const last = load<u64>(at, 5);
  if (first != hourFirst || last != hourLast) {
    if (!learnHour(at)) return -1;
    hourFirst = first;
    hourLast = last;
  }
  if (load<u8>(at, 13) != 0x3a || load<u8>(at, 16) != 0x3a) return -1;
  const minute = pair(load<u16>(at, 14));
  const second = pair(load<u16>(at, 17));
  if (minute > 59 || second > 59) return -1;
  let ms: i64 = 0;
  if (length == 24) {
    const tens = pair(load<u16>(at, 20));
    const ones = <u32>load<u8>(at, 22) - 0x30;
    if (load<u8>(at, 19) != 0x2e || load<u8>(at, 23) != 0x5a || tens > 99 || ones > 9) return -1;
    ms = tens * 10 + ones;
  } else if (load<u8>(at, 19) != 0x5a) return -1;
  return hourMs + <i64>(minute * 60 + second) * 1_000 + ms;
}

/** The number of two digits, the first byte lowest; above 99 when they are none. */
// @ts-ignore: decorator
@inline
function pair(both: u32): u32 {
  const tens = (both & 0xff) - 0x30;
  const ones = (both >> 8) - 0x30;
  return tens > 9 || ones > 9 ? 1_000 : tens * 10 + ones;
}

function learnHour(at: usize): bool {
  const century = pair(load<u16>(at));
  const years = pair(load<u16>(at, 2));
  const month = pair(load<u16>(at, 5));
  const day = pair(load<u16>(at, 8));
  const hour = pair(load<u16>(at, 11));
  if (load<u8>(at, 4) != 0x2d || load<u8>(at, 7) != 0x2d || load<u8>(at, 10) != 0x54) return false;
  if (century > 99 || years > 99 || month > 12 || month < 1 || day < 1 || hour > 23) return false;
  const year = century * 100 + years;
  if (year < 1970) return false;
  const isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  let daysInMonth: u32 = 31;
  if (month == 2) daysInMonth = isLeap ? 29 : 28;
  else if (month == 4 || month == 6 || month == 9 || month == 11) daysInMonth = 30;
  if (day > daysInMonth) return false;
  // Days since 1970-01-01, with years that begin in March, so that a leap day is the last of its year.
  const marchYear = <i64>year - (month <= 2 ? 1 : 0);
  const marchMonth = <i64>((month + 9) % 12);
  const days =
    marchYear * 365 + marchYear / 4 - marchYear / 100 + marchYear / 400 + (marchMonth * 153 + 2) / 5 + day - 1 - 719_468;
  hourMs = (days * 24 + hour) * HOUR_MS;
  return true;
}
