import { spawn, spawnSync } from 'node:child_process';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { HTTPError, OpenMeter } from '@openmeter/sdk';
import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';
import { Packr } from 'msgpackr';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BUCKET_QUOTAS } from '../contract/subjects.ts';
import { openKeyValue } from '../runtime/nats.ts';
import { EdgeWorld, post, usageEvent, type Answer, type RunningEdge } from './edge-world.ts';
import { until } from './until.ts';

// The same events in every format that the edge takes, over a real edge and a real NATS, and what the clients that
// people have send.

const BODY_BYTES_MAX = 1_048_576;

let world: EdgeWorld;
let edge: RunningEdge;
let key: string;

beforeAll(async () => {
  world = await EdgeWorld.start();
  edge = await world.edge({ TALLYLINE_EDGE_BODY_BYTES_MAX: String(BODY_BYTES_MAX) });
  ({ key } = await world.newKey());
  await until('the key is known', async () => (await post(edge.url, key, '[]')).status === 202);
});
afterAll(() => world?.stop());

interface Sent {
  readonly type: string;
  readonly body: Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

type Attributes = Readonly<Record<string, unknown>>;

const packr = new Packr({ useRecords: false, variableMapSize: true });
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const lines = (events: readonly Attributes[]): Buffer =>
  Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(''));
const asCloudEvent = (event: Attributes): Attributes => ({ specversion: '1.0', ...event });

/** Formats that hold many events, by what they are called here. */
const MANY: Readonly<Record<string, (events: readonly Attributes[]) => Sent>> = {
  'a JSON array': (events) => ({ type: 'application/json', body: json(events) }),
  'JSON with a charset': (events) => ({ type: 'application/json; charset=UTF-8', body: json(events) }),
  NDJSON: (events) => ({ type: 'application/x-ndjson', body: lines(events) }),
  'NDJSON by its second name': (events) => ({ type: 'application/ndjson', body: lines(events) }),
  'JSON lines': (events) => ({ type: 'application/jsonl', body: lines(events) }),
  msgpack: (events) => ({ type: 'application/msgpack', body: packr.pack(events) }),
  'msgpack by its second name': (events) => ({ type: 'application/x-msgpack', body: packr.pack(events) }),
  'msgpack by its third name': (events) => ({ type: 'application/vnd.msgpack', body: packr.pack(events) }),
  'a batch of CloudEvents': (events) => ({
    type: 'application/cloudevents-batch+json; charset=utf-8',
    body: json(events.map(asCloudEvent)),
  }),
};

const percent = (value: unknown): string => encodeURIComponent(value as string);

/** Formats that hold one event. */
const ONE: Readonly<Record<string, (event: Attributes) => Sent>> = {
  'a JSON object': (event) => ({ type: 'application/json', body: json(event) }),
  'a msgpack map': (event) => ({ type: 'application/msgpack', body: packr.pack(event) }),
  'a line': (event) => ({ type: 'application/x-ndjson', body: json(event) }),
  'a CloudEvent': (event) => ({ type: 'application/cloudevents+json', body: json(asCloudEvent(event)) }),
  'a CloudEvent in binary mode': ({ data, ...attributes }) => ({
    type: 'application/json',
    body: data === undefined ? Buffer.alloc(0) : json(data),
    headers: {
      'ce-specversion': '1.0',
      ...Object.fromEntries(
        Object.entries(attributes).map(([name, value]) => [`ce-${name}`, percent(value)]),
      ),
    },
  }),
};

const ENCODINGS: Readonly<Record<string, (body: Uint8Array) => Uint8Array>> = {
  identity: (body) => body,
  gzip: (body) => gzipSync(body),
  br: (body) => brotliCompressSync(body),
};

