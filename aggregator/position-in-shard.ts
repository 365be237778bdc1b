/**
 * A position within one incarnation of a shard's log, as one safe integer: sequence · 2^16 + index. The hot
 * loops compare these; bigints appear only where a row leaves the process. What an earlier incarnation wrote
 * is `EARLIER`, below every position of this one.
 */
import { BLOCK_EVENTS_MAX, packPosition, unpackPosition } from '../contract/position.ts';
import { FencedError } from './fence.ts';

export const EARLIER = -1;

export function positionInShard(sequence: number, index: number): number {
  return sequence * BLOCK_EVENTS_MAX + index;
}

export function sequenceOf(position: number): number {
  return Math.floor(position / BLOCK_EVENTS_MAX);
}

export function packed(incarnation: number, position: number): bigint {
  return packPosition(incarnation, sequenceOf(position), position % BLOCK_EVENTS_MAX);
}

/**
 * A stored position as seen from an incarnation. At a start there is none that is later than ours, so whoever meets one
 * was fenced out, and reads what his successor wrote.
 *
 * @throws FencedError
 */
export function seenFrom(incarnation: number, stored: bigint): number {
  const parts = unpackPosition(stored);
  if (parts.incarnation > incarnation)
    throw new FencedError([], new Error(`incarnation ${parts.incarnation} seen from ${incarnation}`));
  return parts.incarnation < incarnation ? EARLIER : positionInShard(parts.sequence, parts.index);
}
