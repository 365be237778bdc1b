/**
 * The edge: takes events over HTTP and answers 202 when the log has them.
 *
 * Started in the order in which things depend on each other, stopped in reverse: first the door, so that no
 * request comes in and those inside get their answer; then what is packed is flushed and acknowledged; the
 * connection to NATS last.
 */
import { BUCKET_DEPLOYMENT, BUCKET_KEYS, logOfShard, streamSubject } from '../contract/subjects.ts';
import { hostInUrl } from '../runtime/http.ts';
import { runStage } from '../runtime/lifecycle.ts';
import { ensureLogs } from '../runtime/logs.ts';
import { connectNats, openKeyValue, PublishError, PublishPipeline } from '../runtime/nats.ts';
import { retry } from '../runtime/retry.ts';
import { Admission } from './admit.ts';
import { fields } from './config.ts';
import { agreeOnDeployment } from './deployment.ts';
import { Edge } from './http.ts';
import { KeyRing } from './keys.ts';
import { edgeMeasures } from './measures.ts';
import { Pack } from './pack.ts';

runStage({
  name: 'ingest',
  fields,
  async start(stage, config) {
    const { log, clock } = stage;
    const measures = edgeMeasures(stage.metrics, config);

    // 1. The log must be there before anything is promised.
    const link = await connectNats({ url: config.natsUrl, name: stage.name, log, signal: stage.stopping });
    stage.onStop('nats', () => link.close());
    await agreeOnDeployment(await openKeyValue(link, BUCKET_DEPLOYMENT), config);
    await ensureLogs(link, config, logOfShard);

    // 2. Without the keys every sender would be told that his is wrong.
    const keys = new KeyRing(config.keysProvedMax);
    stage.metrics.gauge('tallyline_edge_keys_count', 'API keys known', [], () => keys.size);
    const bucket = await openKeyValue(link, BUCKET_KEYS);
    await bucket.watch((id, json) => {
      if (!keys.set(id, json))
        log.error({ keyId: id }, 'the record of an API key is not sound; it is refused');
    }, stage.stopping);

    // 3. The way into the log.
    const pipeline = new PublishPipeline(link, {
      maxInFlight: config.publishesInFlightMax,
      maxInFlightBytes: config.publishBytesInFlightMax,
      ackTimeoutMs: config.ackTimeoutMs,
      metrics: stage.metrics,
    });
    const pack = new Pack({
      shards: config.shards,
      identityKey: config.identityKey,
      limits: config,
      port: {
        async publish(shard, block, events) {
          const start = performance.now();
          try {
            await pipeline.publish(streamSubject(shard), block);
            measures.published(performance.now() - start, events, block.length);
          } catch (error) {
            measures.publishFailed(error instanceof PublishError ? error.kind : 'bug');
            throw error;
          }
        },
        now: () => clock.now(),
        defer: (run) => void setImmediate(run),
        after(ms, run) {
          const timer = setTimeout(run, ms);
          return () => clearTimeout(timer);
        },
      },
    });
    stage.onStop('log', async () => {
      pack.flush();
      await pipeline.drain();
      pipeline.close();
    });

    // 4. After the connection was lost, the logs are looked at again: the server may be another one.
    let logsStand = true;
    const forget = link.onConnection((connected) => {
      logsStand = false;
      if (!connected) return stage.setReady(false, 'NATS is away');
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
          stage.setReady(true);
        },
        (error: unknown) => log.warn({ error }, 'the logs could not be ensured'),
      );
    });
    stage.onStop('watch of the connection', () => void forget());

    // 5. The door.
    let saidFailureMs = -Infinity;
    const edge = new Edge({
      host: config.host,
      port: config.port,
      limits: config,
      keys,
      admission: new Admission(config),
      pack,
      measures,
      now: () => clock.now(),
      closedBecause: () => (!logsStand ? 'log_unavailable' : pipeline.full() ? 'edge_busy' : null),
      problemOf(failure) {
        if (performance.now() - saidFailureMs > 1_000) {
          saidFailureMs = performance.now();
          log.warn({ error: failure }, 'a block failed; its senders are told to retry');
        }
        return failure instanceof PublishError && failure.kind === 'full' ? 'log_full' : 'log_unconfirmed';
      },
      onBug: (error) => log.error({ error }, 'a request failed by a mistake of ours'),
    });
    const port = await edge.listen();
    stage.onStop('edge', () => edge.stop());
    stage.announce({ edge: `http://${hostInUrl(config.host)}:${port}` });
    stage.setReady(true);
  },
});
