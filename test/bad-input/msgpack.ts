/** What msgpack can say and JSON cannot, in every place where it can stand. */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { type EventCase, type Change, data, field, listed } from './cases.ts';
import * as msgpack from '../msgpack-encoder.ts';
import { isMsgpack, type WayName } from './deck.ts';
import { Dict, Packed, dict, num, type Key } from './values.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

/** What only msgpack can say. */
export function* msgpackCases(): Generator<EventCase> {
  const foreign: readonly (readonly [string, Uint8Array])[] = [
    ['bin 8', msgpack.binary(bytes(1, 2, 3))],
    ['bin 8 of nothing', msgpack.binary(bytes())],
    ['bin 16', msgpack.binary(new Uint8Array(300), 16)],
    ['bin 32', msgpack.binary(new Uint8Array(300), 32)],
    ['ext 8', msgpack.extension(5, bytes(1, 2, 3), 8)],
    ['ext 8 of nothing', msgpack.extension(5, bytes(), 8)],
    ['ext 16', msgpack.extension(-3, new Uint8Array(300), 16)],
    ['ext 32', msgpack.extension(127, new Uint8Array(300), 32)],
    ...[1, 2, 4, 8, 16].map(
      (size) => [`fixext ${size}`, msgpack.extension(1, new Uint8Array(size), 'fix')] as const,
    ),
    ['timestamp 32', msgpack.extension(-1, new Uint8Array(4), 'fix')],
    ['timestamp 64', msgpack.extension(-1, new Uint8Array(8), 'fix')],
    ['timestamp 96', msgpack.extension(-1, new Uint8Array(12), 8)],
    ['undefined of msgpackr', msgpack.extension(0, bytes(0), 'fix')],
  ];
  const notPlain = (way: WayName): boolean => isMsgpack(way);
  for (const [name, written] of foreign) {
    const value = new Packed(written);
    const at = (place: string, code: EdgeRejectionCode, event: Change): EventCase => ({
      name: `${name} as ${place}`,
      code,
      event,
      only: notPlain,
    });
    for (const attribute of ['id', 'source', 'type', 'subject', 'time'])
      yield at(attribute, 'field_not_text', (good) => good.with(attribute, value));
    yield at('specversion', 'specversion_unknown', (good) => good.with('specversion', value));
    yield at('data_base64', 'data_not_json', (good) => good.with('data_base64', value));
    yield at('an unknown field', 'field_unknown', (good) => good.with('extra', value));
    yield at('an extension', 'value_not_json', (good) =>
      good.with('specversion', '1.0').with('extra', value),
    );
    yield at('data', 'value_not_json', data(value));
    yield at('a value', 'value_not_json', field(value));
    yield at(
      'a nested value',
      'value_not_json',
      data(dict(['a', dict(['b', value], ['c', num(1)])], ['d', num(2)])),
    );
    yield at('an item', 'value_not_json', field([num(1), value, num(2)]));
    yield at('a value in a list', 'value_not_json', listed(dict(['k', value])));
    yield at('the event', 'value_not_json', () => value);
  }
  const keys: readonly (readonly [string, Key])[] = [
    ['0', num(0)],
    ['-1', num(-1)],
    ['70,000', num(70_000)],
    ['1.5', num('1.5')],
    ['nil', null],
    ['true', true],
    ['false', false],
    ['bin', new Packed(msgpack.binary(Buffer.from('id')))],
    ['ext', new Packed(msgpack.extension(1, bytes(1), 'fix'))],
    ['a list', new Packed(msgpack.array([msgpack.text('id')]))],
    ['a map', new Packed(msgpack.map([[msgpack.text('a'), msgpack.text('b')]]))],
    ['NaN', new Packed(msgpack.float64(NaN))],
  ];
  for (const [name, key] of keys) {
    for (const value of [num(1), 'x', [num(1), [num(2)]], dict(['a', num(1)])]) {
      const at = (place: string, event: Change): EventCase => ({
        name: `the key ${name} ${place}`,
        code: 'key_not_text',
        event,
        only: notPlain,
      });
      yield at('beside id', (good) => good.and(key, value));
      yield at('before id', (good) => new Dict([[key, value], ...good.entries]));
      yield at('in data', data(dict(['a', num(1)], [key, value], ['b', num(2)])));
      yield at('nested', data(dict(['a', dict([key, value])], ['b', num(2)])));
      yield at('in a list', listed(dict([key, value])));
    }
  }
  const double = (value: number): Packed => new Packed(msgpack.float64(value));
  const lost: readonly (readonly [string, Packed])[] = [
    ...[
      NaN,
      Infinity,
      -Infinity,
      1e300,
      5e-324,
      1e-10,
      -1e-10,
      0.1 + 0.2,
      1 / 3,
      2 ** 53,
      -(2 ** 53),
      2 ** 64,
    ].map((value) => [`float 64 ${value}`, double(value)] as const),
    ...[1e15 + 0.5, 0.1234567891, 123456789.12345678, Math.PI].map(
      (value) => [`float 64 ${value}`, double(value)] as const,
    ),
    ...[NaN, Infinity, -Infinity, 0.1, 1e30, 3.4e38, 1e-40].map(
      (value) => [`float 32 ${value}`, new Packed(msgpack.float32(value))] as const,
    ),
    ['NaN with a load', new Packed(bytes(0xcb, 0x7f, 0xf8, 1, 2, 3, 4, 5, 6))],
    ['uint 64 2^53', new Packed(msgpack.integer(2n ** 53n, 'u64'))],
    ['uint 64 at its end', new Packed(msgpack.integer(2n ** 64n - 1n, 'u64'))],
    ['int 64 2^53', new Packed(msgpack.integer(2n ** 53n, 'i64'))],
    ['int 64 -2^53', new Packed(msgpack.integer(-(2n ** 53n), 'i64'))],
    ['int 64 at its end', new Packed(msgpack.integer(2n ** 63n - 1n, 'i64'))],
    ['int 64 at its beginning', new Packed(msgpack.integer(-(2n ** 63n), 'i64'))],
  ];
  for (const [name, value] of lost) {
    yield { name, code: 'number_not_exact', event: field(value), only: notPlain };
    yield {
      name: `${name}, nested`,
      code: 'number_not_exact',
      event: data(dict(['a', dict(['b', value])], ['c', 'x'])),
      only: notPlain,
    };
    yield { name: `${name} in a list`, code: 'number_not_exact', event: listed(value), only: notPlain };
    yield {
      name: `${name} as an id`,
      code: 'field_not_text',
      event: (good) => good.with('id', value),
      only: notPlain,
    };
  }
  const most = 2n ** 53n - 1n;
  const kept: readonly Packed[] = [
    new Packed(msgpack.integer(most, 'u64')),
    new Packed(msgpack.integer(most, 'i64')),
    new Packed(msgpack.integer(-most, 'i64')),
    new Packed(msgpack.integer(0n, 'u64')),
    new Packed(msgpack.integer(-1n, 'i64')),
    ...[
      Number(most),
      -Number(most),
      0,
      -0,
      1,
      0.1,
      -0.1,
      1e-9,
      0.123456789,
      123456789.123456,
      99999999999999.5,
      1e15,
    ].map(double),
    ...[0.5, -0.25, 1.5, 16_777_216, -0, 1e10].map((value) => new Packed(msgpack.float32(value))),
  ];
  for (const value of kept) {
    const name = Buffer.from(value.bytes).toString('hex');
    yield { name: `number ${name}`, code: null, event: field(value), only: notPlain };
    yield { name: `number ${name} in a list`, code: null, event: field([value, [value]]), only: notPlain };
  }
  for (const [name, broken] of NO_UTF8) {
    const text = new Packed(msgpack.raw(broken));
    const at = (place: string, code: EdgeRejectionCode, event: Change): EventCase => ({
      name: `${name} in ${place}`,
      code,
      event,
      only: notPlain,
    });
    for (const attribute of ['id', 'source', 'type', 'subject'])
      yield at(attribute, 'text_not_unicode', (good) => good.with(attribute, text));
    yield at('time', 'time_not_rfc3339', (good) => good.with('time', text));
    yield at('an extension', 'text_not_unicode', (good) => good.with('specversion', '1.0').with('ext', text));
    yield at('a value', 'text_not_unicode', field(text));
    yield at('a key', 'text_not_unicode', data(dict(['a', num(1)], [text, num(1)])));
    yield at('a nested key', 'text_not_unicode', data(dict(['a', dict([text, dict(['b', num(1)])])])));
    yield at('an item', 'text_not_unicode', listed(text));
    yield at('a key in a list', 'text_not_unicode', listed(dict([text, num(1)])));
  }
}

/** Bytes that are no UTF-8 (RFC 3629). None of them is a quote, a backslash or a line feed. */
export const NO_UTF8: readonly (readonly [string, Uint8Array])[] = [
  ['a continuation alone', bytes(0x61, 0x80)],
  ['an overlong slash', bytes(0xc0, 0xaf)],
  ['an overlong NUL', bytes(0xc0, 0x80)],
  ['an overlong of three', bytes(0xe0, 0x80, 0xaf)],
  ['an overlong of four', bytes(0xf0, 0x80, 0x80, 0xaf)],
  ['a surrogate', bytes(0xed, 0xa0, 0x80)],
  ['a pair of surrogates', bytes(0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80)],
  ['beyond U+10FFFF', bytes(0xf4, 0x90, 0x80, 0x80)],
  ['five bytes', bytes(0xf8, 0x88, 0x80, 0x80, 0x80)],
  ['0xff', bytes(0x61, 0xff, 0x62)],
  ['two of three', bytes(0xe2, 0x82)],
  ['three of four', bytes(0xf0, 0x9f, 0x98)],
  ['a lead and a letter', bytes(0xc3, 0x28)],
  ['Latin-1', bytes(0x63, 0x61, 0x66, 0xe9)],
];
