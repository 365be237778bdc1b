/** Step 0: what a shard starts from. See consume.ts for the protocol. */
import { streamName } from '../contract/subjects.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { jetStreamCode, type NatsLink } from '../runtime/nats.ts';
import type { DedupeIndex } from './dedupe-index.ts';
import type { MeterRegistry } from './registry.ts';
import { RollupCache } from './rollup-cache.ts';
import { loadCountedTo, loadIndex, loadLastHour, loadRegistry, loadTally, loadWatermark } from './store.ts';
import type { Tally } from './tally.ts';
import {
  fingerprintOf,
  incarnationMismatch,
  IncarnationMismatchError,
  type StreamFacts,
  type Watermark,
} from './watermark.ts';

/** The first incarnation of a log. */
const FIRST = 1;

export interface Recovered {
  readonly incarnation: number;
  /** When the stream was created, as NATS says it. */
  readonly streamCreated: string;
  readonly registry: MeterRegistry;
  readonly tally: Tally;
  readonly index: DedupeIndex;
  readonly rollups: RollupCache;
  /** The newest durable one; null while nothing is. */
  watermark: Watermark | null;
}

/** @throws IncarnationMismatchError when the stream is not the log that was counted. */
export async function recover(
  ch: ClickHouse,
  link: NatsLink,
  shard: number,
  limits: { readonly dedupeKeysMax: number; readonly rollupRowsMax: number },
): Promise<Recovered> {
  const watermark = await loadWatermark(ch, shard);
  const countedTo = await loadCountedTo(ch, shard);
  const stream = await streamFacts(link, shard, watermark);
  const mismatch = incarnationMismatch(watermark, countedTo, stream);
  if (mismatch !== null) throw new IncarnationMismatchError(mismatch);
  const incarnation = watermark?.incarnation ?? FIRST;
  return {
    incarnation,
    streamCreated: stream.created,
    watermark,
    registry: await loadRegistry(ch, shard, watermark),
    tally: await loadTally(ch, shard, incarnation),
    index: await loadIndex(ch, shard, incarnation, limits.dedupeKeysMax),
    rollups: new RollupCache(limits.rollupRowsMax, await loadLastHour(ch, shard)),
  };
}

const NO_MESSAGE_FOUND = 10_037;

async function streamFacts(link: NatsLink, shard: number, watermark: Watermark | null): Promise<StreamFacts> {
  const name = streamName(shard);
  const { created, state } = await link.jsm.streams.info(name);
  const facts = {
    name,
    created: String(created),
    firstSequence: state.first_seq,
    lastSequence: state.last_seq,
    fingerprint: null,
  };
  if (watermark === null) return facts;
  const { sequence } = watermark;
  if (sequence < state.first_seq || sequence > state.last_seq) return facts;
  try {
    const message = await link.jsm.streams.getMessage(name, { seq: sequence });
    return { ...facts, fingerprint: fingerprintOf(message.data) };
  } catch (error) {
    if (jetStreamCode(error) === NO_MESSAGE_FOUND) return facts;
    throw error;
  }
}
