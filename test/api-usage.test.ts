// What the API says about usage and money, over rows as the aggregator writes them.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acknowledgedKey } from '../contract/acknowledged.ts';
import { packPosition } from '../contract/position.ts';
import { BUCKET_ACKNOWLEDGED, streamName } from '../contract/subjects.ts';
import { HOUR_MS } from '../contract/window.ts';
import { EdgeTotals } from '../ledger/edge-totals.ts';
import { createLog } from '../runtime/log.ts';
import { openKeyValue, type KeyValue } from '../runtime/nats.ts';
import { ApiWorld, TOKENS } from './api-world.ts';
import { until } from './until.ts';
import { insertMeters } from './meter-rows.ts';
import { insertEventRows } from './event-rows.ts';

let api: ApiWorld;
beforeAll(async () => {
  api = await ApiWorld.start();
  await ask('POST', '/v1/meters', { body: TOKENS });
  await ask('POST', '/v1/meters', { body: TOKENS, key: api.keys.other });
  const price = { key: 'input', meter: 'input_tokens', model: 'per_unit', unitPrice: '0.05' };
  await ask('POST', '/v1/plans', { body: { key: 'pro', name: 'Pro', currency: 'USD', prices: [price] } });
  await ask('PUT', '/v1/customers/acme', { body: { ...CUSTOMER, subjects: ['acme'], plan: 'pro' } });
});
afterAll(() => api?.stop());

const ask: ApiWorld['ask'] = (...asked) => api.ask(...asked);

const CUSTOMER = { name: 'Acme', currency: 'USD', anchor: '2026-10-01T00:00:00Z' };

interface Usage {
  readonly rows: {
    windowStart: string;
    windowEnd: string;
    subject: string | null;
    group: object;
    value: string;
  }[];
  readonly nextCursor: string | null;
}

async function usage(query: string): Promise<Usage> {
  const answer = await ask('GET', `/v1/usage?meter=input_tokens&${query}`, { key: api.keys.reader });
  expect(answer.status, JSON.stringify(answer.body)).toBe(200);
  return answer.body;
}

