import fc from 'fast-check';
import { Packr, pack } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { DAY_MS } from '../../contract/window.ts';
import { eventsOf, type PlainField } from '../../test/batch-events.ts';
import { judge, type Node } from '../../test/json-model.ts';
import {
  announced,
  array,
  binary,
  bool,
  encodeNode,
  extension,
  float32,
  float64,
  integer,
  integerForms,
  map,
  nil,
  object,
  raw,
  text,
  type Bytes,
} from '../../test/msgpack-encoder.ts';
import { Admission } from './admit.ts';
import { readBody, type BodyContext, type BodyOutcome } from './body.ts';
import { MeterBook } from '../tenant/meters.ts';
import { readMsgpack } from './msgpack.ts';

// What is read is compared with a model that shares no code with the reader, with the reader of JSON, and with what
// was packed. fast-check prints the seed of a run that fails. One batch serves all runs: what is remembered of one
// body must not change the next.

const NOW = Date.UTC(2026, 10, 21, 8, 31);
const context: BodyContext = {
  admission: new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 3_600, batchEventsMax: 1_000 }),
  meters: new MeterBook(),
  tenant: 'acme',
  tenantBytes: Buffer.from('acme'),
  nowMs: NOW,
};
const batch = new EventBatch();
const read = (body: Bytes): BodyOutcome => readMsgpack(body, context, batch);
const plain = new Packr({ useRecords: false });

const attributes = { id: text('e1'), type: text('request'), subject: text('customer_1') };
const withData = (data: Bytes): Bytes => object({ ...attributes, data });
const withValue = (value: Bytes): Bytes => withData(object({ value }));

/** What became of one event that was read: its fields, or why not. */
function fate(body: Bytes): readonly PlainField[] | { code: string; message: string } {
  const outcome = read(body);
  if (!outcome.read) return { code: outcome.code, message: outcome.message };
  const [rejected] = outcome.rejected;
  if (rejected !== undefined) return { code: rejected.code, message: rejected.message };
  return eventsOf(batch)[0]!.fields;
}
const codeOf = (body: Bytes): string => {
  const found = fate(body);
  return 'code' in found ? found.code : 'admitted';
};
const valueIn = (body: Bytes): PlainField => (fate(body) as readonly PlainField[])[0]!;

// ---- Events as trees of tokens, as the model takes them.

const asText = (value: string): Node & { kind: 'string' } => ({
  kind: 'string',
  raw: JSON.stringify(value),
  value,
});
const word = fc.constantFrom('true', 'false', 'null').map((one): Node => ({ kind: 'word', raw: one }));
const oddText = fc.oneof(
  { weight: 4, arbitrary: fc.string({ maxLength: 12 }) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 40 }) },
  fc.constantFrom(
    'ü',
    '日本',
    '\u{1f600}',
    '\ud800',
    'a\udc00',
    '\u007f',
    '\u0085',
    'a\nb',
    '"',
    '\\',
    '\0',
    '\ufeff',
  ),
  fc.constantFrom(...[31, 32, 255, 256, 257].map((length) => 'x'.repeat(length))),
);
const string = oddText.map(asText);
/** With at most 15 significant digits and nine decimals. */
const exact = fc.oneof(
  fc.maxSafeInteger().map(String),
  fc.integer({ min: -200, max: 70_000 }).map(String),
  fc
    .tuple(fc.integer({ min: -(10 ** 9), max: 10 ** 9 }), fc.integer({ min: 1, max: 9 }))
    .map(([digits, scale]) => String(digits / 10 ** scale)),
);
const inexact = fc.oneof(
  fc.constantFrom('9007199254740992', '-9007199254740993', '18446744073709551615', '-9223372036854775808'),
  fc.constantFrom('1e-10', '1e+21', '1e+300', '5e-324', '0.30000000000000004', '123456789.0123456'),
);
const toNumber = (digits: string): Node => ({ kind: 'number', raw: digits });
const KEYS = ['a', 'b', 'c', 'd', 'a.b', 'b.a', '', '.', '__proto__', 'ü'];
const key = fc.oneof({ weight: 12, arbitrary: fc.constantFrom(...KEYS) }, oddText).map(asText);
const toObject = (entries: readonly (readonly [Node & { kind: 'string' }, Node])[]): Node => ({
  kind: 'object',
  entries,
});
const { value, data } = fc.letrec<{ item: Node; value: Node; data: Node }>((tie) => {
  const items = fc.array(tie('item'), { maxLength: 18 }).map((all): Node => ({ kind: 'array', items: all }));
  return {
    // In an array the model lets every number pass, so there are exact ones only.
    item: fc.oneof(
      { maxDepth: 9, depthSize: 'small' },
      string,
      exact.filter((digits) => digits !== '-0').map(toNumber),
      word,
      items,
      fc.array(fc.tuple(key, tie('item')), { maxLength: 20 }).map(toObject),
    ),
    value: fc.oneof(
      { maxDepth: 9, depthSize: 'small' },
      { weight: 3, arbitrary: string },
      { weight: 4, arbitrary: exact.map(toNumber) },
      { weight: 1, arbitrary: inexact.map(toNumber) },
      word,
      items,
      tie('data'),
    ),
    data: fc.array(fc.tuple(key, tie('value')), { maxLength: 6 }).map(toObject),
  };
});
const chain = (depth: number, last: Node): Node =>
  depth === 0 ? last : toObject([[asText('deep'), chain(depth - 1, last)]]);
