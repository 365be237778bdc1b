// `npm run bench -- aggregate`: what an event costs in the aggregator, from a filled log to a durable watermark,
// beside the two things that nobody can go below, all in one run:
//
//   bare read     the same log, read to its end, and nothing done with it
//   bare insert   the same rows, encoded beforehand, in inserts of the same size
//
// The clock of the aggregator runs from the moment it says that it is ready until the watermark of every shard is at
// the end of its log. Each table must then hold what was sent, or the run fails. The costs of the steps are measured
// on their own, one after the other, with the same blocks.
import { randomBytes } from 'node:crypto';
import { EventBatch } from '../contract/event-batch.ts';
import { encodeMeterDefined } from '../contract/control.ts';
import type { FlushNotice } from '../contract/notice.ts';
import { unpackPosition } from '../contract/position.ts';
import { FLUSH_NOTICE, streamName, streamSubject } from '../contract/subjects.ts';
import { DedupeIndex } from '../aggregator/dedupe/index.ts';
import { foldBlock } from '../aggregator/fold.ts';
import { Preparer } from '../aggregator/prepare.ts';
import { encodeRaw, EVENT_COLUMNS, type DecidedBlock } from '../aggregator/raw-rows.ts';
import { metersInForce } from '../aggregator/registry.ts';
import { encodeRollups, ROLLUP_COLUMNS } from '../aggregator/rollup-columns.ts';
import { RollupCache } from '../aggregator/rollup-cache.ts';
import { decideBlock } from '../aggregator/verdict.ts';
import { Admission } from '../ingest/read/admit.ts';
import { readBody } from '../ingest/read/body.ts';
import { Pack } from '../ingest/pack.ts';
import { MeterBook } from '../ingest/tenant/meters.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, ensureStream, PublishPipeline, readLog, type NatsLink } from '../runtime/nats.ts';
import { startEngines } from '../test/engines.ts';
import { cpuMs } from './cpu.ts';
import { bodyOf, METERS, TENANT } from './event.ts';
import { start } from './process.ts';

export interface AggregateStep {
  readonly step: string;
  /** CPU, that of collecting garbage included. */
  readonly nanosPerEvent: number;
}

export interface AggregateRate {
  readonly what: 'bare read' | 'bare insert' | 'aggregator';
  readonly seconds: number;
  readonly eventsPerSecond: number;
  /** By process, microseconds. */
  readonly cpuPerEventUs: Readonly<Record<'own' | 'nats' | 'clickhouse', number>>;
}

export interface AggregateBench {
  readonly events: number;
  readonly blocks: number;
  readonly blockBytesPerEvent: number;
  readonly rollupRows: number;
  readonly steps: readonly AggregateStep[];
  readonly rates: readonly AggregateRate[];
  /** The aggregator's rate to that of the slower of the two bare ones. */
  readonly ratioToSlower: number;
}

const SHARDS = 4;
const EVENTS_PER_BODY = 100;
const BLOCK = { blockEventsMax: 2_000, blockBytesMax: 92_160, lingerMs: 4 };
/** As the aggregator flushes at most. */
const FLUSH_EVENTS = 200_000;
const ENCODE_EVENTS = 50_000;
const READ_BYTES_MAX = 8 * 1024 ** 2;
const INSERT_SETTINGS = { async_insert: 0, optimize_on_insert: 0, max_partitions_per_insert_block: 0 };
const DEADLINE_MS = 600_000;

