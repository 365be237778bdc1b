/** `data` of an event: its shape at its bounds and beyond them, its numbers, its texts, and what meters need of it. */
import type { EdgeRejectionCode } from '../contract/rejections.ts';
import { ODD_TEXTS, type EventCase } from './bad-input-attributes.ts';
import { Dict, dict, num, type Entry, type Value } from './bad-input-values.ts';

const EVENT_BYTES_MAX = 65_536;

type Change = EventCase['event'];
const data =
  (value: Value): Change =>
  (good) =>
    good.with('data', value);
const field = (value: Value): Change => data(dict(['v', value]));
const listed = (value: Value): Change => data(dict(['v', [value]]));
const shown = (value: string): string => JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);

export function* dataCases(): Generator<EventCase> {
  yield* shapes();
  yield* numbers();
  yield* texts();
  yield* repeats();
  yield* sizes();
  yield* meters();
}

/** `levels` objects or lists, one in the other, around a value. */
function nested(levels: number, wrap: (inner: Value) => Value, inner: Value): Value {
  return levels === 0 ? inner : nested(levels - 1, wrap, wrap(inner));
}
const inDict = (inner: Value): Value => dict(['a', inner]);
const inList = (inner: Value): Value => [inner];
const many = (count: number, prefix = 'f'): Entry[] =>
  Array.from({ length: count }, (_, at) => [`${prefix}${at}`, num(at)] as const);

function* shapes(): Generator<EventCase> {
  yield { name: 'no data', code: null, event: (good) => good.without('data') };
  yield { name: 'data null', code: null, event: data(null) };
  yield { name: 'data {}', code: null, event: data(dict()) };
  for (const value of [num(0), num('1e2'), true, false, '', 'text', '{}', [], [dict()], [[]]])
    yield { name: `data ${JSON.stringify(value)}`, code: 'data_not_an_object', event: data(value) };

  // Depth. `data` itself is the first level.
  const leaves: readonly Value[] = [num(1), 'x', null, dict()];
  for (const leaf of leaves) {
    yield { name: 'data of 8 levels', code: null, event: data(nested(8, inDict, leaf)) };
    yield { name: 'data of 9 levels', code: 'data_too_deep', event: data(nested(9, inDict, leaf)) };
  }
  const lists: readonly (readonly [string, number, number])[] = [
    ['1 object and 7 lists', 1, 7],
    ['4 objects and 4 lists', 4, 4],
    ['7 objects and 1 list', 7, 1],
  ];
  for (const [name, objects, arrays] of lists) {
    for (const leaf of [...leaves.slice(0, 3), 'é\u0000']) {
      const within = data(nested(objects, inDict, nested(arrays, inList, leaf)));
      yield { name: `data of ${name}`, code: null, event: within };
      for (const more of [dict(), [], [leaf], dict(['b', leaf])])
        yield {
          name: `data of ${name}, and one more`,
          code: 'data_too_deep',
          event: data(nested(objects, inDict, nested(arrays, inList, more))),
        };
    }
  }
  yield { name: 'data of 8 objects and a list', code: 'data_too_deep', event: data(nested(8, inDict, [])) };
  for (const levels of [100, 400]) {
    yield {
      name: `data of ${levels} levels`,
      code: 'data_too_deep',
      event: data(nested(levels, inDict, num(1))),
    };
    yield {
      name: `a list of ${levels} levels`,
      code: 'data_too_deep',
      event: field(nested(levels, inList, num(1))),
    };
  }
  // A wide and a deep one beside each other: what counts is the deepest place, wherever it stands.
  const deep = nested(9, inDict, num(1));
  yield {
    name: 'the last of many is too deep',
    code: 'data_too_deep',
    event: data(dict(...many(40), ['z', deep])),
  };

  // Fields, counted after flattening.
  const fields: readonly (readonly [string, number, (count: number) => Value])[] = [
    ['flat', 64, (count) => dict(...many(count))],
    ['in two objects', 64, (count) => dict(['a', dict(...many(32))], ['b', dict(...many(count - 32))])],
    ['in lists', 64, (count) => dict(...many(count).map(([key]) => [key, [num(1), num(2)]] as const))],
    ['in empty objects', 64, (count) => dict(...many(count).map(([key]) => [key, dict()] as const))],
    ['one below the other', 64, (count) => dict(...many(count - 1), ['z', nested(7, inDict, 'x')])],
  ];
  for (const [name, most, of] of fields) {
    yield { name: `${most} fields ${name}`, code: null, event: data(of(most)) };
    yield { name: `${most + 1} fields ${name}`, code: 'data_too_many_fields', event: data(of(most + 1)) };
  }
  yield { name: '5,000 fields', code: 'data_too_many_fields', event: data(dict(...many(5_000))) };
  yield { name: 'a list of 5,000', code: null, event: field(many(5_000).map(([, value]) => value)) };

  // Paths, with their dots.
  for (const unit of ['k', 'é', '日', '😀']) {
    const size = Buffer.byteLength(unit);
    const of = (bytes: number): string => unit.repeat(Math.floor(bytes / size)) + 'k'.repeat(bytes % size);
    yield { name: `a key of 256 bytes of ${unit}`, code: null, event: data(dict([of(256), num(1)])) };
    yield {
      name: `a key of 257 bytes of ${unit}`,
      code: 'data_path_too_long',
      event: data(dict([of(257), num(1)])),
    };
    const below = (bytes: number): Change => data(dict([of(100), dict([of(50), dict([of(bytes), num(1)])])]));
    yield { name: `keys of 256 bytes of ${unit}`, code: null, event: below(104) };
    yield { name: `keys of 257 bytes of ${unit}`, code: 'data_path_too_long', event: below(105) };
  }
  const tooLong = 'k'.repeat(257);
  for (const value of [dict(), [], 'x', null, dict(['a', num(1)])])
    yield { name: 'a key that is too long', code: 'data_path_too_long', event: data(dict([tooLong, value])) };
  yield { name: 'a huge key', code: 'data_path_too_long', event: data(dict(['k'.repeat(70_000), num(1)])) };
  yield { name: 'a key of 257 bytes in a list', code: null, event: listed(dict([tooLong, num(1)])) };
  yield {
    name: 'a huge key in a list',
    code: 'event_too_large',
    event: listed(dict(['k'.repeat(70_000), num(1)])),
  };
}

