import { describe, expect, it } from 'vitest';
import { authenticate, forbiddenFunctions, refuseToReader } from './access.ts';
import type { User } from './access.ts';
import { clickHouseError, formatError, httpStatusOf, parseEngineError } from './error.ts';
import { contentTypeOf, readRequest } from './request.ts';
import { composeSettings } from './settings.ts';
import type { SessionSettings } from './settings.ts';
import { Slots } from './slots.ts';

const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
const authorization = basic('me:a:b');

describe('requests', () => {
  it('are read from URL and headers', () => {
    const request = readRequest({
      method: 'POST',
      target:
        '/?query=SELECT+1&database=d&default_format=JSON&max_threads=2&param_x=%27y&query_id=q&wait_end_of_query=1',
      headers: { authorization, 'accept-encoding': 'br, gzip;q=0.5', 'content-encoding': 'GZIP' },
    });
    expect(request).toMatchObject({
      kind: 'query',
      isGet: false,
      query: 'SELECT 1',
      database: 'd',
      defaultFormat: 'JSON',
      queryId: 'q',
      credentials: { user: 'me', password: 'a:b' },
      bodyEncoding: 'gzip',
      acceptsGzip: true,
    });
    if (request.kind !== 'query') return;
    expect([...request.settings]).toEqual([['max_threads', '2']]);
    expect([...request.parameters]).toEqual([['x', "'y"]]);
  });

  const outcomes: readonly (readonly [string, string, Record<string, string>, string])[] = [
    ['GET', '/ping', {}, 'ping'],
    ['GET', '/', {}, 'ping'],
    ['HEAD', '/', {}, 'ping'],
    ['GET', '/?query=SELECT+1', {}, '401'],
    ['GET', '/?query=SELECT+1', { authorization: 'Bearer x' }, '401'],
    ['GET', '/?query=SELECT+1', { authorization: basic('no colon') }, '401'],
    ['GET', '/?query=SELECT+1&user=u', {}, 'query'],
    ['DELETE', '/', { authorization }, '405'],
    ['GET', '/nothing', { authorization }, '404'],
    ['POST', '/?session_id=1', { authorization }, '501'],
    ['POST', '/?decompress=1', { authorization }, '501'],
    ['POST', '/?default_format=a%20b', { authorization }, '400'],
    ['POST', '/?query_id=%0a', { authorization }, '400'],
    ['POST', '/', { authorization, 'content-encoding': 'lz4' }, '415'],
  ];
  for (const [method, target, headers, expected] of outcomes) {
    it(`${method} ${target} with ${JSON.stringify(Object.keys(headers))} is ${expected}`, () => {
      const request = readRequest({ method, target, headers });
      expect(request.kind === 'refused' ? String(request.status) : request.kind).toBe(expected);
    });
  }

  it('know the type of what they answer', () => {
    expect(contentTypeOf('JSONEachRow')).toBe('application/x-ndjson; charset=UTF-8');
    expect(contentTypeOf('JSON')).toBe('application/json; charset=UTF-8');
    expect(contentTypeOf('TabSeparated')).toBe('text/tab-separated-values; charset=UTF-8');
    expect(contentTypeOf('Parquet')).toBe('application/octet-stream');
  });
});

