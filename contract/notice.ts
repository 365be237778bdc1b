import { parseObject } from './record.ts';

/** The flush notice: a shard's watermark moved to a position. JSON; the ledger polls anyway, so a lost one only delays. */
export interface FlushNotice {
  readonly shard: number;
  /** Packed position as decimal text. */
  readonly position: string;
}

/**
 * An entry of the bucket of watermarks, JSON under the shard's number: the log of the shard is durably counted
 * up to `sequence`. The bucket lives in the same NATS as the log and can lie as the log can (a storage cut back
 * to an earlier state), so whoever acts on it compares the fingerprint with the message in the log.
 */
export interface WatermarkRecord {
  readonly shard: number;
  readonly incarnation: number;
  readonly sequence: number;
  /**
   * SHA-256 of the message at `sequence`, lower-case hexadecimal. '' where there is none: an incarnation that has read
   * nothing yet began at the start of its log, which may be purged, so `sequence` need not be 0.
   */
  readonly fingerprint: string;
}

/** Null when it is not sound. */
export function parseWatermarkRecord(text: string): WatermarkRecord | null {
  const value = parseObject(text);
  if (value === null) return null;
  const { shard, incarnation, sequence, fingerprint } = value as Partial<
    Record<keyof WatermarkRecord, unknown>
  >;
  if (!isCount(shard) || !isCount(incarnation) || !isCount(sequence)) return null;
  if (typeof fingerprint !== 'string') return null;
  if (!/^([0-9a-f]{64})?$/.test(fingerprint)) return null;
  return { shard, incarnation, sequence, fingerprint };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
