import { describe, expect, test } from 'vitest';
import { incarnationMismatch, purgeBefore, type StreamFacts, type Watermark } from './watermark.ts';

const watermark: Watermark = {
  incarnation: 1,
  sequence: 10,
  streamCreated: 'then',
  fingerprint: 'abc',
  acceptedAtMs: 0,
};
const stream: StreamFacts = {
  name: 'USAGE_0',
  created: 'then',
  firstSequence: 1,
  lastSequence: 12,
  fingerprint: 'abc',
};

describe('the stream is compared with the watermark', () => {
  const cases: readonly [string, Watermark | null, number, Partial<StreamFacts>, RegExp | null][] = [
    ['the same log', watermark, 12, {}, null],
    [
      'the same log, purged up to the watermark',
      watermark,
      10,
      { firstSequence: 11, fingerprint: null },
      null,
    ],
    ['nothing counted yet', null, 0, { fingerprint: null }, null],
    [
      'an empty stream, nothing counted',
      null,
      0,
      { firstSequence: 0, lastSequence: 0, fingerprint: null },
      null,
    ],
    ['made anew', watermark, 10, { created: 'now' }, /another stream/],
    ['its end was lost', watermark, 10, { lastSequence: 9, fingerprint: null }, /its end was lost/],
    ['its end was lost behind a flush without watermark', watermark, 13, {}, /its end was lost/],
    ['sequences were given again', watermark, 10, { fingerprint: 'xyz' }, /another message at 10/],
    ['purged beyond the watermark', watermark, 10, { firstSequence: 12, fingerprint: null }, /starts at 12/],
    ['its start is gone before anything was counted', null, 0, { firstSequence: 5 }, /its start is gone/],
    ['the watermark was deleted and the stream is another', null, 20, {}, /its end was lost/],
  ];
  test.each(cases)('%s', (_, mark, countedTo, facts, expected) => {
    const mismatch = incarnationMismatch(mark, countedTo, { ...stream, ...facts });
    if (expected === null) expect(mismatch).toBeNull();
    else expect(mismatch).toMatch(expected);
  });
});

describe('purge', () => {
  const cases: readonly [
    string,
    { bytes: number; bytesMax: number; messages: number },
    number,
    number,
    number,
  ][] = [
    ['not yet half full', { bytes: 500, bytesMax: 1_000, messages: 50 }, 40, 100, 0],
    ['keeps the margin behind the watermark', { bytes: 600, bytesMax: 1_000, messages: 60 }, 40, 100, 31],
    [
      'a margin larger than a quarter is a quarter',
      { bytes: 600, bytesMax: 1_000, messages: 60 },
      40,
      9_999,
      16,
    ],
    ['nothing is far enough behind', { bytes: 600, bytesMax: 1_000, messages: 60 }, 5, 100, 0],
    ['a stream without bound is never purged', { bytes: 600, bytesMax: -1, messages: 60 }, 40, 100, 0],
  ];
  test.each(cases)('%s', (_, facts, sequence, keepBytes, expected) => {
    expect(purgeBefore(facts, sequence, keepBytes)).toBe(expected);
  });
});
