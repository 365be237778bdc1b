// The ledger as a process, from the build: how it starts before the others, wakes, and stops.
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { makeKey } from '../contract/key.ts';
import { BUCKET_DEPLOYMENT, BUCKET_KEYS, FLUSH_NOTICE } from '../contract/subjects.ts';
import { freePorts } from '../local/engines/ports.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { migrateClickHouse } from '../runtime/migrate.ts';
import { connectNats, openKeyValue, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';

const main = fileURLToPath(new URL('../dist/ledger/main.js', import.meta.url));
const ADMIN = makeKey(randomBytes(64)).key;
const READER = makeKey(randomBytes(64)).key;

let engines: Engines;
let link: NatsLink;
let writer: ClickHouse;
const children: ChildProcess[] = [];

beforeAll(async () => {
  engines = await startEngines({ nats: true, postgres: true, clickhouse: true });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log: createLog('test', 'silent') });
  writer = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 20_000 });
});
afterAll(async () => {
  await link?.close();
  await writer?.close();
  await engines?.stop();
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await closed;
  }
});

interface Ledger {
  readonly api: string;
  readonly ops: string;
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  readonly printed: () => string;
}

async function startLedger(env: Record<string, string> = {}): Promise<Ledger> {
  const [apiPort, opsPort] = await freePorts(2);
  const child = spawn(process.execPath, [main], {
    env: {
      PATH: process.env['PATH'],
      NATS_URL: engines.natsUrl,
      DATABASE_URL: engines.databaseUrl,
      CLICKHOUSE_URL: engines.clickhouseUrl,
      CLICKHOUSE_READER_URL: engines.clickhouseReaderUrl,
      TALLYLINE_SHARDS: '2',
      TALLYLINE_API_PORT: String(apiPort),
      TALLYLINE_OPS_PORT: String(opsPort),
      TALLYLINE_BOOTSTRAP_TENANT: 'demo',
      TALLYLINE_BOOTSTRAP_KEY: READER,
      TALLYLINE_BOOTSTRAP_ADMIN_KEY: ADMIN,
      // Only a notice can wake it in the time of a test.
      TALLYLINE_LEDGER_POSTING_INTERVAL_MS: '60000',
      TALLYLINE_LEDGER_RESIDUE_SECONDS: '1',
      TALLYLINE_STOP_WITH_PARENT: '1',
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  children.push(child);
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  }
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const local = (port: number | undefined) => `http://127.0.0.1:${port}`;
  return { api: local(apiPort), ops: local(opsPort), child, exited, printed: () => printed };
}

async function until<T>(what: string, ledger: Ledger, probe: () => Promise<T | null>): Promise<T> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const found = await probe().catch(() => null);
    if (found !== null) return found;
    if (performance.now() > deadline || ledger.child.exitCode !== null) {
      throw new Error(`it never came about that ${what}:\n${ledger.printed()}`);
    }
    await delay(20);
  }
}

