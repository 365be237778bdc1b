// `npm run bench -- hostile`: what one tenant feels while others do their worst to the same edge: the latency of a
// quiet tenant's requests alone, and beside a flood, slow and stopped clients, answers that nobody reads and ten
// thousand idle streams. The bound is part of the product; the command fails when it is broken.
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { makeKey, type KeyRecord } from '../contract/key.ts';
import { BUCKET_KEYS } from '../contract/subjects.ts';
import { createLog } from '../runtime/log.ts';
import { connectNats, openKeyValue } from '../runtime/nats.ts';
import { startEngines } from '../test/engines.ts';
import { cpuMs } from './cpu.ts';
import { bodyOf } from './event.ts';
import { HOSTILE, type Hostile, type HostilePlan } from './hostile-plan.ts';
import { postEvents } from './post.ts';
import { start, type Running } from './process.ts';

/** The bound on the quiet tenant's 99th percentile, whatever others do. */
export const P99_BOUND_MS = 100;

export interface HostileFigure {
  readonly beside: Hostile | 'nobody';
  readonly connections: number;
  readonly requests: number;
  readonly failed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly edgeMegabytes: number;
  readonly edgeCpuShare: number;
}

const CONNECTIONS: Readonly<Record<Hostile, number>> = {
  flood: 16,
  'slow-headers': 500,
  'slow-bodies': 500,
  'one-byte-frames': 500,
  'unread-answers': 50,
  'half-open': 600,
  'idle-streams': 10_000,
};
const QUIET_CONNECTIONS = 4;
const QUIET_EVENTS = 10;
const QUIET_PAUSE_MS = 10;

export async function benchHostile(o: {
  seconds: number;
  onProgress: (text: string) => void;
}): Promise<HostileFigure[]> {
  const engines = await startEngines({ nats: true });
  let edge: Running | undefined;
  try {
    const link = await connectNats({
      url: engines.natsUrl,
      name: 'bench',
      log: createLog('bench', 'silent'),
    });
    const bucket = await openKeyValue(link, BUCKET_KEYS);
    const keyOf = async (tenant: string): Promise<string> => {
      const { key, secret, id } = makeKey(randomBytes(96));
      const secretHash = createHash('sha256').update(secret).digest('hex');
      const record: KeyRecord = { id, tenant, scopes: ['ingest'], secretHash, expiresAtMs: null };
      await bucket.put(id, JSON.stringify(record));
      return key;
    };
    const quiet = await keyOf('quiet');
    const hostile = await keyOf('hostile');
    await link.close();
    edge = start('ingest/main.js', [], {
      NATS_URL: engines.natsUrl,
      TALLYLINE_EDGE_PORT: '0',
      TALLYLINE_IDENTITY_KEY: randomBytes(16).toString('hex'),
      TALLYLINE_STREAM_BYTES_MAX: String(3 * 1024 ** 3),
      TALLYLINE_LOG_LEVEL: 'error',
    });
    const port = Number(new URL(String((await edge.line((line) => line['ready'] === true))['edge'])).port);
    const figures: HostileFigure[] = [];
    await quietTenant(port, quiet, 1); // The first requests compile the edge.
    for (const beside of ['nobody', ...HOSTILE] as const) {
      o.onProgress(`a quiet tenant beside ${beside}`);
      const connections = beside === 'nobody' ? 0 : CONNECTIONS[beside];
      let other: Running | undefined;
      if (beside !== 'nobody') {
        const plan: HostilePlan = { kind: beside, port, key: hostile, connections };
        other = start('bench/hostile-load.js', [JSON.stringify(plan)]);
        await other.line((line) => line['ready'] === true);
        if (beside === 'half-open') other.child.kill('SIGSTOP');
      }
      const cpu = cpuMs(edge.pid);
      const latencies = await quietTenant(port, quiet, o.seconds);
      const sorted = Float64Array.from(latencies.ms).sort();
      const at = (part: number): number =>
        sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
      figures.push({
        beside,
        connections,
        requests: sorted.length,
        failed: latencies.failed,
        p50Ms: at(0.5),
        p99Ms: at(0.99),
        maxMs: at(1),
        edgeMegabytes: residentMegabytes(edge.pid),
        edgeCpuShare: (cpuMs(edge.pid) - cpu) / (o.seconds * 1_000),
      });
      other?.child.kill('SIGKILL');
      await other?.exited;
    }
    return figures;
  } finally {
    await edge?.stop();
    await engines.stop();
  }
}

/** A few connections that send a small request every few milliseconds each. */
async function quietTenant(
  port: number,
  key: string,
  seconds: number,
): Promise<{ ms: number[]; failed: number }> {
  const agent = new Agent({ keepAlive: true, maxSockets: QUIET_CONNECTIONS });
  const time = new Date(Math.floor(Date.now() / 60_000) * 60_000).toISOString();
  const endMs = performance.now() + seconds * 1_000;
  const ms: number[] = [];
  let failed = 0;
  let next = 0;
  const connection = async (): Promise<void> => {
    while (performance.now() < endMs) {
      next += QUIET_EVENTS;
      const startMs = performance.now();
      const status = await postEvents(agent, port, key, bodyOf(next, QUIET_EVENTS, time)).catch(() => 0);
      if (status !== 202) failed += 1;
      ms.push(performance.now() - startMs);
      await new Promise((resolve) => setTimeout(resolve, QUIET_PAUSE_MS));
    }
  };
  await Promise.all(Array.from({ length: QUIET_CONNECTIONS }, connection));
  agent.destroy();
  return { ms, failed };
}

/** 0 where /proc does not tell. */
function residentMegabytes(pid: number): number {
  try {
    const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(match?.[1] ?? 0) / 1_024;
  } catch {
    return 0;
  }
}
