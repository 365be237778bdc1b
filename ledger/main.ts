/**
 * The ledger: turns rollups into postings, and serves the API.
 *
 * Started in the order in which things depend on each other. The API answers before the aggregator has made
 * its views: meters, plans and customers can be set up meanwhile, and what needs usage says 503 until then.
 */
import { randomBytes } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import {
  BUCKET_ACKNOWLEDGED,
  BUCKET_DEPLOYMENT,
  FLUSH_NOTICE,
  logOfShard,
  streamName,
} from '../contract/subjects.ts';
import { DAY_MS, HOUR_MS } from '../contract/window.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { hostInUrl } from '../runtime/http.ts';
import { runStage, type Stage } from '../runtime/lifecycle.ts';
import { agreeOn, ensureLogs } from '../runtime/logs.ts';
import { migratePostgres, MigrationError } from '../runtime/migrate.ts';
import { connectNats, openKeyValue } from '../runtime/nats.ts';
import { connectPostgres, type Postgres } from '../runtime/postgres.ts';
import { retry, sleep } from '../runtime/retry.ts';
import { querySettings } from './api/limits.ts';
import { buildApi } from './api/server.ts';
import { forgetAnswers } from './api/write.ts';
import { advanceBackfill } from './backfill-steps.ts';
import { backfillsUnderWay } from './backfills.ts';
import { CheckAllowance } from './check-allowance.ts';
import { bootstrapOf, fields, type Bootstrap } from './config.ts';
import { EdgeTotals, edgeTotalsGauges } from './edge-totals.ts';
import { unpublishedMeters } from './meters.ts';
import { publishMeter } from './meter-versions.ts';
import { PostingLoop } from './posting-loop.ts';
import { openPublisher, type Publisher } from './publish.ts';
import { residueGauges } from './residues.ts';
import { checkRollups } from './rollup-check.ts';
import { quotaTexts } from './quotas.ts';
import { activeKeys, createTenant, importKey } from './tenants.ts';

/** What an answer may take on top of its query, so that the server says what the limit was. */
const QUERY_GRACE_MS = 5_000;
/** Writes that work outside of one transaction, at a time; more wait. */
const LOCKS_MAX = 4;
const LOCK_TIMEOUT_MS = 120_000;
const PUBLISH_EVERY_MS = 30_000;
const CHECK_EVERY_MS = 10_000;
const FORGET_EVERY_MS = 3_600_000;
const PROVE_EVERY_MS = 3_000;
const CONNECT = { baseMs: 100, maxMs: 2_000 };

