import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { decodeBlock, idOf } from '../contract/block.ts';
import { makeKey, type KeyRecord } from '../contract/key.ts';
import type { WatermarkRecord } from '../contract/notice.ts';
import { BUCKET_KEYS, BUCKET_WATERMARKS, logOfShard, streamName } from '../contract/subjects.ts';
import type { Courier } from '../ingest/journal/courier.ts';
import type { Journal } from '../ingest/journal/journal.ts';
import { openJournal, startCourier } from '../ingest/journal/journaling.ts';
import type { Stage } from '../runtime/lifecycle.ts';
import { createLog } from '../runtime/log.ts';
import { ensureLogs } from '../runtime/logs.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { connectNats, openKeyValue, PublishPipeline, readLog, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';
import { until } from './until.ts';

// The edge journal against a real NATS that goes away, fills up and is cut back to an earlier state: first the
// courier in this process, then the edge as a process, from the build. Aggregators are played by the test: it puts
// their watermark records into the bucket.

const SHARDS = 2;
const SETTINGS = { shards: SHARDS, streamBytesMax: 200_000_000, streamReplicas: 1 };
const IDENTITY_KEY = '000102030405060708090a0b0c0d0e0f';
const log = createLog('test', 'silent');

let engines: Engines;
let link: NatsLink;
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  engines = await startEngines({ nats: true });
});
afterAll(() => engines?.stop());
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await engines.nats.kill();
  rmSync(join(engines.dir, 'nats'), { recursive: true, force: true });
  rmSync(join(engines.dir, 'kept'), { recursive: true, force: true });
  await engines.nats.restart();
});

async function connect(): Promise<void> {
  const made = await connectNats({ url: engines.natsUrl, name: 'test', log });
  link = made;
  ends.push(() => made.close());
  await ensureLogs(link, SETTINGS, logOfShard);
}

/** Keeps the storage of NATS as it is now. */
async function keepStore(): Promise<void> {
  await engines.nats.kill();
  cpSync(join(engines.dir, 'nats'), join(engines.dir, 'kept'), { recursive: true });
  await engines.nats.restart();
  await until('connected', () => link.connected);
}

/** Puts the storage of NATS back to what was kept. */
async function cutBack(): Promise<void> {
  await engines.nats.kill();
  rmSync(join(engines.dir, 'nats'), { recursive: true });
  cpSync(join(engines.dir, 'kept'), join(engines.dir, 'nats'), { recursive: true });
  await engines.nats.restart();
  await until('connected', () => link.connected);
}

/** Every message that the logs hold now. */
async function messages(): Promise<{ shard: number; sequence: number; data: Uint8Array }[]> {
  const found: { shard: number; sequence: number; data: Uint8Array }[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    const stream = streamName(shard);
    const { state } = await link.jsm.streams.info(stream);
    if (state.messages === 0) continue;
    const stop = new AbortController();
    const from = { stream, fromSequence: state.first_seq, maxBytesInFlight: 8_000_000, signal: stop.signal };
    for await (const { sequence, data } of readLog(link, from)) {
      found.push({ shard, sequence, data: Uint8Array.from(data) });
      if (sequence >= state.last_seq) break;
    }
    stop.abort();
  }
  return found;
}

async function putRecord(sequence: number, message: Uint8Array, incarnation = 1, shard = 0): Promise<void> {
  const fingerprint = createHash('sha256').update(message).digest('hex');
  const record: WatermarkRecord = { shard, incarnation, sequence, fingerprint };
  const bucket = await openKeyValue(link, BUCKET_WATERMARKS);
  await bucket.put(String(shard), JSON.stringify(record));
}

// The courier in this process. A block is opaque to it: here it is a number.

interface Carrier {
  readonly courier: Courier;
  readonly journal: Journal;
  readonly metrics: () => Promise<string>;
  /** How many watermarks were found not to be of the log that is there. */
  doubts(): number;
  /** The connection of a carrier is looked at only when it is told to. */
  resume(): Promise<void>;
  stop(): Promise<void>;
}

