import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { PlainEvent, PlainField } from '../test/batch-events.ts';
import { eventsOfBlock, type BlockEvent } from '../test/block-events.ts';
import { fieldsOf, fillBatch } from '../test/event-batch.ts';
import { payloadHash } from '../test/payload-model.ts';
import { decodeBlock, textOf } from './block.ts';
import { BlockBuilder } from './block-builder.ts';
import { BlockMemory } from './block-memory.ts';
import { EventBatch } from './event-batch.ts';
import { PathTable } from './path-table.ts';

const ACCEPTED_AT = Date.UTC(2026, 10, 21, 8);

/** Memory in which something stood before, as it does once memory is used again. */
class UsedMemory extends BlockMemory {
  override take(bytes: number): number {
    const start = super.take(bytes);
    this.u8.fill(0xff, start, start + bytes);
    return start;
  }
}

const sample = (
  more: Partial<PlainEvent> = {},
  data: Record<string, unknown> = { tokens: 12 },
): PlainEvent => ({
  id: 'e-1',
  source: 'gateway',
  type: 'llm.request',
  subject: 'cus_1',
  timeMs: Date.UTC(2026, 10, 21),
  timeGiven: true,
  fields: fieldsOf(data, ''),
  ...more,
});

const identityOf = (number: number): Uint32Array =>
  Uint32Array.of(number, number * 3, 0xffff_ffff - number, 0x8000_0000);

const longText = fc.string({ unit: 'grapheme', minLength: 60, maxLength: 300 });
const text = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('', 'a', 'b', 'ab', 'abc', 'ü', '日本', 'gateway-1', 'gateway-2') },
  { weight: 4, arbitrary: fc.string({ unit: 'grapheme', maxLength: 20 }) },
  { weight: 1, arbitrary: longText },
);
const path = fc.oneof(fc.constantFrom('tokens', 'a', 'a.b', 'a.c', 'b', 'région'), text);
const number = fc.oneof(
  fc.maxSafeInteger(),
  fc.constantFrom(0, -1, 2 ** 31, 2 ** 32, -(2 ** 32), 2 ** 53 - 1),
);
const field: fc.Arbitrary<PlainField> = fc.oneof(
  fc.record({ path, text }),
  fc.record({ path, literal: fc.constantFrom('true', 'null', '[1,"x"]', '{}') }),
  fc.record({ path, number: fc.tuple(number, fc.nat(9)) }),
);
const event: fc.Arbitrary<PlainEvent> = fc.record({
  id: text,
  source: text,
  type: text,
  subject: text,
  timeMs: fc.nat(4_102_444_800_000),
  timeGiven: fc.boolean(),
  fields: fc.uniqueArray(field, { selector: (one) => one.path, maxLength: 6 }),
});
/** A body; `table` is the batch it is read into, `ends` whether its path table is emptied before. */
const body = fc.record({
  tenant: fc.constantFrom('acme', 'globex', 'größe'),
  events: fc.array(event, { maxLength: 6 }),
  table: fc.nat(2),
  isNested: fc.boolean(),
  isTrimmed: fc.boolean(),
  isLast: fc.boolean(),
});

test('whatever goes into blocks, from any batches in any order, comes out of them to the byte', () => {
  fc.assert(
    fc.property(fc.array(body, { maxLength: 12 }), (bodies) => {
      const batches = [new EventBatch(), new EventBatch(), new EventBatch(new PathTable(77))];
      const builder = new BlockBuilder(new UsedMemory());
      const blocks: { bytes: Uint8Array; expected: BlockEvent[] }[] = [];
      let expected: BlockEvent[] = [];
      bodies.forEach(({ tenant, events, table, isNested, isTrimmed, isLast }, number) => {
        const batch = batches[table]!;
        if (isTrimmed) batch.paths.trim(1);
        fillBatch(batch, tenant, events, isNested);
        events.forEach((one, at) => {
          const identity = identityOf(number * 100 + at);
          builder.add(batch, at, identity);
          expected.push({ ...one, tenant, identity: [...identity], payloadHash: payloadHash(one) });
        });
        expect(builder.count).toBe(expected.length);
        if (!isLast && number < bodies.length - 1) return;
        const estimate = builder.estimatedBytes;
        const bytes = builder.finish(ACCEPTED_AT + number);
        expect(estimate).toBeGreaterThanOrEqual(bytes.length);
        expect(estimate).toBeLessThan(bytes.length + 60);
        blocks.push({ bytes, expected });
        expected = [];
      });
      // Read when all are written: no block was written over.
      for (const block of blocks) expect(eventsOfBlock(decodeBlock(block.bytes))).toEqual(block.expected);
    }),
    { numRuns: 500 },
  );
});

