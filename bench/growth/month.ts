// A month of events in a ClickHouse of its own, in the tables that the aggregator makes: as merged as they are when it has
// just been written, and then when nothing has been written for six hours.
import { refreshRules } from '../../aggregator/rules-store.ts';
import type { ClickHouse } from '../../runtime/clickhouse.ts';
import {
  expectedTotals,
  hourRanges,
  insertEvents,
  insertRollups,
  meterRows,
  type Month,
} from './month-sql.ts';

/** Of one insert, about: rollup rows of so many events are grouped in memory. */
const INSERT_EVENTS = 1_000_000;
const QUIET_WITHIN_MS = 1_800_000;
const QUIET_STEP_MS = 100;
const NOBODY_ELSE = { condition: '1', params: {} };

export async function loadMonth(
  ch: ClickHouse,
  month: Month,
  onProgress: (text: string) => void,
): Promise<void> {
  // Nothing of this is to survive anything, and syncing is not what is measured.
  for (const table of ['events', 'rollup_hour'])
    await ch.command(`ALTER TABLE ${table} MODIFY SETTING fsync_after_insert = 0, fsync_part_directory = 0`);
  await ch.insertJson('meters', meterRows(month.shards));
  for (let shard = 0; shard < month.shards; shard++) await refreshRules(ch, shard, NOBODY_ELSE);
  const ranges = hourRanges(month.events, INSERT_EVENTS);
  let loaded = 0;
  for (const [at, range] of ranges.entries()) {
    await ch.command(insertEvents(month, range));
    await ch.command(insertRollups(month, range));
    loaded += range.count;
    if (at % 10 === 9 || at === ranges.length - 1)
      onProgress(`${loaded.toLocaleString('en-US')} events and their rollups`);
  }
  onProgress('waiting for merges to end');
  await merged(ch);
  await compare(ch, month);
}

/** Waits until ClickHouse has nothing to merge; not for ever. */
async function merged(ch: ClickHouse): Promise<void> {
  const deadlineMs = performance.now() + QUIET_WITHIN_MS;
  let quiet = 0;
  // One look may fall between two merges.
  while (quiet < 10) {
    if (performance.now() > deadlineMs) throw new Error('merges did not end within half an hour');
    const [row] = await ch.rows<{ merges: string }>('SELECT toString(count()) AS merges FROM system.merges');
    quiet = row!.merges === '0' ? quiet + 1 : 0;
    await new Promise((resolve) => setTimeout(resolve, QUIET_STEP_MS));
  }
}

/**
 * Makes of the month what it is once nothing was written for six hours: its rollups are in one part then
 * (aggregator/schema/0013-quiet-months.sql). Here they need not wait for longer than a second.
 */
export async function letMonthRest(ch: ClickHouse, onProgress: (text: string) => void): Promise<void> {
  onProgress('waiting for the rollups to be one part');
  await ch.command('ALTER TABLE rollup_hour MODIFY SETTING min_age_to_force_merge_seconds = 1');
  const deadlineMs = performance.now() + QUIET_WITHIN_MS;
  for (;;) {
    const [row] = await ch.rows<{ parts: string }>(
      `SELECT toString(count()) AS parts FROM system.parts
       WHERE active AND database = currentDatabase() AND table = 'rollup_hour'`,
    );
    if (row!.parts === '1') return;
    if (performance.now() > deadlineMs)
      throw new Error(`the rollups are in ${row!.parts} parts still, after half an hour`);
    await new Promise((resolve) => setTimeout(resolve, QUIET_STEP_MS));
  }
}

type Totals = Readonly<Record<string, string>>;

/** The tables must hold what the numbers come to, by meter. */
async function compare(ch: ClickHouse, month: Month): Promise<void> {
  const [wanted] = await ch.rows<Totals>(expectedTotals(month));
  const [events] = await ch.rows<Totals>('SELECT toString(count()) AS events FROM event_rows');
  const rollups = await ch.rows<{ meter: string; total: string }>(
    `SELECT meter, toString(if(meter = 'largest_input', max(value_max), sum(value_sum))) AS total FROM usage_rows GROUP BY meter`,
  );
  const found: Record<string, string> = { events: events!['events']! };
  for (const { meter, total } of rollups) found[meter] = total;
  for (const [name, value] of Object.entries(wanted!))
    if (found[name] !== value)
      throw new Error(
        `the month has ${found[name] ?? 'no'} ${name} and not ${value}: the generator is wrong`,
      );
}