export async function benchAggregate(o: {
  events: number;
  subjects: number;
  onProgress: (text: string) => void;
}): Promise<AggregateBench> {
  const engines = await startEngines({ nats: true, clickhouse: true });
  const log = createLog('bench', 'silent');
  const link = await connectNats({ url: engines.natsUrl, name: 'bench', log });
  const ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'bench', requestTimeoutMs: DEADLINE_MS });
  const pids = { nats: engines.nats.engine().pid, clickhouse: engines.clickhouse.engine().pid };
  const run = startAggregator.bind(null, engines.natsUrl, engines.clickhouseUrl);
  try {
    // The tables are the aggregator's to make; then it goes, and the log is filled.
    const maker = run();
    await maker.line((line) => line['ready'] === true);
    await maker.stop();
    o.onProgress(`filling the log with ${o.events.toLocaleString('en-US')} events`);
    const filled = await fill(link, o.events, o.subjects);

    const rates: AggregateRate[] = [];
    const measure = async (
      what: AggregateRate['what'],
      own: number,
      work: () => Promise<number>,
    ): Promise<void> => {
      const before = [own, pids.nats, pids.clickhouse].map(cpuMs);
      const seconds = (await work()) / 1_000;
      const used = [own, pids.nats, pids.clickhouse].map((pid, at) => cpuMs(pid) - before[at]!);
      const [ofOwn, nats, clickhouse] = used.map((ms) => (ms * 1_000) / o.events);
      rates.push({
        what,
        seconds,
        eventsPerSecond: o.events / seconds,
        cpuPerEventUs: { own: ofOwn!, nats: nats!, clickhouse: clickhouse! },
      });
    };

    o.onProgress('bare read');
    const messages: Uint8Array<ArrayBuffer>[][] = [];
    await measure('bare read', process.pid, async () => timed(() => readAll(link, filled, () => undefined)));
    await readAll(link, filled, (shard, data) => (messages[shard] ??= []).push(new Uint8Array(data)));

    o.onProgress('the steps, one by one');
    const work = new Steps(messages);
    const { steps, inserts, rollupRows } = work.run(o.events);

    o.onProgress('bare insert');
    await measure('bare insert', process.pid, async () => timed(() => insertAll(ch, inserts)));
    for (const table of ['events', 'rollup_hour']) await ch.command(`TRUNCATE TABLE ${table}`);
    inserts.length = 0;

    o.onProgress('the aggregator');
    // Before it runs: a short log may be counted before it is asked for.
    const counted = reached(link, filled);
    const aggregator = run();
    await aggregator.line((line) => line['ready'] === true);
    await measure('aggregator', aggregator.pid, () => timed(() => counted));
    await aggregator.stop();
    await compare(ch, o.events);

    const rate = (what: AggregateRate['what']): number =>
      rates.find((one) => one.what === what)!.eventsPerSecond;
    return {
      events: o.events,
      blocks: filled.blocks,
      blockBytesPerEvent: filled.bytes / o.events,
      rollupRows,
      steps,
      rates,
      ratioToSlower: rate('aggregator') / Math.min(rate('bare read'), rate('bare insert')),
    };
  } finally {
    await link.close();
    await ch.close();
    await engines.stop();
  }
}

function startAggregator(natsUrl: string, clickhouseUrl: string): ReturnType<typeof start> {
  return start('aggregator/main.js', [], {
    NATS_URL: natsUrl,
    CLICKHOUSE_URL: clickhouseUrl,
    TALLYLINE_SHARDS: String(SHARDS),
    TALLYLINE_LOG_LEVEL: 'error',
  });
}

interface Filled {
  readonly blocks: number;
  readonly bytes: number;
  /** The last sequence of each shard. */
  readonly last: readonly number[];
}

