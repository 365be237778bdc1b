// The comparison of rollups with raw events, on real Postgres and ClickHouse; the aggregator's part is played by a
// model (ledger-world.ts).
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { QUANTITY_UNIT } from '../contract/quantity.ts';
import { readConservation, type Conservation } from '../ledger/conservation.ts';
import {
  checkRollups,
  checkWaiting,
  noteChanges,
  readCheckState,
  sweep,
  type CheckContext,
} from '../ledger/rollup-check.ts';
import { createTenant } from '../ledger/tenants.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Postgres } from '../runtime/postgres.ts';
import { startLedgerWorld, type LedgerWorld, type World } from './ledger-world.ts';
import { insertEventRows } from './event-rows.ts';

const HOUR = 3_600_000;
const OCTOBER = Date.UTC(2026, 9, 1);
const MUCH = { rows: 1_000_000, ms: 60_000 };
const DAY = 24 * HOUR;

let ledger: LedgerWorld;
let pg: Postgres;
let ch: ClickHouse;
let world: World;
let ctx: CheckContext;
let tenant: string;
let nowMs = Date.UTC(2026, 10, 21);
let tenants = 0;

beforeAll(async () => {
  ledger = await startLedgerWorld();
  ({ pg, ch, world } = ledger);
  ctx = { pg, ch: ledger.reader, clock: { now: () => nowMs } };
});
afterAll(() => ledger?.stop());

beforeEach(async () => {
  tenant = `t${++tenants}`;
  await pg.transaction((tx) => createTenant(tx, { tenant, name: tenant, nowMs }));
  const meter = {
    key: 'tokens',
    eventType: 'llm',
    aggregation: 'sum',
    valueProperty: 'n',
    groupBy: [],
  } as const;
  await world.define(tenant, meter, nowMs);
});

const count = (subject: string, ...hours: number[]): Promise<void> =>
  world.count(
    hours.map((hour) => ({
      tenant,
      type: 'llm',
      subject,
      timeMs: OCTOBER + hour * HOUR + 1,
      data: { n: '2.5' },
    })),
  );
const report = (): Promise<Conservation> => readConservation(ctx, tenant);
const findings = async (): Promise<number> => Number((await readCheckState(pg, tenant)).findings);

test('what a flush changed is compared once, and no more until it changes again', async () => {
  await count('acme', 0, 1, 1, 50);
  await noteChanges(ctx);
  expect((await readCheckState(pg, tenant)).waitingHours).toBe(3n);
  expect(await checkWaiting(ctx, tenant, MUCH)).toEqual({ rows: 4, hours: 3 });
  expect(await readCheckState(pg, tenant)).toMatchObject({ findings: 0n, waitingHours: 0n });
  await noteChanges(ctx);
  expect(await checkWaiting(ctx, tenant, MUCH)).toEqual({ rows: 0, hours: 0 });
  await count('acme', 1);
  await noteChanges(ctx);
  expect(await checkWaiting(ctx, tenant, MUCH)).toMatchObject({ hours: 1 });
});

test('a finding stays until the same hour is found clean', async () => {
  await count('acme', 0, 1);
  await world.tamper(tenant, 'tokens', 'acme', QUANTITY_UNIT);
  expect((await report()).drift.rollup).toBe(1n);
  const [row] = await pg.query<{ detail: object; hour: number }>(
    'SELECT detail, hour FROM ledger.check_findings WHERE tenant = $1',
    [tenant],
  );
  expect(row).toMatchObject({ hour: OCTOBER, detail: { rawSum: '2.5', rollupSum: '3.5', rawCount: '1' } });
  // Nothing changed: it is not compared again, and not forgotten.
  expect((await report()).drift.rollup).toBe(1n);
  // Another hour is clean, which says nothing about this one.
  await count('acme', 1);
  expect((await report()).drift.rollup).toBe(1n);
  await world.tamper(tenant, 'tokens', 'acme', -QUANTITY_UNIT);
  expect((await report()).drift.rollup).toBe(0n);
});

test('a raw event without its rollup is found, and a rollup without its events', async () => {
  await count('acme', 3);
  expect((await report()).drift.rollup).toBe(0n);
  await insertEventRows(ch, 'events', [
    {
      tenant,
      hour: (OCTOBER + 4 * HOUR) / 1_000,
      type: 'llm',
      subject: 'nobody',
      time: OCTOBER + 4 * HOUR,
      identity: '00000000-0000-4000-9000-000000000001',
      source: '',
      id: 'x',
      data: { n: '1' },
      payload_hash: 0,
      accepted_at: OCTOBER,
      shard: 0,
      position: await markOf(0),
    },
  ]);
  await ch.insertJson('rollup_hour', [
    {
      tenant,
      meter: 'tokens',
      subject: 'ghost',
      hour: (OCTOBER + 5 * HOUR) / 1_000,
      dimensions: [],
      shard: 0,
      value_count: 1,
      value_sum: '9',
      position: await markOf(0),
    },
  ]);
  // Both stand at a position that was compared before: it takes a flush that touches the hours, or the sweep.
  expect((await report()).drift.rollup).toBe(0n);
  await sweepAll();
  expect((await report()).drift.rollup).toBe(2n);
  await ch.command(`ALTER TABLE rollup_hour DELETE WHERE subject = 'ghost' SETTINGS mutations_sync = 2`);
  await ch.command(`ALTER TABLE events DELETE WHERE subject = 'nobody' SETTINGS mutations_sync = 2`);
  await sweepAll();
  expect((await report()).drift.rollup).toBe(0n);
});

