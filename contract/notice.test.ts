import { expect, test } from 'vitest';
import { parseWatermarkRecord } from './notice.ts';

const fingerprint = 'ab'.repeat(32);

test.each<[string, object, boolean]>([
  ['of a message', { shard: 1, incarnation: 2, sequence: 7, fingerprint }, true],
  ['of a log with nothing in it', { shard: 1, incarnation: 2, sequence: 0, fingerprint: '' }, true],
  ['of a log whose start is purged', { shard: 1, incarnation: 2, sequence: 7, fingerprint: '' }, true],
  ['with half a fingerprint', { shard: 1, incarnation: 2, sequence: 7, fingerprint: 'abcd' }, false],
  ['without an incarnation', { shard: 1, sequence: 7, fingerprint }, false],
  ['before the first message', { shard: 1, incarnation: 2, sequence: -1, fingerprint }, false],
])('a watermark record %s is sound or not', (_, record, sound) => {
  expect(parseWatermarkRecord(JSON.stringify(record))).toEqual(sound ? record : null);
});
