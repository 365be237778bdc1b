import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockBuilder, BlockError, decodeBlock, idOf, messageKind, textOf, type Block } from './block.ts';
import { FIELD_NUMBER, Fields } from './fields.ts';
import type { AdmittedEvent } from './event.ts';
import { MESSAGE_EVENTS } from './subjects.ts';

interface Sample {
  readonly tenant: string;
  readonly source: string;
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly timeGiven: boolean;
  readonly data: Record<string, unknown>;
  readonly identity: readonly number[];
  readonly payloadHash: readonly number[];
}

const sample = (more: Partial<Sample> = {}): Sample => ({
  tenant: 'acme',
  source: 'gateway',
  id: 'e-1',
  type: 'llm.request',
  subject: 'cus_1',
  timeMs: Date.UTC(2026, 10, 21),
  timeGiven: true,
  data: { tokens: 12, model: 'm' },
  identity: [1, 2, 3, 4],
  payloadHash: [5, 6],
  ...more,
});

const ACCEPTED_AT = Date.UTC(2026, 10, 21, 8);
const fields = new Fields();

function build(samples: readonly Sample[], builder = new BlockBuilder()): Uint8Array<ArrayBuffer> {
  for (const one of samples) {
    expect(fields.read(one.data)).toBeNull();
    const event: AdmittedEvent = { ...one, fields };
    builder.add(event, Uint32Array.from(one.identity), Uint32Array.from(one.payloadHash));
  }
  return builder.finish(ACCEPTED_AT);
}

/** The events of a block as samples again; data as flat paths. */
function read(block: Block): unknown[] {
  return Array.from({ length: block.count }, (_, at) => {
    const shape = block.shape[at]!;
    const data: Record<string, unknown> = {};
    for (let field = block.shapeStart[shape]!; field < block.shapeStart[shape + 1]!; field++) {
      const code = block.shapeFields[field * 2 + 1]!;
      const cell = block.cells[block.cellStart[at]! + field - block.shapeStart[shape]!]!;
      data[textOf(block, block.shapeFields[field * 2]!)] =
        code >>> 8 === FIELD_NUMBER ? `${cell}e-${code & 0xff}` : `${code >>> 8}:${textOf(block, cell)}`;
    }
    return {
      tenant: textOf(block, block.tenant[at]!),
      source: textOf(block, block.source[at]!),
      id: idOf(block, at),
      type: textOf(block, block.type[at]!),
      subject: textOf(block, block.subject[at]!),
      timeMs: block.time[at],
      timeGiven: block.flags[at] === 1,
      data,
      identity: [...block.identity.subarray(at * 4, at * 4 + 4)],
      payloadHash: [...block.payloadHash.subarray(at * 2, at * 2 + 2)],
    };
  });
}

const word = fc.nat(0xffff_ffff);
const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 80 });
const few = fc.constantFrom('a', 'b', 'ü', '日本', '');
const anySample: fc.Arbitrary<Sample> = fc.record({
  tenant: fc.constantFrom('acme', 'globex'),
  source: few,
  id: text,
  type: few,
  subject: text,
  timeMs: fc.nat(4_102_444_800_000),
  timeGiven: fc.boolean(),
  data: fc.dictionary(
    fc.constantFrom('tokens', 'model', 'région', 'on'),
    fc.oneof(fc.maxSafeInteger(), text, fc.boolean(), fc.constant(null), fc.constantFrom(0.5, -1.25, 1e-9)),
  ),
  identity: fc.array(word, { minLength: 4, maxLength: 4 }),
  payloadHash: fc.array(word, { minLength: 2, maxLength: 2 }),
});

/** What `read` gives for a value of data, worked out from the value itself. */
function cellOf(value: unknown): string {
  if (typeof value === 'string') return `0:${value}`;
  if (typeof value !== 'number') return `2:${String(value)}`;
  switch (value) {
    case 0.5:
      return '5e-1';
    case -1.25:
      return '-125e-2';
    case 1e-9:
      return '1e-9';
    default:
      return `${value === 0 ? 0 : value}e-0`;
  }
}

test('what goes into a block comes out of it', () => {
  fc.assert(
    fc.property(fc.array(anySample, { maxLength: 30 }), (samples) => {
      const block = decodeBlock(build(samples));
      expect(block.acceptedAtMs).toBe(ACCEPTED_AT);
      const expected = samples.map((one) => ({
        ...one,
        data: Object.fromEntries(Object.entries(one.data).map(([path, value]) => [path, cellOf(value)])),
      }));
      expect(read(block)).toEqual(expected);
    }),
  );
});

