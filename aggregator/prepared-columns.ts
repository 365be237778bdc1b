/**
 * What a worker finds in a block, as columns behind one another in one memory: room in the message's slot (slots.ts), or
 * memory of its own where that does not suffice. Five counts say where each begins, so that a thread and the loop that
 * feeds it need to tell each other nothing else.
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

/** Lays the columns over memory that has `columnBytes` of room from `start` on, a multiple of 8 in its buffer. */
export function viewColumns(memory: Uint8Array, start: number, counts: ColumnCounts): PreparedColumns {
  const { events, contributions, keys, buckets, bucketBytes } = counts;
  const { buffer } = memory;
  let end = memory.byteOffset + start + behind(events) * 2;
  const at = (bytes: number): number => {
    const begin = end;
    end += behind(bytes);
    return begin;
  };
  const u8 = (length: number): Uint8Array => new Uint8Array(buffer, at(length), length);
  const u32 = (length: number): Uint32Array => new Uint32Array(buffer, at(length * 4), length);
  return {
    ...decidedColumns(memory, start, events),
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

/**
 * Writes columns where `viewColumns` finds them. Of a small block they are short, and three typed arrays for each,
 * target, source and a part of that, cost more than what is copied: so there is one set of views over all of the
 * memory, and what is short is copied in a loop.
 */
export class ColumnWriter {
  #u8: Uint8Array;
  #u32: Uint32Array;
  #f64: Float64Array;
  #end = 0;

  constructor(buffer: ArrayBufferLike) {
    this.#u8 = new Uint8Array(buffer);
    this.#u32 = new Uint32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
    this.#f64 = new Float64Array(buffer, 0, Math.floor(buffer.byteLength / 8));
  }

  get buffer(): ArrayBufferLike {
    return this.#u8.buffer;
  }

  /** @param start in the buffer: a multiple of 8. Room for the verdicts comes first. */
  begin(start: number, events: number): void {
    this.#u8.fill(0, start, start + events);
    this.#end = start + behind(events);
  }

  bytes(from: Uint8Array, count: number): void {
    copy(from, count, this.#u8, this.#end);
    this.#end += behind(count);
  }

  words(from: Uint32Array, count: number): void {
    copy(from, count, this.#u32, this.#end / 4);
    this.#end += behind(count * 4);
  }

  doubles(from: Float64Array, count: number): void {
    copy(from, count, this.#f64, this.#end / 8);
    this.#end += count * 8;
  }
}

/** Below, a loop takes less than a view of the source and a call: 20 ns for 25 numbers, 70 with them. */
const LOOP_MAX = 64;

function copy<T extends Uint8Array | Uint32Array | Float64Array>(
  from: T,
  count: number,
  to: T,
  at: number,
): void {
  if (count > LOOP_MAX) to.set(from.subarray(0, count), at);
  else for (let next = 0; next < count; next++) to[at + next] = from[next]!;
}

/** The one behind those of `decidedColumns`. */
export function tenantColumn({ buffer, byteOffset }: Uint8Array, start: number, events: number): Uint32Array {
  return new Uint32Array(buffer, byteOffset + start + behind(events) * 2, events);
}

/** Those that stand first, wherever the others end: what encoding needs. */
export function decidedColumns(
  memory: Uint8Array,
  start: number,
  events: number,
): Pick<PreparedColumns, 'verdicts' | 'refused'> {
  const refused = start + behind(events);
  return {
    verdicts: memory.subarray(start, start + events),
    refused: memory.subarray(refused, refused + events),
  };
}
