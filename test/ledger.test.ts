// The ledger on real Postgres and ClickHouse. The aggregator's part is played by a model (ledger-world.ts).
// Amounts are worked out by hand, in a plan that makes it easy: calls cost 0.01 each after 100 included; tokens
// cost 0.003 up to 1,000 and 0.001 beyond.
import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseUnitPrice } from '../contract/money.ts';
import { formatQuantity, QUANTITY_UNIT } from '../contract/quantity.ts';
import { readBalance, type Balance } from '../ledger/balance.ts';
import { closePeriod, type CloseOutcome } from '../ledger/close.ts';
import { readConservation } from '../ledger/conservation.ts';
import type { LedgerContext } from '../ledger/context.ts';
import { CustomerRefused, putCustomer, type CustomerDraft } from '../ledger/customers.ts';
import { readEntitlements } from '../ledger/entitlements.ts';
import { expireGrants, issueGrant, listGrants, type GrantDraft } from '../ledger/grants.ts';
import {
  claimOutbox,
  completeOutbox,
  postponeOutbox,
  readInvoice,
  recordInvoiceSent,
  recordPayment,
  type Invoice,
} from '../ledger/index.ts';
import { IdempotencyKeyReused, listTransactions, postTransactions } from '../ledger/journal-store.ts';
import { move, type TransactionDraft } from '../ledger/journal.ts';
import { planMistakes, type PlanDraft } from '../ledger/plan.ts';
import { publishPlan } from '../ledger/plans.ts';
import { postUsage } from '../ledger/post-usage.ts';
import { createTenant } from '../ledger/tenants.ts';
import { verifyLedger } from '../ledger/verify.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { sqlState, type Postgres } from '../runtime/postgres.ts';
import { meterNamed, startLedgerWorld, type LedgerWorld, type Use, type World } from './ledger-world.ts';

const log = createLog('test', 'silent');
const OCTOBER = Date.UTC(2026, 9, 1);
const NOVEMBER = Date.UTC(2026, 10, 1);
const DECEMBER = Date.UTC(2026, 11, 1);
const HOUR = 3_600_000;
const DEADLINE_MS = 30_000;

let ledger: LedgerWorld;
let pg: Postgres;
let ch: ClickHouse;
let world: World;
let ctx: LedgerContext;
let tenant: string;
let nowMs: number;
let tenants = 0;

const connect = (name: string, poolMax?: number): Postgres => ledger.connect(name, poolMax);

beforeAll(async () => {
  ledger = await startLedgerWorld();
  ({ pg, ch, world } = ledger);
  ctx = { pg, ch, log, clock: { now: () => nowMs } };
});
afterAll(() => ledger?.stop());

const meters = [
  meterNamed('calls', { aggregation: 'count', valueProperty: null }),
  meterNamed('tokens'),
  meterNamed('seats', { eventType: 'seats', aggregation: 'latest', valueProperty: 'seats' }),
];

const plan: PlanDraft = {
  key: 'pro',
  name: 'Pro',
  currency: 'USD',
  prices: [
    {
      key: 'calls',
      meter: 'calls',
      included: 100n * QUANTITY_UNIT,
      model: 'per_unit',
      unitPrice: parseUnitPrice('0.01')!,
    },
    {
      key: 'tokens',
      meter: 'tokens',
      included: 0n,
      model: 'graduated',
      tiers: [
        { upTo: 1_000n * QUANTITY_UNIT, unitPrice: parseUnitPrice('0.003')!, flatAmount: 0n },
        { upTo: null, unitPrice: parseUnitPrice('0.001')!, flatAmount: 0n },
      ],
    },
  ],
  entitlements: [{ key: 'token_cap', meter: 'tokens', limit: 5_000n * QUANTITY_UNIT }],
};

// A tenant of its own for every test; the engines and the cursors are shared.
beforeEach(async () => {
  tenants += 1;
  tenant = `t${tenants}`;
  nowMs = NOVEMBER + 10 * 24 * HOUR;
  await createTenant(pg, { tenant, name: tenant, nowMs });
  for (const one of meters) await world.define(tenant, one, nowMs);
  expect(planMistakes(plan, meters)).toEqual([]);
  await pg.transaction((tx) => publishPlan(tx, { tenant, plan, nowMs }));
});

// Whatever a test did, the books are right after it.
afterEach(async () => {
  const { findings } = await verifyLedger(pg);
  expect(findings).toEqual([]);
});

function put(id: string, o: Partial<CustomerDraft> = {}) {
  return pg.transaction((tx) =>
    putCustomer(tx, {
      tenant,
      id,
      name: id,
      currency: 'USD',
      subjects: [id],
      planKey: 'pro',
      anchorMs: OCTOBER,
      nowMs,
      ...o,
    }),
  );
}

