// The aggregator as a process, on real NATS and ClickHouse. One log and one model of it run through the whole
// file: each test adds to both, does something nasty, and ends with the tables equal to the model to the digit.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CHECKS, checkFile, type CheckName } from '../aggregator/checks.ts';
import type { Meter } from '../contract/meter.ts';
import { FLUSH_NOTICE, streamName, streamSubject } from '../contract/subjects.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { connectNats, ensureStream, type NatsLink } from '../runtime/nats.ts';
import { startEngines, type Engines } from './engines.ts';
import { nano, UsageLog, type ModelRow, type Sent } from './usage-log.ts';

const SHARDS = 2;
const HOUR_MS = 3_600_000;
const START_MS = Date.UTC(2026, 9, 31, 22); // two hours before a month, and a partition, ends

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

let engines: Engines;
let link: NatsLink;
let ch: ClickHouse;
let log: UsageLog;
let running: Aggregator | undefined;

interface Aggregator {
  readonly process: ChildProcess;
  readonly ops: string;
  readonly exited: Promise<number | null>;
  readonly output: string[];
}

async function launch(env: Record<string, string> = {}): Promise<Aggregator> {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL('../dist/aggregator/main.js', import.meta.url))],
    {
      env: {
        PATH: process.env['PATH'],
        NATS_URL: engines.natsUrl,
        CLICKHOUSE_URL: engines.clickhouseUrl,
        TALLYLINE_SHARDS: String(SHARDS),
        TALLYLINE_STOP_WITH_PARENT: '1',
        TALLYLINE_LOG_LEVEL: 'warn',
        TALLYLINE_AGGREGATOR_THREADS: '1',
        ...env,
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  const output: string[] = [];
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  child.stderr.on('data', (text: Buffer) => output.push(text.toString()));
  const ops = await new Promise<string>((resolve) => {
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output.push(chunk.toString());
      text += chunk.toString();
      const ready = text.split('\n').find((line) => line.includes('"ready":true') && line.endsWith('}'));
      if (ready !== undefined) resolve((JSON.parse(ready) as { ops: string }).ops);
    });
    void exited.then(() => resolve(''));
  });
  return { process: child, ops, exited, output };
}

async function start(env: Record<string, string> = {}): Promise<Aggregator> {
  await end('SIGKILL');
  running = await launch(env);
  if (running.ops === '') throw new Error(`the aggregator did not start:\n${running.output.join('')}`);
  return running;
}

async function end(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
  const ended = running;
  running = undefined;
  ended?.process.kill(signal);
  return (await ended?.exited) ?? null;
}

async function eventually(what: string, condition: () => Promise<boolean>, withinMs = 30_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await condition().catch(() => false))) {
    if (performance.now() > deadline) {
      throw new Error(
        `${what} did not happen within ${withinMs} ms\n${running?.output.slice(-20).join('') ?? ''}`,
      );
    }
    await delay(20);
  }
}

async function watermarks(): Promise<Map<number, bigint>> {
  const rows = await ch.rows<{ shard: number; position: string }>('SELECT shard, position FROM watermark');
  return new Map(rows.map(({ shard, position }) => [shard, (BigInt(position) >> 16n) & 0xff_ffff_ffffn]));
}

/** Waits until the watermarks have reached the end of the log. */
async function drained(): Promise<void> {
  await log.acknowledged();
  await eventually('draining', async () => {
    const marks = await watermarks();
    return log.lastSequences.every((last, shard) => (marks.get(shard) ?? 0n) >= BigInt(last));
  });
}

interface UsageRow {
  shard: number;
  tenant: string;
  meter: string;
  subject: string;
  hour: string;
  dimensions: string[];
  value_count: string;
  value_sum: string;
  value_min: string;
  value_max: string;
  value_latest: string;
  latest_time: string;
}

const instant = (text: string): number => Date.parse(`${text.replace(' ', 'T')}Z`);

async function storedRows(): Promise<Map<string, ModelRow>> {
  const rows = await ch.rows<UsageRow>('SELECT * FROM usage_rows');
  return new Map(
    rows.map((row) => [
      JSON.stringify([row.shard, row.tenant, row.meter, row.subject, instant(row.hour), row.dimensions]),
      {
        count: BigInt(row.value_count),
        sum: nano(row.value_sum)!,
        min: nano(row.value_min)!,
        max: nano(row.value_max)!,
        latest: nano(row.value_latest)!,
        latestMs: instant(row.latest_time),
      },
    ]),
  );
}

function check(name: CheckName): Promise<unknown[]> {
  return ch.rows(readFileSync(checkFile(name), 'utf8'));
}