function blockOf(number: number): Uint8Array {
  const block = new Uint8Array(120).fill(7);
  new DataView(block.buffer).setUint32(64, number, true);
  return block;
}

const numberOf = (block: Uint8Array): number =>
  new DataView(block.buffer, block.byteOffset).getUint32(64, true);

async function numbersInLog(): Promise<Map<number, number>> {
  const copies = new Map<number, number>();
  for (const { data } of await messages()) {
    const number = numberOf(data);
    copies.set(number, (copies.get(number) ?? 0) + 1);
  }
  return copies;
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, at) => from + at);

/** As main.ts puts it together. */
async function startCarrier(name: string, more: { bytesMax?: number } = {}): Promise<Carrier> {
  const stopping = new AbortController();
  const metrics = createMetrics('test');
  const stops: (() => Promise<void> | void)[] = [];
  const said: string[] = [];
  const stage: Stage = {
    name,
    log: pino({ level: 'warn' }, { write: (line) => void said.push(line) }),
    metrics,
    clock: { now: () => Date.now() },
    stopping: stopping.signal,
    onStop: (_, stop) => void stops.push(stop),
    setReady: () => {},
    announce: () => {},
    fatal: (error) => expect(error).toBeNull(),
  };
  const config = {
    shards: SHARDS,
    identityKey: IDENTITY_KEY,
    journalFolder: join(engines.dir, name),
    journalBytesMax: more.bytesMax ?? 10_000_000,
    journalSegmentBytes: 65_536,
    publishesInFlightMax: 64,
    publishBytesInFlightMax: 1_000_000,
  };
  const chance = {
    random: () => Math.random(),
    after(ms: number, run: () => void) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
  };
  const journaling = (await openJournal(stage, config, chance))!;
  const pipeline = new PublishPipeline(link, {
    maxInFlight: config.publishesInFlightMax,
    maxInFlightBytes: config.publishBytesInFlightMax,
    ackTimeoutMs: 2_000,
  });
  const courier = await startCourier(stage, config, journaling, link, pipeline);
  const forget = link.onConnection((connected) => {
    if (!connected) courier.suspend();
  });
  let stopped = false;
  const carrier: Carrier = {
    courier,
    journal: journaling.journal,
    metrics: () => metrics.render(),
    doubts: () => said.filter((line) => line.includes('the watermark is not of the log')).length,
    async resume() {
      await until('connected', () => link.connected);
      await ensureLogs(link, SETTINGS, logOfShard);
      courier.resume();
    },
    async stop() {
      if (stopped) return;
      stopped = true;
      stopping.abort();
      await courier.stop(5_000);
      forget();
      pipeline.close();
      for (const stop of stops) await stop();
      rmSync(config.journalFolder, { recursive: true, force: true });
    },
  };
  ends.push(() => carrier.stop());
  return carrier;
}

const publishAll = (carrier: Carrier, numbers: readonly number[]): Promise<void[]> =>
  Promise.all(numbers.map((number) => carrier.courier.publish(number % SHARDS, blockOf(number), 1)));

/** To shard 0, few enough at a time that the pipeline takes all at once and the log has them in order. */
async function publishInOrder(carrier: Carrier, numbers: readonly number[]): Promise<void> {
  for (let from = 0; from < numbers.length; from += 40) {
    await Promise.all(
      numbers.slice(from, from + 40).map((number) => carrier.courier.publish(0, blockOf(number), 1)),
    );
  }
}

test('blocks promised while NATS is away are all in the log afterwards, and no others', async () => {
  await connect();
  const carrier = await startCarrier('away');
  await carrier.resume();
  await publishAll(carrier, range(1, 50));
  await engines.nats.kill();
  await until('the connection is lost', () => !link.connected);
  for (let from = 51; from < 1_051; from += 100) await publishAll(carrier, range(from, from + 99));
  expect(carrier.journal.index.waiting).toBe(1_050);

  await engines.nats.restart();
  await carrier.resume();
  await until('all are sent', () => carrier.journal.index.waiting === 0);
  await carrier.stop();
  const copies = await numbersInLog();
  expect([...copies.keys()].sort((a, b) => a - b)).toEqual(range(1, 1_050));
  // Only those whose acknowledgement was lost with the connection are there twice.
  expect([...copies].filter(([number, count]) => count > (number <= 50 ? 2 : 1))).toEqual([]);
});

