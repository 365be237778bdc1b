/** The aggregator: from the log of each shard to exact rows in ClickHouse. consume.ts tells the protocol. */
import { BUCKET_DEPLOYMENT, logOfShard, streamName } from '../contract/subjects.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { ConfigError } from '../runtime/config.ts';
import { runStage, type Stage } from '../runtime/lifecycle.ts';
import { agreeOn, ensureLogs } from '../runtime/logs.ts';
import { migrateClickHouse, MigrationError } from '../runtime/migrate.ts';
import { connectNats, isStreamNotFound, openKeyValue, type NatsLink } from '../runtime/nats.ts';
import { Backlog } from './backlog.ts';
import { fields, MEBIBYTE, type Config } from './config.ts';
import { ShardConsumer } from './consume.ts';
import { Flusher } from './flush.ts';
import { tellLoss } from './loss.ts';
import { createMeasurements } from './measurements.ts';
import { Patience, StoppedError } from './patience.ts';
import { Purger } from './purge.ts';
import { recover, type Recovered } from './recover.ts';
import { parseShards } from './shards.ts';
import { lookUpIdentities, setFsync } from './store.ts';
import { WatermarkBucket } from './watermark-bucket.ts';
import { IncarnationError } from './watermark.ts';
import { startWorkers } from './workers.ts';

runStage({ name: 'aggregator', fields, start });

async function start(stage: Stage, config: Config): Promise<void> {
  const owned = parseShards(config.owned, config.shards);
  if (typeof owned === 'string') throw new ConfigError([`TALLYLINE_AGGREGATOR_SHARDS: ${owned}`]);
  const { log, metrics, clock, stopping } = stage;
  const measurements = createMeasurements(metrics);
  const patience = new Patience({
    log,
    signal: stopping,
    onFailure: () => measurements.flushFailures.inc(),
    setReady: (ready, reason) => stage.setReady(ready, reason),
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
  await migrate(patience, ch, config.fsync);

  const workers = startWorkers(config.threads);
  stage.onStop('workers', () => workers.close());
  const backlog = new Backlog(config.backlogBytesMax);
  const purger = new Purger(link, {
    log,
    measurements,
    keepBytes: config.keepBytes,
    enabled: config.purge,
    lookEveryBytes: Math.min(16 * MEBIBYTE, config.streamBytesMax / 16),
    signal: stopping,
  });

  const bucket = new WatermarkBucket(link, { log, replicas: config.streamReplicas, signal: stopping });
  const consumers: ShardConsumer[] = [];
  const flusher = new Flusher(consumers, {
    ch,
    link,
    workers,
    backlog,
    patience,
    measurements,
    clock,
    log,
    intervalMs: config.flushIntervalMs,
    eventsMax: config.flushEventsMax,
    onWatermark(shard, watermark, bytes) {
      purger.onWatermark(shard, watermark, bytes);
      bucket.tell(shard, watermark);
    },
  });

  const begin = async (shard: number): Promise<Recovered> => {
    const began = performance.now();
    const state = await patience.until(`start of shard ${shard}`, async () => {
      try {
        return await recover({
          ch,
          link,
          shard,
          clock,
          signal: stopping,
          dedupeKeysMax: Math.floor(config.dedupeKeysMax / owned.length),
          rollupRowsMax: Math.floor(config.rollupRowsMax / owned.length),
          onLoss: (loss) => log.error({ shard, ...loss }, tellLoss(streamName(shard), loss)),
        });
      } catch (error) {
        // A stream that is gone is made again, and then it is another one.
        if (isStreamNotFound(error)) await ensureLogs(link, config, logOfShard);
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
        seconds: (performance.now() - began) / 1_000,
      },
      'shard recovered',
    );
    measurements.incarnations.set({ shard: String(shard) }, incarnation);
    purger.onWatermark(shard, watermark, 0);
    bucket.tell(shard, watermark);
    return state;
  };
  for (const shard of owned) {
    consumers.push(
      new ShardConsumer(shard, await begin(shard), {
        link,
        workers,
        backlog,
        measurements,
        log,
        readBytesMax: config.readBytesMax,
        lookUp: ({ incarnation, index }, identities, events) =>
          patience.until('identities', () =>
            lookUpIdentities(ch, shard, incarnation, identities, events, index),
          ),
        recover: begin,
        onDecided: () => flusher.notice(),
      }),
    );
  }
  gauges(stage, config, consumers, backlog, link);

  const running = [flusher.run(stopping), ...consumers.map((consumer) => consumer.run(stopping))].map((run) =>
    run.catch((error: unknown) => {
      // What stopping interrupts is done again at the next start.
      if (stopping.aborted || error instanceof StoppedError) log.debug({ error }, 'interrupted by stopping');
      else stage.fatal(error);
    }),
  );
  stage.onStop('counting', async () => void (await Promise.all(running)));
  stage.announce({ shards: owned.join(',') });
  stage.setReady(true);
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

function gauges(
  stage: Stage,
  config: Config,
  consumers: readonly ShardConsumer[],
  backlog: Backlog,
  link: NatsLink,
): void {
  const { metrics, log } = stage;
  const sum = (of: (consumer: ShardConsumer) => number) => () =>
    consumers.reduce((total, consumer) => total + of(consumer), 0);
  metrics.gauge('tallyline_aggregator_shards_count', 'shards counted by this process').set(consumers.length);
  metrics.gauge(
    'tallyline_aggregator_dedupe_keys_count',
    'identities in memory',
    [],
    sum(({ state }) => state.index.size),
  );
  metrics.gauge(
    'tallyline_aggregator_dedupe_bytes',
    'memory of the dedupe index',
    [],
    sum(({ state }) => state.index.bytes),
  );
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
    () => backlog.bytes,
  );
  for (const [limit, max] of [
    ['dedupe_keys', config.dedupeKeysMax],
    ['rollup_rows', config.rollupRowsMax],
    ['backlog_bytes', config.backlogBytesMax],
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
    for (const { shard, state } of consumers) {
      const info = await link.jsm.streams.info(streamName(shard));
      behind.set({ shard: String(shard) }, Math.max(0, info.state.last_seq - state.watermark.sequence));
    }
  };
  const timer = setInterval(() => {
    ask().catch((error: unknown) => log.debug({ error }, 'the broker did not say how far the logs are'));
  }, BACKLOG_EVERY_MS);
  stage.onStop('backlog gauge', () => clearInterval(timer));
}
