/** The flush notice: a shard's watermark moved to a position. JSON; the ledger polls anyway, so a lost one only delays. */
export interface FlushNotice {
  readonly shard: number;
  /** Packed position as decimal text. */
  readonly position: string;
}
