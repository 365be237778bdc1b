import { request } from 'node:http';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { TallylineClient } from '../client/index.ts';
import { STREAM_PATH, SUBPROTOCOL_JSON } from '../contract/stream.ts';
import { streamName } from '../contract/subjects.ts';
import { EdgeWorld, post, usageEvent as event } from './edge-world.ts';
import { RawClient } from './raw-client.ts';
import { until } from './until.ts';

// What the edge promises, whoever sends and whatever happens to it or to NATS.

let world: EdgeWorld;

beforeAll(async () => {
  world = await EdgeWorld.start();
});
afterEach(() => world.endEdges());
afterAll(() => world?.stop());

test('an event is in the log when its 202 arrives, with everything it says', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge();
  const answer = await post(
    edge.url,
    key,
    JSON.stringify(
      event('whole-1', { time: '2026-11-20T10:00:00.250Z', data: { tokens: 1.5, model: 'm', on: true } }),
    ),
  );
  expect(answer).toMatchObject({ status: 202, body: { accepted: 1, rejected: [] } });

  expect(await world.events('whole-1')).toEqual([
    {
      id: 'whole-1',
      tenant: 'acme',
      source: 'test',
      type: 'llm.request',
      subject: 'cus_1',
      timeMs: Date.UTC(2026, 10, 20, 10, 0, 0, 250),
      timeGiven: true,
      identity: expect.stringMatching(/^[0-9a-f]{32}$/),
      payload: expect.stringMatching(/^[0-9a-f]{16}$/),
      fields: { tokens: '15e-1', model: 'm', on: 'true' },
    },
  ]);

  const health = await fetch(`${edge.url}/healthz`);
  expect(health.status).toBe(200);
  expect((await fetch(`${edge.ops}/readyz`)).status).toBe(200);
  const metrics = await (await fetch(`${edge.ops}/metrics`)).text();
  expect(metrics).toMatch(/tallyline_edge_events_accepted_total\{stage="ingest"\} 1\n/);
  expect(metrics).toMatch(/tallyline_edge_publish_seconds_count\{stage="ingest"\} 1\n/);
});

test('what is wrong with an event is said of that event, and its neighbours are counted', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge();
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
    // No meter was defined.
    unmatched: 2,
  });
  const lines = await post(
    edge.url,
    key,
    `${JSON.stringify(event('part-4'))}\n{"id": \n\n${JSON.stringify(event('part-5'))}\n`,
    { type: 'application/x-ndjson' },
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
  const ids = await world.idsInLog();
  expect(['part-1', 'part-3', 'part-4', 'part-5'].every((id) => ids.has(id))).toBe(true);
  expect(ids.has('part-2') || ids.has('part-6')).toBe(false);
});

test('a request that cannot be read or may not be sent is refused with its problem', async () => {
  const { key } = await world.newKey();
  const reader = await world.newKey(['read']);
  const edge = await world.edge({
    TALLYLINE_EDGE_BODY_BYTES_MAX: '4096',
    TALLYLINE_EDGE_BATCH_EVENTS_MAX: '3',
  });
  const codeOf = async (answer: Promise<{ status: number; body: Record<string, unknown> }>) => {
    const { status, body } = await answer;
    return [status, body['code']];
  };
  const one = JSON.stringify(event('never'));
  expect(await codeOf(post(edge.url, key, one, { type: 'text/plain' }))).toEqual([
    415,
    'content_type_unknown',
  ]);
  expect(await codeOf(post(edge.url, key, '{"id": "a",,}'))).toEqual([400, 'body_not_json']);
  const unreadable = await post(edge.url, key, '[{"id": "a"}, {"id": b}]');
  expect(unreadable.body['detail']).toContain('byte 21');
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
  expect((await world.idsInLog()).has('never')).toBe(true);
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
  const edge = await world.edge();
  const { key, id } = await world.newKey();
  const body = JSON.stringify(event('revoke-1'));
  await until('the new key is taken', async () => (await post(edge.url, key, body)).status === 202, 2_000);
  await world.keys.delete(id);
  await until(
    'the revoked key is refused',
    async () => (await post(edge.url, key, body)).status === 401,
    2_000,
  );
});

