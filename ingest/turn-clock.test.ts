import { expect, test } from 'vitest';
import { TurnClock } from './turn-clock.ts';

test('the clocks are looked at once a turn, and anew in the next', () => {
  let looks = 0;
  let ms = 100;
  const ends: (() => void)[] = [];
  const clock = new TurnClock({
    now: () => ((looks += 1), 1_000 + ms),
    elapsed: () => ms,
    defer: (run) => void ends.push(run),
  });
  expect(looks).toBe(0);
  expect([clock.now(), clock.elapsed()]).toEqual([1_100, 100]);
  ms = 105;
  expect([clock.elapsed(), clock.now()]).toEqual([100, 1_100]);
  expect([looks, ends.length]).toEqual([1, 1]);
  ends.pop()!();
  expect([clock.elapsed(), clock.now()]).toEqual([105, 1_105]);
  expect([looks, ends.length]).toEqual([2, 1]);
});
