// What the broker loses of a log that was read: every event that was ever durable counts once, whatever was lost,
// sent again, or sent to the very place where something else was lost. One aggregator, one model, through all tests;
// the storage of NATS is cut back by putting an earlier copy of it in its place.
import { createHash } from 'node:crypto';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseWatermarkRecord } from '../contract/notice.ts';
import { packPosition } from '../contract/position.ts';
import type { Meter } from '../contract/meter.ts';
import { BUCKET_WATERMARKS, streamName } from '../contract/subjects.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { openKeyValue, type NatsLink } from '../runtime/nats.ts';
import { AggregatorWorld, EventSource } from './aggregator-world.ts';
import { until } from './until.ts';
import type { Sent, UsageLog } from './usage-log.ts';

const SHARDS = 2;
const tokens: Meter = {
  key: 'tokens',
  eventType: 'llm',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: ['model', 'region'],
};
const requests: Meter = {
  ...tokens,
  key: 'requests',
  aggregation: 'count',
  valueProperty: null,
  groupBy: [],
};

let world: AggregatorWorld;
let link: NatsLink;
let ch: ClickHouse;
let log: UsageLog;
const source = new EventSource();

/** Blocks that can be sent again as they were. */
type Blocks = readonly { readonly events: readonly Sent[]; readonly acceptedAtMs: number }[];

function someBlocks(count: number, make: () => Sent[] = () => source.some(100)): Blocks {
  return Array.from({ length: count }, () => ({ events: make(), acceptedAtMs: Date.now() }));
}

/** Publishes blocks in order, and waits until the log has them. */
async function send(blocks: Blocks): Promise<void> {
  for (const { events, acceptedAtMs } of blocks) {
    log.send(events, acceptedAtMs);
    await log.acknowledged();
  }
}

const copy = (name: string): string => join(world.engines.dir, name);

/** Keeps a copy of the broker's storage as it is now. The broker is killed for it. */
async function keepStorage(name: string): Promise<void> {
  await world.engines.nats.kill();
  rmSync(copy(name), { recursive: true, force: true });
  cpSync(copy('nats'), copy(name), { recursive: true });
  await startNats();
}

/** Puts the copy in the place of the broker's storage. */
async function cutBack(name: string): Promise<void> {
  await world.engines.nats.kill();
  rmSync(copy('nats'), { recursive: true });
  cpSync(copy(name), copy('nats'), { recursive: true });
  await startNats();
}

async function startNats(): Promise<void> {
  await world.engines.nats.restart();
  await until('the connection of the test', () => link.connected);
  await until('the streams', async () => {
    try {
      log.rewind(await lastSequences());
      return true;
    } catch {
      return false;
    }
  });
}

async function lastSequences(): Promise<number[]> {
  const streams = Array.from({ length: SHARDS }, (_, shard) => link.jsm.streams.info(streamName(shard)));
  return (await Promise.all(streams)).map(({ state }) => state.last_seq);
}

/** The incarnation of each shard. */
async function incarnations(): Promise<number[]> {
  const marks = await world.watermarks();
  return Array.from({ length: SHARDS }, (_, shard) => marks.get(shard)?.incarnation ?? 0);
}

/** Waits until each shard has begun one more. */
async function incarnationBehind(before: readonly number[]): Promise<void> {
  await world.eventually('a new incarnation of each shard', async () =>
    (await incarnations()).every((one, shard) => one === before[shard]! + 1),
  );
}

async function countRows(sql: string): Promise<number> {
  const [row] = await ch.rows<{ n: string }>(sql);
  return Number(row!.n);
}

const beyondWatermark = (table: string): Promise<number> =>
  countRows(`SELECT count() AS n FROM ${table} AS t INNER JOIN watermarks AS w FINAL ON w.shard = t.shard
    WHERE t.position > w.position`);

/** Inserts into these tables fail until they are opened again. */
async function closing(tables: readonly string[], work: () => Promise<void>): Promise<void> {
  for (const table of tables) await ch.command(`ALTER TABLE ${table} ADD CONSTRAINT closed CHECK 0`);
  try {
    await work();
  } finally {
    for (const table of tables) await ch.command(`ALTER TABLE ${table} DROP CONSTRAINT closed`);
  }
}

