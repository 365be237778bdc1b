import { expect, test } from 'vitest';
import { contradictionOf } from './stream-state.ts';

test.each([
  ['a new stream', { messages: 0, first_seq: 0, last_seq: 0 }, false],
  ['a stream with everything in it', { messages: 100, first_seq: 1, last_seq: 100 }, false],
  ['one that was purged up to its end', { messages: 0, first_seq: 101, last_seq: 100 }, false],
  ['one that was purged', { messages: 11, first_seq: 90, last_seq: 100 }, false],
  ['one with a hole', { messages: 99, first_seq: 1, last_seq: 100 }, false],
  ['one that begins again at 1', { messages: 89, first_seq: 1, last_seq: 0 }, true],
  ['one that goes on in its middle', { messages: 109, first_seq: 1, last_seq: 102 }, true],
  ['one that goes on in its middle after a purge', { messages: 12, first_seq: 90, last_seq: 100 }, true],
])('of the numbers of %s it is told whether they can be true', (_, state, contradicts) => {
  const told = contradictionOf('USAGE_0', state);
  expect(told === null).toBe(!contradicts);
  if (contradicts) expect(told).toContain(`${state.messages} messages`);
});
