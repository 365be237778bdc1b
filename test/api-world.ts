// The API in this process, on real Postgres, ClickHouse and NATS, asked over real HTTP.
import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import Ajv2020 from 'ajv/dist/2020.js';
import { expect } from 'vitest';
import type { Scope } from '../contract/key.ts';
import { streamName, streamSubject } from '../contract/subjects.ts';
import type { ApiLimits, App } from '../ledger/api/context.ts';
import { querySettings } from '../ledger/api/limits.ts';
import { buildApi } from '../ledger/api/server.ts';
import { openPublisher, type Publisher } from '../ledger/publish.ts';
import { createKey, createTenant } from '../ledger/tenants.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { migrateClickHouse, migratePostgres } from '../runtime/migrate.ts';
import { connectNats, ensureStream, type NatsLink } from '../runtime/nats.ts';
import { connectPostgres, type Postgres } from '../runtime/postgres.ts';
import { startEngines, type Engines } from './engines.ts';

export const SHARDS = 2;
/** All requests happen at this instant, until a test moves {@link ApiWorld.nowMs}. */
export const NOW_MS = Date.UTC(2026, 10, 21, 8, 30);

/** Those of `acme-inc`, and `other`, which is an administrator of `globex`. */
export type KeyName = 'admin' | 'reader' | 'ingest' | 'other';

export interface Told {
  readonly status: number;
  readonly headers: Headers;
  // The tests say what they expect of it.
  readonly body: never;
}

export interface Asked {
  /** The administrator's when absent, none when ''. */
  readonly key?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

export class ApiWorld {
  readonly engines: Engines;
  readonly pg: Postgres;
  readonly locks: Postgres;
  /** May write, as the aggregator does. */
  readonly writer: ClickHouse;
  readonly ch: ClickHouse;
  readonly link: NatsLink;
  readonly publisher: Publisher;
  readonly keys: Record<KeyName, string> = { admin: '', reader: '', ingest: '', other: '' };
  readonly limits: ApiLimits = {
    bodyBytesMax: 100_000,
    keyCacheMs: 60_000,
    exportRowsMax: 50,
    requestsMax: 100,
    queryRowsMax: 50_000,
    querySecondsMax: 20,
  };
  usageReady = true;
  nowMs = NOW_MS;
  app!: App;
  url = '';
  #described: Described | undefined;

  private constructor(engines: Engines, link: NatsLink, publisher: Publisher) {
    const log = createLog('test', 'silent');
    const database = { url: engines.databaseUrl, log, statementTimeoutMs: 20_000 };
    const clickhouse = { name: 'test', requestTimeoutMs: 20_000 };
    this.engines = engines;
    this.pg = connectPostgres({ ...database, name: 'api', poolMax: 6 });
    this.locks = connectPostgres({ ...database, name: 'api locks', poolMax: 2 });
    this.writer = connectClickHouse({ ...clickhouse, url: engines.clickhouseUrl });
    this.ch = connectClickHouse({
      ...clickhouse,
      url: engines.clickhouseReaderUrl,
      settings: querySettings(this.limits),
    });
    this.link = link;
    this.publisher = publisher;
  }

  static async start(): Promise<ApiWorld> {
    const log = createLog('test', process.env['TEST_LOG'] ?? 'silent');
    const engines = await startEngines({ nats: true, postgres: true, clickhouse: true });
    const link = await connectNats({ url: engines.natsUrl, name: 'test', log });
    for (let shard = 0; shard < SHARDS; shard++) {
      await ensureStream(link, {
        name: streamName(shard),
        subjects: [streamSubject(shard)],
        maxBytes: 10_000_000,
        replicas: 1,
      });
    }
    const world = new ApiWorld(engines, link, await openPublisher(link, { shards: SHARDS }));
    const { pg, locks, ch, writer, publisher, keys } = world;
    const migrations = new URL('../ledger/migrations/', import.meta.url);
    await migratePostgres(pg, { directory: migrations, schema: 'ledger' });
    const schema = new URL('../aggregator/schema/', import.meta.url);
    await migrateClickHouse(writer, { directory: schema, component: 'aggregator' });
    keys.admin = await world.keyOf('acme-inc', ['ingest', 'read', 'admin']);
    keys.reader = await world.keyOf('acme-inc', ['read']);
    keys.ingest = await world.keyOf('acme-inc', ['ingest']);
    keys.other = await world.keyOf('globex', ['read', 'admin']);
    world.app = await buildApi({
      pg,
      locks,
      ch,
      usageReady: () => world.usageReady,
      publisher,
      clock: { now: () => world.nowMs },
      log,
      metrics: createMetrics('test'),
      randomBytes: (length) => randomBytes(length),
      apiLimits: world.limits,
    });
    await world.app.listen({ host: '127.0.0.1', port: 0 });
    world.url = `http://127.0.0.1:${(world.app.server.address() as AddressInfo).port}`;
    return world;
  }

  async stop(): Promise<void> {
    await this.app.close();
    await this.publisher.close();
    await this.link.close();
    await Promise.all([this.pg.close(), this.locks.close(), this.writer.close(), this.ch.close()]);
    await this.engines.stop();
  }

  async keyOf(tenant: string, scopes: readonly Scope[]): Promise<string> {
    return this.pg.transaction(async (tx) => {
      await createTenant(tx, { tenant, name: tenant, nowMs: NOW_MS });
      const made = { tenant, scopes, label: 'test', nowMs: NOW_MS, random: randomBytes(64) };
      return (await createKey(tx, made)).key;
    });
  }

