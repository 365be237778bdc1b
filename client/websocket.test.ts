import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { WebSocketServer, type WebSocket } from 'ws';
import type { RejectedEvent } from '../contract/rejections.ts';
import {
  CLOSE_CODES,
  STREAM_PATH,
  SUBPROTOCOL_JSON,
  type CloseName,
  type ServerMessage,
  type StreamBatch,
} from '../contract/stream.ts';
import { until } from '../test/until.ts';
import {
  RejectedEventsError,
  TallylineClient,
  UnsentError,
  type ClientOptions,
  type Rejection,
} from './index.ts';

// The WebSocket transport against a server that is run by hand and speaks contract/stream.ts to the letter.

interface Credit {
  readonly batches: number;
  readonly bytes: number;
}
interface ServerLimits {
  readonly credit?: Credit;
  readonly batchEvents?: number;
  readonly frameBytes?: number;
}
interface Frame extends StreamBatch {
  readonly ids: readonly string[];
  readonly bytes: number;
}

/** One connection as the server sees it; holds the client to the protocol. */
class Peer {
  readonly frames: Frame[] = [];
  readonly authorization: string | undefined;
  readonly socket: WebSocket;
  closeCode: number | null = null;
  pings = 0;
  readonly broken: string[] = [];
  readonly #credit: Credit;
  readonly #open = new Map<number, number>();

  constructor(socket: WebSocket, authorization: string | undefined, credit: Credit) {
    this.socket = socket;
    this.authorization = authorization;
    this.#credit = credit;
    socket.on('ping', () => (this.pings += 1));
    socket.on('close', (code) => (this.closeCode = code));
    socket.on('message', (data: Buffer, isBinary) => {
      const text = data.toString();
      const { batch, events } = JSON.parse(text) as StreamBatch;
      if (isBinary) this.broken.push('a binary frame');
      if (this.#open.has(batch)) this.broken.push(`batch ${batch} is in use`);
      this.#open.set(batch, data.length);
      const bytes = [...this.#open.values()].reduce((sum, one) => sum + one, 0);
      if (this.#open.size > this.#credit.batches) this.broken.push(`${this.#open.size} batches`);
      if (bytes > this.#credit.bytes) this.broken.push(`${bytes} bytes under way`);
      const ids = (events as { id: string }[]).map(({ id }) => id);
      this.frames.push({ batch, events, ids, bytes: data.length });
    });
  }

  get underWay(): number {
    return this.#open.size;
  }

  say(message: ServerMessage): void {
    if (message.type === 'ack' || message.type === 'refused') this.#open.delete(message.batch);
    this.socket.send(JSON.stringify(message));
  }

  ack(frame: Frame, rejected: readonly RejectedEvent[] = []): void {
    const accepted = frame.events.length - rejected.length;
    this.say({ type: 'ack', batch: frame.batch, accepted, rejected });
  }

  refuse(frame: Frame, code: string, retry: boolean, retryAfterMs = 0): void {
    this.say({ type: 'refused', batch: frame.batch, code, message: `${code}!`, retry, retryAfterMs });
  }

  goAway(): void {
    this.say({ type: 'goaway', code: 'edge_stopping', message: 'this server is stopping' });
  }

  close(name: CloseName): void {
    this.socket.close(CLOSE_CODES[name].code, name);
  }
}

const ended: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ended.splice(0)) await end();
});

async function startServer(limits: ServerLimits = {}) {
  const { credit = { batches: 8, bytes: 1_000_000 }, batchEvents = 1_000, frameBytes = 1_000_000 } = limits;
  const peers: Peer[] = [];
  /** What the next upgrades are refused with. */
  const refusals: { status: number; headers?: Record<string, string>; body: unknown }[] = [];
  let upgrades = 0;
  const hooks: { onPeer: (peer: Peer) => void } = { onPeer: () => undefined };
  const http: Server = createServer();
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => SUBPROTOCOL_JSON });
  http.on('upgrade', (request, socket, head) => {
    upgrades += 1;
    socket.on('error', () => undefined);
    const refusal = refusals.shift();
    if (refusal !== undefined || request.url !== STREAM_PATH) {
      const { status, headers = {}, body } = refusal ?? { status: 404, body: {} };
      const text = JSON.stringify(body);
      const lines = Object.entries({ ...headers, 'content-length': String(text.length) });
      socket.end(
        `HTTP/1.1 ${status} No\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${text}`,
      );
      return;
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      const peer = new Peer(webSocket, request.headers.authorization, credit);
      webSocket.on('error', () => undefined);
      peer.say({ type: 'welcome', credit, limits: { batchEvents, frameBytes, idleSeconds: 3_600 } });
      hooks.onPeer(peer);
      peers.push(peer);
    });
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const { port } = http.address() as AddressInfo;
  const stop = async (): Promise<void> => {
    for (const { socket } of peers) socket.terminate();
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  };
  ended.push(stop);
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    peers,
    refusals,
    hooks,
    stop,
    get upgrades() {
      return upgrades;
    },
    /** The n-th connection, from 0, when it was made. */
    async peer(n: number): Promise<Peer> {
      await until(`connection ${n}`, () => peers.length > n);
      return peers[n]!;
    },
  };
}

