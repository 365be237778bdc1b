import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatIdentity, parseIdentity } from '../contract/identity.ts';
import { packPosition } from '../contract/position.ts';
import { unscaleDecimal } from '../contract/quantity.ts';
import {
  arrayColumn,
  Bytes,
  encodeNative,
  fixedColumn,
  lowCardinalityColumn,
  positionColumn,
  putDecimal,
  putIdentity,
  putUuid,
  textColumn,
  wholeColumn,
  type Column,
} from './native.ts';
import { positionInShard } from './position-in-shard.ts';

const hex = (column: Column): string =>
  Buffer.concat(column.parts.map((part) => Buffer.from(part))).toString('hex');
const spaceless = (text: string): string => text.replaceAll(' ', '');

// That ClickHouse reads these bytes as they are meant is shown by test/aggregator.test.ts; here they are
// written out from the description of the format.
describe('Native format', () => {
  test('a block is counts, then name, type and data of each column', () => {
    const block = encodeNative(2, [
      textColumn('ab', ['x', 'é']),
      fixedColumn('n', 'UInt16', Uint16Array.of(1, 258)),
    ]);
    expect(Buffer.from(block).toString('hex')).toBe(
      spaceless('02 02 02 6162 06 537472696e67 01 78 02 c3a9 01 6e 06 55496e743136 0100 0201'),
    );
    expect(() => encodeNative(0, [])).toThrow('without rows');
  });

  test('lengths of 128 bytes and more take two bytes of LEB128', () => {
    const long = 'y'.repeat(300);
    expect(hex(textColumn('t', [long]))).toBe(`ac02${'79'.repeat(300)}`);
    const wide = '€'.repeat(42); // 126 bytes
    expect(hex(textColumn('t', [wide]))).toBe(`7e${'e282ac'.repeat(42)}`);
    const wider = '€'.repeat(43); // 129 bytes
    expect(hex(textColumn('t', [wider]))).toBe(`8101${'e282ac'.repeat(43)}`);
  });

  test('a low-cardinality column is its dictionary and u32 numbers', () => {
    expect(hex(lowCardinalityColumn('t', ['a', 'bc'], Uint32Array.of(1, 0, 1)))).toBe(
      spaceless(
        `0100000000000000 0206000000000000 0200000000000000 01 61 02 6263
         0300000000000000 01000000 00000000 01000000`.replace(/\s+/g, ' '),
      ),
    );
  });

  test('arrays are the ends of their rows, then the items', () => {
    const items = new Bytes();
    for (const text of ['a', 'b', 'c']) items.text(text);
    const ends = '0200000000000000 0200000000000000 0300000000000000';
    expect(hex(arrayColumn('t', [2, 0, 1], items))).toBe(spaceless(`${ends} 0161 0162 0163`));
  });

  test('decimals are 128-bit two\u2019s complement of nine decimals, whatever the sizes', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.nat(9), (value, scale) => {
        const words = new Uint32Array(12).fill(0xdead);
        putDecimal(words, 1, value, scale);
        const expected = BigInt.asUintN(128, BigInt(value) * 10n ** BigInt(9 - scale));
        expect(Buffer.from(words.buffer, 16, 16).toString('hex')).toBe(littleEndian(expected));
        expect([words[3], words[8]]).toEqual([0xdead, 0xdead]);
      }),
      { numRuns: 2_000 },
    );
    for (const value of [
      0,
      1,
      -1,
      Number.MAX_SAFE_INTEGER,
      Number.MIN_SAFE_INTEGER,
      2 ** 44,
      -(2 ** 44),
      2 ** 22,
    ]) {
      const words = new Uint32Array(4);
      putDecimal(words, 0, value, 0);
      const expected = BigInt.asUintN(128, BigInt(value) * 10n ** 9n);
      expect(Buffer.from(words.buffer).toString('hex')).toBe(littleEndian(expected));
    }
  });

  test('a decimal is the same text as by bigint, whatever its size and scale', () => {
    const written = (mantissa: number, scale: number): string => {
      const bytes = new Bytes(1);
      bytes.decimal(mantissa, scale, 0xff);
      return Buffer.from(bytes.written).toString('latin1');
    };
    const check = (mantissa: number, scale: number): void => {
      const text = unscaleDecimal(BigInt(mantissa), scale);
      expect(written(mantissa, scale)).toBe(`${text}\u00ff`);
    };
    fc.assert(fc.property(fc.maxSafeInteger(), fc.nat(9), check), { numRuns: 2_000 });
    fc.assert(fc.property(fc.integer({ min: -2_000, max: 2_000 }), fc.nat(9), check), { numRuns: 2_000 });
    for (let scale = 0; scale <= 9; scale++) {
      for (let size = 1; size <= Number.MAX_SAFE_INTEGER; size *= 10)
        for (const near of [size - 1, size, size + 1]) check(near, scale);
      for (const value of [-0, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]) check(value, scale);
    }
  });

  test('a string in pieces has its length in front, whatever the length', () => {
    for (const length of [0, 1, 126, 127, 128, 300, 16_382, 16_383, 20_000]) {
      const bytes = new Bytes(1);
      bytes.text('before');
      const start = bytes.begin();
      const piece = new TextEncoder().encode('y'.repeat(length));
      bytes.piece(piece, 0, length, 0xff);
      bytes.end(start);
      bytes.text('after');
      const size = length + 1;
      const prefix =
        size < 128
          ? [size]
          : size < 16_384
            ? [(size % 128) + 128, size >> 7]
            : [(size % 128) + 128, ((size >> 7) % 128) + 128, size >> 14];
      const expected = Buffer.concat([
        Buffer.from('\u0006before'),
        Buffer.from(prefix),
        Buffer.from(piece),
        Buffer.from([0xff]),
        Buffer.from('\u0005after'),
      ]);
      expect(Buffer.from(bytes.written).equals(expected)).toBe(true);
    }
  });

  test('a UUID in lower case is taken as an identity is written, and no other text is', () => {
    const put = (text: string): { taken: boolean; words: Uint32Array } => {
      const words = new Uint32Array(8);
      const bytes = new TextEncoder().encode(`ab${text}c-d`);
      return { taken: putUuid(words, 1, bytes, 2, 2 + Buffer.byteLength(text)), words };
    };
    fc.assert(
      fc.property(fc.uuid(), (text) => {
        const expected = new Uint32Array(8);
        putIdentity(expected, 1, parseIdentity(text), 0);
        expect(put(text)).toEqual({ taken: true, words: expected });
      }),
    );
    const sound = '00112233-4455-6677-8899-aabbccddeeff';
    expect(put(sound).taken).toBe(true);
    for (const text of [
      '00000000-0000-0000-0000-000000000000',
      sound.toUpperCase(),
      sound.slice(1),
      `${sound}0`,
      sound.replace('-', '0'),
      sound.replaceAll('-', ''),
      '0011-2233-4455-6677-8899-aabbccddeef',
      '00112233-4455-6677-8899-aabb-cddeeff',
      '00112233-4455-6677-8899-aabbccddeefg',
      '00112233-4455-6677-8899-aabbccddeé0',
      '',
    ])
      expect([text, put(text).taken]).toEqual([text, false]);
  });

  test('64-bit numbers and packed positions keep every bit', () => {
    expect(hex(wholeColumn('t', 'UInt64', [2 ** 53 - 1]))).toBe('ffffffffffff1f00');
    for (const [incarnation, sequence, index] of [
      [1, 1, 0],
      [255, 2 ** 37 - 1, 65_535],
      [3, 2 ** 33 + 5, 77],
    ] as const) {
      const column = positionColumn('p', [incarnation], [positionInShard(sequence, index)]);
      const expected = Buffer.alloc(8);
      expected.writeBigUInt64LE(packPosition(incarnation, sequence, index));
      expect(hex(column)).toBe(expected.toString('hex'));
    }
  });

  test('an identity is two halves, each little-endian', () => {
    const words = parseIdentity('00112233-4455-6677-8899-aabbccddeeff');
    const target = new Uint32Array(4);
    putIdentity(target, 0, words, 0);
    expect(Buffer.from(target.buffer).toString('hex')).toBe('7766554433221100ffeeddccbbaa9988');
    expect(formatIdentity(words)).toBe('00112233-4455-6677-8899-aabbccddeeff');
  });
});

/** Sixteen bytes, computed digit by digit. */
function littleEndian(value: bigint): string {
  let text = '';
  for (let rest = value, byte = 0; byte < 16; byte++, rest /= 256n) {
    text += (rest % 256n).toString(16).padStart(2, '0');
  }
  return text;
}
