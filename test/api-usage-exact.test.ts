// Usage of every zone, window and aggregation against a model that knows only the events: rollups, torn hours,
// unique counts and percentiles must come to what adding up one event after the other does.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatQuantity, storedQuantity } from '../contract/quantity.ts';
import { HOUR_MS } from '../contract/window.ts';
import { ApiWorld, SHARDS } from './api-world.ts';
import { insertMeters } from './meter-rows.ts';
import { insertEventRows } from './event-rows.ts';

const FROM = Date.UTC(2026, 3, 3, 10, 7, 30, 250);
const TO = Date.UTC(2026, 3, 6, 9, 40, 0, 1);
const AGGREGATIONS = ['count', 'sum', 'min', 'max', 'average', 'latest', 'unique_count'] as const;
const MODELS = ['a', 'b', '=1+1'];

interface Event {
  readonly timeMs: number;
  readonly subject: string;
  readonly model: string;
  readonly value: bigint;
  readonly shard: number;
  readonly position: number;
}

let api: ApiWorld;
const seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);
let state = seed;
/** A small generator of its own, so that a failure can be run again. */
const below = (end: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return Math.floor((state / 0x8000_0000) * end);
};
const events: Event[] = Array.from({ length: 1_500 }, (_, n) => ({
  // Some on a boundary, some a millisecond before.
  timeMs:
    n % 10 === 0
      ? FROM - (FROM % (HOUR_MS / 4)) + below(300) * (HOUR_MS / 4) - below(2)
      : FROM - HOUR_MS + below(TO - FROM + 2 * HOUR_MS),
  subject: `s${below(3)}`,
  model: MODELS[below(3)]!,
  value: BigInt(below(400) - 100) * 250_000_000n,
  shard: n % SHARDS,
  position: 10 + n,
}));

beforeAll(async () => {
  console.info(`TALLYLINE_TEST_SEED=${seed}`);
  api = await ApiWorld.start();
  for (const aggregation of AGGREGATIONS) {
    const valueProperty = aggregation === 'count' ? {} : { valueProperty: 'n' };
    const body = { key: aggregation, eventType: 'use', aggregation, groupBy: ['model'], ...valueProperty };
    const answer = await api.ask('POST', '/v1/meters', { body });
    expect(answer.status, JSON.stringify(answer.body)).toBe(201);
    await insertMeters(
      api.writer,
      Array.from({ length: SHARDS }, (_, shard) => ({
        tenant: 'acme-inc',
        meter: aggregation,
        event_type: 'use',
        aggregation,
        value_property: aggregation === 'count' ? '' : 'n',
        group_by: ['model'],
        shard,
        position: 1,
      })),
    );
  }
  await insertEventRows(
    api.writer,
    'events',
    events.map((event) => ({
      tenant: 'acme-inc',
      hour: Math.floor(event.timeMs / HOUR_MS) * 3_600,
      type: 'use',
      subject: event.subject,
      time: event.timeMs,
      identity: randomUUID(),
      source: '',
      id: `e${event.position}`,
      data: { n: formatQuantity(event.value), model: event.model },
      payload_hash: 1,
      accepted_at: event.timeMs,
      shard: event.shard,
      position: event.position,
    })),
  );
  const rollups = new Map<string, Event[]>();
  for (const event of events) {
    const key = JSON.stringify([event.subject, event.model, Math.floor(event.timeMs / HOUR_MS), event.shard]);
    rollups.set(key, [...(rollups.get(key) ?? []), event]);
  }
  await api.writer.insertJson(
    'rollup_hour',
    AGGREGATIONS.flatMap((meter) =>
      [...rollups.values()].map((list) => {
        const isCounting = meter === 'count' || meter === 'unique_count';
        const values = list.map((event) => (isCounting ? 1_000_000_000n : event.value));
        const newest = latestOf(list);
        const text = (value: bigint): string => formatQuantity(value);
        return {
          tenant: 'acme-inc',
          meter,
          subject: list[0]!.subject,
          hour: Math.floor(list[0]!.timeMs / HOUR_MS) * 3_600,
          dimensions: [list[0]!.model],
          shard: list[0]!.shard,
          value_count: list.length,
          value_sum: text(values.reduce((sum, value) => sum + value, 0n)),
          value_min: text(values.reduce((a, b) => (a < b ? a : b))),
          value_max: text(values.reduce((a, b) => (a > b ? a : b))),
          value_latest: isCounting ? '1' : text(newest.value),
          latest_time: newest.timeMs,
          latest_position: newest.position,
          position: Math.max(...list.map((event) => event.position)),
        };
      }),
    ),
  );
});
afterAll(() => api?.stop());

