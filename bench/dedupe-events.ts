// Exactness at length: a log of events with duplicates from a minute to 40 days apart in the log's time, decided by the
// real index and verdicts, with raw rows written to and asked for in a real ClickHouse, and memory for a part of the
// identities. What must come of it is known beforehand: each identity is counted once, at its first position.
//
// The path is that of consume.ts from a prepared block on (asking for blocks together, deciding, rotating behind the
// watermark), without NATS, workers and rollups; test/dedupe.test.ts goes the whole way with fewer events.
import { DedupeIndex } from '../aggregator/dedupe/index.ts';
import { lookUpIdentities } from '../aggregator/dedupe/look-up.ts';
import { loadIndex } from '../aggregator/dedupe/rebuild.ts';
import { encodeNative, fixedColumn, positionColumn, putIdentity, wholeColumn } from '../aggregator/native.ts';
import { positionInShard } from '../aggregator/position-in-shard.ts';
import { CONFLICT, COUNTED, decideBlock, DUPLICATE, unknownIn } from '../aggregator/verdict.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { withTables } from './dedupe.ts';
import { RandomWords } from './random-words.ts';

export interface DedupeEvents {
  readonly events: number;
  readonly repeated: number;
  readonly keysMax: number;
  /** The most identities that were kept exactly at any time, and the bytes of both tiers. */
  readonly keysLargest: number;
  readonly bytesLargest: number;
  readonly lookUps: number;
  readonly asked: number;
  readonly found: number;
  readonly seconds: number;
  /** Empty when every total is exact. */
  readonly wrong: readonly string[];
}

const BLOCK_EVENTS = 2_000;
/** Blocks asked for together, as the consumer does when it reads a log that is filled. */
const GROUP_BLOCKS = 16;
const FLUSH_BLOCKS = 100;
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const SPAN_MS = 45 * DAY_MS;
const START_MS = Date.UTC(2026, 8, 1);
const INSERT = { async_insert: 0, optimize_on_insert: 0, max_partitions_per_insert_block: 0 };
const COLUMNS = ['identity', 'payload_hash', 'shard', 'position', 'time', 'hour'];

interface Block {
  readonly count: number;
  readonly identity: Uint32Array;
  readonly payloadHash: Uint32Array;
}

export async function benchDedupeEvents(o: {
  events: number;
  keysMax: number;
  onProgress: (text: string) => void;
}): Promise<DedupeEvents> {
  return withTables((ch) => run(ch, o));
}

