import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { AdmittedEvent } from './event.ts';
import { Fields } from './fields.ts';
import { hashPayload } from './payload.ts';

const TIME = Date.UTC(2026, 10, 21);

function hash(data: unknown, more: Partial<AdmittedEvent> = {}): string {
  const fields = new Fields();
  expect(fields.read(data)).toBeNull();
  const event: AdmittedEvent = {
    tenant: 'acme',
    source: 's',
    id: 'e-1',
    type: 'llm.request',
    subject: 'cus_1',
    timeMs: TIME,
    timeGiven: true,
    fields,
    ...more,
  };
  const out = new Uint32Array(2);
  hashPayload(event, out);
  return `${out[0]}-${out[1]}`;
}

const entries = fc.uniqueArray(
  fc.tuple(
    fc.string({ minLength: 1, maxLength: 8 }).filter((key) => !key.includes('.') && key !== '__proto__'),
    fc.oneof(fc.maxSafeInteger(), fc.string(), fc.boolean(), fc.constant(null)),
  ),
  { selector: ([key]) => key, maxLength: 12 },
);

test('the order of keys does not matter', () => {
  fc.assert(
    fc.property(entries, fc.func(fc.integer()), (pairs, rank) => {
      const shuffled = [...pairs].sort((a, b) => rank(a[0]) - rank(b[0]));
      expect(hash(Object.fromEntries(shuffled))).toBe(hash(Object.fromEntries(pairs)));
    }),
  );
});

test('a time that the edge filled in does not matter, a given one does', () => {
  const a = hash({}, { timeGiven: false, timeMs: TIME });
  expect(hash({}, { timeGiven: false, timeMs: TIME + 5 })).toBe(a);
  expect(hash({}, { timeMs: TIME })).not.toBe(a);
  expect(hash({}, { timeMs: TIME + 1 })).not.toBe(hash({}, { timeMs: TIME }));
  expect(hash({}, { timeMs: TIME + 2 ** 32 })).not.toBe(hash({}, { timeMs: TIME }));
});

test('source and id are the identity and not the payload', () => {
  expect(hash({ a: 1 }, { source: 'x', id: 'y', tenant: 'z' })).toBe(hash({ a: 1 }));
});

test('a field says the same however its data is nested', () => {
  expect(hash({ a: { b: 1 } })).toBe(hash({ 'a.b': 1 }));
});

test('what differs has another fingerprint', () => {
  const all = [
    hash({}),
    hash({}, { type: 'llm.requests' }),
    hash({}, { subject: 'cus_2' }),
    hash({}, { type: 'cus_1', subject: 'llm.request' }),
    hash({ a: 1 }),
    hash({ a: 2 }),
    hash({ a: -1 }),
    hash({ a: 0.1 }),
    hash({ a: 0.01 }),
    hash({ a: '1' }),
    hash({ a: true }),
    hash({ a: 'true' }),
    hash({ a: null }),
    hash({ a: [] }),
    hash({ a: {} }),
    hash({ b: 1 }),
    hash({ a: 1, b: 1 }),
    hash({ a: 1, b: 2 }),
    hash({ a: 2, b: 1 }),
    hash({ a: 2 ** 32 }),
    hash({ a: 2 ** 33 }),
    hash({ a: 'x', b: 'y' }),
    hash({ a: 'y', b: 'x' }),
  ];
  expect(new Set(all).size).toBe(all.length);
});

test('values of one field seldom share a fingerprint', () => {
  const seen = new Set<string>();
  for (let value = 0; value < 20_000; value++) seen.add(hash({ tokens: value }));
  expect(seen.size).toBe(20_000);
});
