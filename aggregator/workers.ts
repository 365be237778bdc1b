/** The worker threads. They see the slots that blocks live in; memory that is in no slot is moved to them and back. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { unpack, type Prepared } from './prepare.ts';
import type { DecidedBlock, RawRows } from './raw-rows.ts';
import { behind, SLOT_BYTES, sharedMemory, Slots, slotsFor, type Placed, type Slot } from './slots.ts';
import type { EncodeTask, PreparedBy, PrepareTask, ThreadData } from './worker.ts';

export interface PrepareJob {
  /** Memory of its own is taken; it comes back in the answer. */
  readonly placed: Placed;
  readonly shard: number;
  readonly meters: SharedArrayBuffer;
  readonly metersVersion: number;
}

/** The message lies where it lay, or where its memory came back to. */
export type PrepareAnswer = { readonly message: Uint8Array } & (
  | { readonly kind: 'prepared'; readonly prepared: Prepared }
  | { readonly kind: 'unreadable'; readonly reason: string }
);

/** A block to be encoded, and the slot of its message. */
export interface EncodeJob extends DecidedBlock {
  readonly slot: Slot | null;
  readonly messageBytes: number;
}

export interface Workers {
  readonly threads: number;
  /** With which they hash buckets; drawn when they are started. */
  readonly bucketKey: string;
  readonly slots: Slots;
  /** Holds the message's slot meanwhile. */
  prepare(job: PrepareJob): Promise<PrepareAnswer>;
  /** Holds the blocks' slots meanwhile. Takes the memory of those that are in none, for good. */
  encode(blocks: readonly EncodeJob[]): Promise<RawRows>;
  close(): Promise<void>;
}

/** @param backlogBytesMax how much is read and not durable at most: so much of it has slots. */
export function startWorkers(threads: number, backlogBytesMax: number): Workers {
  const slots = new Slots(sharedMemory(slotsFor(backlogBytesMax) * SLOT_BYTES), SLOT_BYTES);
  const bucketKey = randomBytes(16).toString('hex');
  const pool = new Piscina<unknown, unknown>({
    filename: workerFile(),
    minThreads: threads,
    maxThreads: threads,
    recordTiming: false,
    workerData: { memory: slots.memory, slotSize: slots.size, bucketKey } satisfies ThreadData,
  });
  const run = async (name: string, task: unknown, moving: ArrayBuffer[], held: readonly (Slot | null)[]) => {
    for (const slot of held) slot?.hold();
    try {
      return await pool.run(task, moving.length === 0 ? { name } : { name, transferList: moving });
    } finally {
      for (const slot of held) slot?.release();
    }
  };
  return {
    threads,
    bucketKey,
    slots,
    async prepare({ placed: { bytes, slot }, ...told }) {
      const message =
        slot === null
          ? (bytes as Uint8Array<ArrayBuffer>)
          : { slot: slot.number, messageBytes: bytes.length };
      const task: PrepareTask = { message, ...told };
      const moving = message instanceof Uint8Array ? [message.buffer] : [];
      const answer = (await run('prepare', task, moving, [slot])) as PreparedBy;
      return answered(answer, answer.message ?? bytes, slot);
    },
    async encode(blocks) {
      const tasks = blocks.map(encodeTask);
      const moving = tasks.flatMap((task) =>
        'block' in task && task.block.identity.buffer instanceof ArrayBuffer
          ? [task.block.identity.buffer]
          : [],
      );
      const held = blocks.map(({ slot }) => slot);
      return (await run('encode', tasks, moving, held)) as RawRows;
    },
    close: () => pool.destroy(),
  };
}

function answered(answer: PreparedBy, message: Uint8Array, slot: Slot | null): PrepareAnswer {
  if (answer.kind === 'unreadable') return { kind: 'unreadable', reason: answer.reason, message };
  const room = slot === null ? null : slot.bytes.subarray(behind(message.length));
  return { kind: 'prepared', prepared: unpack(message, room, answer.packed), message };
}

/** All of the block is in its slot, if its columns are. */
function encodeTask({ slot, messageBytes, ...decided }: EncodeJob): EncodeTask {
  if (slot?.bytes.buffer !== decided.verdicts.buffer) return decided;
  const { shard, incarnation, sequence } = decided;
  return { shard, incarnation, sequence, slot: slot.number, messageBytes };
}

/** A thread needs compiled JavaScript: beside this file in dist, or in dist when this runs from the sources. */
function workerFile(): string {
  const beside = fileURLToPath(new URL('./worker.js', import.meta.url));
  return existsSync(beside)
    ? beside
    : fileURLToPath(new URL('../dist/aggregator/worker.js', import.meta.url));
}
