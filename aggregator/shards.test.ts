import { expect, test } from 'vitest';
import { parseShards } from './shards.ts';

test.each([
  ['all', [0, 1, 2, 3]],
  ['2', [2]],
  ['0-1,3', [0, 1, 3]],
  ['3,1-2,2', [1, 2, 3]],
  ['4', 'there is no shard 4: TALLYLINE_SHARDS is 4'],
  ['2-1', '"2-1" ends before it starts'],
  ['some', '"some" is no shard and no range of shards such as 0-1'],
])('%s', (text, expected) => {
  expect(parseShards(text, 4)).toEqual(expected);
});
