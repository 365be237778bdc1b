import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeBlock, textOf } from '../contract/block.ts';
import { makeKey, type KeyRecord } from '../contract/key.ts';
import { BUCKET_KEYS, BUCKET_METERS, streamName } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, openKeyValue, readLog, type NatsLink } from '../runtime/nats.ts';
import { Senders, rawAnswer } from './bad-input/senders.ts';
import { lineInBlock } from './bad-input/log.ts';
import { AMOUNTS, SEEDS_KEPT, badInputs, differentIn, unreached, windowAt } from './bad-input.ts';
import { startEngines, type Engines } from './engines.ts';
import { METERS, TENANT, type BadInput } from './bad-input/deck.ts';

// Every bad input against a real edge and a real NATS: over HTTP and over streams, many at a time. What was
// answered is compared with what each input must get, and the log, afterwards, with all that was taken.

const main = fileURLToPath(new URL('../dist/ingest/main.js', import.meta.url));
const SHARDS = 2;
const FRESH = Math.floor(Math.random() * 2 ** 31);
const seeds = [...SEEDS_KEPT, FRESH];
/** The inputs are made before they are sent; so far from an edge of the window every answer is the same. */
const SLACK_MS = 300_000;
/**
 * What the whole process may take at its peak: 128 MiB of it are bodies in flight (bytesInFlightMax), 64 MiB blocks on
 * their way to the log, 32 MiB two bodies that are being decompressed. Measured on Linux
 * with Node 20: 240 to 265 MB at the peak, 165 MB at the end.
 */
const MEMORY_BYTES_MAX = 384 * 1_048_576;
/** Ten seconds or so, on a machine that has nothing else to do. */
const PATIENCE_MS = 120_000;
/** Sent at the same time: what they would become is 96 GiB. */
const BOMBS = 96;

let engines: Engines;
let link: NatsLink;
let edge: { url: string; ops: string; child: ChildProcess; printed: () => string };
let inputs: readonly BadInput[];
let key: string;
const startedMs = Date.now();

beforeAll(async () => {
  engines = await startEngines({ nats: true });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log: createLog('test', 'silent') });
  const meters = await openKeyValue(link, BUCKET_METERS);
  for (const meter of METERS)
    await meters.put(`${TENANT}.${meter.key}`, JSON.stringify({ tenant: TENANT, meter }));
  const made = makeKey(Uint8Array.from({ length: 64 }, (_, at) => (at * 7 + process.pid) % 248));
  const record: KeyRecord = {
    id: made.id,
    tenant: TENANT,
    scopes: ['ingest'],
    secretHash: createHash('sha256').update(made.secret).digest('hex'),
    expiresAtMs: null,
  };
  key = made.key;
  await (await openKeyValue(link, BUCKET_KEYS)).put(made.id, JSON.stringify(record));
  edge = await startEdge();
  inputs = badInputs(windowAt(startedMs, SLACK_MS), { seeds, amounts: AMOUNTS, doors: true });
}, PATIENCE_MS);
afterAll(async () => {
  await link?.close();
  if (edge?.child.exitCode === null) {
    const closed = new Promise((resolve) => edge.child.once('close', resolve));
    edge.child.kill('SIGKILL');
    await closed;
  }
  await engines?.stop();
});

async function startEdge(): Promise<typeof edge> {
  const child = spawn(process.execPath, [main], {
    env: {
      PATH: process.env['PATH'],
      NATS_URL: engines.natsUrl,
      TALLYLINE_EDGE_PORT: '0',
      TALLYLINE_SHARDS: String(SHARDS),
      TALLYLINE_IDENTITY_KEY: '000102030405060708090a0b0c0d0e0f',
      TALLYLINE_STOP_WITH_PARENT: '1',
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let printed = '';
  child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const ready = new Promise<{ edge: string; ops: string }>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      printed += `${line}\n`;
      const parsed = JSON.parse(line) as { ready?: boolean; edge: string; ops: string };
      if (parsed.ready === true) resolve(parsed);
    });
    child.once('close', (code) => reject(new Error(`the edge ended with ${code}:\n${printed}`)));
  });
  const { edge: url, ops } = await ready;
  return { url, ops, child, printed: () => printed };
}

