// Real threads, as `npm run build` made them: what they answer does not depend on where a block lies.
import { afterAll, describe, expect, test } from 'vitest';
import type { PrepareAnswer } from '../aggregator/prepare-answers.ts';
import { Preparer, type Prepared } from '../aggregator/prepare.ts';
import { encodeRaw, type DecidedBlock } from '../aggregator/raw-rows.ts';
import { metersInForce, MeterRegistry } from '../aggregator/registry.ts';
import { SLOT_BYTES, type Slot } from '../aggregator/slots.ts';
import { COUNTED, DUPLICATE, REJECTED } from '../aggregator/verdict.ts';
import { startWorkers, type EncodeJob } from '../aggregator/workers.ts';
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

// Two slots: further blocks find none.
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

/** One job; all of the slot behind the messages is room. */
async function prepare(
  slot: Slot | null,
  messages: readonly Uint8Array[],
): Promise<readonly PrepareAnswer[]> {
  const [meters, metersVersion] = [registry.shared(), registry.version];
  const roomStart = slot?.end ?? 0;
  const roomEnd = slot?.bytes.length ?? 0;
  const job = { slot, messages, roomStart, roomEnd, shard: 3, meters, metersVersion };
  return (await workers.prepare(job)).answers;
}

const VERDICTS = [COUNTED, COUNTED, DUPLICATE, REJECTED];

function decide({ refused, verdicts }: Prepared): void {
  verdicts.forEach((_, at) => (verdicts[at] = refused[at] !== 0 ? REJECTED : VERDICTS[at % 3]!));
}

function jobOf(answer: PrepareAnswer, sequence: number, slot: Slot | null): EncodeJob {
  if (answer.kind !== 'prepared') throw new Error('the block is sound');
  decide(answer.prepared);
  const { refused, verdicts } = answer.prepared;
  return { shard: 3, incarnation: 1, sequence, message: answer.message, refused, verdicts, slot };
}

describe('workers', () => {
  test('rows are the same of blocks that share a slot, of one whose columns find no room, and of blocks in none', async () => {
    const small = [message(0, 300, 8), message(400, 20, 8), message(500, 1, 8)];
    // It leaves behind itself less room than its columns take.
    const wide = message(1_000, 850, 200);
    expect(wide.length).toBeGreaterThan(SLOT_BYTES * 0.7);
    expect(wide.length).toBeLessThan(SLOT_BYTES);
    const others = [message(5_000, 40, 8), message(6_000, 40, 8)];
    const messages = [...small, wide, ...others];

    const { bytes: first, slot: shared } = workers.slots.place(small[0]!);
    const inShared = [first, ...small.slice(1).map((one) => shared!.place(one))];
    const { bytes: ofWide, slot: filled } = workers.slots.place(wide);
    const beside = others.map((one) => workers.slots.place(one));
    expect(beside.map(({ slot }) => slot)).toEqual([null, null]);
    const prepared = [
      await prepare(shared, inShared),
      await prepare(filled, [ofWide]),
      await prepare(
        null,
        beside.map(({ bytes }) => bytes),
      ),
    ].flat();
    const lieInSlots = prepared.map(
      (answer) => answer.kind === 'prepared' && answer.prepared.verdicts.buffer === workers.slots.memory,
    );
    expect(lieInSlots).toEqual([true, true, true, false, false, false]);

    const preparer = new Preparer(workers.bucketKey);
    const expected = messages.map((data, at): DecidedBlock => {
      const alone = preparer.prepare(data, metersInForce(METERS));
      decide(alone);
      const { block, refused, verdicts } = alone;
      return { shard: 3, incarnation: 1, sequence: at + 1, block, refused, verdicts };
    });
    const slots = [shared, shared, shared, filled, null, null];
    const jobs = prepared.map((answer, at) => jobOf(answer, at + 1, slots[at]!));
    jobs.forEach(({ refused, verdicts }, at) => {
      expect(Array.from(refused)).toEqual(Array.from(expected[at]!.refused));
      expect(Array.from(verdicts)).toEqual(Array.from(expected[at]!.verdicts));
    });
    const rows = workers.encode(jobs);
    // Who needs them no more lets them go at once: the job holds them until it has ended.
    for (const slot of slots) slot?.release();
    expect(workers.slots.used).toBe(2);
    expect(await rows).toEqual(encodeRaw(expected));
    expect(workers.slots.used).toBe(0);
  });

  test('a message that is no sound block comes back as it was, from a slot or not, and its neighbours are prepared', async () => {
    const broken = message(0, 10, 8);
    broken[broken.length - 1]! ^= 1;
    const [before, behind] = [message(20, 3, 8), message(30, 3, 8)];
    const { bytes, slot } = workers.slots.place(before);
    const inSlot = [bytes, slot!.place(broken), slot!.place(behind)];
    const own = [before, broken, behind].map((one) => new Uint8Array(one));
    for (const answers of [await prepare(slot, inSlot), await prepare(null, own)]) {
      expect(answers.map(({ kind }) => kind)).toEqual(['prepared', 'unreadable', 'prepared']);
      expect(Array.from(answers[1]!.message)).toEqual(Array.from(broken));
      for (const [at, data] of [before, broken, behind].entries())
        expect(Array.from(answers[at]!.message)).toEqual(Array.from(data));
    }
    inSlot.forEach(() => slot!.release());
    expect(workers.slots.used).toBe(0);
  });
});