/** Whether each shard has written down that it read messages behind these. */
async function readBeyond(sequences: readonly number[]): Promise<boolean> {
  const rows = await ch.rows<{ shard: number; last: string }>(
    `SELECT shard, max(last_sequence) AS last FROM log_marks
     WHERE (shard, incarnation) IN (SELECT shard, max(incarnation) FROM log_marks GROUP BY shard) GROUP BY shard`,
  );
  return sequences.every((sequence, shard) =>
    rows.some((row) => row.shard === shard && Number(row.last) > sequence),
  );
}

/** What `npm run faults` and the simulator do at length is done here only when it is asked for. */
const isLong = process.env['TALLYLINE_TEST_LONG'] !== undefined;

/** A flush is full with a block of each shard, and the next one is begun while it cannot be written. */
const SMALL_FLUSHES = { TALLYLINE_FLUSH_EVENTS_MAX: '2' };

beforeAll(async () => {
  world = await AggregatorWorld.start(SHARDS);
  ({ link, ch, log } = world);
  log.define('acme', tokens);
  log.define('acme', requests);
  log.define('rival', requests);
  await send(someBlocks(6));
  await world.start(SMALL_FLUSHES);
  await world.expectExact();
});

afterAll(async () => {
  await world?.close();
});

describe('a broker that comes back with an earlier state', () => {
  test('one that comes back whole is no loss', async () => {
    await keepStorage('base');
    await send(someBlocks(3));
    await world.expectExact();
    expect(await incarnations()).toEqual([1, 1]);
    expect(await world.metric('tallyline_aggregator_incarnations_count')).toBe(SHARDS);
  });

  test('while the aggregator runs: what was counted and is sent again is a duplicate, the rest goes on', async () => {
    await keepStorage('base');
    const lost = someBlocks(5);
    await send(lost);
    await world.expectExact();
    const before = await incarnations();
    await cutBack('base');
    await incarnationBehind(before);
    // Nothing is sent again yet: what was counted is counted, and what survived was not received a second time.
    await world.expectExact();
    await send(lost);
    await send(someBlocks(4));
    await world.expectExact();
    expect(await (await fetch(`${world.running!.ops}/readyz`)).text()).toContain('ready');
    const alert = world.running!.output.find((line) => line.includes('incarnation mismatch'));
    expect(alert).toMatch(/"level":(50|"error")/);
    expect(alert).toContain('send everything again');
  });

  test('what it has read and not made durable is counted, though nobody else has it any more', async () => {
    await keepStorage('base');
    const kept = log.lastSequences;
    const before = await incarnations();
    await closing(['events'], async () => {
      await send(someBlocks(8));
      await world.eventually('messages read', () => readBeyond(kept));
      await cutBack('base');
      await world.eventually('the loss seen', async () =>
        [0, 1].every((shard) =>
          world.running!.output.some(
            (line) => line.includes(`"shard":${shard}`) && line.includes('not the one that was read'),
          ),
        ),
      );
      expect(await incarnations()).toEqual(before);
    });
    await incarnationBehind(before);
    await send(someBlocks(2));
    await world.expectExact();
  });

  test('a definition that only a flush without end had counts what comes, by its rules', async () => {
    const largest: Meter = { ...tokens, key: 'largest', aggregation: 'max' };
    const rules = (): Promise<number> =>
      countRows(`SELECT count() AS n FROM meter_rules WHERE meter = 'largest'`);
    await keepStorage('base');
    await closing(['rule_sets'], async () => {
      log.define('acme', largest);
      await log.acknowledged();
      await world.eventually('a definition', async () => (await beyondWatermark('meters')) > 0);
      await world.end('SIGKILL');
    });
    expect(await rules()).toBe(0);
    await cutBack('base');
    // A shard whose part that flush did not have has lost nothing that anybody has read: no incarnation ends.
    await world.start(SMALL_FLUSHES);
    await world.eventually('its rules', async () => (await rules()) > 0);
    // Said once more, for the shard whose part that flush did not have.
    log.define('acme', largest);
    await send(someBlocks(4));
    await world.expectExact();
  });

  test('when the log has grown beyond our place before we look, with the same messages at the same places', async () => {
    await keepStorage('base');
    const [first, ...others] = someBlocks(6, () => source.fresh(100));
    await send([first!, ...others]);
    await world.expectExact();
    const before = await incarnations();
    world.running!.process.kill('SIGSTOP');
    await cutBack('base');
    // In the place of the first block is another; the ones behind it are the very messages that were there before.
    await send(someBlocks(1, () => source.fresh(100)));
    await send(others);
    await send(someBlocks(2));
    world.running!.process.kill('SIGCONT');
    await incarnationBehind(before);
    await world.expectExact();
  });

  test('when it has grown exactly to our place, it does not take another message to see it', async () => {
    await keepStorage('base');
    await send(someBlocks(3, () => source.fresh(100)));
    await world.expectExact();
    const before = await incarnations();
    world.running!.process.kill('SIGSTOP');
    await cutBack('base');
    await send(someBlocks(3, () => source.fresh(100)));
    world.running!.process.kill('SIGCONT');
    await incarnationBehind(before);
    await world.expectExact();
  });

  test('while the aggregator is down: what it had never read counts when it is sent again', async () => {
    await keepStorage('base');
    const counted = someBlocks(3);
    await send(counted);
    await world.expectExact();
    const before = await incarnations();
    expect(await world.end('SIGTERM')).toBe(0);
    const judged = log.snapshot();
    const neverRead = someBlocks(3);
    await send(neverRead);
    log.restore(judged);
    await cutBack('base');
    await send(neverRead);
    await send(counted);
    await world.start();
    await incarnationBehind(before);
    await world.expectExact();
  });

  test('the lost data brought back is recognized, and nothing of it is received again', async () => {
    await keepStorage('base');
    await send(someBlocks(3));
    await world.expectExact();
    await keepStorage('whole');
    const before = await incarnations();
    await cutBack('base');
    await incarnationBehind(before);
    await send(someBlocks(2));
    await world.expectExact();
    await cutBack('whole');
    await incarnationBehind(before.map((one) => one + 1));
    await world.expectExact();
    await send(someBlocks(2));
    await world.expectExact();
  });
});

