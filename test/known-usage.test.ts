// What posting loops know of rollups, on real Postgres and ClickHouse: whatever happens between two passes, a pass that
// reads only what changed has posted what reading everything says.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseUnitPrice } from '../contract/money.ts';
import { readLedgerDrift } from '../ledger/conservation.ts';
import type { LedgerContext } from '../ledger/context.ts';
import { putCustomer } from '../ledger/customers.ts';
import { KnownUsage } from '../ledger/known-usage.ts';
import { publishPlan } from '../ledger/plans.ts';
import { postTotals, postUsage } from '../ledger/post-usage.ts';
import { createTenant } from '../ledger/tenants.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { meterNamed, startLedgerWorld, type LedgerWorld } from './ledger-world.ts';

const HOUR = 3_600_000;
const NOVEMBER = Date.UTC(2026, 10, 1);
const START = Date.UTC(2026, 10, 20, 9, 30);
const SOLO = Array.from({ length: 6 }, (_, n) => `solo-${n}`);
const TYPES = ['llm', 'seats'] as const;

let ledger: LedgerWorld;
let nowMs = START;
const statements: string[] = [];
let ctx: LedgerContext;

beforeAll(async () => {
  ledger = await startLedgerWorld();
  const { pg, reader } = ledger;
  const ch: ClickHouse = {
    ...reader,
    rows: (sql, params) => {
      statements.push(sql);
      return reader.rows(sql, params);
    },
  };
  ctx = { pg, ch, log: createLog('test', 'silent'), clock: { now: () => nowMs } };
});
afterAll(() => ledger?.stop());

async function setUp(tenant: string): Promise<void> {
  nowMs = START;
  const { pg, world } = ledger;
  await pg.transaction((tx) => createTenant(tx, { tenant, name: tenant, nowMs }));
  const meters = [
    meterNamed('tokens'),
    meterNamed('calls', { aggregation: 'count', valueProperty: null }),
    meterNamed('largest', { aggregation: 'max', valueProperty: 'tokens' }),
    meterNamed('seats', { eventType: 'seats', aggregation: 'latest' }),
  ];
  for (const one of meters) await world.define(tenant, one, nowMs);
  const prices = meters.map(({ key }) => ({
    key,
    meter: key,
    included: 0n,
    model: 'per_unit' as const,
    unitPrice: parseUnitPrice('0.01')!,
  }));
  const plan = { key: 'pro', name: 'Pro', currency: 'USD' as const, prices, entitlements: [] };
  await pg.transaction((tx) => publishPlan(tx, { tenant, plan, nowMs }));
  await put(tenant, 'acme', ['a', 'b', ...SOLO], NOVEMBER);
  await put(tenant, 'globex', ['c'], Date.UTC(2026, 9, 20, 10));
}

const put = (tenant: string, id: string, subjects: readonly string[], anchorMs: number): Promise<unknown> =>
  ledger.pg.transaction((tx) =>
    putCustomer(tx, { tenant, id, name: id, currency: 'USD', subjects, planKey: 'pro', anchorMs, nowMs }),
  );

/** Hours before now: this one, the last, closed ones of this period, and another period. */
const AGES = [0, 0, 1, 30, 30, 30, 400] as const;

type Step =
  | { readonly kind: 'count'; readonly subject: string; readonly age: number; readonly value: number }
  | { readonly kind: 'correct' | 'tamper' | 'subject' | 'begin anew' }
  | { readonly kind: 'later'; readonly minutes: number }
  | { readonly kind: 'post'; readonly by: 'first' | 'second' | 'whole' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('count' as const),
      subject: fc.constantFrom('a', 'c', 'late subject'),
      age: fc.constantFrom(...AGES),
      value: fc.integer({ min: 1, max: 50 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom('correct' as const, 'tamper' as const, 'subject' as const, 'begin anew' as const)
      .map((kind) => ({ kind })),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(20, 45, 70).map((minutes) => ({ kind: 'later' as const, minutes })),
  },
  {
    weight: 8,
    arbitrary: fc
      .constantFrom('first' as const, 'first' as const, 'second' as const, 'whole' as const)
      .map((by) => ({ kind: 'post' as const, by })),
  },
);

test('a pass that reads what changed posts what reading everything says, whatever came in between', async () => {
  const { pg, reader, world } = ledger;
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 30 }), async (steps) => {
      const tenant = `t${++runs}`;
      await setUp(tenant);
      const loops = { first: new KnownUsage(), second: new KnownUsage() };
      let solo = 0;
      let counted: string | null = null;
      const count = async (subject: string, age: number, value: number): Promise<void> => {
        const timeMs = nowMs - age * HOUR;
        const data = { tokens: String(value), seats: String(value) };
        await world.count(TYPES.map((type) => ({ tenant, type, subject, timeMs, data })));
      };
      for (const one of [...steps, { kind: 'post', by: 'first' } as const]) {
        switch (one.kind) {
          case 'count':
            await count(one.subject, one.age, one.value);
            if (one.subject !== 'late subject') counted = one.subject;
            break;
          case 'correct':
            if (solo === SOLO.length) break;
            await count(SOLO[solo++]!, AGES[solo]!, 40);
            // Posted before it is voided, half of the time.
            if (solo % 2 === 0) await postTotals(ctx, loops.first);
            await world.correct(world.counted - 1, null);
            break;
          case 'tamper':
            if (counted !== null) await world.tamper(tenant, 'tokens', counted, 3_000_000_000n);
            break;
          case 'subject':
            await put(tenant, 'globex', ['c', 'late subject'], Date.UTC(2026, 9, 20, 10));
            break;
          case 'begin anew':
            loops.first = new KnownUsage();
            break;
          case 'later':
            nowMs += one.minutes * 60_000;
            break;
          case 'post':
            if (one.by === 'whole') await postUsage(ctx);
            else await postTotals(ctx, loops[one.by]);
            expect(await readLedgerDrift(pg, reader, tenant)).toBe(0n);
            break;
        }
      }
    }),
    { numRuns: 10, seed: 8 },
  );
});

test('a change of an open hour is read alone, and one of a closed hour makes the period be read again', async () => {
  const { pg, reader, world } = ledger;
  const tenant = 'reads';
  await setUp(tenant);
  const known = new KnownUsage();
  const count = (age: number): Promise<void> =>
    world.count([{ tenant, type: 'llm', subject: 'a', timeMs: nowMs - age * HOUR, data: { tokens: '7' } }]);
  const passAfter = async (age: number): Promise<{ posted: number; whole: boolean; newer: boolean }> => {
    await count(age);
    statements.length = 0;
    const { posted } = await postTotals(ctx, known);
    expect(await readLedgerDrift(pg, reader, tenant)).toBe(0n);
    return {
      posted,
      whole: statements.some((sql) => /FROM usage_rows/.test(sql)),
      newer: statements.some((sql) => /FROM usage_versions/.test(sql)),
    };
  };
  await postUsage(ctx);
  expect(await passAfter(0)).toEqual({ posted: 3, whole: true, newer: false });
  expect(await passAfter(0)).toEqual({ posted: 2, whole: false, newer: true });
  expect(await passAfter(1)).toEqual({ posted: 2, whole: false, newer: true });
  expect(await passAfter(30)).toEqual({ posted: 2, whole: true, newer: true });
  expect(await passAfter(0)).toEqual({ posted: 2, whole: false, newer: true });
  nowMs += HOUR;
  expect(await passAfter(0)).toEqual({ posted: 2, whole: true, newer: false });
});
