/**
 * The windows of a usage query. Usage is kept by whole UTC hours; a day or month of a time zone is cut out
 * of those hours, so its boundaries are the instants at which the zone's local date changes, and they must
 * lie on whole UTC hours. Days of 23 and 25 hours come out of this by themselves.
 *
 * The first and the last window are cut at the range: a row's value is what was used in
 * [windowStart, windowEnd), never more.
 */
import { DAY_MS, HOUR_MS, hourStart, type Window } from '../../../contract/window.ts';

export const WINDOW_SIZES = ['hour', 'day', 'month', 'total'] as const;
export type WindowSize = (typeof WINDOW_SIZES)[number];

/** The longest range of a query in days, by window: it bounds the number of rows and of hours read. */
export const RANGE_DAYS_MAX: Readonly<Record<WindowSize, number>> = {
  hour: 400,
  day: 1_830,
  month: 3_660,
  total: 3_660,
};

export type WindowsFault = 'range_not_whole_hours' | 'range_invalid' | 'timezone_not_whole_hours';
export type Windows =
  | { readonly ok: true; readonly starts: readonly number[] }
  | { readonly ok: false; readonly fault: WindowsFault };

const ZONE = /^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/;

/** Whether the text names a zone of the IANA database that this runtime knows. */
export function isTimezone(text: string): boolean {
  if (!ZONE.test(text)) return false;
  try {
    new Intl.DateTimeFormat('en-US', { timeZone: text });
    return true;
  } catch {
    return false;
  }
}

/** What a query covers when it does not say: the zone's current month, up to the end of the window of now. */
export function defaultRange(size: WindowSize, nowMs: number, timezone: string): Window {
  const calendar = calendarOf(timezone);
  const today = calendar.dateAt(nowMs);
  const month = { ...today, day: 1 };
  const start = hourStart(calendar.startOf(month));
  switch (size) {
    case 'hour':
    case 'total':
      return { start, end: hourStart(nowMs) + HOUR_MS };
    case 'day':
      return { start, end: hourEnd(calendar.startOf({ ...today, day: today.day + 1 })) };
    case 'month':
      return { start, end: hourEnd(calendar.startOf({ ...month, month: month.month + 1 })) };
  }
}

const hourEnd = (timeMs: number): number => Math.ceil(timeMs / HOUR_MS) * HOUR_MS;

/**
 * The starts of the windows of a range, the range's own start first; each ends where the next one begins,
 * the last one with the range. Hours are not listed one by one, and neither is a total: their list is just
 * the range's start.
 */
export function windowStarts(size: WindowSize, range: Window, timezone: string): Windows {
  const { start, end } = range;
  if (start % HOUR_MS !== 0 || end % HOUR_MS !== 0) return { ok: false, fault: 'range_not_whole_hours' };
  if (start >= end || end - start > RANGE_DAYS_MAX[size] * DAY_MS)
    return { ok: false, fault: 'range_invalid' };
  const starts = [start];
  if (size === 'hour' || size === 'total') return { ok: true, starts };
  const calendar = calendarOf(timezone);
  let date = calendar.dateAt(start);
  for (;;) {
    date = size === 'day' ? { ...date, day: date.day + 1 } : { ...date, month: date.month + 1, day: 1 };
    const next = calendar.startOf(date);
    if (next >= end) return { ok: true, starts };
    if (next % HOUR_MS !== 0) return { ok: false, fault: 'timezone_not_whole_hours' };
    if (next > starts.at(-1)!) starts.push(next);
    // Days and months that ran over their end (31 + 1) become real dates again.
    const real = new Date(Date.UTC(date.year, date.month - 1, date.day));
    date = { year: real.getUTCFullYear(), month: real.getUTCMonth() + 1, day: real.getUTCDate() };
  }
}

/** Where the window that begins at `start` ends. `starts` and `range` are those of {@link windowStarts}. */
export function windowEnd(size: WindowSize, start: number, range: Window, starts: readonly number[]): number {
  if (size === 'hour') return start + HOUR_MS;
  return starts[starts.indexOf(start) + 1] ?? range.end;
}

interface LocalDate {
  readonly year: number;
  /** 1 to 12; more runs over into the next year. */
  readonly month: number;
  /** From 1; more than the month has runs over into the next one. */
  readonly day: number;
}

interface Calendar {
  /** The local date at an instant. */
  dateAt(timeMs: number): LocalDate;
  /** The first instant of a local date. In some zones a clock change skips midnight: then it is 01:00. */
  startOf(date: LocalDate): number;
}

const MINUTE_MS = 60_000;
/** No zone is farther from UTC than this. */
const OFFSET_MS_MAX = 15 * HOUR_MS;

function calendarOf(timezone: string): Calendar {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: timezone,
    calendar: 'gregory',
    numberingSystem: 'latn',
    era: 'short',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
  });
  const dateAt = (timeMs: number): LocalDate => {
    const part: Record<string, string> = {};
    for (const { type, value } of format.formatToParts(timeMs)) part[type] = value;
    return { year: Number(part['year']), month: Number(part['month']), day: Number(part['day']) };
  };
  /** Local dates as numbers that compare like them: the epoch day of the same date in UTC. */
  const dayNumber = (date: LocalDate): number => Date.UTC(date.year, date.month - 1, date.day) / DAY_MS;
  let offset = 0;
  return {
    dateAt,
    startOf(date) {
      const wanted = dayNumber(date);
      // Mostly the offset from UTC is what it was the last time.
      const guess = wanted * DAY_MS - offset;
      if (dayNumber(dateAt(guess)) === wanted && dayNumber(dateAt(guess - MINUTE_MS)) < wanted) return guess;
      // The local date never falls back (a clock change before midnight repeats an hour of the same day),
      // so the first instant of the date is found by halving. Offsets are whole minutes.
      let before = wanted * DAY_MS - OFFSET_MS_MAX;
      let at = wanted * DAY_MS + OFFSET_MS_MAX;
      while (at - before > MINUTE_MS) {
        const middle = before + Math.floor((at - before) / 2 / MINUTE_MS) * MINUTE_MS;
        if (dayNumber(dateAt(middle)) >= wanted) at = middle;
        else before = middle;
      }
      offset = wanted * DAY_MS - at;
      return at;
    },
  };
}