describe('a flush that crashed, and a log that was lost below it', () => {
  const derived = ['rollup_hour', 'refused_events', 'received_totals', 'verdict_totals'];
  interface Crash {
    /** The tables whose rows it came before. */
    readonly closed: readonly string[];
    /** Only a part of the raw rows was written. */
    readonly inPart?: boolean;
    /** The log ends below the watermark, at it, or within what the flush had read. */
    readonly cut: 'below' | 'at' | 'within';
    /** Other messages than before stand where the lost ones stood, and further. */
    readonly grown: boolean;
    /** What was lost is brought back instead of being sent again. */
    readonly broughtBack?: boolean;
  }
  /** The first three here always; the others, which the simulator has in every order, with TALLYLINE_TEST_LONG. */
  const crashes: readonly [string, Crash][] = [
    [
      'behind a part of the raw rows, with a part of the messages in the log',
      { closed: derived, inPart: true, cut: 'within', grown: true },
    ],
    ['before what was refused', { closed: ['refused_events'], cut: 'at', grown: false }],
    ['before the watermark', { closed: ['watermarks'], cut: 'within', grown: false }],
    ['behind a part of the raw rows', { closed: derived, inPart: true, cut: 'at', grown: false }],
    [
      'behind a part of the raw rows, with the log brought back',
      { closed: derived, inPart: true, cut: 'at', grown: true, broughtBack: true },
    ],
    ['behind the raw rows', { closed: derived, cut: 'below', grown: false }],
    ['before the rollups', { closed: ['rollup_hour'], cut: 'at', grown: true }],
  ];

  /** The tables that a flush writes although it cannot write these: nothing is counted before what was refused is kept. */
  const reachedBefore = (closed: readonly string[]): string[] =>
    closed.includes('refused_events')
      ? ['events']
      : ['events', ...derived].filter((table) => !closed.includes(table));

  test.each(isLong ? crashes : crashes.slice(0, 3))(
    '%s',
    async (_, { closed, inPart = false, cut, grown, broughtBack = false }) => {
      if (cut === 'below') await keepStorage('base');
      // For a cut within what was read, all of it must come together before the flush is taken.
      await world.start(cut === 'within' ? { TALLYLINE_FLUSH_INTERVAL_MS: '3000' } : SMALL_FLUSHES);
      const before = await incarnations();
      await send(someBlocks(1));
      await world.drained();
      if (cut === 'at') await keepStorage('base');
      let kept = log.lastSequences;
      const lost = someBlocks(4, () => [...source.some(150), ...source.refused(20)]);
      await closing(closed, async () => {
        await send(lost.slice(0, 2));
        if (cut === 'within') {
          await keepStorage('base');
          kept = log.lastSequences;
        }
        await send(lost.slice(2));
        await world.eventually('rows beyond the watermark', async () => {
          if ((await world.metric('tallyline_aggregator_flush_failures_total')) === 0) return false;
          if (!(await readBeyond(kept))) return false;
          const found = await Promise.all(reachedBefore(closed).map(beyondWatermark));
          return found.every((rows) => rows > 0);
        });
        await world.end('SIGKILL');
      });
      if (inPart) {
        await ch.command(
          `ALTER TABLE events DELETE WHERE sipHash64(identity) % 2 = 0 AND (shard, position) IN (
           SELECT e.shard, e.position FROM events AS e INNER JOIN watermarks AS w FINAL ON w.shard = e.shard
           WHERE e.position > w.position)
         SETTINGS mutations_sync = 2`,
        );
      }
      const raw = await countRows('SELECT count() AS n FROM event_rows');
      if (broughtBack) await keepStorage('whole');

      await cutBack('base');
      const other = someBlocks(grown ? 8 : 0, () => source.fresh(40));
      await send(other);
      await world.start();
      await incarnationBehind(before);
      await world.drained();
      // Not sent again: what was durable counts, and what the log still has.
      await world.expectChecks();
      const fresh = other.reduce((sum, { events }) => sum + events.length, 0);
      const stored = await countRows('SELECT count() AS n FROM event_rows');
      if (cut === 'within') expect(stored).toBeGreaterThanOrEqual(raw + fresh);
      else expect(stored).toBe(raw + fresh);
      expect(await countRows(`SELECT sum(count) AS n FROM verdicts WHERE verdict = 'counted'`)).toBe(stored);

      // What the log has lost is sent again, or is there again: each counts once.
      if (broughtBack) {
        const between = await incarnations();
        await cutBack('whole');
        await incarnationBehind(between);
      } else {
        await send(cut === 'within' ? lost.slice(2) : lost);
      }
      await send(someBlocks(1));
      await world.expectTotals();
    },
  );

  test('a new incarnation that was interrupted is begun again, even when the log has come back', async () => {
    await world.start();
    await keepStorage('base');
    await send(someBlocks(2));
    await world.expectTotals();
    await keepStorage('whole');
    const before = await incarnations();
    await world.end('SIGKILL');
    await cutBack('base');
    await closing(['watermarks'], async () => {
      const starting = world.spawn();
      await world.eventually('a beginning without its watermark', async () =>
        starting.output.join('').includes('violated'),
      );
      starting.process.kill('SIGKILL');
      await starting.exited;
    });
    expect(await incarnations()).toEqual(before);
    await cutBack('whole');
    await send(someBlocks(1));
    await world.start();
    await world.expectTotals();
    // The first shard had begun; the other had not come to it, and has its log back.
    expect(await incarnations()).toEqual([before[0]! + 1, before[1]!]);
  });
});

