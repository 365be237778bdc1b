/**
 * The edge: takes events over HTTP and WebSocket and answers when the log has them.
 *
 * Started in the order in which things depend on each other, stopped in reverse: first the doors, so that nothing
 * comes in and what is inside gets its answer; then what is packed is flushed and acknowledged; the
 * connection to NATS last.
 */
import { randomInt, randomUUID } from 'node:crypto';
import { EventBatch } from '../contract/event-batch.ts';
import { PathTable } from '../contract/path-table.ts';
import {
  BUCKET_ACKNOWLEDGED,
  BUCKET_DEPLOYMENT,
  BUCKET_KEYS,
  BUCKET_METERS,
  BUCKET_QUOTAS,
  logOfShard,
  streamSubject,
} from '../contract/subjects.ts';
import { hostInUrl } from '../runtime/http.ts';
import { runStage } from '../runtime/lifecycle.ts';
import { ensureLogs } from '../runtime/logs.ts';
import { connectNats, openKeyValue, PublishError, PublishPipeline } from '../runtime/nats.ts';
import { retry } from '../runtime/retry.ts';
import { AcknowledgedBucket } from './acknowledged-bucket.ts';
import { Accounts } from './tenant/account.ts';
import { AcknowledgedTotals } from './tenant/acknowledged.ts';
import { Admission } from './read/admit.ts';
import { fields } from './config.ts';
import { Decompressor } from './http/decompress.ts';
import { agreeOnDeployment } from './deployment.ts';
import { attachHttp } from './http/http.ts';
import { EdgeKernel } from './edge-kernel.ts';
import { Intake } from './intake.ts';
import { JournalError } from './journal/journal.ts';
import { openJournal, startCourier, type Chance } from './journal/journaling.ts';
import { KeyRing } from './tenant/keys.ts';
import { edgeMeasures } from './measures.ts';
import { JsonScanner } from './read/json-scanner.ts';
import { MeterBook } from './tenant/meters.ts';
import { openapi } from './http/openapi.ts';
import { Pack } from './pack.ts';
import { defaultQuota, Quotas } from './tenant/quota.ts';
import { Room } from './tenant/room.ts';
import { Senders } from './tenant/senders.ts';
import { connectionsAllowed, Server } from './http/server.ts';
import { streamMeasures } from './stream/stream-measures.ts';
import { TurnClock } from './turn-clock.ts';
import { Turns } from './tenant/turns.ts';
import { attachStream } from './stream/websocket.ts';

/** How often the ledger is told what was acknowledged: a crash takes what was acknowledged since. */
const ACKNOWLEDGED_TOLD_MS = 2_000;
/** How soon a key that has ended takes its streams with it. Requests are refused at once. */
const KEYS_EXPIRE_MS = 1_000;

