/** The attributes of an event, each at its bounds and beyond them. */
import type { EdgeRejectionCode } from '../contract/rejections.ts';
import { TYPE, type WayName } from './bad-input-deck.ts';
import { Dict, dict, num, type Value } from './bad-input-values.ts';

export interface Window {
  readonly nowMs: number;
  readonly ageMsMax: number;
  readonly aheadMsMax: number;
  /** How far from the edges of the window it is tried: nothing where the reader's clock stands still. */
  readonly slackMs: number;
}

export interface EventCase {
  readonly name: string;
  /** Null: it is taken. Told apart for CloudEvents, which require and allow more. */
  readonly code: EdgeRejectionCode | null | ((isCloudEvent: boolean) => EdgeRejectionCode | null);
  /** From a good event. `tag` is in no other input. */
  readonly event: (good: Dict, tag: string) => Value;
  readonly timeMs?: number;
  readonly only?: (way: WayName) => boolean;
}

type Change = EventCase['event'];
const set =
  (name: string, value: Value): Change =>
  (good) =>
    good.with(name, value);
const quoted = (value: string): string =>
  JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);

const BYTES_MAX = { id: 256, source: 512, type: 128, subject: 256 } as const;
type Text = keyof typeof BYTES_MAX;
const TEXTS = Object.keys(BYTES_MAX) as Text[];

const CONTROLS = [...'\0\u0001\b\t\n\v\f\r\u001b\u001f\u007f\u0080\u0085\u009f'];
const SURROGATES = [
  '\ud800',
  '\udbff',
  '\udc00',
  '\udc00\udfff',
  '\ud800\ud800',
  'a\udfff',
  'a\ud83db',
  '\ude00\ud83d',
  '\ud83d\ud83d\ude00',
];
/** Looks like something to somebody, and is a text. */
export const ODD_TEXTS = [
  "'; DROP TABLE events; --",
  '" OR 1=1 --',
  'a.b.>',
  '*',
  '>',
  '$JS.API.STREAM.DELETE.USAGE_0',
  '../../etc/passwd',
  '%00%0a',
  '\\u0000\\n',
  '{"id":"x"}',
  '${7*7}{{7*7}}',
  '<script>alert(1)</script>',
  'null',
  'NaN',
  '__proto__',
  'constructor',
  'toString',
  '1e400',
  '2026-11-21T08:30:00Z',
  ' ',
  ' a ',
  '~',
  '\u00a0',
  '\u00ad',
  '\u2028\u2029',
  '\ufeffbom',
  '\u200b\u200d\u202e',
  '\ufffd\ufffe\uffff',
  '\u{10ffff}\u{1f600}',
  'e\u0301 \u00e9',
  'ΑΑ\u0410A',
  '日本語テキスト',
  '👩‍👩‍👧‍👦🏳️‍🌈',
];
const OTHER_VALUES: readonly (readonly [string, Value])[] = [
  ['0', num(0)],
  ['1.5', num('1.5')],
  ['true', true],
  ['false', false],
  ['[]', []],
  ['["x"]', ['x']],
  ['{}', dict()],
  ['{"a":"x"}', dict(['a', 'x'])],
];

export function* attributeCases(window: Window): Generator<EventCase> {
  for (const name of TEXTS) yield* textCases(name);
  yield* timeCases(window);
  yield* topLevelCases();
  yield* notObjects();
}