const tokens = (subject: string, value: string, timeMs = NOVEMBER + HOUR): Use => ({
  tenant,
  type: 'llm',
  subject,
  timeMs,
  data: { tokens: value },
});

const grant = (id: string, amount: bigint, o: Partial<GrantDraft> = {}) =>
  pg.transaction((tx) =>
    issueGrant(tx, {
      tenant,
      customer: 'acme',
      id: `${tenant}-${id}`,
      amount,
      reason: 'test',
      expiresAtMs: null,
      priority: 0,
      actor: 'finance',
      nowMs,
      ...o,
    }),
  );

async function balance(customer = 'acme'): Promise<Balance> {
  const found = await readBalance(pg, tenant, customer, nowMs);
  if (found === null) throw new Error(`no balance of ${customer}`);
  return found;
}

async function accounts(customer = 'acme'): Promise<Record<string, string>> {
  const rows = await pg.query<{ account: string; amount: string }>(
    'SELECT account, amount::text AS amount FROM ledger.balances WHERE tenant = $1 AND customer = $2 AND amount <> 0 ORDER BY account',
    [tenant, customer],
  );
  return Object.fromEntries(rows.map((row) => [row.account, row.amount]));
}

const close = (customer: string, periodStart: number): Promise<CloseOutcome> =>
  closePeriod(ctx, { tenant, customer, periodStart, actor: 'finance' });

async function closed(customer: string, periodStart: number): Promise<Invoice> {
  const result = await close(customer, periodStart);
  if (result.outcome !== 'closed') throw new Error(`not closed: ${JSON.stringify(result, bigintText)}`);
  return result.invoice;
}

const bigintText = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? `${value}n` : value;

const lines = (invoice: Invoice): string[] =>
  invoice.lines.map(
    (line) => `${line.kind} ${line.priceKey ?? '-'} ${formatQuantity(line.quantity)} ${line.amount}`,
  );

async function within<T>(what: string, attempt: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + DEADLINE_MS;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const found = await attempt();
      if (found !== undefined) return found;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`${what} did not come about`, { cause: last });
}

