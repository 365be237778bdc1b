/** Instants are epoch milliseconds, windows are half-open [start, end), everything is UTC. */
export interface Window {
  readonly start: number;
  readonly end: number;
}

export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

export function hourStart(timeMs: number): number {
  return Math.floor(timeMs / HOUR_MS) * HOUR_MS;
}

export function contains(window: Window, timeMs: number): boolean {
  return window.start <= timeMs && timeMs < window.end;
}

/**
 * The n-th monthly boundary after an anchor: always anchor + n months, never the previous boundary plus
 * one, so that an anchor on the 31st comes back to the 31st. A day that a month lacks becomes its last.
 */
export function addMonths(anchorMs: number, months: number): number {
  const anchor = new Date(anchorMs);
  const month = anchor.getUTCMonth() + months;
  const firstOfMonth = Date.UTC(anchor.getUTCFullYear(), month, 1);
  const daysInMonth = new Date(Date.UTC(anchor.getUTCFullYear(), month + 1, 0)).getUTCDate();
  const day = Math.min(anchor.getUTCDate(), daysInMonth);
  return firstOfMonth + (day - 1) * DAY_MS + (anchorMs - Math.floor(anchorMs / DAY_MS) * DAY_MS);
}

/** The monthly period of an anchor that contains an instant, before the anchor as well as after it. */
export function monthlyPeriod(anchorMs: number, timeMs: number): Window {
  const anchor = new Date(anchorMs);
  const time = new Date(timeMs);
  let months =
    (time.getUTCFullYear() - anchor.getUTCFullYear()) * 12 + (time.getUTCMonth() - anchor.getUTCMonth());
  if (addMonths(anchorMs, months) > timeMs) months -= 1;
  return { start: addMonths(anchorMs, months), end: addMonths(anchorMs, months + 1) };
}

const RFC3339 =
  /^(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d{2}):(\d{2}))$/;

/**
 * RFC 3339 to epoch milliseconds, cutting finer digits; null when it is malformed or no real date.
 * A leap second (:60) is taken as the second before it (RFC 3339 section 5.7 allows it, ClickHouse lacks it).
 */
export function parseInstant(text: string): number | null {
  const match = RFC3339.exec(text);
  if (match === null) return null;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (month < 1 || month > 12 || hour > 23 || minute > 59 || second > 60) return null;
  const ms = Number((match[7] ?? '').slice(0, 3).padEnd(3, '0'));
  const local = Date.UTC(year, month - 1, day, hour, minute, Math.min(second, 59), ms);
  const check = new Date(local);
  if (year < 1970 || check.getUTCFullYear() !== year || check.getUTCDate() !== day) return null;
  if (match[8] !== undefined) return local;
  const [offsetHour, offsetMinute] = [Number(match[10]), Number(match[11])];
  if (offsetHour > 23 || offsetMinute > 59) return null;
  const offset = (offsetHour * 60 + offsetMinute) * 60_000;
  return match[9] === '-' ? local + offset : local - offset;
}

export function formatInstant(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
