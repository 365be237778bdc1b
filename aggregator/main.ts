/** The aggregator: from the log of each shard to exact rows in ClickHouse. consume.ts tells the protocol. */
import { randomBytes } from 'node:crypto';
import { BUCKET_DEPLOYMENT, logOfShard } from '../contract/subjects.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { ConfigError } from '../runtime/config.ts';
import { runStage, type Stage } from '../runtime/lifecycle.ts';
import { agreeOn, ensureLogs } from '../runtime/logs.ts';
import { migrateClickHouse, MigrationError } from '../runtime/migrate.ts';
import { connectNats, openKeyValue } from '../runtime/nats.ts';
import { fields, MEBIBYTE, type Config } from './config.ts';
import type { ShardConsumer } from './consume.ts';
import { Counting, type RecoverThrough } from './counting.ts';
import { dedupeGauges } from './dedupe/gauges.ts';
import { natsLeaseBucket } from './lease-bucket.ts';
import { tellLoss } from './loss.ts';
import { createMeasurements } from './measurements.ts';
import { natsBoard, natsLog } from './nats-log.ts';
import { Ownership } from './ownership.ts';
import { Patience } from './patience.ts';
import { isLogError, type ShardLog } from './ports.ts';
import { Purger } from './purge.ts';
import { Readiness } from './readiness.ts';
import { recover, type Recovered } from './recover.ts';
import { parseShards } from './shards.ts';
import type { Slots } from './slots.ts';
import { setFsync } from './store.ts';
import { clickHouseTables } from './tables.ts';
import { timingOf } from './timing.ts';
import { WatermarkBucket } from './watermark-bucket.ts';
import { watchedLog } from './watched-log.ts';
import { IncarnationError } from './watermark.ts';
import { startWorkers } from './workers.ts';

runStage({ name: 'aggregator', fields, start });

async function start(stage: Stage, config: Config): Promise<void> {
  const mayTake = parseShards(config.owned, config.shards);
  if (typeof mayTake === 'string') throw new ConfigError([`TALLYLINE_AGGREGATOR_SHARDS: ${mayTake}`]);
  if (!/^[A-Za-z0-9_.-]{0,64}$/.test(config.name))
    throw new ConfigError([
      'TALLYLINE_AGGREGATOR_NAME: up to 64 letters, digits, dots, hyphens and underscores',
    ]);
  const { log, metrics, clock, stopping } = stage;
  const measurements = createMeasurements(metrics);
  const timing = timingOf(clock);
  const readiness = new Readiness((ready, reason) => stage.setReady(ready, reason));
  const patienceOf = (signal: AbortSignal): Patience =>
    new Patience({
      log,
      timing,
      signal,
      onFailure: () => measurements.flushFailures.inc(),
      setReady: (ready, reason) => readiness.set('engines', ready ? null : (reason ?? 'not ready')),
    });

  const ch = connectClickHouse({
    url: config.clickhouseUrl,
    name: 'tallyline-aggregator',
    requestTimeoutMs: config.clickhouseTimeoutMs,
  });
  stage.onStop('ClickHouse', () => ch.close());
  const link = await connectNats({
    url: config.natsUrl,
    name: 'tallyline-aggregator',
    log,
    signal: stopping,
  });
  stage.onStop('NATS', () => link.close());

  const facts = await openKeyValue(link, BUCKET_DEPLOYMENT);
  await agreeOn(facts, 'shards', String(config.shards), 'TALLYLINE_SHARDS');
  await ensureLogs(link, config, logOfShard);
  await migrate(patienceOf(stopping), ch, config.fsync);

  const workers = startWorkers(config.threads, config.backlogBytesMax);
  stage.onStop('workers', () => workers.close());
  const purger = new Purger({
    log,
    measurements,
    keepBytes: config.keepBytes,
    enabled: config.purge,
    lookEveryBytes: Math.min(16 * MEBIBYTE, config.streamBytesMax / 16),
    timing,
    signal: stopping,
  });
  const board = new WatermarkBucket(natsBoard(link, config.streamReplicas), {
    log,
    timing,
    signal: stopping,
  });

  const instance = randomBytes(6).toString('hex');
  const name = config.name === '' ? instance : config.name;
  /** Bounds of the process are divided by the shards that it may get, so that they hold whoever dies. */
  const share = (max: number): number => Math.floor(max / mayTake.length);
  const recoverShard = async (
    shardLog: ShardLog,
    shard: number,
    { tables, patience, signal, hole }: RecoverThrough,
  ): Promise<Recovered> => {
    const began = timing.elapsedMs();
    const state = await patience.until(`start of shard ${shard}`, async () => {
      try {
        return await recover({
          tables,
          shardLog,
          shard,
          timing,
          signal,
          hole,
          dedupeKeysMax: share(config.dedupeKeysMax),
          dedupeFilterBytesMax: share(config.dedupeFilterBytesMax),
          rollupRowsMax: share(config.rollupRowsMax),
          bucketKey: workers.bucketKey,
          onLoss: (loss) => log.error({ shard, ...loss }, tellLoss(shardLog.name, loss)),
        });
      } catch (error) {
        // A stream that is gone is made again, and then it is another one.
        if (isLogError(error, 'gone')) await ensureLogs(link, config, logOfShard);
        if (error instanceof IncarnationError) return error;
        throw error;
      }
    });
    if (state instanceof IncarnationError) throw state;
    const { watermark, incarnation } = state;
    log.info(
      {
        shard,
        incarnation,
        sequence: watermark.sequence,
        meters: state.registry.size,
        identities: state.index.size,
        seconds: (timing.elapsedMs() - began) / 1_000,
      },
      'shard recovered',
    );
    measurements.incarnations.set({ shard: String(shard) }, incarnation);
    purger.onWatermark(shardLog, shard, state, 0);
    board.tell(shard, watermark);
    return state;
  };

  const counting: Counting = new Counting({
    workers,
    measurements,
    timing,
    log,
    signal: stopping,
    backlogBytesMax: config.backlogBytesMax,
    readBytesMax: config.readBytesMax,
    intervalMs: config.flushIntervalMs,
    eventsMax: config.flushEventsMax,
    tables: () =>
      clickHouseTables({ ch, owner: `${name}.${instance}`, timing, mayWrite: () => ownership.mayWrite() }),
    patience: patienceOf,
    shardLog(shard) {
      measurements.undelivered.set({ shard: String(shard) }, 0);
      return watchedLog(natsLog(link, shard), {
        shard,
        silenceMs: config.logSilenceMs,
        timing,
        log,
        onFinding(finding) {
          measurements.undelivered.set({ shard: String(shard) }, finding?.messages ?? 0);
          const said = finding && `the log of shard ${shard} does not deliver: ${finding.reason}`;
          readiness.set(`log of shard ${shard}`, said);
        },
      });
    },
    recover: recoverShard,
    onWatermark({ shard, shardLog, state }, watermark, bytes) {
      purger.onWatermark(shardLog, shard, state, bytes);
      board.tell(shard, watermark);
    },
    onFenced(error) {
      measurements.fenced.inc();
      log.warn({ error }, 'another process counts a shard of ours; all that is not durable is dropped');
      ownership.fenced();
    },
    onFatal: (error) => stage.fatal(error),
  });
  const ownership: Ownership = new Ownership({
    bucket: natsLeaseBucket({
      link,
      replicas: config.streamReplicas,
      answerWithinMs: config.leaseTtlMs / 3,
      timing,
      signal: stopping,
    }),
    hands: counting,
    name,
    instance,
    shards: config.shards,
    mayTake: config.owned === 'all' ? 'all' : mayTake,
    ttlMs: config.leaseTtlMs,
    timing,
    log,
    signal: stopping,
    onTakeOver(shard, epoch) {
      measurements.takeOvers.inc();
      measurements.epochs.set({ shard: String(shard) }, epoch);
      log.info({ shard, epoch }, 'shard taken over');
    },
    onEnd(shard) {
      measurements.epochs.set({ shard: String(shard) }, 0);
      board.forget(shard);
    },
  });
  gauges(stage, config, counting, workers.slots);
  await ownership.start();
  const running = ownership.run().catch((error: unknown) => stage.fatal(error));
  stage.onStop('counting', async () => {
    await counting.ended();
    await ownership.leave();
    await running;
  });
  await ownership.settled();
  stage.announce({ name, shards: counting.consumers.map(({ shard }) => shard).join(',') });
  readiness.started();
}