/** Resolves with the first `count` frames of the connection, when they came. */
async function framesOf(peer: Peer, count: number): Promise<readonly Frame[]> {
  await until(`${count} frames`, () => peer.frames.length >= count);
  return peer.frames.slice(0, count);
}

let tokens = 0;
/** Resolves when the client has read all that was said to it so far, and we all that it said before. */
function heard(peer: Peer): Promise<void> {
  return new Promise((resolve) => {
    const token = `heard ${(tokens += 1)}`;
    peer.socket.on('pong', (data) => {
      if (data.toString() === token) resolve();
    });
    peer.socket.ping(token);
  });
}

/** Time passes when the test says so. */
function manualClock() {
  let now = 0;
  let timers: { readonly at: number; readonly run: () => void }[] = [];
  return {
    now: () => now,
    after(ms: number, run: () => void): () => void {
      const timer = { at: now + ms, run };
      timers.push(timer);
      return () => (timers = timers.filter((one) => one !== timer));
    },
    /** How long until each of the timers, in order. */
    get due(): readonly number[] {
      return timers.map(({ at }) => at - now).sort((a, b) => a - b);
    },
    advance(ms: number): void {
      const until = now + ms;
      for (;;) {
        const next = timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
        if (next === undefined) break;
        now = next.at;
        timers = timers.filter((one) => one !== next);
        next.run();
      }
      now = until;
    },
  };
}

function newClient(url: string, options: Partial<ClientOptions> = {}): TallylineClient {
  return new TallylineClient({
    url,
    key: 'tl_key',
    transport: 'websocket',
    batchEventsMax: 1,
    random: () => 0.5,
    flushOnExit: false,
    ...options,
  });
}

const event = (id: string) => ({ id, type: 't', subject: 's' });

async function record(client: TallylineClient, ...ids: string[]): Promise<void> {
  for (const id of ids) await client.record(event(id));
}

test('batches follow each other without waiting, and answers settle them in any order', async () => {
  const server = await startServer();
  const rejections: Rejection[] = [];
  const client = newClient(server.url, { onRejected: (one) => rejections.push(one) });
  await record(client, 'a', 'b', 'c');
  const flushed = client.flush();
  const peer = await server.peer(0);
  expect(peer.authorization).toBe('Bearer tl_key');
  const [a, b, c] = await framesOf(peer, 3);
  expect([a!.ids, b!.ids, c!.ids]).toEqual([['a'], ['b'], ['c']]);
  expect(a!.events).toEqual([event('a')]);
  peer.ack(c!);
  peer.ack(b!, [{ index: 0, id: 'b', code: 'time_too_old', message: 'm' }]);
  await until('two are settled', () => client.stats.buffered === 1);
  expect(client.stats).toMatchObject({ accepted: 1, rejected: 1 });
  peer.ack(a!);
  await flushed;
  expect(client.stats).toEqual({
    accepted: 2,
    rejected: 1,
    retried: 0,
    buffered: 0,
    dropped: 0,
    reconnects: 0,
  });
  expect(rejections).toEqual([{ event: event('b'), code: 'time_too_old', message: 'm', status: 422 }]);
  await client.close();
  await until('the connection is closed', () => peer.closeCode === 1000);
  expect(peer.broken).toEqual([]);
});