/** The tables say what the model says, and every check agrees. */
async function expectExact(): Promise<void> {
  await drained();
  const [rows, stored] = [log.rows, await storedRows()];
  const differing = [...rows].filter(([key, row]) => {
    const other = stored.get(key);
    return other === undefined || JSON.stringify(other, digits) !== JSON.stringify(row, digits);
  });
  expect(differing.slice(0, 3).map(([key, row]) => [key, row, stored.get(key)])).toEqual([]);
  expect(stored.size).toBe(rows.size);

  const verdicts = await ch.rows<{ tenant: string; verdict: string; code: string; n: string }>(
    'SELECT tenant, verdict, code, sum(count) AS n FROM verdicts GROUP BY tenant, verdict, code',
  );
  const unreadable = log.unreadable > 0 ? [['rejected block_unreadable', log.unreadable] as const] : [];
  expect(
    new Map(
      verdicts.map(({ tenant, verdict, code, n }) => [`${tenant} ${verdict} ${code}`.trim(), Number(n)]),
    ),
  ).toEqual(new Map<string, number>([...log.verdicts, ...unreadable]));
  const [received] = await ch.rows<{ n: string }>('SELECT sum(count) AS n FROM received');
  expect(Number(received!.n)).toBe(log.received + log.unreadable);
  for (const name of CHECKS) expect([name, await check(name)]).toEqual([name, []]);
}

const digits = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? value.toString() : value);

// A small generator of its own, so that a failure can be run again.
let seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);
function random(below: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return Math.floor((seed / 0x8000_0000) * below);
}

let nextId = 0;
const past: Sent[] = [];

/** Mostly new events; some sent again, some contradicting themselves, some that a meter refuses. */
function someEvents(count: number): Sent[] {
  return Array.from({ length: count }, () => {
    const dice = random(100);
    if (dice < 15 && past.length > 0) return past[random(past.length)]!;
    if (dice < 17 && past.length > 0) return { ...past[random(past.length)]!, subject: 'somebody else' };
    const value = [random(5_000), `${random(9)}.${1 + random(8)}`, '0.000000001', random(900) / 8 + 0.5][
      random(4)
    ]!;
    const event: Sent = {
      tenant: random(4) === 0 ? 'rival' : 'acme',
      id: `event-${nextId++}`,
      type: random(10) === 0 ? 'upload' : 'llm',
      subject: `customer-${random(20)}`,
      timeMs: START_MS + random(4 * HOUR_MS),
      data:
        dice < 19
          ? { model: 'm0' }
          : dice < 21
            ? { tokens: 'lots' }
            : { model: `m${random(3)}`, tokens: value, ...(random(2) === 0 ? { region: 'eu' } : {}) },
    };
    past.push(event);
    if (past.length > 5_000) past.shift();
    return event;
  });
}

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
  console.info(`TALLYLINE_TEST_SEED=${seed}`);
  engines = await startEngines({ nats: true, clickhouse: true });
  link = await connectNats({ url: engines.natsUrl, name: 'test', log: pino({ level: 'silent' }) });
  ch = connectClickHouse({ url: engines.clickhouseUrl, name: 'test', requestTimeoutMs: 30_000 });
  for (let shard = 0; shard < SHARDS; shard++) {
    await ensureStream(link, {
      name: streamName(shard),
      subjects: [streamSubject(shard)],
      maxBytes: 1024 ** 3,
      replicas: 1,
    });
  }
  log = new UsageLog(link, SHARDS);
});

afterAll(async () => {
  await end('SIGKILL');
  log?.close();
  await link?.close();
  await ch?.close();
  await engines?.stop();
});

