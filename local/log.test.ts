import { expect, test } from 'vitest';
import { replacementOf, told } from './log.ts';

test.each<[string[], unknown]>([
  [['replace', '--shard', '3'], { shard: 3, yes: false }],
  [['replace', '--shard', '0', '--yes'], { shard: 0, yes: true }],
  [['replace'], { mistake: '--shard is a number from 0 to 1023' }],
  [['replace', '--shard', '1024'], { mistake: '--shard is a number from 0 to 1023' }],
  [['replace', '--shard', '1e2'], { mistake: '--shard is a number from 0 to 1023' }],
  [['replace', '--shard', ''], { mistake: '--shard is a number from 0 to 1023' }],
  [['--shard', '1'], { mistake: 'the command is: log replace' }],
  [['remove', '--shard', '1', '--yes'], { mistake: 'the command is: log replace' }],
  [['replace', 'now', '--shard', '1'], { mistake: 'the command is: log replace' }],
])('%j asks for one shard, or is refused', (args, expected) => {
  expect(replacementOf(args)).toEqual(expected);
});

const stream = {
  created: '2026-11-21T18:00:00Z',
  firstSequence: 1,
  lastSequence: 110,
  messages: 109,
  subjects: ['usage.0'],
  bytesMax: 1_000_000,
  replicas: 1,
  contradiction: null,
};
const counted = {
  incarnation: 1,
  sequence: 89,
  streamCreated: stream.created,
  acceptedAt: '2026-11-21T18:10:00Z',
};

test('a look says what would be done, and from when on producers have to send again', () => {
  const text = told({ name: 'USAGE_0', stream, counted, refusal: null }, 0, false);
  expect(text).toContain('nothing was changed: npx tallyline log replace --shard 0 --yes');
  expect(text).toContain('since a minute before 2026-11-21T18:10:00Z, with the same ids');
});

test('a refusal says why, and offers nothing', () => {
  const text = told({ name: 'USAGE_0', stream, counted, refusal: 'it is being counted' }, 0, true);
  expect(text).toContain('It is not replaced: it is being counted.');
  expect(text).not.toContain('--yes');
  expect(text).not.toContain('taken away');
});
