/** What ClickHouse keeps of the incarnations of a log, and what it works out when one ends. See incarnation.ts. */
import { OVERFLOW_GROUP } from '../contract/meter.ts';
import { unpackPosition } from '../contract/position.ts';
import { guardPredicate, type ClickHouse, type Guard } from '../runtime/clickhouse.ts';
import type { Beginning, Unfinished } from './incarnation-rows.ts';
import type { LogMark } from './log-mark.ts';
import { dateTime } from './rows.ts';

/** In order. The first incarnation of a shard from before there were any may be missing. */
export async function loadBeginnings(ch: ClickHouse, shard: number): Promise<Beginning[]> {
  const rows = await ch.rows<{
    incarnation: number;
    sequence: string;
    sequence_before: string;
    stream_created: string;
    fingerprint: string;
    accepted_ms: string;
    reason: string;
  }>(
    `SELECT incarnation, sequence, sequence_before, stream_created, fingerprint,
       toString(toUnixTimestamp64Milli(accepted_at)) AS accepted_ms, reason
     FROM incarnations FINAL WHERE shard = {shard:UInt16} ORDER BY incarnation`,
    { shard },
  );
  return rows.map((row) => ({
    watermark: {
      incarnation: row.incarnation,
      sequence: Number(row.sequence),
      streamCreated: row.stream_created,
      fingerprint: row.fingerprint,
      acceptedAtMs: Number(row.accepted_ms),
    },
    sequenceBefore: Number(row.sequence_before),
    reason: row.reason,
  }));
}

export function saveBeginning(
  ch: ClickHouse,
  shard: number,
  { watermark, sequenceBefore, reason }: Beginning,
  nowMs: number,
  fence: Guard,
): Promise<void> {
  const row = {
    shard,
    incarnation: watermark.incarnation,
    sequence: watermark.sequence,
    sequence_before: sequenceBefore,
    stream_created: watermark.streamCreated,
    fingerprint: watermark.fingerprint,
    accepted_at: dateTime(watermark.acceptedAtMs),
    began_at: dateTime(nowMs),
    reason,
  };
  return ch.insertJson('incarnations', [row], fence);
}

/** The mark of the highest sequence that the incarnation has read, as far as anything was written of it. */
export async function loadNewestMark(
  ch: ClickHouse,
  shard: number,
  incarnation: number,
): Promise<LogMark | null> {
  // The arrays are read of the one row only, however many there are.
  const [row] = await ch.rows<{ last_sequence: string; stored_ms: string; checksum: number }>(
    `SELECT last_sequence, stored_ms[-1] AS stored_ms, checksums[-1] AS checksum FROM log_marks
     WHERE shard = {shard:UInt16} AND incarnation = {incarnation:UInt8} AND last_sequence = (
       SELECT max(last_sequence) FROM log_marks
       WHERE shard = {shard:UInt16} AND incarnation = {incarnation:UInt8})
     LIMIT 1`,
    { shard, incarnation },
  );
  if (row === undefined) return null;
  return { sequence: Number(row.last_sequence), timeMs: Number(row.stored_ms), checksum: row.checksum };
}

/** All marks of a sequence, by incarnation: each may have read another message there. */
export async function loadMarksAt(
  ch: ClickHouse,
  shard: number,
  sequence: number,
): Promise<{ incarnation: number; mark: LogMark }[]> {
  const rows = await ch.rows<{ incarnation: number; stored_ms: string; checksum: number }>(
    `SELECT DISTINCT incarnation, stored_ms[{sequence:UInt64} - first_sequence + 1] AS stored_ms,
       checksums[{sequence:UInt64} - first_sequence + 1] AS checksum
     FROM log_marks
     WHERE shard = {shard:UInt16} AND first_sequence <= {sequence:UInt64} AND last_sequence >= {sequence:UInt64}`,
    { shard, sequence },
  );
  return rows.map(({ incarnation, stored_ms, checksum }) => ({
    incarnation,
    mark: { sequence, timeMs: Number(stored_ms), checksum },
  }));
}

