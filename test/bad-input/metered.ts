/** What meters need of an event. */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { type EventCase, type Change, quoted } from './cases.ts';
import { dict, num, type Value } from './values.ts';

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

export function* meterCases(): Generator<EventCase> {
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
    for (const text of texts) yield value(quoted(text), 'meter_value_not_a_number', text);
    for (const text of FAR_NUMBERS) yield value(quoted(text), 'meter_value_out_of_range', text);
    for (const text of [...NUMBER_TEXTS, ...NUMBER_TEXTS_MORE]) yield value(quoted(text), null, text);
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