const send = (
  sent: Sent,
  path = '/v1/events',
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> =>
  post(edge.url, key, sent.body, { type: sent.type, path, headers: { ...sent.headers, ...headers } });

/** One that has everything in it. */
const rich = (id: string): Attributes => ({
  id,
  source: 'gateway/eu "1"',
  type: 'llm.request',
  subject: 'café 😀 50%',
  time: '2026-11-20T10:00:00.250+01:00',
  data: {
    tokens: 1200,
    cost: 0.00125,
    below: -7,
    model: 'größer\n"m"',
    cached: false,
    nothing: null,
    parts: [1, 'two', { three: 3.5 }],
    nested: { deep: { er: 'x' }, empty: {} },
  },
});

describe('the same event', () => {
  const id = 'same-é-1';

  test('has one identity and one payload in the log, whatever format and encoding it came in', async () => {
    let sends = 0;
    for (const encoding of Object.keys(ENCODINGS)) {
      const formats = [
        ...Object.values(ONE),
        ...Object.values(MANY).map((many) => (one: Attributes) => many([one])),
      ];
      for (const format of formats) {
        const sent = format(rich(id));
        const body = ENCODINGS[encoding]!(sent.body);
        const headers: Record<string, string> =
          encoding === 'identity' ? {} : { 'content-encoding': encoding };
        const answer = await send({ ...sent, body }, '/v1/events', headers);
        expect([sent.type, encoding, answer.status, answer.body]).toEqual([
          sent.type,
          encoding,
          202,
          { accepted: 1, rejected: [], unmatched: 1 },
        ]);
        sends += 1;
      }
    }
    const logged = await world.events('same-');
    expect(logged).toHaveLength(sends);
    const [first] = logged;
    // Worked out from what was sent.
    expect(first).toMatchObject({
      id,
      tenant: 'acme',
      source: 'gateway/eu "1"',
      subject: 'café 😀 50%',
      timeMs: Date.UTC(2026, 10, 20, 9, 0, 0, 250),
      timeGiven: true,
      fields: {
        tokens: '1200e-0',
        cost: '125e-5',
        below: '-7e-0',
        model: 'größer\n"m"',
        cached: 'false',
        nothing: 'null',
        parts: '[1,"two",{"three":3.5}]',
        'nested.deep.er': 'x',
        'nested.empty': '{}',
      },
    });
    for (const event of logged) expect(event).toEqual(first);
  });

  test('without time or data is the same, too', async () => {
    for (const format of Object.values(ONE)) {
      const answer = await send(format({ id: 'bare-1', source: 's', type: 't', subject: 'c' }));
      expect(answer.status).toBe(202);
    }
    const logged = await world.events('bare-');
    expect(logged).toHaveLength(Object.keys(ONE).length);
    expect(new Set(logged.map(({ identity, payload }) => `${identity} ${payload}`)).size).toBe(1);
    expect(logged.every(({ timeGiven }) => !timeGiven)).toBe(true);
  });
});

describe('a bad event among good ones', () => {
  const cases = Object.entries(MANY);
  test.each(cases)('is rejected alone in %s', async (name, format) => {
    const id = (which: string): string => `part-${cases.findIndex(([each]) => each === name)}-${which}`;
    const events = [
      usageEvent(id('a')),
      usageEvent(id('bad'), { subject: 7 }),
      usageEvent(id('b')),
    ] as Attributes[];
    const answer = await send(format(events));
    const rejected = [
      {
        index: 1,
        id: id('bad'),
        code: 'field_not_text',
        message: 'subject: This field must be a string.',
      },
    ];
    expect(answer).toMatchObject({ status: 202, body: { accepted: 2, rejected } });
    expect((await world.events(id(''))).map((event) => event.id).sort()).toEqual([id('a'), id('b')]);

    // A client of OpenMeter looks at the status alone.
    const told = await send(format(events), '/api/v1/events');
    expect(told).toMatchObject({ status: 400, body: { code: 'events_rejected', accepted: 2, rejected } });
    const fine = await send(format([usageEvent(id('c')) as Attributes]), '/api/v1/events');
    expect([fine.status, fine.body, fine.headers.get('content-length')]).toEqual([204, {}, null]);
    expect(await world.events(id(''))).toHaveLength(5);
  });

  test.each(Object.entries(ONE))('alone is a problem, in %s', async (_name, format) => {
    const event = usageEvent('alone-1', { type: 'x'.repeat(200) }) as Attributes;
    const rejected = [{ index: 0, id: 'alone-1', code: 'field_too_long' }];
    expect(await send(format(event))).toMatchObject({
      status: 422,
      body: { code: 'no_event_admitted', accepted: 0, rejected },
    });
    expect(await send(format(event), '/api/v1/events')).toMatchObject({
      status: 400,
      body: { code: 'events_rejected', accepted: 0, rejected },
    });
  });

  test('is named even when all ten thousand are', async () => {
    const answer = await send({
      type: 'application/json',
      body: json(Array.from({ length: 10_000 }, () => 7)),
    });
    expect(answer.status).toBe(422);
    const rejected = answer.body['rejected'] as { index: number }[];
    expect(rejected.map(({ index }) => index)).toEqual(Array.from({ length: 10_000 }, (_, at) => at));
  });
});

describe('a body that is not what it says', () => {
  const codeOf = ({ status, body }: Answer): unknown[] => [status, body['code']];
  const event = json(usageEvent('broken-1'));

  test.each<[string, Sent, number, string]>([
    ['text', { type: 'text/plain', body: event }, 415, 'content_type_unknown'],
    [
      'another charset',
      { type: 'application/json; charset=latin1', body: event },
      415,
      'content_type_unknown',
    ],
    ['JSON as msgpack', { type: 'application/msgpack', body: Buffer.from([0xc1]) }, 400, 'body_not_msgpack'],
    [
      'cut msgpack',
      { type: 'application/msgpack', body: packr.pack([{ id: 'a' }]).subarray(0, -1) },
      400,
      'body_not_msgpack',
    ],
    ['msgpack as JSON', { type: 'application/json', body: packr.pack({ id: 'a' }) }, 400, 'body_not_unicode'],
    ['no JSON', { type: 'application/cloudevents+json', body: Buffer.from('{"id":') }, 400, 'body_not_json'],
    ['nothing', { type: 'application/json', body: Buffer.alloc(0) }, 400, 'body_not_json'],
    [
      'a CloudEvent without a version',
      { type: 'application/cloudevents+json', body: event },
      422,
      'no_event_admitted',
    ],
  ])('%s is refused', async (_what, sent, status, code) => {
    expect(codeOf(await send(sent))).toEqual([status, code]);
  });

  test.each<[string, Uint8Array, string, number, string]>([
    ['no gzip', event, 'gzip', 400, 'body_not_decompressed'],
    ['no brotli', event, 'br', 400, 'body_not_decompressed'],
    ['cut gzip', gzipSync(event).subarray(0, -5), 'gzip', 400, 'body_not_decompressed'],
    ['events behind the gzip', Buffer.concat([gzipSync(event), event]), 'gzip', 400, 'body_not_decompressed'],
    ['gzip in gzip', gzipSync(gzipSync(event)), 'gzip, gzip', 415, 'content_encoding_unknown'],
    ['deflate', event, 'deflate', 415, 'content_encoding_unknown'],
    ['gzip of no JSON', gzipSync('{"id":'), 'gzip', 400, 'body_not_json'],
    ['a gzip bomb', gzipSync(Buffer.alloc(50_000_000, ' ')), 'gzip', 413, 'body_too_large'],
    ['a brotli bomb', brotliCompressSync(Buffer.alloc(50_000_000, ' ')), 'br', 413, 'body_too_large'],
  ])('%s is refused', async (_what, body, encoding, status, code) => {
    const answer = await send({ type: 'application/json', body }, '/v1/events', {
      'content-encoding': encoding,
    });
    expect(codeOf(answer)).toEqual([status, code]);
    if (status === 415) expect(answer.headers.get('accept-encoding')).toBe('gzip, br');
  });

  test('several members of gzip are one body', async () => {
    const [first, second] = [usageEvent('member-1'), usageEvent('member-2')].map((each) =>
      gzipSync(`${JSON.stringify(each)}\n`),
    );
    const sent = { type: 'application/x-ndjson', body: Buffer.concat([first!, second!]) };
    expect(await send(sent, '/v1/events', { 'content-encoding': 'gzip' })).toMatchObject({
      status: 202,
      body: { accepted: 2 },
    });
    expect(await world.events('member-')).toHaveLength(2);
  });

  test('a hundred bombs at once take no memory, and others are answered meanwhile', async () => {
    const rss = async (): Promise<number> => {
      const metrics = await (await fetch(`${edge.ops}/metrics`)).text();
      return Number(/^tallyline_process_resident_memory_bytes\{[^}]*\} (\S+)$/m.exec(metrics)![1]);
    };
    const before = await rss();
    const bomb = gzipSync(Buffer.alloc(200_000_000));
    let peak = 0;
    let going = true;
    const watching = (async () => {
      while (going) {
        peak = Math.max(peak, await rss());
        const answer = await send({ type: 'application/json', body: json(usageEvent('meanwhile-1')) });
        expect(answer.status).toBe(202);
      }
    })();
    const answers = await Promise.all(
      Array.from({ length: 100 }, () =>
        send({ type: 'application/json', body: bomb }, '/v1/events', { 'content-encoding': 'gzip' }),
      ),
    );
    going = false;
    await watching;
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([413]));
    // A hundred compressed bodies are 20 MB, and would be 20 GB.
    expect(peak - before).toBeLessThan(150_000_000);
  });
});

