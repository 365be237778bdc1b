import { describe, expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { eventsOf } from '../../test/batch-events.ts';
import { Admission } from './admit.ts';
import { readBody, type BodyContext, type BodyFormat, type BodyOutcome } from './body.ts';
import { MeterBook } from '../tenant/meters.ts';

const contextOf = (batchEventsMax: number, meters = new MeterBook()): BodyContext => ({
  admission: new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 0, batchEventsMax }),
  meters,
  tenant: 'acme',
  tenantBytes: Buffer.from('acme'),
  nowMs: Date.UTC(2026, 10, 21),
});
const context = contextOf(5);
const batch = new EventBatch();

function run(
  body: string | Uint8Array,
  format: BodyFormat = 'json',
  within = context,
): { ids: string[]; outcome: BodyOutcome } {
  const outcome = readBody(typeof body === 'string' ? Buffer.from(body) : body, format, within, batch);
  return { ids: eventsOf(batch).map(({ id }) => id), outcome };
}

const event = (id: string, more: object = {}): string =>
  JSON.stringify({ id, type: 't', subject: 's', ...more });
const sound = { read: true, rejected: [] };

test('one event, or a list of them', () => {
  expect(run(event('a'))).toEqual({ ids: ['a'], outcome: { ...sound, unmatched: 1 } });
  expect(run(` [ ${event('a')} ,\r\n\t${event('b')}\n]\n `).ids).toEqual(['a', 'b']);
  expect(run('[]').outcome).toEqual({ ...sound, unmatched: 0 });
  expect(run(' [ \n ] ').outcome).toEqual({ ...sound, unmatched: 0 });
});

test('a body may come in memory of any kind, and be gone afterwards', () => {
  const bytes = Buffer.from(`xx${event('a')}xx`);
  const within = new Uint8Array(bytes.buffer, bytes.byteOffset + 2, bytes.length - 4);
  for (const body of [within, Buffer.from(within), new Uint8Array(within)]) {
    expect(readBody(body, 'json', context, batch).read).toBe(true);
    body.fill(0x20);
    expect(eventsOf(batch)).toMatchObject([{ id: 'a', type: 't', subject: 's' }]);
    within.set(Buffer.from(event('a')));
  }
});

test('a bad event is listed at its place and spoils no other', () => {
  const { ids, outcome } = run(`[${event('a')}, {"id": "b", "type": 7, "subject": "s"}, 5, ${event('c')}]`);
  expect(ids).toEqual(['a', 'c']);
  expect(outcome).toEqual({
    read: true,
    unmatched: 2,
    rejected: [
      { index: 1, id: 'b', code: 'field_not_text', message: 'type: This field must be a string.' },
      { index: 2, id: null, code: 'event_not_an_object', message: expect.any(String) as string },
    ],
  });
});

test('fields of a refused event are not those of the next', () => {
  run(`[${event('a', { data: { x: 1, y: [1], z: { bad: 1e-30 } } })},${event('b', { data: { x: 2 } })}]`);
  expect(eventsOf(batch)).toMatchObject([{ id: 'b', fields: [{ path: 'x', number: [2, 0] }] }]);
});

test('what a meter needs and an event lacks is said with the other refusals', () => {
  const meters = new MeterBook();
  const meter = {
    key: 'tokens',
    eventType: 'metered',
    aggregation: 'sum',
    valueProperty: 'n',
    groupBy: [],
  };
  expect(meters.set('acme.tokens', JSON.stringify({ tenant: 'acme', meter }))).toBe(true);
  const metered = (id: string, data: object): string =>
    JSON.stringify({ id, type: 'metered', subject: 's', data });
  const body = `[${metered('a', { n: 1 })},${metered('b', { m: 1 })},${event('c')},${metered('d', { n: 'x' })}]`;
  const { ids, outcome } = run(body, 'json', contextOf(5, meters));
  expect(ids).toEqual(['a', 'c']);
  expect(outcome).toMatchObject({
    unmatched: 1,
    rejected: [
      { index: 1, id: 'b', code: 'meter_value_missing' },
      { index: 3, id: 'd', code: 'meter_value_not_a_number' },
    ],
  });
  const first = outcome.read ? outcome.rejected[0]! : null;
  expect(first?.message).toMatch(/^data\.n.*: The event lacks the value/);
});

