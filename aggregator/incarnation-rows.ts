/** What is kept of an incarnation, and what it leaves behind. See incarnation.ts. */
import { packPosition } from '../contract/position.ts';
import type { Watermark } from './watermark.ts';

/** An incarnation as it began: the watermark that it began with, and where the one before it ended. */
export interface Beginning {
  readonly watermark: Watermark;
  /** Up to which sequence the incarnation before it was counted. */
  readonly sequenceBefore: number;
  readonly reason: string;
}

/** The rows of one incarnation behind its watermark. */
export interface Unfinished {
  readonly shard: number;
  /** The position of its watermark. */
  readonly behind: bigint;
  /** The closing position. */
  readonly until: bigint;
}

/**
 * The first position of an incarnation. No event can have it, since sequences begin with 1: it is the version of
 * what ends the incarnation before, above all of that one and below all of this one.
 */
export function closingPosition(incarnation: number): bigint {
  return packPosition(incarnation, 0, 0);
}