describe('usage', () => {
  beforeAll(async () => {
    await api.roll([
      // Each side of midnight of Berlin (22:00 UTC in October's summer time, 23:00 UTC in winter).
      { subject: 'acme', hour: '2026-10-24T21:00:00Z', sum: '1' },
      { subject: 'acme', hour: '2026-10-24T22:00:00Z', sum: '10' },
      { subject: 'acme', hour: '2026-10-25T22:00:00Z', sum: '100' },
      { subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '1000' },
      // An older state of the same row loses against it.
      { subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '777', position: 0 },
      { subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '0.000000001', shard: 1 },
      {
        subject: 'a,b',
        hour: '2026-10-25T23:00:00Z',
        sum: '12345678901234567.123456789',
        dimensions: ['gpt-5', ''],
      },
      { subject: 'acme', hour: '2026-11-01T00:00:00Z', sum: '5', dimensions: ['gpt-5', 'pro'] },
      { tenant: 'globex', subject: 'acme', hour: '2026-10-25T23:00:00Z', sum: '666' },
    ]);
  });
  const october = 'from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z';

  test('a total of all subjects, and of one', async () => {
    const window = { windowStart: '2026-10-01T00:00:00.000Z', windowEnd: '2026-11-01T00:00:00.000Z' };
    expect(await usage(october)).toEqual({
      rows: [{ ...window, subject: null, group: {}, value: '12345678901235678.12345679' }],
      nextCursor: null,
    });
    expect((await usage(`${october}&subject=acme`)).rows).toEqual([
      { ...window, subject: 'acme', group: {}, value: '1111.000000001' },
    ]);
    const both = await usage(`${october}&subject=acme&subject=a%2Cb`);
    expect(both.rows.map((row) => [row.subject, row.value])).toEqual([
      ['a,b', '12345678901234567.123456789'],
      ['acme', '1111.000000001'],
    ]);
    expect(await usage('from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z')).toEqual({
      rows: [],
      nextCursor: null,
    });
  });

  test('days of a zone are cut where its clocks say, and hours where UTC says', async () => {
    const days = await usage(`${october}&subject=acme&window=day&timezone=Europe/Berlin`);
    expect(days.rows.map((row) => [row.windowStart, row.windowEnd, row.value])).toEqual([
      ['2026-10-23T22:00:00.000Z', '2026-10-24T22:00:00.000Z', '1'],
      // 25 hours.
      ['2026-10-24T22:00:00.000Z', '2026-10-25T23:00:00.000Z', '110'],
      ['2026-10-25T23:00:00.000Z', '2026-10-26T23:00:00.000Z', '1000.000000001'],
    ]);
    const utc = await usage(`${october}&subject=acme&window=day`);
    expect(utc.rows.map((row) => [row.windowStart.slice(0, 10), row.value])).toEqual([
      ['2026-10-24', '11'],
      ['2026-10-25', '1100.000000001'],
    ]);
    const hours = await usage(`${october}&subject=acme&window=hour`);
    expect(hours.rows.map((row) => row.value)).toEqual(['1', '10', '100', '1000.000000001']);
    const months = await usage('from=2026-10-01T00:00:00Z&to=2026-12-01T00:00:00Z&subject=acme&window=month');
    expect(months.rows.map((row) => row.value)).toEqual(['1111.000000001', '5']);
  });

  test('without from and to it is the current month', async () => {
    expect((await usage('subject=acme')).rows).toEqual([
      {
        windowStart: '2026-11-01T00:00:00.000Z',
        windowEnd: '2026-11-21T09:00:00.000Z',
        subject: 'acme',
        group: {},
        value: '5',
      },
    ]);
  });

  test('groups and filters by dimensions of the meter, and by nothing else', async () => {
    const all = 'from=2026-10-01T00:00:00Z&to=2026-12-01T00:00:00Z';
    expect((await usage(`${all}&groupBy=model,user.plan`)).rows.map((row) => [row.group, row.value])).toEqual(
      [
        [{ model: 'gpt-4', 'user.plan': 'free' }, '1111.000000001'],
        [{ model: 'gpt-5', 'user.plan': '' }, '12345678901234567.123456789'],
        [{ model: 'gpt-5', 'user.plan': 'pro' }, '5'],
      ],
    );
    expect((await usage(`${all}&groupBy=user.plan&groupBy=subject`)).rows.map((row) => row.subject)).toEqual([
      'a,b',
      'acme',
      'acme',
    ]);
    expect((await usage(`${all}&filter.model=gpt-5&filter.user.plan=pro`)).rows).toMatchObject([
      { value: '5' },
    ]);
    expect((await usage(`${all}&filter.user.plan=pro&filter.user.plan=free`)).rows).toMatchObject([
      { value: '1116.000000001' },
    ]);
    const refused = await ask('GET', `/v1/usage?meter=input_tokens&groupBy=color&filter.size=1`);
    expect(refused).toMatchObject({
      status: 422,
      body: { code: 'group_by_unknown', known: ['subject', 'model', 'user.plan'] },
    });
  });

  test('text from outside is only ever a value', async () => {
    const hostile = [
      `' OR 1=1 --`,
      `acme'; DROP TABLE rollup_hour; --`,
      '\\',
      '{tenant:String}',
      '\t',
      '💰"`',
    ];
    for (const text of hostile) {
      const value = encodeURIComponent(text);
      expect((await usage(`${october}&subject=${value}`)).rows).toEqual([]);
      expect((await usage(`${october}&filter.model=${value}`)).rows).toEqual([]);
      const unknown = await ask('GET', `/v1/usage?meter=input_tokens&groupBy=${value}`);
      expect(unknown.body).toMatchObject({ code: 'group_by_unknown' });
      const zone = await ask('GET', `/v1/usage?meter=input_tokens&timezone=${value}`);
      expect(zone.body).toMatchObject({ code: 'timezone_unknown' });
      expect([400, 404]).toContain((await ask('GET', `/v1/usage?meter=${value}`)).status);
    }
    const odd = '2026-09-01T00:00:00Z';
    await api.roll([{ subject: hostile[1]!, hour: odd, sum: '3', dimensions: [hostile[0]!, hostile[5]!] }]);
    const window = `from=${odd}&to=2026-09-02T00:00:00Z&groupBy=subject,model,user.plan`;
    expect((await usage(window)).rows).toMatchObject([
      { subject: hostile[1], group: { model: hostile[0], 'user.plan': hostile[5] }, value: '3' },
    ]);
  });

  test('pages give every row once, in order', async () => {
    const rows = Array.from({ length: 60 }, (_, n) => ({
      subject: `s${n % 7}`,
      hour: new Date(Date.UTC(2026, 7, 1) + Math.floor(n / 7) * HOUR_MS).toISOString(),
      sum: String(n),
      dimensions: [`m${n % 3}`, ''],
    }));
    await api.roll(rows);
    for (const window of ['hour', 'day', 'total']) {
      const query = `from=2026-08-01T00:00:00Z&to=2026-08-03T00:00:00Z&window=${window}&groupBy=subject,model`;
      const whole = (await usage(query)).rows;
      const paged: Usage['rows'] = [];
      let cursor: string | null = null;
      do {
        const page = await usage(`${query}&limit=7${cursor === null ? '' : `&cursor=${cursor}`}`);
        expect(page.rows.length).toBeLessThanOrEqual(7);
        paged.push(...page.rows);
        cursor = page.nextCursor;
      } while (cursor !== null);
      expect(paged).toEqual(whole);
      expect(whole.length).toBe(window === 'hour' ? 60 : 21);
    }
    const { nextCursor } = await usage(
      'from=2026-08-01T00:00:00Z&to=2026-08-03T00:00:00Z&window=hour&limit=1',
    );
    const other = await ask('GET', `/v1/usage?meter=input_tokens&window=day&cursor=${nextCursor}`);
    expect(other.body).toMatchObject({ code: 'cursor_invalid' });
    const many = await ask(
      'GET',
      '/v1/usage?meter=input_tokens&format=csv&window=hour&groupBy=subject,model&from=2026-08-01T00:00:00Z&to=2026-08-03T00:00:00Z',
    );
    expect(many).toMatchObject({ status: 422, body: { code: 'usage_too_many_rows' } });
  });

  test('NDJSON, CSV and Parquet say the same as JSON', async () => {
    const query = `${october}&window=day&timezone=Europe/Berlin&groupBy=subject,model`;
    const { rows } = await usage(query);
    expect(rows).toHaveLength(4);
    const path = `/v1/usage?meter=input_tokens&${query}`;

    const ndjson = await ask('GET', `${path}&format=ndjson`);
    expect(ndjson.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = String(ndjson.body).trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(rows);
    const alone = await ask('GET', `/v1/usage?meter=input_tokens&${october}`, {
      headers: { accept: 'application/x-ndjson' },
    });
    expect(JSON.parse(String(alone.body))).toEqual((await usage(october)).rows[0]);

    const csv = await ask('GET', path, { headers: { accept: 'text/html, text/csv;q=0.9' } });
    expect(csv.headers.get('content-type')).toBe('text/csv; charset=utf-8; header=present');
    expect(String(csv.body)).toBe(
      [
        'windowStart,windowEnd,subject,model,value',
        '"2026-10-23T22:00:00.000Z","2026-10-24T22:00:00.000Z","acme","gpt-4",1',
        '"2026-10-24T22:00:00.000Z","2026-10-25T23:00:00.000Z","acme","gpt-4",110',
        '"2026-10-25T23:00:00.000Z","2026-10-26T23:00:00.000Z","a,b","gpt-5",12345678901234567.123456789',
        '"2026-10-25T23:00:00.000Z","2026-10-26T23:00:00.000Z","acme","gpt-4",1000.000000001',
        '',
      ].join('\r\n'),
    );

    const parquet = await ask('GET', `${path}&format=parquet`);
    await api.writer.command(
      `CREATE TABLE read_back (windowStart DateTime64(3, 'UTC'), windowEnd DateTime64(3, 'UTC'), subject String, group Map(String, String), value Decimal(38, 9)) ENGINE = Memory`,
    );
    const { origin, username, password } = new URL(api.engines.clickhouseUrl);
    const insert = `${origin}/?database=tallyline&query=${encodeURIComponent('INSERT INTO read_back FORMAT Parquet')}`;
    const inserted = await fetch(insert, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` },
      body: parquet.body,
    });
    expect(await inserted.text()).toBe('');
    const back = await api.writer.rows<{ start: string }>(
      'SELECT toString(toUnixTimestamp64Milli(windowStart)) AS start, subject, `group`, toString(value) AS value FROM read_back ORDER BY windowStart, subject',
    );
    expect(back.map((row) => ({ ...row, start: new Date(Number(row.start)).toISOString() }))).toEqual(
      rows.map((row) => ({
        start: row.windowStart,
        subject: row.subject,
        group: row.group,
        value: row.value,
      })),
    );
    const image = await ask('GET', path, { headers: { accept: 'image/png' } });
    expect(image).toMatchObject({ status: 406, body: { code: 'format_not_acceptable' } });
  });

  test('each aggregation is read exactly, over hours and shards', async () => {
    const property = { eventType: 'gauge', valueProperty: 'v' };
    const expected = { min: '-7', max: '9.5', latest: '-7', average: '0.833333333', count: '6', sum: '5' };
    const window = 'from=2026-11-02T00:00:00Z&to=2026-11-03T00:00:00Z&window=day';
    for (const [aggregation, value] of Object.entries(expected)) {
      const key = `gauge_${aggregation}`;
      const body = { ...property, key, aggregation };
      await ask('POST', '/v1/meters', {
        body: aggregation === 'count' ? { key, eventType: 'gauge', aggregation } : body,
      });
      await api.roll([
        {
          meter: key,
          subject: 'g',
          hour: '2026-11-02T01:00:00Z',
          count: 3,
          sum: '8.5',
          min: '-2',
          max: '9.5',
          latest: '1',
          dimensions: [],
        },
        // The newest by time, though its position is the lower.
        {
          meter: key,
          subject: 'g',
          hour: '2026-11-02T02:00:00Z',
          shard: 1,
          count: 3,
          sum: '-3.5',
          min: '-7',
          max: '2',
          latest: '-7',
          latestTime: '2026-11-02T02:30:00Z',
          position: 1,
          dimensions: [],
        },
        { meter: key, subject: 'g', hour: '2026-11-01T02:00:00Z', count: 3, sum: '500', dimensions: [] },
      ]);
      const json = await ask('GET', `/v1/usage?meter=${key}&${window}`);
      expect((json.body as Usage).rows[0]?.value, aggregation).toBe(value);
      const csv = await ask('GET', `/v1/usage?meter=${key}&${window}&format=csv`);
      expect(String(csv.body).split('\r\n')[1]?.split(',').at(-1), aggregation).toBe(value);
    }
    // Cut toward zero: -5 / 3.
    const negative = {
      meter: 'gauge_average',
      subject: 'n',
      hour: '2026-11-05T01:00:00Z',
      count: 3,
      sum: '-5',
      dimensions: [],
    };
    await api.roll([negative]);
    const answer = await ask('GET', '/v1/usage?meter=gauge_average&subject=n');
    expect((answer.body as Usage).rows[0]?.value).toBe('-1.666666666');
  });

  test('ranges that are empty or too long are refused, with how long they may be', async () => {
    const refused = async (query: string) =>
      (await ask('GET', `/v1/usage?meter=input_tokens&${query}`)).body as { code: string; detail: string };
    expect(await refused('from=2026-10-02T00:00:00Z&to=2026-10-01T00:00:00Z')).toMatchObject({
      code: 'range_invalid',
    });
    expect(await refused('window=hour&from=2020-01-01T00:00:00Z')).toMatchObject({
      code: 'range_invalid',
      detail: expect.stringContaining('at most 400 days') as string,
    });
    expect((await refused('from=yesterday')).code).toBe('validation_failed');
    // A torn hour is read from the events; there are none beside these rollups.
    expect((await usage(`${october}&window=day&timezone=Asia/Kolkata&subject=acme`)).rows).toMatchObject([
      { windowStart: '2026-10-24T18:30:00.000Z', value: '11' },
      { windowStart: '2026-10-25T18:30:00.000Z', value: '1100.000000001' },
    ]);
  });

  test('before the aggregator has made its views it says so', async () => {
    api.usageReady = false;
    try {
      for (const path of [
        '/v1/usage?meter=input_tokens',
        '/v1/conservation',
        '/v1/refused',
        '/v1/refused/types',
        '/v1/customers/acme/entitlements',
      ]) {
        const answer = await ask('GET', path);
        expect(answer).toMatchObject({ status: 503, body: { code: 'usage_not_ready' } });
        expect(answer.headers.get('retry-after')).toBe('2');
      }
    } finally {
      api.usageReady = true;
    }
  });
});

describe('TENANT-WALL', () => {
  test('a key sees nothing of another tenant', async () => {
    const key = api.keys.other;
    for (const path of [
      '/v1/customers/acme',
      '/v1/customers/acme/balance',
      '/v1/customers/acme/entitlements',
      '/v1/customers/acme/ledger',
      '/v1/customers/acme/grants',
      '/v1/customers/acme/invoices',
      '/v1/plans/pro',
      '/v1/meters/calls',
      '/v1/usage?meter=calls',
    ]) {
      expect((await ask('GET', path, { key })).status, path).toBe(404);
    }
    for (const path of ['/v1/customers', '/v1/plans']) {
      expect((await ask('GET', path, { key })).body).toEqual({ items: [], nextCursor: null });
    }
    const theirs = await ask('GET', '/v1/usage?meter=input_tokens&from=2026-10-01T00:00:00Z&subject=acme', {
      key,
    });
    expect((theirs.body as Usage).rows).toMatchObject([{ value: '666' }]);
    const ids = ((await ask('GET', '/v1/keys', { key })).body as { items: { id: string }[] }).items.map(
      (one) => one.id,
    );
    expect(ids).toEqual([api.keys.other.split('_')[1]]);
    for (const asked of ['/v1/meters?tenant=acme-inc', '/v1/usage?meter=input_tokens&tenant=acme-inc']) {
      expect(await ask('GET', asked, { key })).toMatchObject({
        status: 400,
        body: { errors: [{ path: 'tenant' }] },
      });
    }
    const grant = await ask('POST', '/v1/customers/acme/grants', {
      key,
      body: { amount: '1.00', reason: 'x' },
    });
    expect(grant).toMatchObject({ status: 404, body: { code: 'customer_not_found' } });
  });

  test('no route takes a tenant from the request', () => {
    for (const [path, methods] of Object.entries(api.described().document.paths)) {
      expect(path).not.toContain('tenant');
      for (const { parameters = [] } of Object.values(methods)) {
        expect(parameters.map((one) => one.name)).not.toContain('tenant');
      }
    }
  });
});

describe('a period', () => {
  const OCTOBER = { periodStart: '2026-10-01T00:00:00Z' };
  /** Raw events, their rollup and the watermark, as the aggregator would have written them. */
  async function count(o: { subject: string; values: readonly string[]; rollup: string }): Promise<void> {
    await insertMeters(api.writer, [
      {
        tenant: 'acme-inc',
        meter: 'output_tokens',
        event_type: 'llm.answer',
        aggregation: 'sum',
        value_property: 'n',
        group_by: [],
        shard: 0,
        position: 1,
      },
    ]);
    await insertEventRows(
      api.writer,
      'events',
      o.values.map((value, at) => ({
        tenant: 'acme-inc',
        hour: Date.UTC(2026, 9, 5) / 1_000,
        type: 'llm.answer',
        subject: o.subject,
        time: Date.UTC(2026, 9, 5, 0, at),
        identity: randomUUID(),
        source: '',
        id: `${o.subject} ${at}`,
        data: { n: value },
        payload_hash: at,
        accepted_at: Date.UTC(2026, 9, 5),
        shard: 0,
        position: 100 + at,
      })),
    );
    await api.roll([
      {
        meter: 'output_tokens',
        subject: o.subject,
        hour: '2026-10-05T00:00:00Z',
        sum: o.rollup,
        count: o.values.length,
        dimensions: [],
        position: 100 + o.values.length,
      },
    ]);
    await api.writer.insertJson('watermarks', [
      {
        shard: 0,
        incarnation: 0,
        sequence: 9,
        position: 100_000,
        stream_created: '',
        fingerprint: '',
        accepted_at: Date.UTC(2026, 9, 5),
        flushed_at: Date.UTC(2026, 9, 5),
      },
    ]);
  }

  beforeAll(async () => {
    await ask('POST', '/v1/meters', {
      body: { key: 'output_tokens', eventType: 'llm.answer', aggregation: 'sum', valueProperty: 'n' },
    });
    const price = {
      key: 'output',
      meter: 'output_tokens',
      model: 'per_unit',
      included: '100',
      unitPrice: '0.05',
    };
    const entitlements = [{ key: 'cap', meter: 'output_tokens', limit: '140' }];
    await ask('POST', '/v1/plans', {
      body: { key: 'out', name: 'Out', currency: 'USD', prices: [price], entitlements },
    });
    for (const id of ['closed', 'torn']) {
      await ask('PUT', `/v1/customers/${id}`, { body: { ...CUSTOMER, plan: 'out', subjects: [id] } });
    }
    await count({ subject: 'closed', values: ['100', '33.5', '7'], rollup: '140.5' });
    await count({ subject: 'torn', values: ['100', '50'], rollup: '151' });
  });

  test('is closed once, and every repetition shows the same invoice', async () => {
    await ask('POST', '/v1/customers/closed/grants', { body: { amount: '0.50', reason: 'sorry' } });
    const closed = await ask('POST', '/v1/customers/closed/invoices', { body: OCTOBER });
    // (140.5 - 100) at 0.05 is 2.025: 2.03, half away from zero. Credit covers 0.50 of it.
    expect(closed).toMatchObject({
      status: 201,
      body: {
        customer: { id: 'closed', name: 'Acme' },
        currency: 'USD',
        periodStart: '2026-10-01T00:00:00.000Z',
        periodEnd: '2026-11-01T00:00:00.000Z',
        status: 'issued',
        total: '1.53',
        lines: [
          {
            kind: 'usage',
            priceKey: 'output',
            quantity: '140.5',
            included: '100',
            amount: '2.03',
            tiers: [{ quantity: '40.5', unitPrice: '0.05' }],
          },
          { kind: 'credit', amount: '-0.50' },
        ],
        delivery: null,
      },
    });
    const again = await ask('POST', '/v1/customers/closed/invoices', { body: OCTOBER });
    expect([again.status, again.body]).toEqual([200, closed.body]);
    const { id } = closed.body as { id: string };
    expect((await ask('GET', `/v1/invoices/${id}`)).body).toEqual(closed.body);
    expect((await ask('GET', '/v1/customers/closed/invoices')).body).toEqual({
      items: [closed.body],
      nextCursor: null,
    });
    expect((await ask('GET', `/v1/invoices/${id}`, { key: api.keys.other })).status).toBe(404);
    expect(await api.audit('period.close')).toEqual([`invoice/${id}`]);
  });

  test('shows in balance, ledger and entitlements', async () => {
    expect((await ask('GET', '/v1/customers/closed/balance')).body).toEqual({
      currency: 'USD',
      accruedUsage: '0.00',
      credit: '0.00',
      invoicePending: '1.53',
      receivable: '0.00',
      net: '1.53',
      asOf: '2026-11-21T08:30:00.000Z',
      periods: [],
    });
    const ledger = (await ask('GET', '/v1/customers/closed/ledger')).body as {
      items: { id: string; kind: string; postings: { account: string; amount: string }[] }[];
    };
    expect(ledger.items.map((one) => one.kind)).toEqual(['invoice', 'credit_burn', 'usage', 'grant_issue']);
    expect(ledger.items[2]?.postings).toEqual(
      expect.arrayContaining([
        { account: 'accrued_usage', amount: '2.03' },
        { account: 'revenue', amount: '-2.03' },
      ]),
    );
    const pages: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = (await ask('GET', `/v1/customers/closed/ledger?limit=3${cursor}`))
        .body as typeof ledger & { nextCursor: string | null };
      pages.push(...page.items.map((one) => one.id));
      cursor = page.nextCursor === null ? null : `&cursor=${page.nextCursor}`;
    }
    expect(pages).toEqual(ledger.items.map((one) => one.id));
    expect((await ask('GET', '/v1/customers/closed/entitlements?at=2026-10-31T23:59:59Z')).body).toEqual({
      items: [
        {
          key: 'cap',
          meter: 'output_tokens',
          limit: '140',
          used: '140.5',
          remaining: '-0.5',
          allowed: false,
          periodStart: '2026-10-01T00:00:00.000Z',
          periodEnd: '2026-11-01T00:00:00.000Z',
          asOf: '2026-11-21T08:30:00.000Z',
        },
      ],
    });
    expect((await ask('GET', '/v1/customers/closed/entitlements')).body).toMatchObject({
      items: [{ used: '0', allowed: true }],
    });
  });

  test('is held back while raw events and rollups differ, with the difference', async () => {
    const torn = await ask('POST', '/v1/customers/torn/invoices', { body: OCTOBER });
    expect(torn).toMatchObject({
      status: 409,
      body: {
        code: 'usage_mismatch',
        differences: [
          { priceKey: 'output', meter: 'output_tokens', raw: '150', rollup: '151', posted: '151' },
        ],
      },
    });
    expect((await ask('GET', '/v1/customers/torn/invoices')).body).toEqual({ items: [], nextCursor: null });
  });

  test('is one of the customer', async () => {
    const close = (body: object, id = 'closed') => ask('POST', `/v1/customers/${id}/invoices`, { body });
    expect(await close({ periodStart: '2026-10-02T00:00:00Z' })).toMatchObject({
      status: 422,
      body: { code: 'not_a_period', periodStart: '2026-10-01T00:00:00.000Z' },
    });
    expect((await close({ periodStart: '2026-09-01T00:00:00Z' })).body).toMatchObject({
      code: 'no_subscription',
    });
    expect((await close(OCTOBER, 'nobody')).body).toMatchObject({ code: 'customer_not_found' });
    expect((await close({ periodStart: 'October' })).body).toMatchObject({
      errors: [{ path: 'periodStart' }],
    });
  });

  test('and all of it is accounted for', async () => {
    await api.writer.insertJson('received_totals', [
      { tenant: 'acme-inc', shard: 0, count: 12, position: 1 },
    ]);
    await api.writer.insertJson('verdict_totals', [
      { tenant: 'acme-inc', shard: 0, verdict: 'counted', code: '', count: 7, position: 1 },
      { tenant: 'acme-inc', shard: 0, verdict: 'duplicate', code: '', count: 3, position: 1 },
      {
        tenant: 'acme-inc',
        shard: 0,
        verdict: 'rejected',
        code: 'meter_value_missing',
        count: 1,
        position: 1,
      },
    ]);
    expect((await ask('GET', '/v1/conservation')).body).toMatchObject({
      received: '12',
      counted: '7',
      duplicate: '3',
      conflict: '0',
      late: '0',
      rejected: '1',
      unaccounted: '1',
      stages: {
        edge: { accepted: '0', toldAt: null, missing: '0', provenTo: null },
        aggregator: { received: '12', counted: '7', unaccounted: '1', beyondAccepted: '12' },
        // Five events are there, of seven that were counted, and none that was kept for its rejection.
        raw: { counted: '5', rejected: '0', difference: '3' },
        stripe: { invoicedCents: '0', stripeCents: '0', differenceCents: '0' },
      },
    });
    expect((await ask('GET', '/v1/conservation', { key: api.keys.other })).body).toMatchObject({
      received: '0',
      unaccounted: '0',
    });
  });

  test('can be read as it was cut, and what came later is told by generation', async () => {
    const at = Date.UTC(2026, 9, 5, 6);
    const late = (id: string, n: string, position: number) => ({
      tenant: 'acme-inc',
      hour: at / 1_000,
      type: 'llm.answer',
      subject: 'closed',
      time: at,
      identity: randomUUID(),
      source: '',
      id,
      data: { n },
      payload_hash: 1,
      accepted_at: at,
      shard: 0,
      position,
    });
    const { items } = (await ask('GET', '/v1/customers/closed/invoices')).body as { items: { id: string }[] };
    const { id } = items[0]!;
    const [taken] = await api.writer.rows<{ identity: string; time: string; position: string }>(
      `SELECT toString(identity) AS identity, time, toString(position) AS position FROM events FINAL
       WHERE subject = 'closed' AND data['n'] = '7'`,
    );
    // Behind the cut: an event, one that takes back 7, and one behind the cut of a later invoice too.
    await insertEventRows(api.writer, 'events', [late('l-1', '0.25', 200_000), late('l-2', '4', 400_000)]);
    await api.writer.insertJson('corrections', [
      {
        tenant: 'acme-inc',
        hour: Date.UTC(2026, 9, 5) / 1_000,
        retired: taken!.identity,
        root: taken!.identity,
        correction: randomUUID(),
        kind: 'void',
        shard: 0,
        position: 200_001,
        type: 'llm.answer',
        subject: 'closed',
        time: taken!.time,
      },
    ]);
    await api.pg.query(
      `INSERT INTO ledger.invoices (tenant, id, number, customer, currency, period_start, period_end, total, cut, status, issued_at)
       SELECT tenant, 'inv_later', 'INV-900000', customer, currency, period_end, period_end + interval '1 month', 0,
         '{"0": "300000"}', 'issued', issued_at + interval '1 month' FROM ledger.invoices WHERE tenant = 'acme-inc' AND id = $1`,
      [id],
    );

    const asOf = async (invoice: string, query = ''): Promise<Usage> => {
      const path = `/v1/usage?meter=output_tokens&subject=closed&asOf=${invoice}${query}`;
      const answer = await ask('GET', path, { key: api.keys.reader });
      expect(answer.status, JSON.stringify(answer.body)).toBe(200);
      return answer.body;
    };
    // 100 + 33.5 + 7, what the invoice says; the rest by hand.
    const october = { windowStart: '2026-10-01T00:00:00.000Z', windowEnd: '2026-11-01T00:00:00.000Z' };
    expect((await asOf(id)).rows).toEqual([{ ...october, subject: 'closed', group: {}, value: '140.5' }]);
    const again = await asOf('inv_later', '&from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z&window=hour');
    expect(again.rows.map((row) => [row.windowStart, row.value])).toEqual([
      ['2026-10-05T00:00:00.000Z', '133.5'],
      ['2026-10-05T06:00:00.000Z', '0.25'],
    ]);
    const of = (invoice: string, key = api.keys.reader) =>
      ask('GET', `/v1/usage/late?invoice=${invoice}`, { key });
    const row = { meter: 'output_tokens', subject: 'closed' };
    expect((await of(id)).body).toMatchObject({
      invoice: id,
      periodStart: october.windowStart,
      periodEnd: october.windowEnd,
      rows: [
        {
          ...row,
          generation: 1,
          invoice: 'inv_later',
          added: '1',
          addedQuantity: '0.25',
          retired: '1',
          retiredQuantity: '7',
          lastTime: '2026-10-05T06:00:00.000Z',
        },
        { ...row, generation: 2, invoice: null, added: '1', addedQuantity: '4', retired: '0' },
      ],
    });
    expect((await of('inv_later')).body).toMatchObject({ rows: [] });
    expect((await of(id, api.keys.other)).status).toBe(404);
    expect((await ask('GET', `/v1/usage/late?invoice=${id}&meter=other`)).body).toMatchObject({ rows: [] });
    const foreign = await ask('GET', `/v1/usage?meter=input_tokens&asOf=${id}`, { key: api.keys.other });
    expect(foreign).toMatchObject({ status: 404, body: { code: 'invoice_not_found' } });
  });
});

describe('what the edges acknowledged', () => {
  const stopping = new AbortController();
  let bucket: KeyValue;
  let totals: EdgeTotals;
  let nowMs = Date.UTC(2026, 10, 22);

  beforeAll(async () => {
    bucket = await openKeyValue(api.link, BUCKET_ACKNOWLEDGED);
    totals = new EdgeTotals({
      pg: api.pg,
      ch: api.ch,
      clock: { now: () => nowMs },
      log: createLog('test', 'silent'),
      bucket,
      shards: 2,
      lastSequence: async (shard) => (await api.link.jsm.streams.info(streamName(shard))).state.last_seq,
    });
    await totals.watch(stopping.signal);
  });
  afterAll(() => stopping.abort());

  const tell = async (entry: string, events: number, isLogged = true): Promise<void> => {
    const told = { tenant: 'globex', entry, events, isLogged, toldAtMs: nowMs };
    await bucket.put(acknowledgedKey(told), JSON.stringify(told));
  };
  interface Stages {
    readonly edge: { accepted: string; toldAt: string | null; missing: string; provenTo: string | null };
    readonly aggregator: { received: string; beyondAccepted: string };
  }
  const stages = async (): Promise<Stages> =>
    ((await ask('GET', '/v1/conservation', { key: api.keys.other })).body as { stages: Stages }).stages;
  const accepted = (events: string) =>
    until(`${events} events are told`, async () => {
      await totals.store();
      return (await stages()).edge.accepted === events;
    });
  /** Later than anything before, a proof: one turn takes a mark, the next one looks whether it is passed. */
  const prove = async (): Promise<bigint> => {
    nowMs += 60_000;
    await totals.turn();
    nowMs += 60_000;
    return (await totals.turn()).missing;
  };
  const received = (count: number, position: number) =>
    api.writer.insertJson('received_totals', [{ tenant: 'globex', shard: 1, count, position }]);

  test('is looked for in the log once the watermarks have passed it, and what is missing is told', async () => {
    await tell('edge-1', 7);
    await tell('edge-2', 5);
    await accepted('12');
    await received(12, 1);
    // The logs hold messages that no watermark has passed.
    await prove();
    expect((await stages()).edge).toMatchObject({ accepted: '12', missing: '0', provenTo: null });
    await api.writer.insertJson(
      'watermarks',
      [0, 1].map((shard) => ({
        shard,
        incarnation: 0,
        sequence: 1_000,
        position: packPosition(0, 1_000, 0).toString(),
        stream_created: '',
        fingerprint: '',
        accepted_at: nowMs,
        flushed_at: nowMs,
      })),
    );
    expect(await prove()).toBe(0n);
    expect((await stages()).edge.provenTo).not.toBeNull();
    expect((await stages()).aggregator).toMatchObject({ received: '12', beyondAccepted: '0' });

    // Three more are promised, and the log does not have them.
    await tell('edge-1', 10);
    await accepted('15');
    await prove();
    expect(await prove()).toBe(3n);
    expect((await stages()).edge).toMatchObject({ accepted: '15', missing: '3' });
    expect((await ask('GET', '/v1/conservation')).body).toMatchObject({ stages: { edge: { missing: '0' } } });
    // A total that comes again, or an older one, changes nothing.
    await tell('edge-1', 4);
    await tell('edge-2', 5);
    // Their senders send them again.
    await received(15, 2);
    await prove();
    expect(await prove()).toBe(0n);
    expect((await stages()).edge).toMatchObject({ accepted: '15', missing: '0' });
  });

  test('is not looked for while a journal alone has some of it', async () => {
    await tell('edge-2', 9, false);
    await accepted('19');
    await prove();
    const { provenTo } = (await stages()).edge;
    expect(await prove()).toBe(0n);
    expect((await stages()).edge.provenTo).toBe(provenTo);
    await tell('edge-2', 9);
    await until('the journal is empty', async () => (await prove()) === 4n);
    await received(19, 3);
    await until('they are found', async () => (await prove()) === 0n);
  });

  test('is kept in one row a tenant when its edges have rested for long', async () => {
    nowMs += 8 * 24 * HOUR_MS;
    await prove();
    expect((await stages()).edge.accepted).toBe('19');
    const rows = await api.pg.query('SELECT entry FROM ledger.acknowledged_totals WHERE tenant = $1', [
      'globex',
    ]);
    expect(rows).toEqual([{ entry: '' }]);
    expect(await bucket.get('edge-1/globex')).toBeNull();
    // A bucket that was set back gives an entry again that is folded already.
    nowMs -= 8 * 24 * HOUR_MS;
    await tell('edge-1', 10);
    nowMs += 8 * 24 * HOUR_MS;
    await tell('edge-3', 1);
    await accepted('20');
  });
});