test('an amendment needs what the meters of its type need; a void needs nothing, and no meter is missing for it', () => {
  const meters = new MeterBook();
  const meter = { key: 'n', eventType: 'metered', aggregation: 'sum', valueProperty: 'n', groupBy: [] };
  expect(meters.set('acme.n', JSON.stringify({ tenant: 'acme', meter }))).toBe(true);
  const body = JSON.stringify([
    { id: 'a', type: 'metered', subject: 's', amends: 'o', data: { m: 1 } },
    { id: 'b', type: 'metered', subject: 's', amends: 'o', data: { n: 1 } },
    { id: 'c', voids: 'o' },
    { id: 'd', type: 'other', subject: 's', amends: 'o' },
  ]);
  const { ids, outcome } = run(body, 'json', contextOf(5, meters));
  expect(ids).toEqual(['b', 'c', 'd']);
  expect(outcome).toMatchObject({
    unmatched: 1,
    rejected: [{ index: 0, id: 'a', code: 'meter_value_missing' }],
  });
  // What was refused leaves nothing behind: the reserved fields belong to those that were taken.
  expect(eventsOf(batch).map(({ fields }) => fields.map(({ path }) => path))).toEqual([
    ['n', 'tallyline.amends', 'tallyline.target'],
    ['tallyline.voids', 'tallyline.target'],
    ['tallyline.amends', 'tallyline.target'],
  ]);
});

describe('a body that is no JSON is refused with the place of the fault', () => {
  test.each([
    ['{"id": }', 'byte 7'],
    ['[{"id": "a"}, {"id" "b"}]', 'byte 20'],
    ['[{"id": "a"},]', 'byte 13'],
    ['[{"id": "a"},,]', 'byte 13'],
    ['[,]', 'byte 1'],
    ['{"id": "a"} x', 'byte 12'],
    ['{"id": "a"},', 'byte 11'],
    ['{}{}', 'byte 2'],
    ['[]]', 'byte 2'],
    ['[}', 'byte 1'],
    ['{]', 'byte 1'],
    ['{,}', 'byte 1'],
    ['{"id":"a",}', 'byte 10'],
    ['{"id":"a" "b":1}', 'byte 10'],
    ['{id:1}', 'byte 1'],
    ["{'id':1}", 'byte 1'],
    ['{"id": 01}', 'byte 8'],
    ['{"id": +1}', 'byte 7'],
    ['{"id": .5}', 'byte 7'],
    ['{"id": 1.}', 'byte 9'],
    ['{"id": NaN}', 'byte 7'],
    ['{"id": Infinity}', 'byte 7'],
    ['{"id": undefined}', 'byte 7'],
    ['{"id": nul}', 'byte 10'],
    ['{"id": True}', 'byte 7'],
    ['{"data": {"a": 1,}}', 'byte 17'],
    ['{"data": {"a": [1 2]}}', 'byte 18'],
    ['{"data": {"a": [1,]}}', 'byte 18'],
    ['{"data": {"a": {"b": 1]}}', 'byte 22'],
    ['{"data": {"a" 1}}', 'byte 14'],
    ['{"data": {"a":1 /* one */}}', 'byte 16'],
    ['{"x": [{"a": tru}]}', 'byte 16'],
    ['nope', 'byte 1'],
    ['"a\nb"', 'byte 2'],
    ['"a\0b"', 'byte 2'],
    ['"\\x"', 'byte 2'],
    ['{"id":"\\u12g4"}', 'byte 11'],
    ['\0', 'byte 0'],
    ['{}\0', 'byte 2'],
    ['\ufeff{}', 'byte 0'],
    ['[1,\u00a02]', 'byte 3'],
    ['{"id":"a"}\u000b', 'byte 10'],
    ['', 'ends too early'],
    [' \n ', 'ends too early'],
    ['{', 'ends too early'],
    ['{"id', 'ends too early'],
    ['{"id"', 'ends too early'],
    ['{"id":', 'ends too early'],
    ['{"id":"', 'ends too early'],
    ['{"id": "a"', 'ends too early'],
    ['{"id": "a",', 'ends too early'],
    ['{"id": tr', 'ends too early'],
    ['{"data": {"a": 1', 'ends too early'],
    ['{"data": {"a": -', 'ends too early'],
    ['[{}', 'ends too early'],
    ['[{},', 'ends too early'],
  ])('%j', (body, where) => {
    // What stood in the batch before must not stand behind a body that ends.
    run(event('z'.repeat(200)));
    const { ids, outcome } = run(body);
    expect(ids).toEqual([]);
    expect(outcome).toMatchObject({ read: false, code: 'body_not_json' });
    const message = outcome.read ? '' : outcome.message;
    expect(message).toBe(
      `The body is not JSON (${where.startsWith('byte') ? `the fault is at ${where}` : 'it ends too early'}).`,
    );
    expect(() => JSON.parse(body) as unknown).toThrow();
  });

  test('events before the fault do not count', () => {
    expect(run(`[${event('a')},${event('b')},{"id"]`).ids).toEqual([]);
    expect(batch.fieldCount).toBe(0);
  });
});

