// What the dedupe index costs: memory a key, nanoseconds a look, false answers of the filters, and how fast a start
// builds it from a real ClickHouse. Identities are random words, as those of a keyed hash are, made again from the seed
// whenever they are needed, so that a hundred million of them take no memory of their own.
import { DedupeIndex } from '../aggregator/dedupe/index.ts';
import { lookUpIdentities } from '../aggregator/dedupe/look-up.ts';
import { loadIndex } from '../aggregator/dedupe/rebuild.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { migrateClickHouse } from '../runtime/migrate.ts';
import { startEngines } from '../test/engines.ts';
import { benchDedupeKinds, type DedupeKind } from './dedupe-kinds.ts';
import { RandomWords } from './random-words.ts';

export interface DedupeFigure {
  readonly keys: number;
  /** Of these keys kept exactly; the others are in filters. */
  readonly hotKeys: number;
  readonly hotBytesPerKey: number;
  readonly coldBytesPerKey: number;
  readonly filters: number;
  /** Entering a key and moving an older one on, from first to last. */
  readonly putNs: number;
  /** The longest single turn between two blocks of 2,000 events, milliseconds. */
  readonly rotateMsMax: number;
  /** Deciding that an identity is new: filters, then the hot tier. */
  readonly missNs: number;
  /** Finding one that is kept exactly, and comparing its payload. */
  readonly duplicateNs: number;
  /** Finding that one which is not kept has to be asked for. */
  readonly coldHitNs: number;
  /** New identities that ClickHouse is asked for nevertheless. */
  readonly falseShare: number;
}

export interface RebuildFigure {
  readonly keys: number;
  readonly hotKeys: number;
  readonly keysPerSecond: number;
}

export interface LookUpFigure {
  readonly rows: number;
  readonly identities: number;
  readonly p50Ms: number;
}

export interface DedupeBench {
  readonly kinds: readonly DedupeKind[];
  readonly figures: readonly DedupeFigure[];
  readonly rebuilds: readonly RebuildFigure[];
  readonly lookUps: readonly LookUpFigure[];
}

const BLOCK_EVENTS = 2_000;
const PROBES = 1_000_000;
const HASH = Uint32Array.of(1, 2);
const SEED = 1;
const OTHER_SEED = 2;

export async function benchDedupe(o: {
  keys: number;
  rebuildKeys: number;
  onProgress: (text: string) => void;
}): Promise<DedupeBench> {
  const sizes = [...new Set([1_000_000, 10_000_000, 100_000_000, o.keys])]
    .filter((size) => size <= o.keys)
    .sort((a, b) => a - b);
  const kinds: DedupeKind[] = [];
  // Beyond, the reference alone takes more memory than an ordinary machine has.
  for (const size of [1_000_000, 10_000_000, 50_000_000].filter((one) => one <= o.keys)) {
    o.onProgress(`${size.toLocaleString('en-US')} keys, decided`);
    kinds.push(...benchDedupeKinds(size));
  }
  const figures: DedupeFigure[] = [];
  for (const size of sizes) {
    // All in the hot tier as far as an ordinary machine has room for it, and a tenth.
    for (const hot of size <= 20_000_000 ? [size * 2, size / 10] : [size / 10]) {
      o.onProgress(`${size.toLocaleString('en-US')} keys, bound ${hot.toLocaleString('en-US')}`);
      figures.push(measureIndex(size, hot));
    }
  }
  const { rebuilds, lookUps } = await measureRebuild(o.rebuildKeys, o.onProgress);
  return { kinds, figures, rebuilds, lookUps };
}

/** `keysMax` of the keys are kept exactly at most. */
export function measureIndex(keys: number, keysMax: number): DedupeFigure {
  const index = new DedupeIndex(keysMax, 0, 4 * 1024 ** 3);
  const words = new Uint32Array(BLOCK_EVENTS * 4);
  const random = new RandomWords(SEED);
  let putMs = 0;
  let rotateMsMax = 0;
  for (let key = 0; key < keys; key += BLOCK_EVENTS) {
    const count = Math.min(BLOCK_EVENTS, keys - key);
    for (let at = 0; at < count; at++) random.identity(words, at * 4);
    const began = performance.now();
    for (let at = 0; at < count; at++) index.put(words, at * 4, key + at, HASH, 0);
    const put = performance.now();
    index.rotate(key + count);
    const rotated = performance.now();
    putMs += rotated - began;
    rotateMsMax = Math.max(rotateMsMax, rotated - put);
  }
  const probes = sample(keys);
  const known = Uint8Array.from({ length: probes.length / 4 }, (_, at) =>
    index.look(probes, at * 4) < 0 ? 0 : 1,
  );
  const hot = only(probes, known, 1);
  const cold = only(probes, known, 0);
  const others = new RandomWords(OTHER_SEED).some(PROBES);
  let falsely = 0;
  const missNs = timed(others, (at) => {
    if (index.unknown(others, at)) falsely += 1;
    else index.look(others, at);
  });
  const duplicateNs = timed(hot, (at) => {
    index.look(hot, at);
    index.samePayload(HASH, 0);
  });
  let denied = 0;
  const coldHitNs = timed(cold, (at) => {
    if (!index.unknown(cold, at)) denied += 1;
  });
  if (denied > 0) throw new Error(`${denied} identities were denied that had been counted`);
  return {
    keys,
    hotKeys: index.size,
    hotBytesPerKey: index.bytes / index.size,
    coldBytesPerKey: index.complete ? 0 : index.cold.bytes / index.cold.size,
    filters: index.cold.filters,
    putNs: (putMs * 1e6) / keys,
    rotateMsMax,
    missNs,
    duplicateNs,
    coldHitNs,
    falseShare: falsely / PROBES,
  };
}