const KEPT_DIGITS = [
  ...[
    '0',
    '-0',
    '0.0',
    '-0.0',
    '0e0',
    '-0E-0',
    '0e400',
    '0e-400',
    '0.000000000000000000',
    '1',
    '-1',
    '10',
    '100',
  ],
  ...[
    '1e2',
    '1E2',
    '1e+2',
    '1E+2',
    '1e02',
    '1e0',
    '1E-2',
    '1e-9',
    '12e-9',
    '1.5',
    '1.50',
    '-1.5',
    '0.1',
    '0.5',
  ],
  ...[
    '0.000000001',
    '0.123456789',
    '0.100000000000',
    '1.500000000000000000000',
    '10e-10',
    '123456789.123456',
  ],
  ...['9007199254740991', '-9007199254740991', '9007199254740990', '4503599627370497', '900719925474099.1e1'],
  ...[
    '9007199254740991.0',
    '9007199254740991e0',
    '9.007199254740991e15',
    '0.9007199254740991e16',
    '9007199.254740991',
  ],
  ...[
    '90071992547409910e-1',
    '1e15',
    '9e15',
    '1000000000000000',
    '123456789012345',
    '12345678901234.5',
    '1.1e1',
  ],
  ...[
    '0.000000001e9',
    '0.0000000001e1',
    '2e-1',
    '20e-1',
    '0.30',
    '99999.99',
    '-0.000000001',
    '72057594037.92793',
  ],
  ...[
    `1${'0'.repeat(400)}e-400`,
    `0.${'0'.repeat(400)}1e401`,
    `-1.${'0'.repeat(900)}`,
    '1e00000000000000000000',
  ],
];
const LOST_DIGITS = [
  ...[
    '9007199254740992',
    '-9007199254740992',
    '9007199254740993',
    '9007199254740991.5',
    '9007199254740991e1',
  ],
  ...[
    '1e16',
    '-1e16',
    '1e17',
    '1e22',
    '1e308',
    '1e309',
    '1e400',
    '-1e400',
    '1E400',
    '1e999999999999999999999',
  ],
  ...[
    '0.0000000001',
    '-0.0000000001',
    '1e-10',
    '1e-400',
    '-1e-99999999999999999999',
    '0.1234567891',
    '1.0000000001',
  ],
  ...[
    '123456789012345678',
    '12345678901234567890',
    '123456789.1234567891',
    '9007199.2547409911',
    '0.30000000000000004',
  ],
  ...[
    '99999999.999999999',
    '3.141592653589793',
    '900719925.4740992',
    '18446744073709551615',
    '9223372036854775807',
  ],
  ...['4.9e-324', '1.7976931348623157e308', '1'.repeat(400), `0.${'1'.repeat(400)}`, `1e${'9'.repeat(400)}`],
  ...[`${'1'.repeat(20)}e-15`, '15e15', '0.9007199254740992e16', '9007199254740.9911'],
];

