import { once } from 'node:events';
import { Packr, unpack } from 'msgpackr';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { CLOSE_CODES, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, type CloseName } from '../contract/stream.ts';
import { EdgeWorld, type RunningEdge } from './edge-world.ts';
import { until } from './until.ts';

// The stream as a plain WebSocket client meets it: its messages, and what ends a connection.

let world: EdgeWorld;
beforeAll(async () => {
  world = await EdgeWorld.start();
});
afterEach(() => world.endEdges());
afterAll(() => world?.stop());

type Message = Record<string, unknown>;

interface Client {
  readonly socket: WebSocket;
  readonly messages: Message[];
  /** Close code and reason. */
  readonly closed: Promise<{ code: number; reason: string }>;
  message(type: string, batch?: number): Promise<Message>;
}

/** An edge hears of a new key a moment after it was made. */
async function connect(edge: RunningEdge, key: string, protocol = SUBPROTOCOL_JSON): Promise<Client> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    try {
      return await connectOnce(edge, key, protocol);
    } catch (error) {
      if (performance.now() > deadline || !String(error).includes('401')) throw error;
    }
  }
}

async function connectOnce(edge: RunningEdge, key: string, protocol: string): Promise<Client> {
  const socket = new WebSocket(`${edge.url.replace('http', 'ws')}/v1/stream`, protocol, {
    headers: { authorization: `Bearer ${key}` },
  });
  const messages: Message[] = [];
  socket.on('message', (data: Buffer, isBinary: boolean) => {
    messages.push((isBinary ? unpack(data) : JSON.parse(data.toString())) as Message);
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) =>
    socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })),
  );
  await once(socket, 'open');
  const client: Client = {
    socket,
    messages,
    closed,
    async message(type, batch) {
      const find = (): Message | undefined =>
        messages.find((one) => one['type'] === type && (batch === undefined || one['batch'] === batch));
      await until(`a message ${type}`, () => find() !== undefined);
      return find()!;
    },
  };
  await client.message('welcome');
  return client;
}

const event = (id: string, more: object = {}): object => ({
  id,
  source: 'test',
  type: 'llm.request',
  subject: 'cus_1',
  data: { tokens: 12 },
  ...more,
});

const packr = new Packr({ useRecords: false });

test.each([
  ['JSON', SUBPROTOCOL_JSON, (batch: object) => JSON.stringify(batch)],
  ['msgpack', SUBPROTOCOL_MSGPACK, (batch: object) => packr.pack(batch)],
])(
  '%s: an acknowledged batch is in the log, with its rejections told by index',
  async (name, protocol, encode) => {
    const edge = await world.edge();
    const { key } = await world.newKey();
    const client = await connect(edge, key, protocol);
    const ids = [`${name}-1`, `${name}-2`];
    client.socket.send(
      encode({ batch: 7, events: [event(ids[0]!), event('bad', { subject: 3 }), event(ids[1]!)] }),
    );
    expect(await client.message('ack', 7)).toMatchObject({
      accepted: 2,
      rejected: [{ index: 1, id: 'bad', code: 'field_not_text' }],
    });
    const inLog = await world.idsInLog();
    expect(ids.filter((id) => !inLog.has(id))).toEqual([]);
    expect(inLog.has('bad')).toBe(false);
    // A body that is refused as a whole is answered, and the stream goes on.
    client.socket.send(encode({ batch: 8, events: 5 }));
    expect(await client.message('ack', 8)).toMatchObject({
      accepted: 0,
      rejected: [{ code: 'event_not_an_object' }],
    });
    client.socket.send(encode({ batch: 8, events: [event(`${name}-3`)] }));
    await until(
      'the number is free again',
      () => client.messages.filter(({ batch }) => batch === 8).length === 2,
    );
    client.socket.close();
  },
);

