/** The attributes of an event, each at its bounds and beyond them. */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { type Window, type EventCase, type Change, set, quoted, isStructured } from './cases.ts';
import { dict, num, type Dict, type Value } from './values.ts';

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
  for (const name of TEXTS) yield* attributeTexts(name);
  yield* timeCases(window);
}

function* attributeTexts(name: Text): Generator<EventCase> {
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
