import { expect, test } from 'vitest';
import { formatInstant, HOUR_MS } from '../../../contract/window.ts';
import { defaultRange, isTimezone, tornHours, windowEnd, windowStarts, type WindowSize } from './window.ts';

const at = (text: string) => Date.parse(text);

/** The windows as "start/end" to the hour, or to the minute with `digits` 16. */
function check(
  size: WindowSize,
  from: string,
  to: string,
  timezone: string,
  expected: readonly string[],
  digits = 13,
): void {
  const range = { start: at(from), end: at(to) };
  const windows = windowStarts(size, range, timezone);
  if (!windows.ok || windows.starts === null) throw new Error('no list of windows');
  const text = (ms: number) => formatInstant(ms).slice(0, digits);
  expect(
    windows.starts.map((start) => `${text(start)}/${text(windowEnd(start, range, windows.starts))}`),
  ).toEqual(expected);
}

test('days of Berlin: 23 hours when summer begins, 25 when it ends', () => {
  // Summer time begins on 29 March 2026 at 01:00 UTC and ends on 25 October 2026 at 01:00 UTC.
  check('day', '2026-03-27T23:00:00Z', '2026-03-30T22:00:00Z', 'Europe/Berlin', [
    '2026-03-27T23/2026-03-28T23',
    '2026-03-28T23/2026-03-29T22',
    '2026-03-29T22/2026-03-30T22',
  ]);
  check('day', '2026-10-23T22:00:00Z', '2026-10-26T23:00:00Z', 'Europe/Berlin', [
    '2026-10-23T22/2026-10-24T22',
    '2026-10-24T22/2026-10-25T23',
    '2026-10-25T23/2026-10-26T23',
  ]);
});

test('days of New York: 8 March 2026 has 23 hours, 1 November 2026 has 25', () => {
  // UTC-5 in winter, UTC-4 in summer; clocks change at 02:00 local time.
  check('day', '2026-03-07T05:00:00Z', '2026-03-10T04:00:00Z', 'America/New_York', [
    '2026-03-07T05/2026-03-08T05',
    '2026-03-08T05/2026-03-09T04',
    '2026-03-09T04/2026-03-10T04',
  ]);
  check('day', '2026-10-31T04:00:00Z', '2026-11-03T05:00:00Z', 'America/New_York', [
    '2026-10-31T04/2026-11-01T04',
    '2026-11-01T04/2026-11-02T05',
    '2026-11-02T05/2026-11-03T05',
  ]);
});

test('where clocks change at midnight, a day begins at 01:00 or has two midnights', () => {
  // Cairo goes from 24 April 2026 00:00 to 01:00 (UTC+2 to UTC+3), and from 30 October 2026 00:00 back to 23:00.
  check('day', '2026-04-22T22:00:00Z', '2026-04-24T21:00:00Z', 'Africa/Cairo', [
    '2026-04-22T22/2026-04-23T22',
    '2026-04-23T22/2026-04-24T21',
  ]);
  check('day', '2026-10-28T21:00:00Z', '2026-10-30T22:00:00Z', 'Africa/Cairo', [
    '2026-10-28T21/2026-10-29T22',
    '2026-10-29T22/2026-10-30T22',
  ]);
});

test('a day that a zone skipped has no window', () => {
  // Samoa had no 30 December 2011: it went from UTC-10 to UTC+14.
  check('day', '2011-12-28T10:00:00Z', '2012-01-01T10:00:00Z', 'Pacific/Apia', [
    '2011-12-28T10/2011-12-29T10',
    '2011-12-29T10/2011-12-30T10',
    '2011-12-30T10/2011-12-31T10',
    '2011-12-31T10/2012-01-01T10',
  ]);
});

