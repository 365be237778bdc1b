/** What stands in `data`: numbers, texts and keys, wherever they can be. */
import { ODD_TEXTS } from './attributes.ts';
import { type EventCase, quoted, data, field, listed, nested, inDict, many } from './cases.ts';
import { dict, num, type Dict, type Value } from './values.ts';

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

export function* numberCases(): Generator<EventCase> {
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

export function* textCases(): Generator<EventCase> {
  const keys = ['hasOwnProperty', 'valueOf', 'prototype', '0', '-1', 'length', 'id', 'data', 'a b', '$', '.'];
  for (const [place, of] of PLACES) {
    for (const text of [...ODD_TEXTS, ...CONTROL_TEXTS, ...keys, ''])
      yield { name: `${place} ${quoted(text)}`, code: null, event: data(of(text)) };
    for (const text of SURROGATES)
      yield { name: `${place} ${quoted(text)}`, code: 'text_not_unicode', event: data(of(text)) };
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

export function* repeatCases(): Generator<EventCase> {
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
