/** One life of the aggregator: our own code in a simulated world, put together as aggregator/main.ts does it. */
import { Backlog } from '../../aggregator/backlog.ts';
import { ShardConsumer } from '../../aggregator/consume.ts';
import { FencedError } from '../../aggregator/fence.ts';
import { Flusher } from '../../aggregator/flush.ts';
import type { Measurements } from '../../aggregator/measurements.ts';
import { Patience, StoppedError } from '../../aggregator/patience.ts';
import { isLogError, type Timing } from '../../aggregator/ports.ts';
import { Preparer } from '../../aggregator/prepare.ts';
import { Purger } from '../../aggregator/purge.ts';
import { encodeRaw } from '../../aggregator/raw-rows.ts';
import { recover, type Recovered } from '../../aggregator/recover.ts';
import { readShared, type MetersInForce } from '../../aggregator/registry.ts';
import { IncarnationError } from '../../aggregator/watermark.ts';
import type { PrepareAnswer } from '../../aggregator/worker.ts';
import type { Workers } from '../../aggregator/workers.ts';
import { BlockError } from '../../contract/block.ts';
import type { Log } from '../../runtime/log.ts';
import type { Model } from './model.ts';
import { LogOfLife, type SimulatedLog } from './simulated-log.ts';
import type { SimulatedTables } from './simulated-tables.ts';
import { TablesOfLife } from './tables-of-life.ts';
import type { Life, World } from './world.ts';

/** What a process is configured with. Small bounds, so that each is met. */
export interface ProcessLimits {
  readonly threads: number;
  readonly backlogBytesMax: number;
  readonly flushIntervalMs: number;
  readonly flushEventsMax: number;
  readonly dedupeKeysMax: number;
  readonly rollupRowsMax: number;
  readonly purge: boolean;
}

export interface ProcessOptions extends ProcessLimits {
  readonly world: World;
  readonly life: Life;
  readonly logs: readonly SimulatedLog[];
  readonly tables: SimulatedTables;
  readonly model: Model;
}

/**
 * Nobody reads the log and the metrics of a simulated process: each property is this again. It is kept where it was
 * asked for, since a proxy is slow.
 */
const silent: object = Object.setPrototypeOf(
  () => silent,
  new Proxy(
    {},
    {
      get(_, name, asked: object) {
        Object.defineProperty(asked, name, { value: silent, enumerable: true });
        return silent;
      },
    },
  ),
) as object;

/** Resolves when the process has ended, by being stopped or fenced. What else ends it is a violation. */
export async function runProcess(o: ProcessOptions): Promise<void> {
  try {
    await count(o);
  } catch (error) {
    if (o.life.dead) return;
    const expected =
      error instanceof FencedError || error instanceof StoppedError || o.life.stopping.signal.aborted;
    if (!expected) {
      const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
      o.world.fail(`process ${o.life.number} failed: ${what}`);
    }
  }
}

async function count(o: ProcessOptions): Promise<void> {
  const { world, life, logs, model, threads } = o;
  const log = silent as Log;
  const measurements = silent as unknown as Measurements;
  const { signal } = life.stopping;
  const timing: Timing = {
    now: () => WALL_MS + world.nowMs + life.clockOffMs,
    elapsedMs: () => world.nowMs,
    sleep: (ms, until) => world.sleep(life, ms, until),
    random: () => world.dice.below(1_000) / 1_000,
  };
  const shardLogs = logs.map((one) => new LogOfLife(one, life, world));
  const tables = new TablesOfLife({
    world,
    life,
    tables: o.tables,
    model,
    delivered: (shard, sequence) => shardLogs[shard]!.delivered.get(sequence),
  });
  const patience = new Patience({ log, timing, signal, onFailure: () => {}, setReady: () => {} });
  const backlog = new Backlog(o.backlogBytesMax);
  const workers = workersOf(world, life, threads);
  const purger = new Purger({
    log,
    measurements,
    keepBytes: 0,
    enabled: o.purge,
    lookEveryBytes: 200,
    timing,
    signal,
  });
  const flusher = new Flusher({
    tables,
    workers,
    backlog,
    patience,
    measurements,
    timing,
    log,
    intervalMs: o.flushIntervalMs,
    eventsMax: o.flushEventsMax,
    onWatermark: ({ shard, shardLog, state }, _, bytes) => purger.onWatermark(shardLog, shard, state, bytes),
  });
  const begin = async (shard: number, hole: string | null = null): Promise<Recovered> => {
    const shardLog = shardLogs[shard]!;
    const state = await patience.until('start', async () => {
      try {
        await tables.takeOver(shard, 0, signal);
        const { dedupeKeysMax, rollupRowsMax } = o;
        const onLoss = (): void => {};
        return await recover({
          tables,
          shardLog,
          shard,
          timing,
          signal,
          dedupeKeysMax,
          rollupRowsMax,
          bucketKey: BUCKET_KEY,
          hole,
          onLoss,
        });
      } catch (error) {
        if (isLogError(error, 'gone')) await shardLog.ensure();
        if (error instanceof IncarnationError) return error;
        throw error;
      }
    });
    if (state instanceof IncarnationError) throw state;
    purger.onWatermark(shardLog, shard, state, 0);
    return state;
  };
  const consumers: ShardConsumer[] = [];
  for (const [shard, shardLog] of shardLogs.entries()) {
    const consumer = new ShardConsumer(shard, await begin(shard), {
      shardLog,
      timing,
      workers,
      backlog,
      measurements,
      log,
      readBytesMax: 1_000,
      lookUp: ({ incarnation, index }, identities, events) =>
        patience.until('identities', () =>
          tables.lookUpIdentities(shard, incarnation, identities, events, index),
        ),
      recover: begin,
      onDecided: () => flusher.notice(),
    });
    consumers.push(consumer);
    flusher.add(consumer);
  }
  await Promise.all([flusher.run(signal), ...consumers.map((consumer) => consumer.run(signal))]);
}

const WALL_MS = Date.UTC(2026, 10, 1);
const BUCKET_KEY = '00112233445566778899aabbccddeeff';
/** For all processes: it keeps nothing from block to block. */
const preparer = new Preparer(BUCKET_KEY);
/** Read once, as a worker does it. */
const inForce = new WeakMap<SharedArrayBuffer, MetersInForce>();

function metersOf(bytes: SharedArrayBuffer): MetersInForce {
  let meters = inForce.get(bytes);
  if (meters === undefined) inForce.set(bytes, (meters = readShared(bytes)));
  return meters;
}

/** The work of the threads, done when its turn comes. */
function workersOf(world: World, life: Life, threads: number): Workers {
  return {
    threads,
    bucketKey: BUCKET_KEY,
    prepare: ({ message, meters }) =>
      world.work(life, 'prepare', (): PrepareAnswer => {
        try {
          return { kind: 'prepared', prepared: preparer.prepare(message, metersOf(meters)) };
        } catch (error) {
          if (!(error instanceof BlockError)) throw error;
          return { kind: 'unreadable', reason: error.message, message };
        }
      }),
    encode: (blocks) => world.work(life, 'encode', () => encodeRaw(blocks)),
    close: () => Promise.resolve(),
  };
}
