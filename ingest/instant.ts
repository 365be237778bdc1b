import { HOUR_MS, parseInstant } from '../contract/window.ts';

const ZERO = 0x30;

/**
 * Reads RFC 3339 instants as `parseInstant` does, but remembers the last hour: the events of a batch nearly
 * always lie in few hours, and then only the digits behind "2026-11-21T08:" have to be looked at. This is
 * about 30 ns an event instead of 400.
 */
export class InstantReader {
  #prefix = '';
  #hourMs = 0;

  /** Epoch milliseconds; null when the text is malformed or no real date. */
  read(text: string): number | null {
    const length = text.length;
    if ((length !== 20 && length !== 24) || text.charCodeAt(length - 1) !== 0x5a) return parseInstant(text);
    if (text.charCodeAt(13) !== 0x3a || text.charCodeAt(16) !== 0x3a) return null;
    const prefix = text.slice(0, 13);
    if (prefix !== this.#prefix) {
      const hourMs = parseInstant(`${prefix}:00:00Z`);
      if (hourMs === null) return null;
      this.#prefix = prefix;
      this.#hourMs = hourMs;
    }
    const minute = digits(text, 14, 16);
    const second = digits(text, 17, 19);
    if (minute < 0 || minute > 59 || second < 0 || second > 60) return null;
    let ms = 0;
    if (length === 24) {
      if (text.charCodeAt(19) !== 0x2e) return parseInstant(text);
      ms = digits(text, 20, 23);
      if (ms < 0) return null;
    }
    // A leap second is taken as the second before it, as parseInstant does.
    const withinHour = minute * 60_000 + Math.min(second, 59) * 1_000 + ms;
    return withinHour < HOUR_MS ? this.#hourMs + withinHour : null;
  }
}

/** The number that stands in [start, end), or -1 when there is another character. */
function digits(text: string, start: number, end: number): number {
  let value = 0;
  for (let at = start; at < end; at++) {
    const digit = text.charCodeAt(at) - ZERO;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}
