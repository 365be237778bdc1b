import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { request } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { TallylineClient } from '../client/index.ts';
import { decodeBlock, idOf, textOf, type Block } from '../contract/block.ts';
import { makeKey, type KeyRecord, type Scope } from '../contract/key.ts';
import { BUCKET_KEYS, streamName } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, openKeyValue, readLog, type KeyValue, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';
import { until } from './until.ts';

// The edge as a process, from the build, against a real NATS.

const main = fileURLToPath(new URL('../dist/ingest/main.js', import.meta.url));
const log = createLog('test', 'silent');
const SHARDS = 2;
const IDENTITY_KEY = '000102030405060708090a0b0c0d0e0f';

let engines: Engines;
let link: NatsLink;
let keys: KeyValue;
const edges: ChildProcess[] = [];

beforeAll(async () => {
  engines = await startEngines({ nats: true });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log });
  keys = await openKeyValue(link, BUCKET_KEYS);
});
afterAll(async () => {
  await link?.close();
  await engines?.stop();
});
afterEach(async () => {
  for (const edge of edges.splice(0)) {
    if (edge.exitCode !== null || edge.signalCode !== null) continue;
    const closed = new Promise((resolve) => edge.once('close', resolve));
    edge.kill('SIGKILL');
    await closed;
  }
});

interface RunningEdge {
  readonly url: string;
  readonly ops: string;
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
}

