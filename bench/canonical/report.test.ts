// The figures of a report, worked out by hand from measurements that are easy to add.
import { expect, test } from 'vitest';
import { printMemory, printReport } from './report-table.ts';
import { reportOf } from './report.ts';
import type { Measurements } from './run.ts';
import { memorySlopes, type Steady } from './steady.ts';

const lag = { events: 100, unseen: 0, p50Ms: 200, p99Ms: 400, maxMs: 500 };
const steady: Steady = {
  events: 500_000,
  requests: 5_000,
  askedEventsPerSecond: 50_000,
  eventsPerSecond: 50_000,
  p50Ms: 2,
  p99Ms: 8,
  ownDelayP50Ms: 0.5,
  ownDelayP99Ms: 1,
  queuedMax: 3,
  cpuMicrosPerEvent: { load: 1, edge: 2, nats: 1, aggregator: 4, clickhouse: 8, ledger: 1, postgres: 0.5 },
  lag: { visible: lag, posted: { ...lag, p99Ms: 900 }, pollMs: 50, polls: 200 },
  memory: [0, 60, 120, 180].map((seconds) => ({
    seconds,
    bytes: { edge: 100e6, aggregator: 100e6 + seconds * 1e6 },
  })),
};
const ceiling = (name: string, eventsPerSecond: number, cpuMicrosPerEvent: Record<string, number>) => ({
  name,
  events: 1_000,
  eventsPerSecond,
  cpuMicrosPerEvent,
});
const insert = {
  ...ceiling('insert', 400_000, { own: 0.5, clickhouse: 2 }),
  rollupRowsPerEvent: 1.5,
  flushEvents: 200_000,
};
const measurements: Measurements = {
  options: {
    seed: 1,
    subjects: 100_000,
    customers: 1_000,
    withLedger: true,
    seconds: 20,
    halfSeconds: 10,
    singleSeconds: 10,
  },
  ceilings: [
    ceiling('publish, packed', 2_000_000, { own: 0.2, nats: 0.3 }),
    ceiling('publish, single', 30_000, { own: 30, nats: 6 }),
    ceiling('read', 3_000_000, { own: 0.3, nats: 0.1 }),
    ceiling('empty server', 8_000_000, { load: 0.5, server: 0.1 }),
    ceiling('JSON.parse server', 900_000, { load: 0.5, server: 0.9 }),
    insert,
  ],
  insert,
  sustained: {
    events: 2_000_000,
    requests: 20_000,
    eventsPerSecond: 100_000,
    seconds: 20,
    sendingEventsPerSecond: 150_000,
    p50Ms: 5,
    p99Ms: 20,
    cpuMicrosPerEvent: { load: 0.5, edge: 2, nats: 1, aggregator: 3, clickhouse: 6, ledger: 1, postgres: 1 },
    requestBytes: 23_000,
  },
  half: steady,
  halfMemorySlopes: memorySlopes(steady.memory),
  single: steady,
  pollMicros: 5_000,
  postedAfterMs: 1_500,
  postingCpuMicrosPerEvent: { ledger: 0.5, postgres: 0.5 },
  peakRssBytes: { edge: 100e6 },
  disk: {
    bytesPerEvent: { nats: 80, clickhouse: 60, tables: { events: 40, rollup_hour: 20 } },
    rollupRows: 12,
  },
  received: 3_000_000,
  duplicates: 60_000,
  differences: [],
};

test('ratios are to the slowest of the best parts, and to the sum of what they cost', () => {
  const report = reportOf(measurements);
  expect(report.cpuMicrosPerEvent.total).toBe(14);
  expect(report.slowestPart).toBe('insert');
  expect(report.ratioToSlowestPart).toBe(0.25);
  // An empty server 0.1, packed publishing 0.5, reading 0.4, inserting 2.5: no single publish, no parse, no load.
  expect(report.sumOfPartsCpuMicros).toBeCloseTo(3.5, 9);
  expect(report.ratioToSumOfParts).toBeCloseTo(0.25, 9);
  expect(report.lagP99Ms).toEqual({ visible: 400, posted: 900 });
  // 200 questions of 5 ms over 500,000 events.
  expect(report.probeCpuMicrosPerEvent).toBe(2);
  expect(report.totalsExact).toBe(true);
});

test('what differs, and what the machine could not do, is said', () => {
  expect(printReport(reportOf(measurements))).toContain('every total is exact');
  const late = { ...steady, eventsPerSecond: 40_000, lag: { ...steady.lag!, posted: { ...lag, unseen: 7 } } };
  const text = printReport(
    reportOf({ ...measurements, half: late, differences: ['counted is 1 and not 2'] }),
  );
  expect(text).toContain('TOTALS DIFFER\n  counted is 1 and not 2');
  expect(text).toContain('half the rate: only 40,000 of 50,000 events a second were answered');
  expect(text).toContain('7 of 100 events of the probe were not posted');
});

test('memory that rises is told from memory that is flat', () => {
  const report = reportOf(measurements);
  expect(report.memorySlopeBytesPerMinute.edge).toBeCloseTo(0, 3);
  expect(report.memorySlopeBytesPerMinute.aggregator).toBeCloseTo(60e6, 3);
  expect(printMemory(report)).toMatch(/^edge .*flat$/m);
  expect(printMemory(report)).toMatch(/^aggregator .*RISES$/m);
});
