// Unique counts of the ledger against sets of values: they do not add up, over hours, shards or subjects.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseUnitPrice } from '../contract/money.ts';
import { QUANTITY_UNIT } from '../contract/quantity.ts';
import { putCustomer } from '../ledger/customers.ts';
import { publishPlan } from '../ledger/plans.ts';
import { postTotals, postUniques, postUsage } from '../ledger/post-usage.ts';
import { createTenant } from '../ledger/tenants.ts';
import { quantityIn, readRawTotals, readUsageTotals, type TotalsWanted } from '../ledger/usage-totals.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { startLedgerWorld, type LedgerWorld, type Use, type World } from './ledger-world.ts';

const HOUR = 3_600_000;
const OCTOBER = Date.UTC(2026, 9, 1);
const OCTOBER_WINDOW = { start: OCTOBER, end: Date.UTC(2026, 10, 1) };
/** More than one request takes. */
const MANY = Array.from({ length: 2_500 }, (_, n) => `many-${n}`);

let ledger: LedgerWorld;
let ch: ClickHouse;
let world: World;
const uses: Use[] = [];

beforeAll(async () => {
  ledger = await startLedgerWorld();
  ({ ch, world } = ledger);
  await ledger.pg.transaction((tx) => createTenant(tx, { tenant: 't', name: 't', nowMs: OCTOBER }));
  const meter = { eventType: 'use', valueProperty: 'user', groupBy: [] };
  await world.define('t', { ...meter, key: 'users', aggregation: 'unique_count' }, OCTOBER);
  await world.define('t', { ...meter, key: 'total', aggregation: 'sum' }, OCTOBER);
  for (let n = 0; n < 300; n++) {
    // The same 40 users come again in other hours, subjects and shards.
    const subject = n % 3 === 0 ? MANY[(n * 37) % MANY.length]! : `s${n % 4}`;
    const timeMs = OCTOBER + ((n * 13) % 1_000) * HOUR;
    uses.push({ tenant: 't', type: 'use', subject, timeMs, data: { user: String((n * 7) % 40) } });
  }
  await world.count(uses);
});
afterAll(() => ledger?.stop());

const usersOf = (wanted: TotalsWanted, of: readonly Use[]): bigint =>
  BigInt(
    new Set(
      of
        .filter(
          ({ subject, timeMs }) =>
            wanted.subjects.includes(subject) && timeMs >= wanted.window.start && timeMs < wanted.window.end,
        )
        .map(({ data }) => data['user']),
    ).size,
  );

test('a unique count is that of the values, over any subjects and window, beside what adds up', async () => {
  const wanted: TotalsWanted[] = [
    { subjects: ['s0'], window: OCTOBER_WINDOW },
    { subjects: ['s0', 's1', 's2', 's3'], window: OCTOBER_WINDOW },
    { subjects: ['s1', 's2'], window: { start: OCTOBER + 5 * HOUR, end: OCTOBER + 300 * HOUR } },
    { subjects: MANY, window: OCTOBER_WINDOW },
    { subjects: ['nobody'], window: OCTOBER_WINDOW },
    { subjects: [], window: OCTOBER_WINDOW },
  ];
  const totals = await readUsageTotals(ch, 't', wanted);
  expect(totals.map((byMeter) => quantityIn(byMeter.get('users'), 'unique_count'))).toEqual(
    wanted.map((one) => usersOf(one, uses) * QUANTITY_UNIT),
  );
  expect(usersOf(wanted[3]!, uses)).toBeGreaterThan(20n);
  expect(totals[0]?.get('total')).not.toHaveProperty('unique');
});

test('at a cut it is that of the events before it', async () => {
  const cut = new Map(
    (
      await ch.rows<{ shard: number; position: string }>(
        'SELECT shard, toString(position) AS position FROM watermark',
      )
    ).map(({ shard, position }) => [shard, BigInt(position)] as const),
  );
  const later: Use[] = Array.from({ length: 10 }, (_, n) => ({
    tenant: 't',
    type: 'use',
    subject: 's0',
    timeMs: OCTOBER + n * HOUR,
    data: { user: String(1_000 + n) },
  }));
  await world.count(later);
  for (const subjects of [['s0'], ['s0', 's1'], [...MANY, 's0']]) {
    const one = { subjects, window: OCTOBER_WINDOW };
    const users = async (at: ReadonlyMap<number, bigint>) =>
      quantityIn((await readRawTotals(ch, { tenant: 't', ...one, cut: at })).get('users'), 'unique_count');
    expect(await users(cut)).toBe(usersOf(one, uses) * QUANTITY_UNIT);
    const all = new Map([...cut.keys()].map((shard) => [shard, 2n ** 63n]));
    expect(await users(all)).toBe(usersOf(one, [...uses, ...later]) * QUANTITY_UNIT);
  }
});

test('unique counts that passes leave out are posted later, with all that changed meanwhile, and nothing else is', async () => {
  const { pg } = ledger;
  const ctx = { pg, ch, clock: { now: () => OCTOBER_WINDOW.end }, log: createLog('test', 'silent') };
  const unitPrice = parseUnitPrice('0.01')!;
  const prices = ['users', 'total'].map(
    (key) => ({ key, meter: key, included: 0n, model: 'per_unit', unitPrice }) as const,
  );
  const plan = { key: 'p', name: 'p', currency: 'USD', prices, entitlements: [] } as const;
  await pg.transaction(async (tx) => {
    await publishPlan(tx, { tenant: 't', plan, nowMs: OCTOBER });
    for (const id of ['billed', 'other'])
      await putCustomer(tx, {
        tenant: 't',
        id,
        name: id,
        currency: 'USD',
        subjects: [id],
        planKey: 'p',
        anchorMs: OCTOBER,
        nowMs: OCTOBER,
      });
  });
  const posted = async () =>
    pg.query(
      `SELECT customer, price_key AS price, trunc(quantity)::text AS quantity FROM ledger.usage_posted
       WHERE tenant = 't' ORDER BY customer, price_key`,
    );
  const use = (subject: string, user: string): Use => ({
    tenant: 't',
    type: 'use',
    subject,
    timeMs: OCTOBER,
    data: { user },
  });
  await postUsage(ctx);
  await world.count([use('billed', '5'), use('billed', '5'), use('nobody', '7')]);
  expect(await postTotals(ctx)).toMatchObject({ changed: 1, posted: 1 });
  expect(await posted()).toEqual([{ customer: 'billed', price: 'total', quantity: '10' }]);
  await world.count([use('billed', '6'), use('other', '5')]);
  const { watermarks } = await postTotals(ctx);
  expect(await postUniques(ctx, watermarks)).toBe(2);
  const all = [
    { customer: 'billed', price: 'total', quantity: '16' },
    { customer: 'billed', price: 'users', quantity: '2' },
    { customer: 'other', price: 'total', quantity: '5' },
    { customer: 'other', price: 'users', quantity: '1' },
  ];
  expect(await posted()).toEqual(all);
  expect(await postUniques(ctx, watermarks)).toBe(0);
  expect(await postUsage(ctx)).toMatchObject({ changed: 0, posted: 0 });
  expect(await posted()).toEqual(all);
});
