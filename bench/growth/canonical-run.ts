// The canonical benchmark at other sizes: its sustained phase, without the ledger. What else a canonical run measures is
// cut to the shortest, and every total is compared as always; one that differs is an error, and no figure.
import { benchCanonical } from '../canonical/run.ts';
import type { World } from '../canonical/world.ts';
import type { CanonicalFigure } from './figures.ts';

export interface CanonicalSize {
  readonly subjects: number;
  readonly shards: number;
  /** Of the sustained phase. */
  readonly seconds: number;
  readonly seed: number;
  /** Ends it before its time; 0 for no such bound. */
  readonly eventsMax: number;
  readonly onProgress: (text: string) => void;
  readonly onWorld: (world: World) => void;
}

const WARMUP_SECONDS_MAX = 2;
const CEILING_SECONDS = 0.1;
const STEADY_SECONDS = 0.5;
const STEADY_RATE = 1_000;

export async function runCanonical(o: CanonicalSize): Promise<CanonicalFigure> {
  const { subjects, shards, seconds, seed, eventsMax, onProgress, onWorld } = o;
  const report = await benchCanonical({
    seed,
    subjects,
    shards,
    seconds,
    eventsMax,
    customers: 0,
    warmupSeconds: Math.min(WARMUP_SECONDS_MAX, seconds / 2),
    ceilingSeconds: CEILING_SECONDS,
    halfSeconds: STEADY_SECONDS,
    rate: STEADY_RATE,
    singleSeconds: STEADY_SECONDS,
    singleRate: STEADY_RATE,
    withLedger: false,
    profileFolder: null,
    onProgress,
    onWorld,
  });
  if (!report.totalsExact)
    throw new Error(
      `totals differ with ${subjects} subjects and ${shards} shards:\n${report.differences.join('\n')}`,
    );
  const { sustained } = report.measurements;
  return {
    subjects,
    shards,
    seconds: sustained.seconds,
    events: sustained.events,
    eventsPerSecond: report.eventsPerSecond,
    cpuMicrosPerEvent: report.cpuMicrosPerEvent,
    peakRssBytes: report.peakRssBytes,
    rollupRows: report.rollupRows,
    rollupRowsPerEvent: report.rollupRowsPerEvent,
    logBytesPerEvent: report.diskBytesPerEvent.nats,
    clickhouseBytesPerEvent: report.diskBytesPerEvent.clickhouse,
    received: report.received,
  };
}