const anyData = fc.oneof(
  { weight: 6, arbitrary: data },
  fc.tuple(fc.integer({ min: 5, max: 10 }), value).map(([depth, last]) => chain(depth, last)),
  fc
    .integer({ min: 60, max: 68 })
    .map((count) => toObject(Array.from({ length: count }, (_, at) => [asText(`f${at}`), toNumber('1')]))),
  word,
  string,
);
const anyTime = fc.constantFrom(
  '2026-11-21T08:30:00Z',
  '2026-11-20T23:59:59.123Z',
  '2026-11-21T10:00:00.5+02:00',
  '2020-01-01T00:00:00Z',
  '2027-01-01T00:00:00Z',
  '2026-02-30T00:00:00Z',
  'now',
  '',
);
const attribute = (name: string): fc.Arbitrary<Node> =>
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.string({ minLength: 1, maxLength: 40 }).map((one) => asText(`${name}${one}`)),
    },
    value,
  );
const entry = (
  name: string,
  one: fc.Arbitrary<Node>,
): fc.Arbitrary<readonly [Node & { kind: 'string' }, Node]> =>
  one.map((node) => [asText(name), node] as const);
const other = fc.oneof(
  entry('specversion', fc.constantFrom(asText('1.0'), asText('1.0'), asText('0.3'), toNumber('1'))),
  entry(
    'datacontenttype',
    fc.oneof(fc.constantFrom('application/json', 'text/xml', 'a/b+json').map(asText), value),
  ),
  entry('dataschema', value),
  entry('data_base64', value),
  entry('traceparent', value),
  fc.tuple(key, value),
  entry('id', attribute('id')),
);
const anyEvent = fc.oneof(
  {
    weight: 12,
    arbitrary: fc
      .tuple(
        entry('id', attribute('id')),
        entry('type', attribute('type')),
        entry('subject', attribute('subject')),
        fc.array(
          fc.oneof(
            { weight: 6, arbitrary: entry('data', anyData) },
            { weight: 3, arbitrary: entry('source', attribute('source')) },
            { weight: 3, arbitrary: entry('time', fc.oneof(anyTime.map(asText), value)) },
            { weight: 1, arbitrary: other },
          ),
          { maxLength: 4 },
        ),
        fc.nat(40),
      )
      .chain(([id, type, subject, more, left]) => {
        const all = [id, type, subject, ...more];
        if (left < 3) all.splice(left, 1);
        return fc.shuffledSubarray(all, { minLength: all.length });
      })
      .map(toObject),
  },
  value,
);

/** Numbers that a double cannot hold are, for the model, such as nothing can. */
function asSent(node: Node): Node {
  switch (node.kind) {
    case 'number': {
      const digits = node.raw.replace(/e.*$/, '').replace(/[-.]/g, '').replace(/^0+/, '');
      return node.raw.includes('.') && digits.length > 15 ? toNumber('1e-400') : node;
    }
    case 'array':
      return { kind: 'array', items: node.items.map(asSent) };
    case 'object':
      return toObject(node.entries.map(([name, one]) => [name as Node & { kind: 'string' }, asSent(one)]));
    default:
      return node;
  }
}

