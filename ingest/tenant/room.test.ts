import { expect, test } from 'vitest';
import { Account } from './account.ts';
import { Room } from './room.ts';

const room = (requests: number, bytes: number): Room =>
  new Room({ requestsInFlightMax: requests, bytesInFlightMax: bytes });

test('one tenant takes half of the room at most, and the others find the other half', () => {
  const shared = room(10, 1_000);
  const [greedy, modest] = [new Account('greedy'), new Account('modest')];
  let entered = 0;
  while (shared.enter(greedy, 10)) entered += 1;
  expect(entered).toBe(5);
  expect(shared.enter(modest, 500)).toBe(true);
  expect(shared.enter(modest, 500)).toBe(false);
});

test('a body larger than a share goes in alone, and only while nothing else of its tenant is in', () => {
  const shared = room(10, 1_000);
  const one = new Account('one');
  expect(shared.enter(one, 900)).toBe(true);
  expect(shared.enter(one, 1)).toBe(false);
  shared.leave(one, 900);
  expect(shared.enter(one, 1)).toBe(true);
  expect(shared.enter(one, 900)).toBe(false);
  expect(shared.enter(new Account('other'), 1_001)).toBe(false);
});

test('what is refused changes nothing, and what leaves gives back what it took', () => {
  const shared = room(4, 100);
  const one = new Account('one');
  expect(shared.enter(one, 40)).toBe(true);
  expect(shared.more(one, 61)).toBe(false);
  expect(shared.more(one, 10)).toBe(true);
  expect([shared.requests, shared.bytes, one.requests, one.bytes]).toEqual([1, 50, 1, 50]);
  shared.leave(one, 50);
  expect([shared.requests, shared.bytes, one.requests, one.bytes]).toEqual([0, 0, 0, 0]);
});

test('whoever waits for an empty room is told once it is', async () => {
  const shared = room(4, 100);
  await shared.empty();
  const one = new Account('one');
  shared.enter(one, 1);
  shared.enter(one, 1);
  let empty = false;
  const waiting = shared.empty().then(() => (empty = true));
  shared.leave(one, 1);
  await Promise.resolve();
  expect(empty).toBe(false);
  shared.leave(one, 1);
  await waiting;
});