function* numbers(): Generator<EventCase> {
  for (const digits of KEPT_DIGITS) {
    const name = `number ${digits.slice(0, 40)}`;
    yield { name, code: null, event: field(num(digits)) };
    yield {
      name: `${name} in data`,
      code: null,
      event: data(dict(['a', dict(['b', num(digits)])], ['z', num(1)])),
    };
    yield {
      name: `${name} in a list`,
      code: null,
      event: field([num(1), num(digits), dict(['k', num(digits)])]),
    };
  }
  for (const digits of LOST_DIGITS) {
    const name = `number ${digits.slice(0, 40)}`;
    yield { name, code: 'number_not_exact', event: field(num(digits)) };
    yield {
      name: `${name}, nested`,
      code: 'number_not_exact',
      event: data(dict(['a', dict(['b', num(digits)])])),
    };
    // The digits of a list are kept as they were sent, and as a text every number is.
    yield { name: `${name} in a list`, code: null, event: listed(num(digits)) };
    yield { name: `${name} as text`, code: null, event: field(digits) };
  }
}

const CONTROL_TEXTS = [
  '\0',
  'a\0b',
  '\u0001\u001f',
  '\b\f\n\r\t',
  '\u007f',
  '\u0080\u009f',
  '\\',
  '"',
  '/',
  '\\u0041',
];
const SURROGATES = [
  '\ud800',
  'a\udc00',
  '\udc00\udfff',
  '\ud800\ud800',
  '\ude00\ud83d',
  '\ud83d\ud83d\ude00',
  'x\udbff',
];
/** Where a text can stand in data. */
const PLACES: readonly (readonly [string, (text: string) => Value])[] = [
  ['value', (text) => dict(['v', text])],
  ['nested value', (text) => dict(['a', dict(['v', text], ['w', num(1)])])],
  ['key', (text) => dict([text, num(1)])],
  ['nested key', (text) => dict(['a', dict([text, num(1)])])],
  ['key of an object', (text) => dict([text, dict(['a', num(1)])])],
  ['item', (text) => dict(['v', [num(1), text]])],
  ['item of a list in a list', (text) => dict(['v', [[[text]], num(2)]])],
  ['key in a list', (text) => dict(['v', [dict([text, num(1)])]])],
  ['value in a list', (text) => dict(['v', [dict(['k', text])]])],
];