test('another shard count or identity key than the deployment began with is refused at start', async () => {
  await world.edge();
  await expect(world.edge({ TALLYLINE_SHARDS: '3' })).rejects.toThrow(/TALLYLINE_SHARDS is 3 here.*with 2/);
  await expect(world.edge({ TALLYLINE_IDENTITY_KEY: 'f'.repeat(32) })).rejects.toThrow(
    /TALLYLINE_IDENTITY_KEY/,
  );
});

test('a full log answers 503, and the client keeps and repeats until there is room', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge();
  const settings: { name: string; maxBytes: number }[] = [];
  for (let shard = 0; shard < world.shards; shard++) {
    const name = streamName(shard);
    const { config, state } = await world.link.jsm.streams.info(name);
    settings.push({ name, maxBytes: config.max_bytes });
    await world.link.jsm.streams.update(name, { ...config, max_bytes: state.bytes + 100 });
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
    const { config } = await world.link.jsm.streams.info(name);
    await world.link.jsm.streams.update(name, { ...config, max_bytes: maxBytes });
  }
  await flushed;
  await client.close();
  expect(client.stats).toMatchObject({ accepted: 500, rejected: 0, buffered: 0 });
  const ids = await world.idsInLog();
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
  const { key } = await world.newKey();
  const edge = await world.edge();
  const running = load(edge.url, key, 'kill');
  for (let round = 0; round < 2; round++) {
    const before = running.acked.length;
    await until('there is load', () => running.acked.length > before + 1_000);
    const refused = running.statuses.get('503') ?? 0;
    await world.engines.nats.kill();
    await until('the edge says no', () => (running.statuses.get('503') ?? 0) > refused + 3);
    await until('it says so of itself', async () => (await fetch(`${edge.ops}/readyz`)).status === 503);
    await world.engines.nats.restart();
    const after = running.acked.length;
    await until('events are taken again', () => running.acked.length > after + 200);
  }
  await running.stop();
  await until('the edge is ready', async () => (await fetch(`${edge.ops}/readyz`)).status === 200);
  await until('the test is connected again', () => world.link.connected);
  const ids = await world.idsInLog();
  expect(running.acked.filter((id) => !ids.has(id))).toEqual([]);
  expect([...running.statuses.keys()].sort()).toEqual(['202', '503']);
});

test('SIGTERM under load: the edge ends by itself, and every acknowledged event is in the log', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge();
  const running = load(edge.url, key, 'term');
  await until('there is load', () => running.acked.length > 1_000);
  edge.child.kill('SIGTERM');
  expect(await edge.exited).toBe(0);
  await running.stop();
  const ids = await world.idsInLog();
  expect(running.acked.filter((id) => !ids.has(id))).toEqual([]);
});

test('when too much is in flight, a sender is told before his body is read', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge({ TALLYLINE_EDGE_REQUESTS_IN_FLIGHT_MAX: '1' });
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

/** Of the edge's own metrics. */
async function gauge(ops: string, name: string): Promise<number> {
  const metrics = await (await fetch(`${ops}/metrics`)).text();
  return Number(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, 'm').exec(metrics)?.[1] ?? NaN);
}

const head = (key: string, length: number): string =>
  'POST /v1/events HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n' +
  `Authorization: Bearer ${key}\r\nContent-Length: ${length}\r\n\r\n`;