describe('binary mode', () => {
  const binary = (
    headers: Readonly<Record<string, string>>,
    body: string,
    type = 'application/json',
  ): Promise<Answer> =>
    send({ type, body: Buffer.from(body), headers: { 'ce-specversion': '1.0', ...headers } });
  const sound = { 'ce-id': 'bin-1', 'ce-source': 's', 'ce-type': 't', 'ce-subject': 'c' };
  const codesOf = ({ body }: Answer): unknown =>
    (body['rejected'] as { code: string; message: string }[] | undefined)?.map(({ code, message }) => [
      code,
      message.split(':')[0],
    ]) ?? body['code'];

  test('keeps numbers and texts of the body as they were sent', async () => {
    const answer = await binary(
      { ...sound, 'ce-traceparent': '00-1' },
      ' {"n": 1.50e2, "t": "a\\u00e9"}\n',
      'application/vnd.x+json',
    );
    expect(answer).toMatchObject({ status: 202, body: { accepted: 1 } });
    expect(await world.events('bin-1')).toMatchObject([{ fields: { n: '150e-0', t: 'aé' } }]);
  });

  test.each<[string, Record<string, string>, string, unknown]>([
    ['a missing attribute', { 'ce-subject': '' }, '{}', [['field_missing', 'subject']]],
    [
      'another version',
      { 'ce-specversion': '0.3' },
      '{}',
      [['specversion_unknown', 'specversion must be "1.0", the version of CloudEvents that is taken here.']],
    ],
    [
      'a percent sign that encodes nothing',
      { 'ce-subject': '100%' },
      '{}',
      [['text_not_unicode', 'ce-subject']],
    ],
    ['bytes that are no UTF-8', { 'ce-subject': 'a%C0%A0' }, '{}', [['text_not_unicode', 'ce-subject']]],
    ['raw bytes beyond ASCII', { 'ce-subject': 'caf\u00e9s' }, '{}', [['text_not_unicode', 'ce-subject']]],
    ['a control character', { 'ce-subject': 'a%00' }, '{}', [['text_has_control', 'subject']]],
    ['data that is no object', {}, '[1]', [['data_not_an_object', 'data']]],
    ['a key of data that stands twice', {}, '{"a":1,"a":2}', [['key_repeated', 'data.a']]],
    ['data that is no JSON', {}, '{"a":', 'body_not_json'],
    ['data that closes early and goes on', {}, '{},"subject":"evil"', 'body_not_json'],
    ['an event behind the data', {}, '{}}{"id":"evil"', 'body_not_json'],
  ])('%s is refused', async (_what, headers, body, codes) => {
    const answer = await binary({ ...sound, 'ce-id': 'bin-bad', ...headers }, body);
    expect(codesOf(answer)).toEqual(codes);
    expect(await world.events('bin-bad')).toEqual([]);
  });

  test('the type of data must be JSON', async () => {
    for (const type of ['text/plain', 'application/msgpack', 'application/x-ndjson'])
      expect(await binary(sound, '{}', type)).toMatchObject({
        status: 415,
        body: { code: 'content_type_unknown' },
      });
  });
});

