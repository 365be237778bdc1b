import { expect, test } from 'vitest';
import type { Beginning } from './incarnation-rows.ts';
import { gapsOf } from './passed-over.ts';

const beginning = (incarnation: number, sequence: number, streamCreated = 'now'): Beginning => ({
  watermark: { incarnation, sequence, streamCreated, fingerprint: '', acceptedAtMs: 0 },
  sequenceBefore: 0,
  reason: '',
});

test('a hole lies between the beginning of an incarnation and the first message that it read', () => {
  const marks = new Map([
    [1, 1],
    [2, 8],
  ]);
  expect(gapsOf([beginning(1, 0), beginning(2, 4)], marks, 'now', 2)).toEqual([{ from: 5, to: 7 }]);
});

test('it stays passed over whatever begins behind it, also when its stream was purged meanwhile', () => {
  const marks = new Map([
    [2, 8],
    [3, 21],
  ]);
  const beginnings = [beginning(1, 0), beginning(2, 4), beginning(3, 20)];
  expect(gapsOf(beginnings, marks, 'now', 3)).toEqual([{ from: 5, to: 7 }]);
});

test('what begins in front of it reads it, or passes it over itself', () => {
  const marks = new Map([
    [2, 8],
    [3, 6],
  ]);
  const beginnings = [beginning(1, 0), beginning(2, 2), beginning(3, 4)];
  expect(gapsOf(beginnings, marks, 'now', 3)).toEqual([
    { from: 3, to: 4 },
    { from: 5, to: 5 },
  ]);
});

test('an incarnation that has read nothing has read nothing of a hole either, unless it is about to', () => {
  const marks = new Map([[2, 8]]);
  const beginnings = [beginning(1, 0), beginning(2, 2), beginning(3, 4)];
  expect(gapsOf(beginnings, marks, 'now', 3)).toEqual([{ from: 3, to: 4 }]);
  expect(gapsOf([...beginnings, beginning(4, 10)], marks, 'now', 4)).toEqual([{ from: 3, to: 7 }]);
  expect(gapsOf(beginnings, marks, 'now', null)).toEqual([{ from: 3, to: 7 }]);
});

test('another stream has nothing of it', () => {
  const marks = new Map([[2, 8]]);
  expect(gapsOf([beginning(1, 0, 'then'), beginning(2, 4, 'then')], marks, 'now', 2)).toEqual([]);
});