function* texts(): Generator<EventCase> {
  const keys = ['hasOwnProperty', 'valueOf', 'prototype', '0', '-1', 'length', 'id', 'data', 'a b', '$', '.'];
  for (const [place, of] of PLACES) {
    for (const text of [...ODD_TEXTS, ...CONTROL_TEXTS, ...keys, ''])
      yield { name: `${place} ${shown(text)}`, code: null, event: data(of(text)) };
    for (const text of SURROGATES)
      yield { name: `${place} ${shown(text)}`, code: 'text_not_unicode', event: data(of(text)) };
  }
  for (const word of [true, false, null, dict(), []] as const) {
    yield { name: `value ${JSON.stringify(word)}`, code: null, event: field(word) };
    yield {
      name: `item ${JSON.stringify(word)}`,
      code: null,
      event: field([word, [word], dict(['k', word])]),
    };
  }
  // Keys that mean something to JavaScript mean nothing here.
  yield {
    name: 'keys of JavaScript',
    code: null,
    event: data(
      dict(
        ['__proto__', dict(['polluted', true], ['__proto__', num(1)])],
        ['constructor', dict(['prototype', dict(['polluted', true])])],
        ['toString', 'x'],
        ['hasOwnProperty', null],
      ),
    ),
  };
  yield {
    name: 'keys of JavaScript in a list',
    code: null,
    event: listed(
      dict(['__proto__', dict(['polluted', true])], ['toString', 'x'], ['10', num(1)], ['9', num(2)]),
    ),
  };
}

function* repeats(): Generator<EventCase> {
  const twice = (...keys: string[]): Dict => dict(...keys.map((key, at) => [key, num(at)] as const));
  const wide = many(40).map(([key]) => key as string);
  const repeated: readonly (readonly [string, Value])[] = [
    ['flat', twice('a', 'a')],
    ['the same value', dict(['a', num(1)], ['a', num(1)])],
    ['apart', twice('a', 'b', 'c', 'a')],
    ['an object twice', dict(['a', dict(['b', num(1)])], ['a', dict(['c', num(2)])])],
    ['an object and a number', dict(['a', dict(['b', num(1)])], ['a', num(2)])],
    ['nested', dict(['a', twice('b', 'b')])],
    ['deeply nested', nested(7, inDict, twice('b', 'c', 'b'))],
    ['the empty key', twice('', '')],
    ['not in ASCII', twice('ü', 'ü')],
    ['beyond the plane', twice('😀', '😀')],
    ['with a control', twice('a\n', 'a\n')],
    ['of JavaScript', twice('__proto__', '__proto__')],
    ['the last of many', twice(...wide, 'f0')],
    ['in a list', dict(['v', [twice('b', 'b')]])],
    ['in a list in a list', dict(['v', [[[twice('b', 'b')]]]])],
    ['in an object in a list', dict(['v', [dict(['x', twice('y', 'z', 'y')])]])],
    ['in the second of a list', dict(['v', [twice('a', 'b'), twice('a', 'a')]])],
    ['the first of many in a list', dict(['v', [twice(...wide, 'f0')]])],
    ['the last of many in a list', dict(['v', [twice(...wide, 'f39')]])],
    ['the empty key in a list', dict(['v', [twice('', '')]])],
    ['of JavaScript in a list', dict(['v', [twice('__proto__', '__proto__')]])],
  ];
  for (const [name, value] of repeated) {
    for (const spelling of [1, 2])
      // in several spellings, as the dice fall
      yield { name: `a key twice, ${name}, ${spelling}`, code: 'key_repeated', event: data(value) };
  }
  const single: readonly (readonly [string, Value])[] = [
    ['in two objects', dict(['a', twice('x')], ['b', twice('x')])],
    ['above and below', dict(['a', dict(['a', dict(['a', num(1)])])])],
    ['in two objects of a list', dict(['v', [twice('x', 'y'), twice('x', 'y')]])],
    ['above and below in a list', dict(['v', [dict(['x', dict(['x', num(1)])])]])],
    ['beside a list', dict(['x', num(1)], ['v', [twice('x')]])],
    ['in another case', twice('a', 'A')],
    ['composed and not', twice('\u00e9', 'e\u0301')],
    ['with and without an end', twice('a', 'a\0', 'a ', ' a')],
    ['forty in a list', dict(['v', [twice(...wide)]])],
  ];
  for (const [name, value] of single) yield { name: `a key, ${name}`, code: null, event: data(value) };

  const collisions: readonly Value[] = [
    dict(['a.b', num(1)], ['a', dict(['b', num(2)])]),
    dict(['a', dict(['b', num(2)])], ['a.b', num(1)]),
    dict(['a.b.c', 'x'], ['a', dict(['b', dict(['c', 'y'])])]),
    dict(['a.b', dict(['c', 'x'])], ['a', dict(['b.c', 'y'])]),
    dict(['a', dict(['b', dict(['c', num(1)])])], ['a.b', dict(['d', num(1)], ['c', num(2)])]),
    dict(['', dict(['a', num(1)])], ['.a', num(2)]),
    dict(['', dict(['', num(1)])], ['.', num(2)]),
    dict(['a', dict(['', num(1)])], ['a.', num(2)]),
    dict(['a.b', []], ['a', dict(['b', dict()])]),
  ];
  for (const value of collisions)
    yield { name: 'one dotted path twice', code: 'data_path_repeated', event: data(value) };
  const apart: readonly Value[] = [
    dict(['a.b', num(1)], ['a', dict(['c', num(2)])]),
    dict(['a.b', dict(['c', num(1)])], ['a', dict(['b', num(2)])]),
    dict(['', num(1)], ['.', num(2)], ['..', num(3)]),
    dict(['', dict(['', dict(['', num(1)])])]),
    dict(['a.', num(1)], ['.a', num(2)], ['a', num(3)]),
    dict(['v', [dict(['a.b', num(1)], ['a', dict(['b', num(2)])])]]),
  ];
  for (const value of apart) yield { name: 'dotted paths apart', code: null, event: data(value) };
}

