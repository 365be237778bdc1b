// The aggregator as a process, on real NATS and ClickHouse. One log and one model of it run through the whole
// file: each test adds to both, does something nasty, and ends with the tables equal to the model to the digit.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CheckName } from '../aggregator/checks.ts';
import type { Meter } from '../contract/meter.ts';
import { unpackPosition } from '../contract/position.ts';
import { FLUSH_NOTICE, streamName } from '../contract/subjects.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { NatsLink } from '../runtime/nats.ts';
import { AggregatorWorld, EventSource, START_MS } from './aggregator-world.ts';
import type { Engines } from './engines.ts';
import type { Sent, UsageLog } from './usage-log.ts';

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
let engines: Engines;
let link: NatsLink;
let ch: ClickHouse;
let log: UsageLog;

const source = new EventSource();
const { past } = source;
const someEvents = (count: number): Sent[] => source.some(count);
const random = (below: number): number => source.random(below);
const expectExact = (): Promise<void> => world.expectExact();

/** Publishes blocks until told to stop. */
function load(): { stop(): Promise<void> } {
  let on = true;
  const publishing = (async () => {
    while (on) {
      log.send(someEvents(150), Date.now());
      await log.acknowledged();
      await delay(4);
    }
  })();
  return {
    stop: async () => {
      on = false;
      await publishing;
    },
  };
}

beforeAll(async () => {
  world = await AggregatorWorld.start(2);
  ({ engines, link, ch, log } = world);
});

afterAll(async () => {
  await world?.close();
});

