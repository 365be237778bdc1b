import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { behind, sharedMemory, Slots, slotsFor, SLOT_BYTES } from './slots.ts';

const SIZE = 64;
const slotsOf = (count: number, onFree?: (bytes: Uint8Array) => void): Slots =>
  new Slots(new SharedArrayBuffer(SIZE * count), SIZE, onFree);

describe('slots', () => {
  test('a message is placed byte by byte as it was, wherever in memory it came', () => {
    const messages = fc.array(fc.uint8Array({ minLength: 1, maxLength: SIZE + 8 }), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(messages, fc.nat(7), (sent, offset) => {
        const slots = slotsOf(4);
        const placed = sent.map((message) => {
          const socket = new Uint8Array(offset + message.length + 5).fill(0xee);
          socket.set(message, offset);
          const one = slots.place(socket.subarray(offset, offset + message.length));
          socket.fill(0);
          return one;
        });
        placed.forEach(({ bytes, slot }, at) => {
          expect([...bytes]).toEqual([...sent[at]!]);
          expect(bytes.byteOffset % 8).toBe(0);
          if (slot !== null) expect(bytes.buffer).toBe(slots.memory);
        });
        const numbers = placed.flatMap(({ slot }) => slot?.number ?? []);
        expect(new Set(numbers).size).toBe(numbers.length);
        expect(slots.used).toBe(numbers.length);
        expect(slots.passed).toBe(sent.length - numbers.length);
      }),
    );
  });

  test('nothing waits for a slot: what is too large, or finds none, has memory of its own', () => {
    const slots = slotsOf(1);
    expect(slots.place(new Uint8Array(SIZE + 1)).slot).toBeNull();
    expect(slots.place(new Uint8Array(0)).slot).toBeNull();
    expect(slots.place(new Uint8Array(SIZE)).slot).not.toBeNull();
    const beside = slots.place(Uint8Array.of(1, 2, 3));
    expect(beside.slot).toBeNull();
    expect([...beside.bytes]).toEqual([1, 2, 3]);
    expect(slots.passed).toBe(3);
  });

  test('a slot is free when the last who holds it lets go, and not before', () => {
    const freed: number[] = [];
    const slots = slotsOf(2, (bytes) => freed.push(bytes.byteOffset));
    const { slot } = slots.place(Uint8Array.of(7));
    slot!.hold();
    slot!.release();
    expect(slots.used).toBe(1);
    expect(slots.place(Uint8Array.of(8)).slot!.number).not.toBe(slot!.number);
    slot!.release();
    expect(slots.used).toBe(1);
    expect(freed).toEqual([slot!.number * SIZE]);
    // The one that was freed last is still in the processor's cache.
    expect(slots.place(Uint8Array.of(9)).slot).toBe(slot);
  });

  test('who lets go what he does not hold is told so', () => {
    const { slot } = slotsOf(1).place(Uint8Array.of(7));
    slot!.release();
    expect(() => slot!.release()).toThrow('slot 0 is let go by one who does not hold it');
  });

  test('there are as many as the backlog has room for, at least one, in memory that threads share', () => {
    expect(slotsFor(1)).toBe(1);
    expect(slotsFor(SLOT_BYTES * 3 + 1)).toBe(3);
    expect(slotsFor(2 ** 40) * SLOT_BYTES).toBeLessThan(2 ** 32);
    const memory = sharedMemory(SLOT_BYTES + 1);
    expect(memory).toBeInstanceOf(SharedArrayBuffer);
    expect(memory.byteLength).toBeGreaterThanOrEqual(SLOT_BYTES + 1);
  });

  test('columns begin behind a message, at a multiple of 8', () => {
    expect([0, 1, 7, 8, 9].map(behind)).toEqual([0, 8, 8, 8, 16]);
  });
});
