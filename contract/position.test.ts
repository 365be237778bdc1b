import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  BLOCK_EVENTS_MAX,
  endOfMessage,
  INCARNATION_MAX,
  packPosition,
  SEQUENCE_MAX,
  unpackPosition,
} from './position.ts';

const triple = fc.tuple(fc.nat(INCARNATION_MAX), fc.nat(SEQUENCE_MAX), fc.nat(BLOCK_EVENTS_MAX - 1));

test('a position is packed as 8 + 40 + 16 bits', () => {
  expect(packPosition(1, 2, 3)).toBe(0x01_0000000002_0003n);
  expect(packPosition(INCARNATION_MAX, SEQUENCE_MAX, BLOCK_EVENTS_MAX - 1)).toBe(0xff_1fffffffff_ffffn);
  expect(endOfMessage(0, 1)).toBe(0x1ffffn);
});

test('it comes back', () => {
  fc.assert(
    fc.property(triple, ([incarnation, sequence, index]) => {
      expect(unpackPosition(packPosition(incarnation, sequence, index))).toEqual({
        incarnation,
        sequence,
        index,
      });
    }),
  );
});

test('packed positions compare like their triples', () => {
  fc.assert(
    fc.property(triple, triple, (a, b) => {
      const order = a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
      const [packedA, packedB] = [packPosition(...a), packPosition(...b)];
      expect(Math.sign(order)).toBe(packedA < packedB ? -1 : packedA > packedB ? 1 : 0);
    }),
  );
});

test('the end of a message is at or behind all in it and before the next message', () => {
  fc.assert(
    fc.property(triple, ([incarnation, sequence, index]) => {
      const end = endOfMessage(incarnation, sequence);
      expect(packPosition(incarnation, sequence, index) <= end).toBe(true);
      if (sequence < SEQUENCE_MAX) expect(end < packPosition(incarnation, sequence + 1, 0)).toBe(true);
    }),
  );
});

test.each([
  [-1, 0, 0],
  [INCARNATION_MAX + 1, 0, 0],
  [0, -1, 0],
  [0, SEQUENCE_MAX + 1, 0],
  [0, 0, -1],
  [0, 0, BLOCK_EVENTS_MAX],
])('%i, %i, %i is out of range', (incarnation, sequence, index) => {
  expect(() => packPosition(incarnation, sequence, index)).toThrow(/out of range/);
});
