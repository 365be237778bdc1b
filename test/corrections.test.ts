// Voids and amendments, from the log to the views, on real NATS and ClickHouse.
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { settleCorrections } from '../aggregator/corrections-store.ts';
import { AGGREGATIONS, type Meter } from '../contract/meter.ts';
import { endOfMessage } from '../contract/position.ts';
import { formatQuantity } from '../contract/quantity.ts';
import { quantityIn, readRawTotals, readUsageTotals } from '../ledger/usage-totals.ts';
import { streamName } from '../contract/subjects.ts';
import { AggregatorWorld, START_MS } from './aggregator-world.ts';
import { CorrectedLog, type Told } from './corrected-log.ts';
import { UNFENCED } from './meter-rows.ts';
import { nano, type ModelRow } from './usage-log.ts';
import { insertEventRows } from './event-rows.ts';

// Each waits for conditions only; this is for a machine that does much else.
vi.setConfig({ testTimeout: 240_000 });

const HOUR_MS = 3_600_000;
const SHARDS = 2;
const seed = Number(process.env['TALLYLINE_TEST_SEED'] ?? Math.floor(performance.timeOrigin) % 1_000_000);
let state = seed;
const random = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
  return (state >>> 8) % below;
};
const pick = <T>(choices: readonly T[]): T => choices[random(choices.length)]!;

let world: AggregatorWorld;
let log: CorrectedLog;

beforeAll(async () => {
  console.info(`TALLYLINE_TEST_SEED=${seed}`);
  world = await AggregatorWorld.start(SHARDS);
  log = new CorrectedLog(world.log, SHARDS);
});
afterAll(async () => {
  await world?.close();
});

const texts = (rows: ReadonlyMap<string, ModelRow>): string[] =>
  Array.from(rows, ([key, row]) => `${key} ${Object.values(row).join(' ')}`).sort();

const summaryAt = async (cut: string): Promise<Map<string, string>> => {
  const rows = await world.ch.rows<{ name: string; n: string; sum: string; unique: string }>(
    `SELECT concat(tenant, ' ', meter) AS name, count() AS n, toString(sum(quantity)) AS sum, uniqExact(value) AS unique
     FROM contributions WHERE ${cut} GROUP BY name`,
  );
  return new Map(rows.map(({ name, n, sum, unique }) => [name, `${n} ${nano(sum)} ${unique}`]));
};
/** As `world.drained`, with the patience that a busy machine needs. */
async function drained(): Promise<void> {
  await world.log.acknowledged();
  const isDrained = async (): Promise<boolean> => {
    const marks = await world.watermarks();
    return world.log.lastSequences.every((last, shard) => (marks.get(shard)?.sequence ?? 0) >= last);
  };
  await world.eventually('draining', isDrained, 120_000);
}

const PRESENT = 'until = 18446744073709551615';

/** The rollups say what the model says. */
async function expectRows(): Promise<void> {
  await drained();
  const [expected, stored] = [texts(log.rows()), texts(await world.storedRows())];
  const [known, found] = [new Set(expected), new Set(stored)];
  expect({
    seed,
    missing: expected.filter((row) => !found.has(row)).slice(0, 3),
    wrong: stored.filter((row) => !known.has(row)).slice(0, 3),
  }).toEqual({ seed, missing: [], wrong: [] });
}

/** And so do the raw rows and the counters, and every check agrees. */
async function expectExact(): Promise<void> {
  await expectRows();
  expect(await world.storedVerdicts(), `seed ${seed}`).toEqual(log.verdicts);
  expect(await summaryAt(PRESENT), `seed ${seed}`).toEqual(log.summary());
  await world.expectChecks();
}