function latestOf(list: readonly Event[]): Event {
  return list.reduce((a, b) =>
    a.timeMs !== b.timeMs ? (a.timeMs > b.timeMs ? a : b) : a.position > b.position ? a : b,
  );
}

/** What a meter says of some events. */
function valueOf(aggregation: (typeof AGGREGATIONS)[number], list: readonly Event[]): string {
  const values = list.map((event) => event.value);
  const sum = values.reduce((all, value) => all + value, 0n);
  switch (aggregation) {
    case 'count':
      return String(list.length);
    case 'sum':
      return formatQuantity(sum);
    case 'min':
      return formatQuantity(values.reduce((a, b) => (a < b ? a : b)));
    case 'max':
      return formatQuantity(values.reduce((a, b) => (a > b ? a : b)));
    case 'average':
      return formatQuantity(sum / BigInt(list.length));
    case 'latest':
      return formatQuantity(latestOf(list).value);
    case 'unique_count':
      return String(new Set(values).size);
  }
}

/** The least value that at least this part of all values do not exceed. */
function percentileOf(list: readonly Event[], percent: number): string {
  const sorted = list.map((event) => event.value).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const found = sorted.find(
    (value) => sorted.filter((one) => one <= value).length * 100 >= percent * sorted.length,
  );
  return formatQuantity(found!);
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** The local date, and hour where it is asked for, of an instant: a name that is the same all through a window. */
function localName(timeMs: number, zone: string, size: string): string {
  if (size === 'total') return 'all';
  const key = `${zone} ${size}`;
  let format = formats.get(key);
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-GB', {
      timeZone: zone,
      year: 'numeric',
      month: '2-digit',
      ...(size === 'month' ? {} : { day: '2-digit' }),
      ...(size === 'hour' ? { hour: '2-digit', timeZoneName: 'longOffset' as const } : {}),
    });
    formats.set(key, format);
  }
  return format.format(timeMs);
}

interface Row {
  readonly windowStart: string;
  readonly windowEnd: string;
  readonly subject: string | null;
  readonly group: Readonly<Record<string, string>>;
  readonly value: string;
  readonly percentiles?: Readonly<Record<string, string>>;
}

async function rowsOf(query: string): Promise<Row[]> {
  const rows: Row[] = [];
  let cursor = '';
  do {
    const answer = await api.ask('GET', `/v1/usage?${query}&limit=500${cursor}`);
    expect(answer.status, `${query} ${JSON.stringify(answer.body)}`).toBe(200);
    const page = answer.body as { rows: Row[]; nextCursor: string | null };
    rows.push(...page.rows);
    cursor = page.nextCursor === null ? '' : `&cursor=${page.nextCursor}`;
  } while (cursor !== '');
  return rows;
}

