/** One life of the aggregator: our own code in a simulated world, put together as aggregator/main.ts does it. */
import { Backlog } from '../../aggregator/backlog.ts';
import { ShardConsumer } from '../../aggregator/consume.ts';
import { FencedError } from '../../aggregator/fence.ts';
import { Flusher } from '../../aggregator/flush.ts';
import type { Measurements } from '../../aggregator/measurements.ts';
import { Patience, StoppedError } from '../../aggregator/patience.ts';
import { isLogError, type Timing } from '../../aggregator/ports.ts';
import { answersOf } from '../../aggregator/prepare-answers.ts';
import { Preparer } from '../../aggregator/prepare.ts';
import { Purger } from '../../aggregator/purge.ts';
import { encodeRaw } from '../../aggregator/raw-rows.ts';
import { recover, type Recovered } from '../../aggregator/recover.ts';
import { readShared, type MetersInForce } from '../../aggregator/registry.ts';
import { Slots, type Slot } from '../../aggregator/slots.ts';
import { IncarnationError } from '../../aggregator/watermark.ts';
import type { Workers } from '../../aggregator/workers.ts';
import { viewBlock } from '../../contract/block.ts';
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
  const backlog = new Backlog(o.backlogBytesMax, MESSAGE_BYTES);
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
  for (const consumer of consumers) consumer.forgetDecided();
  await workers.close();
  if (workers.slots.used > 0)
    world.fail(`process ${life.number} ended and still holds ${workers.slots.used} slots`);
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

/** Few and small, so that blocks lie in slots, beside them, and with their message alone in one. */
const SLOT_BYTES = 1_536;
const SLOTS = 6;
/** So that a job is a few blocks, or one alone. */
const JOB_BYTES = 1_200;

/** Blocks are small here, and so are the bounds. */
const MESSAGE_BYTES = 50;

/** The work of the threads, done when its turn comes. What lies in a slot that was let go is spoilt. */
function workersOf(world: World, life: Life, threads: number): Workers {
  const memory = new SharedArrayBuffer(SLOT_BYTES * SLOTS);
  const slots = new Slots(memory, SLOT_BYTES, (bytes) => bytes.fill(0xa5));
  let running = 0;
  let wakeClosing = (): void => undefined;
  const holding = async <T>(what: string, held: readonly (Slot | null)[], work: () => T): Promise<T> => {
    for (const slot of held) slot?.hold();
    running += 1;
    try {
      return await world.work(life, what, work);
    } finally {
      for (const slot of held) slot?.release();
      running -= 1;
      wakeClosing();
    }
  };
  return {
    threads,
    bucketKey: BUCKET_KEY,
    slots,
    jobBytes: JOB_BYTES,
    prepare: ({ slot, messages, roomStart, roomEnd, meters }) =>
      holding('prepare', [slot], () => {
        const room = slot === null ? null : slot.bytes.subarray(roomStart, roomEnd);
        return answersOf(preparer.packAll(messages, metersOf(meters), room), messages, room);
      }),
    encode: (blocks) =>
      holding(
        'encode',
        blocks.map(({ slot }) => slot),
        () => encodeRaw(blocks.map((one) => ({ ...one, block: viewBlock(one.message) }))),
      ),
    async close() {
      while (running > 0) await new Promise<void>((resolve) => (wakeClosing = resolve));
    },
  };
}