describe('a body of another encoding', () => {
  test.each([
    ['an overlong form', [0xc0, 0x80]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['beyond U+10FFFF', [0xf4, 0x90, 0x80, 0x80]],
    ['Latin-1', [0xfc]],
    ['a character cut short', [0xe6, 0x97]],
  ])('%s is refused as a whole', (_, bytes) => {
    const inside = Buffer.concat([Buffer.from('["'), Buffer.from(bytes), Buffer.from('"]')]);
    expect(run(inside)).toEqual({
      ids: [],
      outcome: { read: false, code: 'body_not_unicode', message: 'The body is not UTF-8.' },
    });
    // Also where nothing of it would be kept, and behind what is no JSON.
    const name = Buffer.concat([Buffer.from('{"x":[{"'), Buffer.from(bytes), Buffer.from('":1}]}')]);
    const behind = Buffer.concat([Buffer.from('{"id" 1 '), Buffer.from(bytes)]);
    for (const body of [name, behind]) expect(run(body).outcome).toMatchObject({ code: 'body_not_unicode' });
  });

  test('UTF-16 is none of ours', () => {
    expect(run(Buffer.from(event('a'), 'utf16le')).outcome).toMatchObject({ code: 'body_not_json' });
    expect(run(Buffer.from(`\ufeff${event('a')}`, 'utf16le')).outcome).toMatchObject({
      code: 'body_not_unicode',
    });
  });
});

describe('lines', () => {
  test('a line that is no JSON, or no UTF-8, is one rejected event', () => {
    const { ids, outcome } = run(`${event('a')}\r\n\n \t\n{"id":\n${event('b')}\n`, 'ndjson');
    expect(ids).toEqual(['a', 'b']);
    expect(outcome).toMatchObject({ rejected: [{ index: 3, id: null, code: 'line_not_json' }] });
    const broken = Buffer.concat([
      Buffer.from(`${event('a')}\n"`),
      Buffer.of(0xff),
      Buffer.from(`"\n${event('ü')}\n{"x":"`),
      Buffer.of(0xfc),
      Buffer.from(`","y":"ü"}\n${event('日')}`),
    ]);
    const second = run(broken, 'ndjson');
    expect(second.ids).toEqual(['a', 'ü', '日']);
    expect(second.outcome).toMatchObject({
      rejected: [
        { index: 1, code: 'line_not_json' },
        { index: 3, code: 'line_not_json' },
      ],
    });
  });

  test('an event does not reach into the next line, and a line holds one event', () => {
    const { ids, outcome } = run(
      `{"id":"a",\n"type":"t","subject":"s"}\n${event('b')} ${event('c')}\n[${event('d')}]\n${event('e')}`,
      'ndjson',
    );
    expect(ids).toEqual(['e']);
    expect(outcome.read && outcome.rejected.map(({ index, code }) => [index, code])).toEqual([
      [0, 'line_not_json'],
      [1, 'line_not_json'],
      [2, 'line_not_json'],
      [3, 'event_not_an_object'],
    ]);
  });

  test('no lines are no events', () => {
    for (const body of ['', '\n', '\r\n\r\n', ' ']) {
      expect(run(body, 'ndjson')).toEqual({ ids: [], outcome: { ...sound, unmatched: 0 } });
    }
  });
});

test('too many events are refused as a whole', () => {
  const events = Array.from({ length: 6 }, (_, at) => event(`e${at}`));
  const bad = Array.from({ length: 6 }, () => '{"id":');
  for (const { ids, outcome } of [
    run(`[${events.join(',')}]`),
    run(events.join('\n'), 'ndjson'),
    run(bad.join('\n'), 'ndjson'),
    run('[0,0,0,0,0,0]'),
  ]) {
    expect(ids).toEqual([]);
    expect(outcome).toEqual({
      read: false,
      code: 'batch_too_large',
      message: 'The request has too many events: send them in several requests (at most 5).',
    });
  }
  expect(run(events.slice(1).join('\n\n'), 'ndjson').ids).toHaveLength(5);
  expect(run(`[${events.slice(1).join(',')}]`).ids).toHaveLength(5);
});

test('ten thousand events are read, and one more is not', () => {
  const list = (count: number): string =>
    `[${Array.from({ length: count }, (_, at) => event(`e${at}`, { data: { at, half: at / 2 } })).join(',')}]`;
  const full = run(list(10_000), 'json', contextOf(10_000));
  expect(full.outcome).toEqual({ ...sound, unmatched: 10_000 });
  expect(eventsOf(batch)[9_999]).toMatchObject({
    id: 'e9999',
    fields: [
      { path: 'at', number: [9_999, 0] },
      { path: 'half', number: [49_995, 1] },
    ],
  });
  expect(run(list(10_001), 'json', contextOf(10_000)).outcome).toMatchObject({ code: 'batch_too_large' });
});

test('numbers are kept by their digits', () => {
  const body = (number: string): string => `{"id":"a","type":"t","subject":"s","data":{"n":${number}}}`;
  const cases: [string, [number, number]][] = [
    ['-0', [0, 0]],
    ['1E5', [100_000, 0]],
    ['1.50', [15, 1]],
    ['0.1', [1, 1]],
    ['9007199254740991', [9007199254740991, 0]],
  ];
  for (const [number, expected] of cases) {
    run(body(number));
    expect(eventsOf(batch)[0]?.fields).toEqual([{ path: 'n', number: expected }]);
  }
});

test('an array is kept as it was sent, but for the space between its parts', () => {
  run(
    '{"id":"a","type":"t","subject":"s","data":{"l": [ 1.50 , "a b\\u0020\\"[ ]" , { "k" :\n[ ] , "\\u006b2":1e400}]}}',
  );
  expect(eventsOf(batch)[0]?.fields).toEqual([
    { path: 'l', literal: '[1.50,"a b\\u0020\\"[ ]",{"k":[],"\\u006b2":1e400}]' },
  ]);
});

test('names of JavaScript mean nothing here', () => {
  run('{"id":"a","type":"t","subject":"s","data":{"__proto__":{"x":1},"constructor":2,"toString":"y"}}');
  expect(eventsOf(batch)[0]?.fields.map(({ path }) => path)).toEqual([
    '__proto__.x',
    'constructor',
    'toString',
  ]);
  expect(run('{"__proto__":{"id":"b"},"id":"a","type":"t","subject":"s"}').outcome).toMatchObject({
    rejected: [{ code: 'field_unknown', id: 'a' }],
  });
});

describe('a million brackets', () => {
  const million = 1_000_000;
  const cases: [string, string, string][] = [
    ['the whole body', '', ''],
    ['a field that is not known', '{"id":"a","type":"t","subject":"s","x":', '}'],
    ['an attribute', '{"id":"a","type":"t","source":', ',"subject":"s"}'],
    ['data', '{"id":"a","type":"t","subject":"s","data":', '}'],
    ['a field of data', '{"id":"a","type":"t","subject":"s","data":{"a":', '}}'],
    ['a list', `[${event('a')},`, `,${event('b')}]`],
  ];
  for (const [where, before, after] of cases) {
    for (const [open, close] of [
      ['[', ']'],
      ['{"a":', '}'],
    ] as const) {
      test(`as ${where}: ${open}`, () => {
        const opened = open.repeat(million);
        const { outcome } = run(`${before}${opened}1${close.repeat(million)}${after}`);
        expect(outcome).toMatchObject({ read: true, rejected: [{}] });
        expect(run(`${before}${opened}`).outcome).toMatchObject({
          code: 'body_not_json',
          message: 'The body is not JSON (it ends too early).',
        });
      });
    }
  }
});

test('a body of keys alone takes no more time than its bytes', () => {
  const keys = (count: number): string => Array.from({ length: count }, (_, at) => `"k${at}":0`).join(',');
  const many = keys(300_000);
  const bodies: [string, string][] = [
    [`{"id":"a","type":"t","subject":"s","data":{"l":[{${many}}]}}`, 'event_too_large'],
    [`{"specversion":"1.0","id":"a","type":"t","subject":"s",${many}}`, 'event_too_large'],
    [`{"id":"a","type":"t","subject":"s","data":{${many}}}`, 'data_too_many_fields'],
    [`{"id":"a","type":"t","subject":"s",${many}}`, 'field_unknown'],
  ];
  for (const [body, code] of bodies) {
    expect(run(body).outcome).toMatchObject({ rejected: [{ index: 0, id: 'a', code }] });
  }
});

test('msgpack goes to its own reader', () => {
  expect(run(Uint8Array.of(0xc1), 'msgpack').outcome).toMatchObject({ code: 'body_not_msgpack' });
});