describe('clients as they are', () => {
  test('the SDK of OpenMeter, unchanged', async () => {
    const { events } = new OpenMeter({ baseUrl: edge.url, apiKey: key });
    const use = (id: string) => ({ id, type: 'prompt', subject: 'cus_1', data: { tokens: 5 } });
    await events.ingest(use('om-1'));
    await events.ingest([use('om-1'), use('om-2')]);
    const failure: unknown = await events
      .ingest([{ ...use('om-3'), subject: '' }, use('om-3')])
      .catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(HTTPError);
    const error = failure as HTTPError;
    expect(error).toMatchObject({
      status: 400,
      title: 'Some events of the request were rejected, all others are stored.',
    });
    expect(error.getField('rejected')).toMatchObject([{ index: 0, id: 'om-3', code: 'field_missing' }]);
    expect(error.getField('accepted')).toBe(1);
    const logged = await world.events('om-');
    expect(logged.map(({ id }) => id).sort()).toEqual(['om-1', 'om-1', 'om-2', 'om-3']);
    expect(logged[0]).toMatchObject({ source: '@openmeter/sdk', type: 'prompt', fields: { tokens: '5e-0' } });
    const refused = new OpenMeter({ baseUrl: edge.url, apiKey: 'tl_wrong' }).events.ingest(use('om-4'));
    await expect(refused).rejects.toMatchObject({ status: 401 });
  });

  test('the SDK of CloudEvents, unchanged, in both modes', async () => {
    const headers = { authorization: `Bearer ${key}` };
    const event = new CloudEvent({
      id: 'ce-sdk-1',
      source: '/products/a',
      type: 'com.example.use',
      subject: 'cus_1',
      time: '2026-11-20T10:00:00.250Z',
      data: { tokens: 7, model: 'größer' },
    });
    for (const mode of [Mode.STRUCTURED, Mode.BINARY]) {
      const emit = emitterFor(httpTransport(`${edge.url}/v1/events`), { mode });
      const { body } = (await emit(event, { headers })) as { body: string };
      expect(JSON.parse(body)).toMatchObject({ accepted: 1, rejected: [] });
    }
    const answer = await send({ type: 'application/cloudevents-batch+json', body: json([event, event]) });
    expect(answer).toMatchObject({ status: 202, body: { accepted: 2 } });
    const logged = await world.events('ce-sdk-');
    expect(logged).toHaveLength(4);
    for (const each of logged) expect(each).toEqual(logged[0]);
    expect(logged[0]).toMatchObject({
      fields: { tokens: '7e-0', model: 'größer' },
      timeMs: Date.UTC(2026, 10, 20, 10, 0, 0, 250),
    });
  });

  test.skipIf(spawnSync('curl', ['--version']).error !== undefined)('curl', async () => {
    const curl = (input: Uint8Array, ...more: string[]): Promise<string> =>
      new Promise((resolve, reject) => {
        const flags = [
          '-sS',
          '-m',
          '20',
          '-w',
          ' %{http_code}',
          '-H',
          `authorization: Bearer ${key}`,
          '--data-binary',
          '@-',
        ];
        const child = spawn('curl', [...flags, ...more, `${edge.url}/v1/events`], { stdio: 'pipe' });
        let printed = '';
        child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
        child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
        child.once('error', reject);
        child.once('close', () => resolve(printed));
        child.stdin.end(input);
      });
    const taken = (accepted: number): string =>
      `{"accepted":${accepted},"rejected":[],"unmatched":${accepted}} 202`;
    const ndjson = ['-H', 'content-type: application/x-ndjson'];
    const two = lines([usageEvent('curl-1'), usageEvent('curl-2')] as Attributes[]);
    expect(await curl(two, ...ndjson)).toBe(taken(2));
    expect(await curl(gzipSync(two), ...ndjson, '-H', 'content-encoding: gzip')).toBe(taken(2));
    expect(await curl(two, ...ndjson, '-H', 'transfer-encoding: chunked')).toBe(taken(2));
    // Large enough for curl to ask before it sends (Expect: 100-continue).
    const many = Array.from({ length: 1_000 }, (_, at) =>
      usageEvent(`curl-many-${at}`, { data: { t: 'x'.repeat(900) } }),
    );
    expect(await curl(json(many), '-H', 'content-type: application/json', '-H', 'expect: 100-continue')).toBe(
      taken(1_000),
    );
    const ce = ['specversion: 1.0', 'id: curl-3', 'source: s', 'type: t', 'subject: c'].flatMap((each) => [
      '-H',
      `ce-${each}`,
    ]);
    expect(await curl(json({ n: 1 }), '-H', 'content-type: application/json', ...ce)).toBe(taken(1));
    expect(await world.events('curl-')).toHaveLength(2 + 2 + 2 + 1_000 + 1);
  });
});