describe(`bad inputs (seeds ${seeds.join(', ')})`, { timeout: PATIENCE_MS }, () => {
  test('are more than 2,000 different ones, and reach every code over every way in which it can occur', () => {
    expect(differentIn(inputs)).toBeGreaterThan(2_000);
    expect(unreached(inputs)).toEqual([]);
  });

  test('each is answered as it must be, and the edge is alive all the while', async () => {
    const senders = new Senders(edge.url, key);
    let isSending = true;
    let pulses = 0;
    const pulse = async (): Promise<void> => {
      while (isSending) {
        const health = await fetch(`${edge.url}/healthz`);
        if (health.status !== 200) throw new Error(`/healthz answered ${health.status}`);
        pulses += 1;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    const alive = pulse();
    const wrong = await senders.sendAll(inputs).finally(() => (isSending = false));
    await alive;
    expect(wrong.length, JSON.stringify(wrong.slice(0, 10), null, 1)).toBe(0);
    expect(pulses).toBeGreaterThan(5);
    expect(edge.child.exitCode).toBeNull();
    expect((await fetch(`${edge.ops}/readyz`)).status).toBe(200);
    expect(edge.printed()).not.toMatch(/mistake of ours/);
  });

  test('bombs, all at once, are refused, and nothing else is', async () => {
    const bomb = inputs.find(({ name }) => name === 'a bomb of gzip [json]')!;
    const senders = new Senders(edge.url, key);
    const [statuses, health] = await Promise.all([
      senders.statusesOf(Array.from({ length: BOMBS }, () => bomb)),
      fetch(`${edge.url}/healthz`),
    ]);
    expect(health.status).toBe(200);
    // 503: there is no room for so many bodies of one tenant; nothing of them was read.
    expect([...new Set(statuses)].filter((status) => status !== 413 && status !== 503)).toEqual([]);
    expect(statuses).toContain(413);
    const good = inputs.find(
      ({ name, expected }) => expected.kind === 'events' && name === 'no event [json]',
    )!;
    expect(await senders.sendAll([good])).toEqual([]);
  });

  test('what is no HTTP is refused or cut off, and what is behind it is none of ours', async () => {
    const head = `POST /v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ${key}\r\ncontent-type: application/json\r\n`;
    const smuggled = '{"id":"smuggled","type":"t","subject":"s"}';
    const raw: readonly string[] = [
      '\0\0\0\0\0\0\0\0',
      'GET / HTTP/9.9\r\n\r\n',
      'POST\r\n\r\n',
      `${'x'.repeat(20_000)}\r\n\r\n`,
      `${head}x: ${'y'.repeat(20_000)}\r\n\r\n`,
      `${head}content-length: -1\r\n\r\n[]`,
      `${head}content-length: 1e3\r\n\r\n[]`,
      `${head}content-length: 99999999999999999999\r\n\r\n[]`,
      `${head}transfer-encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n`,
      `${head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n[]\r\n0\r\n\r\n`,
      `${head}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}content-length: 2\r\ncontent-length: ${smuggled.length}\r\n\r\n${smuggled}`,
      `${head}transfer-encoding: gzip, chunked, identity\r\n\r\n0\r\n\r\n${smuggled}`,
    ];
    const answers = await Promise.all(raw.map((text) => rawAnswer(edge.url, text)));
    for (const [nth, answer] of answers.entries()) {
      expect(answer, JSON.stringify(raw[nth]!.slice(-100))).toMatch(/^$|^HTTP\/1\.1 [45]\d\d /);
    }
    expect((await fetch(`${edge.url}/healthz`)).status).toBe(200);
  });

  test('what was taken is in the log, each once, to the byte and the digit, and nothing else is', async () => {
    const sent = new Map<string, number>();
    for (const { expected } of inputs) {
      if (expected.kind !== 'events') continue;
      for (const line of expected.stored) sent.set(line, (sent.get(line) ?? 0) + 1);
    }
    const surplus: string[] = [];
    for (const line of await linesInLog()) {
      const left = sent.get(line) ?? 0;
      if (left === 0) surplus.push(line);
      else if (left === 1) sent.delete(line);
      else sent.set(line, left - 1);
    }
    const missing = [...sent.keys()];
    const found = { missing: missing.slice(0, 5), surplus: surplus.slice(0, 5) };
    expect({ missing: missing.length, surplus: surplus.length }, JSON.stringify(found, null, 1)).toEqual({
      missing: 0,
      surplus: 0,
    });
  });

  test('the memory of the edge keeps its bound', () => {
    const status = `/proc/${edge.child.pid}/status`;
    if (!existsSync(status)) return; // told by Linux alone
    const bytes = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(status, 'utf8'))![1]) * 1_024;
    expect(bytes('VmHWM')).toBeLessThan(MEMORY_BYTES_MAX);
    expect(bytes('VmRSS')).toBeLessThan(MEMORY_BYTES_MAX);
  });
});

/** Every event in the log, as `lineOf` writes it. */
async function linesInLog(): Promise<string[]> {
  const lines: string[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    const stream = streamName(shard);
    const { state } = await link.jsm.streams.info(stream);
    if (state.messages === 0) continue;
    const stop = new AbortController();
    const log = readLog(link, {
      stream,
      fromSequence: state.first_seq,
      maxBytesInFlight: 8_000_000,
      signal: stop.signal,
    });
    for await (const { data, sequence } of log) {
      const block = decodeBlock(data);
      for (let event = 0; event < block.count; event++) {
        expect(textOf(block, block.tenant[event]!)).toBe(TENANT);
        if ((block.flags[event]! & 1) === 0) {
          expect(block.time[event]).toBeGreaterThanOrEqual(startedMs);
          expect(block.time[event]).toBeLessThanOrEqual(Date.now());
        }
        lines.push(lineInBlock(block, event));
      }
      if (sequence >= state.last_seq) break;
    }
    stop.abort();
  }
  return lines;
}
