// Several aggregators on one set of shards: who counts what, and that two of them at once change nothing. Every process
// counts real events on real engines; at the end of each test the totals are exact.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { FencedError } from '../aggregator/fence.ts';
import { leaseKey } from '../aggregator/lease.ts';
import { natsLog } from '../aggregator/nats-log.ts';
import { recover } from '../aggregator/recover.ts';
import { clickHouseTables } from '../aggregator/tables.ts';
import { timingOf } from '../aggregator/timing.ts';
import type { Meter } from '../contract/meter.ts';
import { BUCKET_LEASES } from '../contract/subjects.ts';
import { systemClock } from '../runtime/clock.ts';
import { openKeyValue } from '../runtime/nats.ts';
import { AggregatorWorld, EventSource, type Aggregator } from './aggregator-world.ts';
import { until } from './until.ts';

const SHARDS = 4;
const TTL_MS = 2_000;
const tokens = {
  key: 'tokens',
  eventType: 'llm',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: ['model'],
} as unknown as Meter;

let world: AggregatorWorld;
const source = new EventSource();
const processes = new Map<string, Aggregator>();

beforeAll(async () => {
  world = await AggregatorWorld.start(SHARDS);
  world.log.define('acme', tokens);
  await world.log.acknowledged();
}, 120_000);
afterEach(async () => {
  await Promise.all([...processes.keys()].map((name) => end(name, 'SIGKILL')));
});
afterAll(async () => {
  await world?.close();
});

async function start(name: string): Promise<Aggregator> {
  const started = await world.launch({
    TALLYLINE_AGGREGATOR_NAME: name,
    TALLYLINE_LEASE_TTL_MS: String(TTL_MS),
    TALLYLINE_LOG_LEVEL: 'info',
  });
  if (started.ops === '') throw new Error(`${name} did not start:\n${started.output.join('')}`);
  processes.set(name, started);
  return started;
}

async function end(name: string, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
  const ended = processes.get(name);
  processes.delete(name);
  ended?.process.kill('SIGCONT');
  ended?.process.kill(signal);
  await ended?.exited;
}

/** By shard, the name of the newest owner. */
async function owners(): Promise<string[]> {
  const rows = await world.ch.rows<{ owner: string }>(
    'SELECT owner FROM shard_owners WHERE shard < {shards:UInt16} ORDER BY shard',
    {
      shards: SHARDS,
    },
  );
  return rows.map(({ owner }) => owner.split('.')[0]!);
}

async function ownedBy(shards: Readonly<Record<string, number>>, withinMs = 60_000): Promise<void> {
  const expected = JSON.stringify(Object.entries(shards).sort());
  await until(
    `shards ${expected}`,
    async () => {
      const found: Record<string, number> = {};
      for (const name of await owners()) found[name] = (found[name] ?? 0) + 1;
      return JSON.stringify(Object.entries(found).sort()) === expected;
    },
    withinMs,
  );
}

