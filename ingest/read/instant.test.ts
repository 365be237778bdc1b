import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseInstant } from '../../contract/window.ts';
import { InstantReader } from './instant.ts';

const two = fc.nat(99).map((value) => String(value).padStart(2, '0'));
const instant = fc
  .tuple(
    fc.constantFrom('2026', '2024', '2000', '2100', '1970', '1969', '0001'),
    two,
    two,
    two,
    two,
    two,
    fc.constantFrom('', '.5', '.123', '.1234', '.123456789', '.1234567890', '.'),
  )
  .map(
    ([year, month, day, hour, minute, second, fraction]) =>
      `${year}-${month}-${day}T${hour}:${minute}:${second}${fraction}`,
  );
const near = fc
  .tuple(
    fc.constantFrom('2026-11-21T08:', '2026-11-21t09:', '2026-11-21 09:', '2024-02-30T00:', '2024-02-29T00:'),
    fc.constantFrom('00', '30', '59', '60', '0x'),
    fc.constantFrom(':', '-'),
    fc.constantFrom('00', '59', '60', '61', 'x0'),
    fc.constantFrom('', '.5', '.250', '.000001', '.x', '.25x'),
  )
  .map((parts) => parts.join(''));
const zone = fc.constantFrom('Z', 'z', '', '+01:00', '-23:59', '+24:00', '+0100', '-00:60', 'Zx', '\u00e9');
const text = fc.tuple(fc.oneof(instant, near), zone).map((parts) => parts.join(''));

/** Between other bytes, which must not matter. */
function read(reader: InstantReader, one: string): number | null {
  const bytes = Buffer.from(`9${one}9`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const timeMs = reader.read(view, 1, bytes.length - 1);
  return Number.isNaN(timeMs) ? null : timeMs;
}

test('it reads what parseInstant reads, whatever it read before', () => {
  const reader = new InstantReader();
  fc.assert(
    fc.property(fc.array(fc.oneof(text, fc.string()), { maxLength: 10 }), (texts) => {
      for (const one of texts) expect(read(reader, one), one).toBe(parseInstant(one));
    }),
    { numRuns: 5_000 },
  );
});

test('it knows the days of every month from 1970 to 2400', () => {
  const reader = new InstantReader();
  for (let year = 1970; year <= 2400; year++) {
    for (let month = 1; month <= 12; month++) {
      for (const day of [0, 1, 28, 29, 30, 31, 32]) {
        const one = `${year}-${String(month).padStart(2, '0')}-${String(day).padStart(2, '0')}T23:00:00Z`;
        if (read(reader, one) !== parseInstant(one)) throw new Error(one);
      }
    }
  }
});

test('a reader that has read nothing knows no hour', () => {
  expect(read(new InstantReader(), `${'\0'.repeat(13)}:00:00Z`)).toBeNull();
});

test.each([
  ['2026-11-21T08:30:15Z', Date.UTC(2026, 10, 21, 8, 30, 15)],
  ['2026-11-21T08:30:15.250Z', Date.UTC(2026, 10, 21, 8, 30, 15, 250)],
  ['2026-11-21T08:30:15.2509999Z', Date.UTC(2026, 10, 21, 8, 30, 15, 250)],
  ['2026-11-21T08:59:60.250Z', Date.UTC(2026, 10, 21, 8, 59, 59, 250)],
  ['2026-11-21T08:30:15.25+01:30', Date.UTC(2026, 10, 21, 7, 0, 15, 250)],
  ['1970-01-01T00:30:00+01:00', -1_800_000],
  ['2026-11-21T08:60:00Z', null],
  ['2026-11-21T08:30:15.2x0Z', null],
  ['2026-02-29T08:30:15Z', null],
])('%s', (one, expected) => {
  expect(read(new InstantReader(), one)).toBe(expected);
});
