// What a correction does to money, on real Postgres and ClickHouse: the events are a model's (ledger-world.ts), what
// corrections make of them is worked out by the aggregator's own SQL. Tokens cost 0.003 each.
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { parseUnitPrice } from '../contract/money.ts';
import { formatQuantity } from '../contract/quantity.ts';
import { readBalance } from '../ledger/balance.ts';
import { closePeriod } from '../ledger/close.ts';
import { readConservation } from '../ledger/conservation.ts';
import type { LedgerContext } from '../ledger/context.ts';
import { putCustomer } from '../ledger/customers.ts';
import { issueGrant } from '../ledger/grants.ts';
import { publishPlan } from '../ledger/plans.ts';
import { postUsage } from '../ledger/post-usage.ts';
import { createTenant } from '../ledger/tenants.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import type { Postgres } from '../runtime/postgres.ts';
import { startLedgerWorld, type LedgerWorld, type Use, type World } from './ledger-world.ts';

vi.setConfig({ testTimeout: 120_000 });

const OCTOBER = Date.UTC(2026, 9, 1);
const NOVEMBER = Date.UTC(2026, 10, 1);
const HOUR = 3_600_000;

let ledger: LedgerWorld;
let ch: ClickHouse;
let pg: Postgres;
let world: World;
let ctx: LedgerContext;
let tenant: string;
let nowMs: number;
let tenants = 0;

beforeAll(async () => {
  ledger = await startLedgerWorld();
  ({ ch, pg, world } = ledger);
  ctx = { pg, ch, log: createLog('test', 'silent'), clock: { now: () => nowMs } };
});
afterAll(async () => {
  await ledger?.stop();
});

beforeEach(async () => {
  nowMs = Date.UTC(2026, 10, 21);
  tenant = `t${++tenants}`;
  await pg.transaction((tx) => createTenant(tx, { tenant, name: tenant, nowMs }));
  const of = { eventType: 'llm', valueProperty: 'tokens', groupBy: [] } as const;
  await world.define(tenant, { ...of, key: 'tokens', aggregation: 'sum' }, nowMs);
  await world.define(tenant, { ...of, key: 'kinds', aggregation: 'unique_count' }, nowMs);
  const price = (meter: string, unit: string) => ({
    ...{ key: meter, meter, included: 0n, model: 'per_unit' as const },
    unitPrice: parseUnitPrice(unit)!,
  });
  const prices = [price('tokens', '0.003'), price('kinds', '1')];
  const plan = { key: 'pro', name: 'Pro', currency: 'USD' as const, prices, entitlements: [] };
  await pg.transaction((tx) => publishPlan(tx, { tenant, plan, nowMs }));
  const customer = {
    ...{ id: 'acme', name: 'acme', subjects: ['acme'], anchorMs: OCTOBER, planKey: 'pro', planVersion: 1 },
    currency: 'USD' as const,
  };
  await pg.transaction((tx) => putCustomer(tx, { tenant, ...customer, nowMs }));
});

const tokens = (n: string, timeMs: number): Use => ({
  ...{ tenant, type: 'llm', subject: 'acme', timeMs },
  data: { tokens: n },
});

const balance = async (): Promise<[bigint, bigint]> => {
  const { accruedUsage, credit } = (await readBalance(pg, tenant, 'acme', nowMs))!;
  return [accruedUsage, credit];
};

async function closed(periodStart: number): Promise<string[]> {
  const result = await closePeriod(ctx, { tenant, customer: 'acme', periodStart, actor: 'finance' });
  if (result.outcome !== 'closed') throw new Error(`not closed: ${result.outcome}`);
  const { lines, total } = result.invoice;
  return [
    ...lines.map(
      (line) => `${line.kind} ${line.priceKey ?? '-'} ${formatQuantity(line.quantity)} ${line.amount}`,
    ),
    `total ${total}`,
  ];
}

async function expectNoDrift(): Promise<void> {
  const { drift } = await readConservation(ctx, tenant);
  expect(drift).toEqual({ rollup: 0n, ledger: 0n, stripeCents: 0n });
}

test('a voided event of an open period is paid by nobody, and the credit that covered it is back', async () => {
  await world.count([tokens('900', NOVEMBER + HOUR), tokens('100', NOVEMBER + HOUR)]);
  await postUsage(ctx);
  // 1,000 tokens are 3.00, two kinds are 2.00.
  expect(await balance()).toEqual([500n, 0n]);
  const grant = { tenant, customer: 'acme', id: `${tenant}-g`, amount: 400n };
  const terms = { reason: 'test', expiresAtMs: null, priority: 0, actor: 'finance' };
  await pg.transaction((tx) => issueGrant(tx, { ...grant, ...terms, nowMs }));
  await postUsage(ctx);
  expect(await balance()).toEqual([100n, 0n]);
  await world.correct(world.counted - 1, null);
  await postUsage(ctx);
  // 100 tokens are 0.30, one kind is 1.00.
  expect(await balance()).toEqual([0n, 270n]);
  await expectNoDrift();
  await world.correct(world.counted, null);
  await postUsage(ctx);
  expect(await balance()).toEqual([0n, 400n]);
  await expectNoDrift();
});

test('what is corrected in a closed period is an adjustment on the next invoice, and the closed one stays', async () => {
  await world.count([tokens('900', OCTOBER + HOUR), tokens('100', OCTOBER + 2 * HOUR)]);
  const [first, second] = [world.counted - 1, world.counted];
  expect(await closed(OCTOBER)).toEqual(['usage tokens 1000 300', 'usage kinds 2 200', 'total 500']);
  await world.correct(first, null);
  // In place of 100 in October there are 400, and in November.
  await world.correct(second, tokens('400', NOVEMBER + HOUR));
  nowMs = Date.UTC(2026, 11, 1);
  expect(await closed(NOVEMBER)).toEqual([
    'usage tokens 400 120',
    'usage kinds 1 100',
    'adjustment kinds -2 -200',
    'adjustment tokens -1000 -300',
    'total -280',
  ]);
  await expectNoDrift();
});

test('a rollup that still holds what was voided blocks the invoice and is found', async () => {
  await world.count([tokens('10', OCTOBER + HOUR), tokens('20', OCTOBER + HOUR)]);
  const before = await ch.rows<object>('SELECT * FROM rollup_hour WHERE tenant = {tenant:String}', {
    tenant,
  });
  await world.correct(world.counted, null);
  // As if the rows had never been made anew: what they held, under a newer position.
  await ch.command(
    `ALTER TABLE rollup_hour DELETE WHERE tenant = {tenant:String} SETTINGS mutations_sync = 2`,
    { tenant },
  );
  await ch.insertJson('rollup_hour', before);
  await postUsage(ctx);
  const result = await closePeriod(ctx, { tenant, customer: 'acme', periodStart: OCTOBER, actor: 'finance' });
  expect(result.outcome).toBe('usage_mismatch');
  const { drift } = await readConservation(ctx, tenant);
  expect(drift.rollup).toBe(2n);
});
