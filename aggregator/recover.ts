/** Step 0: what a shard starts from. See consume.ts for the protocol. */
import type { DedupeIndex } from './dedupe/index.ts';
import { findStanding, type IncarnationOptions } from './incarnation.ts';
import type { LogMark } from './log-mark.ts';
import type { Loss } from './loss.ts';
import type { PassedOver } from './passed-over.ts';
import type { MeterRegistry } from './registry.ts';
import { RollupCache } from './rollup-cache.ts';
import type { Tally } from './tally.ts';
import type { Watermark } from './watermark.ts';

export interface Recovered {
  readonly incarnation: number;
  /** When the stream was created, as NATS says it. */
  readonly streamCreated: string;
  /** The sequence behind which the incarnation began. */
  readonly beganBehind: number;
  /** Up to where the log may have a hole behind the watermark. */
  readonly holeUntil: number;
  /** The holes that were passed over. */
  readonly passedOver: PassedOver;
  /** The newest message that the tables speak of, at the watermark or ahead of it; null when there is none. */
  last: LogMark | null;
  readonly registry: MeterRegistry;
  readonly tally: Tally;
  readonly index: DedupeIndex;
  readonly rollups: RollupCache;
  /** The newest durable one. */
  watermark: Watermark;
}

export interface RecoverOptions extends IncarnationOptions {
  readonly dedupeKeysMax: number;
  readonly dedupeFilterBytesMax?: number;
  readonly rollupRowsMax: number;
  /** Of the workers that prepare its blocks. */
  readonly bucketKey: string;
  /** Called when a new incarnation has begun. */
  onLoss(loss: Loss): void;
}

/** @throws IncarnationError when nothing that could be done would be right. */
export async function recover(o: RecoverOptions): Promise<Recovered> {
  const { tables, shard } = o;
  const { watermark, beganBehind, last, holeUntil, passedOver, loss } = await findStanding(o);
  if (loss !== null) o.onLoss(loss);
  const { incarnation, streamCreated } = watermark;
  return {
    incarnation,
    streamCreated,
    beganBehind,
    holeUntil,
    passedOver,
    last,
    watermark,
    registry: await tables.loadRegistry(shard, watermark),
    tally: await tables.loadTally(shard, incarnation),
    index: await tables.loadIndex(shard, incarnation, o.dedupeKeysMax, o.dedupeFilterBytesMax),
    rollups: new RollupCache(o.rollupRowsMax, await tables.loadLastHour(shard), o.bucketKey),
  };
}