async function run(
  ch: ClickHouse,
  { events, keysMax, onProgress }: Parameters<typeof benchDedupeEvents>[0],
): Promise<DedupeEvents> {
  // Every identity of the log, four words each; a duplicate's place names the event that it repeats.
  const random = new RandomWords(3);
  const first = new Uint32Array(events);
  const words = new Uint32Array(events * 4);
  let repeated = 0;
  let conflicts = 0;
  for (let at = 0; at < events; at++) {
    const apartMs = MINUTE_MS * ((40 * DAY_MS) / MINUTE_MS) ** (random.word() / 2 ** 32);
    const earlier = Math.floor(at - (apartMs / SPAN_MS) * events);
    if (random.word() % 20 === 0 && earlier >= 0 && earlier < at) {
      first[at] = first[earlier]!;
      words.copyWithin(at * 4, first[at]! * 4, first[at]! * 4 + 4);
      repeated += 1;
      if (at % 4 !== 0) conflicts += 1;
    } else {
      first[at] = at;
      random.identity(words, at * 4);
    }
  }

  let index = new DedupeIndex(keysMax);
  const verdicts = [0, 0, 0, 0, 0];
  const wrong: string[] = [];
  let [lookUps, asked, found, keysLargest, bytesLargest, durable, lastToldMs] = [0, 0, 0, 0, 0, 0, 0];
  let pending: { block: Block; sequence: number; verdicts: Uint8Array }[] = [];
  const blocks = Math.ceil(events / BLOCK_EVENTS);
  const began = performance.now();
  for (let block = 0; block < blocks; block += GROUP_BLOCKS) {
    const group = Array.from({ length: Math.min(GROUP_BLOCKS, blocks - block) }, (_, at) =>
      blockOf(words, first, block + at),
    );
    const unknown: number[] = [];
    for (const one of group) {
      for (const at of unknownIn(index, one)) unknown.push(...one.identity.subarray(at * 4, at * 4 + 4));
    }
    if (unknown.length > 0) {
      const before = index.size;
      const places = Array.from({ length: unknown.length / 4 }, (_, at) => at);
      await lookUpIdentities(ch, 0, 1, Uint32Array.from(unknown), places, index);
      lookUps += 1;
      asked += places.length;
      found += index.size - before;
    }
    group.forEach((one, at) => {
      const sequence = block + at + 1;
      const decided = decideBlock(index, one, new Uint8Array(one.count), sequence);
      for (let event = 0; event < one.count; event++) {
        const log = (sequence - 1) * BLOCK_EVENTS + event;
        verdicts[decided[event]!]! += 1;
        const expected = first[log] === log ? COUNTED : log % 4 === 0 ? DUPLICATE : CONFLICT;
        if (decided[event] !== expected && wrong.length < 10)
          wrong.push(`event ${log}: decided ${decided[event]}, expected ${expected}`);
      }
      pending.push({ block: one, sequence, verdicts: decided });
    });
    keysLargest = Math.max(keysLargest, index.size);
    bytesLargest = Math.max(bytesLargest, index.bytes + index.cold.bytes);
    index.rotate(positionInShard(durable + 1, 0) - 1);
    if (pending.length < FLUSH_BLOCKS && block + GROUP_BLOCKS < blocks) continue;
    await insert(ch, pending, events);
    durable = pending.at(-1)!.sequence;
    pending = [];
    // Half-way everything in memory is forgotten and built again from the tables.
    const half = blocks / 2;
    if (block < half && block + FLUSH_BLOCKS >= half) index = await loadIndex(ch, 0, 1, keysMax, undefined);
    if (performance.now() - lastToldMs < 5_000) continue;
    lastToldMs = performance.now();
    onProgress(
      `${(durable * BLOCK_EVENTS).toLocaleString('en-US')} events, ${asked.toLocaleString('en-US')} asked for`,
    );
  }
  const seconds = (performance.now() - began) / 1_000;

  const [rows] = await ch.rows<{ rows: string; identities: string; wrongly: string }>(
    `SELECT count() AS rows, uniqExact(identity) AS identities,
       sum(payload_hash) AS wrongly FROM events FINAL`,
  );
  const expect = (what: string, value: number, expected: number): void => {
    if (value !== expected) wrong.push(`${what}: ${value}, expected ${expected}`);
  };
  expect('raw rows', Number(rows!.rows), events - repeated);
  expect('identities', Number(rows!.identities), events - repeated);
  expect('payloads other than the first', Number(rows!.wrongly), 0);
  expect('counted', verdicts[COUNTED]!, events - repeated);
  expect('duplicates', verdicts[DUPLICATE]!, repeated - conflicts);
  expect('conflicts', verdicts[CONFLICT]!, conflicts);
  return { events, repeated, keysMax, keysLargest, bytesLargest, lookUps, asked, found, seconds, wrong };
}

/** The first of an identity has the payload hash 0; three of four that repeat it another. */
function blockOf(words: Uint32Array, first: Uint32Array, block: number): Block {
  const from = block * BLOCK_EVENTS;
  const count = Math.min(BLOCK_EVENTS, first.length - from);
  const payloadHash = new Uint32Array(count * 2);
  for (let at = 0; at < count; at++) {
    const log = from + at;
    if (first[log] !== log && log % 4 !== 0) payloadHash[at * 2] = 1;
  }
  return { count, identity: words.subarray(from * 4, (from + count) * 4), payloadHash };
}

async function insert(
  ch: ClickHouse,
  blocks: readonly { block: Block; sequence: number; verdicts: Uint8Array }[],
  events: number,
): Promise<void> {
  let rows = 0;
  for (const { verdicts } of blocks) for (const verdict of verdicts) if (verdict === COUNTED) rows += 1;
  const identity = new Uint32Array(rows * 4);
  const positions = new Float64Array(rows);
  const times = new Float64Array(rows);
  const hours = new Uint32Array(rows);
  let row = 0;
  for (const { block, sequence, verdicts } of blocks) {
    for (let at = 0; at < block.count; at++) {
      if (verdicts[at] !== COUNTED) continue;
      putIdentity(identity, row, block.identity, at * 4);
      positions[row] = positionInShard(sequence, at);
      times[row] = START_MS + Math.floor((((sequence - 1) * BLOCK_EVENTS + at) / events) * SPAN_MS);
      hours[row] = Math.floor(times[row]! / 3_600_000) * 3_600;
      row += 1;
    }
  }
  if (rows === 0) return;
  const body = encodeNative(rows, [
    fixedColumn('identity', 'UUID', identity),
    fixedColumn('payload_hash', 'UInt64', new Uint32Array(rows * 2)),
    fixedColumn('shard', 'UInt16', new Uint16Array(rows)),
    positionColumn('position', new Uint8Array(rows).fill(1), positions),
    wholeColumn('time', "DateTime64(3, 'UTC')", times),
    fixedColumn('hour', "DateTime('UTC')", hours),
  ]);
  await ch.insertNative('events', COLUMNS, body, rows, INSERT);
}