runStage({
  name: 'ledger',
  fields,
  async start(stage, config) {
    const { log, clock, metrics, stopping } = stage;
    const bootstrap = bootstrapOf(config);

    // 1. Postgres, and in it our schema and those who may call.
    const database = { url: config.databaseUrl, log };
    const pg = connectPostgres({
      ...database,
      name: 'tallyline-ledger',
      poolMax: config.poolMax,
      statementTimeoutMs: config.statementTimeoutMs,
      metrics,
    });
    stage.onStop('Postgres', () => pg.close());
    const locks = connectPostgres({
      ...database,
      name: 'tallyline-ledger locks',
      poolMax: LOCKS_MAX,
      statementTimeoutMs: LOCK_TIMEOUT_MS,
    });
    stage.onStop('Postgres locks', () => locks.close());
    await migrate(stage, pg);
    if (bootstrap !== null) await bootstrapTenant(pg, bootstrap, clock.now());

    // 2. NATS: the logs that meters are written to, and what the edges watch.
    const link = await connectNats({ url: config.natsUrl, name: 'tallyline-ledger', log, signal: stopping });
    stage.onStop('NATS', () => link.close());
    const facts = await openKeyValue(link, BUCKET_DEPLOYMENT);
    await agreeOn(facts, 'shards', String(config.shards), 'TALLYLINE_SHARDS');
    await ensureLogs(link, config, logOfShard);
    const publisher = await openPublisher(link, { shards: config.shards });
    stage.onStop('publisher', () => publisher.close());
    await publishAll(pg, publisher, clock, log);
    every(stage, 'publishing of keys, quotas and meters', PUBLISH_EVERY_MS, () =>
      publishAll(pg, publisher, clock, log),
    );

    // 3. The API. What reads usage waits for the views by itself.
    const ch = connectClickHouse({
      url: config.clickhouseReaderUrl ?? config.clickhouseUrl,
      name: 'tallyline-ledger',
      requestTimeoutMs: config.clickhouseTimeoutMs,
    });
    stage.onStop('ClickHouse', () => ch.close());
    const queryCh = connectClickHouse({
      url: config.clickhouseReaderUrl ?? config.clickhouseUrl,
      name: 'tallyline-ledger api',
      requestTimeoutMs: Math.max(config.clickhouseTimeoutMs, config.querySecondsMax * 1_000 + QUERY_GRACE_MS),
      settings: querySettings(config),
    });
    stage.onStop('ClickHouse of the API', () => queryCh.close());
    let usageReady = false;
    const api = await buildApi({
      pg,
      locks,
      ch: queryCh,
      usageReady: () => usageReady,
      publisher,
      clock,
      log,
      metrics,
      randomBytes: (length) => randomBytes(length),
      apiLimits: config,
    });
    await api.listen({ host: config.host, port: config.apiPort });
    stage.onStop('API', () => api.close());
    const { port } = api.server.address() as AddressInfo;
    stage.announce({ api: `http://${hostInUrl(config.host)}:${port}` });
    const keepMs = config.idempotencyDays * DAY_MS;
    every(stage, 'forgetting of old answers', FORGET_EVERY_MS, () => forgetAnswers(pg, clock.now() - keepMs));

    // 4. Posting, once there is something to post from.
    const ctx = { pg, ch, clock, log };
    const edgeTotals = new EdgeTotals({
      ...ctx,
      bucket: await openKeyValue(link, BUCKET_ACKNOWLEDGED),
      shards: config.shards,
      lastSequence: async (shard) => (await link.jsm.streams.info(streamName(shard))).state.last_seq,
    });
    await edgeTotals.watch(stopping);
    const tellProof = edgeTotalsGauges(metrics, clock);
    const loop = new PostingLoop(ctx, stage, config.postingIntervalMs);
    link.nc.subscribe(FLUSH_NOTICE, { callback: () => loop.wake() });
    const posting = (async () => {
      await waitForViews(stage, ch);
      if (stopping.aborted) return;
      usageReady = true;
      const residues = residueGauges(metrics, ctx);
      const compared = metrics.counter(
        'tallyline_rollup_check_rows_total',
        'raw rows read to compare rollups with them',
      );
      const allowance = new CheckAllowance({
        rows: Math.ceil((config.checkRowsPerMinute * CHECK_EVERY_MS) / 60_000),
        ms: (config.checkSecondsPerMinute * CHECK_EVERY_MS) / 60,
      });
      every(stage, 'comparing of rollups', CHECK_EVERY_MS, async () => {
        const beganMs = clock.now();
        const rows = await checkRollups(ctx, allowance.budget, config.sweepHours * HOUR_MS);
        allowance.spend({ rows, ms: clock.now() - beganMs });
        compared.inc(rows);
      });
      every(stage, 'proving of acknowledged events', PROVE_EVERY_MS, async () =>
        tellProof(await edgeTotals.turn()),
      );
      every(stage, 'taking backfills on', PUBLISH_EVERY_MS, async () => {
        for (const one of await backfillsUnderWay(pg))
          await advanceBackfill({ pg, ch, publisher }, one, clock.now());
      });
      every(stage, 'measuring of residues', config.residueSeconds * 1_000, () => residues.read());
      await loop.run();
    })();
    posting.catch((error: unknown) => stage.fatal(error));
    stage.onStop('posting', () => posting);
  },
});