test('in every zone, window, aggregation and group, usage is what the events come to', async () => {
  const zones = [
    'UTC',
    'Europe/Berlin',
    'Asia/Kolkata',
    'Asia/Kathmandu',
    'America/St_Johns',
    'Australia/Lord_Howe',
  ];
  const sizes = ['hour', 'day', 'month', 'total'] as const;
  const range = `from=${new Date(FROM).toISOString()}&to=${new Date(TO).toISOString()}`;
  const within = events.filter((event) => event.timeMs >= FROM && event.timeMs < TO);
  let number = 0;
  for (const zone of zones) {
    for (const size of sizes) {
      // Two of the aggregations for each of them, all of them over all.
      for (const aggregation of [AGGREGATIONS[number++ % 7]!, AGGREGATIONS[number++ % 7]!]) {
        const grouped = below(2) === 0;
        const filtered = below(2) === 0;
        const percentiles = below(3) === 0 && aggregation !== 'count' && aggregation !== 'unique_count';
        const query =
          `meter=${aggregation}&${range}&window=${size}&timezone=${zone}` +
          (grouped ? '&groupBy=subject,model' : '') +
          (filtered ? `&filter.model=a&filter.model=${encodeURIComponent('=1+1')}` : '') +
          (percentiles ? '&percentile=0.29,0.5&percentile=1' : '');
        const rows = await rowsOf(query);
        const chosen = within.filter((event) => !filtered || event.model !== 'b');
        const groups = new Map<string, Event[]>();
        for (const event of chosen) {
          const key = JSON.stringify([
            localName(event.timeMs, zone, size),
            grouped ? event.subject : null,
            grouped ? event.model : null,
          ]);
          groups.set(key, [...(groups.get(key) ?? []), event]);
        }
        const byGroup = new Map<string, Event[]>();
        const groupOf = (subject: string | null, model: string | undefined): string =>
          grouped ? JSON.stringify([subject, model]) : '';
        for (const event of chosen) {
          const key = groupOf(event.subject, event.model);
          const list = byGroup.get(key);
          if (list === undefined) byGroup.set(key, [event]);
          else list.push(event);
        }
        const lists = rows.map((row) => {
          const [start, end] = [Date.parse(row.windowStart), Date.parse(row.windowEnd)];
          const list = byGroup.get(groupOf(row.subject, row.group['model'])) ?? [];
          return list.filter((event) => event.timeMs >= start && event.timeMs < end);
        });
        for (const [at, row] of rows.entries()) {
          const list = lists[at]!;
          expect(row.value, query).toBe(valueOf(aggregation, list));
          if (percentiles) {
            expect(row.percentiles, query).toEqual({
              '0.29': percentileOf(list, 29),
              '0.5': percentileOf(list, 50),
              '1': percentileOf(list, 100),
            });
          }
        }
        expect(
          lists.reduce((sum, list) => sum + list.length, 0),
          query,
        ).toBe(chosen.length);
        // As many windows as the zone's calendar has; where a change of the clock skips half of an hour, its name
        // is split over one longer window.
        if (zone !== 'Australia/Lord_Howe' || size !== 'hour') expect(rows.length, query).toBe(groups.size);
      }
    }
  }
});

test('files say the same as JSON, with percentiles and in a zone of half hours', async () => {
  const query =
    `meter=sum&from=${new Date(FROM).toISOString()}&to=${new Date(TO).toISOString()}` +
    '&window=day&timezone=Asia/Kolkata&groupBy=subject,model&percentile=0.5,0.99';
  const rows = await rowsOf(query);
  const get = async (form: string): Promise<string> => {
    const answer = await api.ask('GET', `/v1/usage?${query}&${form}`);
    expect(answer.status).toBe(200);
    return String(answer.body);
  };
  const lines = (await get('format=ndjson')).trimEnd().split('\n');
  const numbers = (row: Row): Row => ({ ...row, value: formatQuantity(storedQuantity(row.value)) });
  expect(lines.map((line) => numbers(JSON.parse(line) as Row))).toEqual(rows);
  const cell = (text: string): string => `"${text}"`;
  const expected = (model: (text: string) => string): string =>
    [
      'windowStart,windowEnd,subject,model,value,p0.5,p0.99',
      ...rows.map((row) =>
        [
          ...[row.windowStart, row.windowEnd, row.subject!, model(row.group['model']!)].map(cell),
          row.value,
          row.percentiles!['0.5'],
          row.percentiles!['0.99'],
        ].join(','),
      ),
      '',
    ].join('\r\n');
  expect(await get('format=csv')).toBe(expected((text) => text));
  expect(await get('format=csv&csv=spreadsheet')).toBe(expected((text) => text.replace(/^=/, "'=")));
});

test('a percentile of what has no number, and more than is read for one query, are refused with what to do', async () => {
  for (const meter of ['count', 'unique_count']) {
    const answer = await api.ask('GET', `/v1/usage?meter=${meter}&percentile=0.5`);
    expect(answer).toMatchObject({ status: 422, body: { code: 'percentile_unavailable' } });
  }
  for (const percentile of ['0', '1.5', 'p50', '0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,0.99', '']) {
    const answer = await api.ask('GET', `/v1/usage?meter=sum&percentile=${percentile}`);
    expect(answer, percentile).toMatchObject({ status: 400, body: { errors: [{ path: 'percentile' }] } });
  }
  await api.writer.command(
    `INSERT INTO rollup_hour (tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, position)
     SELECT 'acme-inc', 'sum', toString(number), toDateTime('2020-01-01 00:00:00', 'UTC'), [''], 0, 1, 1, 1
     FROM numbers(60000)`,
  );
  const answer = await api.ask(
    'GET',
    '/v1/usage?meter=sum&from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z&groupBy=model',
  );
  expect(answer).toMatchObject({ status: 422, body: { code: 'usage_query_too_large' } });
  expect((answer.body as { detail: string }).detail).toBe(
    'It would read more than 50000 rows. Ask for a shorter range, or a subject, or fewer groups.',
  );
});
