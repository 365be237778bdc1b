import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { connectClickHouse, InsertError, QueryError, type ClickHouse } from '../runtime/clickhouse.ts';
import { migrateClickHouse } from '../runtime/migrate.ts';
import { startEngines } from './engines.ts';

let engines: Awaited<ReturnType<typeof startEngines>>;
let ch: ClickHouse;
let directory: string;

beforeAll(async () => {
  engines = await startEngines({ clickhouse: true });
  ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 20_000 });
});
afterAll(async () => {
  await ch?.close();
  await engines?.stop();
});
beforeEach(async () => {
  directory = await mkdtemp(join(engines.dir, 'migrations-'));
});

/** One block of Native format with one UInt64 and one String column, written by hand from its description:
 * numbers of columns and rows, then of every column its name, its type and its values. */
function nativeBlock(rows: readonly (readonly [bigint, string])[]): Uint8Array {
  const string = (value: string) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);
  const numbers = Buffer.alloc(rows.length * 8);
  rows.forEach(([n], i) => numbers.writeBigUInt64LE(n, i * 8));
  return Buffer.concat([
    Buffer.from([2, rows.length]),
    ...[string('n'), string('UInt64'), numbers],
    ...[string('s'), string('String'), ...rows.map(([, s]) => string(s))],
  ]);
}

test('numbers wider than a double come back as they are, by typed parameters', async () => {
  const rows = await ch.rows(
    `SELECT {big:UInt64} AS big, {negative:Int128} AS negative, {d:Decimal(38, 18)} AS d, {s:String} AS s,
            {list:Array(String)} AS list, toUInt32(7) AS small`,
    {
      big: 18446744073709551615n,
      negative: -170141183460469231731687303715884105728n,
      d: '12345678901234567890.123456789012345678',
      s: `it's "quoted"\n\\ {x:String}`,
      list: ['a', "b'"],
    },
  );
  expect(rows).toEqual([
    {
      big: '18446744073709551615',
      negative: '-170141183460469231731687303715884105728',
      d: '12345678901234567890.123456789012345678',
      s: `it's "quoted"\n\\ {x:String}`,
      list: ['a', "b'"],
      small: 7,
    },
  ]);
});

test('a native insert writes every byte of every row', async () => {
  await ch.command('CREATE TABLE native (n UInt64, s String) ENGINE = MergeTree ORDER BY n');
  // An empty line and a semicolon within the data have cut inserts before.
  const first = nativeBlock([
    [1n, 'a\n\nb; SELECT'],
    [18446744073709551615n, ''],
  ]);
  await ch.insertNative('native', ['n', 's'], first, 2);
  const block = nativeBlock([[2n, '\u0000\n\n']]);
  await ch.insertNative('native', ['n', 's'], [block.subarray(0, 7), block.subarray(7)], 1);
  expect(await ch.rows('SELECT n, s FROM native ORDER BY n')).toEqual([
    { n: '1', s: 'a\n\nb; SELECT' },
    { n: '2', s: '\u0000\n\n' },
    { n: '18446744073709551615', s: '' },
  ]);
});

test('an insert whose written rows are not the rows sent is an error of unknown effect', async () => {
  await ch.command('CREATE TABLE miscounted (n UInt64, s String) ENGINE = MergeTree ORDER BY n');
  const wrong = ch.insertNative('miscounted', ['n', 's'], nativeBlock([[1n, 'a']]), 2);
  await expect(wrong).rejects.toMatchObject({ name: 'InsertError', effectUnknown: true });
});

test('a refused insert carries the code of ClickHouse', async () => {
  const missing = ch.insertNative('nowhere', ['n', 's'], nativeBlock([[1n, 'a']]), 1);
  await expect(missing).rejects.toMatchObject({ code: 60, effectUnknown: false });
  await expect(missing).rejects.toBeInstanceOf(InsertError);
  await ch.command('CREATE TABLE strict (n UInt64, s String) ENGINE = MergeTree ORDER BY n');
  await expect(
    ch.insertNative('strict', ['n', 's'], nativeBlock([[1n, 'a']]).subarray(0, 12), 1),
  ).rejects.toBeInstanceOf(InsertError);
  await expect(ch.insertNative('strict; DROP TABLE strict', ['n'], new Uint8Array(), 0)).rejects.toThrow(
    'not a table',
  );
});

