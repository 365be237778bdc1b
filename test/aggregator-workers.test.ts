// Real threads, as `npm run build` made them: what they answer does not depend on where a block lies.
import { afterAll, describe, expect, test } from 'vitest';
import { Preparer } from '../aggregator/prepare.ts';
import { encodeRaw } from '../aggregator/raw-rows.ts';
import { metersInForce, MeterRegistry } from '../aggregator/registry.ts';
import { SLOT_BYTES } from '../aggregator/slots.ts';
import { COUNTED, DUPLICATE, REJECTED } from '../aggregator/verdict.ts';
import { startWorkers, type EncodeJob, type PrepareAnswer } from '../aggregator/workers.ts';
import { BlockBuilder } from '../contract/block-builder.ts';
import type { MeterDefined } from '../contract/control.ts';
import { IdentityHasher } from '../contract/identity.ts';
import { addAll, batchOf } from './event-batch.ts';

const TENANT = 'acme';
const METERS: MeterDefined[] = [
  {
    tenant: TENANT,
    meter: { key: 't', eventType: 'call', aggregation: 'sum', valueProperty: 't', groupBy: ['model'] },
  },
];
const registry = new MeterRegistry();
for (const defined of METERS) registry.define(defined, 0);

// Two slots: the third block finds none.
const workers = startWorkers(2, SLOT_BYTES * 2);
afterAll(() => workers.close());

function message(from: number, events: number, subjectLength: number): Uint8Array<ArrayBuffer> {
  const builder = new BlockBuilder();
  const hasher = new IdentityHasher('000102030405060708090a0b0c0d0e0f');
  const all = Array.from({ length: events }, (_, at) => ({
    id: `e${from + at}`,
    type: 'call',
    subject: `s${from + at}`.padEnd(subjectLength, 'x'),
    time: '2026-01-01T00:00:00Z',
    data: { t: at % 7 === 0 ? 'many' : at, model: `m${at % 3}` },
  }));
  addAll(builder, batchOf(TENANT, all), hasher);
  return builder.finish(0);
}

const prepare = (data: Uint8Array, placed = workers.slots.place(data)) =>
  workers
    .prepare({ placed, shard: 3, meters: registry.shared(), metersVersion: registry.version })
    .then((answer) => ({ answer, placed }));

const VERDICTS = [COUNTED, COUNTED, DUPLICATE, REJECTED];

function jobOf(answer: PrepareAnswer, sequence: number, slot: EncodeJob['slot']): EncodeJob {
  if (answer.kind !== 'prepared') throw new Error('the block is sound');
  const { block, refused, verdicts } = answer.prepared;
  verdicts.forEach((_, at) => (verdicts[at] = refused[at] !== 0 ? REJECTED : VERDICTS[at % 3]!));
  const messageBytes = answer.message.length;
  return { shard: 3, incarnation: 1, sequence, block, refused, verdicts, slot, messageBytes };
}

describe('workers', () => {
  test('rows are the same of blocks in slots, of one whose columns found no room there, and of one in none', async () => {
    // The second leaves behind itself less room than its columns take.
    const wide = message(1_000, 850, 200);
    expect(wide.length).toBeGreaterThan(SLOT_BYTES * 0.7);
    expect(wide.length).toBeLessThan(SLOT_BYTES);
    const messages = [message(0, 300, 8), wide, message(5_000, 40, 8)];
    const prepared = await Promise.all(messages.map((data) => prepare(data)));
    expect(prepared.map(({ placed }) => placed.slot !== null)).toEqual([true, true, false]);
    const inSlots = prepared.map(
      ({ answer }) => answer.kind === 'prepared' && answer.prepared.verdicts.buffer === workers.slots.memory,
    );
    expect(inSlots).toEqual([true, false, false]);
    const preparer = new Preparer(workers.bucketKey);
    const meters = metersInForce(METERS);
    const expected = messages.map((data, at) =>
      jobOf({ kind: 'prepared', prepared: preparer.prepare(data, meters), message: data }, at + 1, null),
    );
    const jobs = prepared.map(({ answer, placed }, at) => jobOf(answer, at + 1, placed.slot));
    jobs.forEach(({ refused, verdicts }, at) => {
      expect(Array.from(refused)).toEqual(Array.from(expected[at]!.refused));
      expect(Array.from(verdicts)).toEqual(Array.from(expected[at]!.verdicts));
    });
    const answer = workers.encode(jobs);
    // Who needs them no more lets them go at once: the job holds them until it has ended.
    for (const { placed } of prepared) placed.slot?.release();
    expect(workers.slots.used).toBe(2);
    expect(await answer).toEqual(encodeRaw(expected));
    expect(workers.slots.used).toBe(0);
  });

  test('a message that is no sound block comes back as it was, from a slot or not', async () => {
    const broken = message(0, 10, 8);
    broken[broken.length - 1]! ^= 1;
    for (const placed of [workers.slots.place(broken), { bytes: new Uint8Array(broken), slot: null }]) {
      const { answer } = await prepare(broken, placed);
      expect(answer.kind).toBe('unreadable');
      expect(Array.from(answer.message)).toEqual(Array.from(broken));
      placed.slot?.release();
    }
    expect(workers.slots.used).toBe(0);
  });
});
