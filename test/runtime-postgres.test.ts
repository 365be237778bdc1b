import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { migratePostgres } from '../runtime/migrate.ts';
import { connectPostgres, sqlState, type Postgres } from '../runtime/postgres.ts';
import { startEngines } from './engines.ts';
import { until } from './until.ts';

const log = createLog('test', 'silent');
const metrics = createMetrics('test');
let engines: Awaited<ReturnType<typeof startEngines>>;
let db: Postgres;
let directory: string;

beforeAll(async () => {
  engines = await startEngines({ postgres: true });
  db = connect('test', 8);
});
afterAll(async () => {
  await db?.close();
  await engines?.stop();
});
beforeEach(async () => {
  directory = await mkdtemp(join(engines.dir, 'migrations-'));
});

function connect(name: string, poolMax: number): Postgres {
  return connectPostgres({
    url: engines.databaseUrl,
    name,
    poolMax,
    log,
    statementTimeoutMs: 10_000,
    ...(name === 'test' ? { metrics } : {}),
  });
}

test('values go in and come back exactly', async () => {
  const instant = Date.UTC(2026, 10, 21, 7, 55, 0, 123);
  const [row] = await db.query(
    `SELECT $1::int8 AS big, $2::numeric AS decimal, to_timestamp($3::numeric / 1000) AS at,
            $4::jsonb AS doc, ARRAY[1.10, 2]::numeric[] AS decimals, count(*) AS n, DATE '2026-03-29' AS day`,
    [9223372036854775807n, '0.000000000000000000001', instant, { a: ['1'] }],
  );
  expect(row).toEqual({
    big: 9223372036854775807n,
    decimal: '0.000000000000000000001',
    at: instant,
    doc: { a: ['1'] },
    decimals: ['1.10', '2'],
    n: 1n,
    day: '2026-03-29',
  });
});

test('serializable transactions that conflict are run again, and no increment is lost', async () => {
  await db.query('CREATE TABLE counter (n int8 NOT NULL)');
  await db.query('INSERT INTO counter VALUES (0)');
  const increment = () =>
    db.transaction(
      async (tx) => {
        const [row] = await tx.query<{ n: bigint }>('SELECT n FROM counter');
        await tx.query('UPDATE counter SET n = $1', [(row?.n ?? 0n) + 1n]);
      },
      { attempts: 50 },
    );
  await Promise.all(Array.from({ length: 20 }, increment));
  expect(await db.query('SELECT n FROM counter')).toEqual([{ n: 20n }]);
  expect(db.retries).toBeGreaterThan(0);
  const counted = `tallyline_postgres_transaction_retries_total{stage="test"} ${db.retries}\n`;
  expect(await metrics.render()).toContain(counted);
});

test('two transactions that wait for each other are both done in the end', async () => {
  await db.query('CREATE TABLE pair (id int PRIMARY KEY, n int NOT NULL)');
  await db.query('INSERT INTO pair VALUES (1, 0), (2, 0)');
  let waiting: (() => void) | undefined;
  const bothHoldOne = new Promise<void>((resolve) => {
    let holders = 0;
    waiting = () => ++holders === 2 && resolve();
  });
  const update = (first: number, second: number) =>
    db.transaction(
      async (tx) => {
        await tx.query('UPDATE pair SET n = n + 1 WHERE id = $1', [first]);
        waiting?.();
        await bothHoldOne;
        await tx.query('UPDATE pair SET n = n + 1 WHERE id = $1', [second]);
      },
      { isolation: 'read committed' },
    );
  await Promise.all([update(1, 2), update(2, 1)]);
  expect(await db.query('SELECT n FROM pair ORDER BY id')).toEqual([{ n: 2 }, { n: 2 }]);
});

test('attempts are bounded, and another error is not retried', async () => {
  let runs = 0;
  const failing = (sql: string) =>
    db.transaction(
      async (tx) => {
        runs++;
        await tx.query(sql);
      },
      { attempts: 3 },
    );
  const raise = (state: string) =>
    `DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '${state}'; END $$`;
  const conflict = await failing(raise('40001')).catch((error: unknown) => error);
  expect([sqlState(conflict), runs]).toEqual(['40001', 3]);
  const unique = await failing(raise('23505')).catch((error: unknown) => error);
  expect([sqlState(unique), runs]).toEqual(['23505', 4]);
});