describe('the database', () => {
  const payment = (o: Partial<TransactionDraft> = {}): TransactionDraft => ({
    tenant,
    customer: 'acme',
    currency: 'USD',
    kind: 'payment',
    idempotencyKey: 'p1',
    effectiveAtMs: nowMs,
    detail: {},
    postings: move('receivable', 'cash', 5n),
    ...o,
  });
  const undone = new Error('undo');
  /** Runs statements in a transaction that never commits; deferred constraints are checked. */
  const attempt = async (...statements: string[]): Promise<string | undefined> => {
    try {
      await pg.transaction(async (tx) => {
        for (const sql of statements) await tx.query(sql);
        await tx.query('SET CONSTRAINTS ALL IMMEDIATE');
        throw undone;
      });
    } catch (error) {
      if (error !== undone) return sqlState(error) ?? String(error);
    }
    return undefined;
  };

  test('refuses an unbalanced transaction, and any update, delete or truncate, even by hand', async () => {
    await put('acme');
    await pg.transaction((tx) =>
      postTransactions(
        tx,
        tenant,
        [payment(), payment({ idempotencyKey: 'p2', postings: move('cash', 'receivable', 5n) })],
        nowMs,
      ),
    );
    const insert = `INSERT INTO ledger.transactions SELECT tenant, id + 100, customer, currency, kind, idempotency_key || 'x', input_hash,
      effective_at, posted_at, detail, previous_hash, hash FROM ledger.transactions WHERE tenant = '${tenant}' AND id = 1`;
    const posting = (id: number, ordinal: number, amount: number) =>
      `INSERT INTO ledger.postings (tenant, transaction_id, ordinal, account, amount) VALUES ('${tenant}', ${id}, ${ordinal}, 'cash', ${amount})`;
    const pair = (id: number, ordinal: number, amount: number) =>
      `${posting(id, ordinal, amount)}, ('${tenant}', ${id}, ${ordinal + 1}, 'receivable', -1)`;
    const rows: [string, string[], string | undefined][] = [
      ['no postings', [insert], '23514'],
      ['one posting', [insert, posting(101, 0, 1)], '23514'],
      ['a sum that is not zero', [insert, pair(101, 0, 2)], '23514'],
      ['a posting of zero', [insert, posting(101, 0, 0), posting(101, 1, 0)], '23514'],
      ['a sum of zero', [insert, pair(101, 0, 1)], undefined],
      ['postings of a transaction one by one', [insert, posting(101, 0, 1), posting(101, 1, -1)], '23514'],
      ['postings without a transaction', [pair(101, 0, 1)], '23514'],
      ['a posting more on an old transaction', [posting(1, 2, 1)], '23514'],
      ['a pair more on an old transaction', [pair(1, 2, 1)], '23514'],
      ['its first postings once more', [pair(1, 0, 1)], '23505'],
      ['an update', [`UPDATE ledger.postings SET amount = amount * 2 WHERE tenant = '${tenant}'`], '23001'],
      ['a delete', [`DELETE FROM ledger.postings WHERE tenant = '${tenant}'`], '23001'],
      ['a truncate', ['TRUNCATE ledger.postings'], '23001'],
      ['an update', [`UPDATE ledger.transactions SET posted_at = now() WHERE tenant = '${tenant}'`], '23001'],
      ['a delete', [`DELETE FROM ledger.transactions WHERE tenant = '${tenant}'`], '23001'],
      ['a truncate', ['TRUNCATE ledger.transactions CASCADE'], '23001'],
    ];
    for (const [what, statements, expected] of rows)
      expect(await attempt(...statements), what).toBe(expected);
  });

  test('takes a transaction once under its key, and no other one under the same key', async () => {
    await put('acme');
    const post = (one: TransactionDraft) =>
      pg.transaction((tx) => postTransactions(tx, tenant, [one], nowMs));
    const [id] = await post(payment());
    expect(await post(payment())).toEqual([id]);
    await expect(post(payment({ postings: move('receivable', 'cash', 6n) }))).rejects.toThrow(
      IdempotencyKeyReused,
    );
    await post(payment({ idempotencyKey: 'p2', postings: move('cash', 'receivable', 5n) }));
    expect(await accounts()).toEqual({});
  });

  test('a row changed by hand is found by its hash, even with the triggers off and the sums right', async () => {
    await put('acme');
    await pg.transaction((tx) =>
      postTransactions(
        tx,
        tenant,
        [1, 2, 3].map((at) =>
          payment({
            idempotencyKey: `p${at}`,
            postings: move('receivable', 'cash', at === 3 ? -3n : BigInt(at)),
          }),
        ),
        nowMs,
      ),
    );
    const tamper = async (sql: string, expected: readonly string[]): Promise<void> => {
      await expect(
        pg.transaction(async (tx) => {
          await tx.query('SET LOCAL session_replication_role = replica');
          await tx.query(sql);
          const { findings } = await verifyLedger({ ...pg, transaction: (run) => run(tx) } as Postgres);
          expect(findings.map((one) => `${one.check} ${one.tenant}`)).toEqual(expected);
          throw undone;
        }),
      ).rejects.toBe(undone);
    };
    const mine = `tenant = '${tenant}'`;
    const chain = `chain ${tenant}`;
    await tamper(`SELECT 1`, []);
    // Zero-sum and unseen by every sum but the balances': the hash and the input hash of one transaction.
    await tamper(`UPDATE ledger.postings SET amount = amount * 10 WHERE ${mine} AND transaction_id = 2`, [
      chain,
      chain,
      ...Array<string>(2).fill(`0002-balance-equals-entries ${tenant}`),
    ]);
    await tamper(
      `UPDATE ledger.transactions SET posted_at = posted_at + interval '1 day' WHERE ${mine} AND id = 1`,
      [chain],
    );
    // The last one is gone without a trace, but for the head.
    await tamper(
      `WITH gone AS (DELETE FROM ledger.postings WHERE ${mine} AND transaction_id = 3 RETURNING *)
       DELETE FROM ledger.transactions WHERE ${mine} AND id = 3`,
      [chain, ...Array<string>(2).fill(`0002-balance-equals-entries ${tenant}`)],
    );
    // A gap: two links are wrong.
    await tamper(
      `WITH gone AS (DELETE FROM ledger.postings WHERE ${mine} AND transaction_id = 2 RETURNING *)
       DELETE FROM ledger.transactions WHERE ${mine} AND id = 2`,
      [chain, chain, ...Array<string>(2).fill(`0002-balance-equals-entries ${tenant}`)],
    );
  });

  test('every check says when it fires', async () => {
    const { checks } = await verifyLedger(pg);
    expect(checks.length).toBeGreaterThanOrEqual(7);
    for (const name of checks) {
      const sql = await readFile(new URL(`../ledger/checks/${name}.sql`, import.meta.url), 'utf8');
      expect(sql, name).toMatch(/^-- Fires when /);
    }
  });
});