test('a block says the same, byte for byte, whatever the builder built before and whatever stood in its memory', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 20 }), fc.array(event, { maxLength: 20 }), (before, events) => {
      const used = new BlockBuilder(new UsedMemory());
      const build = (builder: BlockBuilder, some: readonly PlainEvent[]): Uint8Array => {
        const batch = fillBatch(new EventBatch(), 'acme', some);
        some.forEach((_, at) => builder.add(batch, at, identityOf(at)));
        return builder.finish(ACCEPTED_AT);
      };
      build(used, before);
      expect(used.count).toBe(0);
      expect(Buffer.from(build(used, events)).equals(build(new BlockBuilder(), events))).toBe(true);
    }),
  );
});

test('a text stands once and a shape stands once, however many events use them and however they came', () => {
  const builder = new BlockBuilder();
  const batches = [new EventBatch(), new EventBatch()];
  for (let at = 0; at < 1_000; at++) {
    const data =
      at % 2 === 0 ? { tokens: at, a: { model: 'm' } } : { tokens: at, a: { model: 'n' }, on: true };
    const batch = batches[at % 3 === 0 ? 0 : 1]!;
    if (at % 100 === 0) batch.paths.trim(1);
    fillBatch(batch, 'acme', [sample({ id: `e-${at}` }, data)], at % 5 !== 0);
    builder.add(batch, 0, identityOf(at));
  }
  const block = decodeBlock(builder.finish(0));
  expect(block.count).toBe(1_000);
  expect(block.shapeCount).toBe(2);
  const texts = Array.from({ length: block.textCount }, (_, number) => textOf(block, number));
  expect(texts.sort()).toEqual(
    ['acme', 'cus_1', 'gateway', 'llm.request', 'm', 'a.model', 'n', 'on', 'tokens', 'true'].sort(),
  );
});

test('numbers with other scales, tags or paths are other shapes', () => {
  const datas = [
    { a: 1 },
    { a: 1.5 },
    { a: 1.25 },
    { a: '1' },
    { a: true },
    { b: 1 },
    { a: 2 },
    {},
    { a: 0.5 },
  ];
  const builder = new BlockBuilder();
  const batch = fillBatch(
    new EventBatch(),
    'acme',
    datas.map((data) => sample({}, data)),
  );
  datas.forEach((_, at) => builder.add(batch, at, identityOf(at)));
  expect([...decodeBlock(builder.finish(0)).shape]).toEqual([0, 1, 2, 3, 4, 5, 0, 6, 1]);
});

test('a block of many events with many texts and shapes is whole', () => {
  const events = Array.from({ length: 5_000 }, (_, at) =>
    sample({ id: `id-${at}`, subject: `cus_${at % 3_000}` }, { [`k${at % 700}`]: at, model: `m${at % 40}` }),
  );
  const batch = fillBatch(new EventBatch(), 'acme', events);
  const builder = new BlockBuilder();
  for (let round = 0; round < 2; round++) {
    events.forEach((_, at) => builder.add(batch, at, identityOf(at)));
    const estimate = builder.estimatedBytes;
    const bytes = builder.finish(0);
    expect(estimate - bytes.length).toBeLessThan(60);
    expect(estimate).toBeGreaterThanOrEqual(bytes.length);
    const read = eventsOfBlock(decodeBlock(bytes));
    expect(read.map(({ id, subject, fields }) => ({ id, subject, fields }))).toEqual(
      events.map(({ id, subject, fields }) => ({ id, subject, fields })),
    );
  }
});

test('the tenant is that of the body, also when the batch is used again for another one', () => {
  const batch = new EventBatch();
  const builder = new BlockBuilder();
  for (const tenant of ['acme', 'globex', 'acme']) {
    fillBatch(batch, tenant, [sample(), sample({ id: 'e-2' })]);
    builder.add(batch, 0, identityOf(1));
    builder.add(batch, 1, identityOf(2));
  }
  expect(eventsOfBlock(decodeBlock(builder.finish(0))).map(({ tenant }) => tenant)).toEqual([
    ...['acme', 'acme', 'globex', 'globex', 'acme', 'acme'],
  ]);
});

test('a block takes 65,536 events and no more, and the builder can go on after that', () => {
  const batch = fillBatch(new EventBatch(), 'acme', [sample({}, {})]);
  const builder = new BlockBuilder();
  const identity = identityOf(1);
  for (let at = 0; at < 65_536; at++) builder.add(batch, 0, identity);
  expect(() => builder.add(batch, 0, identity)).toThrow(/full/);
  expect(decodeBlock(builder.finish(0)).count).toBe(65_536);
  builder.add(batch, 0, identity);
  expect(decodeBlock(builder.finish(0)).count).toBe(1);
});