/** Choices that were drawn beforehand, one after the other. */
const choices = fc.array(fc.nat(), { minLength: 1, maxLength: 30 }).map((drawn) => {
  let at = 0;
  return (below: number): number => drawn[at++ % drawn.length]! % below;
});

describe('what is in the batch is what was sent', () => {
  test('events in every form of msgpack meet the fate that the model gives them', () => {
    const limits = { nowMs: NOW, ageMsMax: 30 * DAY_MS, aheadMsMax: 3_600_000, requireSpecversion: false };
    let admitted = 0;
    const codes = new Set<string>();
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 3 }), choices, (events, choose) => {
        const outcome = read(array(events.map((event) => encodeNode(event, choose))));
        const verdicts = events.map((event) => judge(asSent(event), limits));
        expect(eventsOf(batch)).toEqual(
          verdicts.flatMap((verdict) => ('event' in verdict ? [verdict.event] : [])),
        );
        expect(outcome).toMatchObject({
          read: true,
          unmatched: batch.count,
          rejected: verdicts.flatMap((verdict, index) => ('code' in verdict ? [{ index, ...verdict }] : [])),
        });
        admitted += batch.count;
        for (const verdict of verdicts) if ('code' in verdict) codes.add(verdict.code);
      }),
      { numRuns: 1_000 },
    );
    // The events are varied enough to mean something.
    expect(admitted).toBeGreaterThan(100);
    expect(codes.size).toBeGreaterThan(10);
  });

  test('the same events are the same columns, packed by msgpackr or written as JSON', () => {
    const scalar = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.boolean(),
      fc.constant(null),
      exact.map(Number),
    );
    const tree = fc.oneof(
      { weight: 3, arbitrary: fc.dictionary(fc.string({ maxLength: 8 }), scalar, { maxKeys: 6 }) },
      fc.object({
        key: fc.string({ maxLength: 6 }),
        values: [scalar],
        maxDepth: 3,
        maxKeys: 4,
        withNullPrototype: false,
      }),
    );
    const event = fc.record(
      {
        id: fc.uuid(),
        source: fc.constantFrom('gateway', ''),
        type: fc.constantFrom('request', 'request\u0007'),
        subject: fc.oneof(fc.string({ minLength: 1 }), fc.integer()),
        time: fc.constantFrom('2026-11-21T08:30:00.250Z', 'yesterday', null),
        data: tree,
      },
      { requiredKeys: ['id', 'type', 'subject'] },
    );
    const json = new EventBatch();
    fc.assert(
      fc.property(fc.array(event, { maxLength: 4 }), fc.boolean(), (events, variableMapSize) => {
        // JSON has no -0.
        const sent = JSON.parse(JSON.stringify(events)) as unknown[];
        const packed = new Packr({ useRecords: false, variableMapSize }).pack(sent);
        const outcome = read(packed);
        expect(outcome).toEqual(readBody(Buffer.from(JSON.stringify(sent)), 'json', context, json));
        expect(eventsOf(batch)).toEqual(eventsOf(json));
      }),
      { numRuns: 500 },
    );
  });

  test('one map is one event, and a body may stand anywhere in its memory', () => {
    const body = object({ ...attributes, source: text('gateway') });
    const memory = new Uint8Array(body.length + 40).fill(0xc1);
    memory.set(body, 13);
    expect(read(memory.subarray(13, 13 + body.length))).toEqual({ read: true, unmatched: 1, rejected: [] });
    expect(eventsOf(batch)).toEqual([
      {
        id: 'e1',
        source: 'gateway',
        type: 'request',
        subject: 'customer_1',
        timeMs: NOW,
        timeGiven: false,
        fields: [],
      },
    ]);
    expect(read(array([]))).toEqual({ read: true, unmatched: 0, rejected: [] });
    expect(batch.count).toBe(0);
  });

  test('an integer is exact in every width, up to 2^53 - 1 either way', () => {
    const edges = [0n, 1n, 127n, 128n, 255n, 256n, 65_535n, 65_536n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n];
    for (const magnitude of edges) {
      for (const value of [magnitude, -magnitude, 1n - magnitude]) {
        for (const form of integerForms(value)) {
          expect(valueIn(withValue(integer(value, form))), `${value} as ${form}`).toEqual({
            path: 'value',
            number: [Number(value), 0],
          });
        }
      }
    }
    for (const value of [2n ** 53n, -(2n ** 53n), 2n ** 63n - 1n, -(2n ** 63n), 2n ** 64n - 1n]) {
      for (const form of integerForms(value)) {
        expect(codeOf(withValue(integer(value, form))), `${value} as ${form}`).toBe('number_not_exact');
        expect(codeOf(withValue(array([integer(value, form)]))), `${value} as ${form}`).toBe(
          'number_not_exact',
        );
      }
    }
  });

  test.each([
    [float64(0.1), [1, 1]],
    [float64(-0), [0, 0]],
    [float64(1e15), [1e15, 0]],
    [float64(2 ** 53 - 1), [2 ** 53 - 1, 0]],
    [float64(1e-9), [1, 9]],
    [float64(-123456.789012345), [-123456789012345, 9]],
    [float32(0.5), [5, 1]],
    [float32(-3), [-3, 0]],
    [float64(2 ** 53), null],
    [float64(0.1 + 0.2), null],
    [float64(1e-10), null],
    [float64(1234567.123456789), null],
    [float32(0.1), null], // 0.100000001490116…: half the digits of a double are no decimal that anyone sent
    [float64(NaN), null],
    [float64(-Infinity), null],
  ] as const)('a float is the decimal that it was made of, or refused: %#', (bytes, expected) => {
    if (expected === null) {
      expect(codeOf(withValue(bytes))).toBe('number_not_exact');
      expect(codeOf(withValue(array([bytes])))).toBe('number_not_exact');
    } else {
      expect(valueIn(withValue(bytes))).toEqual({ path: 'value', number: expected });
    }
  });

  test('an array is the text that JSON.stringify writes', () => {
    const items = [
      [],
      {},
      [null, true, false],
      { 'a"b': 'line\nbreak', 'ü\u0001': '\u007f\u2028\u{1f600}\\/' },
      [0, -1, 127, 1e15, 0.000001, 1e-7, 1.5, -2.25, 2 ** 53 - 1, 4_294_967_295],
      Array.from({ length: 20 }, (_, at) => String.fromCharCode(at)),
    ];
    expect(valueIn(plain.pack({ id: 'e1', type: 't', subject: 's', data: { items } }))).toEqual({
      path: 'items',
      literal: JSON.stringify(items),
    });
    expect(valueIn(withValue(array([float64(-0)])))).toEqual({ path: 'value', literal: '[0]' });
  });
});