describe('posting usage', () => {
  test('posts the price of the total, once, and then only what it differs by', async () => {
    await put('acme');
    await world.count([tokens('acme', '400'), tokens('acme', '500')]);
    // 900 × 0.003 = 2.70; two calls are within the allowance.
    expect(await postUsage(ctx)).toMatchObject({ changed: 1 });
    expect(await accounts()).toEqual({ accrued_usage: '270', revenue: '-270' });
    expect(await postUsage(ctx)).toMatchObject({ changed: 0, posted: 0 });

    // 1,500: 1,000 × 0.003 + 500 × 0.001 = 3.50.
    await world.count([tokens('acme', '600')]);
    await postUsage(ctx);
    expect(await accounts()).toEqual({ accrued_usage: '350', revenue: '-350' });
    const [newest] = await listTransactions(pg, { tenant, customer: 'acme', before: null, limit: 1 });
    expect(newest?.detail).toMatchObject({
      price: 'tokens',
      quantityBefore: '900',
      quantity: '1500',
      plan: 'pro@1',
    });
    expect(newest?.postings).toEqual(move('revenue', 'accrued_usage', 80n));

    // A correction makes it less: 1,000 × 0.003 + 100 × 0.001 = 3.10.
    await world.count([tokens('acme', '-400')]);
    await postUsage(ctx);
    expect(await accounts()).toEqual({ accrued_usage: '310', revenue: '-310' });
    expect(await balance()).toMatchObject({
      accruedUsage: 310n,
      net: 310n,
      periods: [{ start: NOVEMBER, end: DECEMBER, accrued: 310n, credited: 0n }],
    });
  });

  test('adds the subjects of a customer before it rates, and each period for itself', async () => {
    await put('acme', { subjects: ['a', 'b'] });
    // October: 600 + 600 = 1,200: 3.00 + 0.20. Rated apart it would have been 1.80 twice.
    await world.count([tokens('a', '600', OCTOBER), tokens('b', '600', NOVEMBER - 1)]);
    await world.count([tokens('a', '10', NOVEMBER)]);
    await postUsage(ctx);
    expect((await balance()).periods).toEqual([
      { start: OCTOBER, end: NOVEMBER, accrued: 320n, credited: 0n },
      { start: NOVEMBER, end: DECEMBER, accrued: 3n, credited: 0n },
    ]);
  });

  test('one pass posts for many customers', async () => {
    const names = Array.from({ length: 60 }, (_, at) => `c${at}`);
    for (const name of names) await put(name);
    await world.count(names.flatMap((name, at) => [tokens(name, String(at)), tokens(name, String(at))]));
    await postUsage(ctx);
    for (const [at, name] of names.entries()) {
      // 2 × at × 0.003 = at × 0.6 cents, half away from zero.
      const cents = Math.floor((at * 6 + 5) / 10);
      expect((await balance(name)).accruedUsage, name).toBe(BigInt(cents));
    }
  });

  test('pages and chunks of any size post the same', async () => {
    const names = Array.from({ length: 7 }, (_, at) => `c${at}`);
    for (const name of names) await put(name, { subjects: [name, `${name}-b`] });
    const small = { ...ctx, postingLimits: { customersPerTransaction: 2, changesPerPage: 3 } };
    const uses = names.flatMap((name) => [
      tokens(name, '100', OCTOBER),
      tokens(name, '100'),
      tokens(`${name}-b`, '100'),
    ]);
    await world.count(uses);
    await postUsage(small);
    await world.count(uses);
    await postUsage(small);
    for (const name of names) {
      // October 200 × 0.003, November 400 × 0.003.
      expect(await accounts(name), name).toEqual({ accrued_usage: '180', revenue: '-180' });
    }
    expect((await readConservation(ctx, tenant)).drift.ledger).toBe(0n);
  });

  test('any sequence of totals ends in the sums of the last one, credit included', async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: -2_000, max: 4_000 }), { minLength: 1, maxLength: 4 }),
        fc.array(fc.record({ at: fc.nat(3), amount: fc.bigInt({ min: 1n, max: 500n }) }), { maxLength: 3 }),
        async (steps, credits) => {
          run += 1;
          const [stepwise, atOnce] = [`s${run}`, `o${run}`];
          await put(stepwise);
          await put(atOnce);
          const issue = (customer: string, at: number) =>
            grant(`${customer}-${at}`, credits[at]!.amount, { customer });
          for (const [at, step] of steps.entries()) {
            for (const [number, one] of credits.entries()) {
              if (Math.min(one.at, steps.length - 1) === at) await issue(stepwise, number);
            }
            await world.count([tokens(stepwise, String(step))]);
            await postUsage(ctx);
          }
          for (const number of credits.keys()) await issue(atOnce, number);
          const total = steps.reduce((sum, step) => sum + step, 0);
          await world.count([tokens(atOnce, String(total))]);
          await postUsage(ctx);
          expect(await accounts(stepwise)).toEqual(await accounts(atOnce));
        },
      ),
      { numRuns: 6 },
    );
  });

  test('ledgers beside each other post everything once', async () => {
    await put('acme');
    const others = [0, 1, 2].map((at) => ({ ...ctx, pg: connect(`ledger ${at}`, 2) }));
    for (let round = 1; round <= 6; round++) {
      await world.count([tokens('acme', '100')]);
      await Promise.all([ctx, ...others].map((one) => postUsage(one)));
    }
    await postUsage(ctx);
    // 600 × 0.003
    expect(await accounts()).toEqual({ accrued_usage: '180', revenue: '-180' });
  });

  test('a Postgres that is killed again and again loses nothing and posts nothing twice', async () => {
    await put('acme');
    let posting = true;
    const passes = (async () => {
      while (posting) await postUsage(ctx).catch(() => new Promise((resolve) => setTimeout(resolve, 20)));
    })();
    for (let round = 1; round <= 3; round++) {
      for (let event = 0; event < 5; event++) await world.count([tokens('acme', '20')]);
      await ledger.engines.postgres.kill();
      await ledger.engines.postgres.restart();
    }
    posting = false;
    await passes;
    await within('a pass', () => postUsage(ctx));
    // 300 × 0.003
    expect(await accounts()).toEqual({ accrued_usage: '90', revenue: '-90' });
  });

  test('usage without a customer waits, and is billed when the subject gets one', async () => {
    await world.count([tokens('acme', '1000'), tokens('acme', '5000', OCTOBER - HOUR)]);
    await postUsage(ctx);
    const report = await readConservation(ctx, tenant);
    expect(report.drift).toEqual({ rollup: 0n, ledger: 0n, stripeCents: 0n });
    expect(await accounts()).toEqual({});
    await put('acme');
    await postUsage(ctx);
    // What lies before the anchor is not billed.
    expect(await accounts()).toEqual({ accrued_usage: '300', revenue: '-300' });
    expect((await readConservation(ctx, tenant)).drift.ledger).toBe(0n);
  });

  test('a meter that reads the latest value is rated on it, over all subjects and shards', async () => {
    const seats = (subject: string, value: string, timeMs: number): Use => ({
      tenant,
      type: 'seats',
      subject,
      timeMs,
      data: { seats: value },
    });
    await pg.transaction((tx) =>
      publishPlan(tx, {
        tenant,
        nowMs,
        plan: {
          ...plan,
          key: 'seats',
          prices: [
            {
              key: 'seats',
              meter: 'seats',
              included: 0n,
              model: 'per_unit',
              unitPrice: parseUnitPrice('10')!,
            },
          ],
        },
      }),
    );
    await put('acme', { planKey: 'seats', subjects: ['a', 'b'] });
    await world.count([
      seats('a', '7', NOVEMBER + 2 * HOUR),
      seats('b', '3', NOVEMBER + HOUR),
      seats('a', '9', NOVEMBER),
    ]);
    await postUsage(ctx);
    expect((await balance()).accruedUsage).toBe(7_000n);
    await world.count([seats('b', '4', NOVEMBER + 3 * HOUR)]);
    await postUsage(ctx);
    expect((await balance()).accruedUsage).toBe(4_000n);
  });

  test('the drift of the ledger is the quantity that is not posted yet', async () => {
    await put('acme');
    await world.count([tokens('acme', '12.5')]);
    // 12.5 tokens and one call.
    expect(formatQuantity((await readConservation(ctx, tenant)).drift.ledger)).toBe('13.5');
    await postUsage(ctx);
    expect((await readConservation(ctx, tenant)).drift).toEqual({ rollup: 0n, ledger: 0n, stripeCents: 0n });
    await world.tamper(tenant, 'tokens', 'acme', QUANTITY_UNIT);
    expect((await readConservation(ctx, tenant)).drift).toMatchObject({ rollup: 1n, ledger: QUANTITY_UNIT });
    await world.tamper(tenant, 'tokens', 'acme', -QUANTITY_UNIT);
    expect((await readConservation(ctx, tenant)).drift).toEqual({ rollup: 0n, ledger: 0n, stripeCents: 0n });
  });

  test('entitlements compare a period with its limits', async () => {
    await put('acme');
    await world.count([tokens('acme', '4999.5'), tokens('acme', '70000', OCTOBER)]);
    const read = async () => (await readEntitlements({ db: pg, ch, nowMs }, tenant, 'acme', nowMs))![0]!;
    expect(await read()).toMatchObject({
      key: 'token_cap',
      allowed: true,
      periodStartMs: NOVEMBER,
      periodEndMs: DECEMBER,
    });
    expect(formatQuantity((await read()).remaining)).toBe('0.5');
    await world.count([tokens('acme', '0.5')]);
    expect(await read()).toMatchObject({ allowed: false, remaining: 0n });
  });
});