describe('the aggregator', () => {
  test('counts a log that was there before it, to the digit', async () => {
    log.define('acme', tokens);
    log.define('acme', requests);
    log.define('rival', requests);
    for (let block = 0; block < 20; block++) log.send(someEvents(200), Date.now());
    await log.acknowledged();
    await world.start();
    await expectExact();
  });

  test('a lone event is visible, and told of, in well under a second', async () => {
    const told = link.nc.subscribe(FLUSH_NOTICE, { max: 1 });
    await link.nc.flush();
    const began = performance.now();
    log.send(someEvents(1), Date.now());
    for await (const message of told) {
      const notice = message.json<{ shard: number; position: string }>();
      const marks = await world.watermarks();
      expect(marks.get(notice.shard)).toEqual(unpackPosition(BigInt(notice.position)));
    }
    expect(performance.now() - began).toBeLessThan(1_000);
    await expectExact();
  });

  test('a meter counts what comes behind its definition, and defining it again changes nothing', async () => {
    const later: Meter = { ...tokens, key: 'largest', aggregation: 'max', groupBy: ['model'] };
    log.send(someEvents(100), Date.now());
    log.define('acme', later);
    log.send(someEvents(100), Date.now());
    log.define('acme', later);
    log.define('acme', { ...later, valueProperty: 'other' });
    log.send(someEvents(100), Date.now());
    await expectExact();
    expect(
      await ch.rows('SELECT DISTINCT value_property FROM meter_definitions WHERE meter = {m:String}', {
        m: 'largest',
      }),
    ).toEqual([{ value_property: 'tokens' }]);
  });

  test('messages that nobody can read are kept whole, and their neighbours count', async () => {
    const rubbish = Buffer.from('no block at all');
    log.send(someEvents(50), Date.now());
    log.sendRubbish(0, rubbish);
    log.sendRubbish(1, new Uint8Array(0));
    log.sendBroken(0, someEvents(5));
    log.send(someEvents(50), Date.now());
    await expectExact();
    const kept = await ch.rows<{ message: string }>(
      `SELECT data['message'] AS message FROM refused WHERE code = 'block_unreadable' AND shard = 0 ORDER BY position`,
    );
    expect(kept).toHaveLength(2);
    expect(Buffer.from(kept[0]!.message, 'base64').toString()).toBe('no block at all');
  });

  test('a conflict and a refusal are kept with all they said', async () => {
    const event: Sent = {
      tenant: 'acme',
      id: 'twice',
      type: 'llm',
      subject: 'ann "a\\b"\n\tñ😀',
      timeMs: START_MS + 1_234,
      data: { tokens: 7.25, model: 'm\u0000', region: '' },
    };
    log.send([event, { ...event, data: { ...event.data, tokens: -8 } }], Date.now());
    log.send([{ ...event, id: 'bad', data: { tokens: 'x'.repeat(300) } }], Date.now());
    await expectExact();
    const said = `SELECT verdict, code, subject, time, data FROM refused WHERE id = {id:String}`;
    const [conflict] = await ch.rows<object>(said, { id: 'twice' });
    expect(conflict).toEqual({
      verdict: 'conflict',
      code: '',
      subject: event.subject,
      time: '2026-10-31 22:00:01.234',
      data: { tokens: '-8', model: 'm\u0000', region: '' },
    });
    const [refused] = await ch.rows<object>(said, { id: 'bad' });
    expect(refused).toMatchObject({ verdict: 'rejected', code: 'meter_value_not_a_number' });
    const [counted] = await ch.rows<object>(
      'SELECT tenant, type, subject, source, id, data, identity FROM event_rows WHERE id = {id:String}',
      { id: 'twice' },
    );
    expect(counted).toMatchObject({
      data: { tokens: '7.25', model: 'm\u0000', region: '' },
      subject: event.subject,
    });
    await world.end('SIGTERM');
  });

  // `npm run faults -- --only aggregator-kill` does it at length; corrections and dedupe have kills of their own.
  test.runIf(process.env['TALLYLINE_TEST_LONG'] !== undefined)(
    'killed again and again in the middle of its flushes, it counts each event once',
    async () => {
      const quick = { TALLYLINE_FLUSH_INTERVAL_MS: '1', TALLYLINE_FLUSH_EVENTS_MAX: '1000' };
      const publishing = load();
      let interrupted = 0;
      for (let round = 0; round < 9; round++) {
        const { process: child } = await world.start(quick);
        const before = await world.watermarks();
        if (round % 3 === 0) {
          // Not before it has got anywhere, or only the start would ever be tested.
          await world.eventually(
            'a watermark',
            async () => (await world.watermarks()).get(0)!.sequence > before.get(0)!.sequence,
          );
        }
        await delay(random(150));
        expect(child.exitCode).toBeNull();
        await world.end('SIGKILL');
        const [beyond] = await ch.rows<{ n: string }>(
          `SELECT count() AS n FROM events INNER JOIN watermark USING (shard)
         WHERE events.position > watermark.position`,
        );
        if (beyond!.n !== '0') interrupted += 1;
      }
      await publishing.stop();
      // Raw rows without their watermark: the kills did hit flushes.
      expect(interrupted).toBeGreaterThan(0);
      await world.start();
      await expectExact();
    },
    120_000,
  );

  test('ClickHouse killed and restarted under load delays it, no more', async () => {
    await world.start();
    const publishing = load();
    for (let round = 0; round < 2; round++) {
      await delay(random(200));
      await engines.clickhouse.kill();
      await world.eventually('a failed flush', async () => {
        return (await world.metric('tallyline_aggregator_flush_failures_total')) > round;
      });
      await engines.clickhouse.restart();
    }
    await publishing.stop();
    expect(world.running!.process.exitCode).toBeNull();
    await expectExact();
    expect(await world.end('SIGTERM')).toBe(0);
  }, 120_000);

  test('reading the whole log again into the same tables changes no total', async () => {
    const totals = 'SELECT * FROM usage_rows ORDER BY ALL';
    const before = await ch.rows(totals);
    const counters = await ch.rows('SELECT * FROM verdicts ORDER BY ALL');
    await ch.command('TRUNCATE TABLE watermarks');
    await world.start();
    await expectExact();
    expect(await ch.rows(totals)).toEqual(before);
    expect(await ch.rows('SELECT * FROM verdicts ORDER BY ALL')).toEqual(counters);
    await world.end('SIGTERM');
  });

  test('with an index far too small it stays exact, also for duplicates from long ago', async () => {
    const tiny = { TALLYLINE_DEDUPE_KEYS_MAX: '1000', TALLYLINE_ROLLUP_ROWS_MAX: '100' };
    await world.start(tiny);
    const old = past.slice(0, 40);
    log.send(old, Date.now());
    for (let block = 0; block < 8; block++) {
      log.send(someEvents(500), Date.now());
      await world.drained();
    }
    log.send(past.slice(0, 100), Date.now());
    await expectExact();
    expect(await world.metric('tallyline_aggregator_dedupe_lookups_total')).toBeGreaterThan(0);
    await world.end('SIGTERM');
  }, 60_000);

  test('two owners of the same shards count nothing twice', async () => {
    const other = await world.launch({ TALLYLINE_AGGREGATOR_NAME: 'other' });
    expect(other.ops).not.toBe('');
    await world.start();
    const publishing = load();
    await delay(1_000);
    await publishing.stop();
    await expectExact();
    other.process.kill('SIGTERM');
    expect(await other.exited).toBe(0);
    await world.end('SIGTERM');
  }, 60_000);

  test('nothing of all this was taken for a loss of the log', async () => {
    expect(await ch.rows('SELECT shard, incarnation FROM log_incarnations WHERE incarnation > 1')).toEqual(
      [],
    );
  });

  test('every check fires when what it guards is broken', async () => {
    const fires = async (name: CheckName, sql: string): Promise<void> => {
      expect(await world.check(name)).toEqual([]);
      await ch.command(sql);
      expect([name, (await world.check(name)).length > 0]).toEqual([name, true]);
    };
    await fires(
      'rollup-equals-raw',
      `INSERT INTO rollup_hour SELECT * REPLACE (value_sum + toDecimal128('0.000000001', 9) AS value_sum)
       FROM rollup_hour FINAL LIMIT 1`,
    );
    await fires(
      'conservation',
      `INSERT INTO verdict_totals SELECT * REPLACE (count + 1 AS count) FROM verdict_totals FINAL
       WHERE verdict = 'duplicate' LIMIT 1`,
    );
    await fires(
      'counted-equals-raw-rows',
      `INSERT INTO verdict_totals SELECT * REPLACE (count - 1 AS count) FROM verdict_totals FINAL
       WHERE verdict = 'counted' LIMIT 1`,
    );
    await fires(
      'raw-identities-unique',
      `INSERT INTO events (tenant, hour, type, subject, time, identity, source, id_text, data_paths, data_values, payload_hash, accepted_at, shard, position)
       SELECT tenant, hour, type, 'another', time, identity, source, id, data_paths, data_values, payload_hash, accepted_at, shard, position
       FROM events FINAL LIMIT 1`,
    );
    await fires(
      'rules-follow',
      `INSERT INTO rule_sets SELECT * REPLACE ([] AS rules, changes + 1 AS changes) FROM rule_sets FINAL LIMIT 1`,
    );
  });

  test('tables that know nothing of a log whose start is gone stop it with a clear alert', async () => {
    await world.end('SIGKILL');
    for (const table of ['watermarks', 'incarnations', 'log_marks'])
      await ch.command(`TRUNCATE TABLE ${table}`);
    await link.jsm.streams.purge(streamName(0), { seq: 3 });
    const refused = await world.launch();
    expect(await refused.exited).toBe(1);
    expect(refused.output.join('')).toContain('incarnation mismatch');
    expect(refused.output.join('')).toContain('CLICKHOUSE_URL');
  });
});
