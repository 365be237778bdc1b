import { describe, expect, test } from 'vitest';
import { idempotencyKey, mustSearch } from './key.ts';
import type { Intent } from './store.ts';

test('a key says what it is for, and its generation from the second on', () => {
  expect(idempotencyKey('out-1', 'customer', 1)).toBe('out-1/customer');
  expect(idempotencyKey('out-1', 'line/l7', 3)).toBe('out-1/line/l7/3');
  expect(() => idempotencyKey('x'.repeat(250), 'finalize', 1)).toThrow(/259 characters/);
});

describe('mustSearch', () => {
  const day = 24 * 3_600_000;
  const keyLifeMs = day - 3_600_000;
  const intent: Intent = {
    idempotencyBase: 'out-1',
    generation: 1,
    generationAtMs: 0,
    keySpent: false,
    searchSinceMs: 0,
    stripeId: null,
    fresh: false,
  };
  test.each<[string, Partial<Intent>, number, number, boolean]>([
    ['a first attempt, just issued', { fresh: true }, 0, 1_000, false],
    ['nobody remembers an attempt at an old invoice', { fresh: true }, 0, day, true],
    ['a key that still lives is used again', {}, 0, keyLifeMs - 1, false],
    ['a key that Stripe may have forgotten', {}, 0, keyLifeMs, true],
    ['a key that answers with a stored failure', { keySpent: true }, 0, 1_000, true],
    ['a new generation lives by its own age', { generationAtMs: 5 * day }, 0, 5 * day + 1, false],
  ])('%s', (_, change, issuedAtMs, nowMs, expected) => {
    expect(mustSearch({ ...intent, ...change }, { issuedAtMs, nowMs, keyLifeMs })).toBe(expected);
  });
});
