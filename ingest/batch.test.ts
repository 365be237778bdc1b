import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Admission } from './admit.ts';
import { admitBatch, type BatchFormat, type BatchOutcome } from './batch.ts';

const context = {
  admission: new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 0, batchEventsMax: 5 }),
  tenant: 'acme',
  nowMs: Date.UTC(2026, 10, 21),
};

function run(
  body: string | Uint8Array,
  format: BatchFormat = 'json',
): { ids: string[]; outcome: BatchOutcome } {
  const ids: string[] = [];
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body;
  const outcome = admitBatch(bytes, format, context, (event) => ids.push(event.id));
  return { ids, outcome };
}

const event = (id: string, more: object = {}): string =>
  JSON.stringify({ id, type: 't', subject: 's', ...more });

test('one event, or a list of them', () => {
  expect(run(event('a'))).toEqual({ ids: ['a'], outcome: { read: true, admitted: 1, rejected: [] } });
  expect(run(`[${event('a')}, ${event('b')}]`).ids).toEqual(['a', 'b']);
  expect(run('[]').outcome).toEqual({ read: true, admitted: 0, rejected: [] });
});

test('a bad event is listed at its place and spoils no other', () => {
  const { ids, outcome } = run(`[${event('a')}, {"id": "b", "type": 7, "subject": "s"}, 5, ${event('c')}]`);
  expect(ids).toEqual(['a', 'c']);
  expect(outcome).toEqual({
    read: true,
    admitted: 2,
    rejected: [
      { index: 1, id: 'b', code: 'field_not_text', message: 'type: This field must be a string.' },
      { index: 2, id: null, code: 'event_not_an_object', message: expect.any(String) as string },
    ],
  });
});

test.each([
  ['{"id": }', 'character 7'],
  ['[{"id": "a"}, {"id" "b"}]', 'character 20'],
  ['[{"id": "a"},]', 'character 13'],
  ['{"id": "a"} x', 'character 12'],
  ['{"id": 01}', 'character 8'],
  ['nope', 'character 0'],
  ['', 'ends too early'],
  ['{"id": "a"', 'ends too early'],
  ['['.repeat(100_000), 'ends too early'],
])('a body that is no JSON is refused with the place of the fault (%#)', (body, where) => {
  const { ids, outcome } = run(body);
  expect(ids).toEqual([]);
  expect(outcome).toMatchObject({ read: false, code: 'body_not_json' });
  expect(outcome.read ? '' : outcome.message).toContain(where);
});

test('a line that is no JSON, or no UTF-8, is one rejected event', () => {
  const { ids, outcome } = run(`${event('a')}\r\n\n{"id":\n${event('b')}\n`, 'ndjson');
  expect(ids).toEqual(['a', 'b']);
  expect(outcome).toMatchObject({ admitted: 2, rejected: [{ index: 2, id: null, code: 'line_not_json' }] });

  const broken = Buffer.concat([
    Buffer.from(`${event('a')}\n"`),
    Buffer.of(0xff),
    Buffer.from(`"\n${event('ü')}`),
  ]);
  const second = run(broken, 'ndjson');
  expect(second.ids).toEqual(['a', 'ü']);
  expect(second.outcome).toMatchObject({ rejected: [{ index: 1, code: 'line_not_json' }] });
});

test('a whole body of JSON that is no UTF-8 is refused', () => {
  expect(
    run(Buffer.concat([Buffer.from('["'), Buffer.of(0xc0, 0x80), Buffer.from('"]')])).outcome,
  ).toMatchObject({
    read: false,
    code: 'body_not_unicode',
  });
});

test('too many events are refused before one is admitted', () => {
  const events = Array.from({ length: 6 }, (_, at) => event(`e${at}`));
  for (const { ids, outcome } of [run(`[${events.join(',')}]`), run(events.join('\n'), 'ndjson')]) {
    expect(ids).toEqual([]);
    expect(outcome).toMatchObject({ read: false, code: 'batch_too_large' });
  }
  expect(run(events.slice(1).join('\n\n'), 'ndjson').ids).toHaveLength(5);
});

// JSON.parse rounds these without a word; the value counted would be another than the one sent.
const ROUNDED = [
  '9007199254740991.4',
  '0.10000000000000000555',
  '1e-400',
  '4503599627370497.2',
  '1.0000000000000000001',
];
const KEPT = [
  '9007199254740991',
  '0.1000000000000000000',
  '123456789012345',
  '1234567890.12345',
  '0e-400',
  '1e-9',
];

test.each(ROUNDED)('%s is refused: it would be rounded', (number) => {
  const body = `{"id":"b","type":"t","subject":"s","data":{"n": ${number}}}`;
  for (const { ids, outcome } of [
    run(`[${event('a')},${body},${event('c')}]`),
    run(`${event('a')}\n${body}\n${event('c')}`, 'ndjson'),
  ]) {
    expect(ids).toEqual(['a', 'c']);
    expect(outcome).toMatchObject({ rejected: [{ index: 1, id: 'b', code: 'number_not_exact' }] });
  }
});

test.each(KEPT)('%s is kept', (number) => {
  expect(run(`{"id":"b","type":"t","subject":"s","data":{"n":${number}}}`).ids).toEqual(['b']);
});

test('digits in texts are no numbers', () => {
  const text = '12345678901234567890.123 1e-400,';
  expect(
    run(event('12345678901234567890', { data: { text, uuid: '7f3a9c1e-4123-4e8e-9123-000000000000' } })).ids,
  ).toEqual(['12345678901234567890']);
});

test('any bytes are read or refused, never an exception', () => {
  const format = fc.constantFrom<BatchFormat>('json', 'ndjson');
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc.json({ maxDepth: 6 }).map((text) => new TextEncoder().encode(text)),
  );
  fc.assert(
    fc.property(body, format, (bytes, kind) => {
      const { ids, outcome } = run(bytes, kind);
      expect(ids.length).toBe(outcome.read ? outcome.admitted : 0);
    }),
  );
});