async function startEdge(env: Record<string, string> = {}): Promise<RunningEdge> {
  const child = spawn(process.execPath, [main], {
    env: {
      PATH: process.env['PATH'],
      NATS_URL: engines.natsUrl,
      TALLYLINE_EDGE_PORT: '0',
      TALLYLINE_SHARDS: String(SHARDS),
      TALLYLINE_IDENTITY_KEY: IDENTITY_KEY,
      TALLYLINE_STOP_WITH_PARENT: '1',
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  edges.push(child);
  let printed = '';
  child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const ready = new Promise<{ edge: string; ops: string }>((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
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
  return { url: edge, ops, child, exited };
}

let made = 0;
/** Publishes a new key, as the ledger does. */
async function newKey(scopes: Scope[] = ['ingest'], tenant = 'acme'): Promise<{ key: string; id: string }> {
  made += 1;
  const { key, id, secret } = makeKey(
    Uint8Array.from({ length: 64 }, (_, at) => (at * 7 + made * 13 + process.pid) % 248),
  );
  const record: KeyRecord = {
    id,
    tenant,
    scopes,
    secretHash: createHash('sha256').update(secret).digest('hex'),
  };
  await keys.put(id, JSON.stringify(record));
  return { key, id };
}

const event = (id: string, more: object = {}): object => ({
  id,
  source: 'test',
  type: 'llm.request',
  subject: 'cus_1',
  data: { tokens: 12 },
  ...more,
});

async function post(
  url: string,
  key: string,
  body: string,
  type = 'application/json',
): Promise<{ status: number; headers: Headers; body: Record<string, unknown> }> {
  const response = await fetch(`${url}/v1/events`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': type },
    body,
  });
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  };
}

/** Every block that the log holds now. */
async function blocks(): Promise<Block[]> {
  const found: Block[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    const stream = streamName(shard);
    const { state } = await link.jsm.streams.info(stream);
    if (state.messages === 0) continue;
    const stop = new AbortController();
    for await (const message of readLog(link, {
      stream,
      fromSequence: state.first_seq,
      maxBytesInFlight: 8_000_000,
      signal: stop.signal,
    })) {
      found.push(decodeBlock(message.data));
      if (message.sequence >= state.last_seq) break;
    }
    stop.abort();
  }
  return found;
}

async function idsInLog(): Promise<Set<string>> {
  const ids = new Set<string>();
  for (const block of await blocks()) for (let at = 0; at < block.count; at++) ids.add(idOf(block, at));
  return ids;
}

test('an event is in the log when its 202 arrives, with everything it says', async () => {
  const { key } = await newKey();
  const edge = await startEdge();
  const answer = await post(
    edge.url,
    key,
    JSON.stringify(
      event('whole-1', { time: '2026-11-20T10:00:00.250Z', data: { tokens: 1.5, model: 'm', on: true } }),
    ),
  );
  expect(answer).toMatchObject({ status: 202, body: { accepted: 1, rejected: [] } });

  const found = (await blocks()).filter((block) => idOf(block, 0) === 'whole-1');
  expect(found).toHaveLength(1);
  const block = found[0]!;
  const text = (number: number | undefined): string => textOf(block, number!);
  expect([text(block.tenant[0]), text(block.source[0]), text(block.type[0]), text(block.subject[0])]).toEqual(
    ['acme', 'test', 'llm.request', 'cus_1'],
  );
  expect(block.time[0]).toBe(Date.UTC(2026, 10, 20, 10, 0, 0, 250));
  expect(block.flags[0]).toBe(1);
  const cells = [...block.cells];
  expect(cells[0]).toBe(15); // 1.5 is 15 · 10^-1
  expect(block.shapeFields[1]! & 0xff).toBe(1);
  expect([text(cells[1]), text(cells[2])]).toEqual(['m', 'true']);

  const health = await fetch(`${edge.url}/healthz`);
  expect(health.status).toBe(200);
  expect((await fetch(`${edge.ops}/readyz`)).status).toBe(200);
  const metrics = await (await fetch(`${edge.ops}/metrics`)).text();
  expect(metrics).toMatch(/tallyline_edge_events_accepted_total\{stage="ingest"\} 1\n/);
  expect(metrics).toMatch(/tallyline_edge_publish_seconds_count\{stage="ingest"\} 1\n/);
});

test('what is wrong with an event is said of that event, and its neighbours are counted', async () => {
  const { key } = await newKey();
  const edge = await startEdge();
  const mixed = await post(
    edge.url,
    key,
    JSON.stringify([event('part-1'), event('part-2', { subject: 7 }), event('part-3')]),
  );
  expect(mixed.status).toBe(202);
  expect(mixed.body).toEqual({
    accepted: 2,
    rejected: [
      { index: 1, id: 'part-2', code: 'field_not_text', message: 'subject: This field must be a string.' },
    ],
  });
  const lines = await post(
    edge.url,
    key,
    `${JSON.stringify(event('part-4'))}\n{"id": \n\n${JSON.stringify(event('part-5'))}\n`,
    'application/x-ndjson',
  );
  expect(lines).toMatchObject({
    status: 202,
    body: { accepted: 2, rejected: [{ index: 1, code: 'line_not_json' }] },
  });

  const none = await post(edge.url, key, JSON.stringify([event('part-6', { type: '' })]));
  expect(none.status).toBe(422);
  expect(none.headers.get('content-type')).toBe('application/problem+json');
  expect(none.body).toMatchObject({
    code: 'no_event_admitted',
    accepted: 0,
    rejected: [{ index: 0, id: 'part-6', code: 'field_missing' }],
  });
  const ids = await idsInLog();
  expect(['part-1', 'part-3', 'part-4', 'part-5'].every((id) => ids.has(id))).toBe(true);
  expect(ids.has('part-2') || ids.has('part-6')).toBe(false);
});

test('a request that cannot be read or may not be sent is refused with its problem', async () => {
  const { key } = await newKey();
  const reader = await newKey(['read']);
  const edge = await startEdge({
    TALLYLINE_EDGE_BODY_BYTES_MAX: '4096',
    TALLYLINE_EDGE_BATCH_EVENTS_MAX: '3',
  });
  const codeOf = async (answer: Promise<{ status: number; body: Record<string, unknown> }>) => {
    const { status, body } = await answer;
    return [status, body['code']];
  };
  const one = JSON.stringify(event('never'));
  expect(await codeOf(post(edge.url, key, one, 'text/plain'))).toEqual([415, 'content_type_unknown']);
  expect(await codeOf(post(edge.url, key, '{"id": "a",,}'))).toEqual([400, 'body_not_json']);
  const unreadable = await post(edge.url, key, '[{"id": "a"}, {"id": b}]');
  expect(unreadable.body['detail']).toContain('character 21');
  expect(await codeOf(post(edge.url, key, `[${one},${one},${one},${one}]`))).toEqual([
    413,
    'batch_too_large',
  ]);
  expect(await codeOf(post(edge.url, key, `[${'1'.repeat(5_000)}]`))).toEqual([413, 'body_too_large']);
  expect(await codeOf(post(edge.url, reader.key, one))).toEqual([403, 'scope_missing']);
  expect(await codeOf(post(edge.url, 'tl_nonsense', one))).toEqual([401, 'key_invalid']);
  expect(await codeOf(post(edge.url, `${key.slice(0, -1)}!`, one))).toEqual([401, 'key_invalid']);
  const wrong = `${key.slice(0, -1)}${key.endsWith('0') ? '1' : '0'}`;
  expect(await codeOf(post(edge.url, wrong, one))).toEqual([401, 'key_invalid']);
  const without = await fetch(`${edge.url}/v1/events`, { method: 'POST', body: one });
  expect([without.status, without.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
  const get = await fetch(`${edge.url}/v1/events`);
  expect([get.status, get.headers.get('allow')]).toEqual([405, 'POST']);
  expect((await fetch(`${edge.url}/v2`)).status).toBe(404);
  // Without a declared length the bytes are counted as they come.
  expect(
    await chunked(edge.url, key, ['[', ...Array.from({ length: 8 }, () => ' '.repeat(1_000)), ']']),
  ).toBe(413);
  expect(await chunked(edge.url, key, ['[', one, ']'])).toBe(202);
  expect((await idsInLog()).has('never')).toBe(true);
});

/** POSTs in pieces, without Content-Length; resolves with the status. */
function chunked(url: string, key: string, pieces: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/v1/events`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    });
    sent.once('response', (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    sent.once('error', reject);
    for (const piece of pieces) sent.write(piece);
    sent.end();
  });
}

test('a revoked key is refused within two seconds, and a new one is taken', async () => {
  const edge = await startEdge();
  const { key, id } = await newKey();
  const body = JSON.stringify(event('revoke-1'));
  await until('the new key is taken', async () => (await post(edge.url, key, body)).status === 202, 2_000);
  await keys.delete(id);
  await until(
    'the revoked key is refused',
    async () => (await post(edge.url, key, body)).status === 401,
    2_000,
  );
});

test('another shard count or identity key than the deployment began with is refused at start', async () => {
  await startEdge();
  await expect(startEdge({ TALLYLINE_SHARDS: '3' })).rejects.toThrow(/TALLYLINE_SHARDS is 3 here.*with 2/);
  await expect(startEdge({ TALLYLINE_IDENTITY_KEY: 'f'.repeat(32) })).rejects.toThrow(
    /TALLYLINE_IDENTITY_KEY/,
  );
});

test('a full log answers 503, and the client keeps and repeats until there is room', async () => {
  const { key } = await newKey();
  const edge = await startEdge();
  const settings: { name: string; maxBytes: number }[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    const name = streamName(shard);
    const { config, state } = await link.jsm.streams.info(name);
    settings.push({ name, maxBytes: config.max_bytes });
    await link.jsm.streams.update(name, { ...config, max_bytes: state.bytes + 100 });
  }
  const refused = await post(edge.url, key, JSON.stringify(event('full-0')));
  expect(refused).toMatchObject({ status: 503, body: { code: 'log_full' } });
  expect(refused.headers.get('retry-after')).toBe('1');
  expect(refused.body['detail']).toContain('same ids');

  const client = new TallylineClient({
    url: edge.url,
    key,
    batchEventsMax: 50,
    attemptsMax: 100,
    backoffMaxMs: 50,
    retryAfterMaxMs: 20,
  });
  for (let at = 1; at <= 500; at++) {
    await client.record({ id: `full-${at}`, type: 't', subject: 's', data: { n: at } });
  }
  const flushed = client.flush();
  await until('the client has met the full log', () => client.stats.retried >= 10);
  for (const { name, maxBytes } of settings) {
    const { config } = await link.jsm.streams.info(name);
    await link.jsm.streams.update(name, { ...config, max_bytes: maxBytes });
  }
  await flushed;
  await client.close();
  expect(client.stats).toMatchObject({ accepted: 500, rejected: 0, buffered: 0 });
  const ids = await idsInLog();
  for (let at = 1; at <= 500; at++) expect(ids.has(`full-${at}`)).toBe(true);
});

/** Posts batches over several connections until told to stop; collects the ids of those answered 202. */
function load(url: string, key: string, prefix: string) {
  const acked: string[] = [];
  const statuses = new Map<string, number>();
  let going = true;
  let next = 0;
  const connection = async (): Promise<void> => {
    while (going) {
      const ids = Array.from({ length: 20 }, () => `${prefix}-${next++}`);
      const body = JSON.stringify(ids.map((id) => event(id)));
      let outcome: string;
      try {
        const answer = await post(url, key, body);
        outcome = String(answer.status);
        if (answer.status === 202) acked.push(...ids);
      } catch {
        outcome = 'no answer';
      }
      statuses.set(outcome, (statuses.get(outcome) ?? 0) + 1);
      if (outcome !== '202') await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const all = Promise.all(Array.from({ length: 8 }, connection));
  return {
    acked,
    statuses,
    stop: async () => {
      going = false;
      await all;
    },
  };
}

test('NATS killed under load: every acknowledged event is in the log, and the edge goes on after it', async () => {
  const { key } = await newKey();
  const edge = await startEdge();
  const running = load(edge.url, key, 'kill');
  for (let round = 0; round < 2; round++) {
    const before = running.acked.length;
    await until('there is load', () => running.acked.length > before + 1_000);
    const refused = running.statuses.get('503') ?? 0;
    await engines.nats.kill();
    await until('the edge says no', () => (running.statuses.get('503') ?? 0) > refused + 3);
    await until('it says so of itself', async () => (await fetch(`${edge.ops}/readyz`)).status === 503);
    await engines.nats.restart();
    const after = running.acked.length;
    await until('events are taken again', () => running.acked.length > after + 200);
  }
  await running.stop();
  await until('the edge is ready', async () => (await fetch(`${edge.ops}/readyz`)).status === 200);
  await until('the test is connected again', () => link.connected);
  const ids = await idsInLog();
  expect(running.acked.filter((id) => !ids.has(id))).toEqual([]);
  expect([...running.statuses.keys()].sort()).toEqual(['202', '503']);
});

test('SIGTERM under load: the edge ends by itself, and every acknowledged event is in the log', async () => {
  const { key } = await newKey();
  const edge = await startEdge();
  const running = load(edge.url, key, 'term');
  await until('there is load', () => running.acked.length > 1_000);
  edge.child.kill('SIGTERM');
  expect(await edge.exited).toBe(0);
  await running.stop();
  const ids = await idsInLog();
  expect(running.acked.filter((id) => !ids.has(id))).toEqual([]);
});

test('when too much is in flight, a sender is told before his body is read', async () => {
  const { key } = await newKey();
  const edge = await startEdge({ TALLYLINE_EDGE_REQUESTS_IN_FLIGHT_MAX: '1' });
  // A request that is let in and does not finish.
  const held = request(`${edge.url}/v1/events`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', 'content-length': '1000' },
  });
  held.on('error', () => undefined);
  held.write('[');
  const body = JSON.stringify(event('busy-1'));
  await until('the second is told to wait', async () => (await post(edge.url, key, body)).status === 503);
  held.destroy();
  await until('there is room again', async () => (await post(edge.url, key, body)).status === 202);
});
