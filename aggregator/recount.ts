/**
 * What has to be made anew from raw rows because a message of the log changed what earlier events add: a correction
 * takes one out, a backfill counts those of some hours in another way.
 *
 * Adding cannot do it. So the rows that are concerned are not folded but *recounted*: made from raw rows, as they hold
 * at the end of the flush. What makes that exact, whatever crashes: every stored row is just what raw rows say as of
 * the row's own position. A folded row is, because no flush writes one in a scope that it recounts (flush-recount.ts leaves
 * them out). A recounted one is, because its position is that of the last thing that happened to it up to then. So of
 * two versions of a row the one with the higher position is the later truth, and it does not matter which flush of
 * which owner wrote it, or where that flush ended.
 */

/** Corrections of a shard at positions above `behind`, up to and with `until`. */
export interface CorrectionRange {
  readonly shard: number;
  readonly behind: bigint;
  readonly until: bigint;
  /** None of the originals stands at a smaller position; 0 when that is not known. */
  readonly originalsFrom: bigint;
}

/** Of which rows everything is made anew. */
export type RecountScope =
  /** All rows of the hours and subjects from which corrections of the range retire something. */
  | { readonly kind: 'corrections'; readonly range: CorrectionRange }
  /** All rows of a meter in some hours, epoch seconds, half-open. */
  | {
      readonly kind: 'meter';
      readonly shard: number;
      readonly tenant: string;
      readonly meter: string;
      readonly fromSeconds: number;
      readonly toSeconds: number;
    }
  /** All rows of the hours and subjects with anything behind the watermark of an incarnation that ends. */
  | { readonly kind: 'unfinished'; readonly range: CorrectionRange };

export function shardOf(scope: RecountScope): number {
  return scope.kind === 'meter' ? scope.shard : scope.range.shard;
}

export interface Recount {
  readonly scope: RecountScope;
  /** As of this position of the shard. */
  readonly until: bigint;
  /**
   * Hours of meters (`MeterHour.text`) that are known to have more groups than rows of their own, besides those of which
   * the table has an overflow row: one that began to overflow in this flush may not be written yet.
   */
  readonly overflowing: readonly string[];
}

/** An hour of a subject. */
export interface SubjectHour {
  readonly tenant: string;
  readonly subject: string;
  readonly hourSeconds: number;
}

/** What a decided message asks for behind it; how a flush goes on with it stands in flush-steps.ts. */
export type RecountNeeded =
  /** Counted corrections, of originals at or above this position in the shard (EARLIER: of an earlier incarnation). */
  | { readonly kind: 'corrections'; readonly oldestOriginal: number }
  | {
      readonly kind: 'meter';
      readonly tenant: string;
      readonly meter: string;
      readonly fromSeconds: number;
      readonly toSeconds: number;
    };
