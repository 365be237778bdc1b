/** What ClickHouse keeps of the incarnations of a log, and what it works out when one ends. See incarnation.ts. */
import { packPosition, unpackPosition } from '../contract/position.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { LogMark } from './log-mark.ts';
import { dateTime } from './store.ts';
import type { Watermark } from './watermark.ts';

/** An incarnation as it began: the watermark that it began with, and where the one before it ended. */
export interface Beginning {
  readonly watermark: Watermark;
  /** Up to which sequence the incarnation before it was counted. */
  readonly sequenceBefore: number;
  readonly reason: string;
}

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
): Promise<void> {
  return ch.insertJson('incarnations', [
    {
      shard,
      incarnation: watermark.incarnation,
      sequence: watermark.sequence,
      sequence_before: sequenceBefore,
      stream_created: watermark.streamCreated,
      fingerprint: watermark.fingerprint,
      accepted_at: dateTime(watermark.acceptedAtMs),
      began_at: dateTime(nowMs),
      reason,
    },
  ]);
}

/** A row of `log_marks`. The marks are those of consecutive sequences. */
export function marksRow(
  shard: number,
  incarnation: number,
  marks: readonly LogMark[],
  nowMs: number,
): object {
  return {
    shard,
    incarnation,
    first_sequence: marks[0]!.sequence,
    last_sequence: marks.at(-1)!.sequence,
    stored_ms: marks.map(({ timeMs }) => timeMs),
    checksums: marks.map(({ checksum }) => checksum),
    written_at: Math.floor(nowMs / 1_000),
  };
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

/**
 * The first position of an incarnation. No event can have it, since sequences begin with 1: it is the version of
 * what ends the incarnation before, above all of that one and below all of this one.
 */
export function closingPosition(incarnation: number): bigint {
  return packPosition(incarnation, 0, 0);
}

/** The rows of one incarnation behind its watermark. */
export interface Unfinished {
  readonly shard: number;
  /** The position of its watermark. */
  readonly behind: bigint;
  /** The closing position. */
  readonly until: bigint;
}

// The totals of every hour that has raw rows behind the watermark, from all raw rows of the hour. What a row holds
// is the same whether it was rolled up before or is now, so its version is that of its newest event, as always.
// The contributions are those of checks/rollup-equals-raw.sql.
const FINISH_ROLLUPS = `
  INSERT INTO rollup_hour (tenant, meter, subject, hour, dimensions, shard, value_count, value_sum, value_min,
    value_max, value_latest, latest_time, latest_position, position)
  SELECT tenant, meter, subject, hour, dimensions, {shard:UInt16} AS of_shard, count() AS n, sum(value) AS total,
    min(value) AS least, max(value) AS most, argMax(value, (time, place)) AS newest_value, max(time) AS newest_time,
    argMax(place, (time, place)) AS newest_place, max(place) AS version
  FROM (
    SELECT e.tenant AS tenant, d.meter AS meter, e.subject AS subject, e.hour AS hour,
      arrayMap(path -> substringUTF8(e.data[path], 1, 256), d.group_by) AS dimensions,
      e.time AS time, e.position AS place,
      if(d.aggregation = 'count', toDecimal128(1, 9), toDecimal128OrZero(e.data[d.value_property], 9)) AS value
    FROM (
      SELECT tenant, type, subject, hour, time, data, position FROM events FINAL
      WHERE shard = {shard:UInt16} AND position < {until:UInt64} AND (tenant, hour, subject) IN (
        SELECT tenant, hour, subject FROM events
        WHERE shard = {shard:UInt16} AND position > {behind:UInt64} AND position < {until:UInt64})
    ) AS e
    INNER JOIN (
      SELECT tenant, meter, event_type, aggregation, value_property, group_by, position FROM meters FINAL
      WHERE shard = {shard:UInt16} AND position < {until:UInt64}
    ) AS d ON d.tenant = e.tenant AND d.event_type = e.type
    WHERE e.position > d.position
  )
  GROUP BY tenant, meter, subject, hour, dimensions
  HAVING version > {behind:UInt64}
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
  WHERE place > known_until
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
  WHERE judged != received`;

/** Makes rollups and counters agree with the raw and refused rows of an incarnation. Repeating it changes nothing. */
export async function finishIncarnation(ch: ClickHouse, rows: Unfinished): Promise<void> {
  const params = { shard: rows.shard, behind: rows.behind.toString(), until: rows.until.toString() };
  await ch.command(FINISH_ROLLUPS, params);
  await ch.command(FINISH_VERDICTS, params);
  await ch.command(FINISH_RECEIVED, params);
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