describe('each aggregation, after each chain of corrections', () => {
  // In every hour stands a neighbour of 5, model b, 10 minutes in; the original is 3, model a, 20 minutes in.
  const neighbour = { value: 5, model: 'b', minute: 10 };
  const original = { value: 3, model: 'a', minute: 20 };
  const larger = { value: 9, model: 'c', minute: 30 };
  const earlier = { value: 4, model: 'b', minute: 5 };
  type Step = 'void' | typeof larger;
  const chains: readonly [string, readonly Step[], Readonly<Record<string, string>>][] = [
    [
      'nothing',
      [],
      { sum: '8', count: '2', min: '3', max: '5', average: '4', latest: '3', unique_count: '2' },
    ],
    [
      'void',
      ['void'],
      { sum: '5', count: '1', min: '5', max: '5', average: '5', latest: '5', unique_count: '1' },
    ],
    [
      'amend',
      [larger],
      { sum: '14', count: '2', min: '5', max: '9', average: '7', latest: '9', unique_count: '2' },
    ],
    [
      'amend, amend',
      [larger, earlier],
      { sum: '9', count: '2', min: '4', max: '5', average: '4.5', latest: '5', unique_count: '1' },
    ],
    [
      'amend, void',
      [larger, 'void'],
      { sum: '5', count: '1', min: '5', max: '5', average: '5', latest: '5', unique_count: '1' },
    ],
    [
      'void, amend',
      ['void', earlier],
      { sum: '9', count: '2', min: '4', max: '5', average: '4.5', latest: '5', unique_count: '1' },
    ],
    [
      'void, void',
      ['void', 'void'],
      { sum: '5', count: '1', min: '5', max: '5', average: '5', latest: '5', unique_count: '1' },
    ],
    [
      'void, amend, void, amend',
      ['void', earlier, 'void', larger],
      { sum: '14', count: '2', min: '5', max: '9', average: '7', latest: '9', unique_count: '2' },
    ],
  ];
  const meters = AGGREGATIONS.map((aggregation): Meter => ({
    key: aggregation,
    eventType: 'call',
    aggregation,
    valueProperty: aggregation === 'count' ? null : aggregation === 'unique_count' ? 'model' : 'n',
    groupBy: aggregation === 'max' ? ['model'] : [],
  }));
  const step = (tenant: string, subject: string, id: string, one: typeof larger) => ({
    ...{ tenant, id, subject, type: 'call', timeMs: START_MS + one.minute * 60_000 },
    data: { n: one.value, model: one.model },
  });
  /** Of each round, what is sent. */
  const rounds = (tenant: string): Told[][] => {
    const all: Told[][] = [[], [], [], [], []];
    for (const [name, steps] of chains) {
      all[0]!.push(step(tenant, name, `${name}-n`, neighbour), step(tenant, name, name, original));
      steps.forEach((one, at) => {
        const id = `${name}-${at}`;
        all[at + 1]!.push(
          one === 'void'
            ? { tenant, id, voids: name, timeMs: START_MS }
            : { ...step(tenant, name, id, one), amends: name },
        );
      });
    }
    return all.filter((round) => round.length > 0);
  };

  test('in one message, in one flush, and in a flush for each', async () => {
    const tenants = ['message', 'flush', 'flushes'];
    for (const tenant of tenants) for (const meter of meters) log.define(tenant, meter);
    log.send(rounds('message').flat());
    for (const round of rounds('flush')) log.send(round);
    await world.log.acknowledged();
    await world.start();
    for (const round of rounds('flushes')) {
      log.send(round);
      await drained();
    }
    await expectExact();
    const window = { start: START_MS, end: START_MS + HOUR_MS };
    const cut = new Map(
      Array.from(await world.watermarks(), ([shard, { incarnation, sequence }]) => [
        shard,
        endOfMessage(incarnation, sequence),
      ]),
    );
    const said = (of: Awaited<ReturnType<typeof readRawTotals>>): Record<string, string> =>
      Object.fromEntries(AGGREGATIONS.map((one) => [one, formatQuantity(quantityIn(of.get(one), one))]));
    for (const tenant of tenants) {
      const wanted = chains.map(([name]) => ({ subjects: [name], window }));
      const totals = await readUsageTotals(world.ch, tenant, wanted);
      chains.forEach(([name, , expected], at) => {
        expect([tenant, name, said(totals[at]!)]).toEqual([tenant, name, expected]);
      });
    }
    // As a close asks: the raw events at a cut.
    const [name, , expected] = chains.at(-1)!;
    const raw = await readRawTotals(world.ch, { tenant: 'flush', subjects: [name], window, cut });
    expect(said(raw)).toEqual(expected);
  });
});

