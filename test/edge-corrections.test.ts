import { once } from 'node:events';
import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';
import { Packr, unpack } from 'msgpackr';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { TallylineClient } from '../client/index.ts';
import { IdentityHasher, ShardRule, formatIdentity } from '../contract/identity.ts';
import { SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK } from '../contract/stream.ts';
import { EdgeWorld, IDENTITY_KEY, post, type LoggedEvent, type RunningEdge } from './edge-world.ts';
import { correctionOf, identityOf } from './event-batch.ts';
import { until } from './until.ts';

// Corrections through every door of a real edge into a real log: the same one says the same thing in each, and stands
// behind its original in the same shard.

const SHARDS = 5;
let world: EdgeWorld;
let edge: RunningEdge;
let key: string;

beforeAll(async () => {
  world = await EdgeWorld.start(SHARDS);
  edge = await world.edge();
  ({ key } = await world.newKey());
  await until('the key is known', async () => (await post(edge.url, key, '[]')).status === 202);
});
afterAll(() => world?.stop());

type Attributes = Readonly<Record<string, unknown>>;
/** Sends one event, and throws when it is not taken. */
type Door = (event: Attributes) => Promise<void>;

const packr = new Packr({ useRecords: false });
const versioned = (event: Attributes): Attributes => ({ specversion: '1.0', ...event });
const bytesOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

function over(type: string, body: (event: Attributes) => Uint8Array, path = '/v1/events'): Door {
  return async (event) => {
    const answer = await post(edge.url, key, body(event), { type, path });
    if (path === '/v1/events') expect(answer).toMatchObject({ status: 202, body: { accepted: 1 } });
    else expect(answer.status).toBe(204);
  };
}

function overStream(protocol: string, encode: (batch: object) => string | Uint8Array): Door {
  return async (event) => {
    const socket = new WebSocket(`${edge.url.replace('http', 'ws')}/v1/stream`, protocol, {
      headers: { authorization: `Bearer ${key}` },
    });
    const message = async (): Promise<unknown> => {
      const [data, isBinary] = (await once(socket, 'message')) as [Buffer, boolean];
      return isBinary ? unpack(data) : JSON.parse(data.toString());
    };
    expect(await message()).toMatchObject({ type: 'welcome' });
    socket.send(encode({ batch: 1, events: [event] }));
    expect(await message()).toMatchObject({ type: 'ack', accepted: 1 });
    socket.close();
  };
}

/** The SDK of CloudEvents, unchanged: attributes that it does not know are extensions to it. */
const overCloudEvents: Door = async (event) => {
  const emit = emitterFor(httpTransport(`${edge.url}/v1/events`), { mode: Mode.STRUCTURED });
  const headers = { authorization: `Bearer ${key}` };
  const { body } = (await emit(new CloudEvent(event), { headers })) as { body: string };
  expect(JSON.parse(body)).toMatchObject({ accepted: 1 });
};

/** By hand: the SDK percent-encodes no header field, and an event without data is none to it. */
const overHeaders: Door = async ({ data, ...attributes }) => {
  const fields = Object.entries(versioned(attributes)).map(
    ([name, value]) => [`ce-${name}`, encodeURIComponent(value as string)] as const,
  );
  const body = data === undefined ? '' : JSON.stringify(data);
  const answer = await post(edge.url, key, body, { headers: Object.fromEntries(fields) });
  expect(answer).toMatchObject({ status: 202, body: { accepted: 1 } });
};

function overClient(transport: 'http' | 'websocket'): Door {
  return async ({ voids, amends, ...event }) => {
    await using client = new TallylineClient({ url: edge.url, key, transport, flushOnExit: false });
    const { id, source } = event as { id: string; source: string };
    if (voids !== undefined) await client.void(voids as string, { source, correctionId: id });
    else await client.amend(amends as string, event as unknown as Parameters<typeof client.amend>[1]);
  };
}

const DOORS: Readonly<Record<string, Door>> = {
  'a JSON object': over('application/json', bytesOf),
  'a JSON array': over('application/json', (event) => bytesOf([event])),
  'JSON with specversion': over('application/json', (event) => bytesOf(versioned(event))),
  NDJSON: over('application/x-ndjson', (event) => Buffer.from(`\n${JSON.stringify(event)}\n`)),
  'a msgpack map': over('application/msgpack', (event) => packr.pack(event)),
  'msgpack maps': over('application/msgpack', (event) => packr.pack([event])),
  'a CloudEvent': over('application/cloudevents+json', (event) => bytesOf(versioned(event))),
  CloudEvents: over('application/cloudevents-batch+json', (event) => bytesOf([versioned(event)])),
  'the shape of OpenMeter': over(
    'application/cloudevents+json',
    (event) => bytesOf(versioned(event)),
    '/api/v1/events',
  ),
  'a CloudEvent in binary mode': overHeaders,
  'the SDK of CloudEvents': overCloudEvents,
  'a stream of JSON': overStream(SUBPROTOCOL_JSON, (batch) => JSON.stringify(batch)),
  'a stream of msgpack': overStream(SUBPROTOCOL_MSGPACK, (batch) => packr.pack(batch)),
  'our client': overClient('http'),
  'our client over a stream': overClient('websocket'),
};

const hasher = new IdentityHasher(IDENTITY_KEY);
const ORIGINAL = 'req-é "1"';
const SOURCE = 'gateway/eu';
const words = (hex: string): string =>
  formatIdentity(Uint32Array.from(hex.match(/.{8}/g)!, (word) => Number.parseInt(word, 16)));