test('objects are inserted with their bigints exact', async () => {
  await ch.command(
    'CREATE TABLE objects (n UInt64, d Decimal(38, 6), m Map(String, String)) ENGINE = MergeTree ORDER BY n',
  );
  await ch.insertJson('objects', [
    { n: 9007199254740993n, d: '0.000001', m: { model: 'x' } },
    { n: 2n, d: '-12345678901234567890.123456', m: {} },
  ]);
  await ch.insertJson('objects', []);
  expect(await ch.rows('SELECT * FROM objects ORDER BY n')).toEqual([
    { n: '2', d: '-12345678901234567890.123456', m: {} },
    { n: '9007199254740993', d: '0.000001', m: { model: 'x' } },
  ]);
});

test('an answer is passed through in the format asked for', async () => {
  const csv = await ch.stream(
    'SELECT number AS n FROM numbers({count:UInt64})',
    { count: 3 },
    'CSVWithNames',
  );
  expect(await text(csv)).toBe('"n"\n0\n1\n2\n');
  const lines = await ch.stream('SELECT toUInt64(1) AS n;', {}, 'JSONEachRow');
  expect(await text(lines)).toBe('{"n":"1"}\n');
});

test('a failed query says its code, and an unreachable server is code 0', async () => {
  await expect(ch.rows('SELECT * FROM nowhere')).rejects.toMatchObject({ name: 'QueryError', code: 60 });
  await expect(ch.command('SELEC 1')).rejects.toMatchObject({ code: 62 });
  const away = connectClickHouse({
    url: 'http://me:hunter2@127.0.0.1:1/x',
    name: 'test',
    requestTimeoutMs: 2_000,
  });
  const failure = await away.ping().catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(QueryError);
  expect(failure).toMatchObject({ code: 0 });
  expect(String(failure)).not.toContain('hunter2');
  await away.close();
  await ch.ping();
});

const migrate = (component: string) =>
  migrateClickHouse(ch, { directory: pathToFileURL(directory), component });

test('migrations are applied once, in order, a component apart from the others', async () => {
  await writeFile(
    join(directory, '0001-first.sql'),
    `-- A table; with a comment.
CREATE TABLE IF NOT EXISTS first (a String DEFAULT ';
') ENGINE = MergeTree ORDER BY a;

CREATE TABLE IF NOT EXISTS second (a String) ENGINE = MergeTree ORDER BY a; -- and a last one
`,
  );
  await writeFile(join(directory, '0002-more.sql'), 'ALTER TABLE first ADD COLUMN IF NOT EXISTS b UInt8');
  expect(await migrate('one')).toEqual(['0001-first.sql', '0002-more.sql']);
  expect(await migrate('one')).toEqual([]);
  expect(await migrate('two')).toEqual(['0001-first.sql', '0002-more.sql']);
  await ch.insertJson('first', [{ b: 1 }]);
  expect(await ch.rows('SELECT a, b FROM first')).toEqual([{ a: ';\n', b: 1 }]);
});

test('a changed or missing applied file is refused before anything runs, a failing one is named', async () => {
  await writeFile(join(directory, '0001-good.sql'), 'SELECT 1;');
  expect(await migrate('history')).toEqual(['0001-good.sql']);
  await writeFile(join(directory, '0002-bad.sql'), 'SELECT 1;\nSELECT nonsense;');
  await expect(migrate('history')).rejects.toThrow('0002-bad.sql');
  await writeFile(join(directory, '0002-bad.sql'), 'SELECT 2;');
  expect(await migrate('history')).toEqual(['0002-bad.sql']);
  await writeFile(join(directory, '0001-good.sql'), 'SELECT 3;');
  await expect(migrate('history')).rejects.toThrow('0001-good.sql: was changed');
  await rm(join(directory, '0001-good.sql'));
  await expect(migrate('history')).rejects.toThrow('0001-good.sql: was applied and is missing');
});