function* textCases(name: Text): Generator<EventCase> {
  const isOptional = name === 'source';
  const missing = (isCloud: boolean): EdgeRejectionCode | null =>
    isOptional && !isCloud ? null : 'field_missing';
  // A source that is another, or none, is no longer what keeps the ids of inputs apart; `tag` does it then.
  const tagged =
    (value: Value): Change =>
    (good, tag) =>
      (isOptional ? good.with('id', `${tag}-alone`) : good).with(name, value);
  yield {
    name: `no ${name}`,
    code: missing,
    event: (good, tag) => (tagged('')(good, tag) as Dict).without(name),
  };
  yield { name: `${name} null`, code: missing, event: tagged(null) };
  yield { name: `${name} ""`, code: missing, event: tagged('') };
  for (const [says, value] of OTHER_VALUES)
    yield { name: `${name} ${says}`, code: 'field_not_text', event: set(name, value) };
  const bytes = BYTES_MAX[name];
  for (const unit of ['x', 'é', '日', '😀', '\u{10ffff}']) {
    const size = Buffer.byteLength(unit);
    const full = unit.repeat(Math.floor(bytes / size)) + 'x'.repeat(bytes % size);
    yield { name: `${name} of ${bytes} bytes of ${unit}`, code: null, event: tagged(full) };
    for (const longer of [`${full}x`, `x${full}`, unit + full]) {
      yield { name: `${name} of more bytes of ${unit}`, code: 'field_too_long', event: set(name, longer) };
    }
  }
  yield { name: `${name} of 60,000 bytes`, code: 'field_too_long', event: set(name, 'y'.repeat(60_000)) };
  for (const control of CONTROLS) {
    for (const text of [`a${control}b`, control, `ab${control}`]) {
      yield { name: `${name} ${quoted(text)}`, code: 'text_has_control', event: set(name, text) };
    }
  }
  for (const text of SURROGATES)
    yield { name: `${name} ${quoted(text)}`, code: 'text_not_unicode', event: set(name, text) };
  for (const text of ODD_TEXTS) yield { name: `${name} ${quoted(text)}`, code: null, event: tagged(text) };
}

const BAD_TIMES = [
  ...[
    '',
    ' ',
    'now',
    '0',
    '1732176000',
    '1732176000000',
    '2026',
    '2026-11',
    '2026-11-20',
    '2026-W47-5',
    '2026-324',
  ],
  ...[
    '2026-11-20T10:00Z',
    '2026-11-20T10:00:00',
    '2026-11-20T10Z',
    '20261120T100000Z',
    '2026-11-20T10:00:00+0100',
  ],
  ...['2026-11-20T10:00:00+01', '2026-11-20T10:00:00 Z', ' 2026-11-20T10:00:00Z', '2026-11-20T10:00:00Z '],
  ...['2026-11-20T10:00:00Z\n', '2026-11-20T10:00:00Z\0', '2026-11-20T10:00:00ZZ', '2026-11-20_10:00:00Z'],
  ...['2026-13-01T00:00:00Z', '2026-00-01T00:00:00Z', '2026-11-00T00:00:00Z', '2026-11-31T00:00:00Z'],
  ...['2025-02-29T00:00:00Z', '2026-02-30T00:00:00Z', '2100-02-29T00:00:00Z', '2026-11-20T24:00:00Z'],
  ...['2026-11-20T25:00:00Z', '2026-11-20T10:60:00Z', '2026-11-20T10:00:61Z', '2026-11-20T10:00:99Z'],
  ...[
    '2026-11-20T10:00:00.Z',
    '2026-11-20T10:00:00,5Z',
    '2026-11-20T10:00:00.1234567890Z',
    '2026-11-20T10:00:00.1',
  ],
  ...[
    '2026-11-20T10:00:00+24:00',
    '2026-11-20T10:00:00+01:60',
    '2026-11-20T10:00:00*01:00',
    '+2026-11-20T10:00:00Z',
  ],
  ...[
    '-026-11-20T10:00:00Z',
    '2026-1-20T10:00:00Z',
    '26-11-20T10:00:00Z',
    '12026-11-20T10:00:00Z',
    '２０２６-11-20T10:00:00Z',
  ],
  ...[
    '2026-11-20T10:00:00Zé',
    '2026\u201111-20T10:00:00Z',
    '2026-11-20T10:00:00Z\ud800',
    '\udc00',
    '2026-11-2٠T10:00:00Z',
  ],
  ...[
    '2026-11-20T-1:00:00Z',
    '2026-11-20T10:+1:00Z',
    '2026-11-20T1 :00:00Z',
    '2026-11-20T10:00:0xZ',
    'Fri, 20 Nov 2026 10:00:00 GMT',
  ],
  ...["2026-11-20T10:00:00Z'; DROP TABLE events;--", `2026-11-20T10:00:00.${'1'.repeat(10_000)}Z`],
];

