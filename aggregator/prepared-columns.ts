/**
 * What a worker finds in a block, as columns behind one another in one memory: the rest of the message's slot
 * (slots.ts), or memory of its own where that does not suffice. Five counts say where each begins, so that a thread and
 * the loop that feeds it need to tell each other nothing else.
 */
import { behind } from './slots.ts';

export interface ColumnCounts {
  readonly events: number;
  readonly contributions: number;
  readonly keys: number;
  readonly buckets: number;
  /** With the slack behind the last bucket. */
  readonly bucketBytes: number;
}

/** What the columns mean is told in prepare.ts. */
export interface PreparedColumns {
  /** By whoever decides, not by the worker. */
  readonly verdicts: Uint8Array;
  readonly refused: Uint8Array;
  readonly tenantOf: Uint32Array;
  readonly start: Uint32Array;
  readonly mantissa: Float64Array;
  readonly key: Uint32Array;
  readonly scale: Uint8Array;
  readonly keyBucket: Uint32Array;
  readonly keyMeter: Uint32Array;
  readonly ofKey: Uint32Array;
  readonly bucketTenant: Uint32Array;
  readonly bucketStart: Uint32Array;
  readonly bucketHash: Uint32Array;
  readonly bucketBytes: Uint8Array;
}

export function columnBytes({ events, contributions, keys, buckets, bucketBytes }: ColumnCounts): number {
  return (
    behind(events) * 2 +
    behind(events * 4) +
    behind((events + 1) * 4) +
    contributions * 8 +
    behind(contributions * 4) +
    behind(contributions) +
    behind(keys * 4) * 3 +
    behind(buckets * 4) +
    behind((buckets + 1) * 4) +
    buckets * 8 +
    behind(bucketBytes)
  );
}

/** Lays the columns over memory that begins at a multiple of 8 and has `columnBytes` of room. */
export function viewColumns(memory: Uint8Array, counts: ColumnCounts): PreparedColumns {
  const { events, contributions, keys, buckets, bucketBytes } = counts;
  const { buffer } = memory;
  let end = memory.byteOffset + behind(events) * 2;
  const at = (bytes: number): number => {
    const begin = end;
    end += behind(bytes);
    return begin;
  };
  const u8 = (length: number): Uint8Array => new Uint8Array(buffer, at(length), length);
  const u32 = (length: number): Uint32Array => new Uint32Array(buffer, at(length * 4), length);
  return {
    ...decidedColumns(memory, events),
    tenantOf: u32(events),
    start: u32(events + 1),
    mantissa: new Float64Array(buffer, at(contributions * 8), contributions),
    key: u32(contributions),
    scale: u8(contributions),
    keyBucket: u32(keys),
    keyMeter: u32(keys),
    ofKey: u32(keys),
    bucketTenant: u32(buckets),
    bucketStart: u32(buckets + 1),
    bucketHash: u32(buckets * 2),
    bucketBytes: u8(bucketBytes),
  };
}

/** Those that stand first, wherever the others end: what encoding needs. */
export function decidedColumns(
  memory: Uint8Array,
  events: number,
): Pick<PreparedColumns, 'verdicts' | 'refused'> {
  return {
    verdicts: memory.subarray(0, events),
    refused: memory.subarray(behind(events), behind(events) + events),
  };
}