describe('customers', () => {
  test('are refused what would rewrite what is posted', async () => {
    const refusal = (promise: Promise<unknown>): Promise<string> =>
      promise.then(
        () => 'taken',
        (error: unknown) => (error instanceof CustomerRefused ? error.code : String(error)),
      );
    await put('acme');
    await put('other');
    expect(await refusal(put('acme'))).toBe('taken');
    expect(await refusal(put('acme', { name: 'Acme Inc', subjects: ['acme', 'x'] }))).toBe('taken');
    expect(await refusal(put('acme', { subjects: ['acme', 'other'] }))).toBe('subject_taken');
    expect(await refusal(put('new', { planKey: 'none' }))).toBe('plan_unknown');
    expect(await refusal(put('new', { currency: 'EUR' }))).toBe('plan_currency');
    expect(await refusal(put('acme', { anchorMs: NOVEMBER }))).toBe('taken');
    await world.count([tokens('acme', '1')]);
    await postUsage(ctx);
    expect(await refusal(put('acme', { anchorMs: OCTOBER, subjects: ['acme', 'x'] }))).toBe('terms_fixed');
    expect(await refusal(put('acme', { anchorMs: NOVEMBER, subjects: ['x'] }))).toBe('subject_billed');
    expect(await refusal(put('acme', { anchorMs: NOVEMBER, subjects: ['acme', 'x', 'y'] }))).toBe('taken');
  });
});