async function call(ledger: Ledger, method: string, path: string, body?: object, key = ADMIN) {
  const response = await fetch(ledger.api + path, {
    method,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const ready = async (ledger: Ledger) => {
  const response = await fetch(`${ledger.ops}/readyz`);
  return { status: response.status, text: await response.text() };
};

test('it serves what needs no usage before the aggregator was ever there, then posts at a notice, then stops', async () => {
  const ledger = await startLedger();
  // 1. No views yet: meters, plans and customers can be made, usage says why not.
  await until(
    'the API answers',
    ledger,
    async () => (await call(ledger, 'GET', '/v1/meters')).status === 200 || null,
  );
  const meter = { key: 'n', eventType: 't', aggregation: 'sum', valueProperty: 'n' };
  expect((await call(ledger, 'POST', '/v1/meters', meter)).status).toBe(201);
  const prices = [{ key: 'n', meter: 'n', model: 'per_unit', unitPrice: '0.25' }];
  const plan = { key: 'p', name: 'P', currency: 'USD', prices };
  expect((await call(ledger, 'POST', '/v1/plans', plan)).status).toBe(201);
  const thisHour = Math.floor(Date.now() / 3_600_000) * 3_600_000;
  const anchor = new Date(thisHour).toISOString();
  const customer = { name: 'C', currency: 'USD', subjects: ['c'], plan: 'p', anchor };
  expect((await call(ledger, 'PUT', '/v1/customers/c', customer)).status).toBe(201);
  expect(await call(ledger, 'GET', '/v1/usage?meter=n')).toMatchObject({
    status: 503,
    body: { code: 'usage_not_ready' },
  });
  expect(await ready(ledger)).toMatchObject({
    status: 503,
    text: expect.stringContaining('waiting for the aggregator') as string,
  });
  // Both bootstrap keys are known to the edges, with their scopes.
  const bucket = await openKeyValue(link, BUCKET_KEYS);
  for (const [key, scopes] of [
    [READER, ['ingest', 'read']],
    [ADMIN, ['ingest', 'read', 'admin']],
  ] as const) {
    const entry = await bucket.get(key.split('_')[1]!);
    expect(JSON.parse(entry?.value ?? '{}')).toMatchObject({ tenant: 'demo', scopes });
  }
  expect((await call(ledger, 'POST', '/v1/meters', meter, READER)).status).toBe(403);

  // 2. The aggregator makes its views.
  await migrateClickHouse(writer, {
    directory: new URL('../aggregator/schema/', import.meta.url),
    component: 'aggregator',
  });
  await until('it is ready', ledger, async () => ((await ready(ledger)).status === 200 ? true : null));
  expect(ledger.printed()).toContain(`"api":"${ledger.api}"`);
  expect((await call(ledger, 'GET', '/v1/usage?meter=n')).body).toEqual({ rows: [], nextCursor: null });

  // 3. A flush and its notice, twice: the lag is measured from the second on.
  for (const [position, sum, owed] of [
    [10, '4', '1.00'],
    [20, '5', '1.25'],
  ] as const) {
    const base = {
      tenant: 'demo',
      meter: 'n',
      subject: 'c',
      hour: thisHour / 1_000,
      dimensions: [],
      shard: 0,
    };
    const values = { value_count: 1, value_sum: sum, value_min: sum, value_max: sum, value_latest: sum };
    const latest = { latest_time: thisHour, latest_position: position, position };
    await writer.insertJson('rollup_hour', [{ ...base, ...values, ...latest }]);
    const at = Date.now();
    await writer.insertJson('watermarks', [
      {
        shard: 0,
        incarnation: 0,
        sequence: position,
        position,
        stream_created: '',
        fingerprint: '',
        accepted_at: at,
        flushed_at: at,
      },
    ]);
    link.nc.publish(FLUSH_NOTICE, JSON.stringify({ shard: 0, position: String(position) }));
    await until(`${owed} has accrued`, ledger, async () => {
      const { body } = await call(ledger, 'GET', '/v1/customers/c/balance');
      return body['accruedUsage'] === owed || null;
    });
  }
  expect((await call(ledger, 'GET', '/v1/usage?meter=n&subject=c', undefined, READER)).body).toMatchObject({
    rows: [{ value: '5' }],
  });
  const metrics = await until('everything is measured', ledger, async () => {
    const text = await (await fetch(`${ledger.ops}/metrics`)).text();
    return /tallyline_clearing_residue_cents\{[^}]*accrued_usage[^}]*\} 125/.test(text) ? text : null;
  });
  expect(metrics).toMatch(/tallyline_metering_lag_seconds_count\{[^}]*stage="posted"[^}]*\} [1-9]/);
  expect(metrics).toMatch(/tallyline_drift_ledger_count\{[^}]*\} 0/);
  expect(metrics).toMatch(/tallyline_api_requests_total\{[^}]*route="\/v1\/usage"[^}]*status="503"[^}]*\} 1/);
  expect(metrics).not.toMatch(/(tenant|subject|customer)="/);

  // 4. It stops in order.
  ledger.child.kill('SIGTERM');
  expect(await ledger.exited).toBe(0);
  expect(ledger.printed()).not.toContain(ADMIN.split('_')[2]);
});

test('an engine that goes away makes it not ready, and it comes back by itself', async () => {
  const ledger = await startLedger({ TALLYLINE_LEDGER_POSTING_INTERVAL_MS: '100' });
  await until('it is ready', ledger, async () => ((await ready(ledger)).status === 200 ? true : null));
  await engines.clickhouse.kill();
  await until('it is not ready', ledger, async () => {
    const { status, text } = await ready(ledger);
    return status === 503 && text.includes('usage cannot be posted') ? true : null;
  });
  expect(await call(ledger, 'GET', '/v1/usage?meter=n')).toMatchObject({
    status: 503,
    body: { code: 'usage_unavailable' },
  });
  expect((await call(ledger, 'GET', '/v1/meters')).status).toBe(200);
  await engines.clickhouse.restart();
  await until('it is ready again', ledger, async () => ((await ready(ledger)).status === 200 ? true : null));
  expect((await call(ledger, 'GET', '/v1/usage?meter=n&subject=c')).body).toMatchObject({
    rows: [{ value: '5' }],
  });
});

test('another number of shards than the deployment has is a clear, fatal error', async () => {
  await openKeyValue(link, BUCKET_DEPLOYMENT).then((facts) => facts.create('shards', '2'));
  const ledger = await startLedger({ TALLYLINE_SHARDS: '3' });
  expect(await ledger.exited).toBe(1);
  expect(ledger.printed()).toContain(
    'TALLYLINE_SHARDS is 3 here, but this deployment was started with 2: set it to that',
  );
});

test('bootstrap keys that are none are named, and not shown', async () => {
  const ledger = await startLedger({ TALLYLINE_BOOTSTRAP_ADMIN_KEY: 'hunter2hunter2' });
  expect(await ledger.exited).toBe(78);
  expect(ledger.printed()).toContain('TALLYLINE_BOOTSTRAP_ADMIN_KEY');
  expect(ledger.printed()).not.toContain('hunter2');
});
