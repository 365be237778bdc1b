import { expect, test } from 'vitest';
import type { Meter } from '../../../contract/meter.ts';
import { chooseFormat, csvHeader } from './format.ts';
import {
  cursorKey,
  cursorScope,
  cursorShape,
  unknownPaths,
  usageExport,
  usagePage,
  type UsageQuery,
} from './query.ts';

const METER: Meter = {
  key: 'tokens',
  eventType: 'llm.request',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: ['model', 'user.plan'],
};

const QUERY: UsageQuery = {
  tenant: 'acme',
  meter: METER,
  subjects: [],
  range: { start: 3_600_000, end: 7_200_000 },
  size: 'total',
  starts: [3_600_000],
  groupBy: [],
  bySubject: false,
  filters: [],
};

test('only dimensions of the meter can be grouped and filtered by', () => {
  expect(unknownPaths(METER, ['model', 'user.plan'])).toEqual([]);
  expect(unknownPaths(METER, ['user', 'model', '__proto__', 'subject'])).toEqual([
    'user',
    '__proto__',
    'subject',
  ]);
  expect(() => usagePage({ ...QUERY, groupBy: ['color'] }, null, 10)).toThrow('no dimension');
  expect(() => usagePage({ ...QUERY, filters: [{ path: 'color', values: [] }] }, null, 10)).toThrow(
    'no dimension',
  );
});

test('nothing of a request stands in the SQL', () => {
  const hostile = `x' OR 1=1; DROP TABLE usage_rows; --`;
  const meter = { ...METER, key: hostile, groupBy: [hostile] };
  const query: UsageQuery = {
    ...QUERY,
    tenant: hostile,
    meter,
    subjects: [hostile],
    groupBy: [hostile],
    bySubject: true,
    filters: [{ path: hostile, values: [hostile] }],
  };
  const plain: UsageQuery = {
    ...query,
    tenant: 't',
    meter: { ...METER, key: 'k', groupBy: ['g'] },
    subjects: ['s'],
    groupBy: ['g'],
    filters: [{ path: 'g', values: ['v'] }],
  };
  expect(usagePage(query, [3_600, hostile, hostile], 10).sql).toBe(
    usagePage(plain, [3_600, 'a', 'b'], 10).sql,
  );
  for (const format of ['ndjson', 'csv', 'parquet'] as const) {
    expect(usageExport(query, format).sql).toBe(usageExport(plain, format).sql);
  }
  const { sql, params } = usagePage(query, [3_600, hostile, hostile], 10);
  expect(sql).not.toContain('DROP');
  expect(params).toMatchObject({
    tenant: hostile,
    meter: hostile,
    subjects: [hostile],
    filter0: [hostile],
    after1: hostile,
  });
});

test('every parameter of the SQL is bound', () => {
  const query: UsageQuery = {
    ...QUERY,
    size: 'day',
    subjects: ['s'],
    bySubject: true,
    groupBy: ['user.plan', 'model'],
    filters: [{ path: 'model', values: ['a', 'b'] }],
  };
  const all = [usagePage(query, [3_600, 's', 'p', 'm'], 10)];
  for (const format of ['ndjson', 'csv', 'parquet'] as const) all.push(usageExport(query, format));
  for (const { sql, params } of all) {
    const named = [...sql.matchAll(/\{(\w+):[A-Za-z0-9() ]+\}/g)].map((match) => match[1]!);
    expect(named.length).toBeGreaterThan(5);
    for (const name of named) expect(params, name).toHaveProperty(name);
  }
  // Elements of the stored array count from 1, in the order of the meter and not of the request.
  expect(all[0]?.sql).toContain('dimensions[2] AS g0, dimensions[1] AS g1');
});

test('a cursor belongs to the rows it was made in', () => {
  const query: UsageQuery = { ...QUERY, bySubject: true, groupBy: ['model'] };
  expect(cursorShape(query)).toEqual(['number', 'string', 'string']);
  expect(cursorKey(query, { w: 3_600, s: 'a', g: ['b'], value: '1' })).toEqual([3_600, 'a', 'b']);
  expect(cursorShape(QUERY)).toEqual(['number']);
  const others: UsageQuery[] = [
    QUERY,
    { ...query, tenant: 'other' },
    { ...query, subjects: ['a'] },
    { ...query, groupBy: ['user.plan'] },
    { ...query, filters: [{ path: 'model', values: ['a'] }] },
    { ...query, size: 'hour' },
    { ...query, range: { start: 0, end: 7_200_000 } },
  ];
  expect(new Set([query, ...others].map(cursorScope)).size).toBe(others.length + 1);
});

test('the format is what was asked for, first by name, then by Accept', () => {
  const check = (accept: string | undefined, format: string | null) =>
    expect(chooseFormat(undefined, accept), accept).toBe(format);
  check(undefined, 'json');
  check('', 'json');
  check('*/*', 'json');
  check('text/csv', 'csv');
  check('text/*', 'csv');
  check('text/html,application/xhtml+xml,*/*;q=0.8', 'json');
  check('application/json;q=0.1, application/vnd.apache.parquet', 'parquet');
  check('application/x-ndjson;q=0.5, text/csv;q=0.9', 'csv');
  check('APPLICATION/JSON; charset=utf-8', 'json');
  check('image/png', null);
  check('text/csv;q=0', null);
  expect(chooseFormat('parquet', 'image/png')).toBe('parquet');
});

test('the header of a CSV quotes what it must', () => {
  expect(csvHeader(['windowStart', 'user,plan', 'a"b'])).toBe('windowStart,"user,plan","a""b"\n');
});
