import fc from 'fast-check';
import { expect, test } from 'vitest';
import { chaskey, double, formatIdentity, IdentityHasher, parseIdentity, shardOf } from './identity.ts';

// Chaskey-12's published vectors (N. Mouha, reference implementation): the MAC of the bytes 0, 1, 2, …, n-1.
const VECTOR_KEY = [0x833d3433, 0x009f389f, 0x2398e64f, 0x417acf39];
const VECTORS: readonly (readonly [number, readonly number[]])[] = [
  [0, [0x43cb1f41, 0x51eba0c2, 0xff0a8ac3, 0x7ee3f642]],
  [1, [0xf9ac2067, 0x9c35a846, 0x441aad3d, 0x777b7330]],
  [4, [0x0b2b62db, 0x1e9e3f50, 0xa1b8dcad, 0xb4279ae0]],
  [15, [0x03cfb44b, 0x283c8163, 0xfca71448, 0xc40a0aea]],
  [16, [0x5dd0e2a9, 0xfb5eac8c, 0x633a392e, 0x500c36f3]],
  [17, [0x8b5f6d5a, 0x202314f6, 0x22092368, 0x9639e606]],
  [31, [0x1d3d30b1, 0x01d74fca, 0x3b2eb54c, 0xd8cd36b4]],
  [32, [0x77962784, 0x07c647fa, 0xdd752c0f, 0xd2f5a799]],
  [33, [0xd74bb867, 0x2c0dfb3a, 0xb697e9cd, 0x5658edda]],
  [48, [0xf36e748b, 0x8f34677f, 0x1e00ba1b, 0xdd7da46d]],
  [63, [0x2dd072e1, 0x42b89efe, 0xfb26b615, 0x049aa451]],
];

function mac(message: Uint8Array, key: Uint32Array): number[] {
  const out = new Uint32Array(4);
  chaskey(message, message.length, key, double(key), double(double(key)), out);
  return [...out];
}

test.each(VECTORS)('the published vector of %i bytes', (length, expected) => {
  const message = Uint8Array.from({ length }, (_, at) => at);
  expect(mac(message, Uint32Array.from(VECTOR_KEY))).toEqual(expected);
});

// The algorithm as the paper puts it, on numbers of 128 bits, sharing no line with the code under test.
const MASK32 = 0xffff_ffffn;
const MASK128 = (1n << 128n) - 1n;
const rotate = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (32n - by))) & MASK32;
const wordsOf = (value: bigint): bigint[] => [0n, 32n, 64n, 96n].map((shift) => (value >> shift) & MASK32);
const joined = (words: readonly bigint[]): bigint =>
  words.reduce((sum, word, at) => sum | (word << (32n * BigInt(at))), 0n);

function permuted(state: bigint): bigint {
  let [a, b, c, d] = wordsOf(state) as [bigint, bigint, bigint, bigint];
  for (let round = 0; round < 12; round++) {
    a = (a + b) & MASK32;
    c = (c + d) & MASK32;
    b = rotate(b, 5n) ^ a;
    d = rotate(d, 8n) ^ c;
    a = rotate(a, 16n);
    a = (a + d) & MASK32;
    c = (c + b) & MASK32;
    d = rotate(d, 13n) ^ a;
    b = rotate(b, 7n) ^ c;
    c = rotate(c, 16n);
  }
  return joined([a, b, c, d]);
}

const times2 = (value: bigint): bigint => {
  const shifted = (value << 1n) & MASK128;
  return value >> 127n === 1n ? shifted ^ 0x87n : shifted;
};
const littleEndian = (bytes: Uint8Array): bigint =>
  bytes.reduce((sum, byte, at) => sum | (BigInt(byte) << BigInt(8 * at)), 0n);

function model(message: Uint8Array, key: bigint): bigint {
  const blocks: Uint8Array[] = [];
  for (let at = 0; at < message.length; at += 16) blocks.push(message.subarray(at, at + 16));
  const last = blocks.pop() ?? new Uint8Array(0);
  const whole = last.length === 16;
  const mask = whole ? times2(key) : times2(times2(key));
  let state = key;
  for (const block of blocks) state = permuted(state ^ littleEndian(block));
  const padded = whole ? littleEndian(last) : littleEndian(last) | (1n << BigInt(8 * last.length));
  return permuted(state ^ padded ^ mask) ^ mask;
}

