/** The worker threads' side: two pure functions on memory that is moved in and out, never copied. */
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { BlockError } from '../contract/block.ts';
import { Preparer, type Prepared } from './prepare.ts';
import { encodeRaw, type DecidedBlock, type RawRows } from './raw-rows.ts';
import { readShared, type MetersInForce } from './registry.ts';

export interface PrepareTask {
  readonly message: Uint8Array<ArrayBuffer>;
  readonly shard: number;
  readonly meters: SharedArrayBuffer;
  readonly metersVersion: number;
  readonly bucketKey: string;
}

export type PrepareAnswer =
  | { readonly kind: 'prepared'; readonly prepared: Prepared }
  | { readonly kind: 'unreadable'; readonly reason: string; readonly message: Uint8Array<ArrayBuffer> };

let preparer: { readonly key: string; readonly of: Preparer } | undefined;

/** The meters that were last in force for each shard: they change rarely. */
const meters = new Map<number, { version: number; inForce: MetersInForce }>();

export function prepare(task: PrepareTask): PrepareAnswer {
  let known = meters.get(task.shard);
  if (known?.version !== task.metersVersion) {
    known = { version: task.metersVersion, inForce: readShared(task.meters) };
    meters.set(task.shard, known);
  }
  try {
    if (preparer?.key !== task.bucketKey)
      preparer = { key: task.bucketKey, of: new Preparer(task.bucketKey) };
    const { prepared, memory } = packed(preparer.of.prepare(task.message, known.inForce));
    return moved<PrepareAnswer>({ kind: 'prepared', prepared }, [
      prepared.block.identity.buffer as ArrayBuffer,
      memory,
    ]);
  } catch (error) {
    // Anything but a block that is not sound is a mistake of ours, and no verdict may hide it.
    if (!(error instanceof BlockError)) throw error;
    const { message } = task;
    return moved<PrepareAnswer>({ kind: 'unreadable', reason: error.message, message }, [message.buffer]);
  }
}

/**
 * With all its columns but the block's in one piece of memory. Each piece costs its move and, in both threads, a share of
 * collecting garbage: memory outside the heap is what most often begins that.
 */
function packed(prepared: Prepared): { prepared: Prepared; memory: ArrayBuffer } {
  const { contributions } = prepared;
  const { buckets, groups } = contributions;
  const { key, keyBucket, keyMeter, mantissa, scale, start } = contributions;
  const arrays = [prepared.tenantOf, prepared.refused, key, keyBucket, keyMeter, mantissa, scale, start];
  arrays.push(buckets.tenant, buckets.start, buckets.bytes, buckets.hash, groups.ofKey);
  const memory = new ArrayBuffer(arrays.reduce((bytes, array) => bytes + aligned(array.byteLength), 0));
  let end = 0;
  const room = (bytes: number): number => {
    const begin = end;
    end += aligned(bytes);
    return begin;
  };
  const u8 = (from: Uint8Array): Uint8Array<ArrayBuffer> => {
    const to = new Uint8Array(memory, room(from.byteLength), from.length);
    to.set(from);
    return to;
  };
  const u32 = (from: Uint32Array): Uint32Array<ArrayBuffer> => {
    const to = new Uint32Array(memory, room(from.byteLength), from.length);
    to.set(from);
    return to;
  };
  const f64 = (from: Float64Array): Float64Array<ArrayBuffer> => {
    const to = new Float64Array(memory, room(from.byteLength), from.length);
    to.set(from);
    return to;
  };
  return {
    prepared: {
      ...prepared,
      tenantOf: u32(prepared.tenantOf),
      refused: u8(prepared.refused),
      contributions: {
        ...contributions,
        key: u32(key),
        keyBucket: u32(keyBucket),
        keyMeter: u32(keyMeter),
        mantissa: f64(mantissa),
        scale: u8(scale),
        start: u32(start),
        buckets: {
          ...buckets,
          tenant: u32(buckets.tenant),
          start: u32(buckets.start),
          bytes: u8(buckets.bytes),
          hash: u32(buckets.hash),
        },
        groups: { ...groups, ofKey: u32(groups.ofKey) },
      },
    },
    memory,
  };
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

export function encode(blocks: readonly DecidedBlock[]): RawRows {
  const rows = encodeRaw(blocks);
  const buffers = [rows.events.body, rows.refused.body].flatMap((body) =>
    body === null ? [] : [body.buffer],
  );
  return moved(rows, buffers);
}

function moved<T extends object>(value: T, buffers: ArrayBuffer[]): T {
  // What piscina looks for: the value to answer with, and the memory to move instead of copying.
  const answer = { [transferableSymbol]: buffers, [valueSymbol]: value };
  return move(answer as never) as unknown as T;
}
