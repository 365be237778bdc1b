import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { createLog } from '../../runtime/log.ts';
import { createMetrics } from '../../runtime/metrics.ts';
import { PublishError, type PublishAck } from '../../runtime/nats.ts';
import { CrashDisk } from '../../test/crash-disk.ts';
import { until } from '../../test/until.ts';
import { Courier } from './courier.ts';
import { journalMeasures } from './journal-measures.ts';
import { Journal, type JournalOptions } from './journal.ts';

// The courier with a real journal, on a disk in memory, and a log whose answers are given by hand.

const SHARDS = 2;

interface Sent {
  readonly shard: number;
  readonly number: number;
  readonly bytes: Uint8Array;
  ack(sequence: number): void;
  fail(kind: PublishError['kind'], errCode?: number): void;
}

interface Asked {
  readonly shard: number;
  readonly sequence: number;
  answer(message: Uint8Array | null): void;
}

interface Promised {
  outcome: 'open' | 'kept' | { readonly broken: unknown };
}

async function world(
  o: { disk?: CrashDisk; journal?: Partial<JournalOptions>; resendsInFlightMax?: number } = {},
) {
  const disk = o.disk ?? new CrashDisk();
  const sent: Sent[] = [];
  const asked: Asked[] = [];
  const timers: { readonly ms: number; readonly run: () => void }[] = [];
  const state = { full: false };
  const log = createLog('test', 'silent');
  const metrics = createMetrics('test');
  const measures = journalMeasures(metrics, { journalBytesMax: 1 });
  const shared = {
    log,
    measures,
    shards: SHARDS,
    random: () => 0.5,
    after(ms: number, run: () => void) {
      const timer = { ms, run };
      timers.push(timer);
      return () => void (timers.includes(timer) && timers.splice(timers.indexOf(timer), 1));
    },
  };
  const journal = await Journal.open({
    ...shared,
    disk,
    folder: 'folder',
    deployment: '00'.repeat(8),
    bytesMax: 1_000_000,
    segmentBytesMax: 100_000,
    now: () => 0,
    ...o.journal,
  });
  const courier = new Courier({
    ...shared,
    journal,
    resendsInFlightMax: o.resendsInFlightMax ?? 100,
    resendBytesInFlightMax: 100_000,
    full: () => state.full,
    publish: (shard, block) =>
      new Promise<PublishAck>((resolve, reject) => {
        sent.push({
          shard,
          number: numberOf(block),
          bytes: Uint8Array.from(block),
          ack: (sequence) => resolve({ stream: '', sequence, duplicate: false }),
          fail: (kind, errCode) => reject(new PublishError(kind, 'told to fail', errCode)),
        });
      }),
    messageAt: (shard, sequence) =>
      new Promise((resolve) => asked.push({ shard, sequence, answer: resolve })),
  });
  courier.resume();
  return {
    disk,
    journal,
    courier,
    sent,
    asked,
    timers,
    state,
    metrics: () => metrics.render(),
    /** Runs what waits for its time. */
    runTimers: () => timers.splice(0).forEach(({ run }) => run()),
    publish(number: number, shard = 0): Promised {
      const promised: Promised = { outcome: 'open' };
      courier.publish(shard, blockOf(number), 1).then(
        () => (promised.outcome = 'kept'),
        (broken: unknown) => (promised.outcome = { broken }),
      );
      return promised;
    },
    /** What was published since it was asked last. */
    newlySent: () => sent.splice(0),
    record: (sequence: number, message: Uint8Array, incarnation = 1) =>
      courier.onWatermark(0, { shard: 0, incarnation, sequence, fingerprint: fingerprintOf(message) }),
  };
}

function blockOf(number: number): Uint8Array {
  const block = Buffer.alloc(80, 1);
  block.writeUInt32LE(number, 64);
  return new Uint8Array(block);
}

const numberOf = (block: Uint8Array): number =>
  new DataView(block.buffer, block.byteOffset).getUint32(64, true);
const numbers = (sent: readonly Sent[]): number[] => sent.map(({ number }) => number);
const fingerprintOf = (message: Uint8Array): string => createHash('sha256').update(message).digest('hex');