/** Sends events until it is told to stop, and watches for how long each shard's watermark stands still. */
function load(): { stop(): Promise<{ pauseMs: number; sent: number }> } {
  let going = true;
  let sent = 0;
  let pauseMs = 0;
  const sending = (async () => {
    while (going) {
      world.log.send(source.fresh(100), Date.now());
      sent += 100;
      await world.log.acknowledged();
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  const moved = new Map<number, { sequence: number; atMs: number }>();
  const watching = (async () => {
    while (going) {
      const now = performance.now();
      for (const [shard, { sequence }] of await world.watermarks()) {
        const last = moved.get(shard);
        if (last !== undefined) pauseMs = Math.max(pauseMs, now - last.atMs);
        if (last?.sequence !== sequence) moved.set(shard, { sequence, atMs: now });
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  return {
    async stop() {
      going = false;
      await Promise.all([sending, watching]);
      return { pauseMs, sent };
    },
  };
}

const said = (name: string, what: string): boolean => processes.get(name)!.output.join('').includes(what);

test('an owner that was replaced changes no table, whatever it still wants to write', async () => {
  const timing = timingOf(systemClock);
  const { signal } = new AbortController();
  // A shard of its own, which no process counts.
  const shard = SHARDS;
  await world.makeStream(shard);
  await start('first');
  const tablesOf = (owner: string) =>
    clickHouseTables({ ch: world.ch, owner, timing, mayWrite: () => Promise.resolve() });
  const [old, young] = [tablesOf('old'), tablesOf('young')];
  expect(await old.takeOver(shard, 1, signal)).toBe(1);
  const bounds = {
    dedupeKeysMax: 1_000,
    dedupeFilterBytesMax: 65_536,
    rollupRowsMax: 1_000,
    bucketKey: '00112233445566778899aabbccddeeff',
  };
  const shardLog = natsLog(world.link, shard);
  const state = await recover({
    tables: old,
    shardLog,
    shard,
    timing,
    signal,
    ...bounds,
    onLoss: () => expect.unreachable(),
  });
  expect(await young.takeOver(shard, 1, signal)).toBe(2);

  const count = async (): Promise<string> => {
    const of = ['watermarks', 'incarnations', 'log_marks', 'received_totals', 'verdict_totals', 'meters'];
    const parts = of.map(
      (table) => `SELECT '${table}' AS t, count() AS n FROM ${table} WHERE shard = ${shard}`,
    );
    return JSON.stringify(await world.ch.rows(`SELECT * FROM (${parts.join(' UNION ALL ')}) ORDER BY t`));
  };
  const before = await count();
  const { watermark } = state;
  const higher = { ...watermark, sequence: 9 };
  const mark = { sequence: 9, timeMs: 1, checksum: 1 };
  const counter = { tenant: 'acme', verdict: '', code: '', count: 1, position: 1 } as never;
  const attempts: readonly [string, () => Promise<void>][] = [
    ['watermark', () => old.insertWatermarks([{ shard, watermark: higher }], 1)],
    ['marks', () => old.insertMarks([{ shard, incarnation: 1, marks: [mark] }], 1)],
    ['received', () => old.insertReceived([{ shard, incarnation: 1, counters: [counter] }])],
    ['beginning', () => old.saveBeginning(shard, { watermark: higher, sequenceBefore: 0, reason: 'x' }, 1)],
  ];
  for (const [what, attempt] of attempts) {
    await expect(attempt(), what).rejects.toBeInstanceOf(FencedError);
  }
  // With nothing to finish there is nothing to refuse; it must not write either.
  await old.finishIncarnation({ shard, behind: 0n, until: 2n ** 57n }).catch(() => {});
  expect(await count()).toBe(before);
  await young.insertWatermarks([{ shard, watermark: higher }], 1);
  expect((await young.loadWatermark(shard))?.sequence).toBe(9);
  // Of two that chose the same epoch at once one is the newer, and the other one finds out.
  const same = [tablesOf('twin-a'), tablesOf('twin-b')];
  const both = await Promise.allSettled(same.map((one) => one.takeOver(shard, 7, signal)));
  const writers = await Promise.allSettled(
    same.map((one) => one.insertWatermarks([{ shard, watermark: higher }], 1)),
  );
  expect(both.some(({ status }) => status === 'fulfilled')).toBe(true);
  expect(writers.filter(({ status }) => status === 'fulfilled').length).toBe(1);
  young.giveUp(shard);
  await expect(young.insertWatermarks([{ shard, watermark: higher }], 1)).rejects.toBeInstanceOf(FencedError);
  for (const table of ['watermarks', 'incarnations', 'owners'])
    await world.ch.command(`DELETE FROM ${table} WHERE shard = ${shard}`);
});

test('what is killed is taken over, a newcomer gets its share, and no shard pauses for 10 s', async () => {
  await start('a');
  await ownedBy({ a: 4 });
  const running = load();
  await start('b');
  await ownedBy({ a: 2, b: 2 });
  expect(said('a', 'shard handed over')).toBe(true);
  await end('b', 'SIGKILL');
  await ownedBy({ a: 4 });
  await start('b');
  await ownedBy({ a: 2, b: 2 });
  // One that leaves in order is not waited for.
  await end('a', 'SIGTERM');
  await ownedBy({ b: 4 });
  const { pauseMs } = await running.stop();
  await world.expectTotals();
  console.info(`longest pause ${Math.round(pauseMs)} ms`);
  expect(pauseMs).toBeLessThan(10_000);
});

test('one that was stopped past its lease changes nothing when it wakes, and counts again later', async () => {
  await start('a');
  await ownedBy({ a: 4 });
  const running = load();
  const { pid } = processes.get('a')!.process;
  await start('b');
  await ownedBy({ a: 2, b: 2 });
  process.kill(pid!, 'SIGSTOP');
  await ownedBy({ b: 4 });
  process.kill(pid!, 'SIGCONT');
  await until('giving up', () => said('a', 'it is given up') || said('a', 'another process counts'), 60_000);
  await ownedBy({ a: 2, b: 2 });
  await running.stop();
  await world.expectTotals();
});

test('leases that are torn from living owners, again and again, end in exact totals', async () => {
  await start('a');
  await ownedBy({ a: 4 });
  const running = load();
  await start('b');
  await ownedBy({ a: 2, b: 2 });
  const bucket = await openKeyValue(world.link, BUCKET_LEASES);
  // The entries change under their owners, who still read and flush, back and forth.
  for (let turn = 0; turn < 6; turn++) {
    for (let shard = 0; shard < SHARDS; shard++) {
      const found = await bucket.get(leaseKey(shard));
      if (found === null) continue;
      const lease = JSON.parse(found.value) as { epoch: number };
      await bucket.put(
        leaseKey(shard),
        JSON.stringify({ owner: '', instance: '', epoch: lease.epoch + 1, successor: turn % 2 ? 'a' : 'b' }),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await running.stop();
  await ownedBy({ a: 2, b: 2 });
  await world.expectTotals();
});

test('one aggregator becomes four and then two under load: no shard pauses for 10 s, and the totals are exact', async () => {
  await start('a');
  await ownedBy({ a: 4 });
  const running = load();
  await Promise.all(['b', 'c', 'd'].map(start));
  await ownedBy({ a: 1, b: 1, c: 1, d: 1 });
  await Promise.all([end('a', 'SIGTERM'), end('c', 'SIGKILL')]);
  await ownedBy({ b: 2, d: 2 });
  const { pauseMs, sent } = await running.stop();
  console.info(`longest pause ${Math.round(pauseMs)} ms, ${sent} events`);
  await world.expectTotals();
  expect(pauseMs).toBeLessThan(10_000);
});