async function migrate(patience: Patience, ch: ClickHouse, fsync: boolean): Promise<void> {
  const mistake = await patience.until('schema', async () => {
    try {
      const directory = new URL('./schema/', import.meta.url);
      await migrateClickHouse(ch, { directory, component: 'aggregator' });
      await setFsync(ch, fsync);
      return null;
    } catch (error) {
      // A file that was changed stays changed; a server that is away comes back.
      if (error instanceof MigrationError && error.cause === undefined) return error;
      throw error;
    }
  });
  if (mistake !== null) throw mistake;
}

/** How often the broker is asked how far each log is. */
const BACKLOG_EVERY_MS = 5_000;

function gauges(stage: Stage, config: Config, counting: Counting, slots: Slots): void {
  const { metrics, log } = stage;
  const sum = (of: (consumer: ShardConsumer) => number) => () =>
    counting.consumers.reduce((total, one) => total + of(one), 0);
  metrics.gauge(
    'tallyline_aggregator_shards_count',
    'shards counted by this process',
    [],
    () => counting.consumers.length,
  );
  dedupeGauges(metrics, () => Array.from(counting.consumers, ({ state }) => state.index));
  metrics.gauge(
    'tallyline_aggregator_rollups_count',
    'rollup rows in memory',
    [],
    sum(({ state }) => state.rollups.size),
  );
  metrics.gauge(
    'tallyline_aggregator_pending_bytes',
    'read from the log and not durable yet',
    [],
    () => counting.backlogBytes,
  );
  metrics.gauge(
    'tallyline_aggregator_slots_count',
    'slots of memory that hold a block now',
    [],
    () => slots.used,
  );
  metrics.gauge(
    'tallyline_aggregator_unslotted_messages',
    'messages since the start that were too large for a slot or found none free; they cost more',
    [],
    () => slots.passed,
  );
  for (const [limit, max] of [
    ['dedupe_keys', config.dedupeKeysMax],
    ['dedupe_filter_bytes', config.dedupeFilterBytesMax],
    ['rollup_rows', config.rollupRowsMax],
    ['backlog_bytes', config.backlogBytesMax],
    ['slots', slots.count],
    ['flush_events', config.flushEventsMax],
  ] as const) {
    metrics.gauge(`tallyline_aggregator_${limit}_limit_info`, `the bound on ${limit}`).set(max);
  }

  const behind = metrics.gauge(
    'tallyline_aggregator_backlog_messages',
    'messages of the log behind which the watermark is, by shard',
    ['shard'],
  );
  const ask = async (): Promise<void> => {
    for (const { shard, shardLog, state } of counting.consumers) {
      const { lastSequence } = await shardLog.facts();
      behind.set({ shard: String(shard) }, Math.max(0, lastSequence - state.watermark.sequence));
    }
  };
  const timer = setInterval(() => {
    ask().catch((error: unknown) => log.debug({ error }, 'the broker did not say how far the logs are'));
  }, BACKLOG_EVERY_MS);
  stage.onStop('backlog gauge', () => clearInterval(timer));
}
