import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { packPosition } from '../../contract/position.ts';
import { EARLIER, positionInShard } from '../position-in-shard.ts';
import { ENTRY_ROW_BYTES, IDENTITY_BYTES, IdentityRows } from './identity-rows.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const rowOf = fc.record({
  identity: fc.tuple(u32, u32, u32, u32),
  incarnation: fc.integer({ min: 1, max: 3 }),
  sequence: fc.integer({ min: 0, max: 2 ** 37 - 1 }),
  index: fc.integer({ min: 0, max: 65_535 }),
  hash: fc.tuple(u32, u32),
});

/** The bytes as ClickHouse writes them, by big integers. */
function encode(rows: readonly (typeof rowOf extends fc.Arbitrary<infer Row> ? Row : never)[]): Buffer {
  const bytes = Buffer.alloc(rows.length * 32);
  rows.forEach(({ identity: [a, b, c, d], incarnation, sequence, index, hash: [low, high] }, at) => {
    bytes.writeBigUInt64LE((BigInt(a) << 32n) | BigInt(b), at * 32);
    bytes.writeBigUInt64LE((BigInt(c) << 32n) | BigInt(d), at * 32 + 8);
    bytes.writeBigUInt64LE(packPosition(incarnation, sequence, index), at * 32 + 16);
    bytes.writeBigUInt64LE((BigInt(high) << 32n) | BigInt(low), at * 32 + 24);
  });
  return bytes;
}

describe('rows of identities', () => {
  test('come out as they went in, wherever the chunks end', () => {
    fc.assert(
      fc.property(fc.array(rowOf, { maxLength: 20 }), fc.integer({ min: 1, max: 100 }), (rows, chunk) => {
        const bytes = encode(rows);
        const decoder = new IdentityRows(ENTRY_ROW_BYTES, 3);
        const found: unknown[] = [];
        for (let at = 0; at < bytes.length; at += chunk) {
          decoder.take(bytes.subarray(at, at + chunk), ({ identity, position, payloadHash }) =>
            found.push([[...identity], position, [...payloadHash]]),
          );
        }
        expect(found).toEqual(
          rows.map(({ identity, incarnation, sequence, index, hash }) => [
            identity,
            incarnation < 3 ? EARLIER : positionInShard(sequence, index),
            hash,
          ]),
        );
        expect(decoder.rows).toBe(rows.length);
        expect(decoder.whole).toBe(true);
      }),
    );
  });

  test('an answer that was cut within a row is noticed', () => {
    const decoder = new IdentityRows(IDENTITY_BYTES, 1);
    decoder.take(new Uint8Array(40), () => undefined);
    expect(decoder.rows).toBe(2);
    expect(decoder.whole).toBe(false);
  });

  test('a position of a later incarnation is a mistake', () => {
    const decoder = new IdentityRows(ENTRY_ROW_BYTES, 1);
    const bytes = encode([
      { identity: [1, 2, 3, 4], incarnation: 2, sequence: 1, index: 0, hash: [0, 0] },
    ] as never);
    expect(() => decoder.take(bytes, () => undefined)).toThrow('incarnation 2 seen from 1');
  });
});
