/** What ClickHouse keeps of the incarnations of a log, and what it works out when one ends. See incarnation.ts. */
import { unpackPosition } from '../contract/position.ts';
import { guardPredicate, type ClickHouse, type Guard } from '../runtime/clickhouse.ts';
import { loadChangedScopes, partsOf } from './backfill-store.ts';
import { recount, settleCorrections } from './corrections-store.ts';
import { refreshRules } from './rules-store.ts';
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

/**
 * The first sequence with a mark behind each of these, by incarnation. Not of one that began so long ago that its first
 * marks may have gone (the TTL of log_marks is 35 days).
 */
export async function loadFirstMarks(
  ch: ClickHouse,
  shard: number,
  behind: ReadonlyMap<number, number>,
): Promise<Map<number, number>> {
  const rows = await ch.rows<{ incarnation: number; first: string }>(
    `SELECT incarnation, min(first_sequence) AS first FROM log_marks
     WHERE shard = {shard:UInt16} AND incarnation IN {incarnations:Array(UInt8)}
       AND first_sequence > mapFromArrays({incarnations:Array(UInt8)}, {behind:Array(UInt64)})[incarnation]
       AND incarnation IN (
         SELECT incarnation FROM incarnations WHERE shard = {shard:UInt16} AND began_at > now() - INTERVAL 34 DAY)
     GROUP BY incarnation`,
    { shard, incarnations: [...behind.keys()], behind: [...behind.values()] },
  );
  return new Map(rows.map(({ incarnation, first }) => [incarnation, Number(first)]));
}

/** All marks of the sequences from one to another, by incarnation: each may have read another message there. */
export async function loadMarks(
  ch: ClickHouse,
  shard: number,
  from: number,
  to: number,
): Promise<{ incarnation: number; mark: LogMark }[]> {
  const rows = await ch.rows<{
    incarnation: number;
    sequence: string;
    stored_ms: string;
    checksum: number;
  }>(
    `SELECT DISTINCT incarnation, toUInt64(first_sequence + offset) AS sequence, stored_ms, checksum
     FROM log_marks
     ARRAY JOIN range(length(checksums)) AS offset, stored_ms, checksums AS checksum
     WHERE shard = {shard:UInt16} AND first_sequence <= {to:UInt64} AND last_sequence >= {from:UInt64}
       AND first_sequence + offset BETWEEN {from:UInt64} AND {to:UInt64}`,
    { shard, from, to },
  );
  return rows.map(({ incarnation, sequence, stored_ms, checksum }) => ({
    incarnation,
    mark: { sequence: Number(sequence), timeMs: Number(stored_ms), checksum },
  }));
}

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

/**
 * Settles corrections, then makes rollups and counters agree with the raw and refused rows of an incarnation: the
 * rollups of every hour of a subject that has raw rows behind the watermark, or lost one there. Repeating it changes
 * nothing.
 */
export async function finishIncarnation(ch: ClickHouse, rows: Unfinished, fence: Guard): Promise<void> {
  const { shard, behind, until } = rows;
  // The closing position itself is no event's.
  const range = { shard, behind, until: until - 1n, originalsFrom: 0n };
  await refreshRules(ch, shard, fence);
  await settleCorrections(ch, range, fence);
  await recount(ch, { scope: { kind: 'unfinished', range }, until: range.until, overflowing: [] }, fence);
  // A backfill that a crashed flush wrote down is in force, as a definition is.
  for (const changed of await loadChangedScopes(ch, range))
    for (const scope of await partsOf(ch, changed))
      await recount(ch, { scope, until: range.until, overflowing: [] }, fence);
  const params = { shard, behind: behind.toString(), until: until.toString(), ...fence.params };
  for (const sql of [FINISH_VERDICTS, FINISH_RECEIVED]) {
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