/** Until everything that can happen by itself has happened. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('a block is promised when the disk has it and the log has acknowledged it, in either order', async () => {
  const { journal, disk, publish, newlySent } = await world();
  const first = publish(1);
  const [one] = newlySent();
  await journal.idle();
  expect(first.outcome).toBe('open');
  one!.ack(1);
  await settled();
  expect(first.outcome).toBe('kept');

  let release = (): void => {};
  disk.beforeAppend = () => new Promise((resolve) => (release = resolve));
  const second = publish(2);
  newlySent()[0]!.ack(2);
  await settled();
  expect(second.outcome).toBe('open');
  release();
  await journal.idle();
  await settled();
  expect(second.outcome).toBe('kept');
});

test.each([
  ['the log is full', 'full', 10_077],
  ['nobody takes it', 'unavailable', undefined],
  ['it is silent for too long', 'timeout', undefined],
] as const)(
  'when %s, the journal alone carries the promise, until the log takes it',
  async (_, kind, errCode) => {
    const { journal, publish, newlySent, runTimers, timers, metrics } = await world();
    const waiting = publish(2);
    const failing = publish(1);
    await journal.idle();
    const [two, one] = newlySent();
    one!.fail(kind, errCode);
    await settled();
    // Nobody waits for the answers of a log that is known to take nothing.
    expect([failing.outcome, waiting.outcome]).toEqual(['kept', 'kept']);
    const next = publish(3);
    const other = publish(4, 1);
    await settled();
    expect(next.outcome).toBe('kept');
    expect(await metrics()).toContain('tallyline_edge_journal_alone_shards{stage="test"} 1');
    // The other shard's log is not concerned.
    expect(numbers(newlySent())).toEqual([4]);
    expect(other.outcome).toBe('open');

    // It is tried with one block, the oldest that waits, and again after every failure, later and later.
    for (let round = 0; round < 3; round++) {
      expect(timers.map(({ ms }) => ms)).toEqual([25 * 2 ** round]);
      runTimers();
      await settled();
      const tried = newlySent();
      expect(numbers(tried)).toEqual([1]);
      tried[0]!.fail(kind, errCode);
      await settled();
    }
    runTimers();
    await settled();
    newlySent()[0]!.ack(7);
    await settled();
    expect(numbers(newlySent())).toEqual([3]);
    publish(5);
    expect(numbers(newlySent())).toEqual([5]);
    // What was under way all the time was not sent again.
    two!.ack(9);
    await settled();
    expect(newlySent()).toEqual([]);
  },
);

test('with a full journal the acknowledgement alone decides; without it the sender is told that it is full', async () => {
  const { publish, newlySent, journal } = await world({ journal: { bytesMax: 1_000, segmentBytesMax: 500 } });
  const promises = Array.from({ length: 12 }, (_, number) => publish(number));
  await journal.idle();
  const sent = newlySent();
  expect(sent).toHaveLength(12);
  for (const one of sent.slice(0, 11)) one.ack(one.number + 1);
  await settled();
  expect(promises.slice(0, 11).map(({ outcome }) => outcome)).toEqual(Array(11).fill('kept'));
  expect(promises[11]!.outcome).toBe('open');
  sent[11]!.fail('timeout');
  await settled();
  expect(promises[11]!.outcome).toMatchObject({ broken: { name: 'JournalError', kind: 'full' } });
  // The log is away now, and is asked all the same: nothing else could promise.
  const last = publish(12);
  expect(numbers(newlySent())).toEqual([12]);
  expect(last.outcome).toBe('open');
});

test('with a failing disk the acknowledgement alone decides, and its failure is what the sender is told', async () => {
  const { disk, publish, newlySent, journal } = await world();
  disk.failing.add(disk.operations + 1);
  const [kept, broken] = [publish(1), publish(2)];
  const [one, two] = newlySent();
  one!.ack(1);
  await journal.idle();
  await settled();
  expect([kept.outcome, broken.outcome]).toEqual(['kept', 'open']);
  two!.fail('timeout');
  await settled();
  expect(broken.outcome).toMatchObject({ broken: { name: 'PublishError', kind: 'timeout' } });
  expect(journal.index.held).toBe(0);
});

test('a block that the log refuses for good is not promised and not kept; one promised before is set aside', async () => {
  const { publish, newlySent, journal, courier, runTimers } = await world();
  const refused = publish(1);
  newlySent()[0]!.fail('rejected');
  await journal.idle();
  await settled();
  expect(refused.outcome).toMatchObject({ broken: { kind: 'rejected' } });
  expect(journal.index.held).toBe(0);

  courier.suspend();
  const promised = [publish(2), publish(3)];
  await settled();
  expect(promised.map(({ outcome }) => outcome)).toEqual(['kept', 'kept']);
  courier.resume();
  await settled();
  newlySent()[0]!.fail('rejected');
  await settled();
  expect([journal.index.aside, journal.index.held]).toEqual([1, 2]);
  runTimers();
  await settled();
  expect(newlySent()).toEqual([]);
  // After the next connection it is tried again.
  courier.suspend();
  courier.resume();
  await settled();
  expect(numbers(newlySent())).toEqual([2, 3]);
});

test('what waits is sent oldest first, never more at a time than its part, and is no copy of what was sent', async () => {
  const { publish, newlySent, courier, state } = await world({ resendsInFlightMax: 3 });
  const before = newlySent();
  Array.from({ length: 8 }, (_, number) => publish(number, number % SHARDS));
  const first = newlySent();
  await settled();
  courier.suspend();
  courier.resume();
  await settled();
  expect(before).toEqual([]);
  const again = newlySent();
  expect(numbers(again)).toEqual([0, 1, 2]);
  expect(again[0]!.bytes).not.toEqual(first[0]!.bytes);
  expect(again[0]!.bytes.subarray(64)).toEqual(first[0]!.bytes.subarray(64));
  // A pipeline that new blocks fill takes none; room is used at once.
  state.full = true;
  again[0]!.ack(1);
  await settled();
  expect(newlySent()).toEqual([]);
  state.full = false;
  again[1]!.ack(1);
  await settled();
  expect(numbers(newlySent())).toEqual([3, 4]);
});

test('a block is released when the watermark has passed it and names the message that the log holds', async () => {
  const { publish, newlySent, journal, record, asked } = await world();
  [1, 2, 3].forEach((number) => publish(number));
  await journal.idle();
  newlySent().forEach(({ ack, number }) => ack(number + 10));
  await settled();
  record(12, blockOf(2));
  expect(asked.map(({ sequence }) => sequence)).toEqual([12]);
  asked.pop()!.answer(blockOf(2));
  await settled();
  expect(journal.index.held).toBe(1);
  // Another message there, or none: it is not the log of which the record speaks.
  for (const message of [blockOf(9), null]) {
    record(20, blockOf(4));
    asked.pop()!.answer(message);
    await settled();
    expect(journal.index.held).toBe(1);
  }
  // Found not to fit, it is not asked for with every further acknowledgement.
  publish(5);
  newlySent()[0]!.ack(15);
  await settled();
  expect(asked).toEqual([]);
  record(21, blockOf(5));
  asked.pop()!.answer(blockOf(5));
  await settled();
  expect(journal.index.held).toBe(0);
});

test('an acknowledgement that comes after the record that covers it is released by it', async () => {
  const { publish, newlySent, journal, record, asked } = await world();
  record(40, blockOf(8));
  publish(1);
  newlySent()[0]!.ack(40);
  expect(asked).toEqual([]);
  await journal.idle();
  await settled();
  asked.pop()!.answer(blockOf(8));
  await settled();
  expect(journal.index.held).toBe(0);
});

test('a higher incarnation puts every acknowledgement in doubt; a lower one is from the past', async () => {
  const { publish, newlySent, journal, record, asked } = await world();
  publish(1);
  await journal.idle();
  newlySent()[0]!.ack(5);
  await settled();
  record(9, blockOf(9), 2);
  await settled();
  expect(asked).toEqual([]);
  const [again] = newlySent();
  expect(again!.number).toBe(1);
  record(30, blockOf(9), 1);
  again!.ack(10);
  await settled();
  expect(asked).toEqual([]);
  record(10, blockOf(1), 2);
  asked.pop()!.answer(blockOf(1));
  await settled();
  expect(journal.index.held).toBe(0);
});

test.each([0, 7])(
  'a new incarnation that has read nothing, behind %i, has everything sent again, and releases nothing',
  async (sequence) => {
    const { publish, newlySent, journal, asked, courier } = await world();
    publish(1);
    await journal.idle();
    newlySent()[0]!.ack(5);
    await settled();
    courier.onWatermark(0, { shard: 0, incarnation: 2, sequence, fingerprint: '' });
    await settled();
    expect(numbers(newlySent())).toEqual([1]);
    expect(asked).toEqual([]);
    expect(journal.index.held).toBe(1);
  },
);

test('a log that gives a sequence a second time has lost something: everything is sent again', async () => {
  const { publish, newlySent, journal } = await world();
  [1, 2].forEach((number) => publish(number));
  await journal.idle();
  newlySent().forEach(({ ack, number }) => ack(number + 100));
  await settled();
  publish(3);
  await journal.idle();
  newlySent()[0]!.ack(102);
  await settled();
  // The answer itself is of the log as it is now.
  expect(numbers(newlySent())).toEqual([1, 2]);
});

test('a comparison that was made before the connection was lost releases nothing', async () => {
  const { publish, newlySent, journal, record, asked, courier } = await world();
  publish(1);
  await journal.idle();
  newlySent()[0]!.ack(1);
  await settled();
  record(1, blockOf(1));
  courier.suspend();
  courier.resume();
  asked.pop()!.answer(blockOf(1));
  await settled();
  expect(journal.index.held).toBe(1);
  expect(numbers(newlySent())).toEqual([1]);
});

test('a late answer of a connection that is gone counts for nothing but its promise', async () => {
  const { publish, newlySent, journal, courier, record, asked } = await world();
  const promised = publish(1);
  const [late] = newlySent();
  courier.suspend();
  courier.resume();
  late!.ack(1);
  await journal.idle();
  await settled();
  expect(promised.outcome).toBe('kept');
  expect(numbers(newlySent())).toEqual([1]);
  record(1, blockOf(1));
  expect(asked).toEqual([]);
});

test('while the connection is gone blocks are promised by the disk, and nothing is published', async () => {
  const { publish, newlySent, courier, metrics } = await world();
  const before = publish(1);
  newlySent();
  courier.suspend();
  const after = publish(2);
  await settled();
  expect([before.outcome, after.outcome]).toEqual(['kept', 'kept']);
  expect(newlySent()).toEqual([]);
  expect(await metrics()).toContain(`tallyline_edge_journal_alone_shards{stage="test"} ${SHARDS}`);
});

test('stopping waits for what can still be acknowledged, and not for what cannot', async () => {
  const { publish, newlySent, courier } = await world();
  publish(1);
  const [one] = newlySent();
  let stopped = false;
  const stop = courier.stop(1_000).then(() => (stopped = true));
  await settled();
  expect(stopped).toBe(false);
  one!.ack(1);
  await stop;

  const away = await world();
  away.courier.suspend();
  away.publish(1);
  await away.courier.stop(1_000);
  expect(away.journal.index.held).toBe(1);

  const slow = await world();
  slow.publish(1);
  const slowly = slow.courier.stop(1_000);
  await settled();
  expect(slow.timers.map(({ ms }) => ms)).toEqual([1_000]);
  slow.runTimers();
  await slowly;
});

test('what an earlier process left is sent by the next one, before its own', async () => {
  const first = await world();
  first.courier.suspend();
  for (const number of [1, 2, 3]) first.publish(number);
  await first.journal.idle();
  const second = await world({ disk: new CrashDisk(first.disk.afterKill()), resendsInFlightMax: 2 });
  await until('it is sent', () => second.sent.length === 2);
  expect(numbers(second.sent)).toEqual([1, 2]);
  expect(await second.metrics()).toContain('tallyline_edge_journal_resent_blocks_total{stage="test"} 2');
});
