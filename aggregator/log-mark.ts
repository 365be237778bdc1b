/**
 * Which message stood at a sequence of the log: when the log stored it, and a checksum of its bytes. Two messages
 * of the same mark are the same message of the same log. The bytes alone would not do: a block that was lost and
 * is published again can come to stand at the very sequence at which it stood before, behind other messages.
 */
import { crc32 } from 'node:zlib';
import type { ShardLog } from './ports.ts';

export interface LogMark {
  readonly sequence: number;
  /** When the log stored the message, epoch milliseconds. */
  readonly timeMs: number;
  /** CRC-32 of the message. A SHA-256 of each would cost three times as much, for nothing more here. */
  readonly checksum: number;
}

export function markOf(sequence: number, timeMs: number, message: Uint8Array): LogMark {
  return { sequence, timeMs, checksum: crc32(message) };
}

export function sameMark(a: LogMark, b: LogMark): boolean {
  return a.sequence === b.sequence && a.timeMs === b.timeMs && a.checksum === b.checksum;
}

/** What the broker says of a stream now. */
export interface StreamFacts {
  readonly name: string;
  readonly created: string;
  /** Of an empty stream: one more than the last, or 0. */
  readonly firstSequence: number;
  readonly lastSequence: number;
  /** Why these numbers cannot be true; null or nothing when they can. Such a log is not to be read (watched-log.ts). */
  readonly contradiction?: string | null;
}

/**
 * Why the stream is not the log that was made at `created` and of which `last` was read last (null: nothing), or
 * null when it is. `found` is the mark of what stands at that sequence now, null for nothing.
 *
 * @param behind where nothing was read yet, the sequence behind which reading begins. There was nothing up to there, so
 * whatever is there now came back, and nobody has looked at it.
 */
export function logDifference(
  created: string,
  last: LogMark | null,
  stream: StreamFacts,
  found: LogMark | null,
  behind = 0,
): string | null {
  const { name, firstSequence, lastSequence } = stream;
  if (stream.created !== created) {
    return `${name} was created ${stream.created}, not ${created}: it is another stream`;
  }
  if (last === null) {
    if (behind === 0 || firstSequence > behind) return null;
    return `${name} starts at ${firstSequence}, but nothing was there up to ${behind} when it was to be read from there on`;
  }
  const { sequence } = last;
  if (lastSequence < sequence)
    return `${name} ends at ${lastSequence}, but was read up to ${sequence}: its end was lost`;
  if (found !== null)
    return sameMark(found, last)
      ? null
      : `${name} has another message at ${sequence} than the one that was read`;
  // What was read may be purged.
  return firstSequence > sequence ? null : `${name} has no message at ${sequence} any more`;
}

export interface StoredMessage extends LogMark {
  readonly message: Uint8Array;
}

/** Asks the log, and compares. */
export async function findDifference(
  log: ShardLog,
  created: string,
  last: LogMark | null,
  behind = 0,
): Promise<string | null> {
  const stream = await log.facts();
  const found = last === null ? null : await log.messageAt(last.sequence);
  return logDifference(created, last, stream, found, behind);
}