test('a correction of nothing is refused and kept, and counts when it is sent again behind its original', async () => {
  const early: Told = { tenant: 'flush', id: 'early', voids: 'later', timeMs: START_MS };
  const later: Told = {
    ...{ tenant: 'flush', id: 'later', type: 'call', subject: 'later', timeMs: START_MS },
    data: { n: 7, model: 'a' },
  };
  // In one message the order counts too.
  log.send([early, later]);
  await expectRows();
  const usage = async (): Promise<string[]> =>
    (
      await world.ch.rows<{ value_sum: string }>(
        `SELECT value_sum FROM usage_rows WHERE subject = 'later' AND meter = 'sum'`,
      )
    ).map(({ value_sum }) => value_sum);
  expect(await usage()).toEqual(['7']);
  const refused = await world.ch.rows(
    `SELECT verdict, code, type, data['tallyline.voids'] AS voids FROM refused WHERE id = 'early'`,
  );
  expect(refused).toEqual([
    { verdict: 'rejected', code: 'correction_target_unknown', type: 'tallyline.void', voids: 'later' },
  ]);
  log.send([early, early]);
  log.send([early, { ...early, timeMs: START_MS + 1 }]);
  await expectExact();
  expect(await usage()).toEqual([]);
  // The row is there still, and says when it was emptied.
  const [emptied] = await world.ch.rows<{ n: string; behind: number }>(
    `SELECT value_count AS n, position > latest_position AS behind FROM usage_states
     WHERE subject = 'later' AND meter = 'sum'`,
  );
  expect(emptied).toEqual({ n: '0', behind: 1 });
});