test('a tenant with a quota is told of it, and when to come again', async () => {
  const quotas = await openKeyValue(world.link, BUCKET_QUOTAS);
  const limited = await world.newKey(['ingest'], 'limited');
  const body = JSON.stringify([usageEvent('quota-1'), usageEvent('quota-2')]);
  await until('the key is known', async () => (await post(edge.url, limited.key, '[]')).status === 202);
  expect((await post(edge.url, limited.key, body)).headers.get('ratelimit')).toBeNull();
  await quotas.put('limited', JSON.stringify({ eventsPerSecond: 1, bytesPerSecond: null }));
  await until('the quota is known', async () =>
    (await post(edge.url, limited.key, '[]')).headers.has('ratelimit'),
  );
  const taken = await post(edge.url, limited.key, body);
  expect(taken.status).toBe(202);
  expect(taken.headers.get('ratelimit-policy')).toBe('"events";q=2;qu="events";w=2');
  let refused = taken;
  await until(
    'it is used up',
    async () => (refused = await post(edge.url, limited.key, body)).status === 429,
  );
  expect(refused.body).toMatchObject({ code: 'quota_exceeded' });
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
  expect(refused.headers.get('ratelimit')).toMatch(/^"events";r=0;t=\d+$/);
  // Another tenant does not notice.
  expect((await post(edge.url, key, body)).status).toBe(202);
});