test('slow and silent clients are told or ended in time, and others do not notice', async () => {
  const { key } = await world.newKey();
  const [edge, strict] = await Promise.all([
    world.edge(),
    world.edge({ TALLYLINE_EDGE_BODY_SECONDS_MAX: '2' }),
  ]);
  const body = JSON.stringify(event('slow-1'));
  await until('the key is known', async () => (await post(strict.url, key, body)).status === 202);
  const clients: RawClient[] = [];
  const client = (port: number, text: string, everyMs = 0, more = ''): RawClient => {
    const made = new RawClient(port);
    made.send(text);
    if (everyMs > 0) made.keepSending(more, everyMs);
    clients.push(made);
    return made;
  };
  const silent = client(edge.port, '');
  const noEnd = client(edge.port, 'POST /v1/events HTTP/1.1\r\n', 500, 'X-More: 1\r\n');
  const noBody = client(edge.port, head(key, 100));
  const dripping = client(edge.port, head(key, 100_000), 100, ' ');
  // Fast enough to be let go on, for as long as a body may take.
  const long = client(strict.port, head(key, 1_000_000), 100, ' '.repeat(4_000));

  let slowest = 0;
  const answered = async (): Promise<void> => {
    const start = performance.now();
    expect((await post(edge.url, key, body)).status).toBe(202);
    slowest = Math.max(slowest, performance.now() - start);
  };
  await until(
    'all of them are ended',
    async () => {
      await answered();
      return clients.every(({ ended }) => ended !== null);
    },
    15_000,
  );
  for (const told of [noBody, dripping, long]) {
    expect(told.received).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/);
    expect(told.received).toContain('"code":"body_too_slow"');
    expect(told.received).toMatch(/\r\nConnection: close\r\n/);
  }
  expect(long.endedAfterMs).toBeLessThan(5_000);
  expect(Math.max(noBody.endedAfterMs, dripping.endedAfterMs)).toBeLessThan(10_000);
  expect([silent.received, noEnd.received]).toEqual(['', '']);
  expect(await gauge(edge.ops, 'tallyline_edge_requests_in_flight_count')).toBe(0);
  expect(slowest).toBeLessThan(2_000);
});

test('a client that goes away gives up its place; what is packed keeps it until it is settled', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge();
  await until('the key is known', async () => (await post(edge.url, key, '[]')).status === 202);
  const inFlight = (): Promise<number> => gauge(edge.ops, 'tallyline_edge_requests_in_flight_count');

  const half = new RawClient(edge.port);
  half.send(`${head(key, 1_000)}[`);
  await until('half a body is there', async () => (await inFlight()) === 1);
  half.destroy();
  await until('its place is free', async () => (await inFlight()) === 0);

  const body = JSON.stringify(event('gone-1'));
  const goOn = await world.pauseNats();
  try {
    const whole = new RawClient(edge.port);
    whole.send(head(key, body.length) + body);
    await until('a body is in', async () => (await inFlight()) === 1);
    const connections = (): Promise<number> => gauge(edge.ops, 'tallyline_edge_open_connections');
    const before = await connections();
    whole.destroy();
    await until('the edge has noticed', async () => (await connections()) < before);
    expect(await inFlight()).toBe(1);
  } finally {
    goOn();
  }
  await until('it is settled', async () => (await inFlight()) === 0);
  expect((await world.idsInLog()).has('gone-1')).toBe(true);
});

test('whoever sends and does not read is cut off, and what is held for him is counted', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge({
    TALLYLINE_EDGE_BATCH_EVENTS_MAX: '20000',
    TALLYLINE_EDGE_BODY_BYTES_MAX: '16777216',
  });
  await until('the key is known', async () => (await post(edge.url, key, '[]')).status === 202);
  const rss = (): Promise<number> => gauge(edge.ops, 'tallyline_process_resident_memory_bytes');
  const before = await rss();

  // Requests that cost nothing and have a long answer, one after the other, no key needed.
  const flood = new RawClient(edge.port, { reading: false });
  flood.keepSending('GET /openapi.json HTTP/1.1\r\nHost: edge\r\n\r\n', 1);
  // An answer of many megabytes, for a request that was let in.
  const name = 'x'.repeat(120);
  const bad = Array.from({ length: 20_000 }, (_, at) => event(String(at).padEnd(256, '-'), { [name]: 1 }));
  const body = JSON.stringify(bad);
  const unread = new RawClient(edge.port, { reading: false });
  unread.send(head(key, body.length) + body);
  await until('the answer is held', async () => {
    return (await gauge(edge.ops, 'tallyline_edge_requests_in_flight_bytes')) > body.length;
  });
  // The same, read: all of it comes.
  const read = await post(edge.url, key, body);
  expect(read.status).toBe(422);
  expect((read.body['rejected'] as object[]).length).toBe(20_000);

  await until('the one is cut off', () => flood.ended !== null);
  const inFlight = async (): Promise<number[]> => [
    await gauge(edge.ops, 'tallyline_edge_requests_in_flight_count'),
    await gauge(edge.ops, 'tallyline_edge_requests_in_flight_bytes'),
  ];
  // It has seven seconds to read on. A client that does not read sees no end of its connection.
  await until('and the other', async () => (await inFlight())[0] === 0);
  expect(await inFlight()).toEqual([0, 0]);
  unread.destroy();
  expect((await rss()) - before).toBeLessThan(300_000_000);
});

