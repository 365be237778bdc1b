import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseInstant } from '../contract/window.ts';
import { InstantReader } from './instant.ts';

const two = fc.nat(99).map((value) => String(value).padStart(2, '0'));
const instant = fc
  .tuple(
    fc.constantFrom('2026', '2024', '1969', '0001'),
    two,
    two,
    two,
    two,
    two,
    fc.constantFrom('', '.5', '.123', '.1234'),
  )
  .map(
    ([year, month, day, hour, minute, second, fraction]) =>
      `${year}-${month}-${day}T${hour}:${minute}:${second}${fraction}`,
  );
const near = fc
  .tuple(
    fc.constantFrom('2026-11-21T08:', '2026-11-21T09:', '2024-02-30T00:'),
    two,
    fc.constantFrom(':', '-'),
    two,
  )
  .map((parts) => parts.join(''));
const text = fc
  .tuple(fc.oneof(instant, near), fc.constantFrom('Z', 'z', '', '+01:00'))
  .map((parts) => parts.join(''));

test('it reads what parseInstant reads, whatever it read before', () => {
  const reader = new InstantReader();
  fc.assert(
    fc.property(fc.array(fc.oneof(text, fc.string()), { maxLength: 10 }), (texts) => {
      for (const one of texts) expect(reader.read(one), one).toBe(parseInstant(one));
    }),
    { numRuns: 2_000 },
  );
});

test.each([
  ['2026-11-21T08:30:15Z', Date.UTC(2026, 10, 21, 8, 30, 15)],
  ['2026-11-21T08:30:15.250Z', Date.UTC(2026, 10, 21, 8, 30, 15, 250)],
  ['2026-11-21T08:59:60.250Z', Date.UTC(2026, 10, 21, 8, 59, 59, 250)],
  ['2026-11-21T08:60:00Z', null],
  ['2026-11-21T08:30:15.2x0Z', null],
  ['2026-02-29T08:30:15Z', null],
])('%s', (one, expected) => {
  expect(new InstantReader().read(one)).toBe(expected);
});
