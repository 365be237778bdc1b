/** What the aggregator asks of ClickHouse at the start of a shard and in a flush; tables.ts is what others see of it. */
import { OVERFLOW_GROUP } from '../contract/meter.ts';
import { endOfMessage, unpackPosition } from '../contract/position.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { loadBackfills, loadFilledGroups } from './backfill-store.ts';
import type { StoredGroups } from './group-book.ts';
import { definedOf, type StoredMeter } from './meter-row.ts';
import { seenFrom } from './position-in-shard.ts';
import { MeterRegistry } from './registry.ts';
import type { RollupKey, StoredRollup } from './rollup-key.ts';
import { storedVerdict, Tally } from './tally.ts';
import type { Watermark } from './watermark.ts';

const TABLES = [
  'events',
  'corrections',
  'rollup_hour',
  'refused_events',
  'verdict_totals',
  'received_totals',
  'meters',
  'backfills',
  'watermarks',
  'log_marks',
  'incarnations',
  'owners',
];

/** Sets whether inserts sync to the disk, on the tables where it is not so yet. */
export async function setFsync(ch: ClickHouse, on: boolean): Promise<void> {
  const wanted = `fsync_after_insert = ${on ? 1 : 0}, fsync_part_directory = ${on ? 1 : 0}`;
  const tables = await ch.rows<{ name: string; engine_full: string }>(
    'SELECT name, engine_full FROM system.tables WHERE database = currentDatabase() AND name IN {names:Array(String)}',
    { names: TABLES },
  );
  for (const { name, engine_full } of tables) {
    if (!engine_full.includes(wanted)) await ch.command(`ALTER TABLE ${name} MODIFY SETTING ${wanted}`);
  }
}

export async function loadWatermark(ch: ClickHouse, shard: number): Promise<Watermark | null> {
  const [row] = await ch.rows<{
    incarnation: number;
    sequence: string;
    stream_created: string;
    fingerprint: string;
    accepted_ms: string;
  }>(
    `SELECT incarnation, sequence, stream_created, fingerprint,
       toString(toUnixTimestamp64Milli(accepted_at)) AS accepted_ms FROM watermarks FINAL
     WHERE shard = {shard:UInt16}`,
    { shard },
  );
  if (row === undefined) return null;
  return {
    incarnation: row.incarnation,
    sequence: Number(row.sequence),
    streamCreated: row.stream_created,
    fingerprint: row.fingerprint,
    acceptedAtMs: Number(row.accepted_ms),
  };
}

/** The last sequence that the tables of the shard speak of; 0 for none. */
export async function loadCountedTo(ch: ClickHouse, shard: number): Promise<number> {
  const [row] = await ch.rows<{ position: string }>(
    `SELECT max(position) AS position FROM (
       SELECT max(position) AS position FROM received_totals WHERE shard = {shard:UInt16}
       UNION ALL SELECT max(position) FROM watermarks WHERE shard = {shard:UInt16})`,
    { shard },
  );
  return unpackPosition(BigInt(row?.position ?? 0)).sequence;
}

/**
 * The meters in force at the watermark. Those that a flush wrote without reaching its watermark are read from
 * the log again, in their place between the blocks.
 */
export async function loadRegistry(
  ch: ClickHouse,
  shard: number,
  watermark: Watermark,
): Promise<MeterRegistry> {
  const registry = new MeterRegistry();
  const rows = await ch.rows<StoredMeter>(
    `SELECT tenant, meter, version, event_type, aggregation, value_property, group_by, filters, groups_max,
       toUnixTimestamp(effective_from) AS effective_from
     FROM meter_definitions
     WHERE shard = {shard:UInt16} AND position <= {position:UInt64} ORDER BY position`,
    { shard, position: endOfMessage(watermark.incarnation, watermark.sequence).toString() },
  );
  for (const row of rows) registry.load(definedOf(row));
  for (const changed of await loadBackfills(ch, shard, watermark)) registry.loadBackfill(changed);
  return registry;
}

export async function loadTally(ch: ClickHouse, shard: number, incarnation: number): Promise<Tally> {
  const tally = new Tally();
  const verdicts = await ch.rows<{
    tenant: string;
    verdict: string;
    code: string;
    count: string;
    position: string;
  }>(`SELECT tenant, verdict, code, count, position FROM verdict_totals FINAL WHERE shard = {shard:UInt16}`, {
    shard,
  });
  for (const { tenant, verdict, code, count, position } of verdicts) {
    tally.load({
      tenant,
      ...storedVerdict(verdict, code),
      count: Number(count),
      position: seenFrom(incarnation, BigInt(position)),
    });
  }
  const received = await ch.rows<{ tenant: string; count: string; position: string }>(
    `SELECT tenant, count, position FROM received_totals FINAL WHERE shard = {shard:UInt16}`,
    { shard },
  );
  for (const { tenant, count, position } of received) {
    tally.load({
      tenant,
      verdict: '',
      code: '',
      count: Number(count),
      position: seenFrom(incarnation, BigInt(position)),
    });
  }
  return tally;
}