test('what has the right size is not split, and bigints and Unicode arrive as they are', async () => {
  const server = await startServer();
  const client = newClient(server.url, { batchEventsMax: 2 });
  await client.record({ id: 'ü€😀', type: 't', subject: 's', data: { n: 2n ** 70n } });
  await client.record(event('b'));
  const peer = await server.peer(0);
  const [frame] = await framesOf(peer, 1);
  expect(frame!.events).toEqual([
    { id: 'ü€😀', type: 't', subject: 's', data: { n: '1180591620717411303424' } },
    event('b'),
  ]);
  peer.ack(frame!);
  await client.flush();
});

test('a credit of one batch is one batch under way', async () => {
  const server = await startServer({ credit: { batches: 1, bytes: 1_000_000 } });
  const client = newClient(server.url);
  await record(client, 'a', 'b', 'c');
  const flushed = client.flush();
  const peer = await server.peer(0);
  for (let n = 0; n < 3; n++) {
    const frames = await framesOf(peer, n + 1);
    expect(peer.underWay).toBe(1);
    peer.ack(frames[n]!);
  }
  await flushed;
  expect(peer.broken).toEqual([]);
});

test('the credit in bytes holds too, to the byte', async () => {
  // {"batch":0,"events":[{"id":"a","type":"t","subject":"s"}]} has 58 bytes.
  const server = await startServer({ credit: { batches: 8, bytes: 116 } });
  const client = newClient(server.url);
  await record(client, 'a', 'b', 'c', 'd');
  const flushed = client.flush();
  const peer = await server.peer(0);
  const [a, b] = await framesOf(peer, 2);
  expect(a!.bytes).toBe(58);
  expect(peer.underWay).toBe(2);
  peer.ack(b!);
  peer.ack((await framesOf(peer, 3))[2]!);
  peer.ack((await framesOf(peer, 4))[3]!);
  peer.ack(a!);
  await flushed;
  expect(peer.broken).toEqual([]);
});

test('a batch beyond the limits of the server goes in smaller ones, and an event beyond them is rejected', async () => {
  const server = await startServer({ batchEvents: 2, frameBytes: 200 });
  const rejections: Rejection[] = [];
  const client = newClient(server.url, { batchEventsMax: 4, onRejected: (one) => rejections.push(one) });
  await record(client, 'a', 'b', 'x'.repeat(300), 'd');
  const flushed = client.flush();
  const peer = await server.peer(0);
  const [first] = await framesOf(peer, 1);
  peer.ack(first!);
  const second = (await framesOf(peer, 2))[1]!;
  peer.ack(second);
  await flushed;
  expect([first!.ids, second.ids]).toEqual([['a', 'b'], ['d']]);
  expect(rejections.map(({ code, status }) => [code, status])).toEqual([['batch_too_large', 413]]);
  expect(client.stats).toMatchObject({ accepted: 3, rejected: 1, reconnects: 0 });
});

test('a refusal that may be tried again is, with the same events, after the time and jitter', async () => {
  const server = await startServer();
  const clock = manualClock();
  const client = newClient(server.url, { clock });
  await record(client, 'a');
  const flushed = client.flush();
  const peer = await server.peer(0);
  const [first] = await framesOf(peer, 1);
  peer.refuse(first!, 'log_full', true, 2_000);
  await until('it waits', () => clock.due.includes(2_050));
  clock.advance(2_050);
  const second = (await framesOf(peer, 2))[1]!;
  expect(second.events).toEqual(first!.events);
  peer.ack(second);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 1, retried: 1, reconnects: 0 });
});