/** Sends it through each door; resolves with what stands in the log, which is the same each time. */
async function expectSame(
  event: Attributes,
  doors: readonly Door[],
  fields: Attributes,
): Promise<LoggedEvent[]> {
  for (const door of doors) await door(event);
  const id = event['id'] as string;
  const target = identityOf(hasher, 'acme', SOURCE, ORIGINAL);
  const logged = await world.events(id, [new ShardRule(SHARDS).of(target)]);
  expect(logged).toHaveLength(doors.length);
  for (const one of logged) {
    expect(one.fields).toEqual({ ...fields, 'tallyline.target': formatIdentity(target) });
    expect(words(one.identity)).toBe(formatIdentity(correctionOf(hasher, 'acme', SOURCE, ORIGINAL, id)));
    // Whatever came first, all others are duplicates of it and no conflicts.
    expect({ ...one, timeMs: 0 }).toEqual({ ...logged[0]!, timeMs: 0 });
  }
  return logged;
}

test('a void says the same through every door', { timeout: 60_000 }, async () => {
  const event = { id: 'v-1', source: SOURCE, type: 'tallyline.void', voids: ORIGINAL };
  // That SDK gives an event without a time its own.
  const doors = Object.values(DOORS).filter((door) => door !== overCloudEvents);
  const [logged] = await expectSame(event, doors, { 'tallyline.voids': ORIGINAL });
  expect(logged).toMatchObject({ source: SOURCE, type: 'tallyline.void', subject: '', timeGiven: false });
});

test('an amendment says the same through every door', { timeout: 60_000 }, async () => {
  const use = { source: SOURCE, type: 'llm.request', subject: 'cus_1' };
  const data = { tokens: 900, model: 'größer' };
  const event = { ...use, id: 'a-1', time: '2026-11-20T10:00:00.250Z', data, amends: ORIGINAL };
  const fields = { tokens: '900e-0', model: 'größer', 'tallyline.amends': ORIGINAL };
  const [logged] = await expectSame(event, Object.values(DOORS), fields);
  expect(logged).toMatchObject({ ...use, timeMs: Date.UTC(2026, 10, 20, 10, 0, 0, 250), timeGiven: true });
});

test('a void without what a void needs not is the same as one with it', async () => {
  const bare = { id: 'bare-1', voids: 'x' };
  const whole = {
    id: 'bare-1',
    source: '',
    type: 'tallyline.void',
    subject: '',
    data: {},
    voids: 'x',
    amends: null,
  };
  for (const body of [bare, whole]) {
    const answer = await post(edge.url, key, JSON.stringify(body));
    // No meter is missing for a void.
    expect(answer).toMatchObject({ status: 202, body: { accepted: 1, rejected: [] } });
    expect(answer.body).not.toHaveProperty('unmatched');
  }
  const [first, second] = await world.events('bare-1');
  expect({ ...second, timeMs: first!.timeMs }).toEqual(first);
});

test('originals and their corrections stand in one shard, in the order in which they were sent', async () => {
  const originals = Array.from({ length: 40 }, (_, at) => `order-${at}`);
  const use = { source: SOURCE, type: 't', subject: 'c', time: '2026-11-20T10:00:00Z' };
  const events = originals.flatMap((id, at) => [
    { ...use, id },
    { id: `${id}-void`, source: SOURCE, voids: id },
    { ...use, id: `${id}-amend`, amends: id, data: { n: at } },
  ]);
  const answer = await post(edge.url, key, JSON.stringify(events));
  expect(answer).toMatchObject({
    status: 202,
    body: { accepted: events.length, rejected: [], unmatched: 80 },
  });
  const byShard = await Promise.all(world.allShards.map((shard) => world.events('order-', [shard])));
  for (const logged of byShard) expect(logged).not.toEqual([]);
  for (const id of originals) {
    const isOwn = (one: LoggedEvent): boolean => one.id === id || one.id.startsWith(`${id}-`);
    const own = byShard.find((logged) => logged.some(isOwn))!.filter(isOwn);
    expect(own.map((one) => one.id)).toEqual([id, `${id}-void`, `${id}-amend`]);
    const [original, ...corrections] = own;
    for (const { fields } of corrections) expect(fields['tallyline.target']).toBe(words(original!.identity));
    expect(new Set(own.map(({ identity }) => identity)).size).toBe(3);
  }
});

test('nobody can send what only an edge may write, nor a correction of two kinds', async () => {
  const use = { source: SOURCE, type: 't', subject: 'c' };
  const target = formatIdentity(identityOf(hasher, 'acme', SOURCE, ORIGINAL));
  const events = [
    { ...use, id: 'forged-0', data: { tallyline: { target } } },
    { ...use, id: 'forged-1', data: { 'tallyline.target': target, 'tallyline.voids': ORIGINAL } },
    { ...use, id: 'forged-2', type: 'tallyline.void' },
    { ...use, id: 'forged-3', voids: ORIGINAL },
    { ...use, id: 'forged-4', voids: ORIGINAL, amends: ORIGINAL },
    { id: 'forged-5', source: SOURCE, voids: ORIGINAL, data: { tallyline: 1 } },
  ];
  const answer = await post(edge.url, key, JSON.stringify(events));
  expect(answer.status).toBe(422);
  const rejected = answer.body['rejected'] as { id: string; code: string; message: string }[];
  expect(rejected.map(({ id, code, message }) => [id, code, message.split(': ')[0]])).toEqual([
    ['forged-0', 'data_path_reserved', 'data.tallyline'],
    ['forged-1', 'data_path_reserved', 'data.tallyline.target'],
    ['forged-2', 'type_reserved', 'type'],
    ['forged-3', 'void_has_type', 'type'],
    ['forged-4', 'correction_ambiguous', 'amends'],
    ['forged-5', 'data_path_reserved', 'data.tallyline'],
  ]);
  expect(await world.events('forged-')).toEqual([]);
});