test('a log that is purged to its last message is the same log still', async () => {
  await world.start();
  await send(someBlocks(25));
  await world.expectTotals();
  await world.end('SIGTERM');
  const before = await incarnations();
  const sizes: number[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    const { config, state } = await link.jsm.streams.info(streamName(shard));
    sizes.push(config.max_bytes);
    await link.jsm.streams.update(streamName(shard), { ...config, max_bytes: Math.ceil(state.bytes * 1.5) });
  }
  await world.start({ TALLYLINE_STREAM_BYTES_MAX: '65536', TALLYLINE_LOG_KEEP_BYTES: '0' });
  await world.eventually('a purge', async () => {
    for (let shard = 0; shard < SHARDS; shard++) {
      const { state } = await link.jsm.streams.info(streamName(shard));
      if (state.first_seq !== state.last_seq) return false;
    }
    return true;
  });
  await send(someBlocks(1));
  await world.expectTotals();
  await world.start();
  await send(someBlocks(1));
  await world.expectTotals();
  expect(await incarnations()).toEqual(before);
  for (const [shard, max_bytes] of sizes.entries()) {
    const { config } = await link.jsm.streams.info(streamName(shard));
    await link.jsm.streams.update(streamName(shard), { ...config, max_bytes });
  }
});

describe('a log that is not there', () => {
  test('a stream that was deleted and made anew is counted from its start', async () => {
    await world.start();
    await world.expectTotals();
    const before = await incarnations();
    const again = someBlocks(2);
    await send(again);
    await world.expectTotals();
    for (let shard = 0; shard < SHARDS; shard++) {
      await link.jsm.streams.delete(streamName(shard));
      await world.makeStream(shard);
    }
    log.rewind(await lastSequences());
    await incarnationBehind(before);
    await send(again);
    await send(someBlocks(2));
    await world.expectTotals();
  });

  test('a stream that was deleted is made again, and counted', async () => {
    const before = await incarnations();
    for (let shard = 0; shard < SHARDS; shard++) await link.jsm.streams.delete(streamName(shard));
    await incarnationBehind(before);
    log.rewind(await lastSequences());
    await send(someBlocks(2));
    await world.expectTotals();
  });

  test('a hole: what is missing is lost, and what stands behind it counts', async () => {
    await world.start();
    await send(someBlocks(2));
    await world.expectTotals();
    const before = await incarnations();
    await world.end('SIGTERM');
    const judged = log.snapshot();
    await send(someBlocks(2, () => source.fresh(100)));
    const missing = log.lastSequences;
    log.restore(judged);
    await send(someBlocks(2, () => source.fresh(100)));
    // Of the two blocks the first stays before the hole in one shard and is a part of it in the other.
    for (const [shard, sequence] of missing.entries()) {
      await link.jsm.streams.deleteMessage(streamName(shard), sequence);
      await link.jsm.streams.deleteMessage(streamName(shard), sequence - 1);
    }
    await world.start();
    await incarnationBehind(before);
    await world.expectTotals();
    await send(someBlocks(1));
    await world.expectTotals();
  });

  test('a hole in front of a running aggregator', async () => {
    const little = String(64 * 1024);
    await world.start({
      TALLYLINE_AGGREGATOR_BACKLOG_BYTES_MAX: little,
      TALLYLINE_AGGREGATOR_READ_BYTES_MAX: little,
    });
    const before = await incarnations();
    await closing(['events'], async () => {
      // More than it may read before anything of it is durable: the hole is made where it has not come to yet.
      await send(someBlocks(30, () => source.fresh(200)));
      const judged = log.snapshot();
      await send(someBlocks(1, () => source.fresh(100)));
      const missing = log.lastSequences;
      log.restore(judged);
      await send(someBlocks(1, () => source.fresh(100)));
      for (const [shard, sequence] of missing.entries())
        await link.jsm.streams.deleteMessage(streamName(shard), sequence);
    });
    await incarnationBehind(before);
    await world.expectTotals();
  });
});

