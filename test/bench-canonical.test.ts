// The canonical benchmark itself, in small: every stage, every phase, and that a wrong total is found.
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { benchCanonical, type CanonicalOptions } from '../bench/canonical/run.ts';
import { differencesOf, type ExpectedTotals } from '../bench/canonical/differences.ts';
import { readTotals } from '../bench/canonical/found.ts';
import { printReport } from '../bench/canonical/report-table.ts';
import { resultLine } from '../bench/canonical/results.ts';
import { subjectName, TENANT } from '../bench/canonical/workload.ts';
import type { World } from '../bench/canonical/world.ts';

const SMALL: CanonicalOptions = {
  seed: 5,
  subjects: 2_000,
  customers: 10,
  withLedger: true,
  seconds: 10,
  eventsMax: 50_000,
  warmupSeconds: 0.1,
  ceilingSeconds: 0.1,
  halfSeconds: 0.5,
  rate: 5_000,
  singleSeconds: 0.5,
  singleRate: 500,
  profileFolder: null,
  onProgress: () => undefined,
};

/** A rollup row more, such as an aggregator would write that counted an event of the subject twice. */
async function meddle({ ch }: World, subject: string): Promise<void> {
  await ch.command(
    `INSERT INTO rollup_hour
     SELECT * REPLACE (value_count + 1 AS value_count, value_sum + 1 AS value_sum, position + 1 AS position)
     FROM rollup_hour FINAL
     WHERE tenant = {tenant:String} AND meter IN ('input_tokens', 'requests') AND subject = {subject:String} LIMIT 1 BY meter`,
    { tenant: TENANT, subject },
  );
}

test('a run of 50,000 events has exact totals and all figures, and finds a total that is wrong', async () => {
  let meddled: readonly string[] = [];
  let subject = '';
  const onCompared = async (world: World, expected: ExpectedTotals): Promise<void> => {
    subject = subjectName(world.billed[0]!);
    await meddle(world, subject);
    meddled = differencesOf(expected, await readTotals(world.ch, world.pg));
  };
  let folder = '';
  const report = await benchCanonical({
    ...SMALL,
    onCompared,
    onWorld: ({ engines }) => (folder = engines.dir),
  });
  expect(report.differences).toEqual([]);
  expect(report.totalsExact).toBe(true);
  expect(report.received).toBeGreaterThan(50_000);
  expect(report.duplicates / report.received).toBeCloseTo(0.02, 3);
  expect(report.measurements.sustained.events).toBe(50_000);

  // One row of two meters says more than it should: the sums of both, and this subject's, are named.
  expect(meddled).toHaveLength(4);
  expect(meddled.join('\n')).toMatch(/^input_tokens, all subjects is \d+ and not \d+$/m);
  expect(meddled.join('\n')).toContain(`input_tokens, 1 subjects or groups: ${subject}`);
  expect(meddled.join('\n')).toContain(`requests, 1 subjects or groups: ${subject}`);

  const parts = ['load', 'edge', 'nats', 'aggregator', 'clickhouse', 'ledger', 'postgres'];
  expect(Object.keys(report.cpuMicrosPerEvent)).toEqual([...parts, 'total']);
  expect(report.ceilings.map(({ name }) => name)).toEqual([
    'publish, packed',
    'publish, single',
    'read',
    'empty server',
    'JSON.parse server',
    'insert',
  ]);
  const positive = {
    rate: report.eventsPerSecond,
    edge: report.edgeP99Ms,
    visible: report.lagP99Ms.visible,
    posted: report.lagP99Ms.posted,
    slowest: report.ratioToSlowestPart,
    sum: report.ratioToSumOfParts,
    memory: report.peakRssBytes.aggregator,
    log: report.diskBytesPerEvent.nats,
    raw: report.diskBytesPerEvent.tables['events'],
  };
  expect(Object.entries(positive).filter(([, value]) => !(value !== undefined && value > 0))).toEqual([]);
  expect(report.lagP99Ms.posted).toBeGreaterThanOrEqual(report.lagP50Ms.visible);
  expect(JSON.parse(JSON.stringify(resultLine(report, 0)))).toMatchObject({
    at: '1970-01-01T00:00:00.000Z',
    seed: 5,
  });
  expect(printReport(report)).toContain('every total is exact');
  expect(() => readdirSync(folder)).toThrow();
}, 60_000);