test('a full log fills the journal instead of refusing, and everything is sent when there is room', async () => {
  await connect();
  const carrier = await startCarrier('full');
  await carrier.resume();
  await publishAll(carrier, range(1, 20));
  const { config, state } = await link.jsm.streams.info(streamName(0));
  // Less room than one block needs. (With a little more, a server before 2.10.5 takes the block and drops its
  // oldest message instead, `discard: new` or not.)
  await link.jsm.streams.update(streamName(0), { ...config, max_bytes: state.bytes + 100 });
  for (let from = 21; from < 421; from += 50) await publishAll(carrier, range(from, from + 49));
  expect(await carrier.metrics()).toContain('tallyline_edge_journal_alone_shards{stage="test"} 1');
  await link.jsm.streams.update(streamName(0), config);
  await until('all are sent', () => carrier.journal.index.waiting === 0);
  await carrier.stop();
  expect([...(await numbersInLog()).keys()].sort((a, b) => a - b)).toEqual(range(1, 420));
});

test('after NATS was cut back to an earlier state, everything that was not released is in the log again', async () => {
  await connect();
  const carrier = await startCarrier('cut');
  await carrier.resume();
  await publishInOrder(carrier, range(1, 100));
  // Counted up to 60: these are released.
  const counted = (await messages()).find(({ sequence }) => sequence === 60)!;
  await putRecord(60, counted.data);
  await until('60 are released', () => carrier.journal.index.held === 40);
  await keepStore();
  await carrier.resume();
  await until('what was in doubt is sent again', () => carrier.journal.index.waiting === 0);
  await publishInOrder(carrier, range(101, 300));

  await cutBack();
  const lost = await numbersInLog();
  expect(range(101, 300).some((number) => lost.has(number))).toBe(false);
  await carrier.resume();
  await until('all are sent again', () => carrier.journal.index.waiting === 0);
  await carrier.courier.stop(5_000);
  const copies = await numbersInLog();
  expect(range(1, 300).filter((number) => !copies.has(number))).toEqual([]);
  expect(carrier.journal.index.held).toBe(240);
});

test('a watermark of the log as it was before it was cut back releases nothing, even at the same sequences', async () => {
  await connect();
  const old = await startCarrier('old');
  await old.resume();
  await publishInOrder(old, range(1, 490));
  const at490 = (await messages()).at(-1)!;
  await putRecord(490, at490.data);
  await until('490 are released', () => old.journal.index.held === 0);
  await keepStore();
  await old.resume();
  await publishInOrder(old, range(491, 1_000));
  // An aggregator has counted all of it, and will say so too late.
  const at1000 = (await messages()).find(({ sequence }) => sequence === 1_000)!;
  await cutBack();
  expect((await messages()).at(-1)!.sequence).toBe(490);

  // Another edge comes first, and the blocks of the old one come to stand where they stood, but for ten.
  const other = await startCarrier('other');
  await other.resume();
  await publishInOrder(other, range(2_001, 2_010));
  await old.resume();
  await until('all are sent again', () => old.journal.index.waiting === 0);
  await publishInOrder(old, range(1_001, 1_020));
  const again = await messages();
  const now1000 = again.find(({ sequence }) => sequence === 1_000)!;
  expect(again.slice(490, 500).map(({ data }) => numberOf(data))).toEqual(range(2_001, 2_010));
  expect(numberOf(now1000.data)).toBe(990);

  // Late, and of a log that is not there any more: another message, the same block in another copy at the same
  // sequence as a first copy could have stood, and none.
  const copy = again.find(({ data }) => numberOf(data) === 1_000)!;
  for (const [at, sequence] of [1_000, copy.sequence, 5_000].entries()) {
    await putRecord(sequence, at1000.data);
    await until('both have compared it', () => old.doubts() === at + 1 && other.doubts() === at + 1);
    expect([old.journal.index.held, other.journal.index.held]).toEqual([530, 10]);
  }

  // The aggregator has found out, and counts what is there in a new incarnation.
  await putRecord(900, again[899]!.data, 2);
  const sentAgain = async ({ metrics }: Carrier): Promise<number> =>
    Number(/resent_blocks_total\{stage="test"\} (\d+)/.exec(await metrics())![1]);
  await until('the other has sent again', async () => (await sentAgain(other)) === 10);
  await until('the old one has, twice', async () => (await sentAgain(old)) >= 510 + 530);
  await until('nothing waits', () => old.journal.index.waiting === 0 && other.journal.index.waiting === 0);
  expect([old.journal.index.held, other.journal.index.held]).toEqual([530, 10]);
  await Promise.all([old.courier.stop(5_000), other.courier.stop(5_000)]);
});

