/** What the aggregator asks of ClickHouse and tells it, except for the columns themselves. */
import type { MeterDefined } from '../contract/control.ts';
import { formatIdentity } from '../contract/identity.ts';
import { AGGREGATIONS } from '../contract/meter.ts';
import { endOfMessage, unpackPosition } from '../contract/position.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { DedupeIndex } from './dedupe-index.ts';
import { packed, seenFrom } from './position-in-shard.ts';
import { MeterRegistry } from './registry.ts';
import { RollupRow, type StoredRow } from './rollup-row.ts';
import { formatKey, parseKey } from './rollup-key.ts';
import { storedVerdict, Tally, type Counter } from './tally.ts';
import type { Watermark } from './watermark.ts';

/** Sent with every insert. A month's partition is no limit of ours: events may lie years apart. */
export const INSERT_SETTINGS = {
  async_insert: 0,
  optimize_on_insert: 0,
  max_partitions_per_insert_block: 0,
} as const;

const TABLES = [
  'events',
  'rollup_hour',
  'refused_events',
  'verdict_totals',
  'received_totals',
  'meters',
  'watermarks',
  'log_marks',
  'incarnations',
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
  const rows = await ch.rows<{
    tenant: string;
    meter: string;
    event_type: string;
    aggregation: string;
    value_property: string;
    group_by: string[];
  }>(
    `SELECT tenant, meter, event_type, aggregation, value_property, group_by FROM meters FINAL
     WHERE shard = {shard:UInt16} AND position <= {position:UInt64} ORDER BY position`,
    { shard, position: endOfMessage(watermark.incarnation, watermark.sequence).toString() },
  );
  for (const row of rows) {
    const aggregation = AGGREGATIONS.find((name) => name === row.aggregation);
    if (aggregation === undefined) throw new Error(`stored aggregation ${JSON.stringify(row.aggregation)}`);
    registry.define({
      tenant: row.tenant,
      meter: {
        key: row.meter,
        eventType: row.event_type,
        aggregation,
        valueProperty: aggregation === 'count' ? null : row.value_property,
        groupBy: row.group_by,
      },
    });
  }
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

const INDEX_ROW_BYTES = 32;

/**
 * Rebuilds the index from `events`, the newest keys if there are more than it may hold. Entries at positions
 * behind the watermark's are among them: what comes there again is its own replay.
 */
export async function loadIndex(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
  keysMax: number,
): Promise<DedupeIndex> {
  const [facts] = await ch.rows<{ rows: string; top: string }>(
    'SELECT count() AS rows, max(position) AS top FROM events WHERE shard = {shard:UInt16}',
    { shard },
  );
  const rows = Number(facts?.rows ?? 0);
  const index = new DedupeIndex(keysMax, rows);
  if (rows === 0) return index;
  const top = BigInt(facts!.top);
  const half = Math.max(1, Math.floor(keysMax / 2));
  const floor = rows > keysMax ? await positionAt(ch, shard, rows - keysMax, rows) : 0n;
  const middle = rows > half ? await positionAt(ch, shard, rows - half, rows) : 0n;
  if (floor > 0n) index.complete = false;
  if (middle > floor) {
    await loadKeys(ch, shard, incarnation, index, floor, middle - 1n);
    index.seal();
  }
  await loadKeys(ch, shard, incarnation, index, middle, top);
  return index;
}

/** About the position of the n-th row in log order. A guess is good enough: it only splits the work. */
async function positionAt(ch: ClickHouse, shard: number, n: number, rows: number): Promise<bigint> {
  const [row] = await ch.rows<{ position: string }>(
    'SELECT toUInt64(quantile({level:Float64})(position)) AS position FROM events WHERE shard = {shard:UInt16}',
    { shard, level: n / rows },
  );
  return BigInt(row?.position ?? 0);
}

async function loadKeys(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
  index: DedupeIndex,
  from: bigint,
  to: bigint,
): Promise<void> {
  const where = 'WHERE shard = {shard:UInt16} AND position >= {from:UInt64} AND position <= {to:UInt64}';
  const params = { shard, from: from.toString(), to: to.toString() };
  const stream = await ch.stream(
    `SELECT identity, position, payload_hash FROM events ${where}`,
    params,
    'RowBinary',
  );
  const identity = new Uint32Array(4);
  const hash = new Uint32Array(2);
  let loaded = 0;
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    const bytes = rest.length === 0 ? (chunk as Buffer) : Buffer.concat([rest, chunk as Buffer]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    for (; at + INDEX_ROW_BYTES <= bytes.length; at += INDEX_ROW_BYTES) {
      identity[0] = view.getUint32(at + 4, true);
      identity[1] = view.getUint32(at, true);
      identity[2] = view.getUint32(at + 12, true);
      identity[3] = view.getUint32(at + 8, true);
      hash[0] = view.getUint32(at + 24, true);
      hash[1] = view.getUint32(at + 28, true);
      const high = view.getUint32(at + 20, true);
      const earlier = high >>> 24 < incarnation;
      const position = earlier ? -1 : (high & 0xff_ffff) * 2 ** 32 + view.getUint32(at + 16, true);
      index.put(identity, 0, position, hash, 0);
      loaded += 1;
    }
    rest = bytes.subarray(at);
  }
  // An answer that was cut must not become an index with holes. Merges only make the count smaller.
  const [after] = await ch.rows<{ rows: string }>(`SELECT count() AS rows FROM events ${where}`, params);
  if (rest.length > 0 || loaded < Number(after?.rows ?? 0))
    throw new Error(`the identities of shard ${shard} came back incomplete: ${loaded} of ${after?.rows}`);
}

/** Identities asked for at a time: a query's text has a limit. */
const LOOKUP_IDENTITIES = 2_000;

/** Looks identities up in `events` and enters what is there into the index. Exact at any size, only slower. */
export async function lookUpIdentities(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
  identities: Uint32Array,
  events: readonly number[],
  index: DedupeIndex,
): Promise<void> {
  for (let from = 0; from < events.length; from += LOOKUP_IDENTITIES) {
    // Only digits and hyphens of our own making stand in the text.
    const list = events
      .slice(from, from + LOOKUP_IDENTITIES)
      .map((event) => `'${formatIdentity(identities, event * 4)}'`)
      .join(',');
    const rows = await ch.rows<{
      w: [number, number, number, number];
      position: string;
      low: number;
      high: number;
    }>(
      `SELECT [toUInt32(bitShiftRight(toUInt128(identity), 96)), toUInt32(bitAnd(bitShiftRight(toUInt128(identity), 64), 4294967295)),
         toUInt32(bitAnd(bitShiftRight(toUInt128(identity), 32), 4294967295)), toUInt32(bitAnd(toUInt128(identity), 4294967295))] AS w,
         toString(min(events.position)) AS position,
         toUInt32(bitAnd(argMin(payload_hash, events.position) AS hash, 4294967295)) AS low,
         toUInt32(bitShiftRight(hash, 32)) AS high
       FROM events WHERE shard = {shard:UInt16} AND identity IN (${list}) GROUP BY identity
       SETTINGS max_query_size = 1000000`,
      { shard },
    );
    for (const { w, position, low, high } of rows) {
      index.put(
        Uint32Array.from(w),
        0,
        seenFrom(incarnation, BigInt(position)),
        Uint32Array.of(low, high),
        0,
      );
    }
  }
}

const LOOKUP_KEYS = 10_000;

/** The stored rows of these keys, as far as there are any. */
export async function loadRollups(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
  keys: readonly string[],
): Promise<RollupRow[]> {
  const found: RollupRow[] = [];
  for (let from = 0; from < keys.length; from += LOOKUP_KEYS) {
    const asked = keys.slice(from, from + LOOKUP_KEYS).map((text) => {
      const { tenant, meter, subject, hourSeconds, dimensions } = parseKey(text);
      return [tenant, meter, subject, hourSeconds, dimensions];
    });
    // Texts of others go into the query as hexadecimal digits, which cannot be read as anything else.
    const hex = Buffer.from(JSON.stringify(asked)).toString('hex');
    const rows = await ch.rows<
      StoredRow & {
        tenant: string;
        meter: string;
        subject: string;
        hour_seconds: number;
        dimensions: string[];
      }
    >(
      `SELECT tenant, meter, subject, toUnixTimestamp(hour) AS hour_seconds, dimensions, value_count, value_sum,
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
    for (const row of rows) {
      const { tenant, meter, subject, dimensions } = row;
      const key = formatKey({ tenant, meter, subject, hourSeconds: row.hour_seconds, dimensions });
      found.push(RollupRow.load(key, row, incarnation));
    }
  }
  return found;
}

/** An instant as DateTime64(3, 'UTC') takes it. */
export function dateTime(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 23).replace('T', ' ');
}

export function watermarkRow(shard: number, watermark: Watermark, flushedAtMs: number): object {
  return {
    shard,
    incarnation: watermark.incarnation,
    sequence: watermark.sequence,
    position: endOfMessage(watermark.incarnation, watermark.sequence),
    stream_created: watermark.streamCreated,
    fingerprint: watermark.fingerprint,
    accepted_at: dateTime(watermark.acceptedAtMs),
    flushed_at: dateTime(flushedAtMs),
  };
}

export function counterRows(shard: number, incarnation: number, counters: readonly Counter[]) {
  const received: object[] = [];
  const verdicts: object[] = [];
  for (const { tenant, verdict, code, count, position } of counters) {
    const at = packed(incarnation, position);
    if (verdict === '') received.push({ tenant, shard, count, position: at });
    else verdicts.push({ tenant, shard, verdict, code, count, position: at });
  }
  return { received, verdicts };
}

export function meterRow(shard: number, position: bigint, { tenant, meter }: MeterDefined): object {
  return {
    tenant,
    meter: meter.key,
    event_type: meter.eventType,
    aggregation: meter.aggregation,
    value_property: meter.valueProperty ?? '',
    group_by: meter.groupBy,
    shard,
    position,
  };
}
