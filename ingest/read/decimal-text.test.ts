import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseQuantity } from '../../contract/quantity.ts';
import { decimalFault } from './decimal-text.ts';

function faultOf(text: string): string | null {
  const bytes = Buffer.from(`9${text}9`);
  return decimalFault(bytes, 1, bytes.length - 1);
}

function expected(text: string): string | null {
  const parsed = parseQuantity(text);
  return parsed.ok ? null : parsed.fault;
}

test('the bytes of a text are judged as parseQuantity judges the text', () => {
  const digits = (max: number): fc.Arbitrary<string> =>
    fc.array(fc.constantFrom('0', '0', '1', '9'), { maxLength: max }).map((all) => all.join(''));
  const nearly = fc
    .tuple(fc.constantFrom('', '-', '+', '--'), digits(22), fc.constantFrom('', '.', '..'), digits(14))
    .map((parts) => parts.join(''));
  const odd = fc.constantFrom('1e3', ' 1', '1 ', '٣', '1\n', '0x10', 'NaN', 'Infinity', '1_000', '1,5', '１');
  const long = fc
    .tuple(fc.integer({ min: 55, max: 70 }), fc.constantFrom('0', '1'))
    .map(([n, d]) => `1.${d.repeat(n)}`);
  fc.assert(
    fc.property(
      fc.oneof({ weight: 6, arbitrary: nearly }, fc.string({ unit: 'binary' }), odd, long),
      (text) => {
        if (!text.isWellFormed()) return;
        expect(faultOf(text)).toBe(expected(text));
      },
    ),
    { numRuns: 2_000 },
  );
});

test.each([
  ['0', null],
  ['-0', null],
  ['-12.500000000000', null],
  ['999999999999999999.999999999', null],
  ['1000000000000000000', 'too_large'],
  ['-1000000000000000000.0', 'too_large'],
  ['0.0000000001', 'too_many_decimals'],
  ['1000000000000000000.0000000001', 'too_many_decimals'],
  ['', 'not_a_decimal'],
  ['-', 'not_a_decimal'],
  ['.5', 'not_a_decimal'],
  ['5.', 'not_a_decimal'],
  ['05', 'not_a_decimal'],
  ['00', 'not_a_decimal'],
  [`1.${'0'.repeat(62)}`, null],
  [`1.${'0'.repeat(63)}`, 'not_a_decimal'],
] as const)('%j: %s', (text, fault) => {
  expect(faultOf(text)).toBe(fault);
  expect(expected(text)).toBe(fault);
});
