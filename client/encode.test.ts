import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeEvent } from './encode.ts';
import type { RecordedEvent } from './options.ts';

const NOW = Date.UTC(2026, 10, 21, 8, 30);
const encode = (event: RecordedEvent, source?: string): Record<string, unknown> => {
  const { json, bytes } = encodeEvent(event, { source, newId: () => 'made', now: () => NOW });
  expect(bytes).toBe(Buffer.byteLength(json));
  return JSON.parse(json) as Record<string, unknown>;
};

test('an event without an id gets one, and the time of its use', () => {
  expect(encode({ type: 't', subject: 's' })).toEqual({
    id: 'made',
    type: 't',
    subject: 's',
    time: '2026-11-21T08:30:00.000Z',
  });
});

test('an id of the caller gets no time: recorded again, the event must be the same', () => {
  expect(encode({ id: 'mine', type: 't', subject: 's' })).toEqual({ id: 'mine', type: 't', subject: 's' });
});

test('what the caller says stands', () => {
  const time = new Date(NOW - 5_000);
  expect(encode({ type: 't', subject: 's', source: 'mine', time }, 'preset')).toMatchObject({
    source: 'mine',
    time: '2026-11-21T08:29:55.000Z',
  });
  expect(encode({ type: 't', subject: 's' }, 'preset')).toMatchObject({ source: 'preset' });
});

test('a bigint is kept exactly, as text', () => {
  expect(encode({ type: 't', subject: 's', data: { n: 2n ** 70n } })).toMatchObject({
    data: { n: '1180591620717411303424' },
  });
});

test.each([
  ['NaN', { n: Number.NaN }],
  ['Infinity', { a: { n: -Infinity } }],
  ['a function', { f: () => 1 }],
  ['a symbol', { f: Symbol('x') }],
])('%s is refused, not changed in silence', (_, data) => {
  expect(() => encode({ type: 't', subject: 's', data })).toThrow(TypeError);
});

test('neither is an invalid date', () => {
  expect(() => encode({ type: 't', subject: 's', time: new Date(Number.NaN) })).toThrow(TypeError);
});

test('the bytes are counted as UTF-8 has them', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (subject) => {
      encode({ type: 't', subject });
    }),
  );
});
