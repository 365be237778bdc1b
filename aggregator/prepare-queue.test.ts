import { describe, expect, test } from 'vitest';
import { BlockBuilder } from '../contract/block-builder.ts';
import { IdentityHasher } from '../contract/identity.ts';
import { addAll, batchOf } from '../test/event-batch.ts';
import { answersOf } from './prepare-answers.ts';
import { PrepareQueue, type Asked } from './prepare-queue.ts';
import { Preparer } from './prepare.ts';
import { MeterRegistry, readShared } from './registry.ts';
import { Slots } from './slots.ts';
import type { PrepareJob, Workers } from './workers.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';
const SLOT_BYTES = 32 * 1024;

function message(from: number, events = 1): Uint8Array<ArrayBuffer> {
  const builder = new BlockBuilder();
  const all = Array.from({ length: events }, (_, at) => ({
    id: `e${from + at}`,
    type: 'call',
    subject: `s${from + at}`,
    time: '2026-01-01T00:00:00Z',
    data: { t: at },
  }));
  addAll(builder, batchOf('acme', all), new IdentityHasher(KEY));
  return builder.finish(0);
}

const meter = (key: string) => ({
  tenant: 'acme',
  meter: { key, eventType: 'call', aggregation: 'sum' as const, valueProperty: 't', groupBy: [] },
});

/** A queue whose threads answer when they are told to. */
function queueOf({ slots: count = 4, jobBytes = 4_000, fails = false } = {}) {
  const slots = new Slots(new SharedArrayBuffer(SLOT_BYTES * count), SLOT_BYTES, (bytes) => bytes.fill(0xa5));
  const preparer = new Preparer(KEY);
  const jobs: PrepareJob[] = [];
  const waiting: (() => void)[] = [];
  const workers: Workers = {
    threads: 1,
    bucketKey: KEY,
    slots,
    jobBytes,
    prepare(job) {
      jobs.push(job);
      job.slot?.hold();
      return new Promise((resolve, reject) => {
        waiting.push(() => {
          const { slot, messages, roomStart, roomEnd } = job;
          const room = slot?.bytes.subarray(roomStart, roomEnd) ?? null;
          const packed = preparer.packAll(messages, readShared(job.meters), room);
          job.slot?.release();
          if (fails) reject(new Error('a thread died'));
          else resolve(answersOf(packed, messages, room));
        });
      });
    },
    encode: () => Promise.reject(new Error('nothing is encoded here')),
    close: () => Promise.resolve(),
  };
  const registry = new MeterRegistry();
  registry.define(meter('first'), 0);
  let nowMs = 0;
  const alarms: { readonly dueMs: number; readonly ring: () => void }[] = [];
  const timing = {
    elapsedMs: () => nowMs,
    sleep: (ms: number) => new Promise<void>((resolve) => alarms.push({ dueMs: nowMs + ms, ring: resolve })),
  };
  const queue = new PrepareQueue(workers, 0, timing, () => undefined);
  const all: Asked[] = [];
  return {
    slots,
    jobs,
    registry,
    queue,
    all,
    add(data: Uint8Array): Asked {
      const asked: Asked = { slot: null, ready: null, failure: null };
      queue.add(data, asked, registry);
      all.push(asked);
      return asked;
    },
    async answer() {
      waiting.shift()!();
      await Promise.resolve();
      await Promise.resolve();
    },
    /** Lets time go by. */
    async pass(ms: number) {
      nowMs += ms;
      for (const { dueMs, ring } of alarms.splice(0)) {
        if (dueMs <= nowMs) ring();
        else alarms.push({ dueMs, ring });
      }
      await Promise.resolve();
      await Promise.resolve();
    },
  };
}

const sizes = (jobs: readonly PrepareJob[]): number[] => jobs.map(({ messages }) => messages.length);

