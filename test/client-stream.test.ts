import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { TallylineClient, UnsentError, type ClientOptions, type Rejection } from '../client/index.ts';
import { isPortFree } from '../local/engines/ports.ts';
import { EdgeWorld, type RunningEdge } from './edge-world.ts';
import { until } from './until.ts';

// The client over the edge as a process and a real NATS, while these are killed.

const project = fileURLToPath(new URL('..', import.meta.url));
let world: EdgeWorld;

beforeAll(async () => {
  world = await EdgeWorld.start();
});
afterAll(() => world?.stop());
afterEach(() => world.endEdges());

const transports = ['websocket', 'http'] as const;

function newClient(edge: RunningEdge, key: string, options: Partial<ClientOptions> = {}): TallylineClient {
  return new TallylineClient({
    url: edge.url,
    key,
    transport: 'websocket',
    source: 'client',
    flushOnExit: false,
    backoffMaxMs: 200,
    attemptsMax: 1_000,
    ...options,
  });
}

const event = (id: string) => ({ id, type: 'llm.request', subject: 'cus_1', data: { tokens: 12 } });

/**
 * A port below those that the kernel gives to outgoing connections: while the edge is down, a client that looks for it
 * could otherwise be given its very port, and hold it.
 */
async function lastingPort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    if (await isPortFree(port)) return port;
  }
}

async function startEdge(): Promise<RunningEdge> {
  return world.edge({ TALLYLINE_EDGE_PORT: String(await lastingPort()) });
}

/** Kills the edge and starts another one at the same address. */
async function replaced(edge: RunningEdge, signal: 'SIGKILL' | 'SIGTERM'): Promise<RunningEdge> {
  edge.child.kill(signal);
  await edge.exited;
  return world.edge({ TALLYLINE_EDGE_PORT: String(edge.port) });
}

/** Every id stands in the log, and where one stands more than once it is the same event, which counts once. */
async function expectInLog(prefix: string, ids: readonly string[]): Promise<void> {
  const found = new Map<string, string>();
  for (const { id, identity, payload } of await world.events(prefix)) {
    const same = found.get(id) ?? `${identity} ${payload}`;
    expect(`${identity} ${payload}`).toBe(same);
    found.set(id, same);
  }
  expect(ids.filter((id) => !found.has(id))).toEqual([]);
  const known = new Set(ids);
  expect([...found.keys()].filter((id) => !known.has(id))).toEqual([]);
}

