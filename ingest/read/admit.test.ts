import { expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { REJECTIONS, type RejectedEvent } from '../../contract/rejections.ts';
import { DAY_MS } from '../../contract/window.ts';
import { eventsOf } from '../../test/batch-events.ts';
import { Admission, type AdmitLimits } from './admit.ts';
import { readBody, type BodyFormat } from './body.ts';
import { Draft } from './draft.ts';
import { MeterBook } from '../tenant/meters.ts';

// Every code that an event in JSON can be refused with, in its smallest case, beside a neighbour that is admitted. The
// events are written as text: what is refused is partly what no object could say.

const NOW = Date.UTC(2026, 10, 21, 8, 30);
const LIMITS: AdmitLimits = { eventAgeDaysMax: 30, eventAheadSecondsMax: 3_600, batchEventsMax: 100 };
const batch = new EventBatch();

function read(body: string, format: BodyFormat = 'json', limits = LIMITS): readonly RejectedEvent[] {
  const context = {
    admission: new Admission(limits),
    meters: new MeterBook(),
    tenant: 'acme',
    tenantBytes: Buffer.from('acme'),
    nowMs: NOW,
  };
  const outcome = readBody(Buffer.from(body), format, context, batch);
  if (!outcome.read) throw new Error(`${outcome.message} ${body.slice(0, 200)}`);
  return outcome.rejected;
}

const SOUND: Readonly<Record<string, string>> = {
  id: '"e-1"',
  source: '"gateway"',
  type: '"llm.request"',
  subject: '"cus_1"',
  data: '{"tokens":12}',
};
/** The sound event with other fields; one that is null is left out. */
function like(fields: Readonly<Record<string, string | null>>): string {
  const all = Object.entries({ ...SOUND, ...fields }).filter(([, value]) => value !== null);
  return `{${all.map(([name, value]) => `"${name}":${value}`).join(',')}}`;
}
const data = (members: string): string => like({ data: `{${members}}` });
const quoted = (text: string): string => JSON.stringify(text);
const at = (ms: number): string => quoted(new Date(ms).toISOString());
const nested = (levels: number, inner = '1'): string => '{"a":'.repeat(levels) + inner + '}'.repeat(levels);
const fields = (count: number): string => Array.from({ length: count }, (_, n) => `"f${n}":1`).join(',');
const envelope = (more: Readonly<Record<string, string>> = {}): string =>
  like({ specversion: '"1.0"', ...more });

const amend = (fields: Readonly<Record<string, string | null>>): string =>
  like({ amends: '"e-0"', ...fields });
const theVoid = (fields: Readonly<Record<string, string | null>>): string =>
  like({ type: null, subject: null, voids: '"e-0"', ...fields });

// A code, a refused event, what its message names, and a neighbour that is admitted.
type Case = readonly [code: string, refused: string, named: string, neighbour: string];
const CASES: readonly Case[] = [
  ['event_not_an_object', '"x"', '', like({})],
  ['event_not_an_object', `[${like({})}]`, '', like({})],
  ['event_not_an_object', 'null', '', like({})],
  ['event_not_an_object', '7', '', like({})],
  ['field_missing', '{}', 'id', like({})],
  ['field_missing', like({ id: null }), 'id', like({ id: '"0"' })],
  ['field_missing', like({ id: '""' }), 'id', like({ id: '" "' })],
  ['field_missing', like({ type: 'null' }), 'type', like({ source: 'null' })],
  ['field_missing', like({ subject: '""' }), 'subject', like({ source: '""' })],
  ['field_not_text', like({ id: '7' }), 'id', like({ id: '"7"' })],
  ['field_not_text', like({ source: '{}' }), 'source', like({ source: null })],
  ['field_not_text', like({ type: '["t"]' }), 'type', like({ type: '"["' })],
  ['field_not_text', like({ time: String(NOW) }), 'time', like({ time: 'null' })],
  ['field_not_text', like({ subject: 'true' }), 'subject', like({ subject: '"true"' })],
  [
    'field_not_text',
    envelope({ datacontenttype: '1' }),
    'datacontenttype',
    envelope({ datacontenttype: 'null' }),
  ],
  ['field_too_long', like({ id: quoted('x'.repeat(257)) }), 'id', like({ id: quoted('x'.repeat(256)) })],
  ['field_too_long', like({ id: quoted('ü'.repeat(129)) }), 'id', like({ id: quoted('ü'.repeat(128)) })],
  [
    'field_too_long',
    like({ subject: quoted('日'.repeat(86)) }),
    'subject',
    like({ subject: quoted('日'.repeat(85)) }),
  ],
  // Escapes do not count, what they mean does.
  [
    'field_too_long',
    like({ id: `"${'\\u65e5'.repeat(86)}"` }),
    'id',
    like({ id: `"${'\\u65e5'.repeat(85)}"` }),
  ],
  [
    'field_too_long',
    like({ source: quoted('x'.repeat(513)) }),
    'source',
    like({ source: quoted('x'.repeat(512)) }),
  ],
  [
    'field_too_long',
    like({ type: quoted('x'.repeat(129)) }),
    'type',
    like({ type: quoted('x'.repeat(128)) }),
  ],
  ['field_unknown', like({ customer: '"c"' }), 'customer', data('"customer":"c"')],
  ['field_unknown', like({ Id: '"c"' }), 'Id', envelope({ partitionkey: '"c"' })],
  [
    'field_unknown',
    like({ datacontenttype: '"application/json"' }),
    'datacontenttype',
    envelope({ datacontenttype: '"application/json"' }),
  ],
  ['field_unknown', like({ dataschema: '"x"' }), 'dataschema', envelope({ dataschema: '"x"' })],
  ['field_unknown', envelope({ customer_id: '"c"' }), 'customer_id', envelope({ customerid: '"c"' })],
  ['field_unknown', envelope({ extra: '{}' }), 'extra', envelope({ extra: '1' })],
  [
    'field_unknown',
    envelope({ ok: '1', Extra: '1', other: '{}' }),
    'Extra',
    envelope({ a: 'null', b: '-1e400', c: 'false' }),
  ],
  ['key_repeated', like({}).replace('{', '{"id":"e-0",'), 'id', like({})],
  ['key_repeated', like({}).replace('{', '{"\\u0064ata":null,'), 'data', like({})],
  ['key_repeated', envelope({ ext: '1' }).replace('{', '{"ext":1,'), 'ext', envelope({ ext: '1' })],
  ['key_repeated', envelope().replace('{', '{"specversion":"1.0",'), 'specversion', envelope()],
  ['key_repeated', data('"a":1,"a":1'), 'data.a', data('"a":1,"A":1')],
  ['key_repeated', data('"a":1,"\\u0061":2'), 'data.a', data('"a":1,"\\u0041":2')],
  [
    'key_repeated',
    data('"a":{"b":{"c":1,"d":2,"c":3}}'),
    'data.a.b.c',
    data('"a":{"b":{"c":1}},"b":{"c":1}'),
  ],
  ['key_repeated', data('"a":{"b":1},"a":{"c":1}'), 'data.a', data('"a":{"b":1,"c":1}')],
  ['key_repeated', data('"":1,"":2'), 'data.', data('"":1," ":2')],
  [
    'key_repeated',
    data('"__proto__":1,"__proto__":1'),
    'data.__proto__',
    data('"__proto__":1,"constructor":2'),
  ],
  ['key_repeated', data('"a.b":1,"a.b":1'), 'data.a.b', data('"a.b":1,"a.c":1')],
  ['key_repeated', data('"l":[{"k":1,"k":2}]'), 'data.l', data('"l":[{"k":1},{"k":2}]')],
  ['key_repeated', data('"l":[{"k":1,"o":{"a":1},"k":2}]'), 'data.l', data('"l":[{"o":{"k":1},"k":2}]')],
  ['key_repeated', data('"l":[[{"a":{"k":1,"\\u006b":2}}]]'), 'data.l', data('"l":[[{"a":{"k":1,"a":2}}]]')],
  ['specversion_unknown', like({ specversion: '"0.3"' }), '', envelope()],
  ['specversion_unknown', like({ specversion: '1.0' }), '', like({ specversion: '"1\\u002e0"' })],
  ['specversion_unknown', like({ specversion: '""' }), '', like({ specversion: 'null' })],
  ['text_not_unicode', like({ id: '"a\\ud800"' }), 'id', like({ id: '"a\\ud800\\udc00"' })],
  [
    'text_not_unicode',
    like({ subject: '"\\udc00\\ud800"' }),
    'subject',
    like({ subject: '"\\uD83D\\uDE00"' }),
  ],
  ['text_not_unicode', like({ type: '"\\ud800\\ud800\\udc00"' }), 'type', like({ type: '"\\ud7ff\\ue000"' })],
  ['text_not_unicode', data('"a":"\\udc00"'), 'data.a', data('"a":"\\ud83d\\ude00"')],
  ['text_not_unicode', data('"\\udc00":1'), 'data.\\udc00', data('"\\\\udc00":1')],
  ['text_not_unicode', data('"l":["\\ud800"]'), 'data.l', data('"l":["\\\\ud800"]')],
  ['text_not_unicode', data('"l":[{"\\ud800":1}]'), 'data.l', data('"l":["\\u0000"]')],
  ['text_not_unicode', envelope({ ext: '"\\ud800"' }), 'ext', envelope({ ext: '"\\u0000"' })],
  ['text_has_control', like({ id: '"a\\nb"' }), 'id', like({ id: '"a\\/b"' })],
  ['text_has_control', like({ source: '"\\u0000"' }), 'source', like({ source: '"\\u0020"' })],
  ['text_has_control', like({ type: '"\u007f"' }), 'type', like({ type: '"~"' })],
  ['text_has_control', like({ type: '"\\u007f"' }), 'type', like({ type: '"\\u007e"' })],
  ['text_has_control', like({ subject: '"a\u0085"' }), 'subject', like({ subject: '"a\u00a0"' })],
  ['text_has_control', like({ subject: '"\\u009f"' }), 'subject', like({ subject: '"\\u00c2"' })],
  ['time_not_rfc3339', like({ time: '"2026-11-21"' }), 'time', like({ time: '"2026-11-21T08:00:00Z"' })],
  ['time_not_rfc3339', like({ time: '""' }), 'time', like({ time: 'null' })],
  ['time_not_rfc3339', like({ time: '"\\ud800"' }), 'time', like({ time: '"2026\\u002d11-21t08:00:00z"' })],
  ['time_too_old', like({ time: at(NOW - 30 * DAY_MS - 1) }), 'time', like({ time: at(NOW - 30 * DAY_MS) })],
  ['time_too_far_ahead', like({ time: at(NOW + 3_600_001) }), 'time', like({ time: at(NOW + 3_600_000) })],
  ['data_not_an_object', like({ data: '[1]' }), 'data', like({ data: 'null' })],
  ['data_not_an_object', like({ data: '"x"' }), 'data', like({ data: '{}' })],
  ['data_not_an_object', like({ data: '0' }), 'data', like({ data: '{ }' })],
  ['data_not_json', like({ data_base64: '"AA=="' }), '', like({ data_base64: 'null' })],
  ['data_not_json', envelope({ data_base64: '"AA=="' }), '', envelope()],
  [
    'data_not_json',
    envelope({ datacontenttype: '"text/plain"' }),
    '',
    envelope({ datacontenttype: '"text/json"' }),
  ],
  [
    'data_not_json',
    envelope({ datacontenttype: '"application/jsonx"' }),
    '',
    envelope({ datacontenttype: '"application/x+json; a=b"' }),
  ],
  [
    'data_not_json',
    envelope({ datacontenttype: '""' }),
    '',
    envelope({ datacontenttype: '"Application/JSON"' }),
  ],
  ['data_too_deep', like({ data: nested(9) }), 'data.a.a', like({ data: nested(8) })],
  ['data_too_deep', like({ data: nested(9, '{"b":1}') }), 'data.a.a', like({ data: nested(8, '{}') })],
  [
    'data_too_deep',
    like({ data: nested(1, '[[[[[[[[]]]]]]]]') }),
    'data.a',
    like({ data: nested(1, '[[[[[[[]]]]]]]') }),
  ],
  ['data_too_deep', like({ data: nested(7, '[{}]') }), 'data.a', like({ data: nested(6, '[{}]') })],
  ['data_too_many_fields', data(fields(65)), 'data.f64', data(fields(64))],
  ['data_too_many_fields', data(`${fields(64)},"o":{"p":1}`), 'data.o.p', data(`${fields(63)},"o":{"p":1}`)],
  ['data_path_too_long', data(`"${'k'.repeat(257)}":1`), 'data.kkk', data(`"${'k'.repeat(256)}":1`)],
  ['data_path_too_long', data(`"${'ü'.repeat(129)}":1`), 'data.ü', data(`"${'ü'.repeat(128)}":1`)],
  [
    'data_path_too_long',
    data(`"aa":{"${'k'.repeat(254)}":1}`),
    'data.aa.k',
    data(`"aa":{"${'k'.repeat(253)}":1}`),
  ],
  ['data_path_repeated', data('"a":{"b":1},"a.b":1'), 'data.a.b', data('"a":{"b":1},"a.b.c":1')],
  ['data_path_repeated', data('"a.b":1,"a":{"b":1}'), 'data.a.b', data('"a.b":{"c":1},"a":{"b":1}')],
  ['data_path_repeated', data('"":{"":1},".":1'), 'data..', data('"":{"":1},"..":1')],
  ['number_not_exact', data('"n":1e-10'), 'data.n', data('"n":1e-9')],
  ['number_not_exact', data('"n":9007199254740992'), 'data.n', data('"n":9007199254740991')],
  ['number_not_exact', data('"n":-9007199254740993'), 'data.n', data('"n":-9007199254740991')],
  ['number_not_exact', data('"n":1e400'), 'data.n', data('"n":0e400')],
  ['number_not_exact', data('"n":0.10000000000000000555'), 'data.n', data('"n":0.10000000000000000000')],
  ['type_reserved', like({ type: '"tallyline.x"' }), 'type', like({ type: '"tallyline"' })],
  [
    'type_reserved',
    like({ type: '"tallyline.void"' }),
    'type',
    like({ type: '"tallyline.void"', voids: '"e"' }),
  ],
  ['type_reserved', amend({ type: '"tallyline.void"' }), 'type', amend({})],
  ['type_reserved', like({ type: '"\\u0074allyline."' }), 'type', like({ type: '"Tallyline."' })],
  ['void_has_type', like({ voids: '"e-0"' }), 'type', theVoid({ type: '"tallyline.void"' })],
  ['void_has_type', theVoid({ type: '"tallyline.amend"' }), 'type', theVoid({ type: '""' })],
  ['correction_ambiguous', amend({ voids: '"e-0"' }), 'amends', amend({ voids: 'null' })],
  ['correction_ambiguous', theVoid({ amends: '"e-1"' }), 'amends', theVoid({ amends: 'null' })],
  ['field_missing', theVoid({ voids: '""' }), 'voids', theVoid({ subject: '""', data: 'null' })],
  ['field_missing', amend({ amends: '""' }), 'amends', amend({ data: null })],
  ['field_missing', amend({ subject: null }), 'subject', theVoid({})],
  ['field_missing', amend({ type: null }), 'type', theVoid({ type: 'null' })],
  ['field_missing', theVoid({ id: null }), 'id', theVoid({ source: null })],
  ['field_not_text', theVoid({ voids: '7' }), 'voids', theVoid({ voids: '"7"' })],
  ['field_not_text', amend({ amends: '["e-0"]' }), 'amends', amend({ amends: '"[]"' })],
  ['field_not_text', theVoid({ subject: '7' }), 'subject', theVoid({ subject: '"7"' })],
  [
    'field_too_long',
    theVoid({ voids: quoted('x'.repeat(257)) }),
    'voids',
    theVoid({ voids: quoted('x'.repeat(256)) }),
  ],
  [
    'field_too_long',
    amend({ amends: quoted('ü'.repeat(129)) }),
    'amends',
    amend({ amends: quoted('ü'.repeat(128)) }),
  ],
  ['text_not_unicode', theVoid({ voids: '"\\ud800"' }), 'voids', theVoid({ voids: '"\\ud83d\\ude00"' })],
  ['text_has_control', amend({ amends: '"a\\nb"' }), 'amends', amend({ amends: '"a b"' })],
  ['key_repeated', theVoid({}).replace('{', '{"voids":"e-0",'), 'voids', theVoid({})],
  ['key_repeated', amend({}).replace('{', '{"amends":null,'), 'amends', amend({})],
  ['data_path_reserved', data('"tallyline":1'), 'data.tallyline', data('"tallyline2":1')],
  ['data_path_reserved', data('"tallyline":{"voids":"e"}'), 'data.tallyline', data('"a":{"tallyline":1}')],
  ['data_path_reserved', data('"tallyline.target":"x"'), 'data.tallyline.target', data('"tally.line":1')],
  ['data_path_reserved', data('"t\\u0061llyline":{}'), 'data.t', data('"l":[{"tallyline":1}]')],
  ['data_path_reserved', amend({ data: '{"tallyline.amends":"e"}' }), 'data.tallyline.amends', amend({})],
  // 26 bytes are id, source, type and subject, 4 the path.
  [
    'event_too_large',
    data(`"text":"${'x'.repeat(65_536 - 30 + 1)}"`),
    '',
    data(`"text":"${'x'.repeat(65_536 - 30)}"`),
  ],
  [
    'event_too_large',
    data(`"text":"${'x'.repeat(65_536 - 39 + 1)}","n":1`),
    '',
    data(`"text":"${'x'.repeat(65_536 - 39)}","n":1`),
  ],
  [
    'event_too_large',
    data(`"list":["${'x'.repeat(65_536 - 34 + 1)}"]`),
    '',
    data(`"list":  [ "${'x'.repeat(65_536 - 34)}" ]`),
  ],
];

test.each(CASES.map((one) => [one[0], one[1].slice(0, 80), one] as const))('%s: %s', (_code, _short, one) => {
  const [code, refused, named, neighbour] = one;
  const message = REJECTIONS[code as keyof typeof REJECTIONS].message;
  // Neighbours on both sides are found whatever stands between them.
  const rejected = read(`[${neighbour},${refused},${neighbour}]`);
  expect(rejected).toMatchObject([{ index: 1, code }]);
  expect(batch.count).toBe(2);
  if (named === '') expect(rejected[0]!.message).toBe(message);
  else
    expect(rejected[0]!.message.startsWith(named) && rejected[0]!.message.endsWith(`: ${message}`)).toBe(
      true,
    );
  // Alone, and as a line.
  expect(read(refused.startsWith('[') ? `[${refused}]` : refused)).toMatchObject([{ index: 0, code }]);
  expect(read(`${neighbour}\n${refused}\r\n${neighbour}`, 'ndjson')).toEqual(rejected);
  expect(batch.count).toBe(2);
});

// What is said of a body or a line has its cases in body.test.ts and beside http.ts; msgpack alone can say the last two.
const OF_BODIES = /^(line|body|batch|content)_/;
const OF_MSGPACK = ['key_not_text', 'value_not_json'];

test('every code of the edge about an event has a case', () => {
  const codes = Object.entries(REJECTIONS)
    .filter(([code, { stage }]) => stage === 'edge' && !OF_BODIES.test(code) && !OF_MSGPACK.includes(code))
    .map(([code]) => code);
  expect(codes.filter((code) => !CASES.some(([one]) => one === code))).toEqual([]);
});

test('a CloudEvent must have what CloudEvents requires', () => {
  expect(read(envelope(), 'cloudevents')).toEqual([]);
  expect(read(`[${envelope()},${envelope()}]`, 'cloudevents-batch')).toEqual([]);
  const cases = [
    [like({}), 'field_missing', 'specversion'],
    [like({ specversion: 'null' }), 'field_missing', 'specversion'],
    [envelope({ source: '""' }), 'field_missing', 'source'],
    [envelope({ source: 'null' }), 'field_missing', 'source'],
  ] as const;
  for (const [body, code, named] of cases) {
    expect(read(body, 'cloudevents')).toEqual([
      { index: 0, id: 'e-1', code, message: `${named}: ${REJECTIONS[code].message}` },
    ]);
  }
});

test('one fault an event is told, in an order that does not depend on where it stands', () => {
  // Each fault hides all that come after it.
  const faults: readonly (readonly [string, string, string])[] = [
    ['specversion', '"2"', 'specversion_unknown'],
    ['id', '7', 'field_not_text'],
    ['source', '"\\n"', 'text_has_control'],
    ['voids', '7', 'field_not_text'],
    ['amends', '"\\ud800"', 'text_not_unicode'],
    ['type', '""', 'field_missing'],
    ['subject', '"\\ud800"', 'text_not_unicode'],
    ['time', '"x"', 'time_not_rfc3339'],
    ['unknown', '1', 'field_unknown'],
    ['data_base64', '""', 'data_not_json'],
    ['data', '{"a":1,"a":1}', 'key_repeated'],
  ];
  for (let first = 0; first < faults.length; first++) {
    const broken = Object.fromEntries(faults.slice(first).map(([name, value]) => [name, value]));
    const event = like(broken);
    const reversed = `{${Object.entries({ ...SOUND, ...broken })
      .reverse()
      .map(([name, value]) => `"${name}":${value}`)
      .join(',')}}`;
    for (const body of [event, reversed]) expect(read(body)).toMatchObject([{ code: faults[first]![2] }]);
  }
});

test('of two faults in data the first is told', () => {
  expect(read(data('"a":1e99,"b":"\\ud800"'))).toMatchObject([{ code: 'number_not_exact' }]);
  expect(read(data('"b":"\\ud800","a":1e99'))).toMatchObject([{ code: 'text_not_unicode' }]);
});

test('a refused event is named by its id, also when that comes last or has escapes', () => {
  const id = (body: string): string | null | undefined => read(body)[0]?.id;
  expect(id('{"type":7,"data":[1],"id":"late"}')).toBe('late');
  expect(id('{"data":{"n":1e99,"m":[{"a":1}]},"x":[[]],"id":"\\u006ca\\u0074e\\ud83d\\ude00"}')).toBe(
    'late😀',
  );
  expect(id('{"id":"a","id":"b","type":"t","subject":"s"}')).toBe('a');
  expect(id('{"id":"a\\nb"}')).toBe('a\nb');
  expect(id(`{"id":"${'x'.repeat(256)}"}`)).toBe('x'.repeat(256));
  for (const none of [`"${'x'.repeat(257)}"`, '"\\ud800"', '7', 'null', '{"id":"x"}']) {
    expect(id(`{"id":${none},"type":"t","subject":"s"}`)).toBeNull();
  }
  expect(id('5')).toBeNull();
});

test('an admitted event says what was sent; what it lacks is filled in', () => {
  read(like({ time: '"2026-11-20T10:00:00.1239+01:00"' }));
  expect(eventsOf(batch)).toEqual([
    {
      id: 'e-1',
      source: 'gateway',
      type: 'llm.request',
      subject: 'cus_1',
      timeMs: Date.UTC(2026, 10, 20, 9, 0, 0, 123),
      timeGiven: true,
      fields: [{ path: 'tokens', number: [12, 0] }],
    },
  ]);
  expect(batch.tenant).toEqual(Buffer.from('acme'));
  read('{"id":"e-2","type":"t","subject":"s"}');
  expect(eventsOf(batch)).toMatchObject([{ source: '', timeMs: NOW, timeGiven: false, fields: [] }]);
});

test('a correction is the event that it is in the log: with the original behind what was sent', () => {
  const target = { path: 'tallyline.target', text: '\0'.repeat(36) };
  read(`[${theVoid({})},${amend({ data: null })},${like({})}]`);
  expect(eventsOf(batch)).toEqual([
    {
      id: 'e-1',
      source: 'gateway',
      type: 'tallyline.void',
      subject: '',
      timeMs: NOW,
      timeGiven: false,
      fields: [{ path: 'tokens', number: [12, 0] }, { path: 'tallyline.voids', text: 'e-0' }, target],
    },
    {
      id: 'e-1',
      source: 'gateway',
      type: 'llm.request',
      subject: 'cus_1',
      timeMs: NOW,
      timeGiven: false,
      fields: [{ path: 'tallyline.amends', text: 'e-0' }, target],
    },
    expect.objectContaining({ fields: [{ path: 'tokens', number: [12, 0] }] }),
  ]);
  expect([batch.corrections, ...batch.corrects.subarray(0, 3)]).toEqual([2, 1, 1, 0]);
  // A correction that is refused, and the next body, leave nothing behind.
  read(`[${theVoid({ id: '7' })},${like({})},${amend({ data: '[]' })},${like({})}]`);
  expect([batch.count, batch.corrections, ...batch.corrects.subarray(0, 4)]).toEqual([2, 0, 0, 0, 0, 0]);
});

test('corrections are told from their neighbours in a body of any size', () => {
  const isCorrection = (at: number): boolean => at % 7 === 3 || (at > 1_000 && at < 1_100);
  const events = Array.from({ length: 3_000 }, (_, at) =>
    isCorrection(at) ? theVoid({ id: `"e${at}"`, voids: `"o${at}"` }) : like({ id: `"e${at}"` }),
  );
  expect(read(`[${events.join(',')}]`, 'json', { ...LIMITS, batchEventsMax: 3_000 })).toEqual([]);
  const expected = events.map((_, at) => (isCorrection(at) ? 1 : 0));
  expect([...batch.corrects.subarray(0, batch.count)]).toEqual(expected);
  expect(batch.corrections).toBe(expected.filter((one) => one === 1).length);
  for (const [at, { id, fields: kept }] of eventsOf(batch).entries()) {
    expect(id).toBe(`e${at}`);
    if (isCorrection(at)) expect(kept[1]).toEqual({ path: 'tallyline.voids', text: `o${at}` });
    else expect(kept).toHaveLength(1);
  }
  read(like({}));
  expect([batch.corrections, ...batch.corrects.subarray(0, 3_000)].some((one) => one !== 0)).toBe(false);
});

test('the reserved fields stand beside the limits of what is sent', () => {
  expect(read(theVoid({ data: `{${fields(64)}}` }))).toEqual([]);
  expect(eventsOf(batch)[0]!.fields).toHaveLength(66);
  expect(read(theVoid({ data: `{${fields(65)}}` }))).toMatchObject([{ code: 'data_too_many_fields' }]);
});

test('a CloudEvent has a type, also when it is a void', () => {
  const cloud = (type: string | null): string => theVoid({ specversion: '"1.0"', type });
  expect(read(cloud('"tallyline.void"'), 'cloudevents')).toEqual([]);
  expect(read(cloud(null), 'cloudevents')).toMatchObject([{ code: 'field_missing' }]);
  expect(read(cloud(null), 'json')).toEqual([]);
});

test('what an extension says is not kept', () => {
  read(envelope({ traceparent: '"00-ab"', sampled: '1' }));
  expect(eventsOf(batch)).toEqual([
    expect.objectContaining({ fields: [{ path: 'tokens', number: [12, 0] }] }),
  ]);
});

test('a long path is cut in the message', () => {
  const messages = [data(`"${'k'.repeat(10_000)}":1`), like({ ['x'.repeat(10_000)]: '1' })].map(
    (body) => read(body)[0]!.message,
  );
  for (const message of messages) expect(message.length).toBeLessThan(300);
});

test('nothing older than 1970 is admitted, however wide the window', () => {
  const wide = { eventAgeDaysMax: 1_000_000, eventAheadSecondsMax: 0, batchEventsMax: 1 };
  expect(read(like({ time: '"1970-01-01T00:30:00+01:00"' }), 'json', wide)).toMatchObject([
    { code: 'time_too_old' },
  ]);
  expect(read(like({ time: '"1970-01-01T01:00:00+01:00"' }), 'json', wide)).toEqual([]);
});

test('an event is not weighed when its bytes cannot be too many, and weighed when they may be', () => {
  // A path of 200 bytes below which there are 64 fields: few bytes read, more than three times as many kept.
  const heavy = (fieldCount: number, text: number): string =>
    data(
      `"${'p'.repeat(200)}":{${Array.from({ length: fieldCount }, (_, n) => `"${n}":"${'v'.repeat(text)}"`).join(',')}}`,
    );
  expect(heavy(64, 850).length).toBeLessThan(65_536);
  expect(read(heavy(64, 850))).toMatchObject([{ code: 'event_too_large' }]);
  expect(read(heavy(64, 800))).toEqual([]);
});

test('a draft of a reader that knows no bound and no plain texts is admitted all the same', () => {
  const draft = new Draft();
  const body = Buffer.from('idtypesubject\u0085');
  const admission = new Admission(LIMITS);
  batch.reset(body, Buffer.from('acme'));
  draft.begin();
  draft.setText(0, 0, 2);
  draft.setText(2, 2, 6);
  draft.setText(3, 6, 13);
  expect(admission.admit(batch, draft, false, NOW)).toBeNull();
  batch.commit();
  expect(eventsOf(batch)).toMatchObject([{ id: 'id', source: '', type: 'type', subject: 'subject' }]);
  draft.setText(3, 6, 15);
  expect(admission.admit(batch, draft, false, NOW)).toBe('text_has_control');
  expect(admission.message('text_has_control')).toMatch(/^subject: /);
  draft.begin();
  expect(admission.admit(batch, draft, false, NOW)).toBe('field_missing');
});
