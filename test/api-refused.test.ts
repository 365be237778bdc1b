// What the API says about events that do not count, or count for no meter, over rows as the aggregator writes them.
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { HOUR_MS } from '../contract/window.ts';
import { ApiWorld, NOW_MS, SHARDS } from './api-world.ts';
import { insertMeters } from './meter-rows.ts';
import { insertEventRows } from './event-rows.ts';

let api: ApiWorld;
const DAY = Date.UTC(2026, 10, 20);

interface Item {
  readonly verdict: string;
  readonly code: string;
  readonly message: string;
  readonly shard: number;
  readonly position: string;
  readonly event: {
    readonly id: string;
    readonly source?: string;
    readonly type: string;
    readonly subject: string;
    readonly time: string;
    readonly data: object;
  };
  readonly counted: { readonly position: string; readonly event: Item['event'] } | null;
}

interface Page {
  readonly items: readonly Item[];
  readonly nextCursor: string | null;
}

/** The same id is the same identity. */
function identityOf(id: string): string {
  const hex = createHash('md5').update(id).digest('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

const event = (id: string, position: number, o: object = {}) => ({
  tenant: 'acme-inc',
  type: 'llm.request',
  subject: 'acme',
  id,
  source: 'gateway',
  time: DAY + position,
  data: { input_tokens: 'many' },
  identity: identityOf(id),
  payload_hash: 1,
  accepted_at: DAY + position * HOUR_MS,
  shard: position % SHARDS,
  position,
  ...o,
});

const counted = (
  id: string,
  position: number,
  o: { time?: number; type?: string; subject?: string } = {},
) => {
  const row = event(id, position, o);
  return { ...row, hour: Math.floor(row.time / HOUR_MS) * 3_600 };
};

beforeAll(async () => {
  api = await ApiWorld.start();
  await insertMeters(api.writer, [
    ...[0, 1].map((shard) => ({
      tenant: 'acme-inc',
      meter: 'calls',
      event_type: 'llm.request',
      aggregation: 'count',
      value_property: '',
      group_by: [],
      shard,
      position: 50,
    })),
  ]);
  await insertEventRows(api.writer, 'events', [
    // What counts instead of the two conflicts: one of the same hour, one of another month.
    counted('near', 60, { time: DAY + 60 }),
    counted('far', 61, { time: Date.UTC(2026, 8, 1) }),
    // Before the definition of the meter, of a type without one, and of somebody else.
    counted('early', 40, { time: DAY + 40 }),
    counted('lone 1', 70, { time: DAY + 70, type: 'upload' }),
    counted('lone 2', 71, { time: DAY + 71, type: 'upload', subject: 'b' }),
    counted('lone 3', 72, { time: DAY - 40 * 24 * HOUR_MS, type: 'upload' }),
    { ...counted('theirs', 73, { time: DAY + 73, type: 'upload' }), tenant: 'globex' },
  ]);
  await insertEventRows(api.writer, 'refused_events', [
    event('e1', 1, { verdict: 'rejected', code: 'meter_value_not_a_number' }),
    event('near', 2, { verdict: 'conflict', code: '', data: { input_tokens: '7' } }),
    event('e3', 3, { verdict: 'rejected', code: 'meter_value_missing', subject: 'b', type: 'other' }),
    event('far', 4, { verdict: 'conflict', code: '', source: '' }),
    event('e5', 5, { verdict: 'late', code: '', time: DAY - 24 * HOUR_MS }),
    event('e6', 6, { verdict: 'rejected', code: 'meter_value_missing', tenant: 'globex' }),
  ]);
});
afterAll(() => api?.stop());

async function page(query: string): Promise<Page> {
  const answer = await api.ask('GET', `/v1/refused?${query}`, { key: api.keys.reader });
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body;
}
const ids = async (query: string): Promise<string[]> =>
  (await page(query)).items.map((item) => item.event.id);

test('refused events are listed whole, newest first, with what to change', async () => {
  expect(await ids('')).toEqual(['e5', 'far', 'e3', 'near', 'e1']);
  const [item] = (await page('code=meter_value_not_a_number')).items;
  expect(item).toEqual({
    verdict: 'rejected',
    code: 'meter_value_not_a_number',
    message: 'The value that a meter of its type needs is not a decimal number.',
    shard: 1,
    position: '1',
    acceptedAt: '2026-11-20T01:00:00.000Z',
    event: {
      id: 'e1',
      source: 'gateway',
      type: 'llm.request',
      subject: 'acme',
      time: '2026-11-20T00:00:00.001Z',
      data: { input_tokens: 'many' },
    },
    counted: null,
  });
});

test('they are filtered by verdict, code, type, subject and time of use, and by nothing else', async () => {
  expect(await ids('verdict=rejected')).toEqual(['e3', 'e1']);
  expect(await ids('code=meter_value_missing')).toEqual(['e3']);
  expect(await ids('code=conflict')).toEqual(['far', 'near']);
  expect(await ids('type=other')).toEqual(['e3']);
  expect(await ids('subject=b')).toEqual(['e3']);
  expect(await ids('from=2026-11-20T00:00:00.002Z&to=2026-11-20T00:00:00.004Z')).toEqual(['e3', 'near']);
  expect(await ids('to=2026-11-20T00:00:00Z')).toEqual(['e5']);
  for (const text of [`' OR 1=1 --`, '\\', '{tenant:String}', "x'; DROP TABLE refused_events"]) {
    const value = encodeURIComponent(text);
    expect(await ids(`type=${value}`)).toEqual([]);
    expect(await ids(`subject=${value}`)).toEqual([]);
    expect(await ids(`code=${value.slice(0, 60)}`)).toEqual([]);
  }
  for (const query of ['verdict=counted', 'tenant=globex', 'from=yesterday', 'limit=0']) {
    expect((await api.ask('GET', `/v1/refused?${query}`)).status, query).toBe(400);
  }
  const empty = await api.ask('GET', '/v1/refused?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z');
  expect(empty).toMatchObject({ status: 422, body: { code: 'range_invalid' } });
});

test('a conflict shows what counts instead, whenever that was', async () => {
  const { items } = await page('verdict=conflict');
  expect(items.map((item) => [item.event.id, item.counted?.position, item.counted?.event.time])).toEqual([
    ['far', '61', '2026-09-01T00:00:00.000Z'],
    ['near', '60', '2026-11-20T00:00:00.060Z'],
  ]);
  expect(items[1]).toMatchObject({
    event: { data: { input_tokens: '7' } },
    counted: { event: { data: { input_tokens: 'many' } } },
  });
  expect(items[0]?.event).not.toHaveProperty('source');
});

test('pages give every event once, also when more are refused meanwhile', async () => {
  const first = await page('limit=2');
  expect(first.items.map((item) => item.event.id)).toEqual(['e5', 'far']);
  await insertEventRows(api.writer, 'refused_events', [
    event('e9', 9, { verdict: 'rejected', code: 'meter_value_missing' }),
  ]);
  const second = await page(`limit=2&cursor=${first.nextCursor}`);
  const third = await page(`limit=2&cursor=${second.nextCursor}`);
  expect([...second.items, ...third.items].map((item) => item.event.id)).toEqual(['e3', 'near', 'e1']);
  expect(third.nextCursor).toBeNull();
  for (const [query, cursor] of [
    ['verdict=late', first.nextCursor],
    ['', 'AAAA'],
  ]) {
    const answer = await api.ask('GET', `/v1/refused?${query}&cursor=${cursor}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'cursor_invalid' } });
  }
});

test('unmatched events are those that count and that no meter takes, by time, within a range', async () => {
  expect(await ids('verdict=unmatched&to=2026-11-21T00:00:00Z')).toEqual(['lone 2', 'lone 1', 'early']);
  expect(await ids('verdict=unmatched&to=2026-11-21T00:00:00Z&type=upload&subject=b')).toEqual(['lone 2']);
  const first = await page('verdict=unmatched&to=2026-11-21T00:00:00Z&limit=2');
  expect(await ids(`verdict=unmatched&to=2026-11-21T00:00:00Z&limit=2&cursor=${first.nextCursor}`)).toEqual([
    'early',
  ]);
  expect(await ids('verdict=unmatched&from=2026-10-01T00:00:00Z&to=2026-10-31T00:00:00Z')).toEqual([
    'lone 3',
  ]);
  // Without a range it is the last day.
  expect(await ids('verdict=unmatched')).toEqual([]);
  api.nowMs = DAY + 30 * 60_000;
  expect(await ids('verdict=unmatched')).toHaveLength(3);
  api.nowMs = NOW_MS;
  const long = await api.ask(
    'GET',
    '/v1/refused?verdict=unmatched&from=2026-09-01T00:00:00Z&to=2026-11-21T00:00:00Z',
  );
  expect(long).toMatchObject({ status: 422, body: { code: 'range_invalid' } });
});

test('and all of them are counted by verdict, code and type', async () => {
  const types = async (query: string) =>
    (
      (await api.ask('GET', `/v1/refused/types?${query}`)).body as {
        items: { verdict: string; code: string; type: string; events: string; firstTime: string }[];
      }
    ).items.map((one) => [one.verdict, one.code, one.type, one.events]);
  expect(await types('verdict=conflict')).toEqual([['conflict', 'conflict', 'llm.request', '2']]);
  expect(await types('to=2026-11-20T00:00:00.008Z')).toEqual([
    ['conflict', 'conflict', 'llm.request', '2'],
    ['late', 'late', 'llm.request', '1'],
    ['rejected', 'meter_value_missing', 'other', '1'],
    ['rejected', 'meter_value_not_a_number', 'llm.request', '1'],
  ]);
  expect(await types('verdict=unmatched&to=2026-11-21T00:00:00Z')).toEqual([
    ['unmatched', 'unmatched', 'upload', '2'],
    ['unmatched', 'unmatched', 'llm.request', '1'],
  ]);
});
