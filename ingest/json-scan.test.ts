import fc from 'fast-check';
import { expect, test } from 'vitest';
import { elementsWithRoundedNumber, isRounded, mayHoldRoundedNumber, scanJson } from './json-scan.ts';

const nothing = (): void => undefined;

test('what JSON.parse takes has no fault, and the other way round', () => {
  const json = fc.json({ maxDepth: 8 });
  const damaged = fc
    .tuple(
      json,
      fc.nat(),
      fc.constantFrom('', '"', ',', ']', '}', '{', '[', ':', '0', 'e', '\\', '\n', ' ', '-', 'x'),
    )
    .map(([text, place, insert]) => {
      const at = place % (text.length + 1);
      return text.slice(0, at) + insert + text.slice(at + (place % 2));
    });
  fc.assert(
    fc.property(fc.oneof(json, damaged, fc.string()), (text) => {
      let sound = true;
      try {
        JSON.parse(text);
      } catch {
        sound = false;
      }
      const fault = scanJson(text, nothing);
      expect(fault === -1).toBe(sound);
      expect(fault).toBeLessThanOrEqual(text.length);
    }),
    { numRuns: 3_000 },
  );
});

test('numbers are told with the element that they stand in', () => {
  const told: [string, number][] = [];
  scanJson('[1, {"a": [2.5, -3e4]}, "9", 0]', (literal, element) => told.push([literal, element]));
  expect(told).toEqual([
    ['1', 0],
    ['2.5', 1],
    ['-3e4', 1],
    ['0', 3],
  ]);
  told.length = 0;
  scanJson('{"a": 1, "b": 2}', (literal, element) => told.push([literal, element]));
  expect(told).toEqual([
    ['1', 0],
    ['2', 0],
  ]);
});

test.each([
  ['1', false],
  ['0.1', false],
  ['-0', false],
  ['1.50', false],
  ['1e3', false],
  ['10e-1', false],
  ['9007199254740992', false],
  ['9007199254740993', true],
  ['0.1000000000000000055', true],
  ['1e400', true],
  ['1e-400', true],
  ['0e-400', false],
])('%s is rounded: %s', (literal, expected) => {
  expect(isRounded(literal)).toBe(expected);
});

test('the glance at the bytes overlooks no rounded number', () => {
  const digits = fc.stringMatching(/^[0-9]{1,22}$/).map((text) => text.replace(/^0+(?=.)/, ''));
  const literal = fc
    .tuple(
      fc.constantFrom('', '-'),
      digits,
      fc.option(fc.stringMatching(/^[0-9]{1,22}$/), { nil: null }),
      fc.option(fc.integer({ min: -420, max: -1 }), { nil: null }),
    )
    .map(([sign, whole, fraction, exponent]) => {
      return (
        sign + whole + (fraction === null ? '' : `.${fraction}`) + (exponent === null ? '' : `e${exponent}`)
      );
    });
  fc.assert(
    fc.property(
      literal,
      fc.string({ maxLength: 40 }),
      fc.constantFrom('', ' ', '\n'),
      (number, text, space) => {
        const body = `[${JSON.stringify(text)},{"n":${number}${space}}]`;
        if (!isRounded(number)) return;
        expect(mayHoldRoundedNumber(Buffer.from(body)), body).toBe(true);
        expect([...elementsWithRoundedNumber(body)]).toEqual([1]);
      },
    ),
    { numRuns: 2_000 },
  );
});

test('usual bodies are not looked at twice', () => {
  const body = JSON.stringify([
    {
      id: '7f3a9c1e-4123-4e8e-9123-000000000000',
      time: '2026-11-21T08:30:00.123Z',
      data: { tokens: 1234567, cost: 0.000123, ip: '10.0.0.1' },
    },
  ]);
  expect(mayHoldRoundedNumber(Buffer.from(body))).toBe(false);
});