test('a refusal for good is reported for every event, and one about the key keeps them', async () => {
  const server = await startServer();
  const client = newClient(server.url, { batchEventsMax: 2 });
  await record(client, 'a', 'b');
  const peer = await server.peer(0);
  peer.refuse((await framesOf(peer, 1))[0]!, 'body_not_json', false);
  const refused = await client.flush().catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(RejectedEventsError);
  expect(
    (refused as RejectedEventsError).rejections.map(({ event: { id }, status }) => [id, status]),
  ).toEqual([
    ['a', 400],
    ['b', 400],
  ]);
  await record(client, 'c', 'd');
  peer.refuse((await framesOf(peer, 2))[1]!, 'scope_missing', false);
  await expect(client.flush()).rejects.toMatchObject({ name: 'UnsentError', code: 'scope_missing' });
  expect(client.stats).toMatchObject({ rejected: 2, buffered: 2 });
});

test('a connection lost between a batch and its answer: the same events come again on the next one', async () => {
  const server = await startServer();
  const clock = manualClock();
  const client = newClient(server.url, { clock });
  await record(client, 'a', 'b', 'c');
  const flushed = client.flush();
  const first = await server.peer(0);
  const [a, b, c] = await framesOf(first, 3);
  first.ack(b!);
  await until('one is settled', () => client.stats.accepted === 1);
  first.socket.terminate();
  await until('it waits before it connects', () => clock.due.includes(50));
  expect(server.peers).toHaveLength(1);
  clock.advance(50);
  const second = await server.peer(1);
  const again = await framesOf(second, 2);
  expect(again.map(({ events }) => events)).toEqual([a!.events, c!.events]);
  for (const frame of again) second.ack(frame);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 3, rejected: 0, retried: 2, buffered: 0, reconnects: 1 });
});

test('an edge that is not there is looked for again with growing waits, until the attempts are used up', async () => {
  const server = await startServer();
  await server.stop();
  const clock = manualClock();
  const unsent: UnsentError[] = [];
  const client = newClient(server.url, { clock, attemptsMax: 4, onUnsent: (error) => unsent.push(error) });
  await record(client, 'a', 'b');
  const flushed = client.flush().catch((error: unknown) => error);
  for (const wait of [50, 100, 200]) {
    await until(`a wait of ${wait} ms`, () => clock.due.includes(wait));
    clock.advance(wait);
  }
  const error = (await flushed) as UnsentError;
  expect(error).toBeInstanceOf(UnsentError);
  expect(error.message).toMatch(/2 events could not be sent yet: no connection to ws:.*ECONNREFUSED/);
  await until('both are back', () => unsent.length === 1 && client.stats.retried === 3);
  expect(client.stats).toMatchObject({ accepted: 0, buffered: 2, reconnects: 0 });
});

test('a server that takes connections and drops them is not called in a tight loop', async () => {
  const server = await startServer();
  server.hooks.onPeer = (peer) => peer.socket.on('message', () => peer.socket.terminate());
  const clock = manualClock();
  const client = newClient(server.url, { clock });
  await record(client, 'a');
  const flushed = client.flush().catch(() => undefined);
  for (const wait of [50, 100, 200, 400]) {
    await until(`a wait of ${wait} ms`, () => clock.due.includes(wait));
    clock.advance(wait);
  }
  const last = await server.peer(4);
  server.hooks.onPeer = () => undefined;
  await until('it waits again', () => clock.due.includes(800));
  clock.advance(800);
  const healthy = await server.peer(5);
  healthy.ack((await framesOf(healthy, 1))[0]!);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 1, retried: 5, reconnects: 5 });
  expect(last.frames).toHaveLength(1);
});