/** An event of exactly so many bytes: its texts, its paths, its values, 8 a number. */
function ofBytes(bytes: number, fill: (left: number) => Dict): Change {
  return (good) => {
    const names = ['id', 'source', 'type', 'subject'];
    const taken = names.reduce((sum, name) => sum + Buffer.byteLength(String(good.get(name))), 0);
    return good.with('data', fill(bytes - taken));
  };
}

function* sizes(): Generator<EventCase> {
  const fills: readonly (readonly [string, (left: number) => Dict])[] = [
    ['one text', (left) => dict(['v', 'x'.repeat(left - 1)])],
    ['text beyond ASCII', (left) => dict(['v', 'é'.repeat((left - 1) >> 1) + 'x'.repeat((left - 1) % 2)])],
    ['text and a number', (left) => dict(['n', num('1.5')], ['v', 'x'.repeat(left - 10)])],
    ['text and true', (left) => dict(['t', true], ['v', 'x'.repeat(left - 6)])],
    ['nested text', (left) => dict(['aa', dict(['bb', dict(['c', num(1)], ['d', 'x'.repeat(left - 22)])])])],
    ['a list', (left) => dict(['v', ['x'.repeat(left - 5)]])],
    ['a list of escapes', (left) => dict(['v', ['\\'.repeat((left - 5) >> 1) + 'x'.repeat((left - 5) % 2)]])],
  ];
  for (const [name, fill] of fills) {
    yield { name: `64 KiB of ${name}`, code: null, event: ofBytes(EVENT_BYTES_MAX, fill) };
    yield {
      name: `64 KiB and a byte of ${name}`,
      code: 'event_too_large',
      event: ofBytes(EVENT_BYTES_MAX + 1, fill),
    };
  }
  // Paths count whole: 32 fields below a path of 200 bytes are 6,400 bytes of it.
  const paths = (left: number): Dict => {
    const below = many(32).map(([key]) => [key, 'y'] as const);
    const taken = below.reduce((sum, [key]) => sum + 201 + String(key).length + 1, 0);
    return dict(['p'.repeat(200), dict(...below)], ['v', 'x'.repeat(left - taken - 1)]);
  };
  yield { name: '64 KiB with paths', code: null, event: ofBytes(EVENT_BYTES_MAX, paths) };
  yield {
    name: '64 KiB and a byte with paths',
    code: 'event_too_large',
    event: ofBytes(EVENT_BYTES_MAX + 1, paths),
  };
  yield { name: 'a text of 200,000 bytes', code: 'event_too_large', event: field('x'.repeat(200_000)) };
  yield {
    name: 'texts of 64 KiB together',
    code: 'event_too_large',
    event: data(dict(...many(60).map(([key]) => [key, 'x'.repeat(1_200)] as const))),
  };
}

