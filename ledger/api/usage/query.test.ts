import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Meter } from '../../../contract/meter.ts';
import { usageExport } from './export.ts';
import { chooseFormat, csvHeader } from './format.ts';
import { cursorKey, cursorScope, cursorShape, unknownPaths, usagePage, type UsageQuery } from './query.ts';

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
  percentiles: [],
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

test('nothing of a request stands in the SQL, whatever it is', () => {
  const hostile = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom(
      `x' OR 1=1; DROP TABLE usage_rows; --`,
      '{tenant:String}',
      '\\',
      "'",
      '`',
      ')',
      '/*',
      '\n--',
      '\0',
      '__proto__',
      '$1',
      '$&',
    ),
  );
  const texts = fc.record({
    tenant: hostile,
    key: hostile,
    type: hostile,
    subject: hostile,
    path: hostile,
    value: hostile,
    property: hostile,
  });
  const made = (o: Record<string, string>, aggregation: Meter['aggregation'], size: 'total' | 'hour') => {
    const meter: Meter = {
      key: o['key']!,
      eventType: o['type']!,
      aggregation,
      valueProperty: o['property']!,
      groupBy: [o['path']!],
    };
    const query: UsageQuery = {
      ...QUERY,
      tenant: o['tenant']!,
      meter,
      subjects: [o['subject']!],
      groupBy: [o['path']!],
      bySubject: true,
      filters: [{ path: o['path']!, values: [o['value']!] }],
      size,
      range: { start: 3_600_000, end: 9_000_000 },
      starts: size === 'hour' ? null : [3_600_000],
      percentiles: aggregation === 'sum' ? [500_000] : [],
    };
    return [
      usagePage(query, [3_600_000, o['subject']!, o['value']!], 10),
      ...(['ndjson', 'csv', 'parquet'] as const).flatMap((format) => [
        usageExport(query, format),
        usageExport(query, format, 'spreadsheet'),
      ]),
    ];
  };
  const plain = { tenant: 't', key: 'k', type: 'e', subject: 's', path: 'g', value: 'v', property: 'p' };
  const all = fc.property(
    texts,
    fc.constantFrom('sum', 'latest', 'unique_count', 'average'),
    fc.constantFrom('total', 'hour'),
    (o, aggregation, size) => {
      const [one, other] = [made(o, aggregation, size), made(plain, aggregation, size)];
      expect(one.every(({ sql }, at) => sql === other[at]!.sql)).toBe(true);
      expect(one[0]?.params).toMatchObject({ tenant: o.tenant, meter: o.key, filter0: [o.value] });
    },
  );
  fc.assert(all, { numRuns: 60 });
}, 30_000);

test('every parameter of the SQL is bound', () => {
  const query: UsageQuery = {
    ...QUERY,
    size: 'day',
    range: { start: 3_600_000, end: 9_000_000 },
    starts: [3_600_000, 5_400_000],
    percentiles: [500_000, 990_000],
    subjects: ['s'],
    bySubject: true,
    groupBy: ['user.plan', 'model'],
    filters: [{ path: 'model', values: ['a', 'b'] }],
  };
  const after = [3_600_000, 's', 'p', 'm'];
  const all = [usagePage(query, after, 10), usagePage({ ...query, percentiles: [] }, after, 10)];
  for (const format of ['ndjson', 'csv', 'parquet'] as const) all.push(usageExport(query, format));
  for (const { sql, params } of all) {
    const named = [...sql.matchAll(/\{(\w+):[A-Za-z0-9()' ]+\}/g)].map((match) => match[1]!);
    expect(named.length).toBeGreaterThan(5);
    for (const name of named) expect(params, name).toHaveProperty(name);
  }
  // Elements of the stored array count from 1, in the order of the meter and not of the request.
  expect(all[0]?.sql).toContain('dimensions[2] AS g0, dimensions[1] AS g1');
});

test('a cursor belongs to the rows it was made in', () => {
  const query: UsageQuery = { ...QUERY, bySubject: true, groupBy: ['model'] };
  expect(cursorShape(query)).toEqual(['number', 'string', 'string']);
  expect(cursorKey(query, { w: '3600', s: 'a', g: ['b'], value: '1', p: [] })).toEqual([3_600, 'a', 'b']);
  expect(cursorShape(QUERY)).toEqual(['number']);
  const others: UsageQuery[] = [
    QUERY,
    { ...query, tenant: 'other' },
    { ...query, subjects: ['a'] },
    { ...query, groupBy: ['user.plan'] },
    { ...query, filters: [{ path: 'model', values: ['a'] }] },
    { ...query, size: 'hour' },
    { ...query, range: { start: 0, end: 7_200_000 } },
    { ...query, percentiles: [500_000] },
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
  expect(csvHeader(['windowStart', 'user,plan', 'a"b'])).toBe('windowStart,"user,plan","a""b"\r\n');
});
