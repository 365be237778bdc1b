import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { SUBPROTOCOL_JSON, type ServerMessage, type StreamBatch } from '../contract/stream.ts';
import { until } from './until.ts';

// What the client does at the end of a process, from the build, as a product imports it. The edge is one of this test:
// it takes everything, or what the test says.

const project = fileURLToPath(new URL('..', import.meta.url));
const children: ChildProcess[] = [];
let server: Server;
let sockets: WebSocketServer;
let url = '';
/** Every id that was acknowledged. */
const ids = new Set<string>();
let status = 202;
/** Answers that the test gives when it likes. */
let held: (() => void)[] | null = null;

beforeAll(async () => {
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const events = JSON.parse(Buffer.concat(chunks).toString()) as { id: string }[];
      const answer = (): void => answerHttp(response, events);
      if (held === null) answer();
      else held.push(answer);
    });
  });
  sockets = new WebSocketServer({ server, handleProtocols: () => SUBPROTOCOL_JSON });
  sockets.on('connection', (socket) => {
    const say = (message: ServerMessage): void => socket.send(JSON.stringify(message));
    const limits = { batchEvents: 1_000, frameBytes: 1_000_000, idleSeconds: 60 };
    say({ type: 'welcome', credit: { batches: 4, bytes: 4_000_000 }, limits });
    socket.on('message', (data: Buffer) => {
      const { batch, events } = JSON.parse(data.toString()) as StreamBatch;
      for (const { id } of events as { id: string }[]) ids.add(id);
      say({ type: 'ack', batch, accepted: events.length, rejected: [] });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  for (const socket of sockets.clients) socket.terminate();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});
beforeEach(() => {
  ids.clear();
  status = 202;
  held = null;
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await closed;
  }
});

function answerHttp(response: ServerResponse, events: readonly { readonly id: string }[]): void {
  if (status === 202) for (const { id } of events) ids.add(id);
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(
    JSON.stringify(status === 202 ? { accepted: events.length, rejected: [] } : { code: 'log_full' }),
  );
}

interface Product {
  readonly child: ChildProcess;
  readonly lines: string[];
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>;
}

/** A product: `usage` is its client, made with the options. */
function product(options: object, code: string): Product {
  const program = `
    import { TallylineClient } from 'tallyline/client';
    const usage = new TallylineClient(${JSON.stringify({ url, key: 'k', ...options })});
    const event = (id) => ({ id, type: 't', subject: 's' });
    ${code}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: project,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  const lines: string[] = [];
  let rest = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
  });
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = new Promise<Awaited<Product['ended']>>((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, stderr })),
  );
  return { child, lines, ended };
}

const transports = ['http', 'websocket'] as const;
/** Much longer than a process takes that waits for nothing. */
const far = 3_600_000;

test.each(transports)('%s: what is buffered when a process ends is sent first', async (transport) => {
  const { ended } = product(
    { transport, flushIntervalMs: far },
    `await usage.record(event('a')); usage.record(event('b'));`,
  );
  expect(await ended).toMatchObject({ code: 0, stderr: '' });
  expect([...ids]).toEqual(['a', 'b']);
});

test('not when it was told not to', async () => {
  const { ended } = product({ flushIntervalMs: far, flushOnExit: false }, `await usage.record(event('a'));`);
  expect(await ended).toMatchObject({ code: 0 });
  expect([...ids]).toEqual([]);
});

test.each(transports)('%s: an idle client does not keep its process alive', async (transport) => {
  const { ended } = product(
    { transport, heartbeatMs: far },
    `await usage.record(event('a')); await usage.flush(); console.log('flushed');`,
  );
  expect(await ended).toMatchObject({ code: 0, stderr: '' });
  expect([...ids]).toEqual(['a']);
});

test.each(transports)('%s: a process does not end while somebody waits for a flush', async (transport) => {
  status = 503;
  // Nothing but timers stands between two attempts.
  const { ended, lines } = product(
    { transport, attemptsMax: 3, backoffBaseMs: 100 },
    `await usage.record(event('a'));
     console.log(await usage.flush().then(() => 'sent', (error) => error.name));`,
  );
  expect(await ended).toMatchObject({ code: 0 });
  expect(lines).toEqual([transport === 'http' ? 'UnsentError' : 'sent']);
});

test('an edge that is away holds the end of a process back for as long as it may, and this is said', async () => {
  status = 503;
  const { ended } = product(
    { exitTimeoutMs: 300, backoffBaseMs: 10_000, attemptsMax: 100 },
    `await usage.record(event('a'));`,
  );
  const { code, stderr } = await ended;
  expect(code).toBe(0);
  expect(stderr).toMatch(/TallylineWarning: at the end of the process: not within 300 ms/);
});

test('what was rejected and told to nobody is said at the end', async () => {
  status = 400;
  const { ended } = product({}, `await usage.record(event('a'));`);
  const { code, stderr } = await ended;
  expect(code).toBe(0);
  expect(stderr).toMatch(/TallylineWarning: .*1 events were refused; the first: log_full/);
});

test('signals are not touched', async () => {
  const { child, lines, ended } = product(
    { flushIntervalMs: far },
    `await usage.record(event('a')); console.log('ready'); setInterval(() => {}, 1000);`,
  );
  await until('it is ready', () => lines.length === 1);
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ code: null, signal: 'SIGTERM' });
  expect([...ids]).toEqual([]);
});

test.each(['SIGTERM', 'SIGINT'] as const)(
  'with handleSignals a %s sends what is buffered, and then ends the process as it would have',
  async (signal) => {
    const { child, lines, ended } = product(
      { flushIntervalMs: far, handleSignals: true },
      `await usage.record(event('a')); console.log('ready'); setInterval(() => {}, 1000);`,
    );
    await until('it is ready', () => lines.length === 1);
    child.kill(signal);
    expect(await ended).toMatchObject({ code: null, signal, stderr: '' });
    expect([...ids]).toEqual(['a']);
  },
);

test('where the product listens too, it decides what becomes of its process', async () => {
  const { child, lines, ended } = product(
    { flushIntervalMs: far, handleSignals: true },
    `process.on('SIGTERM', () => console.log('told'));
     await usage.record(event('a')); console.log('ready');
     const timer = setInterval(() => { if (usage.stats.accepted === 1) { clearInterval(timer); process.exitCode = 7; } }, 5);`,
  );
  await until('it is ready', () => lines.length === 1);
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ code: 7, signal: null });
  expect(lines).toEqual(['ready', 'told']);
  expect([...ids]).toEqual(['a']);
});

test('a second signal does not wait', async () => {
  held = [];
  const { child, lines, ended } = product(
    { flushIntervalMs: far, handleSignals: true },
    `await usage.record(event('a')); console.log('ready'); setInterval(() => {}, 1000);`,
  );
  await until('it is ready', () => lines.length === 1);
  child.kill('SIGTERM');
  await until('the request came', () => held!.length === 1);
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ signal: 'SIGTERM' });
});

test('a product that uses HTTP does not load ws', async () => {
  const { ended, lines } = product(
    {},
    `import module from 'node:module';
     await usage.record(event('a')); await usage.close();
     console.log(Object.keys(module._cache).filter((path) => path.includes('/ws/')).length);`,
  );
  await ended;
  expect(lines).toEqual(['0']);
});

test.each(transports)(
  '%s: killed again and again while it records: every event that record had resolved for is sent, by a later one',
  async (transport) => {
    const directory = mkdtempSync(join(tmpdir(), 'tallyline-killed-'));
    try {
      const recorded: string[] = [];
      const rounds = 6;
      for (let round = 0; round < rounds; round++) {
        // Away in every second round, so that the disk fills and is read again.
        status = round % 2 === 0 ? 202 : 503;
        const { child, lines, ended } = product(
          {
            transport,
            spool: { directory, sync: round % 3 === 0 ? 'each' : 'interval' },
            batchEventsMax: 20,
            flushIntervalMs: 5,
            bufferEventsMax: 100,
            backoffMaxMs: 20,
          },
          `for (let at = 0; ; at++) {
             const id = '${round}-' + at;
             await usage.record(event(id));
             console.log(id);
           }`,
        );
        const enough = 200 + 97 * round;
        await until('it has recorded', () => lines.length >= enough || child.exitCode !== null);
        child.kill('SIGKILL');
        expect(await ended).toMatchObject({ signal: 'SIGKILL', stderr: '' });
        recorded.push(...lines);
      }
      status = 202;
      const last = product(
        { transport, spool: { directory } },
        `await usage.close(); console.log('closed');`,
      );
      expect(await last.ended).toMatchObject({ code: 0, stderr: '' });
      expect(last.lines).toEqual(['closed']);
      expect(recorded.filter((id) => !ids.has(id))).toEqual([]);
      expect(readdirSync(directory).filter((name) => !name.startsWith('lock-'))).toEqual([]);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  },
);
