import { expect, test } from 'vitest';
import { Pace } from './pace.ts';

test('what took long rests long, up to the longest rest, and what took nothing does not rest', () => {
  const rows: [what: string, share: number, tookMs: number, restMs: number][] = [
    ['nothing', 0.05, 0, 0],
    ['a short time', 0.05, 10, 190],
    ['half of the time', 0.5, 10, 10],
    ['longer than the rest may be', 0.05, 5_000, 60_000],
    ['a clock that was set back', 0.05, -5, 0],
  ];
  for (const [what, share, tookMs, restMs] of rows) {
    const pace = new Pace({ share, restMsMax: 60_000 });
    expect(pace.isDue(0), what).toBe(true);
    pace.done(1_000, 1_000 + tookMs);
    expect(Math.round(pace.restMs(1_000 + tookMs)), what).toBe(restMs);
    expect(pace.isDue(1_000 + tookMs + 61_000), what).toBe(true);
  }
  const pace = new Pace({ share: 0.05, restMsMax: 60_000 });
  pace.done(0, 10, 0.1);
  expect(Math.round(pace.restMs(10))).toBe(90);
});