/** The greatest hour in the shard's rollups, epoch seconds; -1 for none. */
export async function loadLastHour(ch: ClickHouse, shard: number): Promise<number> {
  const [row] = await ch.rows<{ hour: number; rows: string }>(
    `SELECT toUnixTimestamp(max(hour)) AS hour, count() AS rows FROM rollup_hour WHERE shard = {shard:UInt16}`,
    { shard },
  );
  return row === undefined || row.rows === '0' ? -1 : row.hour;
}

/** The groups with rollup rows of their own, of hours of meters. Without FINAL: which rows there are is asked, not what is in them. */
export async function loadGroups(
  ch: ClickHouse,
  shard: number,
  meterHours: readonly string[],
): Promise<StoredGroups> {
  const found = new Map<string, string[]>();
  for (let from = 0; from < meterHours.length; from += LOOKUP_KEYS) {
    const asked = meterHours.slice(from, from + LOOKUP_KEYS).map((text) => JSON.parse(text) as unknown);
    const hex = Buffer.from(JSON.stringify(asked)).toString('hex');
    const rows = await ch.rows<{
      tenant: string;
      meter: string;
      hour_seconds: number;
      groups: string[][];
    }>(
      `SELECT tenant, meter, toUnixTimestamp(hour) AS hour_seconds, groupUniqArray(dimensions) AS groups
       FROM rollup_hour
       WHERE shard = {shard:UInt16} AND (tenant, meter, hour) IN (
         SELECT k.1, k.2, toDateTime(k.3, 'UTC') FROM (
           SELECT arrayJoin(JSONExtract(unhex('${hex}'), 'Array(Tuple(String, String, UInt32))')) AS k))
         AND notEmpty(dimensions) AND NOT has(dimensions, '${OVERFLOW_GROUP}')
       GROUP BY tenant, meter, hour
       SETTINGS max_query_size = 1000000000, max_ast_elements = 1000000`,
      { shard },
    );
    for (const { tenant, meter, hour_seconds, groups } of rows) {
      found.set(
        JSON.stringify([tenant, meter, hour_seconds]),
        groups.map((dimensions) => JSON.stringify(dimensions)),
      );
    }
  }
  // Of an hour that was backfilled, empty rows do not tell which groups they are of.
  for (const [hour, groups] of await loadFilledGroups(ch, shard, meterHours)) found.set(hour, groups);
  return found;
}

const LOOKUP_KEYS = 10_000;

/** The stored rows of these keys, as far as there are any. */
export async function loadRollups(
  ch: ClickHouse,
  shard: number,
  keys: readonly RollupKey[],
): Promise<StoredRollup[]> {
  const found: StoredRollup[] = [];
  for (let from = 0; from < keys.length; from += LOOKUP_KEYS) {
    const asked = keys
      .slice(from, from + LOOKUP_KEYS)
      .map(({ tenant, meter, subject, hourSeconds, dimensions }) => [
        tenant,
        meter,
        subject,
        hourSeconds,
        dimensions,
      ]);
    // Texts of others go into the query as hexadecimal digits, which cannot be read as anything else.
    const hex = Buffer.from(JSON.stringify(asked)).toString('hex');
    const rows = await ch.rows<StoredRollup>(
      `SELECT tenant, meter, subject, toUnixTimestamp(hour) AS hourSeconds, dimensions, value_count, value_sum,
         value_min, value_max, value_latest, toString(toUnixTimestamp64Milli(latest_time)) AS latest_time_ms,
         latest_position, position
       FROM rollup_hour FINAL
       WHERE shard = {shard:UInt16} AND (tenant, meter, subject, hour, dimensions) IN (
         SELECT k.1, k.2, k.3, toDateTime(k.4, 'UTC'), k.5 FROM (
           SELECT arrayJoin(JSONExtract(unhex('${hex}'),
             'Array(Tuple(String, String, String, UInt32, Array(String)))')) AS k))
       SETTINGS max_query_size = 1000000000, max_ast_elements = 1000000`,
      { shard },
    );
    found.push(...rows);
  }
  return found;
}
