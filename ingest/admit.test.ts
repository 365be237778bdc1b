import fc from 'fast-check';
import { expect, test } from 'vitest';
import { REJECTIONS } from '../contract/rejections.ts';
import { DAY_MS } from '../contract/window.ts';
import { Admission } from './admit.ts';

const NOW = Date.UTC(2026, 10, 21, 8, 30);
const admission = new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 3_600, batchEventsMax: 100 });

const sound = { id: 'e-1', source: 'gateway', type: 'llm.request', subject: 'cus_1', data: { tokens: 12 } };
const at = (ms: number): string => new Date(ms).toISOString();
const admit = (value: unknown): string | null => admission.admit(value, 'acme', NOW);

// Each row: a refused event, its code, the field that the message names, and a neighbour that is admitted.
const big = (bytes: number): unknown => ({ ...sound, data: { text: 'x'.repeat(bytes) } });
const deep = (levels: number): unknown => (levels === 0 ? 1 : { a: deep(levels - 1) });
const many = (count: number): unknown =>
  Object.fromEntries(Array.from({ length: count }, (_, field) => [`f${field}`, 1]));
const TABLE: readonly (readonly [string, unknown, string, unknown])[] = [
  ['event_not_an_object', 'x', '', sound],
  ['event_not_an_object', [sound], '', sound],
  ['event_not_an_object', null, '', sound],
  ['field_missing', { ...sound, id: undefined }, 'id', { ...sound, id: '0' }],
  ['field_missing', { ...sound, id: '' }, 'id', { ...sound, id: ' ' }],
  ['field_missing', { ...sound, type: null }, 'type', { ...sound, source: null }],
  ['field_missing', { ...sound, subject: '' }, 'subject', { ...sound, source: '' }],
  ['field_not_text', { ...sound, id: 7 }, 'id', { ...sound, id: '7' }],
  ['field_not_text', { ...sound, source: {} }, 'source', { ...sound, source: undefined }],
  ['field_not_text', { ...sound, time: NOW }, 'time', { ...sound, time: null }],
  ['field_too_long', { ...sound, id: 'x'.repeat(257) }, 'id', { ...sound, id: 'x'.repeat(256) }],
  ['field_too_long', { ...sound, id: 'ü'.repeat(129) }, 'id', { ...sound, id: 'ü'.repeat(128) }],
  [
    'field_too_long',
    { ...sound, subject: '日'.repeat(86) },
    'subject',
    { ...sound, subject: '日'.repeat(85) },
  ],
  ['field_too_long', { ...sound, source: 'x'.repeat(513) }, 'source', { ...sound, source: 'x'.repeat(512) }],
  ['field_too_long', { ...sound, type: 'x'.repeat(129) }, 'type', { ...sound, type: 'x'.repeat(128) }],
  ['text_not_unicode', { ...sound, id: 'a\ud800' }, 'id', { ...sound, id: 'a\u{10000}' }],
  ['text_not_unicode', { ...sound, data: { a: '\udc00' } }, 'data.a', { ...sound, data: { a: '\u{1f600}' } }],
  ['text_has_control', { ...sound, id: 'a\nb' }, 'id', { ...sound, id: 'a b' }],
  ['text_has_control', { ...sound, subject: 'a\u0085' }, 'subject', { ...sound, subject: 'a\u00a0' }],
  ['text_has_control', { ...sound, type: '\u007f' }, 'type', { ...sound, type: '~' }],
  ['time_not_rfc3339', { ...sound, time: '2026-11-21' }, 'time', { ...sound, time: '2026-11-21T08:00:00Z' }],
  ['time_not_rfc3339', { ...sound, time: '' }, 'time', { ...sound, time: undefined }],
  [
    'time_too_old',
    { ...sound, time: at(NOW - 30 * DAY_MS - 1) },
    'time',
    { ...sound, time: at(NOW - 30 * DAY_MS) },
  ],
  [
    'time_too_far_ahead',
    { ...sound, time: at(NOW + 3_600_001) },
    'time',
    { ...sound, time: at(NOW + 3_600_000) },
  ],
  ['data_not_an_object', { ...sound, data: [1] }, 'data', { ...sound, data: null }],
  ['data_not_an_object', { ...sound, data: 'x' }, 'data', { ...sound, data: {} }],
  ['data_too_deep', { ...sound, data: deep(9) }, 'data.a.a', { ...sound, data: deep(8) }],
  ['data_too_many_fields', { ...sound, data: many(65) }, 'data.f64', { ...sound, data: many(64) }],
  [
    'data_path_too_long',
    { ...sound, data: { ['k'.repeat(257)]: 1 } },
    'data.kkk',
    { ...sound, data: { ['k'.repeat(256)]: 1 } },
  ],
  [
    'data_path_repeated',
    { ...sound, data: { a: { b: 1 }, 'a.b': 1 } },
    'data.a.b',
    { ...sound, data: { 'a.b': 1 } },
  ],
  ['number_not_exact', { ...sound, data: { n: 1e-10 } }, 'data.n', { ...sound, data: { n: 1e-9 } }],
  ['number_not_exact', { ...sound, data: { n: 2 ** 53 } }, 'data.n', { ...sound, data: { n: 2 ** 53 - 1 } }],
  // 26 bytes are id, source, type and subject, 4 the path.
  ['event_too_large', big(65_536 - 30 + 1), '', big(65_536 - 30)],
];

