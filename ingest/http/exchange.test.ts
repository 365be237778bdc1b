import type { HttpResponse } from 'uWebSockets.js';
import { expect, test } from 'vitest';
import { Account } from '../tenant/account.ts';
import { Exchange, PACE_BYTES_PER_SECOND, Waiting } from './exchange.ts';

const account = new Account('acme');
const exchangeAt = (startedMs: number): Exchange =>
  new Exchange({} as HttpResponse, account, 'json', 'identity', 'tallyline', 0, startedMs);

/** Passes so many bytes a second, looked at every second; how many seconds until it is too slow, or null. */
function secondsUntilSlow(exchange: Exchange, bytesPerSecond: number, startMs: number): number | null {
  for (let second = 1; second <= 60; second++) {
    exchange.passed += bytesPerSecond;
    if (exchange.isTooSlow(startMs + second * 1_000)) return second;
  }
  return null;
}

test('a client has seven seconds to show its pace, before the library ends it without a word', () => {
  expect(secondsUntilSlow(exchangeAt(500), 0, 500)).toBe(7);
  expect(secondsUntilSlow(exchangeAt(500), PACE_BYTES_PER_SECOND - 1, 500)).toBe(7);
  expect(secondsUntilSlow(exchangeAt(500), PACE_BYTES_PER_SECOND, 500)).toBeNull();
});

test('a client that slows down later is found, too, while it sends and while it reads', () => {
  const exchange = exchangeAt(0);
  expect(secondsUntilSlow(exchange, 1_000_000, 0)).toBeNull();
  expect(secondsUntilSlow(exchange, 10, 60_000)).toBeLessThanOrEqual(14);
  exchange.answers(200_000);
  expect(exchange.phase).toBe('answering');
  expect(secondsUntilSlow(exchange, 10, 200_000)).toBe(7);
});

test('those that wait are seen in their order, and may leave while they are seen', () => {
  const waiting = new Waiting();
  const [first, second, third, fourth] = [0, 1, 2, 3].map(exchangeAt) as [
    Exchange,
    Exchange,
    Exchange,
    Exchange,
  ];
  const seen = (): number[] => {
    const order: number[] = [];
    waiting.each(({ startedMs }) => order.push(startedMs));
    return order;
  };
  expect(seen()).toEqual([]);
  for (const exchange of [first, second, third, fourth]) waiting.add(exchange);
  expect(seen()).toEqual([0, 1, 2, 3]);
  waiting.each((exchange) => {
    if (exchange === first || exchange === third) waiting.delete(exchange);
  });
  expect(seen()).toEqual([1, 3]);
  waiting.delete(fourth);
  waiting.add(first);
  expect(seen()).toEqual([1, 0]);
  waiting.delete(second);
  waiting.delete(first);
  expect(seen()).toEqual([]);
  waiting.add(third);
  expect(seen()).toEqual([2]);
});
