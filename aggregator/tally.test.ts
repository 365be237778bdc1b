import { expect, test } from 'vitest';
import { Tally, type Counter } from './tally.ts';
import { CONFLICT, COUNTED, DUPLICATE, REJECTED } from './verdict.ts';

const block = {
  tenants: ['acme', 'rival'],
  tenantOf: Uint32Array.of(0, 1, 0, 0, 1),
  refused: Uint8Array.of(0, 0, 0, 2, 0),
};
const verdicts = Uint8Array.of(COUNTED, COUNTED, DUPLICATE, REJECTED, CONFLICT);

const told = (counters: readonly Counter[]): string[] =>
  counters
    .map(({ tenant, verdict, code, count }) => `${tenant} ${verdict || 'received'} ${code} ${count}`)
    .sort();

test('every event is received once and has one verdict, whatever is read again', () => {
  const tally = new Tally();
  tally.countBlock(block, verdicts, 1);
  const once = [
    'acme counted  1',
    'acme duplicate  1',
    'acme received  3',
    'acme rejected meter_value_not_a_number 1',
    'rival conflict  1',
    'rival counted  1',
    'rival received  2',
  ];
  expect(told(tally.takeChanged())).toEqual(once);
  tally.countBlock(block, verdicts, 1);
  expect(tally.takeChanged()).toEqual([]);
  tally.countBlock(block, verdicts, 2);
  expect(told(tally.takeChanged())).toEqual(
    once.map((line) => line.replace(/\d$/, (n) => String(Number(n) * 2))),
  );
});

test('an unreadable message is one event of no tenant', () => {
  const tally = new Tally();
  tally.countUnreadable(7);
  tally.countUnreadable(7);
  expect(told(tally.takeChanged())).toEqual([' received  1', ' rejected block_unreadable 1']);
});
