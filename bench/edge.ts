// `npm run bench -- edge`: what an event costs at the edge, beside what it would cost to do nothing with it and to
// only parse it, all in one run, since machines differ and are shared.
//
//   empty        uWebSockets.js that reads the body and answers
//   JSON.parse   the same, and parses the body
//   edge         the real edge with a real NATS: admits, packs, publishes, answers when the log has acknowledged
//
// The load is a process of its own, with few requests under way, over loopback.
import { createHash, randomBytes } from 'node:crypto';
import { makeKey, type KeyRecord } from '../contract/key.ts';
import { BUCKET_KEYS, BUCKET_METERS } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, openKeyValue } from '../runtime/nats.ts';
import { startEngines } from '../test/engines.ts';
import { cpuMs } from './cpu.ts';
import { METERS, TENANT } from './event.ts';
import type { LoadPlan, LoadResult } from './load.ts';
import { start, type Running } from './process.ts';
import { measureReading, type ReadingFigures } from './reading.ts';

export type Subject = 'empty' | 'JSON.parse' | 'edge';

export interface EdgeFigure {
  readonly transport: 'http' | 'websocket';
  readonly eventsPerRequest: number;
  readonly subject: Subject;
  readonly requestsPerSecond: number;
  readonly eventsPerSecond: number;
  /** CPU of the server, microseconds. */
  readonly cpuPerEventUs: number;
  readonly cpuPerRequestUs: number;
  /** CPU of NATS for it; 0 where there is none. */
  readonly natsCpuPerEventUs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface EdgeBench {
  readonly reading: readonly ReadingFigures[];
  readonly figures: readonly EdgeFigure[];
}

const EVENTS_PER_REQUEST = [1, 100, 1_000];
const LOG_BYTES_MAX = 3 * 1024 ** 3;

export async function benchEdge(o: {
  seconds: number;
  onProgress: (text: string) => void;
}): Promise<EdgeBench> {
  o.onProgress('reading and packing alone');
  const reading: ReadingFigures[] = [];
  for (const events of EVENTS_PER_REQUEST) reading.push(await measureReading(events, o.seconds));
  const engines = await startEngines({ nats: true });
  const running: Running[] = [];
  try {
    const { key, secret, id } = makeKey(randomBytes(96));
    const link = await connectNats({
      url: engines.natsUrl,
      name: 'bench',
      log: createLog('bench', 'silent'),
    });
    const record: KeyRecord = {
      id,
      tenant: TENANT,
      scopes: ['ingest'],
      secretHash: createHash('sha256').update(secret).digest('hex'),
      expiresAtMs: null,
    };
    await (await openKeyValue(link, BUCKET_KEYS)).put(id, JSON.stringify(record));
    const meters = await openKeyValue(link, BUCKET_METERS);
    for (const defined of METERS) await meters.put(`${TENANT}.${defined.meter.key}`, JSON.stringify(defined));
    await link.close();
    const edge = start('ingest/main.js', [], {
      NATS_URL: engines.natsUrl,
      TALLYLINE_EDGE_PORT: '0',
      TALLYLINE_IDENTITY_KEY: randomBytes(16).toString('hex'),
      TALLYLINE_STREAM_BYTES_MAX: String(LOG_BYTES_MAX),
      TALLYLINE_LOG_LEVEL: 'error',
    });
    const empty = start('bench/baseline-server.js', ['empty']);
    const parse = start('bench/baseline-server.js', ['parse']);
    running.push(edge, empty, parse);
    const ready = await edge.line((line) => line['ready'] === true);
    const servers: { subject: Subject; server: Running; port: number; natsPid: number }[] = [
      { subject: 'empty', server: empty, port: await portOf(empty), natsPid: 0 },
      { subject: 'JSON.parse', server: parse, port: await portOf(parse), natsPid: 0 },
      {
        subject: 'edge',
        server: edge,
        port: Number(new URL(String(ready['edge'])).port),
        natsPid: engines.nats.engine().pid,
      },
    ];
    const figures: EdgeFigure[] = [];
    for (const transport of ['http', 'websocket'] as const) {
      for (const eventsPerRequest of EVENTS_PER_REQUEST) {
        for (const { subject, server, port, natsPid } of servers) {
          o.onProgress(`${transport}, ${eventsPerRequest} events a request: ${subject}`);
          const plan: LoadPlan = {
            transport,
            port,
            key,
            eventsPerRequest,
            connections: transport === 'http' ? (eventsPerRequest === 1 ? 128 : 32) : 8,
            depth: transport === 'http' ? 1 : 8,
            warmupMs: 1_000,
            runMs: o.seconds * 1_000,
          };
          figures.push(await measure(plan, subject, server.pid, natsPid));
        }
      }
    }
    return { reading, figures };
  } finally {
    await Promise.all(running.map((one) => one.stop()));
    await engines.stop();
  }
}

async function portOf(server: Running): Promise<number> {
  return Number((await server.line((line) => 'port' in line))['port']);
}

async function measure(plan: LoadPlan, subject: Subject, pid: number, natsPid: number): Promise<EdgeFigure> {
  const load = start('bench/load.js', [JSON.stringify(plan)]);
  const used = { server: 0, nats: 0 };
  load.onLine((line) => {
    if (!('measuring' in line)) return;
    const sign = line['measuring'] === true ? -1 : 1;
    used.server += sign * cpuMs(pid);
    if (natsPid > 0) used.nats += sign * cpuMs(natsPid);
  });
  const result = (await load.line((line) => 'requests' in line)) as unknown as LoadResult;
  await load.exited;
  const { requests, events, seconds, p50Ms, p99Ms } = result;
  return {
    transport: plan.transport,
    eventsPerRequest: plan.eventsPerRequest,
    subject,
    requestsPerSecond: requests / seconds,
    eventsPerSecond: events / seconds,
    cpuPerEventUs: (used.server * 1_000) / events,
    cpuPerRequestUs: (used.server * 1_000) / requests,
    natsCpuPerEventUs: (used.nats * 1_000) / events,
    p50Ms,
    p99Ms,
  };
}