test.each([
  ['going_away', true],
  ['internal_error', true],
  ['reader_too_slow', true],
  ['key_invalid', false],
  ['credit_exceeded', false],
  ['batch_in_use', false],
  ['frame_malformed', false],
  ['frame_type_wrong', false],
  ['frame_too_large', false],
] as const)('closed with %s, another attempt is made: %s', async (name, retry) => {
  const server = await startServer();
  const clock = manualClock();
  const unsent: UnsentError[] = [];
  const client = newClient(server.url, { clock, onUnsent: (error) => unsent.push(error) });
  await record(client, 'a');
  const flushed = client.flush().catch((error: unknown) => error);
  const first = await server.peer(0);
  await framesOf(first, 1);
  first.close(name);
  if (retry) {
    await until('it waits', () => clock.due.includes(50));
    clock.advance(50);
    const second = await server.peer(1);
    second.ack((await framesOf(second, 1))[0]!);
    expect(await flushed).toBeUndefined();
    expect(client.stats).toMatchObject({ accepted: 1, retried: 1 });
    return;
  }
  const error = (await flushed) as UnsentError;
  expect(error).toMatchObject({ name: 'UnsentError', code: name, buffered: 1 });
  expect(error.message).toContain(CLOSE_CODES[name].reason);
  expect(unsent).toEqual([error]);
  expect(client.stats).toMatchObject({ accepted: 0, rejected: 0, retried: 0, buffered: 1 });
  // The events are kept: with the key in order they go with the next flush.
  const again = client.flush();
  await until('it waits', () => clock.due.includes(50));
  clock.advance(50);
  const second = await server.peer(1);
  second.ack((await framesOf(second, 1))[0]!);
  await again;
  expect(client.stats).toMatchObject({ accepted: 1, buffered: 0 });
});

test('an upgrade refused with 401 is said at once, and the events stay', async () => {
  const server = await startServer();
  const body = { code: 'key_invalid', detail: 'Check the key, or ask for a new one.' };
  server.refusals.push({ status: 401, body });
  const client = newClient(server.url);
  await record(client, 'a');
  await expect(client.flush()).rejects.toMatchObject({
    name: 'UnsentError',
    code: 'key_invalid',
    message: expect.stringContaining('Check the key') as string,
  });
  expect(server.upgrades).toBe(1);
  const again = client.flush();
  const peer = await server.peer(0);
  peer.ack((await framesOf(peer, 1))[0]!);
  await again;
});

test('an upgrade refused with 503 or 429 is tried again after its Retry-After', async () => {
  const server = await startServer();
  server.refusals.push({ status: 503, headers: { 'retry-after': '3' }, body: { code: 'edge_stopping' } });
  server.refusals.push({ status: 429, headers: { 'retry-after': '7' }, body: { code: 'too_many' } });
  const clock = manualClock();
  const client = newClient(server.url, { clock });
  await record(client, 'a');
  const flushed = client.flush();
  for (const wait of [3_050, 7_100]) {
    await until(`a wait of ${wait} ms`, () => clock.due.includes(wait));
    clock.advance(wait);
  }
  const peer = await server.peer(0);
  peer.ack((await framesOf(peer, 1))[0]!);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 1, retried: 2 });
});

test('goaway: what is under way is answered here, the rest goes over a new connection', async () => {
  const server = await startServer({ credit: { batches: 2, bytes: 1_000_000 } });
  const clock = manualClock();
  const client = newClient(server.url, { clock });
  await record(client, 'a', 'b', 'c');
  const flushed = client.flush();
  const first = await server.peer(0);
  const [a, b] = await framesOf(first, 2);
  first.goAway();
  first.ack(a!);
  await until('it waits before it connects', () => clock.due.includes(50));
  clock.advance(50);
  const second = await server.peer(1);
  const [c] = await framesOf(second, 1);
  expect(c!.ids).toEqual(['c']);
  second.ack(c!);
  await until('two are settled', () => client.stats.accepted === 2);
  expect(first.closeCode).toBeNull();
  first.ack(b!);
  await flushed;
  await until('the first one is closed', () => first.closeCode === 1000);
  expect(first.frames).toHaveLength(2);
  expect(client.stats).toMatchObject({ accepted: 3, retried: 0, reconnects: 1 });
});

test('servers that send us away one after the other are not called in a tight loop', async () => {
  const server = await startServer();
  const clock = manualClock();
  const client = newClient(server.url, { clock });
  for (const [at, wait] of [50, 100, 200].entries()) {
    await record(client, String(at));
    const peer = await server.peer(at);
    const [frame] = await framesOf(peer, 1);
    peer.goAway();
    await heard(peer);
    await record(client, 'x');
    await until('it waits before it connects', () => clock.due.includes(wait));
    // The answer of one that sends us away does not make the next one healthy.
    peer.ack(frame!);
    await until('it is settled', () => client.stats.accepted === at + 1);
    clock.advance(wait);
  }
  expect(server.peers.flatMap(({ broken }) => broken)).toEqual([]);
});

