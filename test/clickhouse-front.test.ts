import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { gunzipSync, gzipSync } from 'node:zlib';
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { ClickHouseClient } from '@clickhouse/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startClickHouse } from '../local/engines/clickhouse.ts';
import { freePorts } from '../local/engines/ports.ts';
import { startEngines } from './engines.ts';
import type { Engines } from './engines.ts';
import { until } from './until.ts';

let engines: Engines;
let client: ClickHouseClient;
let reader: ClickHouseClient;

beforeAll(async () => {
  engines = await startEngines({ clickhouse: true });
  client = createClient({
    url: engines.clickhouseUrl,
    max_open_connections: 30,
    log: { level: ClickHouseLogLevel.OFF },
  });
  reader = createClient({ url: engines.clickhouseReaderUrl });
});

afterAll(async () => {
  await client?.close();
  await reader?.close();
  await engines?.stop();
});

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: Buffer;
  /** False when the connection was cut before the end of the body. */
  readonly complete: boolean;
}

interface Call {
  readonly body?: Buffer | string;
  readonly headers?: Record<string, string>;
  readonly url?: string;
  readonly method?: string;
  readonly signal?: AbortSignal;
}

/** A plain HTTP call, as curl would make it. */
function call(parameters: Record<string, string>, options: Call = {}): Promise<Answer> {
  const url = new URL(options.url ?? engines.clickhouseUrl);
  const path = `${url.pathname === '/tallyline' ? '/' : url.pathname}?${new URLSearchParams(parameters).toString()}`;
  const authorization = `Basic ${Buffer.from(`${url.username}:${url.password}`).toString('base64')}`;
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        host: url.hostname,
        port: url.port,
        path,
        method: options.method ?? 'POST',
        headers: { ...(url.username === '' ? {} : { authorization }), ...options.headers },
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        const done = (): void =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
            complete: response.complete,
          });
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('close', done);
        response.on('error', () => undefined);
      },
    );
    request.on('error', reject);
    request.end(options.body);
  });
}

async function text(sql: string, parameters: Record<string, string> = {}): Promise<string> {
  const answer = await call(parameters, { body: sql });
  expect(answer.body.toString() + String(answer.status)).toMatch(/200$/);
  return answer.body.toString();
}

function summaryOf(answer: Answer): Record<string, string> {
  return JSON.parse(String(answer.headers['x-clickhouse-summary'])) as Record<string, string>;
}

