// What the fault harness breaks things with does what it says: a proxy that only delays would prove nothing of resets,
// and poison that can be decoded would be an event.
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { poisonFrom } from '../bench/faults/poison.ts';
import { Proxy } from '../bench/faults/proxy.ts';
import { seededRandom } from '../bench/faults/random.ts';
import { BlockBuilder } from '../contract/block-builder.ts';
import { BlockError, decodeBlock, messageKind } from '../contract/block.ts';
import { decodeMeterDefined } from '../contract/control.ts';
import { IdentityHasher } from '../contract/identity.ts';
import { MESSAGE_EVENTS, MESSAGE_METER } from '../contract/subjects.ts';
import { addAll, batchOf } from './event-batch.ts';
import { until } from './until.ts';

const SEED = Number(process.env['TALLYLINE_FAULTS_SEED'] ?? 20_261_121);

describe(`a proxy (seed ${SEED})`, () => {
  /** Answers with what it gets. */
  let server: Server;
  let proxy: Proxy;
  let serverSockets: Socket[];
  const clients: Socket[] = [];

  beforeEach(async () => {
    serverSockets = [];
    server = createServer((socket) => {
      serverSockets.push(socket);
      socket.on('error', () => {});
      socket.pipe(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    proxy = await Proxy.open((server.address() as { port: number }).port, seededRandom(SEED));
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await proxy.close();
    server.close();
  });

  interface Client {
    readonly socket: Socket;
    received(): Buffer;
    /** The error code with which it ended; '' for none. */
    readonly closed: Promise<string>;
  }

  async function dial(): Promise<Client> {
    const socket = connect(proxy.port, '127.0.0.1');
    clients.push(socket);
    const pieces: Buffer[] = [];
    let code = '';
    socket.on('data', (piece: Buffer) => pieces.push(piece));
    socket.on('error', (error: NodeJS.ErrnoException) => (code = error.code ?? ''));
    // Not events.once: it rejects with the error.
    const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(code)));
    await once(socket, 'connect');
    return { socket, received: () => Buffer.concat(pieces), closed };
  }

  const payload = Buffer.from(Array.from({ length: 50_000 }, (_, at) => (at * 31) % 251));

  test.each(['slow', 'sliced'] as const)('that is %s changes no byte and no order', async (fault) => {
    proxy.begin(fault);
    const client = await dial();
    client.socket.write(payload);
    await until('all of it came back', () => client.received().length === payload.length, 60_000);
    expect(client.received().equals(payload)).toBe(true);
  });

  test('that resets ends each connection with a reset, in the middle of what is under way', async () => {
    proxy.begin('resetting');
    for (let times = 0; times < 5; times++) {
      const client = await dial();
      client.socket.write(payload);
      client.socket.write(payload);
      expect(await client.closed).toMatch(/ECONNRESET|EPIPE/);
      expect(client.received().length).toBeLessThan(2 * payload.length);
    }
    expect(proxy.broken).toBe(5);
    proxy.end({ reset: false });
    const client = await dial();
    client.socket.write(payload);
    await until('it works again', () => client.received().length === payload.length, 60_000);
  });

  test('that is a black hole lets nothing by, and hands on what it held when it closes', async () => {
    const client = await dial();
    client.socket.write('before');
    await until('the way is open', () => client.received().toString() === 'before');
    proxy.begin('black hole');
    client.socket.write(' during');
    const late = await dial();
    late.socket.write('late');
    // Whatever could go by has had the chance: another way to the same server is open all the while.
    const aside = connect((server.address() as { port: number }).port, '127.0.0.1');
    clients.push(aside);
    aside.write('aside');
    await once(aside, 'data');
    expect(client.received().toString() + late.received().toString()).toBe('before');
    proxy.end({ reset: false });
    await until('it goes on', () => client.received().toString() === 'before during');
    await until('a new one too', () => late.received().toString() === 'late');
  });

  test('that is half open swallows what is sent, tells nobody, and takes new connections', async () => {
    const client = await dial();
    client.socket.write('before');
    await until('the way is open', () => client.received().toString() === 'before');
    proxy.begin('half open');
    await until('the far end is gone', () => serverSockets[0]!.destroyed);
    client.socket.write('into nowhere');
    const other = await dial();
    other.socket.write('other');
    await until('a new connection works', () => other.received().toString() === 'other');
    expect(client.received().toString()).toBe('before');
    expect(client.socket.destroyed).toBe(false);
    proxy.end({ reset: true });
    expect(await client.closed).toBe('ECONNRESET');
  });
});

test(`no decoder takes poison, in 2,000 of each kind (seed ${SEED})`, () => {
  const builder = new BlockBuilder();
  const hasher = new IdentityHasher('00112233445566778899aabbccddeeff');
  const events = Array.from({ length: 40 }, (_, at) => ({
    id: `event-${at}`,
    source: 'poison',
    type: `type-${at % 3}`,
    subject: `subject-${at % 7}`,
    time: '2026-11-20T10:00:00Z',
    data: { amount: at, model: `m${at % 2}` },
  }));
  addAll(builder, batchOf('tenant', events), hasher);
  const block = builder.finish(1_795_000_000_000);
  expect(decodeBlock(block).count).toBe(events.length);
  const random = seededRandom(SEED);
  for (let times = 0; times < 2_000; times++) {
    for (const { what, bytes } of poisonFrom(block, random)) {
      const kind = messageKind(bytes);
      if (kind === MESSAGE_EVENTS) expect(() => decodeBlock(bytes), what).toThrow(BlockError);
      else if (kind === MESSAGE_METER) expect(() => decodeMeterDefined(bytes), what).toThrow(BlockError);
    }
  }
});