describe('what is not JSON is refused event by event', () => {
  const deep = (depth: number, last: Bytes): Bytes => (depth === 0 ? last : array([deep(depth - 1, last)]));
  const deepMap = (depth: number, last: Bytes): Bytes =>
    depth === 0 ? last : object({ a: deepMap(depth - 1, last) });
  const twice = map([
    [text('k'), nil],
    [text('k', 16), nil],
  ]);
  const many = (count: number, repeated: number): Bytes =>
    map(Array.from({ length: count }, (_, at) => [text(`k${at === count - 1 ? repeated : at}`), nil]));
  const cases: Readonly<Record<string, readonly [event: Bytes, code: string, field: string]>> = {
    'no map': [integer(5, 'fix'), 'event_not_an_object', ''],
    'an array': [array([withData(nil)]), 'event_not_an_object', ''],
    nil: [nil, 'event_not_an_object', ''],
    'a binary for an event': [binary(Buffer.from('{}')), 'value_not_json', ''],
    'an extension for an event': [extension(5, new Uint8Array(300), 16), 'value_not_json', ''],
    'a number for a key': [map([[integer(1, 'fix'), nil], ...entriesOf()]), 'key_not_text', ''],
    'a map for a key': [map([...entriesOf(), [object({ id: nil }), nil]]), 'key_not_text', ''],
    'a number for a key in data': [
      withData(map([[integer(1, 'u64'), object({ a: nil })]])),
      'key_not_text',
      'data',
    ],
    'a binary for a key in data': [
      withData(object({ a: map([[binary(Buffer.from('k')), nil]]) })),
      'key_not_text',
      'data.a',
    ],
    'nil for a key in an array': [withValue(array([map([[nil, nil]])])), 'key_not_text', 'data.value'],
    'a binary value': [withValue(binary(Buffer.from('abc'), 32)), 'value_not_json', 'data.value'],
    'a timestamp': [withValue(extension(-1, new Uint8Array(4), 'fix')), 'value_not_json', 'data.value'],
    'a long extension in an array': [
      withValue(array([extension(1, new Uint8Array(70_000), 32)])),
      'value_not_json',
      'data.value',
    ],
    'data that is binary': [withData(binary(Buffer.from('{}'))), 'value_not_json', 'data'],
    'data that is an array': [withData(array([nil])), 'data_not_an_object', 'data'],
    'an attribute that is binary': [
      object({ ...attributes, id: binary(Buffer.from('e1')) }),
      'field_not_text',
      'id',
    ],
    'a time that is a timestamp': [
      object({ ...attributes, time: extension(-1, new Uint8Array(8), 'fix') }),
      'field_not_text',
      'time',
    ],
    'an extension attribute that is binary': [
      object({ ...attributes, specversion: text('1.0'), trace: binary(Buffer.from('x')) }),
      'value_not_json',
      'trace',
    ],
    'a repeated attribute': [map([...entriesOf(), [text('id', 32), text('e2')]]), 'key_repeated', 'id'],
    'a repeated key in data': [withData(twice), 'key_repeated', 'data.k'],
    'a repeated key below': [withData(object({ a: twice })), 'key_repeated', 'data.a.k'],
    'a repeated key in an array': [withValue(array([nil, twice])), 'key_repeated', 'data.value'],
    'a repeated key among thousands': [withValue(array([many(5_000, 17)])), 'key_repeated', 'data.value'],
    'one path twice': [
      withData(object({ 'a.b': nil, a: object({ b: bool(true) }) })),
      'data_path_repeated',
      'data.a.b',
    ],
    'bytes that are no UTF-8': [withValue(raw(Uint8Array.of(0x61, 0xff))), 'text_not_unicode', 'data.value'],
    'a lone surrogate': [withValue(text('\ud800')), 'text_not_unicode', 'data.value'],
    'an overlong form': [
      withValue(raw(Uint8Array.of(0x61, 0x61, 0x61, 0x61, 0xc0, 0x80))),
      'text_not_unicode',
      'data.value',
    ],
    'a cut character': [withValue(raw(Uint8Array.of(0x61, 0xe2, 0x82))), 'text_not_unicode', 'data.value'],
    'a key that is no UTF-8': [
      withData(map([[raw(Uint8Array.of(0x80)), nil]])),
      'text_not_unicode',
      'data.\ufffd',
    ],
    'a key in an array that is no UTF-8': [
      withValue(array([map([[raw(Uint8Array.of(0x80)), nil]])])),
      'text_not_unicode',
      'data.value',
    ],
    'a subject that is no UTF-8': [
      object({ ...attributes, subject: raw(Uint8Array.of(0xf8)) }),
      'text_not_unicode',
      'subject',
    ],
    'a control character': [object({ ...attributes, type: text('a\u0085b') }), 'text_has_control', 'type'],
    'a source of one DEL': [object({ ...attributes, source: text('a\u007f') }), 'text_has_control', 'source'],
    'maps nine deep': [withData(deepMap(9, nil)), 'data_too_deep', `data${'.a'.repeat(8)}`],
    'arrays nine deep': [withValue(deep(8, nil)), 'data_too_deep', 'data.value'],
    'a path of 257 bytes': [
      withData(object({ a: object({ ['b'.repeat(255)]: nil }) })),
      'data_path_too_long',
      `data.a.${'b'.repeat(113)}…`,
    ],
    '65 fields': [
      withData(object(Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`f${at}`, nil])))),
      'data_too_many_fields',
      'data.f64',
    ],
    'a text of 64 KiB': [withValue(text('x'.repeat(65_536))), 'event_too_large', ''],
    'an array whose text is 64 KiB': [
      withValue(array(Array.from({ length: 13_200 }, () => nil))),
      'event_too_large',
      'data.value',
    ],
    'control characters that become 64 KiB': [
      withValue(array([text('\0'.repeat(11_000))])),
      'event_too_large',
      '',
    ],
    'an unknown field': [object({ ...attributes, quantity: integer(1, 'fix') }), 'field_unknown', 'quantity'],
  };
  function entriesOf(): [Bytes, Bytes][] {
    return Object.entries(attributes).map(([name, value]) => [text(name), value]);
  }

  test.each(Object.entries(cases))('%s', (_, [event, code, field]) => {
    const neighbour = (id: string): Bytes =>
      object({ ...attributes, id: text(id), data: object({ n: integer(1, 'fix') }) });
    const outcome = read(array([neighbour('before'), event, neighbour('behind')], 32));
    expect(outcome).toMatchObject({ read: true, rejected: [{ index: 1, code }] });
    const message = outcome.read ? outcome.rejected[0]!.message : '';
    if (field !== '') expect(message.startsWith(`${field}: `), message).toBe(true);
    const fields = [{ path: 'n', number: [1, 0] }];
    expect(eventsOf(batch)).toMatchObject([
      { id: 'before', fields },
      { id: 'behind', fields },
    ]);
  });

  test('limits are reached: 8 levels, 64 fields, 256 bytes of path, 64 KiB', () => {
    expect(codeOf(withData(deepMap(8, nil)))).toBe('admitted');
    expect(codeOf(withData(deepMap(8, object({}))))).toBe('admitted');
    expect(codeOf(withValue(deep(7, nil)))).toBe('admitted');
    expect(codeOf(withData(object({ a: object({ ['b'.repeat(254)]: nil }) })))).toBe('admitted');
    const full = Object.fromEntries(Array.from({ length: 64 }, (_, at) => [`f${at}`, nil]));
    expect(codeOf(withData(object(full)))).toBe('admitted');
    const kept = 'e1'.length + 'request'.length + 'customer_1'.length + 'value'.length;
    expect(codeOf(withValue(text('x'.repeat(65_536 - kept))))).toBe('admitted');
    expect(codeOf(withValue(text('x'.repeat(65_537 - kept))))).toBe('event_too_large');
    const breaks = (65_536 - kept - '[""]'.length) / 2; // each of them becomes two characters
    expect(codeOf(withValue(array([text('\n'.repeat(breaks))])))).toBe('admitted');
    expect(codeOf(withValue(array([text('\n'.repeat(breaks + 1))])))).toBe('event_too_large');
  });

  test('a refused event is named by its id, also when the id stands behind the fault', () => {
    const late = map([[text('data'), object({ a: binary(Buffer.from('x')) })], ...entriesOf()]);
    expect(read(late)).toMatchObject({ rejected: [{ index: 0, id: 'e1', code: 'value_not_json' }] });
    const tooLong = object({ ...attributes, id: text('x'.repeat(257)) });
    expect(read(tooLong)).toMatchObject({ rejected: [{ id: null, code: 'field_too_long' }] });
  });
});

