/**
 * The place of an event in its shard's log: incarnation, stream sequence and index in the block,
 * ordered in that order. Packed, it is one UInt64 (8 + 40 + 16 bits) that compares like the triple:
 * the version of every row that the event touches, and the reason why a replay is a no-op.
 */
export const SEQUENCE_MAX = 2 ** 37 - 1; // keeps sequence · 2^16 + index a safe integer for the index in memory
export const INCARNATION_MAX = 255;
export const BLOCK_EVENTS_MAX = 2 ** 16;

export function packPosition(incarnation: number, sequence: number, index: number): bigint {
  if (incarnation < 0 || incarnation > INCARNATION_MAX)
    throw new Error(`incarnation ${incarnation} out of range`);
  if (sequence < 0 || sequence > SEQUENCE_MAX) throw new Error(`sequence ${sequence} out of range`);
  if (index < 0 || index >= BLOCK_EVENTS_MAX) throw new Error(`index ${index} out of range`);
  return (BigInt(incarnation) << 56n) | (BigInt(sequence) << 16n) | BigInt(index);
}

export function unpackPosition(position: bigint): { incarnation: number; sequence: number; index: number } {
  return {
    incarnation: Number(position >> 56n),
    sequence: Number((position >> 16n) & 0xff_ffff_ffffn),
    index: Number(position & 0xffffn),
  };
}

/** The highest position that a message can hold: the version of what was folded up to and with it. */
export function endOfMessage(incarnation: number, sequence: number): bigint {
  return packPosition(incarnation, sequence, BLOCK_EVENTS_MAX - 1);
}
