/** The worker threads. They see the slots that blocks live in; memory that is in no slot is moved to them and back. */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { answersOf, type PrepareAnswers } from './prepare-answers.ts';
import type { RawRows } from './raw-rows.ts';
import { SLOT_BYTES, sharedMemory, Slots, slotsFor, type Slot } from './slots.ts';
import {
  PLACE_NUMBERS,
  type EncodeTask,
  type OtherBlock,
  type PreparedBy,
  type PrepareTask,
  type ThreadData,
} from './worker-tasks.ts';

/** Blocks that are prepared together, by the same meters. */
export interface PrepareJob {
  /** In which all of them lie; null for none. Then their memory is taken, and comes back in the answers. */
  readonly slot: Slot | null;
  readonly messages: readonly Uint8Array[];
  /** Where in the slot is room for what is found. */
  readonly roomStart: number;
  readonly roomEnd: number;
  readonly shard: number;
  readonly meters: SharedArrayBuffer;
  readonly metersVersion: number;
}

/** A block to be encoded, and what was decided of it. */
export interface EncodeJob {
  readonly shard: number;
  readonly incarnation: number;
  readonly sequence: number;
  readonly message: Uint8Array;
  /** In which the message lies, and nearly always the rest; null for none. */
  readonly slot: Slot | null;
  readonly verdicts: Uint8Array;
  readonly refused: Uint8Array;
}

/** A thread is busy with so much for half a millisecond. One larger block is a job alone. */
const JOB_BYTES = 64 * 1024;

export interface Workers {
  readonly threads: number;
  /** With which they hash buckets; drawn when they are started. */
  readonly bucketKey: string;
  readonly slots: Slots;
  /** How many bytes of blocks make a job. */
  readonly jobBytes: number;
  /** Holds the messages' slot meanwhile. */
  prepare(job: PrepareJob): Promise<PrepareAnswers>;
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
    workerData: { memory: slots.memory, bucketKey } satisfies ThreadData,
  });
  const run = async (name: string, task: unknown, moving: ArrayBuffer[], held: ReadonlySet<Slot | null>) => {
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
    jobBytes: JOB_BYTES,
    async prepare({ slot, messages, roomStart, roomEnd, shard, meters, metersVersion }) {
      // Of a slot all threads know the memory: where in it something stands is all that has to be told.
      const from = slot === null ? 0 : slot.bytes.byteOffset;
      const room: [number, number] = [from + roomStart, from + roomEnd];
      const places = slot === null ? null : messages.flatMap((one) => [one.byteOffset, one.length]);
      const own = slot === null ? (messages as Uint8Array<ArrayBuffer>[]) : null;
      const task: PrepareTask = { places, own, room, shard, meters, metersVersion };
      const moving = own === null ? [] : own.map((message) => message.buffer);
      const answer = (await run('prepare', task, moving, new Set([slot]))) as PreparedBy;
      const bytes = slot?.bytes.subarray(roomStart, roomEnd) ?? null;
      return answersOf(answer.found, answer.messages ?? messages, bytes);
    },
    async encode(blocks) {
      const task = encodeTask(blocks, slots.memory);
      const moving = task.others.flatMap(({ message: { buffer } }) =>
        buffer instanceof ArrayBuffer ? [buffer] : [],
      );
      return (await run('encode', task, moving, new Set(blocks.map(({ slot }) => slot)))) as RawRows;
    },
    close: () => pool.destroy(),
  };
}

/** Of a block that lies in a slot with all that was found in it, a row of numbers says where. */
function encodeTask(blocks: readonly EncodeJob[], memory: SharedArrayBuffer): EncodeTask {
  const places = new Float64Array(blocks.length * PLACE_NUMBERS);
  const others: OtherBlock[] = [];
  let next = 0;
  for (const { slot, shard, incarnation, sequence, message, verdicts, refused } of blocks) {
    if (slot === null || verdicts.buffer !== memory) {
      // Alone: what a view is moved or cloned with is all of its memory.
      others.push({
        shard,
        incarnation,
        sequence,
        message,
        verdicts: verdicts.slice(),
        refused: refused.slice(),
      });
      continue;
    }
    places[next] = shard;
    places[next + 1] = incarnation;
    places[next + 2] = sequence;
    places[next + 3] = message.byteOffset;
    places[next + 4] = message.length;
    places[next + 5] = verdicts.byteOffset;
    next += PLACE_NUMBERS;
  }
  return { places: places.slice(0, next), others };
}

/** A thread needs compiled JavaScript: beside this file in dist, or in dist when this runs from the sources. */
function workerFile(): string {
  const beside = fileURLToPath(new URL('./worker.js', import.meta.url));
  return existsSync(beside)
    ? beside
    : fileURLToPath(new URL('../dist/aggregator/worker.js', import.meta.url));
}