describe('a body that is not msgpack counts for nothing', () => {
  const good = object(attributes);
  const whole = array([
    good,
    withData(object({ a: array([text('x'), float64(1.5)]), b: integer(7, 'u64') })),
    good,
    withValue(array([extension(9, Uint8Array.of(1, 2), 8)])),
    withData(object({ a: array([text('the last bytes of all')]) })),
  ]);

  test('however early it ends', () => {
    for (let length = 0; length < whole.length; length++) {
      const outcome = read(whole.slice(0, length));
      expect(outcome, `${length} bytes`).toEqual({
        read: false,
        code: 'body_not_msgpack',
        message: 'The body is not msgpack (it ends too early).',
      });
      expect(batch.count).toBe(0);
    }
    expect(read(whole)).toMatchObject({ read: true, rejected: [{ index: 3 }] });
  });

  test('when more stands behind it', () => {
    const outcome = read(Uint8Array.of(...whole, 0xc0));
    expect(outcome).toMatchObject({ read: false, code: 'body_not_msgpack' });
    expect(outcome.read ? '' : outcome.message).toContain(`before byte ${whole.length},`);
    expect(batch.count).toBe(0);
  });

  test('when a byte is 0xc1, in an event that is refused as well', () => {
    for (const place of [
      (bad: Bytes): Bytes => array([good, bad]),
      (bad: Bytes): Bytes => array([good, withValue(bad)]),
      (bad: Bytes): Bytes => array([good, withValue(array([array([bad])]))]),
      (bad: Bytes): Bytes => array([good, withData(map([[nil, object({ a: bad })]]))]),
      (bad: Bytes): Bytes => array([good, object({ ...attributes, id: bad })]),
      (bad: Bytes): Bytes => array([good, object({ ...attributes, other: array([bad]) })]),
    ]) {
      const body = place(Uint8Array.of(0xc1));
      const outcome = read(body);
      expect(outcome).toMatchObject({ read: false, code: 'body_not_msgpack' });
      expect(outcome.read ? '' : outcome.message).toContain(`the fault is at byte ${body.indexOf(0xc1)}`);
      expect(batch.count).toBe(0);
    }
  });

  test('when it announces more than it has: nothing is made for what is not there', () => {
    const small = new EventBatch();
    for (const head of [
      announced('array', 0xffff_ffff, 32),
      announced('map', 0xffff_ffff, 32),
      announced('array', 10_000_000, 32),
      announced('map', 0xffff, 16),
      Uint8Array.of(0xdb, 0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0xc6, 0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0xc9, 0xff, 0xff, 0xff, 0xff, 0x01),
    ]) {
      for (const body of [
        head,
        array([withValue(head)]),
        array([withValue(array([head]))]),
        withData(head),
      ]) {
        expect(readMsgpack(body, context, small)).toMatchObject({ read: false, code: 'body_not_msgpack' });
      }
    }
    expect(small.bytes.length).toBeLessThan(100_000);
  });

  test('when it has too many events', () => {
    const limit = context.admission.batchEventsMax;
    expect(read(array(Array.from({ length: limit }, () => nil)))).toMatchObject({ read: true });
    expect(read(array(Array.from({ length: limit + 1 }, () => nil)))).toMatchObject({
      code: 'batch_too_large',
    });
  });

  test('a million brackets are no reason to fall over', () => {
    const brackets = new Uint8Array(1_000_000).fill(0x91);
    expect(codeOf(brackets)).toBe('body_not_msgpack');
    brackets[brackets.length - 1] = 0xc0;
    expect(codeOf(brackets)).toBe('event_not_an_object');
    expect(codeOf(withValue(brackets))).toBe('data_too_deep');
    expect(codeOf(withValue(new Uint8Array(1_000_001).fill(0x81)))).toBe('body_not_msgpack');
  });
});

