/**
 * What becomes of each event of a block: a function of the log so far and nothing else, so that any replay by
 * any owner decides the same.
 *
 * The identity is looked up before the meters' refusal is heeded: a re-send of an event that was counted is a
 * duplicate even if a meter defined since would refuse it. A refused event leaves no entry, so that it can be
 * corrected and sent again under its id.
 */
import { VERDICTS, type Verdict } from '../contract/verdicts.ts';
import { ABSENT, type DedupeIndex } from './dedupe/index.ts';
import { positionInShard } from './position-in-shard.ts';

const number = (verdict: Verdict): number => VERDICTS.indexOf(verdict);
export const COUNTED = number('counted');
export const DUPLICATE = number('duplicate');
export const CONFLICT = number('conflict');
export const LATE = number('late');
export const REJECTED = number('rejected');

/** What a decision reads of a block. */
export interface Decidable {
  readonly count: number;
  /** Four words an event. */
  readonly identity: Uint32Array;
  /** Two words an event. */
  readonly payloadHash: Uint32Array;
}

/**
 * Decides a block, in order, and enters what counts into the index. `refused` is not 0 where a meter refuses.
 * An entry at the event's own position is its own replay: it counts again, and what it counts into knows.
 */
export function decideBlock(
  index: DedupeIndex,
  block: Decidable,
  refused: Uint8Array,
  sequence: number,
): Uint8Array {
  const verdicts = new Uint8Array(block.count);
  for (let at = 0; at < block.count; at++) {
    const position = positionInShard(sequence, at);
    const known = index.look(block.identity, at * 4);
    if (known !== ABSENT && known < position) {
      verdicts[at] = index.samePayload(block.payloadHash, at * 2) ? DUPLICATE : CONFLICT;
    } else if (refused[at] !== 0) {
      verdicts[at] = REJECTED;
    } else {
      verdicts[at] = COUNTED;
      if (known !== position) index.put(block.identity, at * 4, position, block.payloadHash, at * 2);
    }
  }
  return verdicts;
}

/** The events of a block that have to be asked for in ClickHouse before the block is decided. */
export function unknownIn(index: DedupeIndex, block: Decidable): number[] {
  const unknown: number[] = [];
  if (index.complete) return unknown;
  for (let at = 0; at < block.count; at++) {
    if (index.unknown(block.identity, at * 4)) unknown.push(at);
  }
  return unknown;
}
