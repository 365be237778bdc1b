// The API in this process, on real Postgres, ClickHouse and NATS, asked over real HTTP.
import { randomBytes, randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import Ajv2020 from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeMeterDefined } from '../contract/control.ts';
import type { Scope } from '../contract/key.ts';
import { BUCKET_KEYS, BUCKET_METERS, streamName, streamSubject } from '../contract/subjects.ts';
import { HOUR_MS } from '../contract/window.ts';
import { buildApi } from '../ledger/api/server.ts';
import type { ApiContext, App } from '../ledger/api/context.ts';
import { PROBLEMS } from '../ledger/api/problems.ts';
import { forgetAnswers } from '../ledger/api/write.ts';
import { openPublisher, type Publisher } from '../ledger/publish.ts';
import { activeKeys, createKey, createTenant } from '../ledger/tenants.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { migrateClickHouse, migratePostgres } from '../runtime/migrate.ts';
import { connectNats, ensureStream, openKeyValue, type NatsLink } from '../runtime/nats.ts';
import { connectPostgres, type Postgres } from '../runtime/postgres.ts';
import { startEngines, type Engines } from './engines.ts';

const SHARDS = 2;
/** All requests happen at this instant, unless a test moves it. */
let nowMs = Date.UTC(2026, 10, 21, 8, 30);

let engines: Engines;
let pg: Postgres;
let locks: Postgres;
let writer: ClickHouse;
let ch: ClickHouse;
let link: NatsLink;
let publisher: Publisher;
let app: App;
let url: string;
let usageReady = true;
const keys: Record<'admin' | 'reader' | 'ingest' | 'other', string> = { admin: '', reader: '', ingest: '', other: '' };

beforeAll(async () => {
  engines = await startEngines({ nats: true, postgres: true, clickhouse: true });
  const log = createLog('test', 'silent');
  const database = { url: engines.databaseUrl, log, statementTimeoutMs: 20_000 };
  pg = connectPostgres({ ...database, name: 'api', poolMax: 6 });
  locks = connectPostgres({ ...database, name: 'api locks', poolMax: 2 });
  await migratePostgres(pg, { directory: new URL('../ledger/migrations/', import.meta.url), schema: 'ledger' });
  writer = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 20_000 });
  ch = connectClickHouse({ url: engines.clickhouseReaderUrl, name: 'test', requestTimeoutMs: 20_000 });
  await migrateClickHouse(writer, {
    directory: new URL('../aggregator/schema/', import.meta.url),
    component: 'aggregator',
  });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log });
  for (let shard = 0; shard < SHARDS; shard++) {
    await ensureStream(link, {
      name: streamName(shard),
      subjects: [streamSubject(shard)],
      maxBytes: 10_000_000,
      replicas: 1,
    });
  }
  publisher = await openPublisher(link, { shards: SHARDS });
  keys.admin = await keyOf('acme-inc', ['ingest', 'read', 'admin']);
  keys.reader = await keyOf('acme-inc', ['read']);
  keys.ingest = await keyOf('acme-inc', ['ingest']);
  keys.other = await keyOf('globex', ['read', 'admin']);
  const context: ApiContext = {
    pg,
    locks,
    ch,
    usageReady: () => usageReady,
    publisher,
    clock: { now: () => nowMs },
    log,
    metrics: createMetrics('test'),
    randomBytes: (length) => randomBytes(length),
    limits: { bodyBytesMax: 100_000, keyCacheMs: 60_000, exportRowsMax: 50, requestsMax: 100 },
  };
  app = await buildApi(context);
  await app.listen({ host: '127.0.0.1', port: 0 });
  url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  await app?.close();
  await publisher?.close();
  await link?.close();
  await Promise.all([pg?.close(), locks?.close(), writer?.close(), ch?.close()]);
  await engines?.stop();
});

