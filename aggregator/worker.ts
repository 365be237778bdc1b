/** The worker threads' side: two pure functions on blocks in shared slots (slots.ts), or in memory that is moved. */
import { workerData } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { BlockError, viewBlock } from '../contract/block.ts';
import { Preparer, type Packed } from './prepare.ts';
import { decidedColumns } from './prepared-columns.ts';
import { encodeRaw, type DecidedBlock, type RawRows } from './raw-rows.ts';
import { readShared, type MetersInForce } from './registry.ts';
import { behind, slotBytes } from './slots.ts';

/** What a thread is started with. */
export interface ThreadData {
  readonly memory: SharedArrayBuffer;
  readonly slotSize: number;
  readonly bucketKey: string;
}

/** A message at the beginning of a slot. */
export interface InSlot {
  readonly slot: number;
  readonly messageBytes: number;
}

export interface PrepareTask {
  /** Memory of its own comes back in the answer. */
  readonly message: InSlot | Uint8Array<ArrayBuffer>;
  readonly shard: number;
  readonly meters: SharedArrayBuffer;
  readonly metersVersion: number;
}

export type PreparedBy = { readonly message: Uint8Array<ArrayBuffer> | null } & (
  | { readonly kind: 'packed'; readonly packed: Packed }
  | { readonly kind: 'unreadable'; readonly reason: string }
);

/** A decided block; one that lies in a slot with all that was found in it is told by where. */
export type EncodeTask = DecidedBlock | (InSlot & Pick<DecidedBlock, 'shard' | 'incarnation' | 'sequence'>);

const { memory, slotSize, bucketKey } = workerData as ThreadData;
const preparer = new Preparer(bucketKey);

/** The meters that were last in force for each shard: they change rarely. */
const meters = new Map<number, { version: number; inForce: MetersInForce }>();

export function prepare(task: PrepareTask): PreparedBy {
  let known = meters.get(task.shard);
  if (known?.version !== task.metersVersion) {
    known = { version: task.metersVersion, inForce: readShared(task.meters) };
    meters.set(task.shard, known);
  }
  const own = task.message instanceof Uint8Array ? task.message : null;
  const { message, room } = task.message instanceof Uint8Array ? without(task.message) : within(task.message);
  const moving = own === null ? [] : [own.buffer];
  try {
    const packed = preparer.pack(message, known.inForce, room);
    if (packed.memory !== null) moving.push(packed.memory);
    return moved<PreparedBy>({ kind: 'packed', packed, message: own }, moving);
  } catch (error) {
    // Anything but a block that is not sound is a mistake of ours, and no verdict may hide it.
    if (!(error instanceof BlockError)) throw error;
    return moved<PreparedBy>({ kind: 'unreadable', reason: error.message, message: own }, moving);
  }
}

export function encode(tasks: readonly EncodeTask[]): RawRows {
  const rows = encodeRaw(tasks.map((task) => ('slot' in task ? decidedIn(task) : task)));
  const buffers = [rows.events.body, rows.refused.body].flatMap((body) =>
    body === null ? [] : [body.buffer],
  );
  return moved(rows, buffers);
}

interface Place {
  readonly message: Uint8Array;
  readonly room: Uint8Array | null;
}

const without = (message: Uint8Array): Place => ({ message, room: null });

function within({ slot, messageBytes }: InSlot): Place & { readonly room: Uint8Array } {
  const bytes = slotBytes(memory, slotSize, slot);
  return { message: bytes.subarray(0, messageBytes), room: bytes.subarray(behind(messageBytes)) };
}

function decidedIn({ shard, incarnation, sequence, ...at }: Extract<EncodeTask, InSlot>): DecidedBlock {
  const { message, room } = within(at);
  const block = viewBlock(message);
  return { shard, incarnation, sequence, block, ...decidedColumns(room, block.count) };
}

function moved<T extends object>(value: T, buffers: ArrayBuffer[]): T {
  if (buffers.length === 0) return value;
  // What piscina looks for: the value to answer with, and the memory to move instead of copying.
  const answer = { [transferableSymbol]: buffers, [valueSymbol]: value };
  return move(answer as never) as unknown as T;
}
