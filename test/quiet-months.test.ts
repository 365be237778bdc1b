// A month of rollup rows that rests is merged into one part (aggregator/schema/0013-quiet-months.sql). That is for speed
// alone: what is read stays the same, and what comes late still counts.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { migrateClickHouse } from '../runtime/migrate.ts';
import { startEngines, type Engines } from './engines.ts';
import { until } from './until.ts';

const OCTOBER = '2026-10-31 23:00:00';
const NOVEMBER = '2026-11-01 00:00:00';
const TOTALS = `SELECT toYYYYMM(hour) AS month, subject, toString(sum(value_sum)) AS total, toString(count()) AS rows
  FROM usage_rows WHERE tenant = 'acme' AND meter = 'tokens' GROUP BY month, subject ORDER BY month, subject`;

let engines: Engines;
let ch: ClickHouse;

beforeAll(async () => {
  engines = await startEngines({ clickhouse: true });
  ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 30_000 });
  const directory = new URL('../aggregator/schema/', import.meta.url);
  await migrateClickHouse(ch, { directory, component: 'aggregator' });
});

afterAll(async () => {
  await ch?.close();
  await engines?.stop();
});

/** One insert, and so one part: absolute totals of a subject's hour as of a position. */
async function write(
  hour: string,
  position: number,
  totals: Readonly<Record<string, number>>,
): Promise<void> {
  await ch.insertJson(
    'rollup_hour',
    Object.entries(totals).map(([subject, total]) => ({
      tenant: 'acme',
      meter: 'tokens',
      subject,
      hour,
      dimensions: ['small'],
      shard: 0,
      value_count: 1,
      value_sum: String(total),
      position,
    })),
  );
}

/** Active parts by month. */
async function partsByMonth(): Promise<Record<string, number>> {
  const rows = await ch.rows<{ partition: string; parts: string }>(
    `SELECT partition, toString(count()) AS parts FROM system.parts
     WHERE active AND database = currentDatabase() AND table = 'rollup_hour' GROUP BY partition`,
  );
  return Object.fromEntries(rows.map(({ partition, parts }) => [partition, Number(parts)]));
}

/** Whether rows of several parts are put together for an answer. */
async function mergesForAnswer(): Promise<boolean> {
  const lines = await ch.rows<{ explain: string }>(`EXPLAIN PIPELINE ${TOTALS}`);
  return lines.some(({ explain }) => explain.includes('ReplacingSorted'));
}

test('a month that rests is one part with the same totals, and a later row counts in it as before', async () => {
  // Nothing is merged by chance before it is looked at.
  await ch.command('SYSTEM STOP MERGES rollup_hour');
  for (const hour of [OCTOBER, NOVEMBER]) {
    await write(hour, 10, { a: 1, b: 2 });
    await write(hour, 30, { a: 100, c: 5 });
    await write(hour, 20, { a: 7, b: 40 });
  }
  const month = (of: number, totals: Readonly<Record<string, string>>): object[] =>
    Object.entries(totals).map(([subject, total]) => ({ month: of, subject, total, rows: '1' }));
  // Of `a` the row of position 30 holds, of `b` that of 20.
  const highest = { a: '100', b: '40', c: '5' };
  const written = [...month(202610, highest), ...month(202611, highest)];
  expect(await ch.rows(TOTALS)).toEqual(written);
  expect(await partsByMonth()).toEqual({ 202610: 3, 202611: 3 });
  expect(await mergesForAnswer()).toBe(true);

  await ch.command('SYSTEM START MERGES rollup_hour');
  // A second stands for the six hours.
  await ch.command('ALTER TABLE rollup_hour MODIFY SETTING min_age_to_force_merge_seconds = 1');
  await until(
    'both months in one part',
    async () => Object.values(await partsByMonth()).every((parts) => parts === 1),
    60_000,
  );
  expect(await ch.rows(TOTALS)).toEqual(written);
  // Also over both months: rows of one key have one hour, and so lie in one month.
  expect(await mergesForAnswer()).toBe(false);

  await ch.command('SYSTEM STOP MERGES rollup_hour');
  await write(OCTOBER, 40, { a: 101, b: 41 });
  // What was written before, again: a flush that was repeated.
  await write(OCTOBER, 10, { a: 1, b: 2 });
  expect(await ch.rows(TOTALS)).toEqual([
    ...month(202610, { a: '101', b: '41', c: '5' }),
    ...month(202611, highest),
  ]);
});
