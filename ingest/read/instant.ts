import { HOUR_MS } from '../../contract/window.ts';

const ZERO = 0x30;
const DASH = 0x2d;
const COLON = 0x3a;
const DOT = 0x2e;
const PLUS = 0x2b;
/** "2026-11-21T08" */
const PREFIX = 13;
const DAYS_IN_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * Reads RFC 3339 instants from their bytes as `parseInstant` of contract/window.ts reads them from a string, but
 * remembers the last hour: the events of a batch nearly always lie in few hours, and then only the digits behind
 * "2026-11-21T08" have to be worked out.
 */
export class InstantReader {
  // The prefix of the last hour as four overlapping words, from its bytes 0, 4, 8 and 9.
  #first = -1; // No text begins with such bytes.
  #second = 0;
  #third = 0;
  #last = 0;
  #hourMs = 0;

  /** Epoch milliseconds of the bytes `[start, end)`; NaN when it is malformed or no real date. */
  read(view: DataView, start: number, end: number): number {
    const length = end - start;
    if (length < PREFIX + 7) return NaN;
    if (
      view.getInt32(start, true) !== this.#first ||
      view.getInt32(start + 4, true) !== this.#second ||
      view.getInt32(start + 8, true) !== this.#third ||
      view.getInt32(start + 9, true) !== this.#last
    ) {
      if (!this.#learn(view, start)) return NaN;
    }
    if (length === 24) {
      const ms = msWithinHour(view, start);
      if (ms >= 0) return this.#hourMs + ms;
    }
    if (view.getUint8(start + 13) !== COLON || view.getUint8(start + 16) !== COLON) return NaN;
    const minute = pair(view, start + 14);
    const second = pair(view, start + 17);
    if (minute < 0 || minute > 59 || second < 0 || second > 60) return NaN;
    let at = start + 19;
    let ms = 0;
    if (view.getUint8(at) === DOT) {
      const from = at + 1;
      at = from;
      let unit = 100;
      for (; at < end; at++) {
        const digit = view.getUint8(at) - ZERO;
        if (digit < 0 || digit > 9) break;
        ms += digit * unit;
        unit = unit === 100 ? 10 : unit === 10 ? 1 : 0;
      }
      if (at === from || at - from > 9) return NaN;
    }
    // A leap second is taken as the second before it, as parseInstant does.
    const local = this.#hourMs + minute * 60_000 + (second === 60 ? 59 : second) * 1_000 + ms;
    if (at + 1 === end && (view.getUint8(at) | 0x20) === 0x7a) return local;
    return at + 6 === end ? local - offsetMs(view, at) : NaN;
  }

  /** Works out the date and the hour of the prefix at `start`. */
  #learn(view: DataView, start: number): boolean {
    const century = pair(view, start);
    const years = pair(view, start + 2);
    const month = pair(view, start + 5);
    const day = pair(view, start + 8);
    const hour = pair(view, start + 11);
    const mark = view.getUint8(start + 10);
    if (century < 0 || years < 0) return false;
    if (view.getUint8(start + 4) !== DASH || view.getUint8(start + 7) !== DASH) return false;
    if (mark !== 0x20 && (mark | 0x20) !== 0x74) return false;
    const year = century * 100 + years;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || hour < 0 || hour > 23) return false;
    const leap = month === 2 && year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
    if (day > DAYS_IN_MONTH[month - 1]! + (leap ? 1 : 0)) return false;
    this.#hourMs = Date.UTC(year, month - 1, day, hour);
    this.#first = view.getInt32(start, true);
    this.#second = view.getInt32(start + 4, true);
    this.#third = view.getInt32(start + 8, true);
    this.#last = view.getInt32(start + 9, true);
    return true;
  }
}

/**
 * The usual end of an instant, ":30:00.123Z" behind the hour, as three words: -1 when it looks otherwise. What should
 * be punctuation becomes 0 and a digit its value by an exclusive or; a value above 9 has a bit in its upper half
 * then, or once 6 is added.
 */
function msWithinHour(view: DataView, start: number): number {
  const minutes = view.getInt32(start + 13, true) ^ 0x3a30303a;
  const seconds = view.getInt32(start + 17, true) ^ 0x302e3030;
  const millis = view.getInt32(start + 20, true) ^ 0x5a303030;
  const odd =
    ((minutes | (minutes + 0x00060600)) & 0xfff0f0ff) |
    ((seconds | (seconds + 0x06000606)) & 0xf0fff0f0) |
    ((millis | (millis + 0x00060606)) & 0xfff0f0f0);
  if (odd !== 0) return -1;
  const minute = ((minutes >> 8) & 0xff) * 10 + (minutes >> 16);
  const second = (seconds & 0xff) * 10 + ((seconds >> 8) & 0xff);
  if (minute > 59 || second > 59) return -1;
  const ms = (millis & 0xff) * 100 + ((millis >> 8) & 0xff) * 10 + (millis >> 16);
  return (minute * 60 + second) * 1_000 + ms;
}

/** What "+01:00" is ahead of UTC; NaN when it is no offset. */
function offsetMs(view: DataView, at: number): number {
  const sign = view.getUint8(at);
  const hours = pair(view, at + 1);
  const minutes = pair(view, at + 4);
  if ((sign !== PLUS && sign !== DASH) || view.getUint8(at + 3) !== COLON) return NaN;
  if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return NaN;
  const ahead = hours * HOUR_MS + minutes * 60_000;
  return sign === DASH ? -ahead : ahead;
}

/** The number of the two digits at `at`, or -1. */
function pair(view: DataView, at: number): number {
  const both = view.getUint16(at, true);
  const tens = (both & 0xff) - ZERO;
  const ones = (both >> 8) - ZERO;
  return tens < 0 || tens > 9 || ones < 0 || ones > 9 ? -1 : tens * 10 + ones;
}