test.each(TABLE)('%s', (code, refused, field, neighbour) => {
  expect(admit(refused)).toBe(code);
  const message = admission.message(code as 'field_missing');
  expect(message.endsWith(REJECTIONS[code as 'field_missing'].message)).toBe(true);
  if (field === '') expect(message).toBe(REJECTIONS[code as 'field_missing'].message);
  else expect(message.startsWith(field)).toBe(true);
  expect(admit(neighbour)).toBeNull();
});

// What is said of a body or a line has its cases in batch.test.ts and test/edge.test.ts.
const OF_BODIES = [
  'line_not_json',
  'body_not_json',
  'body_not_unicode',
  'body_too_large',
  'batch_too_large',
  'content_type_unknown',
];

test('every code of the edge about an event has a case', () => {
  const codes = Object.entries(REJECTIONS)
    .filter(([code, { stage }]) => stage === 'edge' && !OF_BODIES.includes(code))
    .map(([code]) => code);
  expect(codes.filter((code) => !TABLE.some(([one]) => one === code))).toEqual([]);
});

test('an admitted event says what was sent; what it lacks is filled in', () => {
  expect(admit({ ...sound, time: '2026-11-20T10:00:00.1239+01:00' })).toBeNull();
  expect(admission.event).toMatchObject({
    tenant: 'acme',
    source: 'gateway',
    id: 'e-1',
    type: 'llm.request',
    subject: 'cus_1',
    timeMs: Date.UTC(2026, 10, 20, 9, 0, 0, 123),
    timeGiven: true,
  });
  const { fields } = admission.event;
  expect([fields.count, fields.paths[0], fields.mantissas[0]]).toEqual([1, 'tokens', 12]);
  expect(admit({ id: 'e-2', type: 't', subject: 's' })).toBeNull();
  expect(admission.event).toMatchObject({ source: '', timeMs: NOW, timeGiven: false });
  expect(fields.count).toBe(0);
});

test('a long path is cut in the message', () => {
  admit({ ...sound, data: { ['k'.repeat(10_000)]: 1 } });
  expect(admission.message('data_path_too_long').length).toBeLessThan(250);
});

test('any JSON is admitted or refused with a code, never an exception', () => {
  const field = fc.oneof(fc.string({ unit: 'binary' }), fc.jsonValue());
  const like = fc.record(
    { id: field, source: field, type: field, subject: field, time: field, data: fc.jsonValue() },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(like, fc.jsonValue()), (value) => {
      const code = admit(value);
      if (code === null) expect(admission.event.id.length).toBeGreaterThan(0);
      else expect(REJECTIONS[code as keyof typeof REJECTIONS].stage).toBe('edge');
    }),
    { numRuns: 500 },
  );
});

test('nothing older than 1970 is admitted, however wide the window', () => {
  const wide = new Admission({ eventAgeDaysMax: 1_000_000, eventAheadSecondsMax: 0, batchEventsMax: 1 });
  expect(wide.admit({ ...sound, time: '1970-01-01T00:30:00+01:00' }, 'acme', NOW)).toBe('time_too_old');
  expect(wide.admit({ ...sound, time: '1970-01-01T01:00:00+01:00' }, 'acme', NOW)).toBeNull();
});
