import { describe, expect, test } from 'vitest';
import { Refusal } from './error.ts';
import { checkKey, fingerprint, replay } from './idempotency.ts';
import { State, answersKeptMs } from './state.ts';
import type { KeptAnswer } from './state.ts';

const asked = fingerprint('POST', '/v1/customers', { name: 'Ada', metadata: { a: '1', b: '2' } });
const kept: KeptAnswer = { key: 'k', at: 1_000, fingerprint: asked, request: 'req_1', status: 500, body: {} };

describe('idempotency keys', () => {
  test('the order of parameters does not matter, everything else does', () => {
    const same = fingerprint('POST', '/v1/customers', { metadata: { b: '2', a: '1' }, name: 'Ada' });
    expect(same).toBe(asked);
    const others = [
      fingerprint('POST', '/v1/invoices', { name: 'Ada', metadata: { a: '1', b: '2' } }),
      fingerprint('POST', '/v1/customers', { name: 'Ada', metadata: { a: '2', b: '1' } }),
      fingerprint('POST', '/v1/customers', { name: 'Ada' }),
    ];
    for (const other of others) expect(other).not.toBe(asked);
  });

  test('a kept answer is given again, a 500 too', () => {
    expect(replay(kept, asked)).toBe(kept);
    expect(replay(undefined, asked)).toBeUndefined();
  });

  test('the same key for another request is an idempotency_error', () => {
    try {
      replay(kept, 'other');
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(Refusal);
      expect((error as Refusal).details).toMatchObject({ status: 400, type: 'idempotency_error' });
    }
  });

  test('a key is forgotten after 24 hours and has at most 255 characters', () => {
    const state = new State();
    state.apply({ at: kept.at, answer: kept });
    state.expire(kept.at + answersKeptMs - 1);
    expect(state.answers.has('k')).toBe(true);
    state.expire(kept.at + answersKeptMs);
    expect(state.answers.has('k')).toBe(false);
    expect(() => checkKey('k'.repeat(255))).not.toThrow();
    expect(() => checkKey('k'.repeat(256))).toThrow(Refusal);
  });
});
