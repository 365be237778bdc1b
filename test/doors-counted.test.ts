import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { OpenMeter } from '@openmeter/sdk';
import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';
import { Packr } from 'msgpackr';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { EVENT_TYPE, METER, TENANT, World } from '../bench/faults/world.ts';
import { SUBPROTOCOL_JSON } from '../contract/stream.ts';
import { until } from './until.ts';

// Every kind of client sends one event of its own and one that all of them share, both twice: what counts is each
// identity once, whichever way it came.

let world: World;
beforeAll(async () => {
  world = await World.start({ journal: false });
});
afterAll(() => world?.stop());

const SOURCE = 'doors';
const SHARED = 'shared';
const AMOUNT = 3;

interface Use {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly subject: string;
  readonly time: string;
  readonly data: { readonly amount: number };
}

const time = '2026-11-20T10:00:00Z';
const use = (id: string): Use => ({
  id,
  source: SOURCE,
  type: EVENT_TYPE,
  subject: 'cus_1',
  time,
  data: { amount: AMOUNT },
});

const authorization = (): string => `Bearer ${world.key}`;

async function throughStream(events: readonly Use[]): Promise<void> {
  const socket = new WebSocket(`${world.url.replace('http', 'ws')}/v1/stream`, SUBPROTOCOL_JSON, {
    headers: { authorization: authorization() },
  });
  await once(socket, 'message'); // welcome
  socket.send(JSON.stringify({ batch: 1, events }));
  const [answer] = (await once(socket, 'message')) as [Buffer];
  expect(JSON.parse(answer.toString())).toMatchObject({ type: 'ack', accepted: events.length });
  socket.close();
}

const clients: Readonly<Record<string, (events: readonly Use[]) => Promise<void>>> = {
  async openmeter(events) {
    const sdk = new OpenMeter({ baseUrl: world.url, apiKey: world.key });
    await sdk.events.ingest(events.map((one) => ({ ...one, time: new Date(one.time) })));
  },
  async cloudevents(events) {
    for (const mode of [Mode.BINARY, Mode.STRUCTURED]) {
      const emit = emitterFor(httpTransport(`${world.url}/v1/events`), { mode });
      for (const one of events)
        await emit(new CloudEvent<{ amount: number }>({ ...one, data: { ...one.data } }), {
          headers: { authorization: authorization() },
        });
    }
  },
  async msgpack(events) {
    const answer = await fetch(`${world.url}/v1/events`, {
      method: 'POST',
      headers: { authorization: authorization(), 'content-type': 'application/msgpack' },
      body: new Packr({ useRecords: false }).pack(events),
    });
    expect(answer.status).toBe(202);
  },
  websocket: throughStream,
  curl(events) {
    const ran = spawnSync(
      'curl',
      [
        ...['-sS', '-H', `authorization: ${authorization()}`, '-H', 'content-type: application/json'],
        ...['-d', JSON.stringify(events), `${world.url}/v1/events`],
      ],
      { encoding: 'utf8' },
    );
    expect(ran.stdout).toContain(`"accepted":${events.length}`);
    return Promise.resolve();
  },
};

test('events of every kind of client are counted once, whichever way they come again', async () => {
  const hasCurl = spawnSync('curl', ['--version']).error === undefined;
  const names = Object.keys(clients).filter((name) => name !== 'curl' || hasCurl);
  for (let turn = 0; turn < 2; turn++) {
    for (const name of names) await clients[name]!([use(name), use(SHARED)]);
  }
  // Each name has one event, and all of them share one.
  const events = names.length + 1;
  const wanted = { events: String(events), total: String(events * AMOUNT) };
  let found: unknown;
  await until('each is counted', async () => {
    [found] = await world.ch.rows<object>(
      `SELECT toString(sum(value_count)) AS events, toString(sum(value_sum)) AS total FROM rollup_hour FINAL
       WHERE tenant = '${TENANT}' AND meter = '${METER}'`,
    );
    return JSON.stringify(found) === JSON.stringify(wanted);
  }).catch(() => expect(found).toEqual(wanted));
  const ids = await world.ch.rows<{ id: string }>(
    `SELECT id FROM events FINAL WHERE tenant = '${TENANT}' ORDER BY id`,
  );
  expect(ids.map(({ id }) => id)).toEqual([...names, SHARED].sort());
  // A repeat in another format says the same, so it is a duplicate and no conflict.
  // Counters are written behind the rollups, and the last repeats may be in another flush. Some clients repeat themselves.
  const sentAtLeast = 2 * 2 * names.length;
  let verdicts: { verdict: string; count: string }[] = [];
  await until('each repeat is told', async () => {
    verdicts = await world.ch.rows(
      `SELECT verdict, toString(sum(count)) AS count FROM verdict_totals FINAL WHERE tenant = '${TENANT}'
       GROUP BY verdict ORDER BY verdict`,
    );
    return verdicts.reduce((sum, { count }) => sum + Number(count), 0) >= sentAtLeast;
  });
  expect(verdicts.map(({ verdict }) => verdict)).toEqual(['counted', 'duplicate']);
});