describe('what msgpackr makes of objects', () => {
  const events = [
    { id: 'e1', type: 'request', subject: 'c', data: { tokens: 12 } },
    { id: 'e2', type: 'request', subject: 'c', data: { tokens: 13 } },
  ];

  test('its plain maps are read', () => {
    expect(read(pack(events))).toEqual({ read: true, unmatched: 2, rejected: [] });
    expect(read(new Packr({ useRecords: false, variableMapSize: true }).pack(events[0]))).toMatchObject({
      unmatched: 1,
    });
    expect(
      read(
        new Packr({ useRecords: false, int64AsType: 'bigint' }).pack({
          ...events[0],
          data: { n: 2n ** 40n },
        }),
      ),
    ).toMatchObject({ unmatched: 1 });
    expect(eventsOf(batch)[0]!.fields).toEqual([{ path: 'n', number: [2 ** 40, 0] }]);
  });

  test.each([
    ['records', new Packr()],
    ['shared structures', new Packr({ structures: [] })],
    ['bundled strings', new Packr({ useRecords: false, bundleStrings: true })],
  ])('of its %s the answer says how to send maps', (_, packr) => {
    for (const body of [packr.pack(events), packr.pack(events[0])]) {
      const outcome = read(body);
      expect(outcome).toMatchObject({ read: false, code: 'body_not_msgpack' });
      expect(outcome.read ? '' : outcome.message).toContain('useRecords: false');
      expect(batch.count).toBe(0);
    }
  });

  test.each([
    ['undefined', undefined, 'value_not_json'],
    ['a Date', new Date(NOW), 'value_not_json'],
    ['a Buffer', Buffer.from('x'), 'value_not_json'],
    ['an integer beyond 2^53', 2n ** 53n, 'number_not_exact'],
    ['NaN', NaN, 'number_not_exact'],
    ['a Map with numbers for keys', new Map([[1, 2]]), 'key_not_text'],
  ])('%s is refused with its place', (_, odd, code) => {
    const outcome = read(plain.pack({ ...events[0], data: { odd } }));
    expect(outcome).toMatchObject({ rejected: [{ id: 'e1', code }] });
    expect(outcome.read ? outcome.rejected[0]!.message : '').toContain('data.odd: ');
  });

  // The values of these stand behind the extension and not in it, so that the body is no msgpack either.
  test.each([
    ['a Set', new Set([1])],
    ['a RegExp', /x/],
    ['an Error', new Error('x')],
  ])('%s becomes no object', (_, odd) => {
    const packr = new Packr({ useRecords: false, moreTypes: true });
    expect(codeOf(packr.pack({ ...events[0], data: { odd } }))).toBe('body_not_msgpack');
  });
});