describe('credit', () => {
  test('covers what accrued, before and after it was issued, and comes back when usage shrinks', async () => {
    await put('acme');
    await world.count([tokens('acme', '1000')]);
    await postUsage(ctx);
    await grant('g1', 500n);
    await postUsage(ctx);
    expect(await accounts()).toEqual({
      credit: '-200',
      credit_expense: '500',
      revenue: '-300',
    });
    // 3,000 tokens are 3.00 + 2.00.
    await world.count([tokens('acme', '2000')]);
    await postUsage(ctx);
    expect(await balance()).toMatchObject({ accruedUsage: 0n, credit: 0n, net: 0n });
    await world.count([tokens('acme', '-2500')]);
    await postUsage(ctx);
    // 500 × 0.003 = 1.50 stay covered.
    expect(await balance()).toMatchObject({ accruedUsage: 0n, credit: 350n, net: -350n });
    expect((await balance()).periods).toEqual([
      { start: NOVEMBER, end: DECEMBER, accrued: 150n, credited: 150n },
    ]);
  });

  test('is given once under its id', async () => {
    await put('acme');
    const first = await grant('g', 500n);
    nowMs += HOUR;
    expect(await grant('g', 500n)).toEqual(first);
    await expect(grant('g', 501n)).rejects.toThrow(IdempotencyKeyReused);
    expect((await balance()).credit).toBe(500n);
  });

  test('expires with what is left of it, and never covers anything after', async () => {
    await put('acme');
    await grant('short', 500n, { expiresAtMs: nowMs + HOUR });
    await grant('long', 100n);
    await world.count([tokens('acme', '1000')]);
    await postUsage(ctx);
    nowMs += HOUR;
    await postUsage(ctx);
    const [short, long] = await listGrants(pg, tenant, 'acme').then((all) =>
      all.sort((a) => (a.id.endsWith('short') ? -1 : 1)),
    );
    expect(short).toMatchObject({ used: 300n, expired: 200n, remaining: 0n });
    expect(long).toMatchObject({ used: 0n, remaining: 100n });
    await world.count([tokens('acme', '2000')]);
    await postUsage(ctx);
    expect(await balance()).toMatchObject({ accruedUsage: 100n, credit: 0n });
    expect(await pg.transaction((tx) => expireGrants(tx, nowMs))).toBe(0);
  });
});