/** Through the edge's own reading and packing, without its doors. */
async function fill(link: NatsLink, events: number, subjects: number): Promise<Filled> {
  const bytesMax = Math.max(1024 ** 3, Math.ceil((events * 400) / SHARDS));
  for (let shard = 0; shard < SHARDS; shard++) {
    await ensureStream(link, {
      name: streamName(shard),
      subjects: [streamSubject(shard)],
      maxBytes: bytesMax,
      replicas: 1,
    });
  }
  const pipeline = new PublishPipeline(link, {
    maxInFlight: 256,
    maxInFlightBytes: 64 * 1024 ** 2,
    ackTimeoutMs: 60_000,
  });
  const last = new Array<number>(SHARDS).fill(0);
  let [blocks, bytes] = [0, 0];
  const publish = async (shard: number, message: Uint8Array): Promise<void> => {
    const { sequence } = await pipeline.publish(streamSubject(shard), message);
    last[shard] = Math.max(last[shard]!, sequence);
  };
  for (let shard = 0; shard < SHARDS; shard++)
    for (const defined of METERS) await publish(shard, encodeMeterDefined(defined));
  const nowMs = Math.floor(Date.now() / 60_000) * 60_000;
  const context = {
    admission: new Admission({ eventAgeDaysMax: 35, eventAheadSecondsMax: 3_600, batchEventsMax: 10_000 }),
    meters: new MeterBook(),
    tenant: TENANT,
    tenantBytes: new TextEncoder().encode(TENANT),
    nowMs,
  };
  const batch = new EventBatch();
  const pack = new Pack({
    shards: SHARDS,
    identityKey: randomBytes(16).toString('hex'),
    limits: BLOCK,
    port: {
      publish(shard, block) {
        blocks += 1;
        bytes += block.length;
        return publish(shard, block);
      },
      now: () => nowMs,
      // Only full blocks, as under load.
      defer: () => undefined,
      after: () => () => undefined,
    },
  });
  const time = new Date(nowMs).toISOString();
  for (let first = 0; first < events; first += EVENTS_PER_BODY) {
    const body = bodyOf(first, Math.min(EVENTS_PER_BODY, events - first), time, subjects);
    const outcome = readBody(body, 'json', context, batch);
    if (!outcome.read || outcome.rejected.length > 0)
      throw new Error('the events of the benchmark are sound');
    const ticket = pack.begin();
    for (let event = 0; event < batch.count; event++) pack.add(ticket, batch, event);
    while (pipeline.inFlight > 128) await new Promise((resolve) => setImmediate(resolve));
  }
  pack.flush();
  await pipeline.drain();
  pipeline.close();
  return { blocks, bytes, last };
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

async function readAll(
  link: NatsLink,
  { last }: Filled,
  see: (shard: number, data: Uint8Array) => void,
): Promise<void> {
  await Promise.all(
    last.map(async (end, shard) => {
      const stop = new AbortController();
      const messages = readLog(link, {
        stream: streamName(shard),
        fromSequence: 1,
        maxBytesInFlight: READ_BYTES_MAX,
        signal: stop.signal,
      });
      for await (const { sequence, data } of messages) {
        see(shard, data);
        if (sequence >= end) break;
      }
      stop.abort();
    }),
  );
}

interface Insert {
  readonly table: string;
  readonly columns: readonly string[];
  readonly bodies: Uint8Array[];
  readonly rows: number;
}

async function insertAll(ch: ClickHouse, inserts: readonly Insert[]): Promise<void> {
  for (const { table, columns, bodies, rows } of inserts)
    await ch.insertNative(table, columns, bodies, rows, INSERT_SETTINGS);
}

/** The aggregator's pure steps on the blocks of all shards, as flushes would take them. */
class Steps {
  readonly #messages: readonly (readonly Uint8Array<ArrayBuffer>[])[];

  constructor(messages: readonly (readonly Uint8Array<ArrayBuffer>[])[]) {
    this.#messages = messages;
  }

  run(events: number): { steps: AggregateStep[]; inserts: Insert[]; rollupRows: number } {
    const meters = metersInForce(METERS);
    const ms = { decode: 0, verdict: 0, fold: 0, encode: 0, 'encode rollups': 0 };
    const on = <T>(step: keyof typeof ms, work: () => T): T => {
      const before = process.cpuUsage();
      const result = work();
      const { user, system } = process.cpuUsage(before);
      ms[step] += (user + system) / 1_000;
      return result;
    };
    const indexes = this.#messages.map(() => new DedupeIndex(events, Math.ceil((events * 1.1) / SHARDS)));
    const bucketKey = randomBytes(16).toString('hex');
    const preparer = new Preparer(bucketKey);
    const caches = this.#messages.map(() => new RollupCache(1_000_000_000, -1, bucketKey));
    const inserts: Insert[] = [];
    let flush: DecidedBlock[] = [];
    let touched = this.#messages.map(() => [] as number[]);
    let [inFlush, mark] = [0, 1];
    const end = (): void => {
      const bodies = on('encode', () => jobs(flush).map((job) => encodeRaw(job).events.body!));
      inserts.push({ table: 'events', columns: EVENT_COLUMNS, bodies, rows: inFlush });
      const rollups = on('encode rollups', () =>
        touched.flatMap((some, shard) =>
          some.length === 0 ? [] : [encodeRollups(shard, 1, caches[shard]!, some)],
        ),
      );
      const count = touched.reduce((sum, some) => sum + some.length, 0);
      inserts.push({ table: 'rollup_hour', columns: ROLLUP_COLUMNS, bodies: rollups, rows: count });
      touched = this.#messages.map(() => []);
      [flush, inFlush, mark] = [[], 0, mark + 1];
    };
    const longest = Math.max(...this.#messages.map((of) => of.length));
    // The first messages of a log define the meters.
    for (let at = METERS.length; at < longest; at++) {
      for (const [shard, of] of this.#messages.entries()) {
        const message = of[at];
        if (message === undefined) continue;
        const sequence = at + 1;
        const prepared = on('decode', () => preparer.prepare(message, meters));
        const { block, refused, contributions } = prepared;
        const verdicts = on('verdict', () => decideBlock(indexes[shard]!, block, refused, sequence));
        on('fold', () => {
          const cache = caches[shard]!;
          const { tenants } = prepared;
          foldBlock(
            { incarnation: 1, sequence, time: block.time, verdicts, contributions },
            cache.rows,
            cache.find({ tenants, contributions, overflowed: null }, []),
            mark,
            touched[shard]!,
          );
        });
        flush.push({ shard, incarnation: 1, sequence, block, verdicts, refused });
        inFlush += block.count;
        if (inFlush >= FLUSH_EVENTS) end();
      }
    }
    if (inFlush > 0) end();
    const steps = Object.entries(ms).map(([step, took]) => ({ step, nanosPerEvent: (took * 1e6) / events }));
    return { steps, inserts, rollupRows: caches.reduce((sum, { size }) => sum + size, 0) };
  }
}

function jobs(blocks: readonly DecidedBlock[]): DecidedBlock[][] {
  const found: DecidedBlock[][] = [[]];
  let events = 0;
  for (const decided of blocks) {
    if (events >= ENCODE_EVENTS) {
      found.push([]);
      events = 0;
    }
    found.at(-1)!.push(decided);
    events += decided.block.count;
  }
  return found;
}

/** Listens for the flush notices, since asking ClickHouse again and again would cost it a good part of an event. */
async function reached(link: NatsLink, { last }: Filled): Promise<void> {
  const notices = link.nc.subscribe(FLUSH_NOTICE);
  const deadline = setTimeout(() => notices.unsubscribe(), DEADLINE_MS);
  const behind = new Set(last.keys());
  for await (const { data } of notices) {
    const { shard, position } = JSON.parse(new TextDecoder().decode(data)) as FlushNotice;
    if (unpackPosition(BigInt(position)).sequence >= last[shard]!) behind.delete(shard);
    if (behind.size === 0) break;
  }
  clearTimeout(deadline);
  if (behind.size > 0) throw new Error('the watermarks did not reach the ends of the logs');
}

/** Every event once, in raw rows and in the rollups of each meter. */
async function compare(ch: ClickHouse, events: number): Promise<void> {
  const [raw] = await ch.rows<{ n: string; identities: string }>(
    'SELECT count() AS n, uniqExact(identity) AS identities FROM events FINAL',
  );
  const rollups = await ch.rows<{ meter: string; n: string }>(
    'SELECT meter, sum(value_count) AS n FROM rollup_hour FINAL GROUP BY meter',
  );
  const exact =
    Number(raw?.n) === events &&
    Number(raw?.identities) === events &&
    rollups.length === METERS.length &&
    rollups.every(({ n }) => Number(n) === events);
  if (!exact) throw new Error(`sent ${events} events, counted ${JSON.stringify({ raw, rollups })}`);
}
