/** The worker threads' side: two pure functions on blocks in shared slots (slots.ts), or in memory that is moved. */
import { workerData } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { viewBlock } from '../contract/block.ts';
import { Preparer } from './prepare.ts';
import { decidedColumns } from './prepared-columns.ts';
import { encodeRaw, type DecidedBlock, type RawRows } from './raw-rows.ts';
import { readShared, type MetersInForce } from './registry.ts';
import {
  PLACE_NUMBERS,
  type EncodeTask,
  type PreparedBy,
  type PrepareTask,
  type ThreadData,
} from './worker-tasks.ts';

const { memory, bucketKey } = workerData as ThreadData;
/** All slots. */
const slots = new Uint8Array(memory);
const preparer = new Preparer(bucketKey);

/** The meters that were last in force for each shard: they change rarely. */
const meters = new Map<number, { version: number; inForce: MetersInForce }>();

export function prepare(task: PrepareTask): PreparedBy {
  let known = meters.get(task.shard);
  if (known?.version !== task.metersVersion) {
    known = { version: task.metersVersion, inForce: readShared(task.meters) };
    meters.set(task.shard, known);
  }
  const { own, places, room } = task;
  const messages = own ?? placed(places ?? []);
  const found = preparer.packAll(messages, known.inForce, own === null ? slots.subarray(...room) : null);
  const moving = own === null ? [] : own.map((message) => message.buffer);
  for (const one of found) {
    if (typeof one !== 'string' && one.memory !== null) moving.push(one.memory);
  }
  return moved<PreparedBy>({ messages: own, found }, moving);
}

function placed(places: readonly number[]): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (let at = 0; at < places.length; at += 2)
    messages.push(slots.subarray(places[at]!, places[at]! + places[at + 1]!));
  return messages;
}

export function encode({ places, others }: EncodeTask): RawRows {
  const blocks: DecidedBlock[] = [];
  for (let at = 0; at < places.length; at += PLACE_NUMBERS) blocks.push(decidedAt(places, at));
  for (const { message, ...decided } of others) blocks.push({ ...decided, block: viewBlock(message) });
  const rows = encodeRaw(blocks);
  const buffers = [rows.events.body, rows.refused.body].flatMap((body) =>
    body === null ? [] : [body.buffer],
  );
  return moved(rows, buffers);
}

function decidedAt(places: Float64Array, at: number): DecidedBlock {
  const message = places[at + 3]!;
  const block = viewBlock(slots.subarray(message, message + places[at + 4]!));
  return {
    shard: places[at]!,
    incarnation: places[at + 1]!,
    sequence: places[at + 2]!,
    block,
    ...decidedColumns(slots, places[at + 5]!, block.count),
  };
}

function moved<T extends object>(value: T, buffers: ArrayBuffer[]): T {
  if (buffers.length === 0) return value;
  // What piscina looks for: the value to answer with, and the memory to move instead of copying.
  const answer = { [transferableSymbol]: buffers, [valueSymbol]: value };
  return move(answer as never) as unknown as T;
}
