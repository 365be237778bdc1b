import { expect, test } from 'vitest';
import type { Totals } from '../contract/rollup.ts';
import { HOUR_MS } from '../contract/window.ts';
import type { Customer } from './customers.ts';
import { KnownUsage, type UsageRow } from './known-usage.ts';

const NOON = Date.UTC(2026, 10, 22, 12);
const PERIOD = { start: Date.UTC(2026, 10, 1), end: Date.UTC(2026, 11, 1) };
const OPEN = NOON - HOUR_MS;
const customer = (o: Partial<Customer> = {}): Customer => ({
  tenant: 't',
  id: 'acme',
  name: 'Acme',
  currency: 'USD',
  subjects: ['s'],
  planKey: 'pro',
  planVersion: 1,
  anchorMs: PERIOD.start,
  createdAtMs: PERIOD.start,
  ...o,
});
const totals = (count: number): Totals => ({
  count: BigInt(count),
  sum: BigInt(count * 10),
  min: 1n,
  max: 9n,
  latest: 5n,
  latestTimeMs: NOON,
  latestPosition: 1n,
});
const row = (position: number, count: number, o: Partial<UsageRow> = {}): UsageRow => ({
  meter: 'calls',
  subject: 's',
  hourMs: NOON,
  place: '0 []',
  position: BigInt(position),
  totals: totals(count),
  ...o,
});
const at = (...positions: number[]): Map<number, bigint> =>
  new Map(positions.map((position, shard) => [shard, BigInt(position)]));
const acme = customer();

/** Knows acme, with 100 calls in closed hours and 1 at position 10. */
function knownAcme(o?: { rowsMax: number }): KnownUsage {
  const known = new KnownUsage(o);
  known.begin(at(10), NOON);
  known.put(acme, PERIOD, {
    openFromMs: known.openFrom(PERIOD, NOON)!,
    closed: new Map([['calls', totals(100)]]),
    rows: [row(10, 1)],
    nowMs: NOON,
  });
  known.end(at(10));
  return known;
}
const calls = (known: KnownUsage): bigint | undefined => known.totals(acme, PERIOD)?.get('calls')?.count;

test('of two versions of a row the one with the higher position holds, in whatever order they are told', () => {
  const known = knownAcme();
  expect(calls(known)).toBe(101n);
  known.tell(acme, PERIOD, [row(30, 7), row(20, 4), row(30, 7)]);
  known.tell(acme, PERIOD, [row(25, 6)]);
  expect(calls(known)).toBe(107n);
  // Another shard, group or hour is another row; one in which nothing is left adds nothing.
  known.tell(acme, PERIOD, [row(31, 2, { place: '1 []' }), row(32, 3, { hourMs: OPEN }), row(33, 0)]);
  expect(calls(known)).toBe(105n);
  expect(known.rows).toBe(3);
});

test('an account is unknown once a row of a closed hour changes', () => {
  const known = knownAcme();
  known.tell(acme, PERIOD, [row(30, 7), row(31, 2, { hourMs: OPEN - HOUR_MS })]);
  expect(calls(known)).toBeUndefined();
  expect(known.rows).toBe(0);
});

test('a customer with other terms, and another period, are unknown', () => {
  const known = knownAcme();
  expect(known.has(acme, PERIOD)).toBe(true);
  expect(known.has(customer({ name: 'Acme Inc.' }), PERIOD)).toBe(true);
  for (const other of [{ subjects: ['s', 's2'] }, { planVersion: 2 }, { anchorMs: 0 }, { tenant: 'u' }])
    expect(known.has(customer(other), PERIOD), JSON.stringify(other)).toBe(false);
  expect(known.has(acme, { start: PERIOD.end, end: PERIOD.end + HOUR_MS })).toBe(false);
});

test('everything is forgotten when a watermark goes back, a shard comes or goes, and within an hour', () => {
  const rows: [string, Map<number, bigint>, number, boolean][] = [
    ['goes on', at(11), NOON + HOUR_MS - 1, true],
    ['goes back', at(9), NOON, false],
    ['a shard comes', at(10, 1), NOON, false],
    ['all shards are gone', at(), NOON, false],
    ['after an hour', at(10), NOON + HOUR_MS, false],
  ];
  for (const [what, watermarks, nowMs, isKnown] of rows) {
    const known = knownAcme();
    known.begin(watermarks, nowMs);
    expect(known.has(acme, PERIOD), what).toBe(isKnown);
    expect(known.rows, what).toBe(isKnown ? 1 : 0);
  }
});

test('more rows than there is room for are not kept', () => {
  const known = knownAcme({ rowsMax: 2 });
  const rows = [row(10, 1), row(11, 2, { place: '1 []' })];
  const big = customer({ id: 'big' });
  const put = known.put(big, PERIOD, { openFromMs: OPEN, closed: new Map(), rows, nowMs: NOON });
  expect(put.get('calls')?.count).toBe(3n);
  expect(known.has(big, PERIOD)).toBe(false);
  expect(known.has(acme, PERIOD)).toBe(true);
  known.tell(acme, PERIOD, rows);
  expect(known.has(acme, PERIOD)).toBe(false);
});

test('rows are kept of the last hour on, and of no period that is over or has not begun', () => {
  const known = new KnownUsage();
  const rows: [number, number, number | null][] = [
    [PERIOD.start, PERIOD.end, OPEN],
    [NOON - 1, PERIOD.end, NOON - 1],
    [PERIOD.start, OPEN, null],
    [PERIOD.start, OPEN + 1, OPEN],
    [NOON + HOUR_MS, PERIOD.end, null],
  ];
  for (const [start, end, expected] of rows) expect(known.openFrom({ start, end }, NOON)).toBe(expected);
});