describe('closing', () => {
  test('makes an invoice of a period, once, and nothing before it is over', async () => {
    await put('acme');
    await grant('g', 30n);
    await world.count([
      ...Array<Use>(3).fill(tokens('acme', '400', OCTOBER + HOUR)),
      tokens('acme', '50', NOVEMBER),
    ]);
    expect(await close('acme', NOVEMBER)).toMatchObject({ outcome: 'period_open', endsAtMs: DECEMBER });
    expect(await close('nobody', OCTOBER)).toMatchObject({ outcome: 'no_subscription' });
    // 1,200 tokens: 3.00 + 0.20; three calls are included; 0.30 of credit.
    const invoice = await closed('acme', OCTOBER);
    expect(lines(invoice)).toEqual(['usage calls 3 0', 'usage tokens 1200 320', 'credit - 0 -30']);
    expect(invoice).toMatchObject({
      total: 290n,
      status: 'issued',
      periodStart: OCTOBER,
      periodEnd: NOVEMBER,
      delivery: null,
    });
    const again = await close('acme', OCTOBER);
    expect(again).toEqual({ outcome: 'already_closed', invoice });
    expect(await readInvoice(pg, tenant, invoice.id)).toEqual(invoice);
    // November's 0.15 stays.
    expect(await balance()).toMatchObject({ accruedUsage: 15n, invoicePending: 290n, net: 305n });
  });

  test('a period without usage has an invoice over nothing', async () => {
    await put('acme');
    const invoice = await closed('acme', OCTOBER);
    expect(invoice.total).toBe(0n);
    const [entry] = await pg.transaction((tx) => claimOutbox(tx, { limit: 100, leaseMs: 1, nowMs }));
    expect(entry).toBeDefined();
  });

  test('late usage leaves the closed invoice alone and is an adjustment on the next one', async () => {
    await put('acme');
    await world.count([tokens('acme', '900', OCTOBER + HOUR)]);
    const october = await closed('acme', OCTOBER);
    expect(october.total).toBe(270n);
    // 1,100 altogether: 3.00 + 0.10, so 0.40 more.
    await world.count([tokens('acme', '200', OCTOBER + 2 * HOUR), tokens('acme', '100')]);
    await postUsage(ctx);
    expect(await readInvoice(pg, tenant, october.id)).toEqual(october);
    expect(await balance()).toMatchObject({ accruedUsage: 70n, invoicePending: 270n });
    nowMs = DECEMBER + HOUR;
    const november = await closed('acme', NOVEMBER);
    expect(lines(november)).toEqual(
      expect.arrayContaining(['usage calls 1 0', 'usage tokens 100 30', 'adjustment tokens 200 40']),
    );
    expect(november.total).toBe(70n);
    expect(
      november.lines.find((line) => line.kind === 'adjustment' && line.priceKey === 'tokens'),
    ).toMatchObject({
      periodStart: OCTOBER,
      periodEnd: NOVEMBER,
    });
    // And a correction of both, downwards: October −100 tokens is −0.10.
    await world.count([tokens('acme', '-100', OCTOBER + 3 * HOUR)]);
    nowMs = Date.UTC(2027, 0, 2);
    const december = await closed('acme', DECEMBER);
    expect(december.total).toBe(-10n);
    // 2.70 + 0.70 − 0.10, all of it on invoices.
    expect(await accounts()).toEqual({ invoice_pending: '330', revenue: '-330' });
  });

  test('credit covers an adjustment and stands on its invoice', async () => {
    await put('acme');
    await world.count([tokens('acme', '900', OCTOBER + HOUR)]);
    await closed('acme', OCTOBER);
    await grant('g', 1_000n);
    await world.count([tokens('acme', '100', OCTOBER + HOUR), tokens('acme', '100')]);
    nowMs = DECEMBER;
    const november = await closed('acme', NOVEMBER);
    expect(lines(november)).toEqual([
      'usage calls 1 0',
      'usage tokens 100 30',
      'adjustment calls 1 0',
      'adjustment tokens 100 30',
      'credit - 0 -30',
      'credit - 0 -30',
    ]);
    expect(november.total).toBe(0n);
    // What the first invoice charged is owed, whatever credit came later.
    expect(await balance()).toMatchObject({ accruedUsage: 0n, credit: 940n, invoicePending: 270n });
  });

  test('a period that is still open stays for its own invoice', async () => {
    await put('acme');
    await world.count([tokens('acme', '900', OCTOBER + HOUR), tokens('acme', '100')]);
    nowMs = DECEMBER;
    expect(lines(await closed('acme', NOVEMBER))).toEqual(['usage calls 1 0', 'usage tokens 100 30']);
    expect(lines(await closed('acme', OCTOBER))).toEqual(['usage calls 1 0', 'usage tokens 900 270']);
    expect(await close('acme', OCTOBER + HOUR)).toMatchObject({
      outcome: 'not_a_period',
      periodStartMs: OCTOBER,
    });
    expect(await close('acme', Date.UTC(2026, 8, 1))).toMatchObject({ outcome: 'no_subscription' });
  });

  test('is refused while the rollup is not what the raw events say', async () => {
    await put('acme');
    await world.count([tokens('acme', '900', OCTOBER + HOUR)]);
    await world.tamper(tenant, 'tokens', 'acme', 5n * QUANTITY_UNIT);
    const result = await close('acme', OCTOBER);
    expect(result).toMatchObject({ outcome: 'usage_mismatch' });
    expect(JSON.stringify(result, bigintText)).toContain('tokens');
    await world.tamper(tenant, 'tokens', 'acme', -5n * QUANTITY_UNIT);
    expect((await closed('acme', OCTOBER)).total).toBe(270n);
  });

  test('closers beside each other make one invoice', async () => {
    await put('acme');
    await world.count([tokens('acme', '900', OCTOBER + HOUR)]);
    const results = await Promise.all([0, 1, 2].map(() => close('acme', OCTOBER)));
    const outcomes = results.map((one) => one.outcome).sort();
    expect(outcomes.filter((one) => one === 'closed').length).toBeLessThanOrEqual(1);
    expect(
      outcomes.every((one) => ['already_closed', 'behind', 'closed'].includes(one)),
      outcomes.join(),
    ).toBe(true);
    await close('acme', OCTOBER);
    const [count] = await pg.query<{ n: bigint }>(
      'SELECT count(*) AS n FROM ledger.invoices WHERE tenant = $1',
      [tenant],
    );
    expect(count?.n).toBe(1n);
  });

  test('invoices are numbered without a gap', async () => {
    await put('acme');
    await put('other');
    const invoices = [await closed('acme', OCTOBER), await closed('other', OCTOBER)];
    const numbers = invoices.map((one) => Number(/(\d+)$/.exec(one.number)![1]));
    expect(numbers[1]).toBe(numbers[0]! + 1);
  });
});

