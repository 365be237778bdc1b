/**
 * How far a shard's log is durably counted, and which log that was.
 *
 * A stream-sequence alone is not enough. A broker that lost the end of its log gives the same sequences to
 * other messages, and a stream that was made anew starts at 1: going on from a bare number would skip real
 * events in silence. So the watermark also keeps when the stream was created and the SHA-256 of its last
 * message, and both are compared before anything is read.
 */
import { createHash } from 'node:crypto';

export interface Watermark {
  readonly incarnation: number;
  readonly sequence: number;
  /** When the stream was created, as NATS says it. */
  readonly streamCreated: string;
  /** SHA-256 of the message at `sequence`, hexadecimal. */
  readonly fingerprint: string;
  /** When the newest block behind it was accepted at the edge, epoch milliseconds; 0 before the first. */
  readonly acceptedAtMs: number;
}

/** What the broker says of the stream now. */
export interface StreamFacts {
  readonly name: string;
  readonly created: string;
  readonly firstSequence: number;
  readonly lastSequence: number;
  /** Fingerprint of the message at the watermark; null when it is not there any more. */
  readonly fingerprint: string | null;
}

export function fingerprintOf(message: Uint8Array): string {
  return createHash('sha256').update(message).digest('hex');
}

/**
 * Why the stream is not the log that the tables were counted from, or null when it is. `countedTo` is the last
 * sequence that any table of the shard speaks of; it can be ahead of the watermark by one flush.
 */
export function incarnationMismatch(
  watermark: Watermark | null,
  countedTo: number,
  stream: StreamFacts,
): string | null {
  if (stream.lastSequence < countedTo) {
    return `${stream.name} ends at ${stream.lastSequence}, but was counted up to ${countedTo}: its end was lost`;
  }
  if (watermark === null) {
    if (stream.firstSequence <= 1) return null;
    return `${stream.name} starts at ${stream.firstSequence}, but nothing of it was counted: its start is gone`;
  }
  if (stream.created !== watermark.streamCreated) {
    return `${stream.name} was created ${stream.created}, not ${watermark.streamCreated}: it is another stream`;
  }
  if (stream.fingerprint !== null && stream.fingerprint !== watermark.fingerprint) {
    return `${stream.name} has another message at ${watermark.sequence} than the one that was counted`;
  }
  if (stream.firstSequence > watermark.sequence + 1) {
    return `${stream.name} starts at ${stream.firstSequence}, but was counted only up to ${watermark.sequence}`;
  }
  return null;
}

export class IncarnationMismatchError extends Error {
  override readonly name = 'IncarnationMismatchError';
  constructor(what: string) {
    super(
      `incarnation mismatch: ${what}. Counting stops, because going on could skip or repeat events. ` +
        'Nothing that was counted is lost; keep the stream and the tables as they are.',
    );
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
  const keep = Math.ceil(margin / (stream.bytes / stream.messages));
  return Math.max(0, watermarkSequence + 1 - keep);
}
