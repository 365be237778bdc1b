// What a run comes to: the figures of --json and of a line of bench/results, each with a name that says its unit.
import type { Ceiling } from './ceiling.ts';
import type { Measurements } from './run.ts';
import { mapParts, sumOf, type ByPart } from './usage.ts';

export interface Report {
  readonly eventsPerSecond: number;
  readonly sendingEventsPerSecond: number;
  /** By process, until the watermark; `total` is without the load. */
  readonly cpuMicrosPerEvent: ByPart & { readonly total: number };
  /** eventsPerSecond, as a part of the rate of the slowest of the best parts alone. */
  readonly ratioToSlowestPart: number;
  readonly slowestPart: string;
  /** CPU that the best parts take together, as a part of cpuMicrosPerEvent.total. */
  readonly ratioToSumOfParts: number;
  readonly sumOfPartsCpuMicros: number;
  /** Of the sustained phase, under a full load. */
  readonly sustainedP50Ms: number;
  readonly sustainedP99Ms: number;
  /** At half the rate. */
  readonly halfEventsPerSecond: number;
  readonly halfAskedEventsPerSecond: number;
  readonly halfCpuMicrosPerEvent: ByPart & { readonly total: number };
  readonly edgeP50Ms: number;
  readonly edgeP99Ms: number;
  readonly lagP50Ms: { readonly visible: number; readonly posted: number };
  readonly lagP99Ms: { readonly visible: number; readonly posted: number };
  readonly lagPollMs: number;
  /** Of halfCpuMicrosPerEvent.clickhouse, what the questions of the probe cost. */
  readonly probeCpuMicrosPerEvent: number;
  readonly singleEventsPerSecond: number;
  readonly singleP50Ms: number;
  readonly singleP99Ms: number;
  readonly postedAfterMs: number;
  readonly postingCpuMicrosPerEvent: ByPart;
  readonly peakRssBytes: ByPart;
  readonly memorySlopeBytesPerMinute: ByPart;
  readonly diskBytesPerEvent: Measurements['disk']['bytesPerEvent'];
  /** In the end, of all hours and shards. */
  readonly rollupRows: number;
  /** Rollup rows that a flush of the largest size writes, an event. */
  readonly rollupRowsPerEvent: number;
  readonly ceilings: readonly Ceiling[];
  readonly totalsExact: boolean;
  readonly differences: readonly string[];
  readonly received: number;
  readonly duplicates: number;
  readonly measurements: Measurements;
}

/** The parts that a pipeline of these engines cannot do without, each as good as it gets alone. */
const BEST_PARTS = ['empty server', 'publish, packed', 'read', 'insert'];

export function reportOf(m: Measurements): Report {
  const { sustained, half, single } = m;
  const total = totalOf(sustained.cpuMicrosPerEvent);
  const best = m.ceilings.filter(({ name }) => BEST_PARTS.includes(name));
  const slowest = best.reduce((least, one) => (one.eventsPerSecond < least.eventsPerSecond ? one : least));
  const sumOfParts = best.reduce((sum, { cpuMicrosPerEvent }) => sum + withoutLoad(cpuMicrosPerEvent), 0);
  const lag = (of: 'p50Ms' | 'p99Ms'): { visible: number; posted: number } => ({
    visible: half.lag?.visible[of] ?? 0,
    posted: half.lag?.posted?.[of] ?? 0,
  });
  return {
    eventsPerSecond: sustained.eventsPerSecond,
    sendingEventsPerSecond: sustained.sendingEventsPerSecond,
    cpuMicrosPerEvent: { ...sustained.cpuMicrosPerEvent, total },
    ratioToSlowestPart: sustained.eventsPerSecond / slowest.eventsPerSecond,
    slowestPart: slowest.name,
    ratioToSumOfParts: sumOfParts / total,
    sumOfPartsCpuMicros: sumOfParts,
    sustainedP50Ms: sustained.p50Ms,
    sustainedP99Ms: sustained.p99Ms,
    halfEventsPerSecond: half.eventsPerSecond,
    halfAskedEventsPerSecond: half.askedEventsPerSecond,
    halfCpuMicrosPerEvent: { ...half.cpuMicrosPerEvent, total: totalOf(half.cpuMicrosPerEvent) },
    edgeP50Ms: half.p50Ms,
    edgeP99Ms: half.p99Ms,
    lagP50Ms: lag('p50Ms'),
    lagP99Ms: lag('p99Ms'),
    lagPollMs: half.lag?.pollMs ?? 0,
    probeCpuMicrosPerEvent: ((half.lag?.polls ?? 0) * m.pollMicros) / half.events,
    singleEventsPerSecond: single.eventsPerSecond,
    singleP50Ms: single.p50Ms,
    singleP99Ms: single.p99Ms,
    postedAfterMs: m.postedAfterMs,
    postingCpuMicrosPerEvent: m.postingCpuMicrosPerEvent,
    peakRssBytes: m.peakRssBytes,
    memorySlopeBytesPerMinute: m.halfMemorySlopes,
    diskBytesPerEvent: m.disk.bytesPerEvent,
    rollupRows: m.disk.rollupRows,
    rollupRowsPerEvent: m.insert?.rollupRowsPerEvent ?? 0,
    ceilings: m.ceilings,
    totalsExact: m.differences.length === 0,
    differences: m.differences,
    received: m.received,
    duplicates: m.duplicates,
    measurements: m,
  };
}

function totalOf(parts: ByPart): number {
  return sumOf(mapParts(parts, (micros, part) => (part === 'load' ? 0 : micros)));
}

function withoutLoad(cpuMicros: Readonly<Record<string, number>>): number {
  return Object.entries(cpuMicros).reduce((sum, [name, micros]) => (name === 'load' ? sum : sum + micros), 0);
}