describe('settings', () => {
  const limits = { executionSecondsMax: 30, resultRowsMax: 1000, memoryBytesMax: 1_000_000 };
  const base: SessionSettings = {
    settings: new Map(),
    parameters: new Map(),
    database: 'd',
    reader: null,
    isGet: false,
  };
  const reader = (settings: Record<string, string>): SessionSettings => ({
    ...base,
    reader: limits,
    settings: new Map(Object.entries(settings)),
  });

  it('become quoted statements', () => {
    const settings = new Map([['max_threads', "1'; DROP TABLE t; --\\"]]);
    expect(
      composeSettings({ ...base, settings, parameters: new Map([['x', "a'\\t"]]), database: 'a`b' }),
    ).toMatchObject({
      kind: 'statements',
      sql: "SET max_threads = '1\\'; DROP TABLE t; --\\\\', param_x = 'a\\'\\\\t'; USE `a\\`b`",
      again: "SET param_x = 'a\\'\\\\t'",
    });
    expect(composeSettings(base)).toMatchObject({ sql: 'USE `d`', again: '' });
  });

  it('are refused by name', () => {
    for (const name of ['a b', 'a=1', '', '1a', "a'", 'a;b', 'ä']) {
      expect(composeSettings({ ...base, settings: new Map([[name, '1']]) })).toMatchObject({
        error: { code: 36 },
      });
      expect(composeSettings({ ...base, parameters: new Map([[name, '1']]) })).toMatchObject({
        error: { code: 36 },
      });
    }
  });

  it('make a reader read-only last, within its limits', () => {
    expect(
      composeSettings(reader({ max_execution_time: '5', output_format_json_quote_64bit_integers: '1' })),
    ).toEqual({
      kind: 'statements',
      key: null,
      again: '',
      sql: "SET max_execution_time = '5', max_result_rows = '1000', max_memory_usage = '1000000', output_format_json_quote_64bit_integers = '1'; USE `d`; SET readonly = '1'",
    });
    for (const value of ['0', '31', '-1', 'NaN', 'Infinity', '', 'x']) {
      expect([value, composeSettings(reader({ max_execution_time: value }))]).toMatchObject([
        value,
        { error: { code: 452 } },
      ]);
    }
    for (const name of [
      'readonly',
      'profile',
      'allow_ddl',
      'format_template_row',
      'format_schema',
      'max_ast_depth',
    ]) {
      expect([name, composeSettings(reader({ [name]: '1' }))]).toMatchObject([
        name,
        { error: { code: 164 } },
      ]);
    }
  });

  it('have one key for sessions that differ in the values of parameters only', () => {
    const keyOf = (session: Partial<SessionSettings>): string | null => {
      const composed = composeSettings({ ...base, ...session });
      return composed.kind === 'refused' ? 'refused' : composed.key;
    };
    const settings = new Map([['max_threads', '1']]);
    const parameters = new Map([['x', 'a']]);
    const keys = [
      keyOf({}),
      keyOf({ database: 'e' }),
      keyOf({ settings }),
      keyOf({ settings: new Map([['max_threads', '2']]) }),
      keyOf({ parameters }),
      keyOf({ parameters: new Map([['y', 'a']]) }),
      keyOf({ settings, parameters }),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    expect(keyOf({ parameters: new Map([['x', 'b']]) })).toBe(keyOf({ parameters }));
    // The one that says which session this is, and not what it is like.
    expect(keyOf({ settings: new Map([['log_comment', 'mine']]) })).toBe(keyOf({}));
    for (const readonly of ['0', '1', '2'])
      expect(keyOf({ settings: new Map([['readonly', readonly]]) })).toBeNull();
    expect(keyOf({ isGet: true })).toBeNull();
    expect(keyOf({ reader: limits })).toBeNull();
  });

  it('make GET read-only', () => {
    expect(composeSettings({ ...base, isGet: true })).toMatchObject({
      sql: expect.stringMatching(/SET readonly = '2'$/),
    });
  });
});

describe('errors', () => {
  it('are read from the engine, once or twice wrapped', () => {
    expect(parseEngineError('Code: 62. DB::Exception: Syntax error: failed (1): x. (SYNTAX_ERROR)')).toEqual({
      code: 62,
      name: 'SYNTAX_ERROR',
      message: 'Syntax error: failed (1): x',
    });
    expect(
      parseEngineError(
        'Code: 33. DB::Exception: Code: 33. DB::Exception: Cannot read all data: (in file/uri /a/b): While executing Native: While executing File: data for INSERT was parsed from file. (CANNOT_READ_ALL_DATA) (version 26.7.2.1). (CANNOT_READ_ALL_DATA)',
      ),
    ).toEqual({
      code: 33,
      name: 'CANNOT_READ_ALL_DATA',
      message: 'Cannot read all data: While executing Native',
    });
    expect(parseEngineError('boom')).toEqual({ code: 1002, name: 'UNKNOWN_EXCEPTION', message: 'boom' });
  });

  it('are told as ClickHouse tells them', () => {
    expect(formatError(clickHouseError(164, 'No.'), '26.7')).toBe(
      'Code: 164. DB::Exception: No. (READONLY) (version 26.7)\n',
    );
    expect([62, 60, 164, 516, 159, 202, 48, 9999].map(httpStatusOf)).toEqual([
      400, 404, 500, 403, 408, 503, 501, 500,
    ]);
  });
});

describe('access', () => {
  const users: readonly User[] = [
    { name: 'w', password: 'one', role: 'writer' },
    { name: 'r', password: 'two', role: 'reader' },
    { name: 'empty', password: '', role: 'writer' },
  ];

  it('needs both name and password', () => {
    expect(authenticate(users, { user: 'w', password: 'one' })).toBe('writer');
    expect(authenticate(users, { user: 'r', password: 'two' })).toBe('reader');
    for (const [user, password] of [
      ['w', 'two'],
      ['x', 'one'],
      ['w', ''],
      ['empty', ''],
      ['W', 'one'],
    ] as const) {
      expect(authenticate(users, { user, password })).toBeNull();
    }
  });

  it('lets a reader read and nothing else', () => {
    const forbidden = forbiddenFunctions(['file', 'url', 'numbers', 'format', 'mysql']);
    const may = (sql: string): boolean => refuseToReader(sql, forbidden) === null;
    for (const sql of [
      'SELECT 1',
      '(SELECT 1) UNION ALL (SELECT 2)',
      'WITH 1 AS x SELECT x',
      'SHOW TABLES',
      'DESCRIBE TABLE t',
      'EXPLAIN SELECT count() FROM t',
      'SELECT file FROM t',
      "SELECT 'file(1)'",
      'SELECT * FROM numbers(3)',
      "SELECT format('{}', 1)",
    ]) {
      expect([sql, may(sql)]).toEqual([sql, true]);
    }
    for (const sql of [
      'INSERT INTO t SELECT 1',
      'DROP TABLE t',
      'SET a = 1',
      '',
      "SELECT file('x')",
      "SELECT FILE('x')",
      "SELECT `file`('x')",
      "SELECT * FROM mysql('x')",
      "DESCRIBE TABLE url('x')",
      'DESCRIBE (SELECT 1 FROM numbers(1))',
      "SELECT 1 INTO OUTFILE 'x'",
    ]) {
      expect([sql, may(sql)]).toEqual([sql, false]);
    }
  });
});

describe('slots', () => {
  it('are given in turn, and refused when too many wait', async () => {
    const slots = new Slots(1, 2);
    const never = new AbortController().signal;
    const first = await slots.acquire(never);
    const order: string[] = [];
    const gone = new AbortController();
    const second = slots.acquire(gone.signal).then(
      () => order.push('second'),
      () => order.push('gone'),
    );
    const third = slots.acquire(never).then((slot) => {
      order.push('third');
      slots.release(slot);
    });
    await expect(slots.acquire(never)).rejects.toMatchObject({ error: { code: 202 } });
    gone.abort(new Error('gone'));
    await second;
    slots.release(first);
    await third;
    expect(order).toEqual(['gone', 'third']);
    expect(await slots.acquire(never)).toEqual(first);
  });
});