describe('at random', () => {
  const meters: Meter[] = [
    {
      key: 'calls',
      eventType: 'llm',
      aggregation: 'count',
      valueProperty: null,
      groupBy: ['model'],
      groupsMax: 3,
    },
    { key: 'tokens', eventType: 'llm', aggregation: 'sum', valueProperty: 'tokens', groupBy: [] },
    {
      key: 'widest',
      eventType: 'llm',
      aggregation: 'max',
      valueProperty: 'tokens',
      groupBy: ['model', 'region'],
      groupsMax: 4,
    },
    { key: 'regions', eventType: 'llm', aggregation: 'unique_count', valueProperty: 'region', groupBy: [] },
    { key: 'last', eventType: 'job', aggregation: 'latest', valueProperty: 'tokens', groupBy: ['model'] },
  ];
  const originals: { tenant: string; id: string }[] = [];
  const past: Told[] = [];
  let next = 0;
  const someEvent = (tenant: string, id: string) => ({
    ...{ tenant, id, type: pick(['llm', 'llm', 'job', 'idle']), subject: `s${random(5)}` },
    timeMs: START_MS + random(3 * HOUR_MS),
    data: {
      model: `m${random(8)}`,
      region: pick(['eu', 'us', 'ap']),
      ...(random(20) === 0
        ? {}
        : { tokens: pick([1, 20, 300, '0.5', '0.000000001', '999999999999999999', '-4']) }),
    },
  });
  const some = (count: number): Told[] =>
    Array.from({ length: count }, () => {
      const dice = random(100);
      if (dice < 8 && past.length > 0) return pick(past);
      const id = `r${next++}`;
      const tenant = pick(['random-a', 'random-b']);
      let told: Told;
      if (dice < 45 || originals.length === 0) {
        told = someEvent(tenant, id);
        originals.push({ tenant, id });
      } else {
        // Mostly recent ones, again and again; some that never were.
        const of =
          random(25) === 0
            ? { tenant, id: `never-${random(3)}` }
            : random(3) === 0
              ? pick(originals)
              : originals.at(-1 - random(Math.min(15, originals.length)))!;
        told =
          random(2) === 0
            ? { tenant: of.tenant, id, voids: of.id, timeMs: START_MS + random(HOUR_MS) }
            : { ...someEvent(of.tenant, id), amends: of.id };
      }
      past.push(told);
      return told;
    });
  const sendSome = (blocks: number, each: number): void => {
    for (let block = 0; block < blocks; block++) log.send(some(1 + random(each)));
  };

  test('the totals are what a plain model says, also as of an earlier cut', async () => {
    for (const tenant of ['random-a', 'random-b']) for (const meter of meters) log.define(tenant, meter);
    sendSome(20, 60);
    await expectRows();
    const before = log.summary();
    const marks = await world.watermarks();
    const cut = Array.from(marks, ([shard, { incarnation, sequence }]) => {
      const position = endOfMessage(incarnation, sequence);
      return `shard = ${shard} AND since <= ${position} AND until > ${position}`;
    });
    sendSome(20, 60);
    await expectExact();
    expect(await summaryAt(cut.map((one) => `(${one})`).join(' OR ')), `seed ${seed}`).toEqual(before);
    expect(log.overflowed).toBeGreaterThan(10);
  });

  /** Raw rows of corrections stand beyond their watermark. */
  const isBeyond = async (): Promise<boolean> =>
    (
      await world.ch.rows(
        `SELECT 1 FROM events AS e INNER JOIN watermarks AS w ON w.shard = e.shard
         WHERE mapContains(e.data, 'tallyline.target') GROUP BY e.shard HAVING max(e.position) > max(w.position)`,
      )
    ).length > 0;

  // Each takes away what the next step of a flush writes to. So the process dies behind the step before it.
  const faults: readonly [string, string, string, () => Promise<boolean>][] = [
    [
      'raw rows and before corrections are settled',
      'RENAME TABLE corrections TO corrections_away',
      'RENAME TABLE corrections_away TO corrections',
      isBeyond,
    ],
    [
      'corrections are settled and before rows are made anew',
      'ALTER TABLE rollup_hour ADD CONSTRAINT nothing CHECK 0',
      'ALTER TABLE rollup_hour DROP CONSTRAINT nothing',
      async () =>
        (
          await world.ch.rows(
            'SELECT 1 FROM corrections AS c INNER JOIN watermarks AS w ON w.shard = c.shard GROUP BY c.shard HAVING max(c.position) > max(w.position)',
          )
        ).length > 0,
    ],
    [
      'rows are made anew and before the watermark',
      'RENAME TABLE watermarks TO watermarks_away',
      'RENAME TABLE watermarks_away TO watermarks',
      async () =>
        (
          await world.ch.rows(
            'SELECT 1 FROM received_totals AS r INNER JOIN watermarks_away AS w ON w.shard = r.shard GROUP BY r.shard HAVING max(r.position) > max(w.position)',
          )
        ).length > 0,
    ],
  ];
  test.each(faults)(
    'killed behind the moment that %s, it ends in the same totals',
    async (_, away, back, reached) => {
      await drained();
      await world.ch.command(away);
      try {
        // The first message has corrections: a flush without any would stop elsewhere, and these never come to be.
        log.send(some(120));
        sendSome(6, 30);
        await world.log.acknowledged();
        await world.eventually('the fault', reached, 60_000);
        await world.end('SIGKILL');
      } finally {
        await world.ch.command(back);
      }
      // More than was there: its flushes end elsewhere.
      sendSome(3, 30);
      await world.log.acknowledged();
      await world.start();
      await expectRows();
    },
  );

  test('with an index and a cache far too small, and two owners, it stays exact', async () => {
    const tiny = { TALLYLINE_DEDUPE_KEYS_MAX: '1000', TALLYLINE_ROLLUP_ROWS_MAX: '100' };
    const other = await world.launch({ ...tiny, TALLYLINE_AGGREGATOR_NAME: 'other' });
    await world.start(tiny);
    for (let round = 0; round < 2; round++) {
      sendSome(6, 200);
      await world.log.acknowledged();
      if (round === 0) await world.start(tiny);
    }
    await expectRows();
    other.process.kill('SIGTERM');
    expect(await other.exited).toBe(0);
  });

  test('reading the whole log again into the same tables changes no row', async () => {
    await world.end('SIGTERM');
    const tables = [
      'SELECT * FROM rollup_hour FINAL ORDER BY ALL',
      'SELECT * FROM correction_rows ORDER BY ALL',
      'SELECT * FROM verdicts ORDER BY ALL',
      'SELECT * FROM contributions ORDER BY ALL',
    ];
    const read = (): Promise<unknown[][]> => Promise.all(tables.map((sql) => world.ch.rows(sql)));
    const before = await read();
    await world.ch.command('TRUNCATE TABLE watermarks');
    await world.start({ TALLYLINE_FLUSH_EVENTS_MAX: '1000' });
    await expectExact();
    expect(await read()).toEqual(before);
  });

  test('when the log is lost before the flush was read again, what its raw rows say of corrections holds', async () => {
    await drained();
    await world.ch.command('RENAME TABLE corrections TO corrections_away');
    // One message for each shard: it is in the raw rows whole, or not at all.
    const lost = some(120);
    try {
      log.send(lost);
      await world.log.acknowledged();
      await world.eventually('the fault', isBeyond, 60_000);
      await world.end('SIGKILL');
    } finally {
      await world.ch.command('RENAME TABLE corrections_away TO corrections');
    }
    for (let shard = 0; shard < SHARDS; shard++) {
      await world.link.jsm.streams.delete(streamName(shard));
      await world.makeStream(shard);
    }
    world.log.rewind(Array.from({ length: SHARDS }, () => 0));
    await world.start();
    await world.eventually(
      'new incarnations',
      async () => [...(await world.watermarks()).values()].every(({ incarnation }) => incarnation === 2),
      60_000,
    );
    // What was counted is a duplicate now, and what was not counts.
    log.sendAgain(lost);
    await expectRows();
    await world.expectChecks();
  });
});

