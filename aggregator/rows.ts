/** The rows of the small tables, which are inserted as JSON; those of the large ones are Native columns (raw-rows.ts). */
import { endOfMessage } from '../contract/position.ts';
import { packed } from './position-in-shard.ts';
import type { CountersOfShard, MarksOfShard, WatermarkOfShard } from './ports.ts';

/** An instant as DateTime64(3, 'UTC') takes it. */
export function dateTime(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 23).replace('T', ' ');
}

export function marksRow({ shard, incarnation, marks }: MarksOfShard, nowMs: number): object {
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

export function watermarkRow({ shard, watermark }: WatermarkOfShard, flushedAtMs: number): object {
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

export function receivedRows({ shard, incarnation, counters }: CountersOfShard): object[] {
  return counters.map(({ tenant, count, position }) => ({
    tenant,
    shard,
    count,
    position: packed(incarnation, position),
  }));
}

export function verdictRows({ shard, incarnation, counters }: CountersOfShard): object[] {
  return counters.map(({ tenant, verdict, code, count, position }) => ({
    tenant,
    shard,
    verdict,
    code,
    count,
    position: packed(incarnation, position),
  }));
}