async function keyOf(tenant: string, scopes: readonly Scope[]): Promise<string> {
  return pg.transaction(async (tx) => {
    await createTenant(tx, { tenant, name: tenant, nowMs });
    return (await createKey(tx, { tenant, scopes, label: 'test', nowMs, random: randomBytes(64) })).key;
  });
}

interface Told {
  readonly status: number;
  readonly headers: Headers;
  // The tests say what they expect of it.
  readonly body: never;
}

interface Asked {
  readonly key?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

/** Asks, and holds the answer against what the OpenAPI document says about it. */
async function ask(method: string, path: string, asked: Asked = {}): Promise<Told> {
  const response = await fetch(url + path, {
    method,
    headers: {
      ...(asked.key === '' ? {} : { authorization: `Bearer ${asked.key ?? keys.admin}` }),
      ...(asked.body === undefined ? {} : { 'content-type': 'application/json' }),
      ...asked.headers,
    },
    ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
  });
  const type = response.headers.get('content-type') ?? '';
  const bytes = Buffer.from(await response.arrayBuffer());
  const body: unknown = type.includes('json') && !type.includes('ndjson') ? JSON.parse(bytes.toString()) : bytes;
  conforms(method, path, response.status, type, body);
  return { status: response.status, headers: response.headers, body: body as never };
}

interface Media {
  readonly schema?: object;
}

interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly tags?: string[];
  readonly parameters?: { name: string; in: string; required?: boolean; schema?: object }[];
  readonly requestBody?: { content: Record<string, Media> };
  readonly responses: Record<string, { description: string; content?: Record<string, Media> }>;
}

interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { schemas: Record<string, object>; securitySchemes: object };
}

let document: Document | undefined;
let ajv: Ajv2020.default | undefined;

function described(): { document: Document; ajv: Ajv2020.default } {
  document ??= app.swagger() as unknown as Document;
  if (ajv === undefined) {
    ajv = new Ajv2020.default({ strict: false, allErrors: true, validateFormats: false });
    ajv.addSchema({ $id: 'openapi', ...document });
  }
  return { document, ajv };
}

function conforms(method: string, path: string, status: number, type: string, body: unknown): void {
  const { document, ajv } = described();
  const pathname = path.split('?', 1)[0]!;
  const template = Object.keys(document.paths).find((one) =>
    new RegExp(`^${one.replace(/\{[^}]+\}/g, '[^/]+')}$`).test(pathname),
  );
  const operation = template === undefined ? undefined : document.paths[template]?.[method.toLowerCase()];
  if (operation === undefined || template === undefined) return expect(status).toBe(404);
  const answer = operation.responses[String(status)];
  expect(answer, `${method} ${template} does not describe ${status}`).toBeDefined();
  if (status === 204) return;
  const media = type.split(';', 1)[0]!;
  expect(Object.keys(answer?.content ?? {}), `${method} ${template} ${status}`).toContain(media);
  if (!media.endsWith('json')) return;
  const pointer = ['paths', template, method.toLowerCase(), 'responses', String(status), 'content', media, 'schema']
    .map((part) => part.replaceAll('~', '~0').replaceAll('/', '~1'))
    .map(encodeURIComponent)
    .join('/');
  const validate = ajv.getSchema(`openapi#/${pointer}`);
  expect(validate).toBeDefined();
  expect(validate?.(body), `${method} ${path}: ${ajv.errorsText(validate?.errors ?? [])}`).toBe(true);
}

const TOKENS = {
  key: 'input_tokens',
  eventType: 'llm.request',
  aggregation: 'sum',
  valueProperty: 'input_tokens',
  groupBy: ['model', 'user.plan'],
};

test('smoke', async () => {
  const made = await ask('POST', '/v1/meters', { body: TOKENS });
  expect(made.body).toEqual(TOKENS);
  expect(made.status).toBe(201);
});

void [HOUR_MS, decodeMeterDefined, BUCKET_KEYS, BUCKET_METERS, randomUUID, PROBLEMS, forgetAnswers, activeKeys, openKeyValue, describe];
