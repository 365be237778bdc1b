/**
 * What must hold of a world when its products are silent, whatever was done to it before:
 *
 *   counted once   every event that was recorded stands once in the raw rows, and the rollups sum up to all of them
 *   conservation   received = counted + duplicate + rejected; nothing is a conflict or late; rejected is what was
 *                  poisoned, and each poisoned message is kept byte by byte
 *   checks         every query of aggregator/checks returns nothing
 *   alive          no process has ended that was not told to
 *   bounded        no process has taken more memory than its bound
 *
 * The first two are waited for, since the last events may still be on their way; that they come is a part of it.
 */
import { readFile } from 'node:fs/promises';
import { CHECKS, checkFile } from '../../aggregator/checks.ts';
import { until } from '../../test/until.ts';
import type { Load } from './load.ts';
import { METER, TENANT, type World } from './world.ts';

const COUNT_DEADLINE_MS = 120_000;
const NAMED_MAX = 5;

/** Peaks of resident memory that are allowed. Of the aggregator's, a backlog at its bound is 8 MiB. */
const MEMORY_BYTES_MAX: Readonly<Record<string, number>> = {
  edge: 384 * 1_048_576,
  aggregator: 384 * 1_048_576,
};

/** All as decimal text, so that two of them compare as they print. */
interface Totals {
  readonly rawRows: string;
  readonly rawIdentities: string;
  readonly rollupCount: string;
  readonly rollupSum: string;
  readonly counted: string;
  readonly rejected: string;
  /** Conflicts and late events. */
  readonly unexpected: string;
  /** Received from the log less everything that got a verdict. */
  readonly unaccounted: string;
  readonly refusedKept: string;
}

// One statement, so that asking often costs little. Views hold the FINAL.
const TOTALS = `
  SELECT
    (SELECT toString(count()) FROM event_rows WHERE tenant = '${TENANT}') AS rawRows,
    (SELECT toString(uniqExact(identity)) FROM event_rows WHERE tenant = '${TENANT}') AS rawIdentities,
    (SELECT toString(sum(value_count)) FROM usage_rows WHERE tenant = '${TENANT}' AND meter = '${METER}') AS rollupCount,
    (SELECT toString(sum(value_sum)) FROM usage_rows WHERE tenant = '${TENANT}' AND meter = '${METER}') AS rollupSum,
    (SELECT toString(sumIf(count, verdict = 'counted')) FROM verdicts) AS counted,
    (SELECT toString(sumIf(count, verdict = 'rejected')) FROM verdicts) AS rejected,
    (SELECT toString(sumIf(count, verdict NOT IN ('counted', 'duplicate', 'rejected'))) FROM verdicts) AS unexpected,
    (SELECT toString(toInt64((SELECT sum(count) FROM received)) - toInt64((SELECT sum(count) FROM verdicts)))) AS unaccounted,
    (SELECT toString(count()) FROM refused) AS refusedKept`;

/** Throws at the first that does not hold, with what differs. */
export async function checkInvariants(world: World, load: Load, withinMs = COUNT_DEADLINE_MS): Promise<void> {
  expectAlive(world);
  await expectCountedOnce(world, load, withinMs);
  await expectPoisonKept(world);
  for (const check of CHECKS) {
    const findings = await world.ch.rows<object>(
      (await readFile(checkFile(check), 'utf8')).trim().replace(/;$/, ''),
    );
    if (findings.length > 0) throw new Error(`${check}: ${JSON.stringify(findings.slice(0, NAMED_MAX))}`);
  }
  expectAlive(world);
  expectBounded(world);
}

async function expectCountedOnce(world: World, load: Load, withinMs: number): Promise<void> {
  const recorded = String(load.recorded);
  const poisoned = String(world.logs.poison.length);
  const wanted: Totals = {
    rawRows: recorded,
    rawIdentities: recorded,
    rollupCount: recorded,
    rollupSum: String(load.sum),
    counted: recorded,
    rejected: poisoned,
    unexpected: '0',
    unaccounted: '0',
    refusedKept: poisoned,
  };
  let found: Totals | undefined;
  let failing: unknown;
  const reached = async (): Promise<boolean> => {
    expectAlive(world);
    try {
      [found] = await world.ch.rows<Totals>(TOTALS);
    } catch (error) {
      // A ClickHouse that has just been started may refuse for a moment; if it goes on, the deadline tells.
      failing = error;
      return false;
    }
    return JSON.stringify(found) === JSON.stringify(wanted);
  };
  try {
    await until('every recorded event is counted once', reached, withinMs);
  } catch (error) {
    const end = world.stages.find(({ unexpectedEnd }) => unexpectedEnd !== null);
    if (end !== undefined) throw error;
    throw new Error(`${differences(found, wanted, failing)}${await missingOf(world, load)}`, {
      cause: error,
    });
  }
}

function differences(found: Totals | undefined, wanted: Totals, failing: unknown): string {
  if (found === undefined) return `the totals cannot be read: ${String(failing)}`;
  const names = Object.keys(wanted) as (keyof Totals)[];
  return names
    .filter((name) => found[name] !== wanted[name])
    .map((name) => `${name} is ${found[name]} and not ${wanted[name]}`)
    .join('; ');
}

/** Which of each product's events have no raw row, since a number alone tells nobody where to look. */
async function missingOf(world: World, load: Load): Promise<string> {
  const told: string[] = [];
  for (const { prefix, recorded } of load.products) {
    const rows = await world.ch.rows<{ number: string }>(
      `SELECT toString(n) AS number FROM (SELECT number AS n FROM numbers({recorded:UInt64})) WHERE n NOT IN (
         SELECT toUInt64(substring(id, {from:UInt32})) FROM event_rows WHERE startsWith(id, {prefix:String}))
       ORDER BY n`,
      { recorded, from: prefix.length + 2, prefix: `${prefix}-` },
    );
    if (rows.length === 0) continue;
    const some = rows.slice(0, NAMED_MAX).map(({ number }) => `${prefix}-${number}`);
    told.push(`${rows.length} events of ${prefix} are missing, such as ${some.join(', ')}`);
  }
  return told.length === 0 ? '' : `; ${told.join('; ')}`;
}

async function expectPoisonKept(world: World): Promise<void> {
  if (world.logs.poison.length === 0) return;
  const rows = await world.ch.rows<{ shard: number; message: string }>(
    `SELECT shard, data['message'] AS message FROM refused WHERE tenant = ''`,
  );
  const kept = rows.map(({ shard, message }) => `${shard} ${message}`).sort();
  const published = world.logs.poison
    .map(({ shard, poison }) => `${shard} ${Buffer.from(poison.bytes).toString('base64')}`)
    .sort();
  const at = published.findIndex((text, index) => text !== kept[index]);
  if (at === -1 && kept.length === published.length) return;
  throw new Error(`a refused message is not kept as it was: ${kept[at]} instead of ${published[at]}`);
}

function expectAlive(world: World): void {
  for (const { unexpectedEnd } of world.stages) if (unexpectedEnd !== null) throw new Error(unexpectedEnd);
}

function expectBounded(world: World): void {
  for (const { name, peakBytes } of world.stages) {
    const most = MEMORY_BYTES_MAX[name === 'edge' ? 'edge' : 'aggregator']!;
    if (peakBytes !== null && peakBytes > most) {
      throw new Error(`${name} took ${peakBytes} bytes of memory, more than ${most}`);
    }
  }
}
