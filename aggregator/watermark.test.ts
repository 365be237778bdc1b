import { describe, expect, test } from 'vitest';
import { lossOf, purgeBefore, type CountedLog, type PresentLog } from './watermark.ts';

const mark = { sequence: 10, timeMs: 1_000, checksum: 7 };
const counted: CountedLog = {
  watermark: { incarnation: 1, sequence: 10, streamCreated: 'then', fingerprint: 'abc', acceptedAtMs: 0 },
  newest: mark,
  countedTo: 10,
  beganBehind: 0,
};
const stream: PresentLog = {
  name: 'USAGE_0',
  created: 'then',
  firstSequence: 1,
  lastSequence: 12,
  atNewest: mark,
  fingerprintAtWatermark: 'abc',
  hasNext: true,
};
const nothing: Partial<CountedLog> = {
  watermark: { ...counted.watermark, sequence: 0, fingerprint: '' },
  newest: null,
  countedTo: 0,
};
const gone = { atNewest: null, fingerprintAtWatermark: null };

describe('the stream is compared with what was counted of it', () => {
  const cases: readonly [string, Partial<CountedLog>, Partial<PresentLog>, RegExp | null][] = [
    ['the same log', {}, {}, null],
    ['the same log, read to its end', {}, { lastSequence: 10, hasNext: false }, null],
    ['the same log, purged up to the watermark', {}, { firstSequence: 11, ...gone }, null],
    ['nothing counted yet', nothing, gone, null],
    [
      'an empty stream, nothing counted',
      nothing,
      { firstSequence: 0, lastSequence: 0, ...gone, hasNext: false },
      null,
    ],
    ['made anew', {}, { created: 'now' }, /another stream/],
    ['made anew before anything was counted', nothing, { created: 'now', ...gone }, /another stream/],
    ['its end was lost', {}, { lastSequence: 9, ...gone }, /its end was lost/],
    [
      'its end was lost beyond the watermark',
      { newest: { ...mark, sequence: 13 } },
      gone,
      /its end was lost/,
    ],
    ['its end was lost, told by a counter only', { newest: null, countedTo: 13 }, {}, /its end was lost/],
    [
      'the same bytes, stored at another time',
      {},
      { atNewest: { ...mark, timeMs: 2_000 } },
      /another message at 10/,
    ],
    [
      'nothing was there where an incarnation began, and something in front of it is now',
      {
        watermark: { ...counted.watermark, fingerprint: '' },
        newest: null,
        beganBehind: 10,
      },
      { ...gone, firstSequence: 3 },
      /no message at 10, but starts at 3/,
    ],
    ['another message', {}, { atNewest: { ...mark, checksum: 8 } }, /another message at 10/],
    [
      'another message beyond the watermark',
      { newest: { ...mark, sequence: 11 } },
      { atNewest: { ...mark, sequence: 11, timeMs: 2_000 } },
      /another message at 11/,
    ],
    [
      'another message, and no mark is left to tell',
      { newest: null },
      { atNewest: null, fingerprintAtWatermark: 'xyz' },
      /another message at 10/,
    ],
    ['the message at the watermark is missing', {}, gone, /no message at 10/],
    ['purged beyond the watermark', {}, { firstSequence: 12, ...gone }, /starts at 12/],
    ['a hole behind the watermark', {}, { hasNext: false }, /no message at 11/],
    ['a hole at which the incarnation began', { beganBehind: 10 }, { hasNext: false }, null],
    ['purged up to where the incarnation began', { beganBehind: 10 }, { firstSequence: 12, ...gone }, null],
  ];
  test.each(cases)('%s', (_, tables, facts, expected) => {
    const loss = lossOf({ ...counted, ...tables }, { ...stream, ...facts });
    if (expected === null) expect(loss).toBeNull();
    else expect(loss).toMatch(expected);
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
    [
      'without a margin the message at the watermark stays',
      { bytes: 600, bytesMax: 1_000, messages: 60 },
      40,
      0,
      40,
    ],
    ['nothing is far enough behind', { bytes: 600, bytesMax: 1_000, messages: 60 }, 5, 100, 0],
    ['a stream without bound is never purged', { bytes: 600, bytesMax: -1, messages: 60 }, 40, 100, 0],
  ];
  test.each(cases)('%s', (_, facts, sequence, keepBytes, expected) => {
    expect(purgeBefore(facts, sequence, keepBytes)).toBe(expected);
  });
});