test('months of a zone, over the turn of a year', () => {
  check('month', '2026-01-31T23:00:00Z', '2026-04-30T22:00:00Z', 'Europe/Berlin', [
    '2026-01-31T23/2026-02-28T23',
    '2026-02-28T23/2026-03-31T22',
    '2026-03-31T22/2026-04-30T22',
  ]);
  check('month', '2025-11-01T00:00:00Z', '2026-02-01T00:00:00Z', 'UTC', [
    '2025-11-01T00/2025-12-01T00',
    '2025-12-01T00/2026-01-01T00',
    '2026-01-01T00/2026-02-01T00',
  ]);
});

test('the first and the last window are cut at the range', () => {
  check('day', '2026-11-20T15:00:00Z', '2026-11-22T01:00:00Z', 'UTC', [
    '2026-11-20T15/2026-11-21T00',
    '2026-11-21T00/2026-11-22T00',
    '2026-11-22T00/2026-11-22T01',
  ]);
  check('month', '2026-11-20T15:00:00Z', '2026-11-22T00:00:00Z', 'UTC', ['2026-11-20T15/2026-11-22T00']);
});

test('a total is one window, of any length to the millisecond', () => {
  check('total', '2026-11-20T15:00:00Z', '2026-12-20T16:00:00Z', 'Asia/Kolkata', [
    '2026-11-20T15/2026-12-20T16',
  ]);
  const range = { start: at('2026-11-20T15:20:00.001Z'), end: at('2026-11-20T17:00:00Z') };
  expect(tornHours(range, [range.start])).toEqual([at('2026-11-20T15:00:00Z')]);
});

test('in a zone of whole hours, hours are those of UTC and need no list', () => {
  const range = { start: at('2026-10-24T15:10:00Z'), end: at('2026-10-26T16:00:00Z') };
  for (const zone of ['UTC', 'Europe/Berlin', 'Pacific/Apia', 'America/New_York']) {
    expect(windowStarts('hour', range, zone), zone).toEqual({ ok: true, starts: null });
  }
  expect(formatInstant(windowEnd(range.start, range, null))).toBe('2026-10-24T16:00:00.000Z');
  expect(tornHours(range, null)).toEqual([at('2026-10-24T15:00:00Z')]);
});

test('days and hours of zones that are half or three quarters of an hour from UTC begin within UTC hours', () => {
  // Kolkata is UTC+5:30, Kathmandu UTC+5:45.
  check(
    'day',
    '2026-11-20T18:30:00Z',
    '2026-11-22T18:30:00Z',
    'Asia/Kolkata',
    ['2026-11-20T18:30/2026-11-21T18:30', '2026-11-21T18:30/2026-11-22T18:30'],
    16,
  );
  check(
    'hour',
    '2026-11-20T00:00:00Z',
    '2026-11-20T02:00:00Z',
    'Asia/Kathmandu',
    [
      '2026-11-20T00:00/2026-11-20T00:15',
      '2026-11-20T00:15/2026-11-20T01:15',
      '2026-11-20T01:15/2026-11-20T02:00',
    ],
    16,
  );
  const range = { start: at('2026-11-20T18:30:00Z'), end: at('2026-11-22T18:30:00Z') };
  const windows = windowStarts('day', range, 'Asia/Kolkata');
  expect(windows.ok && tornHours(range, windows.starts)).toEqual(
    ['2026-11-20T18:00:00Z', '2026-11-21T18:00:00Z', '2026-11-22T18:00:00Z'].map(at),
  );
});

test('where clocks change by half an hour, the hour before the change is one and a half long', () => {
  // Lord Howe Island: on 5 April 2026 at 02:00 (UTC+11) clocks go back to 01:30 (UTC+10:30), at 15:00 UTC the day
  // before; on 4 October 2026 at 02:00 (UTC+10:30) on to 02:30 (UTC+11), at 15:30 UTC the day before.
  check(
    'hour',
    '2026-04-04T14:00:00Z',
    '2026-04-04T17:30:00Z',
    'Australia/Lord_Howe',
    [
      '2026-04-04T14:00/2026-04-04T15:30',
      '2026-04-04T15:30/2026-04-04T16:30',
      '2026-04-04T16:30/2026-04-04T17:30',
    ],
    16,
  );
  check(
    'hour',
    '2026-10-03T13:30:00Z',
    '2026-10-03T17:00:00Z',
    'Australia/Lord_Howe',
    [
      '2026-10-03T13:30/2026-10-03T14:30',
      '2026-10-03T14:30/2026-10-03T16:00',
      '2026-10-03T16:00/2026-10-03T17:00',
    ],
    16,
  );
  check(
    'day',
    '2026-04-03T13:00:00Z',
    '2026-04-05T13:30:00Z',
    'Australia/Lord_Howe',
    ['2026-04-03T13:00/2026-04-04T13:00', '2026-04-04T13:00/2026-04-05T13:30'],
    16,
  );
});