const key128 = fc.bigInt({ min: 0n, max: MASK128 });

test('the hash is that of an independent model, for any key and message', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), key128, (message, key) => {
      const words = Uint32Array.from(wordsOf(key).map(Number));
      expect(mac(message, words)).toEqual(wordsOf(model(message, key)).map(Number));
    }),
  );
});

test('doubling is the multiplication by x in GF(2^128)', () => {
  fc.assert(
    fc.property(key128, (key) => {
      const doubled = double(Uint32Array.from(wordsOf(key).map(Number)));
      expect([...doubled].map(BigInt)).toEqual(wordsOf(times2(key)));
    }),
  );
});

const text = fc.string({ unit: 'grapheme', maxLength: 90 });
const KEY_HEX = '00112233445566778899aabbccddeeff';

test('an identity is the hash over the fields, each behind its length in bytes', () => {
  const hasher = new IdentityHasher(KEY_HEX);
  const key = littleEndian(Buffer.from(KEY_HEX, 'hex'));
  fc.assert(
    fc.property(text, text, text, (tenant, source, id) => {
      const parts = [tenant, source, id].flatMap((field) => {
        const bytes = Buffer.from(field, 'utf8');
        const length = Buffer.alloc(4);
        length.writeUInt32LE(bytes.length);
        return [length, bytes];
      });
      hasher.hash(tenant, source, id);
      expect([...hasher.words].map(BigInt)).toEqual(wordsOf(model(Buffer.concat(parts), key)));
    }),
  );
});

test('where one field ends and the next begins matters', () => {
  const hasher = new IdentityHasher(KEY_HEX);
  const identity = (...fields: [string, string, string]): string => {
    hasher.hash(...fields);
    return formatIdentity(hasher.words);
  };
  const all = [
    identity('ab', 'c', 'd'),
    identity('a', 'bc', 'd'),
    identity('a', 'b', 'cd'),
    identity('abcd', '', ''),
    identity('', '', 'abcd'),
  ];
  expect(new Set(all).size).toBe(all.length);
  expect(identity('ab', 'c', 'd')).toBe(all[0]);
  // Longer than the hasher's first buffer.
  expect(identity('t', 's', 'x'.repeat(10_000))).not.toBe(identity('t', 's', 'x'.repeat(10_001)));
});

test('a key that is not 32 lower-case hexadecimal digits is refused', () => {
  for (const key of ['', 'ff', KEY_HEX.toUpperCase(), `${KEY_HEX}0`, `${KEY_HEX.slice(1)}g`]) {
    expect(() => new IdentityHasher(key)).toThrow(/32 lower-case/);
  }
});

test('the shard is the 128-bit number, first word highest, modulo the shards', () => {
  fc.assert(
    fc.property(
      fc.tuple(...[0, 1, 2, 3].map(() => fc.nat(0xffff_ffff))),
      fc.integer({ min: 1, max: 65_536 }),
      (words, shards) => {
        const number = words.reduce((sum, word) => (sum << 32n) | BigInt(word), 0n);
        expect(shardOf(words, shards)).toBe(Number(number % BigInt(shards)));
      },
    ),
  );
});

test('shards get about the same number of events', () => {
  const hasher = new IdentityHasher(KEY_HEX);
  const counts = [0, 0, 0, 0];
  for (let at = 0; at < 20_000; at++) {
    hasher.hash('acme', 'gateway', `event-${at}`);
    counts[shardOf(hasher.words, 4)]! += 1;
  }
  // Six standard deviations of a fair draw: sqrt(20,000 · 1/4 · 3/4) = 61.
  for (const count of counts) expect(Math.abs(count - 5_000)).toBeLessThan(6 * 61);
});

test('the written form comes back', () => {
  expect(formatIdentity([0x01234567, 0x89abcdef, 0x00000001, 0xffffffff])).toBe(
    '01234567-89ab-cdef-0000-0001ffffffff',
  );
  fc.assert(
    fc.property(fc.array(fc.nat(0xffff_ffff), { minLength: 4, maxLength: 4 }), (words) => {
      expect([...parseIdentity(formatIdentity(words))]).toEqual(words);
    }),
  );
});