test('a builder that was emptied builds the next block as if it were new', () => {
  const builder = new BlockBuilder();
  const first = [sample(), sample({ id: 'e-2', data: { other: 'x' } })];
  const second = [sample({ id: 'e-3', data: {} })];
  build(first, builder);
  expect(builder.count).toBe(0);
  expect([...build(second, builder)]).toEqual([...build(second)]);
});

test('a text stands once and a shape stands once, however many events use them', () => {
  const samples = Array.from({ length: 1_000 }, (_, at) =>
    sample({
      id: `e-${at}`,
      data: at % 2 === 0 ? { tokens: at, model: 'm' } : { tokens: at, model: 'n', on: true },
    }),
  );
  const block = decodeBlock(build(samples));
  expect(block.count).toBe(1_000);
  expect(block.shapeCount).toBe(2);
  const texts = Array.from({ length: block.textCount }, (_, number) => textOf(block, number));
  expect(texts.sort()).toEqual(
    ['acme', 'cus_1', 'gateway', 'llm.request', 'm', 'model', 'n', 'on', 'tokens', 'true'].sort(),
  );
});

test('numbers with other scales, tags or paths are other shapes', () => {
  const datas = [{ a: 1 }, { a: 1.5 }, { a: 1.25 }, { a: '1' }, { a: true }, { b: 1 }, { a: 2 }, {}];
  const block = decodeBlock(build(datas.map((data, at) => sample({ id: `e-${at}`, data }))));
  expect([...block.shape]).toEqual([0, 1, 2, 3, 4, 5, 0, 6]);
});

test('the estimate is not below the size for plain texts, and near it', () => {
  const builder = new BlockBuilder();
  for (let at = 0; at < 500; at++) {
    fields.read({ tokens: at, model: `m${at % 5}` });
    builder.add({ ...sample({ id: `id-${at}` }), fields }, new Uint32Array(4), new Uint32Array(2));
  }
  const estimate = builder.estimatedBytes;
  const { length } = builder.finish(0);
  expect(estimate).toBeGreaterThan(length - 200);
  expect(estimate).toBeLessThan(length * 1.1);
});

test('a block in memory of any alignment is read, and a Buffer too', () => {
  const bytes = build([sample()]);
  const expected = read(decodeBlock(bytes));
  for (let offset = 0; offset < 9; offset++) {
    const memory = new Uint8Array(bytes.length + 16);
    memory.set(bytes, offset);
    expect(read(decodeBlock(memory.subarray(offset, offset + bytes.length)))).toEqual(expected);
    // slice() of a Buffer is a view; a driver hands out Buffers in the middle of what it received.
    const buffer = Buffer.from(memory.buffer, offset, bytes.length);
    expect(read(decodeBlock(buffer))).toEqual(expected);
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

/** Puts the right checksum on a block that was tampered with: what a mistaken or hostile writer could send. */
function sealed(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  new DataView(bytes.buffer).setUint32(8, crc32(bytes.subarray(12)), true);
  return bytes;
}

const COUNTS = { events: 12, cells: 16, texts: 20, shapes: 24, shapeFields: 28, textBytes: 32, idBytes: 36 };

test.each(Object.entries(COUNTS))('a false count of %s under a right checksum is refused', (_, offset) => {
  const original = build([sample(), sample({ id: 'e-2' })]);
  const count = new DataView(original.buffer).getUint32(offset, true);
  for (const lie of [0, count - 1, count + 1, count + 8, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
    if (lie === count || lie < 0) continue;
    const bytes = original.slice();
    new DataView(bytes.buffer).setUint32(offset, lie, true);
    expect(() => decodeBlock(sealed(bytes)), `${lie}`).toThrow(BlockError);
  }
});

test('whatever single word is replaced under a right checksum, reading is refused or stays within the block', () => {
  const original = build([sample(), sample({ id: 'e-2', data: { on: true, n: 0.5 } })]);
  fc.assert(
    fc.property(
      fc.integer({ min: 10, max: original.length / 4 - 1 }),
      fc.oneof(word, fc.constantFrom(0, 1, 2, 255, 0x7ff0_0000, 0xffff_ffff)),
      (at, value) => {
        const bytes = original.slice();
        new DataView(bytes.buffer).setUint32(at * 4, value, true);
        try {
          read(decodeBlock(sealed(bytes)));
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

test('a block takes 65,536 events and no more', () => {
  const builder = new BlockBuilder();
  fields.read({});
  const event: AdmittedEvent = { ...sample(), fields };
  const identity = new Uint32Array(4);
  const hash = new Uint32Array(2);
  for (let at = 0; at < 65_536; at++) builder.add(event, identity, hash);
  expect(() => builder.add(event, identity, hash)).toThrow(/full/);
  expect(decodeBlock(builder.finish(0)).count).toBe(65_536);
});
