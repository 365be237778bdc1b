import { expect, test } from 'vitest';
import { AcknowledgedTotals, ENTRY_RESTS_MS } from './acknowledged.ts';

test('a total is told when it changed, until it was told', () => {
  const totals = new AcknowledgedTotals('edge');
  totals.add('acme', 3, 1);
  totals.add('acme', 0, 1);
  totals.add('other', 1, 1);
  const first = totals.untold(true, 10, 100);
  expect(first).toEqual([
    { tenant: 'acme', entry: 'edge-1', events: 3, isLogged: true, toldAtMs: 10 },
    { tenant: 'other', entry: 'edge-2', events: 1, isLogged: true, toldAtMs: 10 },
  ]);
  // It could not be told, and grows meanwhile.
  totals.add('acme', 4, 11);
  const second = totals.untold(true, 20, 100);
  expect(second.map(({ events }) => events)).toEqual([7, 1]);
  for (const one of second) totals.told(one);
  expect(totals.untold(true, 30, 100)).toEqual([]);
  // What was told late is not taken for the newest.
  totals.add('acme', 1, 31);
  totals.told(first[0]!);
  expect(totals.untold(true, 40, 100).map(({ events }) => events)).toEqual([8]);
});

test('while the journal alone has something, that is told too, and taken back', () => {
  const totals = new AcknowledgedTotals('edge');
  totals.add('acme', 3, 1);
  for (const one of totals.untold(false, 10, 100)) totals.told(one);
  expect(totals.untold(false, 20, 100)).toEqual([]);
  expect(totals.untold(true, 30, 100)).toMatchObject([{ events: 3, isLogged: true }]);
});

test('an entry that has rested ends, and no name comes twice', () => {
  const totals = new AcknowledgedTotals('edge');
  totals.add('acme', 3, 1);
  expect(totals.untold(true, ENTRY_RESTS_MS + 1, 100)).toHaveLength(1);
  expect(totals.tenants).toBe(1);
  for (const one of totals.untold(true, ENTRY_RESTS_MS + 1, 100)) totals.told(one);
  expect(totals.untold(true, ENTRY_RESTS_MS + 2, 100)).toEqual([]);
  expect(totals.tenants).toBe(0);
  totals.add('acme', 2, ENTRY_RESTS_MS + 3);
  expect(totals.untold(true, ENTRY_RESTS_MS + 3, 100)).toMatchObject([{ entry: 'edge-2', events: 2 }]);
});

test('with more tenants than a turn tells, everybody has a turn', () => {
  const totals = new AcknowledgedTotals('edge');
  const seen = new Set<string>();
  for (let tenant = 0; tenant < 10; tenant++) totals.add(`t${tenant}`, 1, 1);
  for (let turn = 0; turn < 5; turn++) {
    totals.add('t0', 1, 1);
    totals.add('t1', 1, 1);
    for (const one of totals.untold(true, 2, 3)) {
      seen.add(one.tenant);
      totals.told(one);
    }
  }
  expect(seen.size).toBe(10);
});
