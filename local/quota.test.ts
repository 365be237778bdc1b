import { expect, test } from 'vitest';
import { askedOf, quotaAfter } from './quota.ts';

test.each([
  ['acme', { events: undefined, bytes: undefined }],
  ['acme --events 5', { events: 5, bytes: undefined }],
  ['acme --events=5 --bytes none', { events: 5, bytes: null }],
  ['--bytes 9007199254740991 acme', { events: undefined, bytes: 9_007_199_254_740_991 }],
  ['acme --events default --bytes default', { events: 'default', bytes: 'default' }],
])('%s is understood', (line, expected) => {
  expect(askedOf(line.split(' '))).toEqual({ tenant: 'acme', ...expected });
});

test.each([
  '',
  'a b',
  'a --events',
  'a --events 0',
  'a --events -1',
  'a --bytes 1.5',
  'a --bytes 9007199254740992',
  'a --x',
])('%j is not', (line) => {
  expect(askedOf(line.split(' ').filter((word) => word !== ''))).toHaveProperty('mistake');
});

const PRESENT = { eventsPerSecond: 10, bytesPerSecond: null };

test.each([
  [{ events: 5 as const, bytes: 6 as const }, null, { eventsPerSecond: 5, bytesPerSecond: 6 }],
  [{ events: 5, bytes: undefined }, PRESENT, { eventsPerSecond: 5, bytesPerSecond: null }],
  [{ events: undefined, bytes: 6 }, PRESENT, { eventsPerSecond: 10, bytesPerSecond: 6 }],
  [{ events: null, bytes: undefined }, PRESENT, { eventsPerSecond: null, bytesPerSecond: null }],
])('%j over %j is %j', (said, present, after) => {
  expect(quotaAfter({ tenant: 'acme', ...said }, present)).toEqual(after);
});

test('half a quota is none: what the other half would be is not known here', () => {
  expect(quotaAfter({ tenant: 'acme', events: 5, bytes: undefined }, null)).toHaveProperty('mistake');
});

test('the default takes it away', () => {
  expect(quotaAfter({ tenant: 'acme', events: 'default', bytes: 'default' }, PRESENT)).toBeNull();
});