describe('the edges are told how far a shard is durable', () => {
  test('the newest watermark, with the fingerprint of its message, and no more than needed', async () => {
    await world.start({ TALLYLINE_FLUSH_INTERVAL_MS: '1' });
    const bucket = await openKeyValue(link, BUCKET_WATERMARKS);
    const puts = async (): Promise<number> =>
      (await link.jsm.streams.info(`KV_${BUCKET_WATERMARKS}`)).state.last_seq;
    const told = async (): Promise<boolean> => {
      for (const [shard, { incarnation, sequence }] of await world.watermarks()) {
        const record = parseWatermarkRecord((await bucket.get(String(shard)))?.value ?? '');
        if (record === null || record.sequence !== sequence) return false;
        expect([record.shard, record.incarnation]).toEqual([shard, incarnation]);
        const { data } = await link.jsm.streams.getMessage(streamName(shard), { seq: sequence });
        expect(record.fingerprint).toBe(createHash('sha256').update(data).digest('hex'));
      }
      return true;
    };
    await world.eventually('the watermarks at the start', told);
    const [began, before] = [performance.now(), await puts()];
    const flushes = await world.metric('tallyline_aggregator_flush_seconds_count');
    while ((await world.metric('tallyline_aggregator_flush_seconds_count')) < flushes + 25) {
      await send(someBlocks(1, () => source.fresh(20)));
      await world.drained();
    }
    const [seconds, after] = [(performance.now() - began) / 1_000, await puts()];
    expect(after - before).toBeLessThanOrEqual(SHARDS * (4 * seconds + 2));
    await world.eventually('the newest watermarks', told);

    // A bucket with an earlier state is told again, and so is one that is gone.
    await keepStorage('base');
    await send(someBlocks(1));
    await world.drained();
    await world.eventually('the newest watermarks', told);
    const incarnation = await incarnations();
    await cutBack('base');
    await incarnationBehind(incarnation);
    await world.eventually('the watermarks of the new incarnation', told);
    await link.jsm.streams.delete(`KV_${BUCKET_WATERMARKS}`);
    await openKeyValue(link, BUCKET_WATERMARKS);
    await keepStorage('base');
    await world.eventually('the watermarks in a new bucket, without anything new', told);
    await world.expectTotals();
  });
});