test('an empty or too long range is refused, with how long it may be', () => {
  const refuses = (size: WindowSize, from: string, to: string, timezone: string, daysMax: number) =>
    expect(windowStarts(size, { start: at(from), end: at(to) }, timezone)).toEqual({ ok: false, daysMax });
  refuses('day', '2026-11-20T00:00:00Z', '2026-11-20T00:00:00Z', 'UTC', 1_830);
  refuses('hour', '2025-01-01T00:00:00Z', '2026-11-20T00:00:00Z', 'UTC', 400);
  // Every hour of it is read event by event, and named in the query.
  refuses('hour', '2026-01-01T00:00:00Z', '2026-11-20T00:00:00Z', 'Asia/Kolkata', 93);
  refuses('hour', '2026-08-01T00:00:00Z', '2026-11-20T00:00:00Z', 'Australia/Lord_Howe', 93);
});

test('five years of days are 1,826 windows without a gap', () => {
  const range = { start: at('2022-01-01T05:00:00Z'), end: at('2027-01-01T05:00:00Z') };
  const windows = windowStarts('day', range, 'America/New_York');
  if (!windows.ok || windows.starts === null) throw new Error('no list of windows');
  expect(windows.starts.length).toBe(5 * 365 + 1);
  const hours = windows.starts.map((start) => (windowEnd(start, range, windows.starts) - start) / HOUR_MS);
  expect(hours.filter((length) => length === 23)).toHaveLength(5);
  expect(hours.filter((length) => length === 25)).toHaveLength(5);
  expect(hours.every((length) => length >= 23 && length <= 25)).toBe(true);
});

test('without a range it is the current month of the zone, up to the end of the window of now', () => {
  const now = at('2026-10-31T23:30:00Z');
  const preset = (size: WindowSize, zone: string) => {
    const { start, end } = defaultRange(size, now, zone);
    return [
      formatInstant(start).slice(0, 16).replace(':00', ''),
      formatInstant(end).slice(0, 16).replace(':00', ''),
    ];
  };
  expect(preset('total', 'UTC')).toEqual(['2026-10-01T00', '2026-11-01T00']);
  expect(preset('hour', 'UTC')).toEqual(['2026-10-01T00', '2026-11-01T00']);
  // In Berlin November has begun half an hour ago.
  expect(preset('total', 'Europe/Berlin')).toEqual(['2026-10-31T23', '2026-11-01T00']);
  expect(preset('day', 'Europe/Berlin')).toEqual(['2026-10-31T23', '2026-11-01T23']);
  expect(preset('month', 'Europe/Berlin')).toEqual(['2026-10-31T23', '2026-11-30T23']);
  expect(preset('hour', 'Asia/Kolkata')).toEqual(['2026-10-31T18:30', '2026-11-01T00:30']);
  expect(preset('day', 'Asia/Kolkata')).toEqual(['2026-10-31T18:30', '2026-11-01T18:30']);
});

test('zones are those of the IANA database', () => {
  for (const zone of ['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires', 'Etc/GMT+3']) {
    expect(isTimezone(zone), zone).toBe(true);
  }
  for (const zone of ['', 'Berlin', '+02:00', "UTC'", 'Europe/Nowhere', 'x'.repeat(100), 'Europe/Berlin\0']) {
    expect(isTimezone(zone), zone).toBe(false);
  }
});
