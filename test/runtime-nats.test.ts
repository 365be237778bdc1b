import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import {
  connectNats,
  ensureStream,
  openKeyValue,
  PublishError,
  PublishPipeline,
  readLog,
  LogRewoundError,
  type LogMessage,
  type NatsLink,
} from '../runtime/nats.ts';
import { startEngines } from './engines.ts';
import { until } from './until.ts';

type Engines = Awaited<ReturnType<typeof startEngines>>;

const log = createLog('test', 'silent');
const limits = { maxInFlight: 256, maxInFlightBytes: 8_000_000, ackTimeoutMs: 5_000 };
let engines: Engines;
let link: NatsLink;
let streams = 0;
let stop: AbortController;

beforeAll(async () => {
  engines = await startEngines({ nats: true });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log });
});
afterAll(async () => {
  await link?.close();
  await engines?.stop();
});
beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => stop.abort());

async function newStream(maxBytes = 50_000_000): Promise<{ name: string; subject: string }> {
  const name = `TEST_${++streams}`;
  const subject = `test.${streams}`;
  await ensureStream(link, { name, subjects: [subject], maxBytes, replicas: 1 });
  return { name, subject };
}

const payload = (n: number) => new TextEncoder().encode(`message ${n}`);
const textOf = (message: LogMessage) => new TextDecoder().decode(message.data);

async function take(log: AsyncIterable<LogMessage>, count: number): Promise<LogMessage[]> {
  const taken: LogMessage[] = [];
  for await (const message of log) {
    taken.push(message);
    if (taken.length === count) break;
  }
  return taken;
}

test('a publish resolves with the sequence at which the log holds the message', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  const acks = await Promise.all(
    Array.from({ length: 200 }, (_, i) => pipeline.publish(subject, payload(i))),
  );
  for (const [i, ack] of acks.entries()) {
    expect(ack).toEqual({ stream: name, sequence: i + 1, duplicate: false });
  }
  const messages = await take(
    readLog(link, { stream: name, fromSequence: 1, maxBytesInFlight: 1_000_000, signal: stop.signal }),
    200,
  );
  expect(messages.map(textOf)).toEqual(acks.map((ack) => `message ${ack.sequence - 1}`));
  expect(messages.every((message) => Math.abs(message.timeMs - Date.now()) < 60_000)).toBe(true);
  expect([pipeline.inFlight, pipeline.inFlightBytes]).toEqual([0, 0]);
  pipeline.close();
});

test('the pipeline is bounded: what exceeds it is refused, and there is room again after the acks', async () => {
  const { subject } = await newStream();
  const metrics = createMetrics('test');
  const pipeline = new PublishPipeline(link, { ...limits, maxInFlight: 3, metrics });
  const first = [1, 2, 3].map((n) => pipeline.publish(subject, payload(n)));
  expect(pipeline.full()).toBe(true);
  expect(await metrics.render()).toContain('tallyline_publish_in_flight_messages{stage="test"} 3');
  await expect(pipeline.publish(subject, payload(4))).rejects.toMatchObject({
    kind: 'full',
    effectUnknown: false,
  });
  await pipeline.drain();
  expect((await Promise.all(first)).map((ack) => ack.sequence)).toEqual([1, 2, 3]);
  expect((await pipeline.publish(subject, payload(4))).sequence).toBe(4);
  pipeline.close();
});

test('a stream at max_bytes answers full, and every message it acknowledged is there', async () => {
  const { name, subject } = await newStream(20_000);
  const pipeline = new PublishPipeline(link, limits);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 50 }, () => pipeline.publish(subject, new Uint8Array(1_000))),
  );
  const errors = outcomes.flatMap((o) => (o.status === 'rejected' ? [o.reason as PublishError] : []));
  expect(errors.length).toBeGreaterThan(0);
  for (const error of errors) {
    expect(error).toMatchObject({ kind: 'full', effectUnknown: false, errCode: 10_077 });
  }
  const { state } = await link.jsm.streams.info(name);
  expect(state.messages).toBe(50 - errors.length);
  pipeline.close();
});

