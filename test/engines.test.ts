import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { connect } from 'nats';
import type { NatsConnection } from 'nats';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startClickHouse } from '../local/engines/clickhouse.ts';
import { startNats } from '../local/engines/nats.ts';
import { freePort, freePorts, isPortFree } from '../local/engines/ports.ts';
import { startPostgres } from '../local/engines/postgres.ts';
import { isAlive } from '../local/engines/process.ts';
import { natsCacheDir, startEngines } from './engines.ts';
import type { Engines } from './engines.ts';
import { until } from './until.ts';

let engines: Engines;

beforeAll(async () => {
  engines = await startEngines({ nats: true, postgres: true, clickhouse: true });
});

afterAll(async () => {
  await engines?.stop();
});

const quiet = (): void => undefined;

async function query(sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: engines.databaseUrl });
  // The server may be killed while the client is there.
  client.on('error', quiet);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

async function withNats<T>(use: (connection: NatsConnection) => Promise<T>): Promise<T> {
  const connection = await connect({ servers: engines.natsUrl, reconnect: false });
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}

async function occupy(): Promise<{ server: Server; port: number }> {
  const port = await freePort();
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port }, resolve));
  return { server, port };
}

describe('each engine keeps what it acknowledged through kill -9 and a stop', () => {
  it('Postgres', async () => {
    await query('CREATE TABLE kept (a int)');
    for (const end of ['kill', 'stop'] as const) {
      await query('INSERT INTO kept VALUES (1), (2)');
      await engines.postgres[end]();
      await expect(query('SELECT 1')).rejects.toThrow();
      await engines.postgres.restart();
    }
    expect(await query('SELECT count(*)::int AS n FROM kept')).toEqual([{ n: 4 }]);
    const settings = await query(
      "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'listen_addresses', 'unix_socket_directories', 'server_encoding') ORDER BY name",
    );
    expect(settings.map((row) => Object.values(row as object).join('='))).toEqual([
      'fsync=on',
      'full_page_writes=on',
      'listen_addresses=127.0.0.1',
      'server_encoding=UTF8',
      'synchronous_commit=on',
      'unix_socket_directories=',
    ]);
  });

  it('NATS', async () => {
    await withNats(async (connection) => {
      const manager = await connection.jetstreamManager();
      await manager.streams.add({ name: 'KEPT', subjects: ['kept'] });
      expect(connection.info?.max_payload).toBe(8 * 1024 * 1024);
    });
    for (const end of ['kill', 'stop'] as const) {
      await withNats(async (connection) => {
        for (let n = 0; n < 100; n += 1) await connection.jetstream().publish('kept', new Uint8Array(100));
      });
      await engines.nats[end]();
      await engines.nats.restart();
    }
    await withNats(async (connection) => {
      const info = await (await connection.jetstreamManager()).streams.info('KEPT');
      expect(info.state.messages).toBe(200);
    });
  });

  it('ClickHouse', async () => {
    const client = createClient({ url: engines.clickhouseUrl, log: { level: ClickHouseLogLevel.OFF } });
    await client.command({ query: 'CREATE TABLE kept (a UInt64) ENGINE = MergeTree ORDER BY a' });
    for (const end of ['kill', 'stop'] as const) {
      await client.insert({ table: 'kept', values: [{ a: 1 }, { a: 2 }], format: 'JSONEachRow' });
      await engines.clickhouse[end]();
      expect((await client.ping()).success).toBe(false);
      await engines.clickhouse.restart();
    }
    const result = await client.query({ query: 'SELECT count() AS n FROM kept', format: 'JSONEachRow' });
    expect(await result.json()).toEqual([{ n: 4 }]);
    await client.close();
  });
});

describe('a stop', () => {
  it('of ClickHouse does not wait for a result that nobody reads', async () => {
    const { pid } = engines.clickhouse.engine();
    const { username, password, origin } = new URL(engines.clickhouseUrl);
    const response = await fetch(origin, {
      method: 'POST',
      headers: { authorization: `Basic ${btoa(`${username}:${password}`)}` },
      body: 'SELECT number FROM numbers(1000000000) FORMAT TSV',
    });
    expect(response.status).toBe(200);
    process.kill(pid, 'SIGTERM');
    await until('the process is gone', () => !isAlive(pid), 5_000);
    await engines.clickhouse.restart();
  });
});

describe('a start that cannot succeed says why', () => {
  const starts = {
    nats: (dataDir: string, port: number) => startNats({ dataDir, port, cacheDir: natsCacheDir, log: quiet }),
    postgres: (dataDir: string, port: number) => startPostgres({ dataDir, port, log: quiet }),
    clickhouse: (dataDir: string, port: number) => startClickHouse({ dataDir, port, log: quiet }),
  };

  for (const name of ['nats', 'postgres', 'clickhouse'] as const) {
    it(`${name}: the port is taken`, async () => {
      const { server, port } = await occupy();
      try {
        const start = starts[name](join(engines.dir, `taken-${name}`), port);
        await expect(start).rejects.toThrow(new RegExp(`port ${port} on 127\\.0\\.0\\.1 is taken`));
      } finally {
        server.close();
      }
    });

    it(`${name}: the data is in use`, async () => {
      const dataDir = join(engines.dir, name);
      const pid = engines[name].engine().pid;
      await expect(starts[name](dataDir, await freePort())).rejects.toThrow(new RegExp(`${pid}\\b.*uses`));
      expect(isAlive(pid)).toBe(true);
    });
  }
});

it('a killed owner leaves no engine behind', async () => {
  const built = (name: string): string =>
    JSON.stringify(fileURLToPath(new URL(`../dist/local/engines/${name}.js`, import.meta.url)));
  const dir = join(engines.dir, 'owned');
  const script = `
    import { startClickHouse } from ${built('clickhouse')};
    import { startNats } from ${built('nats')};
    import { startPostgres } from ${built('postgres')};
    import { freePorts } from ${built('ports')};
    const [a, b, c] = await freePorts(3);
    const at = (name, port) => ({ dataDir: ${JSON.stringify(dir)} + '/' + name, port, log: () => undefined });
    const started = await Promise.all([
      startNats({ ...at('nats', a), cacheDir: ${JSON.stringify(natsCacheDir)} }),
      startPostgres(at('postgres', b)),
      startClickHouse(at('clickhouse', c)),
    ]);
    console.log(JSON.stringify(started.map((engine) => engine.pid)));
    setInterval(() => undefined, 1000);`;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await new Promise<string>((resolve) =>
    createInterface({ input: owner.stdout }).once('line', resolve),
  );
  const pids = JSON.parse(line) as number[];
  expect(pids.filter(isAlive)).toEqual(pids);
  owner.kill('SIGKILL');
  await until('the engines have ended', () => pids.every((pid) => !isAlive(pid)));
  rmSync(dir, { recursive: true, force: true });
});

it('ports are free and differ, passwords are for the owner only, and a stop removes the folder', async () => {
  const ports = await freePorts(5);
  expect(new Set(ports).size).toBe(5);
  expect(await Promise.all(ports.map(isPortFree))).toEqual([true, true, true, true, true]);
  for (const path of ['postgres/password', 'clickhouse/passwords.json']) {
    expect(statSync(join(engines.dir, path)).mode & 0o077).toBe(0);
  }
  expect(readFileSync(join(engines.dir, 'nats', 'nats.conf'), 'utf8')).toContain('127.0.0.1');
  const other = await startEngines({ nats: true });
  expect(() => other.postgres.output()).toThrow(/did not ask for postgres/);
  await other.stop();
  expect(existsSync(other.dir)).toBe(false);
});
