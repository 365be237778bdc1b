import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { eventsOfBlock } from '../test/block-events.ts';
import { batchOf } from '../test/event-batch.ts';
import { BlockError, decodeBlock, idOf, messageKind } from './block.ts';
import { BlockBuilder } from './block-builder.ts';
import type { UsageEvent } from './event.ts';
import { MESSAGE_EVENTS } from './subjects.ts';

const sample = (more: Partial<UsageEvent> = {}): UsageEvent => ({
  id: 'e-1',
  source: 'gateway',
  type: 'llm.request',
  subject: 'cus_1',
  time: '2026-11-21T00:00:00Z',
  data: { tokens: 12, model: 'm' },
  ...more,
});

const ACCEPTED_AT = Date.UTC(2026, 10, 21, 8);

function build(samples: readonly UsageEvent[]): Uint8Array<ArrayBuffer> {
  const builder = new BlockBuilder();
  const batch = batchOf('acme', samples);
  samples.forEach((_, at) => builder.add(batch, at, Uint32Array.of(1, 2, 3, at)));
  return builder.finish(ACCEPTED_AT);
}

test('the time of acceptance is read with the events', () => {
  const block = decodeBlock(build([sample(), sample({ id: 'e-2' })]));
  expect(block.acceptedAtMs).toBe(ACCEPTED_AT);
  expect(eventsOfBlock(block)).toMatchObject([
    { tenant: 'acme', id: 'e-1', subject: 'cus_1', timeMs: Date.UTC(2026, 10, 21), identity: [1, 2, 3, 0] },
    { tenant: 'acme', id: 'e-2', subject: 'cus_1', timeMs: Date.UTC(2026, 10, 21), identity: [1, 2, 3, 1] },
  ]);
});

test('a block in memory of any alignment is read, and a Buffer too', () => {
  const bytes = build([sample()]);
  const expected = eventsOfBlock(decodeBlock(bytes));
  for (let offset = 0; offset < 9; offset++) {
    const memory = new Uint8Array(bytes.length + 16);
    memory.set(bytes, offset);
    expect(eventsOfBlock(decodeBlock(memory.subarray(offset, offset + bytes.length)))).toEqual(expected);
    // slice() of a Buffer is a view; a driver hands out Buffers in the middle of what it received.
    const buffer = Buffer.from(memory.buffer, offset, bytes.length);
    expect(eventsOfBlock(decodeBlock(buffer))).toEqual(expected);
  }
});

test('a block with any one bit flipped is refused', () => {
  const bytes = build([sample(), sample({ id: 'e-2', subject: 'ü', data: { on: true, n: 0.5 } })]);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => decodeBlock(bytes), `bit ${bit}`).toThrow(BlockError);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
  }
  expect(decodeBlock(bytes).count).toBe(2);
});

test('a block that is cut off or goes on too long is refused', () => {
  const bytes = build([sample()]);
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeBlock(bytes.slice(0, length)), `length ${length}`).toThrow(BlockError);
  }
  const longer = new Uint8Array(bytes.length + 8);
  longer.set(bytes);
  expect(() => decodeBlock(sealed(longer))).toThrow(BlockError);
});

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Puts the right checksum on a block that was tampered with: what a mistaken or hostile writer could send. */
function sealed(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  viewOf(bytes).setUint32(8, crc32(bytes.subarray(12)), true);
  return bytes;
}

const COUNTS = { events: 12, cells: 16, texts: 20, shapes: 24, shapeFields: 28, textBytes: 32, idBytes: 36 };

test.each(Object.entries(COUNTS))('a false count of %s under a right checksum is refused', (_, offset) => {
  const original = build([sample(), sample({ id: 'e-2' })]);
  const count = viewOf(original).getUint32(offset, true);
  for (const lie of [0, count - 1, count + 1, count + 8, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    if (lie === count || lie < 0) continue;
    const bytes = original.slice();
    viewOf(bytes).setUint32(offset, lie, true);
    expect(() => decodeBlock(sealed(bytes)), `${lie}`).toThrow(BlockError);
  }
});

test('whatever single word is replaced under a right checksum, reading is refused or stays within the block', () => {
  const original = build([sample(), sample({ id: 'e-2', data: { on: true, n: 0.5 } })]);
  fc.assert(
    fc.property(
      fc.integer({ min: 10, max: original.length / 4 - 1 }),
      fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 2, 255, 0x7ff0_0000, 0xffff_ffff)),
      (at, value) => {
        const bytes = original.slice();
        viewOf(bytes).setUint32(at * 4, value, true);
        try {
          eventsOfBlock(decodeBlock(sealed(bytes)));
        } catch (error) {
          expect(error).toBeInstanceOf(BlockError);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

test('bytes that are no UTF-8 under a right checksum are a BlockError when they are read', () => {
  const bytes = build([sample({ id: 'abc' })]);
  const at = Buffer.from(bytes).indexOf('abc');
  bytes[at] = 0xff;
  const block = decodeBlock(sealed(bytes));
  expect(() => idOf(block, 0)).toThrow(BlockError);
});

test('random bytes are refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(() => decodeBlock(bytes)).toThrow(BlockError);
    }),
  );
});

test('the kind of a message is read without looking further', () => {
  expect(messageKind(build([]))).toBe(MESSAGE_EVENTS);
  expect(messageKind(build([sample()]).subarray(0, 12))).toBe(MESSAGE_EVENTS);
  expect(messageKind(new Uint8Array(64))).toBeNull();
  expect(messageKind(new Uint8Array(3))).toBeNull();
});