test('a subject that no stream takes is unavailable, at once', async () => {
  const pipeline = new PublishPipeline(link, limits);
  await expect(pipeline.publish('nobody.listens', payload(1))).rejects.toMatchObject({
    kind: 'unavailable',
    effectUnknown: false,
  });
  pipeline.close();
});

test('a message larger than the server takes, or one that expects another sequence, is rejected', async () => {
  const { subject } = await newStream();
  const pipeline = new PublishPipeline(link, { ...limits, maxInFlightBytes: 100_000_000 });
  await expect(pipeline.publish(subject, new Uint8Array(20_000_000))).rejects.toMatchObject({
    kind: 'rejected',
  });
  await expect(
    pipeline.publish(subject, payload(1), { 'Nats-Expected-Last-Sequence': '7' }),
  ).rejects.toMatchObject({ kind: 'rejected', effectUnknown: false, errCode: 10_071 });
  expect(pipeline.inFlight).toBe(0);
  pipeline.close();
});

test('an answer that does not come is a timeout of unknown effect', async () => {
  const silent = link.nc.subscribe('silence', { callback: () => {} });
  const pipeline = new PublishPipeline(link, { ...limits, ackTimeoutMs: 50 });
  await expect(pipeline.publish('silence', payload(1))).rejects.toMatchObject({
    kind: 'timeout',
    effectUnknown: true,
  });
  silent.unsubscribe();
  pipeline.close();
});

test('a pipeline that is closed rejects what is in flight', async () => {
  const silent = link.nc.subscribe('silence', { callback: () => {} });
  const pipeline = new PublishPipeline(link, limits);
  const waiting = pipeline.publish('silence', payload(1));
  pipeline.close();
  await expect(waiting).rejects.toMatchObject({ kind: 'timeout', effectUnknown: true });
  await expect(pipeline.publish('silence', payload(2))).rejects.toMatchObject({ kind: 'unavailable' });
  silent.unsubscribe();
});

test('reading and publishing go on over kill -9 of the server: no gap, no repeat, no acked loss', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  const read: LogMessage[] = [];
  const reader = (async () => {
    const messages = readLog(link, {
      stream: name,
      fromSequence: 1,
      maxBytesInFlight: 2_000,
      signal: stop.signal,
    });
    for await (const message of messages) read.push(message);
  })();

  const acked = new Map<number, number>();
  let unknown = 0;
  let next = 0;
  let publishing = true;
  const publisher = (async () => {
    while (publishing) {
      const batch = Array.from({ length: 50 }, async () => {
        const n = next++;
        try {
          acked.set(n, (await pipeline.publish(subject, payload(n))).sequence);
        } catch (error) {
          if (!(error instanceof PublishError)) throw error;
          if (error.effectUnknown) unknown++;
        }
      });
      await Promise.all(batch);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  // At every kill something is in flight: it is published in the same turn.
  for (let round = 1; round <= 2; round++) {
    const before = acked.size;
    await until('messages are read', () => read.length > 500 * round && acked.size > before + 500);
    await engines.nats.kill();
    await until('the pipeline knows', () => !link.connected);
    expect(pipeline.inFlight).toBe(0);
    const refused = pipeline.publish(subject, payload(-1));
    await expect(refused).rejects.toMatchObject({ kind: 'unavailable', effectUnknown: false });
    await engines.nats.restart();
    await until('connected again', () => link.connected);
  }
  const before = acked.size;
  await until('publishing went on', () => acked.size > before + 500);
  publishing = false;
  await publisher;
  const { state } = await link.jsm.streams.info(name);
  await until('all is read', () => read.length >= state.messages);
  stop.abort();
  await reader;

  expect(read.map((message) => message.sequence)).toEqual(
    Array.from({ length: read.length }, (_, i) => i + 1),
  );
  const texts = read.map(textOf);
  for (const [n, sequence] of acked) expect(texts[sequence - 1]).toBe(`message ${n}`);
  expect(read.length - acked.size).toBeLessThanOrEqual(unknown);
  pipeline.close();
});

test('everything in flight is rejected when the server is killed, and publishing goes on after', async () => {
  const { subject } = await newStream();
  const silent = link.nc.subscribe('silence', { callback: () => {} });
  const pipeline = new PublishPipeline(link, { ...limits, ackTimeoutMs: 60_000 });
  const waiting = Array.from({ length: 100 }, (_, i) => pipeline.publish('silence', payload(i)));
  const outcomes = Promise.allSettled(waiting);
  await link.nc.flush();
  expect(pipeline.inFlight).toBe(100);
  await engines.nats.kill();
  for (const outcome of await outcomes) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: { kind: 'timeout', effectUnknown: true } });
  }
  await engines.nats.restart();
  await until('connected again', () => link.connected);
  expect((await pipeline.publish(subject, payload(1))).sequence).toBe(1);
  silent.unsubscribe();
  pipeline.close();
});

