/**
 * What becomes of each event of a block: a function of the log so far and nothing else, so that any replay by
 * any owner decides the same.
 *
 * The identity is looked up before the meters' refusal is heeded: a re-send of an event that was counted is a
 * duplicate even if a meter defined since would refuse it. A refused event leaves no entry, so that it can be
 * corrected and sent again under its id.
 *
 * A correction counts if the event that it names was counted before it, and is refused otherwise, to be sent again
 * when that event was. What stands in the index beyond its own position does not help it: a crashed flush left it
 * there, and the verdict was decided without it the first time.
 */
import { VERDICTS, type Verdict } from '../contract/verdicts.ts';
import { ABSENT, type DedupeIndex } from './dedupe/index.ts';
import { positionInShard } from './position-in-shard.ts';
import { TARGET_UNKNOWN, type Corrections } from './prepare.ts';

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
 * Decides a block, in order, and enters what counts into the index. `refused` is not 0 where a meter refuses, and gets
 * the reason where a correction has nothing to correct. The verdicts are written where they are to stand. An entry at the event's own position is its own replay: it
 * counts again, and what it counts into knows.
 *
 * The index decides what it can in its kernel. Corrections, and where the kernel stops, are decided one by one.
 */
export function decideBlock(
  index: DedupeIndex,
  block: Decidable,
  refused: Uint8Array,
  sequence: number,
  corrections: Corrections | null = null,
  verdicts: Uint8Array = new Uint8Array(block.count),
): Uint8Array {
  let next = 0;
  for (let at = 0; at < block.count; at++) {
    const correction = corrections?.events[next] ?? block.count;
    if (at < correction) at = index.decide(block, refused, verdicts, sequence, at, correction);
    if (at === block.count) break;
    if (at === correction) {
      const target = index.look(corrections!.targets, next * 4);
      const position = positionInShard(sequence, at);
      if (refused[at] === 0 && (target === ABSENT || target >= position)) refused[at] = TARGET_UNKNOWN;
      next += 1;
    }
    verdicts[at] = decideOne(index, block, refused, sequence, at);
  }
  return verdicts;
}

/** The reference of the kernel. */
function decideOne(
  index: DedupeIndex,
  { identity, payloadHash }: Decidable,
  refused: Uint8Array,
  sequence: number,
  at: number,
): number {
  const position = positionInShard(sequence, at);
  const known = index.look(identity, at * 4);
  if (known !== ABSENT && known < position)
    return index.samePayload(payloadHash, at * 2) ? DUPLICATE : CONFLICT;
  if (refused[at] !== 0) return REJECTED;
  if (known !== position) index.put(identity, at * 4, position, payloadHash, at * 2);
  return COUNTED;
}

/** The events of a block that have to be asked for in ClickHouse before the block is decided. */
export function unknownIn(index: DedupeIndex, block: Decidable): number[] {
  return index.complete ? [] : unknownOf(index, block.identity, block.count);
}

/** The same of its corrections' targets: the numbers of the corrections. */
export function unknownTargets(index: DedupeIndex, { events, targets }: Corrections): number[] {
  return index.complete ? [] : unknownOf(index, targets, events.length);
}

function unknownOf(index: DedupeIndex, identities: Uint32Array, count: number): number[] {
  const unknown: number[] = [];
  for (let at = 0; at < count; at++) {
    if (index.unknown(identities, at * 4)) unknown.push(at);
  }
  return unknown;
}

/**
 * The smallest position of an original that a counted correction of the block names; null when none counts. To be
 * asked when the block was decided, before anything more is.
 */
export function oldestOriginal(
  index: DedupeIndex,
  corrections: Corrections,
  verdicts: Uint8Array,
): number | null {
  let oldest: number | null = null;
  corrections.events.forEach((event, at) => {
    if (verdicts[event] !== COUNTED) return;
    const position = index.look(corrections.targets, at * 4);
    oldest = Math.min(oldest ?? position, position);
  });
  return oldest;
}