describe('@clickhouse/client, unchanged', () => {
  it('pings, with and without a query', async () => {
    expect((await client.ping()).success).toBe(true);
    expect((await client.ping({ select: true })).success).toBe(true);
  });

  it('creates a table, inserts objects, CSV and a stream, and reads them back', async () => {
    await client.command({ query: 'CREATE TABLE forms (a UInt64, s String) ENGINE = MergeTree ORDER BY a' });
    const objects = await client.insert({
      table: 'forms',
      values: [
        { a: 1, s: 'x\n\ny' },
        { a: '2', s: 'é' },
      ],
      format: 'JSONEachRow',
    });
    expect(objects.summary?.written_rows).toBe('2');
    await client.insert({
      table: 'forms',
      values: Readable.from(['3,"a\n\nb"\n', '4,c\n'], { objectMode: false }),
      format: 'CSV',
    });
    const lines = async function* () {
      for (let a = 5; a < 1_005; a += 1) yield { a, s: `row ${a}` };
    };
    await client.insert({ table: 'forms', values: Readable.from(lines()), format: 'JSONEachRow' });
    await client.insert({ table: 'forms', values: [], format: 'JSONEachRow' });
    const result = await client.query({
      query: 'SELECT count() AS n, sum(a) AS total FROM forms',
      format: 'JSONEachRow',
    });
    // 1 + 2 + … + 1004
    expect(await result.json()).toEqual([{ n: 1004, total: 504_510 }]);
    const first = await client.query({
      query: 'SELECT s FROM forms WHERE a IN (1, 2, 3) ORDER BY a',
      format: 'JSONEachRow',
    });
    expect(await first.json()).toEqual([{ s: 'x\n\ny' }, { s: 'é' }, { s: 'a\n\nb' }]);
  });

  it('binds typed parameters, whatever they hold', async () => {
    const hostile = [
      "'; DROP TABLE forms; --",
      '\\',
      "\\'",
      '`"\\n',
      'tab\tline\nreturn\r',
      '\n\n',
      '\0nul',
      '{x:String}',
      '$$',
      '/*',
      '',
      'ünïcødé 💰 \u2028',
    ];
    for (const value of hostile) {
      const result = await client.query({
        query: 'SELECT {value:String} AS value, {list:Array(String)} AS list, {n:UInt64} AS n',
        query_params: { value, list: hostile, n: '18446744073709551615' },
        clickhouse_settings: { output_format_json_quote_64bit_integers: 1 },
        format: 'JSONEachRow',
      });
      expect(await result.json()).toEqual([{ value, list: hostile, n: '18446744073709551615' }]);
    }
  });

  it('answers errors with their code and name', async () => {
    const codeOf = (query: string): Promise<unknown> =>
      client.query({ query, format: 'JSONEachRow' }).then(
        () => null,
        (error: unknown) => [(error as { code: string }).code, (error as { type: string }).type],
      );
    expect(await codeOf('SELECT 1 +')).toEqual(['62', 'SYNTAX_ERROR']);
    expect(await codeOf('SELECT * FROM missing')).toEqual(['60', 'UNKNOWN_TABLE']);
    expect(await codeOf('SELECT nothing')).toEqual(['47', 'UNKNOWN_IDENTIFIER']);
    expect(await codeOf('SELECT throwIf(1)')).toEqual(['395', 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO']);
    await expect(
      client.insert({
        table: 'forms',
        values: Readable.from(['x,y\n'], { objectMode: false }),
        format: 'CSV',
      }),
    ).rejects.toMatchObject({ code: '27' });
  });

  it('compresses both ways', async () => {
    const zipped = createClient({
      url: engines.clickhouseUrl,
      compression: { request: true, response: true },
    });
    try {
      await zipped.command({
        query: 'CREATE TABLE zipped (a UInt64, s String) ENGINE = MergeTree ORDER BY a',
      });
      const values = Array.from({ length: 20_000 }, (_, a) => ({ a, s: 'a compressible text' }));
      await zipped.insert({ table: 'zipped', values, format: 'JSONEachRow' });
      const result = await zipped.query({ query: 'SELECT a FROM zipped ORDER BY a', format: 'JSONEachRow' });
      expect(((await result.json()) as unknown[]).length).toBe(20_000);
    } finally {
      await zipped.close();
    }
  });

  it('serves 60 requests at once', async () => {
    const many = Array.from({ length: 60 }, async (_, index) => {
      const result = await client.query({
        query: 'SELECT {i:UInt32} AS i, sleep(0.02)',
        query_params: { i: index },
        format: 'JSONEachRow',
      });
      return ((await result.json()) as { i: number }[])[0]?.i;
    });
    expect(await Promise.all(many)).toEqual(Array.from({ length: 60 }, (_, index) => index));
  });

  it('streams five million rows in bounded memory', async () => {
    const pid = engines.clickhouse.engine().pid;
    const peakKb = (): number =>
      Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
    const before = peakKb();
    const result = await client.query({
      query: 'SELECT number FROM numbers(5000000)',
      format: 'JSONEachRow',
    });
    let rows = 0;
    for await (const chunk of result.stream()) rows += (chunk as unknown[]).length;
    expect(rows).toBe(5_000_000);
    // The result is 94 MB of text.
    expect((peakKb() - before) / 1024).toBeLessThan(64);
  });
});

describe('inserts', () => {
  it('takes Native with empty lines and SQL in it, to the last byte', async () => {
    await text('CREATE TABLE native (a UInt64, s String) ENGINE = MergeTree ORDER BY a');
    const made = await call(
      {},
      {
        body: `SELECT if(number % 2 = 0, 723401728380766730, number) AS a, concat('\n\n', '; DROP TABLE native; INSERT INTO native FORMAT CSV\n\n', toString(number)) AS s FROM numbers(1000) FORMAT Native`,
      },
    );
    // 723401728380766730 is 0x0A0A0A0A0A0A0A0A: eight line breaks.
    expect(made.body.includes(Buffer.from('\n\n\n\n\n\n\n\n'))).toBe(true);
    for (const [parameters, body] of [
      [{ query: 'INSERT INTO native FORMAT Native' }, made.body],
      [{}, Buffer.concat([Buffer.from('INSERT INTO native (a, s) FORMAT Native\n'), made.body])],
    ] as const) {
      const answer = await call(parameters, { body });
      expect([answer.status, answer.body.toString()]).toEqual([200, '']);
      expect(summaryOf(answer).written_rows).toBe('1000');
    }
    const hashes = await text('SELECT count(), uniqExact(s), countIf(a = 723401728380766730) FROM native');
    expect(hashes).toBe('2000\t1000\t1000\n');
  });

  it('takes RowBinary, Values, Parquet, TSV and settings in the statement', async () => {
    await text('CREATE TABLE many (a UInt16, s String) ENGINE = MergeTree ORDER BY a');
    const rowBinary = Buffer.from([0x0a, 0x0a, 2, 0x0a, 0x0a, 0x0b, 0x0a, 1, 0x3b]);
    expect(
      summaryOf(await call({ query: 'INSERT INTO many FORMAT RowBinary' }, { body: rowBinary })).written_rows,
    ).toBe('2');
    await text("INSERT INTO many VALUES (1, 'one;'), (2, 'two\\n\\n'), (1 + 2, concat('th', 'ree'))");
    await text('INSERT INTO many SETTINGS max_insert_threads = 1 FORMAT TSV\n4\tfour\n');
    const parquet = await call({}, { body: "SELECT toUInt16(5) AS a, 'five' AS s FORMAT Parquet" });
    expect(parquet.body.subarray(0, 4).toString()).toBe('PAR1');
    expect((await call({ query: 'INSERT INTO many FORMAT Parquet' }, { body: parquet.body })).status).toBe(
      200,
    );
    await text("INSERT INTO many SELECT number, 'n' FROM numbers(6, 2)");
    expect(await text('SELECT a, s FROM many ORDER BY a')).toBe(
      '1\tone;\n2\ttwo\\n\\n\n3\tthree\n4\tfour\n5\tfive\n6\tn\n7\tn\n2570\t\\n\\n\n2571\t;\n',
    );
  });

  it('inserts nothing when the client goes away in the middle of its data', async () => {
    await text('CREATE TABLE partial (a UInt64) ENGINE = MergeTree ORDER BY a');
    const url = new URL(engines.clickhouseUrl);
    // Little enough to be held in memory, and so much that a part of it lies in a file already.
    for (const sent of ['1\n2\n3\n', '12345678\n'.repeat(1_000_000)]) {
      await new Promise<void>((resolve) => {
        const request = httpRequest({
          host: url.hostname,
          port: url.port,
          path: '/?query=INSERT%20INTO%20partial%20FORMAT%20CSV',
          method: 'POST',
          auth: `${url.username}:${url.password}`,
        });
        request.on('error', () => undefined);
        request.on('close', () => resolve());
        request.write(sent, () => request.destroy());
      });
    }
    expect(await text('SELECT count() FROM partial')).toBe('0\n');
  });

  it('refuses a file of the server, a second statement and a broken gzip', async () => {
    const status = async (body: string | Buffer, parameters = {}, headers = {}): Promise<string> => {
      const answer = await call(parameters, { body, headers });
      return `${answer.status} ${String(answer.headers['x-clickhouse-exception-code'])}`;
    };
    expect(await status("INSERT INTO many FROM INFILE '/etc/passwd' FORMAT CSV")).toBe('400 36');
    expect(await status("SELECT 1 INTO OUTFILE '/tmp/out'")).toBe('400 36');
    expect(await status('SELECT 1; SELECT 2')).toBe('400 62');
    expect(await status('KILL QUERY WHERE 1 SYNC')).toBe('501 48');
    expect(await status('')).toBe('400 62');
    expect(
      await status('not gzip', { query: 'INSERT INTO many FORMAT CSV' }, { 'content-encoding': 'gzip' }),
    ).toBe('400 36');
    expect(await status('x', { query: 'INSERT INTO many FORMAT CSV' }, { 'content-encoding': 'zstd' })).toBe(
      '415 48',
    );
  });

  it('keeps acknowledged rows through kill -9', async () => {
    await text('CREATE TABLE durable (a UInt64, s String) ENGINE = MergeTree ORDER BY a');
    const settings = { fsync_after_insert: '1', fsync_part_directory: '1', async_insert: '0' };
    const query = `INSERT INTO durable FORMAT CSV`;
    await text('ALTER TABLE durable MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1');
    let acknowledged = 0;
    for (let batch = 0; batch < 10; batch += 1) {
      const body = Array.from({ length: 100 }, (_, row) => `${batch * 100 + row},x\n`).join('');
      const answer = await call({ query, async_insert: settings.async_insert }, { body });
      expect(answer.body.toString()).toBe('');
      acknowledged += 100;
    }
    await engines.clickhouse.kill();
    await engines.clickhouse.restart();
    expect(await text('SELECT count(), sum(a) FROM durable')).toBe(`${acknowledged}\t499500\n`);
  });
});

describe('HTTP', () => {
  it('answers health checks without a user, and nothing else', async () => {
    const url = engines.clickhouseUrl.replace(/\/\/.*@/, '//').replace('/tallyline', '/ping');
    expect((await call({}, { url, method: 'GET' })).body.toString()).toBe('Ok.\n');
    const stranger = await call({ query: 'SELECT 1' }, { url: url.replace('/ping', '/'), method: 'GET' });
    expect([stranger.status, stranger.headers['x-clickhouse-exception-code']]).toEqual([401, '516']);
    const wrong = await call(
      { query: 'SELECT 1', user: 'tallyline', password: 'guess' },
      { url: url.replace('/ping', '/') },
    );
    expect([wrong.status, wrong.headers['x-clickhouse-exception-code']]).toEqual([403, '516']);
  });

  it('reads a statement from the URL and takes user and key from headers', async () => {
    const { username, password, host } = new URL(engines.clickhouseUrl);
    const headers = { 'x-clickhouse-user': username, 'x-clickhouse-key': password };
    const answer = await call(
      { query: 'SELECT 1 AS a', default_format: 'JSONCompact', query_id: 'mine' },
      {
        url: `http://${host}/`,
        method: 'GET',
        headers,
      },
    );
    expect(JSON.parse(answer.body.toString())).toMatchObject({ data: [[1]], rows: 1 });
    expect(answer.headers['x-clickhouse-query-id']).toBe('mine');
    expect(answer.headers['content-type']).toBe('application/json; charset=UTF-8');
  });

  it('never writes for GET', async () => {
    const answer = await call({ query: 'CREATE TABLE got (a UInt8) ENGINE = Memory' }, { method: 'GET' });
    expect([answer.status, answer.headers['x-clickhouse-exception-code']]).toEqual([500, '164']);
  });

  it('sends gzip to who accepts it', async () => {
    const answer = await call(
      {},
      { body: 'SELECT number FROM numbers(400000)', headers: { 'accept-encoding': 'gzip' } },
    );
    expect(answer.headers['content-encoding']).toBe('gzip');
    const lines = gunzipSync(answer.body).toString().trimEnd().split('\n');
    expect([lines.length, lines.at(-1)]).toEqual([400_000, '399999']);
    const zipped = gzipSync('INSERT INTO many FORMAT CSV\n9,nine\n');
    expect((await call({}, { body: zipped, headers: { 'content-encoding': 'gzip' } })).status).toBe(200);
  });

  it('cuts the connection when a result fails on its way', async () => {
    const answer = await call(
      {},
      { body: 'SELECT throwIf(number = 2000000) FROM numbers(10000000) SETTINGS max_block_size = 1000' },
    );
    expect(answer.status).toBe(200);
    expect(answer.complete).toBe(false);
  });

  it('writes every format that @clickhouse/client and people ask for', async () => {
    for (const format of [
      'JSON',
      'CSVWithNames',
      'TSVWithNamesAndTypes',
      'Parquet',
      'Arrow',
      'ORC',
      'Avro',
      'XML',
      'Pretty',
      'Null',
      'Native',
      'RowBinary',
    ]) {
      const answer = await call(
        {},
        { body: `SELECT number AS a, toString(number) AS s FROM numbers(10) FORMAT ${format}` },
      );
      expect([format, answer.status, answer.complete]).toEqual([format, 200, true]);
      if (format !== 'Null') expect(answer.body.length).toBeGreaterThan(10);
    }
    expect(await text("SHOW TABLES FROM system LIKE 'one' FORMAT JSONEachRow")).toBe('{"name":"one"}\n');
    expect(await text('EXISTS TABLE system.one')).toBe('1\n');
    expect(await text('DESCRIBE TABLE system.one FORMAT CSV')).toBe('"dummy","UInt8","","","","",""\n');
    expect(await text('WITH 1 AS x SELECT x -- a comment\n/* and one more */;')).toBe('1\n');
    expect(await text('(SELECT 1) UNION ALL (SELECT 1) FORMAT TSV SETTINGS max_threads = 1')).toBe('1\n1\n');
    expect(await text("SELECT 'a' AS format, 'FORMAT CSV' AS b")).toBe('a\tFORMAT CSV\n');
  });

  it('lets no setting, parameter or database reach the next request', async () => {
    const threads = (): Promise<string> =>
      text("SELECT getSetting('max_threads'), currentDatabase(), getSetting('readonly')");
    const before = await threads();
    expect(
      await text("SELECT getSetting('max_threads'), currentDatabase()", {
        max_threads: '7',
        database: 'system',
      }),
    ).toBe('7\tsystem\n');
    await text('SET max_threads = 9');
    await text('USE system');
    expect(await threads()).toBe(before);
    const parameter = await call({ param_leak: 'x' }, { body: 'SELECT {leak:String}' });
    expect(parameter.body.toString()).toBe('x\n');
    expect((await call({}, { body: 'SELECT {leak:String}' })).headers['x-clickhouse-exception-code']).toBe(
      '456',
    );
  });

  it('uses a session again, and it holds nothing of what was done in it', async () => {
    await text('CREATE TABLE again (a UInt64) ENGINE = MergeTree ORDER BY a');
    const session = (parameters = {}): Promise<string> =>
      text("SELECT getSetting('log_comment')", parameters);
    const state = (): Promise<string> =>
      text(
        `SELECT currentDatabase(), getSetting('readonly'),
          (SELECT count() FROM system.tables WHERE is_temporary),
          (SELECT groupArray((name, value)) FROM system.settings WHERE changed AND name != 'log_comment')`,
      );
    const before = await state();
    const first = await session();
    expect(await session()).toBe(first);
    expect(await session({ max_threads: '3' })).not.toBe(first);

    const keeping = [
      'SELECT 1 SETTINGS max_threads = 7',
      'SELECT 1 FORMAT JSON SETTINGS max_threads = 7',
      'SHOW TABLES',
      'EXPLAIN SELECT 1 SETTINGS max_threads = 7',
      'INSERT INTO again SETTINGS max_insert_threads = 5 FORMAT CSV\n1\n',
      'INSERT INTO again SELECT 2 SETTINGS max_threads = 7',
    ];
    for (const sql of keeping) {
      await text(sql);
      expect([sql, await state(), await session()]).toEqual([sql, before, first]);
    }
    // What may have changed its session, and what failed in it, ends with it.
    const ending = [
      'SET max_threads = 9',
      'USE system',
      'CREATE TEMPORARY TABLE mine (a UInt8)',
      "SET param_leak = 'x'",
      'SELECT throwIf(1) SETTINGS max_threads = 7',
      'SELECT nothing',
      'SELECT 1 +',
      'INSERT INTO again FORMAT CSV\nx\n',
      'INSERT INTO nowhere FORMAT CSV\n1\n',
    ];
    const seen = new Set<string>();
    for (const sql of ending) {
      seen.add(await session());
      await call({}, { body: sql });
      expect([sql, await state()]).toEqual([sql, before]);
      expect((await call({}, { body: 'SELECT {leak:String}' })).status).toBe(400);
    }
    expect(seen.size).toBe(ending.length);
    expect(await text('SELECT groupArray(a) FROM (SELECT a FROM again ORDER BY a)')).toBe('[1,2]\n');
  });

  it('sets the parameters of a session anew, and only those that were sent', async () => {
    const sql = 'SELECT {x:String}, {y:UInt64}';
    for (const [x, y] of [
      ['a', '1'],
      ["'; SET max_threads = 1; --", '2'],
      ['', '3'],
    ] as const)
      expect(await text(sql, { param_x: x, param_y: y })).toBe(`${x.replaceAll("'", "\\'")}\t${y}\n`);
    expect((await call({ param_x: 'a' }, { body: sql })).headers['x-clickhouse-exception-code']).toBe('456');
    await text('CREATE TABLE guarded (a UInt64) ENGINE = MergeTree ORDER BY a');
    const query =
      "INSERT INTO guarded SELECT a FROM input('a UInt64') WHERE throwIf(NOT ({n:UInt64} > 1), 'no') = 0 FORMAT CSV";
    for (const [n, status] of [
      ['2', 200],
      ['1', 500],
      ['3', 200],
    ] as const)
      expect([n, (await call({ query, param_n: n }, { body: n })).status]).toEqual([n, status]);
    expect(await text('SELECT groupArray(a) FROM (SELECT a FROM guarded ORDER BY a)')).toBe('[2,3]\n');
  });

  it('takes a setting for a value and never for SQL', async () => {
    for (const value of [
      "1'; DROP TABLE many; --",
      "\\'; DROP TABLE many; --",
      '1; DROP TABLE many',
      '1\\',
      '\0',
    ]) {
      for (const parameters of [
        { max_threads: value },
        { database: value },
        { [value]: '1' },
        { param_x: value },
        { [`param_${value}`]: '1' },
      ]) {
        await call(parameters as Record<string, string>, { body: 'SELECT 1' });
      }
    }
    expect(
      (await call({ 'max_threads=1; DROP TABLE many; SET max_threads': '1' }, { body: 'SELECT 1' })).status,
    ).toBe(400);
    expect(
      (await call({ no_such_setting: '1' }, { body: 'SELECT 1' })).headers['x-clickhouse-exception-code'],
    ).toBe('115');
    expect((await call({ database: 'nowhere' }, { body: 'SELECT 1' })).status).toBe(404);
    expect(await text('EXISTS TABLE many')).toBe('1\n');
  });

  it('answers pings while slow statements run', async () => {
    const slow = [
      text('SELECT sleep(1)'),
      text('SELECT (SELECT sleep(1))'),
      text('SELECT count() FROM numbers_mt(200000000) WHERE sipHash64(number) = 0'),
    ];
    let worst = 0;
    for (let round = 0; round < 20; round += 1) {
      const start = performance.now();
      await client.ping();
      worst = Math.max(worst, performance.now() - start);
      await delay(10);
    }
    await Promise.all(slow);
    expect(worst).toBeLessThan(500);
  });

  it('stops a statement whose client has gone', async () => {
    const isRunning = async (mark: string): Promise<boolean> =>
      (await text(
        `SELECT count() FROM system.processes WHERE query LIKE '%${mark}%' AND query NOT LIKE '%system.processes%'`,
      )) !== '0\n';
    for (const [mark, sql] of [
      ['silent_', 'SELECT count() AS silent_ FROM numbers_mt(100000000000) WHERE sipHash64(number) = 0'],
      ['loud_', 'SELECT number AS loud_ FROM numbers(100000000000)'],
    ] as const) {
      const abort = new AbortController();
      const gone = call({}, { body: sql, signal: abort.signal }).catch(() => undefined);
      await until(`${mark} runs`, () => isRunning(mark));
      abort.abort();
      await gone;
      await until(`${mark} has ended`, async () => !(await isRunning(mark)));
    }
  });

  it('loses no slot to clients that go at any moment', async () => {
    const sql = 'SELECT number AS fleeting_ FROM numbers(100000000000)';
    const rounds = Array.from({ length: 100 }, async (_, index) => {
      const abort = new AbortController();
      const gone = call({}, { body: sql, signal: abort.signal }).catch(() => undefined);
      await delay(index % 20);
      abort.abort();
      await gone;
    });
    await Promise.all(rounds);
    const running =
      "SELECT count() FROM system.processes WHERE query LIKE '%fleeting_%' AND query NOT LIKE '%system.processes%'";
    await until('none of them runs', async () => (await text(running)) === '0\n');
  });
});

describe('the read-only user', () => {
  const attempt = async (body: string, parameters: Record<string, string> = {}): Promise<string> => {
    const answer = await call(parameters, { body, url: engines.clickhouseReaderUrl });
    return answer.status === 200
      ? `200 ${answer.body.toString()}`
      : String(answer.headers['x-clickhouse-exception-code']);
  };

  beforeAll(async () => {
    await text('CREATE TABLE IF NOT EXISTS secret (a UInt64) ENGINE = MergeTree ORDER BY a');
    await text('INSERT INTO secret VALUES (42)');
  });

  it('reads', async () => {
    expect(await attempt('SELECT a FROM secret')).toBe('200 42\n');
    expect(
      await attempt('-- hello\nSELECT {x:UInt8} + a /* ; */ AS n FROM secret FORMAT JSONEachRow', {
        param_x: '1',
        output_format_json_quote_64bit_integers: '1',
      }),
    ).toBe('200 {"n":"43"}\n');
    expect(await attempt("SHOW TABLES LIKE 'secret'")).toBe('200 secret\n');
    expect(await attempt('DESCRIBE TABLE secret FORMAT TSV')).toMatch(/^200 a\tUInt64/);
    expect(await attempt('EXISTS TABLE secret')).toBe('200 1\n');
    expect(await attempt('EXPLAIN SELECT a FROM secret')).toMatch(/^200 /);
    expect(await attempt('WITH 1 AS x SELECT x')).toBe('200 1\n');
    expect(await attempt('SELECT sum(number) FROM numbers(10)')).toBe('200 45\n');
    const result = await reader.query({ query: 'SELECT a FROM secret', format: 'JSONEachRow' });
    expect(await result.json()).toEqual([{ a: 42 }]);
  });

  it('cannot write, whatever it sends', async () => {
    for (const sql of [
      'INSERT INTO secret VALUES (1)',
      'INSERT INTO secret SELECT 1',
      'WITH 1 AS x INSERT INTO secret SELECT x',
      'CREATE TABLE mine (a UInt8) ENGINE = Memory',
      'CREATE TEMPORARY TABLE mine (a UInt8)',
      'DROP TABLE secret',
      'TRUNCATE TABLE secret',
      'ALTER TABLE secret DELETE WHERE 1',
      'OPTIMIZE TABLE secret',
      'RENAME TABLE secret TO stolen',
      'SET max_threads = 1',
      'SET readonly = 0',
      'USE system',
      'KILL QUERY WHERE 1 ASYNC',
      'SYSTEM FLUSH LOGS',
      "BACKUP TABLE secret TO File('/tmp/b')",
      'EXPLAIN INSERT INTO secret SELECT 1',
      "SELECT 1 INTO OUTFILE '/tmp/tallyline-reader-out'",
      "SELECT 1 INTO/**/OUTFILE '/tmp/tallyline-reader-out'",
      "SELECT 1 /* /* */ */ INTO OUTFILE '/tmp/tallyline-reader-out'",
      "SELECT 1 -- \n INTO -- \n OUTFILE '/tmp/tallyline-reader-out'",
      "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/tallyline-reader-out'",
      "SHOW TABLES INTO OUTFILE '/tmp/tallyline-reader-out'",
      'SELECT 1 PARALLEL WITH DROP TABLE secret',
      'SELECT 1; DROP TABLE secret',
    ]) {
      expect([sql, await attempt(sql)]).toEqual([sql, expect.stringMatching(/^(164|62|36|48|80)$/)]);
    }
    expect(existsSync('/tmp/tallyline-reader-out')).toBe(false);
    expect(await text('SELECT * FROM secret')).toBe('42\n');
  });

  it('cannot reach files, addresses or other engines', async () => {
    for (const sql of [
      "SELECT file('/etc/hostname')",
      "SELECT `file`('/etc/hostname')",
      'SELECT "file"(\'/etc/hostname\')',
      "SELECT FILE /* x */ ('/etc/hostname')",
      "SELECT arrayMap(x -> file(x), ['/etc/hostname'])",
      "SELECT * FROM file('/etc/passwd', 'LineAsString')",
      "SELECT * FROM '/etc/passwd'",
      'SELECT * FROM `/etc/passwd`',
      'SELECT * FROM default.`/etc/passwd`',
      "DESCRIBE TABLE file('/etc/passwd')",
      "DESC file('/etc/passwd')",
      "DESCRIBE (SELECT * FROM file('/etc/passwd'))",
      "DESCRIBE TABLE url('http://127.0.0.1:1/')",
      "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
      "SELECT * FROM s3('http://127.0.0.1:1/b/x', 'CSV')",
      "SELECT * FROM remote('127.0.0.1:1', 'system.one')",
      "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
      "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
      "SELECT * FROM executable('ls', 'TSV', 'a String')",
      "SELECT * FROM sqlite('/tmp/x', 't')",
      "SELECT * FROM icebergLocal('/tmp/x')",
      "SELECT * FROM view(SELECT * FROM file('/etc/passwd'))",
      "SELECT (SELECT count() FROM file('/etc/passwd', 'LineAsString'))",
      "EXPLAIN QUERY TREE SELECT * FROM file('/etc/passwd', 'LineAsString')",
      "EXPLAIN SYNTAX SELECT file('/etc/hostname')",
      "SELECT catboostEvaluate('/etc/passwd', 1)",
    ]) {
      const answer = await attempt(sql);
      expect([sql, answer]).toEqual([sql, expect.stringMatching(/^\d+$/)]);
      expect(answer).not.toBe('200');
    }
    expect(await attempt('SELECT * FROM `/etc/passwd`')).not.toContain('root');
    const template = { default_format: 'Template', format_template_resultset: '/etc/passwd' };
    expect(await attempt('SELECT 1', template)).toBe('164');
    expect(
      await attempt("SELECT 1 FORMAT Template SETTINGS format_template_resultset = '/etc/passwd'"),
    ).toMatch(/^\d+$/);
    expect(
      await attempt("SELECT 1 SETTINGS format_template_resultset = '/etc/passwd' FORMAT Template"),
    ).toMatch(/^\d+$/);
  });

  it('cannot lift its limits', async () => {
    expect(await attempt('SELECT 1', { max_execution_time: '0' })).toBe('452');
    expect(await attempt('SELECT 1', { max_execution_time: '999999' })).toBe('452');
    expect(await attempt('SELECT 1', { max_memory_usage: '1e999' })).toBe('452');
    expect(await attempt('SELECT 1', { readonly: '0' })).toBe('164');
    expect(await attempt('SELECT 1', { profile: 'default' })).toBe('164');
    expect(await attempt('SELECT 1', { allow_introspection_functions: '1' })).toBe('164');
    expect(await attempt('SELECT 1 SETTINGS max_execution_time = 0')).toBe('164');
    expect(await attempt('SELECT number FROM numbers(20000000) FORMAT Null')).toBe('396');
    expect(await attempt('SELECT sleep(3)', { max_execution_time: '1' })).toBe('159');
    expect(await attempt("SELECT getSetting('max_execution_time')", { max_execution_time: '2' })).toBe(
      '200 2\n',
    );
    const hungry = 'SELECT length(groupArray(randomString(1000))) FROM numbers(10000000)';
    expect(await attempt(hungry, { max_memory_usage: '100000000' })).toBe('241');
  });
});

describe('what is bounded', () => {
  it('takes a large body whole and returns it unchanged', async () => {
    await text('CREATE TABLE large (s String) ENGINE = MergeTree ORDER BY tuple()');
    const blob = randomBytes(8_000_000);
    // RowBinary: the length as a varint, then the bytes.
    const varint = Buffer.from([0x80, 0xa4, 0xe8, 0x03]);
    const answer = await call(
      { query: 'INSERT INTO large FORMAT RowBinary' },
      { body: Buffer.concat([varint, blob]) },
    );
    expect(answer.body.toString()).toBe('');
    const sent = createHash('sha256').update(blob).digest('hex').toUpperCase();
    expect(await text('SELECT length(s), hex(SHA256(s)) FROM large')).toBe(`8000000\t${sent}\n`);
  });

  it('refuses a body that is too large while it is being sent, and goes on', async () => {
    const dataDir = join(engines.dir, 'narrow');
    const [port = 0] = await freePorts(1);
    const env = { TALLYLINE_CLICKHOUSE_BODY_BYTES_MAX: '100000' };
    const narrow = await startClickHouse({ dataDir, port, log: () => undefined, env });
    try {
      const send = async (bytes: number, zip: boolean): Promise<string> => {
        const plain = Buffer.alloc(bytes, '1\n');
        const answer = await call(
          { query: 'INSERT INTO sent FORMAT CSV' },
          {
            url: narrow.url,
            body: zip ? gzipSync(plain) : plain,
            headers: zip ? { 'content-encoding': 'gzip' } : {},
          },
        );
        return `${answer.status} ${String(answer.headers['x-clickhouse-exception-code'])}`;
      };
      await call({}, { url: narrow.url, body: 'CREATE TABLE sent (a UInt8) ENGINE = MergeTree ORDER BY a' });
      for (const zip of [false, true]) {
        expect(await send(100_000, zip)).toBe('200 undefined');
        expect(await send(100_002, zip)).toBe('413 229');
        expect(await send(3_000_000, zip)).toBe('413 229');
      }
      const counted = await call({}, { url: narrow.url, body: 'SELECT count() FROM sent' });
      expect(counted.body.toString()).toBe('100000\n');
    } finally {
      await narrow.stop();
    }
  });

  it('leaves no spooled data behind', async () => {
    const folder = join(engines.dir, 'clickhouse', 'spool');
    const bytes = (): number => {
      const files = readdirSync(folder).filter((name) => name.startsWith('insert-'));
      return files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
    };
    // What a client left when it went away goes when the process has heard of it.
    await until('no file holds data', () => bytes() === 0);
  });
});