test('damaged bodies are answered, whatever is damaged, with memory that the body bounds', () => {
  const damage = fc.array(
    fc.record({
      at: fc.nat(),
      byte: fc.oneof(
        fc.nat(255),
        fc.constantFrom(0xc1, 0xdf, 0xdd, 0xdb, 0xc6, 0xc9, 0x8f, 0x9f, 0xff, 0x00),
      ),
      way: fc.constantFrom('replace', 'insert', 'remove', 'cut'),
    }),
    { minLength: 1, maxLength: 8 },
  );
  const fresh = new EventBatch();
  const outcomes = { read: 0, refused: 0 };
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 3 }), choices, damage, (events, choose, damages) => {
      let bytes = [...array(events.map((event) => encodeNode(event, choose)))];
      for (const { at, byte, way } of damages) {
        const place = at % (bytes.length + 1);
        if (way === 'replace') bytes[place] = byte;
        else if (way === 'insert') bytes.splice(place, 0, byte);
        else if (way === 'remove') bytes.splice(place, 1);
        else if (damages.length === 1) bytes = bytes.slice(0, place);
      }
      const body = Uint8Array.from(bytes);
      const outcome = readMsgpack(body, context, fresh);
      outcomes[outcome.read ? 'read' : 'refused'] += 1;
      if (!outcome.read) expect(fresh.count).toBe(0);
      // Every text that was let through is UTF-8, or this throws.
      else expect(eventsOf(fresh)).toHaveLength(fresh.count);
    }),
    { numRuns: 1_500 },
  );
  expect(fresh.bytes.length).toBeLessThanOrEqual(2 ** 20);
  expect(outcomes.read).toBeGreaterThan(40);
  expect(outcomes.refused).toBeGreaterThan(100);
});