test.each<[CloseName, (client: Client) => void]>([
  ['frame_type_wrong', ({ socket }) => socket.send(Buffer.from('{"batch":1,"events":[]}'))],
  ['frame_malformed', ({ socket }) => socket.send('{"events":[]}')],
  [
    'batch_in_use',
    ({ socket }) => {
      for (const id of ['in-use-1', 'in-use-2'])
        socket.send(JSON.stringify({ batch: 1, events: [event(id)] }));
    },
  ],
  [
    'credit_exceeded',
    ({ socket }) => {
      for (let batch = 0; batch < 50; batch++) {
        socket.send(JSON.stringify({ batch, events: [event(`credit-${batch}`)] }));
      }
    },
  ],
])('%s ends the stream with its code, and no other', async (name, misuse) => {
  const edge = await world.edge({ TALLYLINE_EDGE_STREAM_CREDIT_BATCHES: '4' });
  const { key } = await world.newKey();
  const [client, other] = [await connect(edge, key), await connect(edge, key)];
  // No batch is done before the next one comes.
  const resumeNats = await world.pauseNats();
  try {
    misuse(client);
    expect(await client.closed).toMatchObject({
      code: CLOSE_CODES[name].code,
      reason: expect.stringContaining(name) as string,
    });
  } finally {
    resumeNats();
  }
  other.socket.send(JSON.stringify({ batch: 1, events: [event(`beside-${name}`)] }));
  expect(await other.message('ack', 1)).toMatchObject({ accepted: 1 });
  other.socket.close();
});

test('a frame beyond the limit ends the stream before it is held in memory', async () => {
  const edge = await world.edge({ TALLYLINE_EDGE_STREAM_FRAME_BYTES_MAX: '65536' });
  const { key } = await world.newKey();
  const client = await connect(edge, key);
  client.socket.on('error', () => undefined);
  client.socket.send(`{"batch":1,"events":[${' '.repeat(65_536)}]}`);
  expect([1006, 1009]).toContain((await client.closed).code);
});

test('a revoked key takes its open streams with it, and those of other keys stay', async () => {
  const edge = await world.edge();
  const [revoked, kept] = [await world.newKey(), await world.newKey()];
  const [client, other] = [await connect(edge, revoked.key), await connect(edge, kept.key)];
  await world.keys.delete(revoked.id);
  expect((await client.closed).code).toBe(CLOSE_CODES.key_invalid.code);
  other.socket.send(JSON.stringify({ batch: 1, events: [event('kept')] }));
  expect(await other.message('ack', 1)).toMatchObject({ accepted: 1 });
  other.socket.close();
});

test('an edge that stops says goaway, answers what is under way, and closes with 1001', async () => {
  const edge = await world.edge();
  const { key } = await world.newKey();
  const client = await connect(edge, key);
  client.socket.send(JSON.stringify({ batch: 1, events: [event('before-the-end')] }));
  await client.message('ack', 1);
  edge.child.kill('SIGTERM');
  await client.message('goaway');
  expect((await client.closed).code).toBe(CLOSE_CODES.going_away.code);
  expect(await edge.exited).toBe(0);
  expect((await world.idsInLog()).has('before-the-end')).toBe(true);
});

test.each([
  ['no key', {}, SUBPROTOCOL_JSON, 401],
  [
    'a wrong key',
    { authorization: 'Bearer tl_000000000000_000000000000000000000000000' },
    SUBPROTOCOL_JSON,
    401,
  ],
  ['no subprotocol of ours', null, 'mqtt', 400],
])('an upgrade with %s is refused with a status', async (_, headers, protocol, status) => {
  const edge = await world.edge();
  const { key } = await world.newKey();
  const socket = new WebSocket(`${edge.url.replace('http', 'ws')}/v1/stream`, protocol, {
    headers: headers ?? { authorization: `Bearer ${key}` },
  });
  socket.on('error', () => undefined);
  const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode: number }];
  expect(response.statusCode).toBe(status);
});
