/**
 * As much as the machine takes: the load sends its next request as soon as an answer has come, and all stages share
 * the processors with it and with each other. The clock runs from the first 202 to the watermark behind the last
 * event, so a backlog that is only worked off afterwards is a part of it; the rate while sending stands beside it.
 */
import type { LoadPlan, LoadResult } from './load-plan.ts';
import { loadUntilDone } from './load-process.ts';
import { difference, mapParts, perEvent, Usage, type ByPart } from './usage.ts';
import type { World } from './world.ts';

const DRAIN_WITHIN_MS = 600_000;
const MEMORY_EVERY_MS = 1_000;

export interface Sustained {
  readonly events: number;
  readonly requests: number;
  readonly eventsPerSecond: number;
  readonly seconds: number;
  /** Answered with 202, while requests were sent. */
  readonly sendingEventsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Until the watermark. */
  readonly cpuMicrosPerEvent: ByPart;
  readonly requestBytes: number;
}

export async function runSustained(
  world: World,
  usage: Usage,
  plan: LoadPlan,
  onProgress: (answered: number) => void,
): Promise<{ sustained: Sustained; load: LoadResult }> {
  let before: ByPart = {};
  const memory = setInterval(() => usage.residentBytes(), MEMORY_EVERY_MS);
  try {
    const load = await loadUntilDone(world, plan, { onBegin: () => (before = usage.cpuMs()), onProgress });
    await world.watermarks.atEnds(DRAIN_WITHIN_MS);
    const endMs = performance.timeOrigin + performance.now();
    const used: ByPart = { load: load.cpuMs, ...difference(usage.cpuMs(), before) };
    world.expectAlive();
    const seconds = (endMs - load.firstAnswerMs) / 1_000;
    return {
      load,
      sustained: {
        events: load.events,
        requests: load.requests,
        eventsPerSecond: load.events / seconds,
        seconds,
        sendingEventsPerSecond: (load.events * 1_000) / (load.lastAnswerMs - load.firstAnswerMs),
        p50Ms: load.p50Ms,
        p99Ms: load.p99Ms,
        cpuMicrosPerEvent: perEvent(
          mapParts(used, (ms) => ms),
          load.events,
        ),
        requestBytes: load.requestBytes,
      },
    };
  } finally {
    clearInterval(memory);
  }
}
