import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { exactNumber } from '../../test/json-model.ts';
import { JsonNumber, numberEnd } from './json-number.ts';
import { JsonSource } from './json-source.ts';

const batch = new EventBatch();
const source = new JsonSource();
const number = new JsonNumber(source);

function begin(text: string): void {
  batch.reset(Buffer.from(text), new Uint8Array(0));
  source.begin(batch, false);
}

/** [mantissa, scale], null when it cannot be kept, or where it stops being a number. */
function read(text: string): [number, number] | null | string {
  begin(text);
  const end = number.read(0);
  if (end < 0) return `fault at ${source.faultAt}`;
  if (end < text.length) return `ends at ${end}`;
  return number.exact ? [number.mantissa, number.scale] : null;
}

test.each<[string, [number, number] | null | string]>([
  ['0', [0, 0]],
  ['-0', [0, 0]],
  ['-0.0e-5', [0, 0]],
  ['0e99999999999999999999', [0, 0]],
  ['7', [7, 0]],
  ['-7', [-7, 0]],
  ['1.50', [15, 1]],
  ['10.0', [10, 0]],
  ['0.000000001', [1, 9]],
  ['0.0000000010', [1, 9]],
  ['0.0000000001', null],
  ['1e3', [1000, 0]],
  ['1E5', [100_000, 0]],
  ['1.5e+1', [15, 0]],
  ['150e-1', [15, 0]],
  ['100e-9', [1, 7]],
  ['1e-9', [1, 9]],
  ['1e-10', null],
  ['1e400', null],
  ['1e-400', null],
  ['9e15', [9e15, 0]],
  ['9.1e15', null],
  ['9007199254740991', [9007199254740991, 0]],
  ['-9007199254740991', [-9007199254740991, 0]],
  ['9007199254740992', null],
  ['9007199254740993', null],
  ['9007199.254740991', [9007199254740991, 9]],
  ['900719.9254740991', null],
  ['90071992547409910e-1', [9007199254740991, 0]],
  ['0.1000000000000000000000000', [1, 1]],
  ['0.1000000000000000000000001', null],
  ['123456789012345.000000000000', [123456789012345, 0]],
  [`1${'0'.repeat(400)}e-400`, [1, 0]],
  [`0.${'0'.repeat(400)}1e401`, [1, 0]],
  [`${'9'.repeat(400)}`, null],
  ['01', 'fault at 1'],
  ['-01', 'fault at 2'],
  ['-', 'fault at 1'],
  ['+1', 'fault at 0'],
  ['.5', 'fault at 0'],
  ['1.', 'fault at 2'],
  ['1.e1', 'fault at 2'],
  ['1e', 'fault at 2'],
  ['1e+', 'fault at 3'],
  ['1e1.5', 'ends at 3'],
  ['0x10', 'ends at 1'],
  ['1_000', 'ends at 1'],
])('%s', (text, expected) => {
  expect(read(text)).toEqual(expected);
});

test('a number is its digits, whatever way they are written', () => {
  const digits = fc.oneof(
    fc.stringMatching(/^[0-9]{0,20}$/),
    fc.stringMatching(/^90071992547409[89][0-9]0{0,3}$/),
    fc.stringMatching(/^0{0,12}[1-9]?0{0,12}$/),
  );
  const literal = fc
    .record({
      sign: fc.constantFrom('', '-'),
      whole: digits.map((text) => text.replace(/^0+(?=.)/, '') || '0'),
      fraction: digits.map((text) => (text === '' ? '' : `.${text}`)),
      mark: fc.constantFrom('', '', 'e', 'E', 'e+', 'e-'),
      exponent: fc.oneof(fc.nat(25), fc.nat(500)),
    })
    .map(({ sign, whole, fraction, mark, exponent }) =>
      [sign, whole, fraction, mark, mark === '' ? '' : exponent].join(''),
    );
  fc.assert(
    fc.property(literal, (text) => {
      const result = read(text);
      expect(result, text).toEqual(exactNumber(text));
      if (result !== null) expect(Object.is(number.mantissa, -0)).toBe(false);
    }),
    { numRuns: 5_000 },
  );
});

test('both ways to read over a number end where it ends, or find the same fault', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[-+0-9.eE]{0,8}[ ,x]?$/), (text) => {
      begin(text);
      const end = number.read(0);
      const { faultAt } = source;
      begin(text);
      expect([numberEnd(source, 0), source.faultAt]).toEqual([end, faultAt]);
    }),
    { numRuns: 5_000 },
  );
});
