import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BACKFILL_CHANGES, overlaps, type Backfill, type BackfillChange } from '../contract/backfill.ts';
import type { Meter } from '../contract/meter.ts';
import { HOUR_MS } from '../contract/window.ts';
import { epochOf, MeterRegistry, readShared } from './registry.ts';

const NOW_MS = 1_000_000 * HOUR_MS;
const tenant = 'acme';
const first: Meter = { key: 'm', eventType: 't', aggregation: 'count', valueProperty: null, groupBy: [] };
const second: Meter = { ...first, version: 2, effectiveFromMs: NOW_MS + 10 * HOUR_MS, groupBy: ['g'] };

function registry(): MeterRegistry {
  const made = new MeterRegistry();
  for (const meter of [first, second, { ...first, key: 'other' }])
    expect(made.define({ tenant, meter }, NOW_MS)).toBe('new');
  return made;
}

const hours = (id: string, from: number, to: number, more: Partial<Backfill> = {}): Backfill => ({
  ...{ id, meter: 'm', version: 1, fromMs: NOW_MS + from * HOUR_MS, toMs: NOW_MS + to * HOUR_MS },
  ...more,
});

/** The version of `m` that an hour has. */
function versionAt(of: MeterRegistry, hour: number): number {
  const meters = readShared(of.shared()).get(tenant)!.get('t')!;
  const epoch = meters.epochs[epochOf(meters, NOW_MS / HOUR_MS + hour)]!;
  return epoch.find(({ key }) => key === 'm')!.version ?? 1;
}

const change = (of: MeterRegistry, kind: BackfillChange, backfill: Backfill): string =>
  of.changeBackfill({ tenant, change: kind, backfill }, NOW_MS);

test('the hours of a committed backfill have its version, and no others, until it is reverted', () => {
  const of = registry();
  const one = hours('a', -5, -2, { version: 2 });
  const versions = (): number[] => [-6, -5, -3, -2, 9, 10].map((hour) => versionAt(of, hour));
  expect(change(of, 'proposed', one)).toBe('new');
  expect(versions()).toEqual([1, 1, 1, 1, 1, 2]);
  expect(change(of, 'committed', one)).toBe('new');
  expect(versions()).toEqual([1, 2, 2, 1, 1, 2]);
  expect(change(of, 'reverted', one)).toBe('new');
  expect(versions()).toEqual([1, 1, 1, 1, 1, 2]);
});

test.each<[string, BackfillChange, Backfill]>([
  ['a version that is not in the log', 'proposed', hours('x', -2, -1, { version: 3 })],
  ['a meter that is not in the log', 'proposed', hours('x', -2, -1, { meter: 'unheard_of' })],
  ['hours to come', 'proposed', hours('x', -1, 2)],
  ['a commit of what was not proposed', 'committed', hours('x', -2, -1)],
  ['a revert of what was not committed', 'reverted', hours('a', -5, -2)],
  ['a commit of other hours than were proposed', 'committed', hours('a', -5, -3)],
])('%s changes nothing', (_, kind, backfill) => {
  const of = registry();
  expect(change(of, 'proposed', hours('a', -5, -2))).toBe('new');
  expect(change(of, kind, backfill)).toBe('contradicts');
});

const anyBackfill = fc
  .record({
    id: fc.nat(5),
    meter: fc.constantFrom('m', 'other'),
    from: fc.integer({ min: -9, max: -1 }),
    length: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ id, meter, from, length }) => hours(`b${id}`, from, Math.min(0, from + length), { meter }));
const anyChange = fc.record({ change: fc.constantFrom(...BACKFILL_CHANGES), backfill: anyBackfill });

test('no two committed backfills of a meter hold an hour, and what is told again changes nothing', () => {
  fc.assert(
    fc.property(fc.array(anyChange, { maxLength: 40 }), (changes) => {
      const of = registry();
      const held = new Map<string, Backfill>();
      const taken: typeof changes = [];
      for (const { change: kind, backfill } of changes) {
        if (change(of, kind, backfill) !== 'new') continue;
        taken.push({ change: kind, backfill });
        if (kind === 'committed') {
          expect([...held.values()].filter((other) => overlaps(other, backfill))).toEqual([]);
          held.set(backfill.id, backfill);
        }
        if (kind === 'reverted') expect(held.delete(backfill.id)).toBe(true);
      }
      // Loaded from the tables it is the same, and a log that is read again says nothing new.
      const loaded = registry();
      for (const one of taken) loaded.loadBackfill({ tenant, ...one });
      expect(readShared(loaded.shared())).toEqual(readShared(of.shared()));
      for (const one of taken) expect(change(loaded, one.change, one.backfill)).toBe('same');
    }),
  );
});