// What a client does is drawn; a failure can be run again with the seed that it prints.
const SEED = Number(process.env['SEED'] ?? '') || Date.now() % 1_000_000;

test(`whatever clients send and whenever they go, nothing stays reserved (SEED=${SEED})`, async () => {
  let state = SEED;
  const below = (bound: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return Math.floor((state / 0x8000_0000) * bound);
  };
  const { key } = await world.newKey();
  const edge = await world.edge({ TALLYLINE_EDGE_BODY_BYTES_MAX: '100000' });
  await until('the key is known', async () => (await post(edge.url, key, '[]')).status === 202);
  const json = JSON.stringify([event('chaos-1'), event('chaos-2', { type: 7 })]);
  const bodies = [
    json,
    json.slice(0, 40),
    '',
    `[${' '.repeat(90_000)}]`,
    'x'.repeat(120_000),
    '{"a":'.repeat(9_000),
  ];
  const extras = [
    '',
    'Content-Encoding: gzip\r\n',
    'ce-specversion: 1.0\r\nce-id: a\r\n',
    'Connection: close\r\n',
  ];
  const types = ['application/json', 'application/x-ndjson', 'application/msgpack', 'text/plain'];
  const request = (): string => {
    const body = bodies[below(bodies.length)]!;
    const path = ['/v1/events', '/api/v1/events', '/healthz', '/v1/stream'][below(8)] ?? '/v1/events';
    const fields =
      `POST ${path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer ${below(9) === 0 ? 'tl_no' : key}\r\n` +
      `Content-Type: ${types[below(6)] ?? types[0]}\r\n${extras[below(8)] ?? ''}`;
    if (below(3) > 0) return `${fields}Content-Length: ${body.length}\r\n\r\n${body}`;
    const [first, rest] = [body.slice(0, 7), body.slice(7)];
    const chunk = (text: string): string => (text === '' ? '' : `${text.length.toString(16)}\r\n${text}\r\n`);
    return `${fields}Transfer-Encoding: chunked\r\n\r\n${chunk(first)}${chunk(rest)}0\r\n\r\n`;
  };
  const clients: RawClient[] = [];
  for (let round = 0; round < 60; round++) {
    for (let at = 0; at < 10; at++) {
      const client = new RawClient(edge.port, { reading: below(6) > 0 });
      clients.push(client);
      const text = request();
      const cut = below(4) === 0 ? below(text.length) : text.length;
      client.send(text.slice(0, cut));
      if (below(4) === 0) client.send(request());
    }
    for (let gone = 0; gone < 6; gone++) clients[below(clients.length)]!.destroy();
    await post(edge.url, key, json);
  }
  for (const client of clients) client.destroy();
  await until('nothing is under way', async () => {
    return (await gauge(edge.ops, 'tallyline_edge_requests_in_flight_count')) === 0;
  });
  expect(await gauge(edge.ops, 'tallyline_edge_requests_in_flight_bytes')).toBe(0);
  expect(await post(edge.url, key, json)).toMatchObject({ status: 202, body: { accepted: 1 } });
  expect(edge.child.exitCode).toBeNull();
});

