/**
 * A load that the machine can bear, on a schedule: what a product feels. Latencies are counted from when a request was
 * due, so that a pause of a server counts for all who would have come in it. Beside it the probe (probe.ts) measures
 * how long it takes until usage can be read and is posted.
 */
import type { LoadPlan, LoadResult } from './load-plan.ts';
import { loadUntilDone } from './load-process.ts';
import type { Probe, ProbeResult } from './probe.ts';
import { slopeOf } from './quantiles.ts';
import { difference, mapParts, perEvent, PARTS, type ByPart, type Usage } from './usage.ts';
import type { World } from './world.ts';

const DRAIN_WITHIN_MS = 600_000;
const MEMORY_EVERY_MS = 5_000;

export interface Steady {
  readonly events: number;
  readonly requests: number;
  readonly askedEventsPerSecond: number;
  /** What was answered, over the time of the schedule or until the last answer, whichever is longer. */
  readonly eventsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly ownDelayP50Ms: number;
  readonly ownDelayP99Ms: number;
  readonly queuedMax: number;
  /** While the load ran. */
  readonly cpuMicrosPerEvent: ByPart;
  readonly lag: ProbeResult | null;
  /** Resident memory every five seconds. */
  readonly memory: readonly MemorySample[];
}

export interface MemorySample {
  readonly seconds: number;
  readonly bytes: ByPart;
}

export async function runSteady(
  world: World,
  usage: Usage,
  plan: LoadPlan,
  o: { probe: Probe | null; onProgress: (answered: number) => void },
): Promise<{ steady: Steady; load: LoadResult }> {
  if (plan.schedule.kind !== 'open') throw new Error('a steady load has a schedule');
  const { eventsPerSecond } = plan.schedule;
  const memory: MemorySample[] = [];
  const startMs = performance.now();
  const sample = (): void => {
    memory.push({ seconds: (performance.now() - startMs) / 1_000, bytes: usage.residentBytes() });
  };
  const timer = setInterval(sample, MEMORY_EVERY_MS);
  const over = new AbortController();
  let before: ByPart = {};
  let probing: Promise<ProbeResult> | null = null;
  try {
    const load = await loadUntilDone(world, plan, {
      onBegin: () => {
        before = usage.cpuMs();
        probing = o.probe?.run(over.signal) ?? null;
        // Its failure is told where it is waited for.
        probing?.catch(() => undefined);
      },
      onProgress: o.onProgress,
    });
    const used = { load: load.cpuMs, ...difference(usage.cpuMs(), before) };
    over.abort();
    const lag = await (probing as Promise<ProbeResult> | null);
    await world.watermarks.atEnds(DRAIN_WITHIN_MS);
    world.expectAlive();
    return {
      load,
      steady: {
        events: load.events,
        requests: load.requests,
        askedEventsPerSecond: eventsPerSecond,
        eventsPerSecond:
          (load.events * 1_000) / Math.max(plan.seconds * 1_000, load.lastAnswerMs - load.beginMs),
        p50Ms: load.p50Ms,
        p99Ms: load.p99Ms,
        ownDelayP50Ms: load.ownDelayP50Ms,
        ownDelayP99Ms: load.ownDelayP99Ms,
        queuedMax: load.queuedMax,
        cpuMicrosPerEvent: perEvent(
          mapParts(used, (ms) => ms),
          load.events,
        ),
        lag,
        memory,
      },
    };
  } finally {
    over.abort();
    clearInterval(timer);
  }
}

/** By how many bytes a minute the memory of each part rises, after the first third, in which all of them grow. */
export function memorySlopes(memory: readonly MemorySample[]): ByPart {
  const late = memory.slice(Math.floor(memory.length / 3));
  const slopes = PARTS.flatMap((part) => {
    const points = late.flatMap(({ seconds, bytes }) =>
      bytes[part] === undefined ? [] : [[seconds / 60, bytes[part]] as const],
    );
    return points.length < 2 ? [] : [[part, slopeOf(points)]];
  });
  return Object.fromEntries(slopes) as ByPart;
}