function* timeCases({ nowMs, ageMsMax, aheadMsMax, slackMs }: Window): Generator<EventCase> {
  yield { name: 'no time', code: null, event: (good) => good.without('time') };
  yield { name: 'time null', code: null, event: set('time', null) };
  for (const [says, value] of [...OTHER_VALUES, ['1732176000', num('1732176000')] as const])
    yield { name: `time ${says}`, code: 'field_not_text', event: set('time', value) };
  for (const text of BAD_TIMES) {
    const only = text.isWellFormed() ? () => true : isStructured; // a header field is refused as no Unicode
    yield { name: `time ${quoted(text)}`, code: 'time_not_rfc3339', event: set('time', text), only };
  }
  // 10:00:00.125 UTC two days ago, in other words.
  const at = Math.floor(nowMs / 86_400_000) * 86_400_000 - 2 * 86_400_000 + 36_000_125;
  const day = new Date(at).toISOString().slice(0, 10);
  const words: readonly (readonly [string, number])[] = [
    [`${day}T10:00:00.125Z`, 0],
    [`${day}t10:00:00.125z`, 0],
    [`${day} 10:00:00.125Z`, 0],
    [`${day}T10:00:00.125999999Z`, 0],
    [`${day}T10:00:00.1Z`, -25],
    [`${day}T10:00:00Z`, -125],
    [`${day}T11:30:00.125+01:30`, 0],
    [`${day}T00:00:00.125-10:00`, 0],
    [`${day}T10:00:00.125-00:00`, 0],
    [`${day}T10:00:60.125Z`, 59_000], // a leap second is taken as the second before it
    [`${day}T09:59:59.999Z`, -126],
    [`${day}T23:59:59.125+13:59`, 59_000],
  ];
  for (const [text, later] of words)
    yield { name: `time ${text.slice(10)}`, code: null, event: set('time', text), timeMs: at + later };
  yield {
    name: 'time on a leap day',
    code: null,
    event: set('time', '2024-02-29T23:59:59.999Z'),
    timeMs: Date.UTC(2024, 1, 29, 23, 59, 59, 999),
  };
  const iso = (ms: number): string => new Date(ms).toISOString();
  const [oldest, newest] = [nowMs - ageMsMax, nowMs + aheadMsMax];
  yield { name: 'time at the oldest', code: null, event: set('time', iso(oldest + slackMs)) };
  yield { name: 'time before the oldest', code: 'time_too_old', event: set('time', iso(oldest - 1)) };
  yield { name: 'time at the newest', code: null, event: set('time', iso(newest)) };
  yield {
    name: 'time behind the newest',
    code: 'time_too_far_ahead',
    event: set('time', iso(newest + 1 + slackMs)),
  };
  for (const text of ['1970-01-01T00:00:00Z', '1970-01-01T00:30:00+01:00', '1999-12-31T23:59:59Z'])
    yield { name: `time ${text}`, code: 'time_too_old', event: set('time', text) };
  for (const text of ['2100-01-01T00:00:00Z', '9999-12-31T23:59:59.999999999Z'])
    yield { name: `time ${text}`, code: 'time_too_far_ahead', event: set('time', text) };
}