test('a reader fetches no more ahead than it may', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  for (let n = 1; n <= 100; n++) await pipeline.publish(subject, new Uint8Array(1_000));
  const messages = readLog(link, {
    stream: name,
    fromSequence: 1,
    maxBytesInFlight: 10_000,
    signal: stop.signal,
  });
  // The answers about stream and consumer come before the first message, and count as received bytes too.
  const before = link.nc.stats().inBytes + 5_000;
  for (let taken = 1; taken <= 60; taken++) {
    expect((await messages.next()).value).toMatchObject({ sequence: taken });
    await link.nc.flush();
    expect(link.nc.stats().inBytes - before - taken * 1_000).toBeLessThanOrEqual(10_000);
  }
  pipeline.close();
});

test('messages larger than may be fetched ahead still come, in their order', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  const sizes = Array.from({ length: 40 }, (_, i) => (i % 4 === 3 ? 50_000 : 1_000));
  for (const size of sizes) await pipeline.publish(subject, new Uint8Array(size));
  const options = { stream: name, fromSequence: 1, maxBytesInFlight: 10_000, signal: stop.signal };
  const messages = await take(readLog(link, options), sizes.length);
  expect(messages.map((message) => message.data.length)).toEqual(sizes);
  pipeline.close();
});

test('pull requests that are used up to the byte do not stall the reader', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  await Promise.all(Array.from({ length: 100 }, () => pipeline.publish(subject, new Uint8Array(1_000))));
  // Around the size that the server counts for a message, every exact fit comes up.
  const started = performance.now();
  for (let half = 1_040; half <= 1_140; half++) {
    const messages = readLog(link, {
      stream: name,
      fromSequence: 90,
      maxBytesInFlight: half * 2,
      signal: stop.signal,
    });
    expect((await take(messages, 6)).map((message) => message.sequence)).toEqual([90, 91, 92, 93, 94, 95]);
  }
  expect(performance.now() - started).toBeLessThan(10_000);
  pipeline.close();
});

test('a reader that waits at the end gets the next message, and a hole is handed over as it is', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  for (let n = 1; n <= 5; n++) await pipeline.publish(subject, payload(n));
  await link.jsm.streams.deleteMessage(name, 3);
  const messages = readLog(link, {
    stream: name,
    fromSequence: 2,
    maxBytesInFlight: 10_000,
    signal: stop.signal,
  });
  const reading = take(messages, 4);
  await pipeline.publish(subject, payload(6));
  expect((await reading).map((message) => message.sequence)).toEqual([2, 4, 5, 6]);
  pipeline.close();
});

test('an aborted reader ends, and reading behind the end of the log is an error', async () => {
  const { name } = await newStream();
  const options = { stream: name, maxBytesInFlight: 10_000, signal: stop.signal };
  const waiting = readLog(link, { ...options, fromSequence: 1 }).next();
  await expect(readLog(link, { ...options, fromSequence: 9 }).next()).rejects.toThrow(LogRewoundError);
  stop.abort();
  expect(await waiting).toEqual({ done: true, value: undefined });
});

