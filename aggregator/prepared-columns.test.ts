import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockBuilder } from '../contract/block-builder.ts';
import { PATH_TARGET, PATH_VOIDS, TYPE_VOID } from '../contract/corrections.ts';
import { IdentityHasher } from '../contract/identity.ts';
import type { Meter } from '../contract/meter.ts';
import { addAll, batchOf } from '../test/event-batch.ts';
import { columnBytes, decidedColumns } from './prepared-columns.ts';
import { answersOf } from './prepare-answers.ts';
import { Preparer, unpack, type Prepared } from './prepare.ts';
import { metersInForce } from './registry.ts';
import { behind } from './slots.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';

const meter = (over: Partial<Meter>): Meter => ({
  key: 'tokens',
  eventType: 'call',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: [],
  ...over,
});
const METERS = metersInForce(
  ['acme', 'rival'].flatMap((tenant) =>
    [
      meter({}),
      meter({ key: 'by-model', groupBy: ['model'], groupsMax: 3 }),
      meter({ key: 'calls', aggregation: 'count', valueProperty: null, groupBy: ['model', 'size'] }),
      meter({ key: 'large', groupBy: ['model'], filters: [{ property: 'model', in: ['large'] }] }),
    ].map((one) => ({ tenant, meter: one })),
  ),
);

const event = fc.record({
  tenant: fc.constantFrom('acme', 'rival', 'nobody'),
  type: fc.constantFrom('call', 'call', 'call', 'chat', TYPE_VOID),
  subject: fc.constantFrom('ann', 'bob', 'zoë', 'x'.repeat(100)),
  hour: fc.nat(2),
  data: fc.record(
    {
      tokens: fc.oneof(fc.nat(9), fc.constantFrom('0.1', '12345678901234567.5', 'many', null, -3)),
      model: fc.constantFrom('small', 'large', '__overflow__', 7, '7'),
      size: fc.oneof(fc.nat(2), fc.constant('wide')),
    },
    { requiredKeys: [] },
  ),
});
type Sent = typeof event extends fc.Arbitrary<infer T> ? T : never;

function blockOf(events: readonly Sent[]): Uint8Array<ArrayBuffer> {
  const builder = new BlockBuilder();
  const hasher = new IdentityHasher(KEY);
  events.forEach(({ tenant, type, subject, hour, data }, at) => {
    const time = new Date(Date.UTC(2026, 0, 1, hour)).toISOString();
    const isVoid = type === TYPE_VOID;
    const target = at % 2 === 0 ? '00000000-0000-0000-0000-00000000000a' : 'no identity';
    const of = isVoid ? { [PATH_VOIDS]: 'e0', [PATH_TARGET]: target } : data;
    addAll(builder, batchOf(tenant, [{ id: `e${at}`, type, subject, time, data: of }]), hasher);
  });
  return builder.finish(0);
}

/** Whatever memory it lies in, and whatever stands in the slack behind the last bucket. */
const told = (prepared: Prepared): unknown => {
  const { block, acceptedAtMs, tenants, tenantOf, refused, verdicts, contributions, corrections } = prepared;
  const { buckets } = contributions;
  const bytes = buckets.bytes.subarray(0, buckets.start[buckets.count]);
  const of = { ...contributions, buckets: { ...buckets, bytes } };
  return JSON.parse(
    JSON.stringify(
      { block, acceptedAtMs, tenants, tenantOf, refused, verdicts, corrections, contributions: of },
      (_, value: unknown) => {
        if (typeof value === 'bigint') return value.toString();
        return ArrayBuffer.isView(value) ? Array.from(value as Uint8Array) : value;
      },
    ),
  );
};

/** What is read of a block where it is counted. */
const withHead = (prepared: Prepared): Prepared => {
  const { count, acceptedAtMs, identity, payloadHash, time } = prepared.block;
  return { ...prepared, block: { count, acceptedAtMs, identity, payloadHash, time } };
};

test('what is found in a block is the same in a slot, where it just fits, and in memory of its own', () => {
  const preparer = new Preparer(KEY);
  fc.assert(
    fc.property(fc.array(event, { minLength: 1, maxLength: 40 }), fc.nat(255), (events, dirt) => {
      const message = blockOf(events);
      const expected = told(withHead(preparer.prepare(message, METERS)));
      const own = preparer.pack(message, METERS, null);
      expect(told(unpack(message, null, 0, own))).toEqual(expected);
      const bytes = columnBytes(own.counts);
      const from = behind(message.length);
      for (const room of [bytes, bytes - 1, 0]) {
        // As another block may have left it, with something behind that is nobody's.
        const slot = new Uint8Array(new SharedArrayBuffer(from + room + 64)).fill(dirt);
        slot.set(message);
        const rest = slot.subarray(from, from + room);
        const packed = preparer.pack(slot.subarray(0, message.length), METERS, rest);
        expect(packed.memory === null).toBe(room === bytes);
        const prepared = unpack(slot.subarray(0, message.length), rest, 0, packed);
        expect(told(prepared)).toEqual(expected);
        expect(slot.subarray(from + room)).toEqual(new Uint8Array(64).fill(dirt));
        if (packed.memory !== null) continue;
        const { verdicts, refused } = decidedColumns(rest, 0, prepared.block.count);
        prepared.verdicts.fill(1);
        expect(verdicts).toEqual(prepared.verdicts);
        expect(refused).toEqual(prepared.refused);
      }
    }),
    { numRuns: 200 },
  );
});

test('blocks of one job are prepared as each would be alone, as far as the room goes, and a broken one is passed over', () => {
  const preparer = new Preparer(KEY);
  const blocks = fc.array(fc.tuple(fc.array(event, { maxLength: 8 }), fc.nat(9)), {
    minLength: 1,
    maxLength: 6,
  });
  fc.assert(
    fc.property(blocks, fc.nat(6_000), fc.nat(255), (sent, roomBytes, dirt) => {
      const messages = sent.map(([events, flaw]) => {
        const message = blockOf(events);
        if (flaw === 0) message[message.length - 1]! ^= 1;
        return message;
      });
      const isBroken = sent.map(([, flaw]) => flaw === 0);
      const memory = new Uint8Array(new SharedArrayBuffer(8 + roomBytes + 13)).fill(dirt);
      const room = memory.subarray(8, 8 + roomBytes);
      const { answers, columnBytes: found } = answersOf(
        preparer.packAll(messages, METERS, room),
        messages,
        room,
      );
      let bytes = 0;
      answers.forEach((answer, at) => {
        expect(answer.message).toBe(messages[at]);
        expect(answer.kind).toBe(isBroken[at] ? 'unreadable' : 'prepared');
        if (answer.kind !== 'prepared') return;
        bytes += columnBytes(preparer.pack(messages[at]!, METERS, null).counts);
        expect(told(answer.prepared)).toEqual(told(withHead(preparer.prepare(messages[at]!, METERS))));
      });
      expect(found).toBe(bytes);
      expect(memory.subarray(0, 8)).toEqual(new Uint8Array(8).fill(dirt));
      expect(memory.subarray(8 + roomBytes)).toEqual(new Uint8Array(13).fill(dirt));
    }),
    { numRuns: 200 },
  );
});
