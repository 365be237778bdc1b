import { expect, test } from 'vitest';
import { failureOf, summaryOf, totalsOf } from './report.ts';
import { FaultFailure, type RowResult } from './run.ts';

const row = (name: string, skipped: string | null = null): RowResult => ({
  name,
  holds: '',
  rounds: skipped === null ? 20 : 0,
  events: skipped === null ? 1_000 : 0,
  seconds: 10,
  skipped,
});
const asked = { seed: 7, from: 1, rounds: 20 };

test('a run in which everything held says so', () => {
  const results = [row('edge-kill'), row('nats-disk-full', 'no root here')];
  expect(summaryOf(totalsOf(results, 25), results, [])).toBe(
    'all held: 20 rounds, 1000 events, 25 s; 1 rows were SKIPPED\n',
  );
});

test('a run in which rows failed names each of them, its round and the command that does it again', () => {
  const results = [row('edge-kill')];
  const again = 'npm run faults -- --only nats-kill --seed 7 --from 13 --rounds 1';
  const broken = new FaultFailure('nats-kill, round 13, seed 7: 2 events are missing\n  and more', {
    round: 13,
    again,
    cause: null,
  });
  const failures = [
    failureOf(broken, { row: 'nats-kill', ...asked }),
    failureOf('no engine started', { row: 'poison', ...asked }),
  ];
  expect(summaryOf(totalsOf(results, 25), results, failures).split('\n')).toEqual([
    '1 rows held: 20 rounds, 1000 events, 25 s',
    'FAILED: 2 rows',
    '  nats-kill, round 13: nats-kill, round 13, seed 7: 2 events are missing',
    `    again: ${again}`,
    '  poison: no engine started',
    '    again: npm run faults -- --only poison --seed 7 --from 1 --rounds 20',
    '',
  ]);
});