describe('the outbox and what comes back', () => {
  const claim = (limit: number, leaseMs = 1_000) =>
    pg.transaction((tx) => claimOutbox(tx, { limit, leaseMs, nowMs }), { isolation: 'read committed' });

  test('claimers beside each other never get the same entry; a lease that ends gives it to the next', async () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const name of names) {
      await put(name);
      await closed(name, OCTOBER);
    }
    const mine = (entries: readonly { tenant: string; customer: string }[]) =>
      entries.filter((one) => one.tenant === tenant).map((one) => one.customer);
    const [first, second] = await Promise.all([claim(200), claim(200)]);
    expect([...mine(first), ...mine(second)].sort()).toEqual(names);
    expect(mine(await claim(200))).toEqual([]);
    nowMs += 1_000;
    const again = await claim(200);
    expect(mine(again).sort()).toEqual(names);
    const entries = again.filter((one) => one.tenant === tenant);
    await pg.transaction((tx) =>
      postponeOutbox(tx, { id: entries[0]!.id, error: 'away', nextAttemptAtMs: nowMs + 60_000 }),
    );
    nowMs += 1_000;
    expect(mine(await claim(200)).sort()).toEqual(
      entries
        .slice(1)
        .map((one) => one.customer)
        .sort(),
    );
    nowMs += 60_000;
    const late = (await claim(200)).find((one) => one.id === entries[0]!.id);
    expect(late?.attempts).toBeGreaterThan(entries[0]!.attempts);
  });

  test('a sent and paid invoice leaves nothing in the clearing accounts, however often it is told', async () => {
    await put('acme');
    await grant('g', 70n);
    await world.count([tokens('acme', '900', OCTOBER + HOUR)]);
    const invoice = await closed('acme', OCTOBER);
    const sent = () =>
      pg.transaction((tx) =>
        recordInvoiceSent(tx, {
          tenant,
          invoiceId: invoice.id,
          stripeInvoiceId: 'in_1',
          stripeTotal: 200n,
          nowMs,
        }),
      );
    const paid = (amount = 200n) =>
      pg.transaction((tx) =>
        recordPayment(tx, {
          tenant,
          invoiceId: invoice.id,
          amount,
          externalId: 'in_1/invoice.paid',
          paidAtMs: nowMs,
          nowMs,
        }),
      );
    expect(await accounts()).toMatchObject({ invoice_pending: '200' });
    await sent();
    expect(await accounts()).toMatchObject({ receivable: '200' });
    await sent();
    expect((await readInvoice(pg, tenant, invoice.id))?.delivery).toMatchObject({
      stripeInvoiceId: 'in_1',
      stripeTotal: 200n,
    });
    const [entry] = (await claim(200)).filter((one) => one.tenant === tenant);
    await pg.transaction((tx) => completeOutbox(tx, entry!.id, nowMs));
    expect(await paid()).toBe('booked');
    nowMs += HOUR;
    expect(await paid()).toBe('known');
    await expect(paid(201n)).rejects.toThrow(IdempotencyKeyReused);
    await sent();
    expect(await accounts()).toEqual({ cash: '200', credit_expense: '70', revenue: '-270' });
    expect((await readInvoice(pg, tenant, invoice.id))?.status).toBe('paid');
    expect((await readConservation(ctx, tenant)).drift.stripeCents).toBe(0n);
  });

  test('a total that differs in Stripe is kept and counted, and not booked', async () => {
    await put('acme');
    await world.count([tokens('acme', '900', OCTOBER + HOUR)]);
    const invoice = await closed('acme', OCTOBER);
    const sent = (stripeTotal: bigint) =>
      pg.transaction((tx) =>
        recordInvoiceSent(tx, { tenant, invoiceId: invoice.id, stripeInvoiceId: 'in_2', stripeTotal, nowMs }),
      );
    await sent(268n);
    expect(await accounts()).toMatchObject({ invoice_pending: '270' });
    expect((await readConservation(ctx, tenant)).drift.stripeCents).toBe(2n);
    await sent(270n);
    expect(await accounts()).toMatchObject({ receivable: '270' });
    expect((await readConservation(ctx, tenant)).drift.stripeCents).toBe(0n);
  });
});