test('more connections than allowed are closed, and one that leaves makes room', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge({ TALLYLINE_EDGE_CONNECTIONS_MAX: '4' });
  await until('the key is known', async () => (await post(edge.url, key, '[]')).status === 202);
  const connections = (): Promise<number> => gauge(edge.ops, 'tallyline_edge_open_connections');
  // Streams count, and are forgotten when they end.
  for (let round = 0; round < 2; round++) {
    const streams = [1, 2].map(
      () =>
        new WebSocket(`${edge.url.replace('http', 'ws')}${STREAM_PATH}`, SUBPROTOCOL_JSON, {
          headers: { authorization: `Bearer ${key}` },
        }),
    );
    await until('they are open', () => streams.every(({ readyState }) => readyState === WebSocket.OPEN));
    expect(await connections()).toBeGreaterThanOrEqual(2);
    for (const stream of streams) stream.close();
    await until('they are closed', () => streams.every(({ readyState }) => readyState === WebSocket.CLOSED));
  }
  // The one of `fetch` above stays for a while.
  await until('they are forgotten', async () => (await connections()) <= 1);
  const kept = await connections();
  const request = 'GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n';
  const inside: RawClient[] = [];
  for (let at = kept; at < 4; at++) {
    const client = new RawClient(edge.port);
    client.send(request);
    await until('it is answered', () => client.received.includes('alive'));
    inside.push(client);
  }
  const outside = new RawClient(edge.port);
  outside.send(request);
  await until('it is closed', () => outside.ended !== null);
  expect(outside.received).toBe('');
  inside[0]!.destroy();
  await until('there is room', async () => {
    const next = new RawClient(edge.port);
    next.send(request);
    await until('it is answered or closed', () => next.ended !== null || next.received.includes('alive'));
    next.destroy();
    return next.received.includes('alive');
  });
});

test('SIGTERM: what is inside is answered, who is told to go goes, and nobody is cut off', async () => {
  const { key } = await world.newKey();
  const edge = await world.edge();
  const body = JSON.stringify(event('stop-1'));
  const whole = head(key, body.length) + body;
  await until('the key is known', async () => (await post(edge.url, key, body)).status === 202);
  const open = async (): Promise<RawClient> => {
    const client = new RawClient(edge.port);
    client.send(whole);
    await until('it is answered', () => client.answers(202) === 1);
    return client;
  };
  const idle = await Promise.all(Array.from({ length: 20 }, open));
  const [inside, next, coming] = await Promise.all([open(), open(), open()]);

  const goOn = await world.pauseNats();
  try {
    inside.send(whole);
    coming.send(`${head(key, 1_000)}[`);
    const inFlight = (): Promise<number> => gauge(edge.ops, 'tallyline_edge_requests_in_flight_count');
    await until('they are in', async () => (await inFlight()) === 2);
    edge.child.kill('SIGTERM');
    await until('it stops', async () => (await fetch(`${edge.ops}/readyz`)).status === 503);
    await until('no new connection is taken', async () => {
      const late = new RawClient(edge.port);
      await until('it is refused or answered', () => late.ended !== null || late.isConnected);
      const { ended } = late;
      late.destroy();
      return ended !== null;
    });
    // On a connection that was there before.
    next.send(whole);
    await until('it is refused', () => next.answers(503) === 1);
    expect(next.received).toContain('"code":"edge_stopping"');
  } finally {
    goOn();
  }
  expect(await edge.exited).toBe(0);
  expect(inside.answers(202)).toBe(2);
  expect(coming.answers(503)).toBe(1);
  for (const client of [inside, next, coming]) expect(client.received).toMatch(/\r\nConnection: close\r\n/);
  await until('all know', () => [...idle, inside, next, coming].every(({ ended }) => ended !== null));
  expect([...idle, inside, next, coming].map(({ ended }) => ended)).toEqual(Array(23).fill('closed'));
});