test('what is being written beyond the watermark is neither a finding nor the end of one', async () => {
  await count('acme', 7);
  await world.tamper(tenant, 'tokens', 'acme', QUANTITY_UNIT);
  expect((await report()).drift.rollup).toBe(1n);
  const ahead = (position: bigint) =>
    ch.insertJson('rollup_hour', [
      {
        tenant,
        meter: 'tokens',
        subject: 'acme',
        hour: (OCTOBER + 7 * HOUR) / 1_000,
        dimensions: [],
        shard: 0,
        value_count: 5,
        value_sum: '77',
        position: position.toString(),
      },
      {
        tenant,
        meter: 'tokens',
        subject: 'newcomer',
        hour: (OCTOBER + 7 * HOUR) / 1_000,
        dimensions: [],
        shard: 0,
        value_count: 5,
        value_sum: '77',
        position: position.toString(),
      },
    ]);
  await ahead(2n ** 60n);
  await sweepAll();
  expect(await findings()).toBe(1);
  await ch.command(
    `ALTER TABLE rollup_hour DELETE WHERE position = ${2n ** 60n} SETTINGS mutations_sync = 2`,
  );
});

test('a comparison keeps to its budget, and the report says how far it came', async () => {
  await count('acme', 100, 900, 2_000);
  await noteChanges(ctx);
  const notedMs = nowMs;
  nowMs += 5_000;
  // One step: the hours of one month.
  expect(await checkWaiting(ctx, tenant, { rows: 1, ms: 60_000 })).toMatchObject({ hours: 1 });
  expect(await readCheckState(pg, tenant)).toMatchObject({ waitingHours: 2n, waitingSinceMs: notedMs });
  expect(await checkWaiting(ctx, tenant, { rows: 0, ms: 60_000 })).toEqual({ rows: 0, hours: 0 });
  const { checked } = await report();
  expect(checked).toMatchObject({ waitingHours: 0n, changesToMs: nowMs });
});

test('a large hour is compared when it rests, or has waited for a quarter of an hour; a report compares it at once', async () => {
  const large = async (): Promise<void> => {
    await ledger.ch.command(
      `INSERT INTO events (tenant, hour, type, subject, time, identity, id_text, data_paths, data_values, shard, position)
       SELECT '${tenant}', toDateTime(${OCTOBER / 1_000}, 'UTC'), 'other', 'acme', toDateTime64(${OCTOBER / 1_000}, 3, 'UTC'),
         reinterpretAsUUID(sipHash128('${tenant}', number)), toString(number), '', '', 0, 1 FROM numbers(200001)`,
    );
  };
  const turn = async (): Promise<boolean> => {
    await checkRollups(ctx, MUCH, 365 * DAY);
    return (await readCheckState(pg, tenant)).waitingHours === 0n;
  };
  await finishSweep();
  await large();
  const beganMs = nowMs;
  await count('acme', 0);
  expect(await turn()).toBe(false);
  // Written to again and again.
  while (nowMs - beganMs < 870_000) {
    nowMs += 30_000;
    await count('acme', 0);
    expect(await turn()).toBe(false);
  }
  nowMs += 60_000;
  await count('acme', 0);
  expect(await turn()).toBe(true);
  // And at rest.
  await count('acme', 0);
  expect(await turn()).toBe(false);
  nowMs += 61_000;
  expect(await turn()).toBe(true);
  await count('acme', 0);
  expect(await turn()).toBe(false);
  expect(await checkWaiting(ctx, tenant, MUCH)).toMatchObject({ hours: 1 });
});

test('the sweep goes through all hours in steps, is not begun anew too soon, and says to when it speaks', async () => {
  await count('acme', 0, 1_000);
  await finishSweep();
  nowMs += 2 * DAY;
  const begunMs = nowMs;
  await sweep(ctx, { rows: 1, ms: 60_000 }, DAY);
  const running = await readCheckState(pg, null);
  expect(running.sweepPermille).toBeGreaterThan(0);
  expect(running.sweepPermille).toBeLessThan(1_000);
  nowMs += 60_000;
  await finishSweep();
  expect(await readCheckState(pg, null)).toMatchObject({ sweepPermille: null, sweptToMs: begunMs });
  expect(await sweep(ctx, MUCH, DAY)).toEqual({ rows: 0, hours: 0 });
  expect((await readCheckState(pg, null)).sweptToMs).toBe(begunMs);
});

test('two processes that compare at once end in the same state', async () => {
  await count('acme', 0, 1, 2, 30, 31, 800);
  await world.tamper(tenant, 'tokens', 'acme', QUANTITY_UNIT);
  nowMs += 2 * DAY;
  await Promise.all([1, 2, 3].map(() => checkRollups(ctx, MUCH, DAY)));
  expect(await readCheckState(pg, tenant)).toMatchObject({ findings: 1n, waitingHours: 0n });
  await world.tamper(tenant, 'tokens', 'acme', -QUANTITY_UNIT);
  await Promise.all([1, 2, 3].map(() => checkRollups(ctx, MUCH, DAY)));
  expect(await readCheckState(pg, tenant)).toMatchObject({ findings: 0n, waitingHours: 0n });
});

/** The watermark of a shard. */
async function markOf(shard: number): Promise<string> {
  const [row] = await ch.rows<{ position: string }>(
    'SELECT toString(position) AS position FROM watermark WHERE shard = {shard:UInt16}',
    { shard },
  );
  return row!.position;
}

/** Ends a sweep that is running. */
async function finishSweep(): Promise<void> {
  for (let turn = 0; turn < 1_000; turn++) {
    await sweep(ctx, MUCH, 365 * DAY);
    if ((await readCheckState(pg, null)).sweepPermille === null) return;
  }
  throw new Error('the sweep does not end');
}

/** A sweep that begins now, to its end. */
async function sweepAll(): Promise<void> {
  await finishSweep();
  nowMs += 400 * DAY;
  await finishSweep();
}
