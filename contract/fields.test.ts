import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT, Fields } from './fields.ts';

const fields = new Fields();

/** path → tag:content, the content of a number as mantissa e-scale. */
function flat(data: unknown): Record<string, string> | string {
  const code = fields.read(data);
  if (code !== null) return `${code} ${fields.faultPath}`;
  const result: Record<string, string> = {};
  for (let at = 0; at < fields.count; at++) {
    const tag = fields.tags[at]!;
    const content =
      tag === FIELD_NUMBER
        ? `${fields.mantissas[at]}e-${fields.scales[at]}`
        : JSON.stringify(fields.texts[at]);
    result[fields.paths[at]!] =
      `${{ [FIELD_TEXT]: 't', [FIELD_NUMBER]: 'n', [FIELD_LITERAL]: 'l' }[tag]}:${content}`;
  }
  return result;
}

const deep = (levels: number): unknown => (levels === 0 ? 1 : { a: deep(levels - 1) });
const deepArray = (levels: number): unknown => (levels === 0 ? 1 : [deepArray(levels - 1)]);
const many = (count: number): unknown =>
  Object.fromEntries(Array.from({ length: count }, (_, at) => [`f${at}`, at]));

test.each<[string, unknown, Record<string, string> | string]>([
  ['nothing', undefined, {}],
  ['null', null, {}],
  ['an empty object', {}, {}],
  [
    'plain values',
    { n: 12, t: 'x', b: true, z: null },
    { n: 'n:12e-0', t: 't:"x"', b: 'l:"true"', z: 'l:"null"' },
  ],
  ['nesting', { a: { b: { c: 1 } }, d: {} }, { 'a.b.c': 'n:1e-0', d: 'l:"{}"' }],
  ['an array', { a: [1, 'x', { b: null }] }, { a: 'l:"[1,\\"x\\",{\\"b\\":null}]"' }],
  ['fractions', { a: 0.1, b: -2.5, c: 1e-9 }, { a: 'n:1e-1', b: 'n:-25e-1', c: 'n:1e-9' }],
  ['an exponent', { a: 1e3, b: 1.5e-7 }, { a: 'n:1000e-0', b: 'n:15e-8' }],
  ['minus zero', { a: -0 }, { a: 'n:0e-0' }],
  ['the largest whole number', { a: Number.MAX_SAFE_INTEGER }, { a: 'n:9007199254740991e-0' }],
  ['15 digits', { a: 123456.789012345 }, { a: 'n:123456789012345e-9' }],
  ['a dotted key', { 'a.b': 1 }, { 'a.b': 'n:1e-0' }],
  ['__proto__', JSON.parse('{"__proto__": {"x": 1}}'), { '__proto__.x': 'n:1e-0' }],
  ['8 levels', deep(8), { 'a.a.a.a.a.a.a.a': 'n:1e-0' }],
  [
    '64 fields',
    many(64),
    Object.fromEntries(Array.from({ length: 64 }, (_, at) => [`f${at}`, `n:${at}e-0`])),
  ],
  ['a list', [], 'data_not_an_object data'],
  ['a text', 'x', 'data_not_an_object data'],
  ['9 levels', deep(9), 'data_too_deep data.a.a.a.a.a.a.a.a'],
  ['9 levels of array', { a: deepArray(8) }, 'data_too_deep data.a'],
  ['65 fields', many(65), 'data_too_many_fields data.f64'],
  ['a long path', { ['k'.repeat(257)]: 1 }, `data_path_too_long data.${'k'.repeat(257)}`],
  ['2^53', { a: 2 ** 53 }, 'number_not_exact data.a'],
  ['infinity', { a: JSON.parse('1e400') as number }, 'number_not_exact data.a'],
  ['10 decimals', { a: { b: 1e-10 } }, 'number_not_exact data.a.b'],
  ['16 digits', { a: 1234567.890123456 }, 'number_not_exact data.a'],
  ['an inexact number in an array', { a: [0.30000000000000004] }, 'number_not_exact data.a'],
  ['a lone surrogate', { a: '\ud800' }, 'text_not_unicode data.a'],
  ['a lone surrogate in a key', { '\udc00': 1 }, 'text_not_unicode data.\udc00'],
  ['a lone surrogate in an array', { a: ['\ud800'] }, 'text_not_unicode data.a'],
  ['a path twice', { 'a.b': 1, a: { b: 2 } }, 'data_path_repeated data.a.b'],
  ['a path twice through an empty key', { '': { a: 1 }, a: 2 }, 'data_path_repeated data.a'],
])('%s', (_, data, expected) => {
  expect(flat(data)).toEqual(expected);
});

test('a number is kept as the decimal that it was sent as', () => {
  fc.assert(
    fc.property(fc.integer({ min: -(10 ** 15) + 1, max: 10 ** 15 - 1 }), fc.nat(9), (mantissa, scale) => {
      const digits = Math.abs(mantissa)
        .toString()
        .padStart(scale + 1, '0');
      const whole = digits.slice(0, digits.length - scale);
      const text = `${mantissa < 0 ? '-' : ''}${whole}${scale === 0 ? '' : `.${digits.slice(digits.length - scale)}`}`;
      expect(fields.read({ a: JSON.parse(text) })).toBeNull();
      // Equal as fractions: kept · 10^scale = sent · 10^keptScale.
      const kept = BigInt(fields.mantissas[0]!) * 10n ** BigInt(scale);
      expect(kept).toBe(BigInt(mantissa) * 10n ** BigInt(fields.scales[0]!));
    }),
  );
});

test('any JSON is read or refused with a code, never an exception', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 12 }), (value) => {
      const code = fields.read(value);
      expect(code === null || code.length > 0).toBe(true);
      if (code === null) expect(fields.count).toBeLessThanOrEqual(64);
      else expect(fields.faultPath).toMatch(/^data/);
    }),
  );
});

test('a million levels are refused and not walked', () => {
  const levels = 1_000_000;
  expect(fields.read(JSON.parse(`{"a":${'['.repeat(levels)}${']'.repeat(levels)}}`))).toBe('data_too_deep');
});