test('ensureStream grows a stream, never shrinks it, and refuses one that may forget', async () => {
  const { name, subject } = await newStream(1_000_000);
  const ensure = (maxBytes: number) =>
    ensureStream(link, { name, subjects: [subject], maxBytes, replicas: 1 });
  expect((await ensure(2_000_000)).config.max_bytes).toBe(2_000_000);
  expect((await ensure(500_000)).config.max_bytes).toBe(2_000_000);
  await link.jsm.streams.update(name, { max_age: 60_000_000_000 });
  await expect(ensure(2_000_000)).rejects.toThrow('maximum age');
});

test('of many contenders for a key one wins, by create and by update', async () => {
  const kv = await openKeyValue(link, 'races');
  const key = 'lease of "shard" 0.*>é';
  const creates = await Promise.all(Array.from({ length: 20 }, (_, i) => kv.create(key, `owner ${i}`)));
  const winner = creates.findIndex((revision) => revision !== null);
  expect(creates.filter((revision) => revision !== null)).toHaveLength(1);
  const entry = await kv.get(key);
  expect(entry).toEqual({ value: `owner ${winner}`, revision: creates[winner] });

  const revision = entry?.revision ?? 0;
  const updates = await Promise.all(
    Array.from({ length: 20 }, (_, i) => kv.update(key, `next ${i}`, revision)),
  );
  expect(updates.filter((next) => next !== null)).toHaveLength(1);
  expect(await kv.update(key, 'late', revision)).toBeNull();

  await kv.delete(key);
  expect(await kv.get(key)).toBeNull();
  expect(await kv.create(key, 'again')).toEqual(expect.any(Number));
});

test('a watch delivers what there is, then every newest value, also over kill -9 of the server', async () => {
  const kv = await openKeyValue(link, 'watched');
  await kv.put('a', '1');
  await kv.put('a', '2');
  await kv.put('b.c', '1');
  await kv.put('gone', '1');
  await kv.delete('gone');
  const seen = new Map<string, string | null>();
  await kv.watch((key, value) => void seen.set(key, value), stop.signal);
  expect(Object.fromEntries(seen)).toEqual({ a: '2', 'b.c': '1', gone: null });
  await kv.put('a', '3');
  await until('the change is seen', () => seen.get('a') === '3');
  await engines.nats.kill();
  await engines.nats.restart();
  await until('connected again', () => link.connected);
  await kv.put('d', 'new');
  await kv.delete('a');
  await until('the changes are seen', () => seen.get('d') === 'new' && seen.get('a') === null);
});

test('a watch of a bucket that was lost and made anew tells what is there now and what is gone', async () => {
  const kv = await openKeyValue(link, 'lost');
  await kv.put('kept', '1');
  await kv.put('gone', '1');
  const seen = new Map<string, string | null>();
  await kv.watch((key, value) => void seen.set(key, value), stop.signal);
  await link.jsm.streams.delete('KV_lost');
  const again = await openKeyValue(link, 'lost');
  await again.put('kept', '2');
  await until('it is read anew', () => seen.get('kept') === '2' && seen.get('gone') === null);
});

test('a log that was made anew under its reader is an error, and not another log', async () => {
  const { name, subject } = await newStream();
  const pipeline = new PublishPipeline(link, limits);
  await pipeline.publish(subject, payload(1));
  const messages = readLog(link, {
    stream: name,
    fromSequence: 1,
    maxBytesInFlight: 10_000,
    signal: stop.signal,
  });
  await messages.next();
  const failing = expect(messages.next()).rejects.toThrow(LogRewoundError);
  await link.jsm.streams.delete(name);
  await ensureStream(link, { name, subjects: [subject], maxBytes: 1_000_000, replicas: 1 });
  for (let n = 1; n <= 3; n++) await pipeline.publish(subject, payload(n));
  await failing;
  pipeline.close();
});

test('a watch of an empty bucket resolves at once', async () => {
  const kv = await openKeyValue(link, 'empty');
  const seen: string[] = [];
  await kv.watch((key) => seen.push(key), stop.signal);
  expect(seen).toEqual([]);
});

test('a server that is not there is reported with its address and without its password', async () => {
  const url = 'nats://me:hunter2@127.0.0.1:1';
  const failed = connectNats({ url, name: 'test', log, connectTimeoutMs: 100 });
  await expect(failed).rejects.toThrow('nats://me:***@127.0.0.1:1');
});
