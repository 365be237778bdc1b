/**
 * Makes a block that is published again a message of its own.
 *
 * Two copies of a block with the same bytes would have the same fingerprint. After the log was cut back, a copy
 * sent again can come to stand at the very sequence at which the first one stood, behind other messages than
 * before. Then a watermark that vouches for the first would seem to vouch for what now lies before the second,
 * to the edge as well as to an aggregator that starts again, and that would be lost. With a stamp a message is
 * published once and never again, and the same fingerprint at the same sequence means the same log up to there.
 *
 * The stamp is 64 random bits in the block's header, behind its last field and under its checksum. No event
 * changes; a block that is sent for the first time has zeros there.
 */
import { crc32 } from 'node:zlib';
import { HEADER } from '../../contract/block.ts';

const STAMP_AT = HEADER.acceptedAtMs + 8;

/** Changes the block in place. `random` returns [0, 1). */
export function stampResend(block: Uint8Array, random: () => number): void {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  view.setUint32(STAMP_AT, Math.floor(random() * 2 ** 32), true);
  view.setUint32(STAMP_AT + 4, Math.floor(random() * 2 ** 32), true);
  view.setUint32(HEADER.crc, crc32(block.subarray(HEADER.events)), true);
}