test('what was counted is released, and its files are removed', async () => {
  await connect();
  const carrier = await startCarrier('counted');
  await carrier.resume();
  await publishInOrder(carrier, range(1, 2_000));
  const before = carrier.journal.bytes;
  for (const sequence of [700, 1_999, 2_000]) {
    const { data } = (await messages()).find((one) => one.sequence === sequence)!;
    await putRecord(sequence, data);
    await until(`${sequence} are released`, () => carrier.journal.index.held === 2_000 - sequence);
  }
  await until('their files are gone', () => carrier.journal.bytes < before / 3);
});

// The edge as a process.

const main = fileURLToPath(new URL('../dist/ingest/main.js', import.meta.url));

interface RunningEdge {
  readonly url: string;
  readonly ops: string;
  kill(signal: NodeJS.Signals): Promise<number | null>;
}

async function startEdge(folder: string, env: Record<string, string> = {}): Promise<RunningEdge> {
  const child: ChildProcess = spawn(process.execPath, [main], {
    env: {
      PATH: process.env['PATH'],
      NATS_URL: engines.natsUrl,
      TALLYLINE_EDGE_PORT: '0',
      TALLYLINE_SHARDS: String(SHARDS),
      TALLYLINE_IDENTITY_KEY: IDENTITY_KEY,
      TALLYLINE_STOP_WITH_PARENT: '1',
      TALLYLINE_EDGE_JOURNAL: join(engines.dir, folder),
      TALLYLINE_EDGE_JOURNAL_SEGMENT_BYTES: '262144',
      TALLYLINE_EDGE_ACK_TIMEOUT_MS: '2000',
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let printed = '';
  child.stderr!.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const kill = (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal);
    return exited;
  };
  ends.push(() => kill('SIGKILL'));
  const ready = new Promise<{ edge: string; ops: string }>((resolve) => {
    createInterface({ input: child.stdout! }).on('line', (line) => {
      printed += `${line}\n`;
      const parsed = JSON.parse(line) as { ready?: boolean; edge: string; ops: string };
      if (parsed.ready === true) resolve(parsed);
    });
  });
  const ended = exited.then((code) => {
    throw new Error(`the edge ended with ${code}:\n${printed}`);
  });
  const { edge, ops } = await Promise.race([ready, ended]);
  ended.catch(() => undefined);
  return { url: edge, ops, kill };
}

/** Publishes a key, as the ledger does. */
async function newKey(): Promise<string> {
  const { key, id, secret } = makeKey(Uint8Array.from({ length: 64 }, (_, at) => (at * 7 + 13) % 248));
  const secretHash = createHash('sha256').update(secret).digest('hex');
  const record: KeyRecord = { id, tenant: 'acme', scopes: ['ingest'], secretHash, expiresAtMs: null };
  await (await openKeyValue(link, BUCKET_KEYS)).put(id, JSON.stringify(record));
  return key;
}

async function post(
  url: string,
  key: string,
  ids: readonly string[],
): Promise<{ status: number; code: unknown }> {
  const response = await fetch(`${url}/v1/events`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify(
      ids.map((id) => ({ id, source: 'test', type: 'llm.request', subject: 'cus_1', data: { tokens: 12 } })),
    ),
  });
  const { code } = (await response.json()) as { code?: unknown };
  return { status: response.status, code };
}

/** Posts batches over several connections until told to stop; collects the ids of those answered 202. */
function load(url: string, key: string, prefix: string) {
  const acked: string[] = [];
  const outcomes = new Map<string, number>();
  let going = true;
  let next = 0;
  const connection = async (): Promise<void> => {
    while (going) {
      const ids = Array.from({ length: 20 }, () => `${prefix}-${next++}`);
      const { status, code } = await post(url, key, ids).catch(() => ({ status: 0, code: 'no answer' }));
      if (status === 202) acked.push(...ids);
      const outcome = status === 202 ? '202' : String(code);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (status !== 202) await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const all = Promise.all(Array.from({ length: 8 }, connection));
  return {
    acked,
    outcomes,
    async stop() {
      going = false;
      await all;
    },
  };
}

async function idsInLog(): Promise<Set<string>> {
  const ids = new Set<string>();
  for (const { data } of await messages()) {
    const block = decodeBlock(data);
    for (let at = 0; at < block.count; at++) ids.add(idOf(block, at));
  }
  return ids;
}

/** Waits, since what is under way to the log does not count as waiting any more. Returns all ids in the log. */
async function allInLog(acked: readonly string[]): Promise<Set<string>> {
  let ids = new Set<string>();
  let missing: string[] = [];
  await until('every acknowledged event is in the log', async () => {
    ids = await idsInLog();
    missing = acked.filter((id) => !ids.has(id));
    return missing.length === 0;
  }).catch(() => expect(missing).toEqual([]));
  return ids;
}

async function metric(edge: RunningEdge, name: string): Promise<number> {
  const text = await (await fetch(`${edge.ops}/metrics`)).text();
  const line = text.split('\n').find((one) => one.startsWith(`${name}{`));
  if (line === undefined) throw new Error(`there is no metric ${name}`);
  return Number(line.split(' ').at(-1));
}

const nothingWaits = async (edge: RunningEdge): Promise<boolean> =>
  (await metric(edge, 'tallyline_edge_journal_waiting_blocks')) === 0;

test('NATS killed under load: no sender is refused, the edge stays ready, and every acknowledged event is in the log', async () => {
  await connect();
  const key = await newKey();
  const edge = await startEdge('load');
  const running = load(edge.url, key, 'load');
  for (let round = 0; round < 2; round++) {
    const before = running.acked.length;
    await until('there is load', () => running.acked.length > before + 500);
    await engines.nats.kill();
    await until('the journal alone promises', async () => {
      return (await metric(edge, 'tallyline_edge_journal_alone_shards')) === SHARDS;
    });
    const away = running.acked.length;
    await until('there is load without NATS', () => running.acked.length > away + 1_000);
    expect((await fetch(`${edge.ops}/readyz`)).status).toBe(200);
    await engines.nats.restart();
    await until('NATS is back', async () => {
      return (await metric(edge, 'tallyline_edge_journal_alone_shards')) === 0;
    });
  }
  await running.stop();
  expect([...running.outcomes.keys()]).toEqual(['202']);
  await until('everything is sent', () => nothingWaits(edge));
  await until('the test is connected again', () => link.connected);
  const ids = await allInLog(running.acked);
  expect(ids.size).toBe(running.acked.length);
});

test('kill -9 of the edge under load, with NATS and without it: after its restart every acknowledged event is in the log', async () => {
  await connect();
  const key = await newKey();
  const acked: string[] = [];
  for (let round = 0; round < 4; round++) {
    const edge = await startEdge('killed');
    const running = load(edge.url, key, `killed-${round}`);
    await until('there is load', () => running.acked.length > 500);
    if (round % 2 === 1) {
      await engines.nats.kill();
      const away = running.acked.length;
      await until('there is load without NATS', () => running.acked.length > away + 1_000);
    }
    await edge.kill('SIGKILL');
    await running.stop();
    acked.push(...running.acked);
    if (round % 2 === 1) await engines.nats.restart();
  }
  const edge = await startEdge('killed');
  await until('everything is sent', () => nothingWaits(edge));
  expect(await metric(edge, 'tallyline_edge_journal_damaged_records_total')).toBe(0);
  await until('the test is connected again', () => link.connected);
  await allInLog(acked);
});

test('a full journal refuses while NATS is away; killed and started again, it sends all and takes again', async () => {
  await connect();
  const key = await newKey();
  const env = { TALLYLINE_EDGE_JOURNAL_BYTES_MAX: '1048576' };
  const edge = await startEdge('bounded', env);
  await engines.nats.kill();
  const running = load(edge.url, key, 'bounded');
  await until('the journal is full', () => [...running.outcomes.keys()].some((one) => one !== '202'));
  await until('it says so of itself', async () => (await fetch(`${edge.ops}/readyz`)).status === 503);
  await running.stop();
  expect(
    [...running.outcomes.keys()].filter((one) => !['202', 'log_unavailable', 'journal_full'].includes(one)),
  ).toEqual([]);
  expect(await metric(edge, 'tallyline_edge_journal_bytes')).toBeLessThanOrEqual(1_048_576 + 64);
  expect(running.acked.length).toBeGreaterThan(1_000);
  await edge.kill('SIGKILL');

  await engines.nats.restart();
  const next = await startEdge('bounded', env);
  // Full as it is, it takes events by the acknowledgement of the log.
  expect((await post(next.url, key, ['bounded-after'])).status).toBe(202);
  await until('everything is sent', () => nothingWaits(next));
  await until('the test is connected again', () => link.connected);
  await allInLog([...running.acked, 'bounded-after']);

  // Counted, it has room again.
  for (const { shard, sequence, data } of await lastOfEachLog()) await putRecord(sequence, data, 1, shard);
  await until('it is emptied', async () => (await metric(next, 'tallyline_edge_journal_held_blocks')) === 0);
  await until(
    'its room is given back',
    async () => (await metric(next, 'tallyline_edge_journal_bytes')) < 300_000,
  );
  expect(await next.kill('SIGTERM')).toBe(0);
  expect(readdirSync(join(engines.dir, 'bounded'))).toEqual([]);
});

async function lastOfEachLog(): Promise<{ shard: number; sequence: number; data: Uint8Array }[]> {
  const all = await messages();
  return range(0, SHARDS - 1).flatMap((shard) => all.filter((one) => one.shard === shard).slice(-1));
}

test('NATS cut back to an earlier state under load: every acknowledged event is in the log again', async () => {
  await connect();
  const key = await newKey();
  const edge = await startEdge('cut-edge');
  const running = load(edge.url, key, 'cut');
  await until('there is load', () => running.acked.length > 500);
  await keepStore();
  const kept = running.acked.length;
  await until('there is more load', () => running.acked.length > kept + 2_000);
  await cutBack();
  const back = running.acked.length;
  await until('there is load again', () => running.acked.length > back + 500);
  await running.stop();
  expect([...running.outcomes.keys()]).toEqual(['202']);
  await until('everything is sent', () => nothingWaits(edge));
  await allInLog(running.acked);
});

test('an orderly stop under load leaves nothing that was not acknowledged, with NATS or without it', async () => {
  await connect();
  const key = await newKey();
  for (const away of [false, true]) {
    const edge = await startEdge('stopped');
    const running = load(edge.url, key, `stopped-${away}`);
    await until('there is load', () => running.acked.length > 500);
    if (away) await engines.nats.kill();
    const before = running.acked.length;
    await until('there is more load', () => running.acked.length > before + 500);
    expect(await edge.kill('SIGTERM')).toBe(0);
    await running.stop();
    if (away) await engines.nats.restart();
    const next = away ? await startEdge('stopped') : null;
    if (next !== null) await until('everything is sent', () => nothingWaits(next));
    await until('the test is connected', () => link.connected);
    await allInLog(running.acked);
  }
});

test('a folder that cannot be used is said at the start, and so is one that another edge has', async () => {
  await connect();
  writeFileSync(join(engines.dir, 'a file'), '');
  await expect(startEdge(join('a file', 'below'))).rejects.toThrow(/TALLYLINE_EDGE_JOURNAL=.*cannot be used/);
  await startEdge('taken');
  await expect(startEdge('taken')).rejects.toThrow(/in use by another process: every edge needs/);
});
