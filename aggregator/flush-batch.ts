/** What a flush takes of each shard, and what it makes of it before it writes: values, and how they are counted. */
import { VERDICTS } from '../contract/verdicts.ts';
import type { Decided, ShardConsumer } from './consume.ts';
import type { RecountOfShard } from './flush-recount.ts';
import type { LogMark } from './log-mark.ts';
import type { BackfillAt, CountersOfShard, EncodedRows, MeterAt } from './ports.ts';
import { soundTime, type Encoded, type RawRows, type UnreadableMessage } from './raw-rows.ts';
import { fingerprintOf, type Watermark } from './watermark.ts';

/** Messages of one shard, in log order. */
export interface Batch {
  readonly consumer: ShardConsumer;
  readonly items: readonly Decided[];
}

export type EventsItem = Extract<Decided, { kind: 'events' }>;

/** What follows from the messages, besides the raw rows. */
export interface Derived {
  readonly rollups: EncodedRows[];
  readonly unreadable: UnreadableMessage[];
  readonly received: CountersOfShard[];
  readonly verdicts: CountersOfShard[];
  readonly meters: MeterAt[];
  readonly backfills: BackfillAt[];
  readonly recounts: RecountOfShard[];
  readonly watermarks: {
    consumer: ShardConsumer;
    shard: number;
    watermark: Watermark;
    /** The message at the watermark. */
    last: LogMark;
    bytes: number;
  }[];
}

export interface Gathered {
  readonly batches: readonly Batch[];
  readonly derived: Derived;
  readonly raw: readonly RawRows[];
}

export function nothingDerived(): Derived {
  return {
    rollups: [],
    unreadable: [],
    received: [],
    verdicts: [],
    meters: [],
    backfills: [],
    recounts: [],
    watermarks: [],
  };
}

/** As far as the bound of a flush goes, a message that holds no events is one. */
export function eventsOf(item: Decided): number {
  return item.kind === 'events' ? item.verdicts.length : 1;
}

export function eventsIn(items: readonly Decided[]): EventsItem[] {
  return items.filter((item) => item.kind === 'events');
}

export function rowsOf(parts: readonly EncodedRows[]): number {
  return parts.reduce((sum, { rows }) => sum + rows, 0);
}

export function withRows(parts: readonly Encoded[]): EncodedRows[] {
  return parts.flatMap(({ rows, body }) => (body === null ? [] : [{ rows, body }]));
}

export function countersOf(shards: readonly CountersOfShard[]): number {
  return shards.reduce((sum, { counters }) => sum + counters.length, 0);
}

/** Events by the number of their verdict. */
export function countsOf(batches: readonly Batch[]): number[] {
  const sums = VERDICTS.map(() => 0);
  for (const { items } of batches) {
    for (const item of items) {
      if (item.kind !== 'events') continue;
      for (let verdict = 0; verdict < sums.length; verdict++) sums[verdict]! += item.counts[verdict]!;
    }
  }
  return sums;
}

/** Lets the slots of all messages go: their blocks must not be read any more. */
export function releaseSlots(batches: readonly Batch[]): void {
  for (const { items } of batches) for (const { slot } of items) slot?.release();
}

/** Must run before the blocks' memory goes to the workers: it reads the last message. */
export function watermarkAfter(items: readonly Decided[], consumer: ShardConsumer): Watermark {
  const last = items.at(-1)!;
  const { incarnation, streamCreated } = consumer.state;
  for (const item of items) {
    if (item.kind !== 'events') continue;
    const acceptedMs = soundTime(item.prepared.acceptedAtMs);
    if (acceptedMs > consumer.newestAcceptedMs) consumer.newestAcceptedMs = acceptedMs;
  }
  return {
    incarnation,
    sequence: last.sequence,
    streamCreated,
    fingerprint: fingerprintOf(last.message),
    acceptedAtMs: consumer.newestAcceptedMs,
  };
}