const VERSIONS = [
  '0.3',
  '1.1',
  '2.0',
  '1',
  '1.0.0',
  '1.0 ',
  ' 1.0',
  'v1.0',
  '1.0\0',
  '１.0',
  '\ud800',
  '1.0\udc00',
];
const JSON_TYPES = [
  'application/json',
  'APPLICATION/JSON',
  'application/json; charset=utf-8',
  'text/json',
  'application/vnd.acme+json',
  'application/ld+json;profile="x"',
];
const OTHER_TYPES = [
  '',
  'json',
  'text/plain',
  'application/xml',
  'application/jsonx',
  'application/json-seq',
  '+json',
];
const UNKNOWN = [
  'timestamp',
  'Data',
  'ID',
  'Id',
  'user_id',
  'tenant',
  'id ',
  ' id',
  '',
  '__proto__',
  'constructor',
];
const UNKNOWN_MORE = [
  'toString',
  'hasOwnProperty',
  'data.n',
  'id\0',
  'iD',
  'ïd',
  'timé',
  'data\u0000',
  'types',
  'subjec',
];

function* topLevelCases(): Generator<EventCase> {
  const versions: Value[] = [...VERSIONS, num('1.0'), num(1), true, [], ['1.0'], dict()];
  for (const version of [...versions, ''])
    yield {
      name: `specversion ${JSON.stringify(version)}`,
      code: 'specversion_unknown',
      event: set('specversion', version),
      only: typeof version !== 'string' || version.isWellFormed() ? () => true : isStructured,
    };
  const orMissing = (isCloud: boolean): EdgeRejectionCode | null => (isCloud ? 'field_missing' : null);
  yield { name: 'specversion null', code: orMissing, event: set('specversion', null) };
  yield { name: 'no specversion', code: orMissing, event: (good) => good.without('specversion') };
  yield { name: 'specversion 1.0', code: null, event: set('specversion', '1.0') };

  // Whether a field is known depends on specversion being there.
  const asCloud =
    (name: string, value: Value): Change =>
    (good) =>
      good.with('specversion', '1.0').with(name, value);
  const plain =
    (name: string, value: Value): Change =>
    (good) =>
      good.without('specversion').with(name, value);
  const onlyPlain = (way: WayName): boolean => !/cloudevents|openmeter|binary/.test(way);
  for (const name of [...UNKNOWN, ...UNKNOWN_MORE]) {
    const only = onlyPlain;
    yield { name: `field ${quoted(name)}`, code: 'field_unknown', event: plain(name, 'x'), only };
    const isExtension = /^[a-z0-9]+$/.test(name);
    const code = isExtension ? null : 'field_unknown';
    yield { name: `extension ${quoted(name)}`, code, event: asCloud(name, num(1)) };
  }
  for (const name of ['dataschema', 'datacontenttype', 'traceparent'])
    yield {
      name: `${name} without specversion`,
      code: 'field_unknown',
      event: plain(name, 'application/json'),
      only: onlyPlain,
    };
  for (const value of ['x', num('1.5'), true, null, 'a\u0000b', '😀', 'x'.repeat(3_000)])
    yield { name: `extension = ${quoted(JSON.stringify(value))}`, code: null, event: asCloud('ext1', value) };
  for (const value of [dict(), dict(['a', num(1)]), [], ['x']])
    yield {
      name: `extension = ${JSON.stringify(value)}`,
      code: 'field_unknown',
      event: asCloud('ext1', value),
    };
  yield {
    name: 'extension of no unicode',
    code: 'text_not_unicode',
    event: asCloud('ext1', 'a\ud800'),
    only: isStructured,
  };
  yield {
    name: 'extension of 70,000 bytes',
    code: 'event_too_large',
    event: asCloud('e'.repeat(70_000), 'x'),
  };
  yield { name: 'two hundred extensions', code: null, event: manyExtensions(200) };
  yield {
    name: 'two hundred extensions, one twice',
    code: 'key_repeated',
    event: (good, tag) => manyExtensions(200)(good, tag).and('e17', 'x'),
  };
  yield {
    name: 'an extension twice',
    code: 'key_repeated',
    event: (good, tag) => (asCloud('ext1', 'x')(good, tag) as Dict).and('ext1', 'x'),
  };
  for (const value of ['aGk=', '', num(1), dict(), []])
    yield {
      name: `data_base64 ${JSON.stringify(value)}`,
      code: 'data_not_json',
      event: set('data_base64', value),
    };
  yield { name: 'data_base64 null', code: null, event: set('data_base64', null) };
  for (const type of JSON_TYPES)
    yield { name: `datacontenttype ${type}`, code: null, event: asCloud('datacontenttype', type) };
  for (const type of OTHER_TYPES)
    yield {
      name: `datacontenttype ${quoted(type)}`,
      code: 'data_not_json',
      event: asCloud('datacontenttype', type),
    };
  yield { name: 'datacontenttype null', code: null, event: asCloud('datacontenttype', null) };
  yield { name: 'datacontenttype 1', code: 'field_not_text', event: asCloud('datacontenttype', num(1)) };
  yield {
    name: 'datacontenttype of no unicode',
    code: 'text_not_unicode',
    event: asCloud('datacontenttype', '\ud800'),
  };
  yield { name: 'dataschema', code: null, event: asCloud('dataschema', 'https://example.com/s') };

  // A key that stands twice, whether it says the same or not.
  const twice: Record<string, readonly Value[]> = {
    id: ['other', null, num(1)],
    type: [TYPE],
    subject: ['cus_1', ''],
    source: ['gateway'],
    time: ['2026-11-20T10:00:00Z', null],
    data: [dict(), null, 'x'],
    specversion: ['1.0', '0.3'],
  };
  for (const [name, values] of Object.entries(twice)) {
    for (const value of values) {
      const first: Change = (good) => {
        const whole = good.get(name) === undefined ? good.with(name, FIRST[name]!) : good;
        return whole.and(name, value);
      };
      yield { name: `${name} twice, then ${JSON.stringify(value)}`, code: 'key_repeated', event: first };
      yield { name: `${name} twice, then ${JSON.stringify(value)}`, code: 'key_repeated', event: first };
    }
  }
  // One fault is told, in an order that is the same for all formats.
  const order: readonly (readonly [string, EdgeRejectionCode, Change])[] = [
    ['specversion', 'specversion_unknown', (good) => good.with('specversion', '9').with('id', num(1))],
    ['id', 'field_not_text', (good) => good.with('type', '').with('id', num(1))],
    ['source', 'text_has_control', (good) => good.with('subject', num(1)).with('source', '\0')],
    ['type', 'field_too_long', (good) => good.with('subject', '').with('type', 'x'.repeat(129))],
    ['subject', 'text_not_unicode', (good) => good.with('time', 'x').with('subject', '\ud800')],
    ['time', 'time_not_rfc3339', (good) => good.with('Extra', 'x').with('time', 'x')],
    ['field', 'field_unknown', (good) => good.with('Extra', 'x').with('data_base64', 'x')],
    ['base64', 'data_not_json', (good) => good.with('data', 'x').with('data_base64', 'x')],
    ['data', 'data_not_an_object', (good) => good.with('data', 'x').with('more', 'x').without('more')],
  ];
  for (const [name, code, event] of order) yield { name: `${name} before what comes behind it`, code, event };
}

const FIRST: Readonly<Record<string, string>> = { time: '2026-11-20T10:00:00Z', specversion: '1.0' };
const isStructured = (way: WayName): boolean => way !== 'binary';

function manyExtensions(count: number): (good: Dict, tag: string) => Dict {
  return (good) => {
    const more = Array.from({ length: count }, (_, at) => [`e${at}`, num(at)] as const);
    return new Dict([...good.with('specversion', '1.0').entries, ...more]);
  };
}

function* notObjects(): Generator<EventCase> {
  const values: Value[] = [
    null,
    true,
    false,
    num(0),
    num('-1.5'),
    '',
    'text',
    '{"id":"x"}',
    [],
    [[]],
    [dict()],
  ];
  for (const value of values)
    yield { name: `event ${JSON.stringify(value)}`, code: 'event_not_an_object', event: () => value };
  yield { name: 'event {}', code: 'field_missing', event: () => dict() };
  yield {
    name: 'an event in a list in the list',
    code: 'event_not_an_object',
    event: (good) => [good],
  };
}