test('a transaction that fails leaves nothing, and one that swallowed an error is not taken for committed', async () => {
  await db.query('CREATE TABLE kept (n int)');
  await expect(
    db.transaction(async (tx) => {
      await tx.query('INSERT INTO kept VALUES (1)');
      throw new Error('changed my mind');
    }),
  ).rejects.toThrow('changed my mind');
  await expect(
    db.transaction(async (tx) => {
      await tx.query('INSERT INTO kept VALUES (2)');
      await tx.query('SELECT 1 / 0').catch(() => {});
    }),
  ).rejects.toThrow('rolled back');
  expect(await db.query('SELECT n FROM kept')).toEqual([]);
});

test('a connection that is killed in the middle is an error, and the pool goes on', async () => {
  const killed = db.transaction((tx) => tx.query('SELECT pg_terminate_backend(pg_backend_pid())'));
  await expect(killed).rejects.toThrow();
  expect(await db.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('a listener hears, and after a lost connection is told to look at everything', async () => {
  const stop = new AbortController();
  const heard: string[] = [];
  await db.listen('flush"ed', (payload) => heard.push(payload), stop.signal);
  await db.query(`SELECT pg_notify('flush"ed', 'one')`);
  await until('the first is heard', () => heard.length === 1);
  await db.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test listen'`,
  );
  await until('it listens again', () => heard.length === 2);
  await db.query(`SELECT pg_notify('flush"ed', 'two')`);
  await until('the second is heard', () => heard.length === 3);
  expect(heard).toEqual(['one', '', 'two']);
  stop.abort();
});

const migrate = (schema: string) => migratePostgres(db, { directory: pathToFileURL(directory), schema });

test('migrations are applied once, in order, by whoever comes first', async () => {
  await writeFile(`${directory}/0002-second.sql`, 'ALTER TABLE account ADD COLUMN name text;');
  await writeFile(
    `${directory}/0001-first.sql`,
    'CREATE TABLE account (id int8);\nCREATE TABLE other (id int8);',
  );
  const applied = await Promise.all([migrate('books'), migrate('books'), migrate('books')]);
  expect(applied.flat().sort()).toEqual(['0001-first.sql', '0002-second.sql']);
  expect(await db.query('SELECT id, name FROM books.account')).toEqual([]);
  await writeFile(`${directory}/0003-third.sql`, 'CREATE TABLE third (id int8);');
  expect(await migrate('books')).toEqual(['0003-third.sql']);
  expect(await migrate('books')).toEqual([]);
});

test('a migration that fails leaves nothing of itself and names the file', async () => {
  await writeFile(`${directory}/0001-fine.sql`, 'CREATE TABLE fine (id int8);');
  await writeFile(`${directory}/0002-broken.sql`, 'CREATE TABLE half (id int8);\nSELECT nonsense;');
  await expect(migrate('partly')).rejects.toThrow('0002-broken.sql');
  const tables = await db.query(`SELECT tablename FROM pg_tables WHERE schemaname = 'partly' ORDER BY 1`);
  expect(tables).toEqual([{ tablename: 'fine' }, { tablename: 'schema_migrations' }]);
});

test('an applied file that was changed or is gone is refused before anything runs', async () => {
  await writeFile(`${directory}/0001-first.sql`, 'CREATE TABLE one (id int8);');
  await migrate('history');
  await writeFile(`${directory}/0001-first.sql`, 'CREATE TABLE one (id int4);');
  await writeFile(`${directory}/0002-second.sql`, 'CREATE TABLE two (id int8);');
  await expect(migrate('history')).rejects.toThrow('0001-first.sql: was changed');
  await rm(`${directory}/0001-first.sql`);
  await expect(migrate('history')).rejects.toThrow('0001-first.sql: was applied and is missing');
  const tables = await db.query(
    `SELECT tablename FROM pg_tables WHERE schemaname = 'history' AND tablename = 'two'`,
  );
  expect(tables).toEqual([]);
});

test('closing leaves no connection behind', async () => {
  const other = connect('closing', 3);
  await Promise.all([1, 2, 3].map(() => other.query('SELECT 1')));
  const connections = async () => {
    const rows = await db.query(`SELECT pid FROM pg_stat_activity WHERE application_name = 'closing'`);
    return rows.length;
  };
  expect(await connections()).toBe(3);
  await other.close();
  // The server notices a little later than the client.
  const deadline = performance.now() + 5_000;
  while ((await connections()) > 0) expect(performance.now()).toBeLessThan(deadline);
});