  /** Asks, and holds the answer against what the OpenAPI document says about it. */
  async ask(method: string, path: string, asked: Asked = {}): Promise<Told> {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        ...(asked.key === '' ? {} : { authorization: `Bearer ${asked.key ?? this.keys.admin}` }),
        ...(asked.body === undefined ? {} : { 'content-type': 'application/json' }),
        ...asked.headers,
      },
      ...(asked.body === undefined ? {} : { body: JSON.stringify(asked.body) }),
    });
    const type = response.headers.get('content-type') ?? '';
    const bytes = Buffer.from(await response.arrayBuffer());
    const isJson = /[/+]json(;|$)/.test(type);
    const body: unknown = isJson ? JSON.parse(bytes.toString()) : bytes;
    this.described().check(method, path, response.status, type, body);
    return { status: response.status, headers: response.headers, body: body as never };
  }

  /** The OpenAPI document, as the API made it. */
  described(): Described {
    this.#described ??= new Described(this.app.swagger() as unknown as OpenApi);
    return this.#described;
  }

  /** Rows of an hour's totals, as the aggregator writes them. */
  async roll(rows: readonly Rolled[]): Promise<void> {
    const seconds = (text: string) => Date.parse(text) / 1_000;
    await this.writer.insertJson(
      'rollup_hour',
      rows.map((row) => ({
        tenant: row.tenant ?? 'acme-inc',
        meter: row.meter ?? 'input_tokens',
        subject: row.subject,
        hour: seconds(row.hour),
        dimensions: row.dimensions ?? ['gpt-4', 'free'],
        shard: row.shard ?? 0,
        value_count: row.count ?? 1,
        value_sum: row.sum,
        value_min: row.min ?? row.sum,
        value_max: row.max ?? row.sum,
        value_latest: row.latest ?? row.sum,
        latest_time: Date.parse(row.latestTime ?? row.hour),
        latest_position: row.position ?? 1,
        position: row.position ?? 1,
      })),
    );
  }

  /** The objects of an action in the audit log of `acme-inc`, all of them the administrator's doing. */
  async audit(action: string): Promise<string[]> {
    const rows = await this.pg.query<{ object: string; actor: string }>(
      `SELECT object, actor FROM ledger.audit_log WHERE action = $1 AND tenant = 'acme-inc' ORDER BY id`,
      [action],
    );
    for (const { actor } of rows) expect(actor).toBe(this.keys.admin.split('_')[1]);
    return rows.map((row) => row.object);
  }
}

export const TOKENS = {
  key: 'input_tokens',
  eventType: 'llm.request',
  aggregation: 'sum',
  valueProperty: 'input_tokens',
  groupBy: ['model', 'user.plan'],
};

export interface Rolled {
  readonly tenant?: string;
  readonly meter?: string;
  readonly subject: string;
  readonly hour: string;
  readonly dimensions?: readonly string[];
  readonly shard?: number;
  readonly count?: number;
  readonly sum: string;
  readonly min?: string;
  readonly max?: string;
  readonly latest?: string;
  readonly latestTime?: string;
  readonly position?: number;
}

interface Media {
  readonly schema?: object;
}

export interface Operation {
  readonly operationId?: string;
  readonly summary?: string;
  readonly tags?: string[];
  readonly parameters?: { name: string; in: string; required?: boolean; schema?: object }[];
  readonly requestBody?: { content: Record<string, Media> };
  readonly responses: Record<string, { description: string; content?: Record<string, Media> }>;
}

export interface OpenApi {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { schemas: Record<string, object>; securitySchemes: object };
}

/** The document as a judge of answers. */
export class Described {
  readonly document: OpenApi;
  readonly #ajv = new Ajv2020.default({ strict: false, allErrors: true, validateFormats: false });

  constructor(document: OpenApi) {
    this.document = document;
    this.#ajv.addSchema({ $id: 'openapi', ...document });
  }

  check(method: string, path: string, status: number, type: string, body: unknown): void {
    const pathname = path.split('?', 1)[0]!;
    const template = Object.keys(this.document.paths).find((one) =>
      new RegExp(`^${one.replace(/\{[^}]+\}/g, '[^/]+')}$`).test(pathname),
    );
    const verb = method.toLowerCase();
    const operation = template === undefined ? undefined : this.document.paths[template]?.[verb];
    if (operation === undefined || template === undefined) return expect(status).toBe(404);
    const answer = operation.responses[String(status)];
    expect(answer, `${method} ${template} does not describe ${status}`).toBeDefined();
    if (status === 204) return;
    const media = type.split(';', 1)[0]!;
    expect(Object.keys(answer?.content ?? {}), `${method} ${template} ${status}`).toContain(media);
    if (!/[/+]json$/.test(media)) return;
    const pointer = ['paths', template, verb, 'responses', String(status), 'content', media, 'schema']
      .map((part) => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1')))
      .join('/');
    const validate = this.#ajv.getSchema(`openapi#/${pointer}`);
    expect(validate).toBeDefined();
    const sound = validate?.(body);
    expect(sound, `${method} ${path}: ${this.#ajv.errorsText(validate?.errors ?? [])}`).toBe(true);
  }
}