test('a connection that dies while it drains: its batches go over the new one', async () => {
  const server = await startServer();
  const client = newClient(server.url, { backoffBaseMs: 0 });
  await record(client, 'a');
  const flushed = client.flush();
  const first = await server.peer(0);
  await framesOf(first, 1);
  first.goAway();
  await heard(first);
  await record(client, 'b');
  const second = await server.peer(1);
  second.ack((await framesOf(second, 1))[0]!);
  first.socket.terminate();
  const again = (await framesOf(second, 2))[1]!;
  expect(again.ids).toEqual(['a']);
  second.ack(again);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 2, retried: 1, buffered: 0 });
});

test('a half-open connection is given up when not even a pong comes', async () => {
  const server = await startServer();
  const clock = manualClock();
  const client = newClient(server.url, { clock, heartbeatMs: 10_000, requestTimeoutMs: 90_000 });
  await record(client, 'a');
  const flushed = client.flush();
  const first = await server.peer(0);
  await framesOf(first, 1);
  // The peer is alive: pongs come, and the connection stays through many beats.
  for (let beat = 1; beat <= 3; beat++) {
    await until('the ping came', () => first.pings === beat);
    await heard(first);
    clock.advance(10_000);
  }
  expect(client.stats.retried).toBe(0);
  // Then it reads nothing more, and is not closed either.
  first.socket.pause();
  clock.advance(10_000);
  await until('it waits before it connects', () => clock.due.includes(50));
  clock.advance(50);
  const second = await server.peer(1);
  const [again] = await framesOf(second, 1);
  expect(again!.ids).toEqual(['a']);
  second.ack(again!);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 1, retried: 1, reconnects: 1 });
});

test('a batch without an answer ends the connection, even where pongs come', async () => {
  const server = await startServer();
  const clock = manualClock();
  const client = newClient(server.url, { clock, heartbeatMs: 10_000, requestTimeoutMs: 15_000 });
  await record(client, 'a');
  const flushed = client.flush();
  const first = await server.peer(0);
  await framesOf(first, 1);
  for (let beat = 1; beat <= 2; beat++) {
    await heard(first);
    clock.advance(10_000);
  }
  await until('it waits before it connects', () => clock.due.includes(50));
  clock.advance(50);
  const second = await server.peer(1);
  second.ack((await framesOf(second, 1))[0]!);
  await flushed;
});

test('a server that never says welcome is given up', async () => {
  const http = createServer();
  const sockets = new WebSocketServer({ server: http });
  let connections = 0;
  sockets.on('connection', () => (connections += 1));
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  ended.push(async () => {
    for (const socket of sockets.clients) socket.terminate();
    await new Promise((resolve) => http.close(resolve));
  });
  const clock = manualClock();
  const { port } = http.address() as AddressInfo;
  const client = newClient(`http://127.0.0.1:${port}`, { clock, attemptsMax: 1 });
  await record(client, 'a');
  const flushed = expect(client.flush()).rejects.toThrow(/no welcome within 30000 ms/);
  await until('it is connected', () => connections === 1);
  clock.advance(30_000);
  await flushed;
});

test.each([
  ['an answer to what was not asked', { type: 'ack', batch: 99, accepted: 1, rejected: [] }],
  ['an answer that does not add up', { type: 'ack', batch: 0, accepted: 2, rejected: [] }],
  ['a refusal without a code', { type: 'refused', batch: 0, retry: false }],
  ['nonsense', 'nonsense'],
])('after %s the events are sent again over another connection', async (_, message) => {
  const server = await startServer();
  const client = newClient(server.url, { backoffBaseMs: 0 });
  await record(client, 'a');
  const flushed = client.flush();
  const first = await server.peer(0);
  await framesOf(first, 1);
  first.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  const second = await server.peer(1);
  second.ack((await framesOf(second, 1))[0]!);
  await flushed;
  expect(client.stats).toMatchObject({ accepted: 1, retried: 1, reconnects: 1 });
});