/** Records until told to stop. */
function load(client: TallylineClient, prefix: string) {
  const recorded: string[] = [];
  let going = true;
  const done = (async () => {
    while (going) {
      const ids = Array.from({ length: 25 }, (_, at) => `${prefix}${recorded.length + at}`);
      await Promise.all(ids.map((id) => client.record(event(id))));
      recorded.push(...ids);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  return {
    recorded,
    stop: async () => {
      going = false;
      await done;
    },
  };
}

test.each(transports)(
  '%s: what is accepted is in the log as it was recorded, its neighbours are told',
  async (transport) => {
    const { key } = await world.newKey();
    const edge = await startEdge();
    const rejections: Rejection[] = [];
    const client = newClient(edge, key, {
      transport,
      compress: true,
      onRejected: (one) => rejections.push(one),
    });
    const prefix = `whole-${transport}-`;
    const ids = Array.from({ length: 200 }, (_, at) => `${prefix}${at}`);
    for (const id of ids) await client.record(event(id));
    await client.record({ ...event(`${prefix}bad`), time: 'soon' });
    await client.record({
      ...event(`${prefix}exact`),
      time: new Date(Date.UTC(2026, 10, 20, 10)),
      data: { n: 123456789012345678n, text: 'ü€😀', on: true },
    });
    await client.close();
    expect(rejections).toMatchObject([{ event: { id: `${prefix}bad` }, code: 'time_not_rfc3339' }]);
    expect(client.stats).toMatchObject({ accepted: 201, rejected: 1, retried: 0, buffered: 0 });
    await expectInLog(prefix, [...ids, `${prefix}exact`]);
    const [exact] = await world.events(`${prefix}exact`);
    expect(exact).toMatchObject({
      source: 'client',
      timeMs: Date.UTC(2026, 10, 20, 10),
      fields: { n: '123456789012345678', text: 'ü€😀', on: 'true' },
    });
  },
);

test.each(transports)(
  '%s: the edge killed under load: every event is in the log in the end',
  async (transport) => {
    const { key } = await world.newKey();
    let edge = await startEdge();
    const client = newClient(edge, key, {
      transport,
      batchEventsMax: 50,
      flushIntervalMs: 5,
      bufferEventsMax: 5_000,
    });
    const prefix = `kill-${transport}-`;
    const running = load(client, prefix);
    for (let round = 0; round < 3; round++) {
      const { accepted } = client.stats;
      await until('events are accepted', () => client.stats.accepted > accepted + 500);
      edge = await replaced(edge, 'SIGKILL');
    }
    const { accepted } = client.stats;
    await until('events are accepted again', () => client.stats.accepted > accepted + 500);
    await running.stop();
    await client.close();
    expect(client.stats).toMatchObject({ accepted: running.recorded.length, rejected: 0, buffered: 0 });
    expect(client.stats.retried).toBeGreaterThan(0);
    if (transport === 'websocket') expect(client.stats.reconnects).toBeGreaterThanOrEqual(3);
    await expectInLog(prefix, running.recorded);
  },
);

test('the edge stopped under load: it sends its clients away, and nothing is lost', async () => {
  const { key } = await world.newKey();
  const edge = await startEdge();
  const client = newClient(edge, key, { batchEventsMax: 50, flushIntervalMs: 5, bufferEventsMax: 5_000 });
  const running = load(client, 'away-');
  await until('events are accepted', () => client.stats.accepted > 500);
  const next = await replaced(edge, 'SIGTERM');
  expect(await edge.exited).toBe(0);
  const { accepted } = client.stats;
  await until('events are accepted again', () => client.stats.accepted > accepted + 500);
  await running.stop();
  await client.close();
  expect(client.stats).toMatchObject({ accepted: running.recorded.length, rejected: 0, buffered: 0 });
  expect(next.child.exitCode).toBeNull();
  await expectInLog('away-', running.recorded);
});

test('NATS killed under load: the client holds what the edge refuses, and it is in the log in the end', async () => {
  const { key } = await world.newKey();
  const edge = await startEdge();
  const client = newClient(edge, key, { batchEventsMax: 50, flushIntervalMs: 5, bufferEventsMax: 5_000 });
  const running = load(client, 'nats-');
  await until('events are accepted', () => client.stats.accepted > 500);
  await world.engines.nats.kill();
  const { retried } = client.stats;
  await until('batches are refused', () => client.stats.retried > retried + 3);
  await world.engines.nats.restart();
  const { accepted } = client.stats;
  await until('events are accepted again', () => client.stats.accepted > accepted + 500);
  await running.stop();
  await client.close();
  expect(client.stats).toMatchObject({ accepted: running.recorded.length, rejected: 0, buffered: 0 });
  await until('the test is connected again', () => world.link.connected);
  await expectInLog('nats-', running.recorded);
});

test.each(transports)('%s: a key that is revoked is said, and its events stay', async (transport) => {
  const { key, id } = await world.newKey();
  const edge = await startEdge();
  const unsent: UnsentError[] = [];
  const client = newClient(edge, key, { transport, onUnsent: (error) => unsent.push(error) });
  await client.record(event('revoked-1'));
  await client.flush();
  await world.keys.delete(id);
  await until('the edge refuses it', async () => {
    await client.record(event('revoked-2'));
    return client.flush().then(
      () => false,
      (error: unknown) => error instanceof UnsentError,
    );
  });
  expect(unsent[0]).toMatchObject({ code: 'key_invalid' });
  expect(client.stats.buffered).toBeGreaterThan(0);
  await expect(client.close()).rejects.toMatchObject({ name: 'UnsentEventsError' });
});

test.each(transports)(
  '%s: a product with a spool and the edge, both killed while it records: a later product sends the rest',
  async (transport) => {
    const { key } = await world.newKey();
    let edge = await startEdge();
    const directory = join(world.engines.dir, `spool-${transport}`);
    const prefix = `spool-${transport}-`;
    const recorded: string[] = [];
    for (let round = 0; round < 4; round++) {
      const options = {
        url: edge.url,
        key,
        transport,
        source: 'client',
        spool: { directory },
        batchEventsMax: 20,
        flushIntervalMs: 2,
        bufferEventsMax: 200,
        backoffMaxMs: 50,
      };
      const program = `
        import { TallylineClient } from 'tallyline/client';
        const usage = new TallylineClient(${JSON.stringify(options)});
        for (let at = 0; ; at++) {
          const event = { id: '${prefix}${round}-' + at, type: 'llm.request', subject: 's', time: new Date(), data: { at } };
          await usage.record(event);
          console.log(event.id);
        }`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
        cwd: project,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let printed = '';
      child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
      const ended = new Promise((resolve) => child.once('close', resolve));
      await until('it has recorded', () => printed.length > 10_000 + 1_000 * round);
      if (round === 2) {
        // Without an edge the disk takes the rest.
        edge.child.kill('SIGKILL');
        const { length } = printed;
        await until('it has recorded more', () => printed.length > length + 10_000);
      }
      child.kill('SIGKILL');
      await ended;
      recorded.push(...printed.split('\n').slice(0, -1));
      if (round === 2) edge = await replaced(edge, 'SIGKILL');
    }
    const last = newClient(edge, key, { transport, spool: { directory } });
    await last.close();
    expect(last.stats.buffered).toBe(0);
    const inLog = await world.idsInLog();
    expect(recorded.length).toBeGreaterThan(1_000);
    expect(recorded.filter((id) => !inLog.has(id))).toEqual([]);
    const events = await world.events(prefix);
    const payloads = new Map(events.map(({ id, payload }) => [id, payload]));
    expect(events.filter(({ id, payload }) => payloads.get(id) !== payload)).toEqual([]);
  },
);
