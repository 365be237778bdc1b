/** The fields of an event beside those that are kept: which there may be, and that each stands once. */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { type EventCase, type Change, set, quoted, isStructured } from './cases.ts';
import { TYPE, type WayName } from './deck.ts';
import { Dict, dict, num, type Value } from './values.ts';

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

export function* fieldCases(): Generator<EventCase> {
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

function manyExtensions(count: number): (good: Dict, tag: string) => Dict {
  return (good) => {
    const more = Array.from({ length: count }, (_, at) => [`e${at}`, num(at)] as const);
    return new Dict([...good.with('specversion', '1.0').entries, ...more]);
  };
}

export function* notObjectCases(): Generator<EventCase> {
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