// The totals of every hour that has raw rows behind the watermark, from all raw rows of the hour. What a row holds
// is the same whether it was rolled up before or is now, so its version is that of its newest event, as always.
// Which groups have rows of their own is a function of the raw rows too: the first of the log, as group-book.ts tells.
const FINISH_ROLLUPS = `
  INSERT INTO rollup_hour (tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min,
    value_max, value_latest, latest_time, latest_position, position)
  SELECT tenant, meter, subject, hour,
    if((tenant, meter, hour, dimensions) IN (
      SELECT tenant, meter, hour, arrayJoin(arraySlice(
        arrayMap(one -> one.2, arraySort(groupArray((first_position, dimensions)))), groups_max + 1))
      FROM (
        SELECT tenant, meter, hour, dimensions, groups_max, min(position) AS first_position
        FROM contributions
        WHERE shard = {shard:UInt16} AND position < {until:UInt64} AND (tenant, hour) IN (
            SELECT tenant, hour FROM events
            WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64})
          AND notEmpty(dimensions) AND NOT has(dimensions, '${OVERFLOW_GROUP}')
        GROUP BY tenant, meter, hour, dimensions, groups_max
      )
      GROUP BY tenant, meter, hour, groups_max
      HAVING count() > groups_max
    ), arrayMap(one -> '${OVERFLOW_GROUP}', dimensions), dimensions) AS placed,
    {shard:UInt16} AS of_shard, count() AS n, sum(quantity) AS total, min(quantity) AS least, max(quantity) AS most,
    argMax(quantity, (time, position)) AS newest_value, max(time) AS newest_time,
    argMax(position, (time, position)) AS newest_place, max(position) AS version
  FROM contributions
  WHERE shard = {shard:UInt16} AND position < {until:UInt64} AND (tenant, hour, subject) IN (
    SELECT tenant, hour, subject FROM events
    WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64})
  GROUP BY tenant, meter, subject, hour, placed
  HAVING version > {behind:UInt64} AND FENCE
  SETTINGS optimize_on_insert = 0, max_partitions_per_insert_block = 0`;

// What has a row behind the watermark was judged. A counter that was written by the same flush has it already: then
// its position is not below the row's.
const FINISH_VERDICTS = `
  INSERT INTO verdict_totals (tenant, shard, verdict, code, count, position)
  SELECT tenant, {shard:UInt16} AS of_shard, verdict, code, any(known_count) + count() AS judged,
    {until:UInt64} AS version
  FROM (
    SELECT DISTINCT toString(tenant) AS tenant, 'counted' AS verdict, '' AS code, position AS place FROM events
    WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64}
    UNION ALL
    SELECT DISTINCT toString(tenant) AS tenant, toString(verdict) AS verdict, toString(code) AS code,
      position AS place FROM refused_events
    WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64}
  ) AS found
  LEFT JOIN (
    SELECT toString(tenant) AS tenant, toString(verdict) AS verdict, toString(code) AS code, count AS known_count,
      position AS known_until
    FROM verdict_totals FINAL WHERE shard = {shard:UInt16}
  ) AS known USING (tenant, verdict, code)
  WHERE place > known_until AND FENCE
  GROUP BY tenant, verdict, code
  SETTINGS join_use_nulls = 0`;

// Received is what was judged. A counter that a crashed flush wrote alone is corrected by that.
const FINISH_RECEIVED = `
  INSERT INTO received_totals (tenant, shard, count, position)
  SELECT tenant, {shard:UInt16} AS of_shard, judged, {until:UInt64} AS version
  FROM (
    SELECT tenant, sum(judged_count) AS judged, sum(received_count) AS received FROM (
      SELECT tenant, count AS judged_count, 0 AS received_count FROM verdict_totals FINAL
      WHERE shard = {shard:UInt16}
      UNION ALL
      SELECT tenant, 0 AS judged_count, count AS received_count FROM received_totals FINAL
      WHERE shard = {shard:UInt16}
    )
    GROUP BY tenant
  )
  WHERE judged != received AND FENCE`;

/** Makes rollups and counters agree with the raw and refused rows of an incarnation. Repeating it changes nothing. */
export async function finishIncarnation(ch: ClickHouse, rows: Unfinished, fence: Guard): Promise<void> {
  const { shard, behind, until } = rows;
  const params = { shard, behind: behind.toString(), until: until.toString(), ...fence.params };
  for (const sql of [FINISH_ROLLUPS, FINISH_VERDICTS, FINISH_RECEIVED]) {
    await ch.command(sql.replace('FENCE', guardPredicate(fence)), params);
  }
}

/** How many events stand behind the watermark of an incarnation, and up to which sequence: for the log. */
export async function countUnfinished(
  ch: ClickHouse,
  rows: Unfinished,
): Promise<{ events: number; until: number }> {
  const [row] = await ch.rows<{ n: string; top: string }>(
    `SELECT uniqExact(position) AS n, max(position) AS top FROM (
       SELECT position FROM events
       WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64}
       UNION ALL
       SELECT position FROM refused_events
       WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64})`,
    { shard: rows.shard, behind: rows.behind.toString(), until: rows.until.toString() },
  );
  return { events: Number(row?.n ?? 0), until: unpackPosition(BigInt(row?.top ?? 0)).sequence };
}

/** The inserts that run now, by their ids. */
export async function runningInserts(ch: ClickHouse): Promise<Set<string>> {
  const rows = await ch.rows<{ query_id: string }>(
    `SELECT query_id FROM system.processes WHERE query_kind = 'Insert' AND current_database = currentDatabase()`,
  );
  return new Set(rows.map(({ query_id }) => query_id));
}