test.runIf(isLong)(
  'a log that is cut back under load, again and again, with everything sent again at the end',
  async () => {
    const sent: Blocks[number][] = [];
    for (let round = 0; round < 3; round++) {
      await keepStorage('base');
      await world.start(round === 1 ? { TALLYLINE_FLUSH_INTERVAL_MS: '1' } : {});
      const [kept, before] = [await lastSequences(), await incarnations()];
      let on = true;
      const loading = (async () => {
        while (on) {
          const [block] = someBlocks(1, () => source.fresh(60));
          sent.push(block!);
          // A block that fails is one that is sent again.
          log.send(block!.events, block!.acceptedAtMs);
          await delay(30);
        }
      })();
      try {
        await world.eventually('counting beyond the copy', async () =>
          [...(await world.watermarks())].every(([shard, { sequence }]) => sequence > kept[shard]! + 2),
        );
        await delay(source.random(200));
        await cutBack('base');
        await incarnationBehind(before);
      } finally {
        on = false;
        await loading;
      }
    }
    await log.acknowledged().catch(() => {});
    log.rewind(await lastSequences());
    await send(sent);
    await world.expectTotals();
  },
  120_000,
);

test('an insert that a killed process left running is waited for', async () => {
  await keepStorage('base');
  await world.start();
  await send(someBlocks(1, () => source.fresh(50)));
  await world.expectTotals();
  const before = await incarnations();
  await world.end('SIGKILL');
  // A raw row behind the watermark that appears two seconds from now.
  const columns =
    'tenant, hour, type, subject, time, source, id_text, data_paths, data_values, payload_hash, accepted_at, shard';
  const left = ch.command(
    `INSERT INTO events (${columns}, identity, position)
     SELECT ${columns}, generateUUIDv4(), position + 65536 * (100 + sleepEachRow(2))
     FROM (SELECT * FROM events WHERE shard = 0 ORDER BY position DESC LIMIT 1)`,
  );
  await cutBack('base');
  await world.start();
  await left;
  await incarnationBehind(before);
  await world.expectChecks();
  expect(await countRows(`SELECT sum(count) AS n FROM verdicts WHERE verdict = 'counted'`)).toBe(
    await countRows('SELECT count() AS n FROM event_rows'),
  );
});

test('behind the last incarnation it stops, and says so', async () => {
  await world.start();
  await world.drained();
  await world.end('SIGTERM');
  await ch.command(
    `INSERT INTO watermarks SELECT * REPLACE (255 AS incarnation, {position:UInt64} AS position)
     FROM watermarks FINAL WHERE shard = 1`,
    { position: packPosition(255, log.lastSequences[1]!, 65_535).toString() },
  );
  await link.jsm.streams.delete(streamName(1));
  await world.makeStream(1);
  const refused = await world.launch();
  expect(await refused.exited).toBe(1);
  expect(refused.output.join('')).toContain('255 is the last');
});