/** A server that is still starting is waited for; a migration that does not fit is an error at once. */
async function migrate({ log, stopping }: Stage, pg: Postgres): Promise<void> {
  const applied = await retry(
    () => migratePostgres(pg, { directory: new URL('./migrations/', import.meta.url), schema: 'ledger' }),
    {
      attempts: 30,
      ...CONNECT,
      signal: stopping,
      retryable: (error) => !(error instanceof MigrationError),
      onRetry: (error) => log.warn({ error }, 'cannot migrate Postgres yet'),
    },
  );
  if (applied.length > 0) log.info({ applied }, 'Postgres migrated');
}

async function bootstrapTenant(pg: Postgres, o: Bootstrap, nowMs: number): Promise<void> {
  const { tenant, key, adminKey } = o;
  await pg.transaction(async (tx) => {
    await createTenant(tx, { tenant, name: tenant, nowMs });
    if (key !== undefined) {
      await importKey(tx, { key, tenant, scopes: ['ingest', 'read'], label: 'bootstrap', nowMs });
    }
    if (adminKey !== undefined) {
      const scopes = ['ingest', 'read', 'admin'] as const;
      await importKey(tx, { key: adminKey, tenant, scopes, label: 'bootstrap admin', nowMs });
    }
  });
}

/** What an earlier process, or a moment without NATS, left untold. All of it can be told again. */
async function publishAll(pg: Postgres, publisher: Publisher, clock: Clock, log: Log): Promise<void> {
  for (const meter of await unpublishedMeters(pg)) {
    if ((await publishMeter(pg, publisher, meter, clock.now())) === 'active') continue;
    const { tenant, key, version } = meter;
    log.error(
      { tenant, meter: key, version },
      'a version of a meter could not be told to every shard in time and is given up; make it again from a later hour',
    );
  }
  await publisher.syncKeys(() => activeKeys(pg, clock.now()));
  await publisher.syncQuotas(() => quotaTexts(pg));
}

const VIEWS = [
  'usage_rows',
  'usage_changes',
  'usage_versions',
  'watermark',
  'event_rows',
  'refused',
  'verdicts',
  'received',
  'meter_definitions',
  'contributions',
  'correction_changes',
  'usage_states',
  'event_changes',
  'meter_backfills',
  'proposed_contributions',
];
const SELECT_VIEWS = `
  SELECT name FROM system.tables WHERE database = currentDatabase() AND name IN {views:Array(String)}`;

/** Resolves when the aggregator has made all views, or the stage stops. */
async function waitForViews({ log, stopping, setReady }: Stage, ch: ClickHouse): Promise<void> {
  for (let attempt = 0; !stopping.aborted; attempt++) {
    let missing: string;
    try {
      const found = await ch.rows<{ name: string }>(SELECT_VIEWS, { views: VIEWS });
      const names = new Set(found.map((row) => row.name));
      const absent = VIEWS.filter((name) => !names.has(name));
      if (absent.length === 0) return;
      missing = `waiting for the aggregator to make ${absent.join(', ')} in ClickHouse`;
    } catch (error) {
      missing = 'ClickHouse cannot be reached';
      log.debug({ error }, missing);
    }
    if (attempt % 20 === 0) setReady(false, missing);
    await sleep(250, stopping);
  }
}

/** Does something now and then until the stage stops; a failure is logged and it is tried the next time. */
function every(stage: Stage, what: string, intervalMs: number, work: () => Promise<unknown>): void {
  const running = (async () => {
    while (!stage.stopping.aborted) {
      await sleep(intervalMs, stage.stopping);
      if (stage.stopping.aborted) return;
      await work().catch((error: unknown) => stage.log.warn({ error }, `${what} failed`));
    }
  })();
  stage.onStop(what, () => running);
}