/** Every so many-th of the keys, in no order that memory knows: by turns from all ages. */
function sample(keys: number): Uint32Array {
  const every = Math.max(1, Math.floor(keys / PROBES));
  const count = Math.floor(keys / every);
  const words = new Uint32Array(count * 4);
  const random = new RandomWords(SEED);
  const key = new Uint32Array(4);
  // A stride that visits each place once, because the count is no multiple of it.
  const stride = count % 7_919 === 0 ? 7_907 : 7_919;
  for (let at = 0, place = 0; at < count; at++, place = (place + stride) % count) {
    for (let skipped = 0; skipped < every; skipped++) random.identity(key, 0);
    words.set(key, place * 4);
  }
  return words;
}

function only(words: Uint32Array, known: Uint8Array, wanted: number): Uint32Array {
  const found: number[] = [];
  known.forEach((one, at) => {
    if (one === wanted) found.push(at);
  });
  const chosen = new Uint32Array(found.length * 4);
  found.forEach((at, place) => chosen.set(words.subarray(at * 4, at * 4 + 4), place * 4));
  return chosen;
}

function timed(words: Uint32Array, look: (at: number) => void): number {
  if (words.length === 0) return 0;
  const began = performance.now();
  for (let at = 0; at < words.length; at += 4) look(at);
  return ((performance.now() - began) * 1e6) / (words.length / 4);
}

/** A table of events as they are stored: an hour's events by customer, each with an identity of its own. */
export async function withTables<T>(work: (ch: ClickHouse) => Promise<T>): Promise<T> {
  const engines = await startEngines({ clickhouse: true });
  const ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'bench', requestTimeoutMs: 600_000 });
  try {
    const directory = new URL('../aggregator/schema/', import.meta.url);
    await migrateClickHouse(ch, { directory, component: 'aggregator' });
    await ch.command('ALTER TABLE events MODIFY SETTING fsync_after_insert = 0, fsync_part_directory = 0');
    return await work(ch);
  } finally {
    await ch.close();
    await engines.stop();
  }
}

const INSERT_ROWS = 500_000;

async function measureRebuild(
  keys: number,
  onProgress: (text: string) => void,
): Promise<Pick<DedupeBench, 'rebuilds' | 'lookUps'>> {
  return withTables(async (ch) => {
    onProgress(`${keys.toLocaleString('en-US')} rows of events`);
    for (let from = 0; from < keys; from += INSERT_ROWS)
      await insertEvents(ch, from, Math.min(INSERT_ROWS, keys - from));
    const rebuilds: RebuildFigure[] = [];
    for (const keysMax of [keys * 2, Math.ceil(keys / 10)]) {
      onProgress(`rebuild, bound ${keysMax.toLocaleString('en-US')}`);
      const began = performance.now();
      const index = await loadIndex(ch, 0, 1, keysMax, 1024 ** 3);
      const seconds = (performance.now() - began) / 1_000;
      if (index.size + index.cold.size < keys * 0.99) throw new Error('the index was not rebuilt wholly');
      rebuilds.push({ keys, hotKeys: index.size, keysPerSecond: keys / seconds });
    }
    const lookUps: LookUpFigure[] = [];
    for (const identities of [10, 100, 1_000]) {
      const words = new RandomWords(OTHER_SEED).some(identities);
      const events = Array.from({ length: identities }, (_, at) => at);
      const took: number[] = [];
      for (let turn = 0; turn < 7; turn++) {
        const began = performance.now();
        await lookUpIdentities(ch, 0, 1, words, events, new DedupeIndex(10_000));
        took.push(performance.now() - began);
      }
      lookUps.push({ rows: keys, identities, p50Ms: took.sort((a, b) => a - b)[3]! });
    }
    return { rebuilds, lookUps };
  });
}

async function insertEvents(ch: ClickHouse, from: number, rows: number): Promise<void> {
  await ch.command(
    `INSERT INTO events (tenant, hour, type, subject, time, identity, source, id_text, data_paths, data_values, payload_hash, accepted_at, shard,
       position)
     SELECT 'acme', toStartOfHour(at), 'llm', concat('customer-', toString(n % 1000)), at,
       reinterpretAsUUID(unhex(concat(hex(sipHash64(n, 1)), hex(sipHash64(n, 2))))), '', toString(n),
       'tokens\\xFFmodel\\xFF', concat(toString(n % 5000), '\\xFFm1\\xFF'), sipHash64(n, 3), at, 0,
       bitShiftLeft(toUInt64(1), 56) + bitShiftLeft(intDiv(n, 2000) + 1, 16) + n % 2000
     FROM (SELECT number + {from:UInt64} AS n, toDateTime64(1761955200 + n / 10000, 3, 'UTC') AS at FROM numbers({rows:UInt64}))
     SETTINGS optimize_on_insert = 0, async_insert = 0, max_partitions_per_insert_block = 0`,
    { from, rows },
  );
}
