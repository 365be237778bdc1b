/**
 * How far a shard's log is durably counted, and which log that was.
 *
 * A stream-sequence alone is not enough. A broker that lost the end of its log gives the same sequences to
 * other messages, and a stream that was made anew starts at 1: going on from a bare number would skip real
 * events in silence. So the watermark also keeps when the stream was created and the SHA-256 of its last
 * message, and every message has a mark (log-mark.ts); these are compared before anything is read, and again
 * after every new beginning of reading.
 */
import { createHash } from 'node:crypto';
import { logDifference, type LogMark, type StreamFacts } from './log-mark.ts';

export interface Watermark {
  readonly incarnation: number;
  readonly sequence: number;
  /** When the stream was created, as NATS says it. */
  readonly streamCreated: string;
  /** SHA-256 of the message at `sequence`, hexadecimal; '' when there was none. */
  readonly fingerprint: string;
  /** When the newest block behind it was accepted at the edge, epoch milliseconds; 0 before the first. */
  readonly acceptedAtMs: number;
}

export function fingerprintOf(message: Uint8Array): string {
  return createHash('sha256').update(message).digest('hex');
}

/** What the tables know of a log. */
export interface CountedLog {
  readonly watermark: Watermark;
  /** The newest mark of the watermark's incarnation, at the watermark or ahead of it by what was being flushed. */
  readonly newest: LogMark | null;
  /** The last sequence that any table speaks of. */
  readonly countedTo: number;
  /** The sequence behind which the incarnation began. */
  readonly beganBehind: number;
}

/** What the broker has of it. */
export interface PresentLog extends StreamFacts {
  readonly atNewest: LogMark | null;
  /** Of the message at the watermark's sequence; null when there is none. */
  readonly fingerprintAtWatermark: string | null;
  /** Whether there is a message behind the watermark, at the very next sequence. */
  readonly hasNext: boolean;
}

/** Why the stream is not the log that the tables were counted from, or has lost a part of it; null when it is whole. */
export function lossOf(counted: CountedLog, stream: PresentLog): string | null {
  const { watermark, newest, countedTo, beganBehind } = counted;
  const { name, firstSequence, lastSequence } = stream;
  const { sequence } = watermark;
  const difference = logDifference(watermark.streamCreated, newest, stream, stream.atNewest);
  if (difference !== null) return difference;
  const until = Math.max(countedTo, sequence);
  if (lastSequence < until)
    return `${name} ends at ${lastSequence}, but was counted up to ${until}: its end was lost`;
  const found = stream.fingerprintAtWatermark;
  if (found !== null && found !== watermark.fingerprint)
    return `${name} has another message at ${sequence} than the one that was counted`;
  // Where nothing was at the watermark, nothing was in front of it either.
  if (found === null && sequence > 0 && firstSequence <= sequence)
    return `${name} has no message at ${sequence}, but starts at ${firstSequence}`;
  // An incarnation may begin before a hole: that loss was told when it began.
  if (sequence === beganBehind) return null;
  if (firstSequence > sequence + 1)
    return `${name} starts at ${firstSequence}, but was counted only up to ${sequence}`;
  if (lastSequence > sequence && !stream.hasNext)
    return `${name} has no message at ${sequence + 1}, but ends at ${lastSequence}: messages are missing`;
  return null;
}

/** Thrown when going on would be wrong whatever is done: a person has to look. */
export class IncarnationError extends Error {
  override readonly name = 'IncarnationError';
  constructor(what: string) {
    super(`incarnation mismatch: ${what}. Counting stops; keep the stream and the tables as they are.`);
  }
}

/** Which messages may be purged: those behind the watermark by more than the margin. 0 means none. */
export function purgeBefore(
  stream: { readonly bytes: number; readonly bytesMax: number; readonly messages: number },
  watermarkSequence: number,
  keepBytes: number,
): number {
  if (stream.bytesMax <= 0 || stream.messages === 0 || stream.bytes * 2 <= stream.bytesMax) return 0;
  // A margin that the stream cannot hold would never let it be purged, and it would fill up and refuse.
  const margin = Math.min(keepBytes, stream.bytesMax / 4);
  // The message at the watermark stays in any case: it says which log this is.
  const keep = Math.max(1, Math.ceil(margin / (stream.bytes / stream.messages)));
  return Math.max(0, watermarkSequence + 1 - keep);
}