test('noise is answered as well', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (body) => {
      const outcome = read(body);
      if (outcome.read) eventsOf(batch);
      else expect(batch.count).toBe(0);
    }),
    { numRuns: 2_000 },
  );
});

test('the text made of arrays is bounded by the body, and that of refused events does not stay', () => {
  const falses = array(Array.from({ length: 5_000 }, () => bool(false)));
  const literal = `[${Array.from({ length: 5_000 }, () => 'false').join(',')}]`;
  const fresh = new EventBatch();
  for (let events = 1; events <= 64; events *= 2) {
    const body = array(Array.from({ length: events }, () => withData(object({ a: falses, b: falses }))));
    expect(readMsgpack(body, context, fresh)).toMatchObject({ read: true, rejected: [] });
    expect(fresh.count).toBe(events);
    for (const { fields } of eventsOf(fresh)) {
      expect(fields).toEqual([
        { path: 'a', literal },
        { path: 'b', literal },
      ]);
    }
    expect(fresh.bytes.length).toBeLessThan(body.length * 14 + 100_000);
  }
  const other = new EventBatch();
  const refused = array(
    Array.from({ length: 64 }, () => object({ type: text('t'), data: object({ a: falses }) })),
  );
  readMsgpack(refused, context, other);
  expect(other.count).toBe(0);
  expect(other.bytes.length).toBeLessThan(refused.length * 3);
});
