/** What is posted between the loop that feeds the threads (workers.ts) and a thread (worker.ts). */
import type { Packed } from './prepare.ts';

/** What a thread is started with. */
export interface ThreadData {
  /** That of all slots (slots.ts). */
  readonly memory: SharedArrayBuffer;
  readonly bucketKey: string;
}

/** Blocks to prepare, that lie in slots or in memory of their own. */
export interface PrepareTask {
  /** Two numbers for each: where in the slots' memory it begins, and its length. */
  readonly places: readonly number[] | null;
  /** They come back in the answer. */
  readonly own: readonly Uint8Array<ArrayBuffer>[] | null;
  /** From where to where in the slots' memory is room for what is found. */
  readonly room: readonly [number, number];
  readonly shard: number;
  readonly meters: SharedArrayBuffer;
  readonly metersVersion: number;
}

export interface PreparedBy {
  readonly messages: readonly Uint8Array<ArrayBuffer>[] | null;
  /** Of each block in order: what was found, or why it cannot be read. */
  readonly found: readonly (Packed | string)[];
}

/** Of a block in a slot: shard, incarnation, sequence; where the message begins, its length; where its columns begin. */
export const PLACE_NUMBERS = 6;

export interface OtherBlock {
  readonly shard: number;
  readonly incarnation: number;
  readonly sequence: number;
  readonly message: Uint8Array;
  readonly verdicts: Uint8Array;
  readonly refused: Uint8Array;
}

/** Decided blocks: those that lie in slots with all that was found in them, and others. */
export interface EncodeTask {
  readonly places: Float64Array;
  readonly others: readonly OtherBlock[];
}
