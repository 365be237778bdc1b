/**
 * The windows of a usage query. A day or month of a time zone begins at the instant at which the zone's local
 * date changes, an hour where its clock shows a full hour; days of 23 and 25 hours come out of this by themselves.
 *
 * Rollups are kept by whole UTC hours. A window whose boundary lies within such an hour (in zones like
 * Asia/Kolkata, or where `from` or `to` do) tears that hour: its events are read one by one, all other hours from
 * the rollup. So every window is exact, and what it costs is the raw events of its torn hours.
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
/** The same for hours of a zone that is not whole hours from UTC: each of them is torn, and named in the query. */
export const TORN_DAYS_MAX = 93;

export type Windows =
  | {
      readonly ok: true;
      /** The range's own start first; null when they are UTC's hours, which need no list. */
      readonly starts: readonly number[] | null;
    }
  | { readonly ok: false; readonly daysMax: number };

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
  const start = calendar.startOf(month);
  switch (size) {
    case 'hour':
    case 'total':
      return { start, end: fullHourAfter(calendar, nowMs) };
    case 'day':
      return { start, end: calendar.startOf({ ...today, day: today.day + 1 }) };
    case 'month':
      return { start, end: calendar.startOf({ ...month, month: month.month + 1 }) };
  }
}

/**
 * The starts of the windows of a range; each ends where the next one begins, the last at the end of the range.
 * Not ok: the range is empty or longer than `daysMax`.
 */
export function windowStarts(size: WindowSize, range: Window, timezone: string): Windows {
  const { start, end } = range;
  const torn = size === 'hour' && !isWholeHours(range, timezone);
  const daysMax = torn ? TORN_DAYS_MAX : RANGE_DAYS_MAX[size];
  // Epoch seconds of ClickHouse end in 2106.
  if (start >= end || start < 0 || end >= 2 ** 32 * 1_000 || end - start > daysMax * DAY_MS)
    return { ok: false, daysMax };
  if (size === 'hour' && !torn) return { ok: true, starts: null };
  const starts = [start];
  if (size === 'total') return { ok: true, starts };
  const calendar = calendarOf(timezone);
  if (size === 'hour') {
    for (let next = start; (next = fullHourAfter(calendar, next)) < end;) starts.push(next);
    return { ok: true, starts };
  }
  let date = calendar.dateAt(start);
  for (;;) {
    date = size === 'day' ? { ...date, day: date.day + 1 } : { ...date, month: date.month + 1, day: 1 };
    const next = calendar.startOf(date);
    if (next >= end) return { ok: true, starts };
    if (next > starts.at(-1)!) starts.push(next);
    // Days and months that ran over their end (31 + 1) become real dates again.
    const real = new Date(Date.UTC(date.year, date.month - 1, date.day));
    date = { year: real.getUTCFullYear(), month: real.getUTCMonth() + 1, day: real.getUTCDate() };
  }
}

/** Where the window that begins at `start` ends. `starts` and `range` are those of {@link windowStarts}. */
export function windowEnd(start: number, range: Window, starts: readonly number[] | null): number {
  if (starts === null) return Math.min(hourStart(start) + HOUR_MS, range.end);
  return starts[starts.indexOf(start) + 1] ?? range.end;
}

/** The UTC hours within which a window or the range begins or ends, ascending: rollups cannot say what is whose. */
export function tornHours(range: Window, starts: readonly number[] | null): number[] {
  const boundaries = [range.start, ...(starts ?? []), range.end];
  const torn = boundaries.filter((boundary) => boundary % HOUR_MS !== 0).map(hourStart);
  return [...new Set(torn)].sort((a, b) => a - b);
}

/**
 * Whether the zone's clock shows full hours where UTC's does, all through the range. One look a day is enough: no
 * zone leaves and takes back an offset within a day.
 */
function isWholeHours(range: Window, timezone: string): boolean {
  if (timezone === 'UTC') return true;
  const calendar = calendarOf(timezone);
  const last = Math.min(range.end, range.start + RANGE_DAYS_MAX.hour * DAY_MS);
  for (let at = range.start; at < last; at += DAY_MS) if (calendar.offsetAt(at) % HOUR_MS !== 0) return false;
  return calendar.offsetAt(last) % HOUR_MS === 0;
}

/**
 * The first instant behind `timeMs` at which the zone's clock shows a full hour. Where a change of the clock by
 * half an hour skips or repeats one, the hour before it is longer.
 */
function fullHourAfter(calendar: Calendar, timeMs: number): number {
  let next = timeMs;
  do {
    const local = next + calendar.offsetAt(next);
    next += HOUR_MS - (((local % HOUR_MS) + HOUR_MS) % HOUR_MS);
  } while ((next + calendar.offsetAt(next)) % HOUR_MS !== 0);
  return next;
}

interface LocalDate {
  readonly year: number;
  /** 1 to 12; more runs over into the next year. */
  readonly month: number;
  /** From 1; more than the month has runs over into the next one. */
  readonly day: number;
}

interface Calendar {
  /** How far the zone's clock is ahead of UTC at an instant, in whole seconds as milliseconds. */
  offsetAt(timeMs: number): number;
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
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
    hourCycle: 'h23',
  });
  const partsAt = (timeMs: number): Record<string, number> => {
    const part: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(timeMs)) part[type] = Number(value);
    return part;
  };
  const dateAt = (timeMs: number): LocalDate => {
    const part = partsAt(timeMs);
    return { year: part['year']!, month: part['month']!, day: part['day']! };
  };
  /** Local dates as numbers that compare like them: the epoch day of the same date in UTC. */
  const dayNumber = (date: LocalDate): number => Date.UTC(date.year, date.month - 1, date.day) / DAY_MS;
  let offset = 0;
  return {
    dateAt,
    offsetAt(timeMs) {
      const part = partsAt(timeMs);
      const { year, month, day, hour, minute, second } = part;
      const local = Date.UTC(year!, month! - 1, day, hour, minute, second);
      return local - Math.floor(timeMs / 1_000) * 1_000;
    },
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
