import fc from 'fast-check';
import { expect, test } from 'vitest';
import { correctionOf, identityOf } from '../test/event-batch.ts';
import { Chaskey, double, formatIdentity, IdentityHasher, parseIdentity, ShardRule } from './identity.ts';

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

/** The MAC of a message, of which so many whole blocks were taken in before. */
function mac(message: Uint8Array, key: Uint32Array, blocksBefore = 0): number[] {
  const chaskey = new Chaskey(key);
  const bytes = new Uint8Array((message.length + 31) & ~15).fill(0xff);
  bytes.set(message);
  const words = new Int32Array(bytes.buffer);
  const state = new Int32Array(4);
  const out = new Uint32Array(6);
  chaskey.begin(words, blocksBefore * 16, state);
  chaskey.finish(words, bytes, blocksBefore * 16, message.length, state, out, 1);
  return [...out.subarray(1, 5)];
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
      const expected = wordsOf(model(message, key)).map(Number);
      // However many of its blocks, but for the last, were taken in before.
      for (let blocks = 0; blocks === 0 || blocks * 16 < message.length; blocks++) {
        expect(mac(message, words, blocks)).toEqual(expected);
      }
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

const KEY_HEX = '00112233445566778899aabbccddeeff';

/** The identity as it is defined, from strings. */
function modelOf(fields: readonly string[]): number[] {
  const parts = fields.flatMap((field) => {
    const bytes = Buffer.from(field, 'utf8');
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return [length, bytes];
  });
  return wordsOf(model(Buffer.concat(parts), littleEndian(Buffer.from(KEY_HEX, 'hex')))).map(Number);
}

// Neighbours share tenants and sources, or beginnings of them, which is what the hasher remembers.
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 90 }),
  fc.constantFrom('', 'a', 'ab', 'abc', 'abcd', 'abce', 'gateway-eu-1', 'gateway-eu-2', 'x'.repeat(1_100)),
);

test('an identity is the hash over the fields, each behind its length in bytes, whatever came before it', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(text, text, text), { minLength: 1, maxLength: 8 }), (events) => {
      const hasher = new IdentityHasher(KEY_HEX);
      for (const fields of events) expect([...identityOf(hasher, ...fields)]).toEqual(modelOf(fields));
    }),
  );
});

test('the identity of a correction is the hash over four fields, whatever came before it', () => {
  const fields = fc.tuple(text, text, text, fc.option(text));
  fc.assert(
    fc.property(fc.array(fields, { minLength: 1, maxLength: 8 }), (events) => {
      const hasher = new IdentityHasher(KEY_HEX);
      for (const [tenant, source, original, id] of events) {
        if (id === null) {
          expect([...identityOf(hasher, tenant, source, original)]).toEqual(
            modelOf([tenant, source, original]),
          );
        } else {
          const found = correctionOf(hasher, tenant, source, original, id);
          expect([...found]).toEqual(modelOf([tenant, source, original, id]));
        }
      }
    }),
  );
});

test('no event has the identity of a correction, however their fields are cut', () => {
  // Lengths as they stand in the hashed bytes, which an id may hold too.
  const cuts = ['', 'a', 'aa', '\u0001\0\0\0a', 'a\u0001\0\0\0a', '\0\0\0\0', 'a\0\0\0\0', '\u0001\0\0\0aa'];
  const hasher = new IdentityHasher(KEY_HEX);
  const seen = new Set<string>();
  let made = 0;
  for (const source of cuts) {
    for (const original of cuts) {
      seen.add(formatIdentity(identityOf(hasher, 'acme', source, original)));
      made += 1;
      for (const id of cuts) {
        seen.add(formatIdentity(correctionOf(hasher, 'acme', source, original, id)));
        made += 1;
      }
    }
  }
  expect(seen.size).toBe(made);
});

test('neighbours that have the tenant or most of the source in common are told apart', () => {
  const few = fc.constantFrom('', 'a', 'b', 'gateway-eu-1', 'gateway-eu-2', 'gateway-us-1', 'hateway-eu-1');
  fc.assert(
    fc.property(fc.array(fc.tuple(few, few, few), { minLength: 2, maxLength: 30 }), (events) => {
      const hasher = new IdentityHasher(KEY_HEX);
      for (const fields of events) expect([...identityOf(hasher, ...fields)]).toEqual(modelOf(fields));
    }),
    { numRuns: 200 },
  );
});