describe('the queue of blocks to prepare', () => {
  test('a block goes at once when none went for 20 ms, and those that come meanwhile go together', async () => {
    const { add, answer, pass, jobs, all } = queueOf({ jobBytes: 100_000 });
    add(message(0));
    expect(sizes(jobs)).toEqual([1]);
    for (let at = 1; at < 4; at++) add(message(at));
    await answer();
    expect(all.map(({ ready }) => ready?.kind)).toEqual(['prepared', ...Array<undefined>(3)]);
    await pass(19);
    add(message(4));
    expect(sizes(jobs)).toEqual([1]);
    await pass(1);
    expect(sizes(jobs)).toEqual([1, 4]);
    await answer();
    expect(all.every(({ ready }) => ready?.kind === 'prepared')).toBe(true);
    await pass(20);
    expect(sizes(jobs)).toEqual([1, 4]);
    add(message(5));
    expect(sizes(jobs)).toEqual([1, 4, 1]);
  });

  test('what was gathered while a job is under way goes with its answer, however long that took', async () => {
    const { add, answer, pass, jobs } = queueOf({ jobBytes: 100_000 });
    for (let at = 0; at < 3; at++) add(message(at));
    await pass(50);
    expect(sizes(jobs)).toEqual([1]);
    await answer();
    expect(sizes(jobs)).toEqual([1, 2]);
  });

  test('a full job waits for nobody', () => {
    const block = message(0, 4);
    const { add, jobs } = queueOf({ jobBytes: block.length * 2 });
    for (let at = 0; at < 7; at++) add(block);
    expect(sizes(jobs)).toEqual([1, 2, 2, 2]);
  });

  test('blocks are prepared by the meters that were in force when they arrived', async () => {
    const { add, answer, pass, registry, queue, all, jobs } = queueOf();
    add(message(0));
    add(message(1));
    queue.close();
    registry.define(meter('second'), 0);
    add(message(2));
    await pass(20);
    while (jobs.length < 3) await answer();
    for (let at = 0; at < 3; at++) if (all.some(({ ready }) => ready === null)) await answer();
    const meters = all.map(
      ({ ready }) => ready?.kind === 'prepared' && ready.prepared.contributions.meters.join(),
    );
    expect(meters).toEqual(['first', 'first', 'first,second']);
  });

  test('small blocks share slots, each stays until the last is let go, and what is found of none is another one`s', async () => {
    const { add, answer, pass, slots, jobs, all } = queueOf({ jobBytes: 3_000 });
    for (let at = 0; at < 60; at++) add(message(at, 1 + (at % 3)));
    await pass(20);
    while (all.some(({ ready }) => ready === null)) await answer();
    expect(slots.passed).toBe(0);
    expect(slots.used).toBeLessThan(4);
    expect(new Set(jobs.map(({ slot }) => slot)).size).toBe(slots.used);
    const alone = new Preparer(KEY);
    all.forEach(({ ready }, at) => {
      if (ready?.kind !== 'prepared') throw new Error('the block is sound');
      const events = 1 + (at % 3);
      expect(Array.from(ready.message)).toEqual(Array.from(message(at, events)));
      const { keyBucket, mantissa, buckets } = ready.prepared.contributions;
      const expected = alone.prepare(message(at, events), readShared(jobs[0]!.meters)).contributions;
      expect([keyBucket, mantissa, buckets.hash]).toEqual([
        expected.keyBucket,
        expected.mantissa,
        expected.buckets.hash,
      ]);
    });
    const inFirst = all.filter(({ slot }) => slot === all[0]!.slot);
    const used = slots.used;
    for (const { slot } of inFirst.slice(1)) slot!.release();
    expect(slots.used).toBe(used);
    inFirst[0]!.slot!.release();
    expect(slots.used).toBe(used - 1);
  });

  test('a slot that was let go and taken by another is not filled on', async () => {
    const first = queueOf({ slots: 1 });
    const { slot } = first.add(message(0));
    await first.answer();
    slot!.release();
    expect(first.slots.used).toBe(0);
    const other = first.slots.place(message(1));
    expect(other.slot).toBe(slot);
    const before = Array.from(other.bytes);
    expect(first.add(message(2)).slot).toBeNull();
    expect(Array.from(other.bytes)).toEqual(before);
    expect(first.slots.passed).toBe(1);
  });

  test('a failure is told of each block of the job', async () => {
    const { add, answer, pass, all } = queueOf({ fails: true });
    add(message(0));
    add(message(1));
    await pass(20);
    await answer();
    await answer();
    expect(all.map(({ failure }) => String(failure?.error))).toEqual([
      'Error: a thread died',
      'Error: a thread died',
    ]);
  });
});
