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
    const prepared = preparer.of.prepare(task.message, known.inForce);
    const { contributions } = prepared;
    return moved<PrepareAnswer>({ kind: 'prepared', prepared }, [
      prepared.block.identity.buffer as ArrayBuffer,
      prepared.tenantOf.buffer,
      prepared.refused.buffer,
      contributions.start.buffer,
      contributions.key.buffer,
      contributions.mantissa.buffer,
      contributions.scale.buffer,
    ]);
  } catch (error) {
    // Anything but a block that is not sound is a mistake of ours, and no verdict may hide it.
    if (!(error instanceof BlockError)) throw error;
    const { message } = task;
    return moved<PrepareAnswer>({ kind: 'unreadable', reason: error.message, message }, [message.buffer]);
  }
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