test('a correction that is settled twice is found', async () => {
  expect(await world.check('corrections-settled')).toEqual([]);
  await world.ch.command(
    'INSERT INTO corrections SELECT * REPLACE (position + 1 AS position) FROM corrections LIMIT 1',
  );
  expect(await world.check('corrections-settled')).not.toEqual([]);
});

test('an amendment whose original is sent again behind it is retired by the correction after it', async () => {
  // A crash wrote the amendment and not its original, and the log lost both: that is no history to wait for.
  const shard = 9;
  const identity = (number: number): string => `00000000-0000-4000-8000-00000000000${number}`;
  const data = (kind: string): object => ({
    'tallyline.target': identity(1),
    [`tallyline.${kind}`]: 'original',
  });
  const events = [
    { position: 100, identity: identity(2), data: data('amends') },
    { position: 200, identity: identity(1), data: {} },
    { position: 300, identity: identity(3), data: data('voids') },
  ];
  const time = '2026-11-01 00:00:00';
  const rest = {
    tenant: 'half',
    hour: time,
    type: 'call',
    subject: 's',
    time,
    source: '',
    accepted_at: time,
  };
  await insertEventRows(
    world.ch,
    'events',
    events.map((event) => ({ ...rest, ...event, id: event.identity, payload_hash: 1, shard })),
  );
  const settle = (behind: bigint, until: bigint, originalsFrom: bigint): Promise<void> =>
    settleCorrections(world.ch, { shard, behind, until, originalsFrom }, UNFENCED);
  await settle(0n, 100n, 0n);
  await settle(200n, 300n, 200n);
  expect(
    await world.ch.rows('SELECT correction, retired FROM correction_rows WHERE shard = 9 ORDER BY position'),
  ).toEqual([
    { correction: identity(2), retired: '00000000-0000-0000-0000-000000000000' },
    { correction: identity(3), retired: identity(2) },
  ]);
});