const NO_NUMBERS = [
  ...[
    '',
    ' ',
    'abc',
    'NaN',
    'Infinity',
    '-',
    '+1',
    '--1',
    '.5',
    '5.',
    '1.',
    '-.5',
    '01',
    '-01',
    '00',
    '1e3',
    '1E3',
  ],
  ...[
    '0x10',
    '1_000',
    '1,5',
    '1,000.00',
    ' 1',
    '1 ',
    '1\n',
    '1\0',
    '\u0661',
    '１',
    '1.5.5',
    '1-',
    '€5',
    '5%',
    '½',
    '\u22121',
  ],
  ...['1'.repeat(65), `0.${'0'.repeat(63)}`, 'true', 'null', '9007199254740992n', "1'; DROP TABLE x"],
];
const NUMBER_TEXTS = ['0', '-0', '0.0', '1', '-1.5', '0.000000001', '0.1000000000', '999999999999999999'];
const NUMBER_TEXTS_MORE = [
  '-999999999999999999.999999999',
  '12345678901234567.25',
  '1.000000000000000000000',
  '9007199254740993',
];
const FAR_NUMBERS = [
  '1000000000000000000',
  '-1000000000000000000',
  '1'.repeat(64),
  '0.0000000001',
  '1.1234567891',
  '9999999999999999999999',
];

function* meters(): Generator<EventCase> {
  const of =
    (type: string, value: Value | undefined): Change =>
    (good) =>
      good.with('type', type).with('data', value === undefined ? dict(['other', num(1)]) : value);
  const ways: readonly (readonly [string, string, (value: Value) => Value])[] = [
    ['flat', 'bad.flat', (value) => dict(['a', num(7)], ['tokens', value])],
    ['nested', 'bad.nested', (value) => dict(['usage', dict(['x', 'y'], ['tokens', value])])],
    ['dotted', 'bad.nested', (value) => dict(['usage.tokens', value])],
  ];
  for (const [name, type, around] of ways) {
    const value = (says: string, code: EdgeRejectionCode | null, one: Value): EventCase => ({
      name: `the value of a meter, ${name}, ${says}`,
      code,
      event: of(type, around(one)),
    });
    yield { name: `no value for a meter, ${name}`, code: 'meter_value_missing', event: of(type, undefined) };
    yield { name: `no data for a meter, ${name}`, code: 'meter_value_missing', event: of(type, null) };
    yield value('null', 'meter_value_missing', null);
    for (const one of [true, false, [], [num(1)], dict()] as const)
      yield value(JSON.stringify(one), 'meter_value_not_a_number', one);
    // What is no number is none wherever it stands: all of them once, some of them everywhere.
    const texts = name === 'flat' ? NO_NUMBERS : NO_NUMBERS.slice(0, 8);
    for (const text of texts) yield value(shown(text), 'meter_value_not_a_number', text);
    for (const text of FAR_NUMBERS) yield value(shown(text), 'meter_value_out_of_range', text);
    for (const text of [...NUMBER_TEXTS, ...NUMBER_TEXTS_MORE]) yield value(shown(text), null, text);
    for (const digits of ['0', '-1.5', '9007199254740991', '1e-9']) yield value(digits, null, num(digits));
    yield value('1e400', 'number_not_exact', num('1e400'));
  }
  yield {
    name: 'an object where the value of a meter is',
    code: 'meter_value_missing',
    event: of('bad.flat', dict(['tokens', dict(['a', num(1)])])),
  };
  yield {
    name: 'the value of a meter in a list',
    code: 'meter_value_missing',
    event: of('bad.nested', dict(['usage', [dict(['tokens', num(1)])]])),
  };
  yield {
    name: 'the value of a meter in another case',
    code: 'meter_value_missing',
    event: of('bad.flat', dict(['Tokens', num(1)])),
  };
  yield { name: 'a meter that counts', code: null, event: of('bad.counted', undefined) };
  yield { name: 'a meter that counts no data', code: null, event: of('bad.counted', null) };
  yield { name: 'a type that begins as one', code: null, event: of('bad.flatter', undefined) };
}
