import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { PlainEvent } from '../test/batch-events.ts';
import { fieldsOf, fillBatch } from '../test/event-batch.ts';
import { payloadHash } from '../test/payload-model.ts';
import { decodeBlock } from './block.ts';
import { BlockBuilder } from './block-builder.ts';
import { EventBatch } from './event-batch.ts';

const TIME = Date.UTC(2026, 10, 21);
const batch = new EventBatch();
const builder = new BlockBuilder();
const identity = new Uint32Array(4);

/** The payload hashes of a block with the events. */
function hashes(events: readonly PlainEvent[], tenant = 'acme', nested = true): [number, number][] {
  fillBatch(batch, tenant, events, nested);
  events.forEach((_, at) => builder.add(batch, at, identity));
  const { payloadHash } = decodeBlock(builder.finish(0));
  return events.map((_, at) => [payloadHash[at * 2]!, payloadHash[at * 2 + 1]!]);
}

const eventOf = (data: Record<string, unknown>, more: Partial<PlainEvent> = {}): PlainEvent => ({
  id: 'e-1',
  source: 's',
  type: 'llm.request',
  subject: 'cus_1',
  timeMs: TIME,
  timeGiven: true,
  fields: fieldsOf(data, ''),
  ...more,
});

const hash = (data: Record<string, unknown>, more: Partial<PlainEvent> = {}): string =>
  hashes([eventOf(data, more)])[0]!.join('-');

const text = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 40 }), fc.constantFrom('a', 'b', 'tokens'));
const field = fc.oneof(
  fc.record({ path: text, text }),
  fc.record({ path: text, literal: fc.constantFrom('true', 'null', '[1]', '{}') }),
  fc.record({ path: text, number: fc.tuple(fc.maxSafeInteger(), fc.nat(9)) }),
);
const anyEvent: fc.Arbitrary<PlainEvent> = fc.record({
  id: text,
  source: text,
  type: text,
  subject: text,
  timeMs: fc.nat(4_102_444_800_000),
  timeGiven: fc.boolean(),
  fields: fc.uniqueArray(field, { selector: ({ path }) => path, maxLength: 8 }),
});

test('the hash is that of an independent model, whatever else is in the block', () => {
  fc.assert(
    fc.property(fc.array(anyEvent, { minLength: 1, maxLength: 12 }), fc.boolean(), (events, nested) => {
      expect(hashes(events, 'acme', nested)).toEqual(events.map(payloadHash));
    }),
    { numRuns: 300 },
  );
});

// They stand in stored rows: a retry after years must come to the same.
test.each<[Record<string, unknown>, Partial<PlainEvent>, string]>([
  [{}, {}, '2712902312-3327395614'],
  [{}, { timeGiven: false }, '4099946766-3371135104'],
  [
    { model: 'small-2', input_tokens: 812, output_tokens: 230, region: 'eu-west-1' },
    {},
    '3512978135-3874415399',
  ],
  [
    { a: { b: -1.5 }, on: true, list: [1, 'x'], ü: '☃', max: Number.MAX_SAFE_INTEGER },
    {},
    '1197471955-4278974508',
  ],
])('the hash of %j never changes', (data, more, expected) => {
  expect(hash(data, more)).toBe(expected);
  expect(payloadHash(eventOf(data, more)).join('-')).toBe(expected);
});

test('the order of keys does not matter', () => {
  fc.assert(
    fc.property(anyEvent, fc.func(fc.integer()), (event, rank) => {
      const fields = [...event.fields].sort((a, b) => rank(a.path) - rank(b.path));
      const [first, second] = hashes([event, { ...event, fields }]);
      expect(second).toEqual(first);
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

test('source, id and tenant are the identity and not the payload', () => {
  expect(hash({ a: 1 }, { source: 'x', id: 'y' })).toBe(hash({ a: 1 }));
  expect(hashes([eventOf({ a: 1 })], 'globex')).toEqual(hashes([eventOf({ a: 1 })]));
});

test('a field says the same however its data is nested', () => {
  const event = eventOf({ a: { b: 1 }, c: { d: { e: 'x' } } });
  expect(hashes([event], 'acme', false)).toEqual(hashes([event], 'acme', true));
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

test('values of one field, and of two, seldom share a fingerprint', () => {
  const seen = new Set<string>();
  for (let from = 0; from < 20_000; from += 1_000) {
    const ones = Array.from({ length: 1_000 }, (_, at) => eventOf({ tokens: from + at }));
    const twos = Array.from({ length: 1_000 }, (_, at) => eventOf({ tokens: from + at, other: -from - at }));
    for (const pair of hashes([...ones, ...twos])) seen.add(pair.join('-'));
  }
  expect(seen.size).toBe(40_000);
});