describe('the aggregator', () => {
  test('counts a log that was there before it, to the digit', async () => {
    log.define('acme', tokens);
    log.define('acme', requests);
    log.define('rival', requests);
    for (let block = 0; block < 20; block++) log.send(someEvents(200), Date.now());
    await log.acknowledged();
    await start();
    await expectExact();
  });

  test('a lone event is visible, and told of, in well under a second', async () => {
    const told = link.nc.subscribe(FLUSH_NOTICE, { max: 1 });
    await link.nc.flush();
    const began = performance.now();
    log.send(someEvents(1), Date.now());
    for await (const message of told) {
      const notice = message.json<{ shard: number; position: string }>();
      const marks = await watermarks();
      expect(marks.get(notice.shard)).toBe((BigInt(notice.position) >> 16n) & 0xff_ffff_ffffn);
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
    await end('SIGTERM');
  });

  test('killed again and again in the middle of its flushes, it counts each event once', async () => {
    const quick = { TALLYLINE_FLUSH_INTERVAL_MS: '1', TALLYLINE_FLUSH_EVENTS_MAX: '1000' };
    const publishing = load();
    let interrupted = 0;
    for (let round = 0; round < 9; round++) {
      const { process: child } = await start(quick);
      const before = await watermarks();
      if (round % 3 === 0) {
        // Not before it has got anywhere, or only the start would ever be tested.
        await eventually('a watermark', async () => (await watermarks()).get(0)! > before.get(0)!);
      }
      await delay(random(150));
      expect(child.exitCode).toBeNull();
      await end('SIGKILL');
      const [beyond] = await ch.rows<{ n: string }>(
        `SELECT count() AS n FROM events INNER JOIN watermark USING (shard)
         WHERE events.position > watermark.position`,
      );
      if (beyond!.n !== '0') interrupted += 1;
    }
    await publishing.stop();
    // Raw rows without their watermark: the kills did hit flushes.
    expect(interrupted).toBeGreaterThan(0);
    await start();
    await expectExact();
  }, 120_000);

  test('ClickHouse killed and restarted under load delays it, no more', async () => {
    const publishing = load();
    for (let round = 0; round < 2; round++) {
      await delay(random(200));
      await engines.clickhouse.kill();
      await eventually('a failed flush', async () => {
        const text = await (await fetch(`${running!.ops}/metrics`)).text();
        return Number(/flush_failures_total\{[^}]*\} (\d+)/.exec(text)?.[1]) > round;
      });
      await engines.clickhouse.restart();
    }
    await publishing.stop();
    expect(running!.process.exitCode).toBeNull();
    await expectExact();
    expect(await end('SIGTERM')).toBe(0);
  }, 120_000);

  test('reading the whole log again into the same tables changes no total', async () => {
    const totals = 'SELECT * FROM usage_rows ORDER BY ALL';
    const before = await ch.rows(totals);
    const counters = await ch.rows('SELECT * FROM verdicts ORDER BY ALL');
    await ch.command('TRUNCATE TABLE watermarks');
    await start();
    await expectExact();
    expect(await ch.rows(totals)).toEqual(before);
    expect(await ch.rows('SELECT * FROM verdicts ORDER BY ALL')).toEqual(counters);
    await end('SIGTERM');
  });

  test('with an index far too small it stays exact, also for duplicates from long ago', async () => {
    const tiny = { TALLYLINE_DEDUPE_KEYS_MAX: '1000', TALLYLINE_ROLLUP_ROWS_MAX: '100' };
    await start(tiny);
    const old = past.slice(0, 40);
    log.send(old, Date.now());
    for (let block = 0; block < 8; block++) {
      log.send(someEvents(500), Date.now());
      await drained();
    }
    log.send(past.slice(0, 100), Date.now());
    await expectExact();
    const text = await (await fetch(`${running!.ops}/metrics`)).text();
    expect(Number(/dedupe_lookups_total\{[^}]*\} (\d+)/.exec(text)?.[1])).toBeGreaterThan(0);
    await end('SIGTERM');
  }, 60_000);

  test('two owners of the same shards count nothing twice', async () => {
    const other = await launch();
    expect(other.ops).not.toBe('');
    await start();
    const publishing = load();
    await delay(1_000);
    await publishing.stop();
    await expectExact();
    other.process.kill('SIGTERM');
    expect(await other.exited).toBe(0);
    await end('SIGTERM');
  }, 60_000);

  test('every check fires when what it guards is broken', async () => {
    const fires = async (name: CheckName, sql: string): Promise<void> => {
      expect(await check(name)).toEqual([]);
      await ch.command(sql);
      expect([name, (await check(name)).length > 0]).toEqual([name, true]);
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
      `INSERT INTO events (tenant, hour, type, subject, time, identity, source, id, data, payload_hash, accepted_at, shard, position)
       SELECT tenant, hour, type, 'another', time, identity, source, id, data, payload_hash, accepted_at, shard, position
       FROM events FINAL LIMIT 1`,
    );
  });

  test('a stream that is not the one it counted stops it with a clear alert', async () => {
    await link.jsm.streams.delete(streamName(0));
    await ensureStream(link, {
      name: streamName(0),
      subjects: [streamSubject(0)],
      maxBytes: 1024 ** 3,
      replicas: 1,
    });
    const refused = await launch();
    expect(await refused.exited).toBe(1);
    expect(refused.output.join('')).toContain('incarnation mismatch');
  });
});