runStage({
  name: 'ingest',
  fields,
  async start(stage, config) {
    const { log, clock } = stage;
    const connectionsMax = connectionsAllowed(config.connectionsMax);
    if (connectionsMax < config.connectionsMax)
      log.warn({ connectionsMax }, 'the system allows fewer open files than connections are configured');
    const measures = edgeMeasures(stage.metrics, { ...config, connectionsMax });

    const chance: Chance = {
      random: () => Math.random(),
      after(ms, run) {
        const timer = setTimeout(run, ms);
        return () => clearTimeout(timer);
      },
    };
    // 0. A journal that cannot be used is a mistake of the configuration: it is said before anything else.
    const journaling = await openJournal(stage, config, chance);
    const journal = journaling?.journal;

    // 1. The log must be there before anything is promised.
    const link = await connectNats({ url: config.natsUrl, name: stage.name, log, signal: stage.stopping });
    stage.onStop('nats', () => link.close());
    await agreeOnDeployment(await openKeyValue(link, BUCKET_DEPLOYMENT), config);
    await ensureLogs(link, config, logOfShard);

    // 2. Without the keys every sender would be told that his is wrong; without the meters and quotas the first
    //    events would be let through unchecked.
    const watch = async (
      bucket: string,
      what: string,
      set: (entry: string, json: string | null) => boolean,
    ): Promise<void> => {
      const entries = await openKeyValue(link, bucket);
      await entries.watch((entry, json) => {
        if (!set(entry, json)) log.error({ entry }, `${what} is not sound: it is as if there were none`);
      }, stage.stopping);
    };
    const keys = new KeyRing(config.keysProvedMax);
    stage.metrics.gauge('tallyline_edge_keys_count', 'API keys known', [], () => keys.size);
    await watch(BUCKET_KEYS, 'the record of an API key', (id, json) => keys.set(id, json));

    const meters = new MeterBook();
    await watch(BUCKET_METERS, 'the definition of a meter', (entry, json) => meters.set(entry, json));
    const quotas = new Quotas({
      defaults: defaultQuota(config),
      burstSeconds: config.quotaBurstSeconds,
      tenantsMax: config.quotaTenantsMax,
    });
    await watch(BUCKET_QUOTAS, 'the quota of a tenant', (tenant, json) => quotas.set(tenant, json));

    // 3. The way into the log.
    const pipeline = new PublishPipeline(link, {
      maxInFlight: config.publishesInFlightMax,
      maxInFlightBytes: config.publishBytesInFlightMax,
      ackTimeoutMs: config.ackTimeoutMs,
      metrics: stage.metrics,
    });
    const courier = journaling && (await startCourier(stage, config, journaling, link, pipeline));
    const kernel = EdgeKernel.load(config);
    if (kernel === null)
      log.warn(
        {},
        'the limits of blocks and bodies are too large for the kernel: reading and packing are slower',
      );
    const pack = new Pack({
      kernel,
      shards: config.shards,
      identityKey: config.identityKey,
      limits: config,
      port: {
        async publish(shard, block, events) {
          const start = performance.now();
          try {
            await (courier?.publish(shard, block, events) ?? pipeline.publish(streamSubject(shard), block));
            measures.published(performance.now() - start, events, block.length);
          } catch (error) {
            measures.publishFailed(kindOf(error));
            throw error;
          }
        },
        now: () => clock.now(),
        defer: (run) => void setImmediate(run),
        after: chance.after,
      },
    });
    stage.onStop('log', async () => {
      pack.flush();
      await courier?.stop((config.drainSeconds * 1_000) / 2);
      await pipeline.drain();
      pipeline.close();
    });

    // What was acknowledged is told now and then, and a last time when everything has its answer.
    const acknowledged = new AcknowledgedTotals(randomUUID());
    const acknowledgedBucket = new AcknowledgedBucket(
      acknowledged,
      await openKeyValue(link, BUCKET_ACKNOWLEDGED),
      { log, isLogged: () => courier?.owesLog !== true, now: () => clock.now() },
    );
    const telling = setInterval(() => void acknowledgedBucket.tell(), ACKNOWLEDGED_TOLD_MS);
    stage.onStop('acknowledged totals', async () => {
      clearInterval(telling);
      // The turn that is under way may have begun before the last events.
      await acknowledgedBucket.tell();
      if (link.connected) await acknowledgedBucket.tell();
    });

    // 4. After the connection was lost, the logs are looked at again: the server may be another one.
    //    With a journal it goes on meanwhile, as long as that takes blocks.
    let logsStand = true;
    let said = '';
    const tellReadiness = (): void => {
      const unable = journal === undefined ? 'not there' : journal.unable;
      const away = !logsStand && unable !== null;
      const why = unable === 'failed' ? 'the edge journal cannot be written' : away ? 'NATS is away' : '';
      if (why === said) return;
      said = why;
      stage.setReady(why === '', why);
    };
    if (journal !== undefined) journal.onChange = tellReadiness;
    if (link.connected) courier?.resume();
    const forget = link.onConnection((connected) => {
      logsStand = false;
      if (!connected) {
        courier?.suspend();
        return tellReadiness();
      }
      void retry(() => ensureLogs(link, config, logOfShard), {
        attempts: Number.MAX_SAFE_INTEGER,
        baseMs: 50,
        maxMs: 2_000,
        signal: stage.stopping,
        retryable: () => link.connected,
        onRetry: (error) => log.warn({ error }, 'the logs cannot be ensured yet'),
      }).then(
        () => {
          if (!link.connected) return;
          logsStand = true;
          courier?.resume();
          tellReadiness();
        },
        (error: unknown) => log.warn({ error }, 'the logs could not be ensured'),
      );
    });
    stage.onStop('watch of the connection', () => void forget());

    // 5. From a body to its answer, for both doors.
    let saidFailureMs = -Infinity;
    const turn = new TurnClock({
      now: () => clock.now(),
      elapsed: () => performance.now(),
      defer: (run) => void setImmediate(run),
    });
    const room = new Room(config);
    const turns = new Turns((run) => void setImmediate(run));
    const intake = new Intake({
      room,
      turns,
      quotas,
      admission: new Admission(config),
      meters,
      // The seed keeps a sender from choosing keys that fall into one place of the table.
      batch: new EventBatch(new PathTable(randomInt(2 ** 31)), kernel?.home ?? null),
      scanner: kernel === null ? null : new JsonScanner(kernel),
      pack,
      measures,
      acknowledged,
      now: () => turn.now(),
      closedBecause() {
        if (journal !== undefined && journal.unable === null) return null;
        return !logsStand ? 'log_unavailable' : pipeline.full() ? 'edge_busy' : null;
      },
      problemOf(failure) {
        if (performance.now() - saidFailureMs > 1_000) {
          saidFailureMs = performance.now();
          log.warn({ error: failure }, 'a block failed; its senders are told to retry');
        }
        if (failure instanceof JournalError && failure.kind === 'full') return 'journal_full';
        return failure instanceof PublishError && failure.kind === 'full' ? 'log_full' : 'log_unconfirmed';
      },
      onBug: (error) => log.error({ error }, 'a request failed by a mistake of ours'),
    });

    // 6. The doors.
    const accounts = new Accounts();
    const server = new Server({ connectionsMax });
    const decompressor = new Decompressor(config);
    const http = attachHttp(server.app, {
      limits: config,
      senders: new Senders(keys, accounts, config.keysProvedMax),
      room,
      intake,
      quotas,
      decompressor,
      measures,
      openapi: JSON.stringify(openapi(config)),
      clock: turn,
    });
    const ofStreams = streamMeasures(stage.metrics, config);
    const stream = attachStream(server.app, {
      limits: config,
      keys,
      accounts,
      room,
      intake,
      measures: {
        ...ofStreams,
        closed(code) {
          server.streamEnded();
          ofStreams.closed(code);
        },
      },
      now: () => turn.now(),
      refuse: (res, code) => http.refuse(res, code),
    });
    measures.watch({
      requestsInFlight: () => room.requests,
      bytesInFlight: () => room.bytes,
      bodiesWaiting: () => turns.waiting,
      decompressionsWaiting: () => decompressor.waiting,
      connections: () => server.connections,
    });
    const endKeys = setInterval(() => keys.expire(clock.now()), KEYS_EXPIRE_MS);
    const port = await server.listen(config.host, config.port);
    stage.onStop('doors', async () => {
      server.stopListening();
      stream.goAway();
      await intake.stop();
      stream.closeAll();
      await server.close();
      http.stop();
      clearInterval(endKeys);
    });
    stage.announce({ edge: `http://${hostInUrl(config.host)}:${port}` });
    stage.setReady(true);
  },
});

function kindOf(failure: unknown): string {
  if (failure instanceof JournalError) return `journal_${failure.kind}`;
  return failure instanceof PublishError ? failure.kind : 'bug';
}