// What the edge has stored for years must be recognised: these values never change.
test.each<[string, string, string, string, number]>([
  ['acme', 'gateway-eu-1', '0b7e5a0e-6f0d-4c8e-9c55-2f6f2f0a8b11', '0a20fbfb-754c-46fb-10b2-1be17f94fea6', 4],
  ['acme', '', 'evt-1', '2a069ecf-1286-a484-5c76-451416c5294f', 1],
  ['', '', '', '07a1b8f2-bb0c-b3dd-0b06-f398c8d30eac', 4],
  ['größe', '日本', 'naïve ☃', 'b02361dc-114d-edf5-2220-df7d3cccd5f9', 0],
  ['acme', 's'.repeat(300), 'x'.repeat(256), '3220cb86-5eb6-bd60-11de-f2aa260022db', 4],
])('the identity of %s, %s, %s is %s, and with 7 shards it goes to shard %i', (...row) => {
  const [tenant, source, id, identity, shard] = row;
  const words = identityOf(new IdentityHasher(KEY_HEX), tenant, source, id);
  expect(formatIdentity(words)).toBe(identity);
  expect(new ShardRule(7).of(words)).toBe(shard);
});

// As above: a correction that comes again in a year must be the same one.
test.each<[string, string, string, string, string]>([
  ['acme', 'gateway-eu-1', 'evt-1', 'void', '60332742-18e2-e008-334b-699f18ea0205'],
  ['acme', '', 'evt-1', 'a-1', '13690099-65d1-a9de-e922-1794389366a8'],
])('the identity of the correction %s, %s, %s, %s is %s', (tenant, source, original, id, identity) => {
  expect(formatIdentity(modelOf([tenant, source, original, id]))).toBe(identity);
  expect(formatIdentity(correctionOf(new IdentityHasher(KEY_HEX), tenant, source, original, id))).toBe(
    identity,
  );
});

test('where one field ends and the next begins matters', () => {
  const hasher = new IdentityHasher(KEY_HEX);
  const identity = (...fields: [string, string, string]): string =>
    formatIdentity(identityOf(hasher, ...fields));
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

test('an identity is written where it was asked for, and nothing else is', () => {
  const hasher = new IdentityHasher(KEY_HEX);
  const view = new DataView(new TextEncoder().encode('abcdefgh   ').buffer);
  const out = new Uint32Array(12).fill(7);
  hasher.turnTo(new TextEncoder().encode('acme'));
  hasher.hash(view, 0, 3, 3, 8, out, 4);
  expect([...out]).toEqual([7, 7, 7, 7, ...modelOf(['acme', 'abc', 'defgh']), 7, 7, 7, 7]);
});

test('a key that is not 32 lower-case hexadecimal digits is refused', () => {
  for (const key of ['', 'ff', KEY_HEX.toUpperCase(), `${KEY_HEX}0`, `${KEY_HEX.slice(1)}g`]) {
    expect(() => new IdentityHasher(key)).toThrow(/32 lower-case/);
  }
});

test('the shard is the 128-bit number, first word highest, modulo the shards', () => {
  fc.assert(
    fc.property(
      fc.tuple(...[0, 1, 2, 3].map(() => fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 0xffff_ffff)))),
      fc.oneof(fc.integer({ min: 1, max: 65_536 }), fc.constantFrom(1, 2, 3, 65_535, 65_536)),
      fc.nat(3),
      (words, shards, at) => {
        const number = words.reduce((sum, word) => (sum << 32n) | BigInt(word), 0n);
        const memory = Uint32Array.from([...new Array<number>(at).fill(9), ...words, 9]);
        expect(new ShardRule(shards).of(memory, at)).toBe(Number(number % BigInt(shards)));
      },
    ),
    { numRuns: 2_000 },
  );
});

test('shards get about the same number of events', () => {
  const hasher = new IdentityHasher(KEY_HEX);
  const rule = new ShardRule(4);
  const counts = [0, 0, 0, 0];
  for (let at = 0; at < 20_000; at++) {
    counts[rule.of(identityOf(hasher, 'acme', 'gateway', `event-${at}`))]! += 1;
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