test('a message of a later version of the protocol is passed over', async () => {
  const server = await startServer();
  const client = newClient(server.url);
  await record(client, 'a');
  const peer = await server.peer(0);
  const [frame] = await framesOf(peer, 1);
  peer.socket.send(JSON.stringify({ type: 'weather', sunny: true }));
  peer.ack(frame!);
  await client.flush();
  expect(client.stats).toMatchObject({ accepted: 1, reconnects: 0 });
});

test('close hands back what has no answer', async () => {
  const server = await startServer();
  const client = newClient(server.url, { attemptsMax: 1 });
  await record(client, 'a', 'b');
  const peer = await server.peer(0);
  const [a] = await framesOf(peer, 2);
  peer.ack(a!);
  await until('one is settled', () => client.stats.accepted === 1);
  const closed = client.close().catch((error: unknown) => error);
  peer.socket.terminate();
  expect(await closed).toMatchObject({ name: 'UnsentEventsError', events: [event('b')] });
});

test('whatever the server does, every event is in its log or reported once, and the protocol is kept', async () => {
  const acts = fc.constantFrom(
    'ack',
    'ack',
    'ack',
    'reject',
    'refuse',
    'refuse for good',
    'keep back',
    'keep and drop',
    'lose and drop',
    'goaway',
    'close',
  );
  await fc.assert(
    fc.asyncProperty(
      fc.infiniteStream(acts),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 4 }),
      async (stream, count, size, creditBatches) => {
        const server = await startServer({ credit: { batches: creditBatches, bytes: 400 } });
        const script = stream[Symbol.iterator]();
        const inLog = new Set<string>();
        server.hooks.onPeer = (peer) => {
          const kept: Frame[] = [];
          let seen = 0;
          peer.socket.on('message', () => {
            const frame = peer.frames[seen++]!;
            const take = (from = 0): void => frame.ids.slice(from).forEach((id) => inLog.add(id));
            switch (script.next().value) {
              case 'reject':
                take(1);
                return peer.ack(frame, [
                  { index: 0, id: frame.ids[0]!, code: 'field_missing', message: 'm' },
                ]);
              case 'refuse':
                return peer.refuse(frame, 'edge_busy', true, 1);
              case 'refuse for good':
                return peer.refuse(frame, 'body_not_json', false);
              case 'keep back':
                take();
                kept.push(frame);
                // Answered with the next one, after it; alone it would wait for ever.
                if (peer.underWay > 1) return;
                break;
              case 'keep and drop':
                take();
                return peer.socket.terminate();
              case 'lose and drop':
                return peer.socket.terminate();
              case 'goaway':
                take();
                peer.goAway();
                kept.push(frame);
                break;
              case 'close':
                return peer.close('internal_error');
              default:
                take();
                kept.unshift(frame);
            }
            for (const one of kept.splice(0)) peer.ack(one);
          });
        };
        const reported: string[] = [];
        const client = newClient(server.url, {
          batchEventsMax: size,
          batchBytesMax: 300,
          bufferEventsMax: 12,
          attemptsMax: 3,
          backoffBaseMs: 1,
          backoffMaxMs: 2,
          onRejected: ({ event: { id } }) => reported.push(id),
        });
        const ids = Array.from({ length: count }, (_, at) => `e${at}`);
        await record(client, ...ids);
        while (client.stats.buffered > 0) {
          await client.flush().catch((error: unknown) => {
            if (!(error instanceof UnsentError)) throw error;
          });
        }
        await client.close();
        expect(new Set([...inLog, ...reported])).toEqual(new Set(ids));
        expect(reported).toHaveLength(new Set(reported).size);
        expect(client.stats).toMatchObject({ accepted: count - reported.length, rejected: reported.length });
        expect(server.peers.flatMap(({ broken }) => broken)).toEqual([]);
        await server.stop();
        ended.length = 0;
      },
    ),
    { numRuns: 60 },
  );
});