test('the edge describes itself, and says what else there is', async () => {
  const described = await fetch(`${edge.url}/openapi.json`);
  expect([described.status, described.headers.get('content-type')]).toEqual([200, 'application/json']);
  const document = (await described.json()) as { openapi: string; paths: Record<string, object> };
  expect(document.openapi).toBe('3.1.0');
  expect(JSON.stringify(document.paths['/v1/events'])).toContain(`At most ${BODY_BYTES_MAX} bytes`);
  const answerTo = async (method: string, path: string): Promise<unknown[]> => {
    const response = await fetch(`${edge.url}${path}`, { method });
    const code = ((await response.json()) as { code: string }).code;
    return [response.status, code, response.headers.get('allow'), response.headers.get('upgrade')];
  };
  expect(await answerTo('GET', '/v1/events')).toEqual([405, 'method_not_allowed', 'POST', null]);
  expect(await answerTo('OPTIONS', '/v1/events')).toEqual([405, 'method_not_allowed', 'POST', null]);
  expect(await answerTo('PUT', '/api/v1/events')).toEqual([405, 'method_not_allowed', 'POST', null]);
  expect(await answerTo('DELETE', '/openapi.json')).toEqual([405, 'method_not_allowed', 'GET', null]);
  expect(await answerTo('GET', '/v1/stream')).toEqual([426, 'upgrade_required', null, 'websocket']);
  expect(await answerTo('GET', '/v1')).toEqual([404, 'not_found', null, null]);
  expect(await answerTo('POST', '/')).toEqual([404, 'not_found', null, null]);
  expect((await fetch(`${edge.url}/healthz`)).headers.get('uwebsockets')).toBeNull();
});
