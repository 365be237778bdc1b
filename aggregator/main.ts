/** The aggregator: from the log of each shard to exact rows in ClickHouse. consume.ts tells the protocol. */
import { availableParallelism } from 'node:os';
import { BUCKET_DEPLOYMENT, logOfShard, streamName } from '../contract/subjects.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { ConfigError, flag, integer, text, url, type ConfigOf } from '../runtime/config.ts';
import { runStage, type BaseConfig, type Stage } from '../runtime/lifecycle.ts';
import { agreeOn, ensureLogs, logFields } from '../runtime/logs.ts';
import { migrateClickHouse, MigrationError } from '../runtime/migrate.ts';
import { connectNats, openKeyValue, type NatsLink } from '../runtime/nats.ts';
import { Backlog } from './backlog.ts';
import { ShardConsumer } from './consume.ts';
import { Flusher } from './flush.ts';
import { createMeasurements } from './measurements.ts';
import { Patience, StoppedError } from './patience.ts';
import { Purger } from './purge.ts';
import { recover } from './recover.ts';
import { parseShards } from './shards.ts';
import { lookUpIdentities, setFsync } from './store.ts';
import { IncarnationMismatchError } from './watermark.ts';
import { startWorkers } from './workers.ts';

const MEBIBYTE = 1024 ** 2;

const fields = {
  natsUrl: url('NATS_URL', { describe: 'NATS with JetStream', secret: true, protocols: ['nats', 'tls'] }),
  clickhouseUrl: url('CLICKHOUSE_URL', {
    describe: 'ClickHouse over HTTP, with user, password and database',
    secret: true,
    protocols: ['http', 'https'],
  }),
  ...logFields,
  owned: text('TALLYLINE_AGGREGATOR_SHARDS', {
    describe: 'shards that this process counts: all, or such as 0-1,3',
    default: 'all',
  }),
  threads: integer('TALLYLINE_AGGREGATOR_THREADS', {
    describe: 'worker threads',
    default: Math.max(1, Math.min(4, availableParallelism() - 1)),
    min: 1,
    max: 64,
  }),
  flushIntervalMs: integer('TALLYLINE_FLUSH_INTERVAL_MS', {
    describe: 'least time between the beginnings of two flushes',
    default: 200,
    min: 1,
    max: 60_000,
  }),
  flushEventsMax: integer('TALLYLINE_FLUSH_EVENTS_MAX', {
    describe: 'events that are flushed together; more begin a flush at once',
    default: 200_000,
    min: 1,
    max: 5_000_000,
  }),
  backlogBytesMax: integer('TALLYLINE_AGGREGATOR_BACKLOG_BYTES_MAX', {
    describe: 'bytes read from the log and not durable yet; reading waits beyond',
    default: 128 * MEBIBYTE,
    min: 64 * 1024,
    max: 2 ** 40,
  }),
  readBytesMax: integer('TALLYLINE_AGGREGATOR_READ_BYTES_MAX', {
    describe: 'bytes of one shard fetched ahead from NATS',
    default: 8 * MEBIBYTE,
    min: 64 * 1024,
    max: 2 ** 31,
  }),
  dedupeKeysMax: integer('TALLYLINE_DEDUPE_KEYS_MAX', {
    describe: 'identities kept in memory, over all shards; older ones are looked up in ClickHouse',
    default: 20_000_000,
    min: 1_000,
    max: 2_000_000_000,
  }),
  rollupRowsMax: integer('TALLYLINE_ROLLUP_ROWS_MAX', {
    describe: 'rollup rows kept in memory, over all shards; others are loaded when they are needed',
    default: 2_000_000,
    min: 100,
    max: 100_000_000,
  }),
  keepBytes: integer('TALLYLINE_LOG_KEEP_BYTES', {
    describe: 'bytes of a shard that stay in the log behind the watermark when it is purged',
    default: 64 * MEBIBYTE,
    min: 0,
    max: 2 ** 50,
  }),
  purge: flag('TALLYLINE_LOG_PURGE', {
    describe: 'purge a log behind the watermark when it is more than half full',
    default: true,
  }),
  fsync: flag('TALLYLINE_CLICKHOUSE_FSYNC', {
    describe: 'sync inserts to the disk; without it a power loss takes acknowledged rows',
    default: true,
  }),
  clickhouseTimeoutMs: integer('TALLYLINE_CLICKHOUSE_TIMEOUT_MS', {
    describe: 'how long one request to ClickHouse may take',
    default: 60_000,
    min: 100,
    max: 3_600_000,
  }),
};

type Config = ConfigOf<typeof fields> & BaseConfig;

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
    onWatermark: (shard, watermark, bytes) => purger.onWatermark(shard, watermark.sequence, bytes),
  });
  for (const shard of owned) {
    const began = performance.now();
    const state = await patience.until(`start of shard ${shard}`, async () => {
      try {
        return await recover(ch, link, shard, {
          dedupeKeysMax: Math.floor(config.dedupeKeysMax / owned.length),
          rollupRowsMax: Math.floor(config.rollupRowsMax / owned.length),
        });
      } catch (error) {
        if (error instanceof IncarnationMismatchError) return error;
        throw error;
      }
    });
    if (state instanceof IncarnationMismatchError) throw state;
    const { index, incarnation } = state;
    log.info(
      {
        shard,
        incarnation,
        sequence: state.watermark?.sequence ?? 0,
        meters: state.registry.size,
        identities: index.size,
        seconds: (performance.now() - began) / 1_000,
      },
      'shard recovered',
    );
    if (state.watermark !== null) purger.onWatermark(shard, state.watermark.sequence, 0);
    consumers.push(
      new ShardConsumer(shard, state, {
        link,
        workers,
        backlog,
        measurements,
        log,
        readBytesMax: config.readBytesMax,
        lookUp: (identities, events) =>
          patience.until('identities', () =>
            lookUpIdentities(ch, shard, incarnation, identities, events, index),
          ),
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
      behind.set(
        { shard: String(shard) },
        Math.max(0, info.state.last_seq - (state.watermark?.sequence ?? 0)),
      );
    }
  };
  const timer = setInterval(() => {
    ask().catch((error: unknown) => log.debug({ error }, 'the broker did not say how far the logs are'));
  }, BACKLOG_EVERY_MS);
  stage.onStop('backlog gauge', () => clearInterval(timer));
}
