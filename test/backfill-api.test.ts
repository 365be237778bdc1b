// A backfill from the API to the invoice, on real NATS, Postgres and ClickHouse: the difference that is told is the one
// that comes about, an invoice that was issued stays, and a revert takes all of it back.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { closePeriod } from '../ledger/close.ts';
import { postUsage } from '../ledger/post-usage.ts';
import { createLog } from '../runtime/log.ts';
import { AggregatorWorld } from './aggregator-world.ts';
import { ApiWorld, SHARDS } from './api-world.ts';
import { until } from './until.ts';
import type { Sent } from './usage-log.ts';

const DEADLINE_MS = 60_000;
/** For a machine that is busy with other things. */
const TEST_MS = 240_000;
const PATH = '/v1/meters/late/backfills';

let api: ApiWorld;
let world: AggregatorWorld;
beforeAll(async () => {
  api = await ApiWorld.start();
  world = await AggregatorWorld.start(SHARDS, api.engines);
});
afterAll(async () => {
  await world?.close();
  await api?.stop();
});

/** 40 events of each of two subjects in an hour of October, and 10 of each in one of November; they add up to 1 + 2 + ... */
const events = (prefix: string, timeMs: number, count: number): Sent[] =>
  Array.from({ length: count * 2 }, (_, at) => ({
    tenant: 'acme-inc',
    id: `${prefix}-${at}`,
    type: 'llm',
    subject: at % 2 === 0 ? 'c' : 'nobody',
    timeMs: timeMs + at * 1_000,
    data: { tokens: Math.floor(at / 2) + 1 },
  }));
const OCTOBER = events('october', Date.UTC(2026, 9, 30, 5), 40);
const NOVEMBER = events('november', Date.UTC(2026, 10, 2, 5), 10);

interface Shown {
  readonly id: string;
  readonly state: string;
  readonly difference: unknown;
}

async function reached(id: string, state: string): Promise<Shown> {
  let last: Shown | undefined;
  await until(
    `${id} is ${state}`,
    async () => {
      const { status, body } = await api.ask('GET', `${PATH}/${id}`);
      expect([status, body]).toEqual([200, expect.anything()]);
      last = body as Shown;
      return last.state === state;
    },
    DEADLINE_MS,
  );
  return last!;
}

async function posted(): Promise<string[]> {
  // After November, so that it can be closed.
  const ctx = {
    pg: api.pg,
    ch: api.ch,
    clock: { now: () => Date.UTC(2026, 11, 2) },
    log: createLog('test', 'silent'),
  };
  await postUsage(ctx);
  const rows = await api.pg.query<{ text: string }>(
    `SELECT to_char(period_start AT TIME ZONE 'UTC', 'MM') || ' ' || trim_scale(quantity) || ' ' || amount AS text
     FROM ledger.usage_posted ORDER BY period_start`,
  );
  return rows.map(({ text }) => text);
}

async function close(month: number): Promise<{ kind: string; quantity: bigint; amount: bigint }[]> {
  const ctx = {
    pg: api.pg,
    ch: api.ch,
    clock: { now: () => Date.UTC(2026, 11, 2) },
    log: createLog('test', 'silent'),
  };
  const periodStart = Date.UTC(2026, month, 1);
  const closed = await closePeriod(ctx, { tenant: 'acme-inc', customer: 'c', periodStart, actor: 'test' });
  if (closed.outcome !== 'closed') throw new Error(JSON.stringify(closed.outcome));
  return closed.invoice.lines.map(({ kind, quantity, amount }) => ({ kind, quantity, amount }));
}

test(
  'the difference comes about at the commit, in usage, postings and the next invoice, and goes with the revert',
  async () => {
    await world.start();
    world.log.send([...OCTOBER, ...NOVEMBER], Date.now());
    await world.drained();
    const meter = { key: 'late', eventType: 'llm', aggregation: 'sum', valueProperty: 'tokens' };
    expect((await api.ask('POST', '/v1/meters', { body: meter })).status).toBe(201);
    const prices = [{ key: 'tokens', meter: 'late', model: 'per_unit', unitPrice: '0.25', included: '20' }];
    const plan = { key: 'p', name: 'P', currency: 'USD', prices };
    expect((await api.ask('POST', '/v1/plans', { body: plan })).status).toBe(201);
    const anchor = '2026-10-01T00:00:00Z';
    const customer = { name: 'C', currency: 'USD', subjects: ['c'], plan: 'p', anchor };
    expect((await api.ask('PUT', '/v1/customers/c', { body: customer })).status).toBe(201);
    expect(await close(9)).toEqual([{ kind: 'usage', quantity: 0n, amount: 0n }]);

    // What is no backfill.
    const bad = (body: object) => api.ask('POST', PATH, { body });
    expect((await bad({ from: '2026-10-30T00:30:00Z', to: '2026-11-01T00:00:00Z' })).status).toBe(400);
    expect((await bad({ from: '2026-10-30T00:00:00Z', to: '2026-11-21T09:00:00Z' })).status).toBe(400);
    expect((await bad({ from: '2026-10-30T00:00:00Z', to: '2026-11-01T00:00:00Z', version: 2 })).status).toBe(
      400,
    );
    expect((await api.ask('GET', `${PATH}/bf_none`)).status).toBe(404);
    expect((await api.ask('POST', PATH, { key: api.keys.reader, body: {} })).status).toBe(403);

    const body = { from: '2026-10-30T00:00:00Z', to: '2026-11-03T00:00:00Z' };
    const headers = { 'idempotency-key': 'one' };
    const made = (await api.ask('POST', PATH, { body, headers })) as { status: number; body: Shown };
    expect(made).toMatchObject({ status: 201, body: { meter: 'late', version: 1 } });
    const { id } = made.body;
    expect((await api.ask('POST', PATH, { body, headers })).body).toMatchObject({ id });
    expect(await api.ask('POST', PATH, { body })).toMatchObject({ status: 200, body: { id } });

    // 1 + ... + 40 = 820 and 1 + ... + 10 = 55 of each subject; 20 of each month are included, the rest costs a quarter.
    const amounts = (from: string, change: string, isInvoiced: boolean) =>
      expect.objectContaining({
        ...{ customer: 'c', price: 'tokens', currency: 'USD', now: '0.00' },
        ...{ proposed: change, change, invoiced: isInvoiced, periodStart: `2026-${from}-01T00:00:00.000Z` },
      }) as unknown;
    const difference = (await reached(id, 'ready')).difference;
    expect(difference).toMatchObject({
      whole: {
        eventsNow: '0',
        eventsProposed: '100',
        now: '0',
        proposed: '1750',
        change: '1750',
        uncountable: '0',
      },
      days: [
        { day: '2026-10-30T00:00:00.000Z', proposed: '1640' },
        { day: '2026-11-02T00:00:00.000Z', proposed: '110' },
      ],
      subjects: [
        { subject: 'c', now: '0', change: '875' },
        { subject: 'nobody', now: '0', change: '875' },
      ],
      nextCursor: null,
      money: {
        reason: null,
        totals: [{ currency: 'USD', now: '0.00', proposed: '208.75', change: '208.75' }],
        lines: [amounts('10', '200.00', true), amounts('11', '8.75', false)],
        untold: { unassigned: 1, unpriced: 0, beforeAnchor: 0, tooManySubjects: 0 },
      },
    });
    const paged = (await api.ask('GET', `${PATH}/${id}?limit=1`)).body as {
      difference: { nextCursor: string };
    };
    const { nextCursor } = paged.difference;
    const next = await api.ask('GET', `${PATH}/${id}?limit=1&cursor=${nextCursor}`);
    expect(next.body).toMatchObject({ difference: { subjects: [{ subject: 'nobody' }], money: null } });
    expect(await posted()).toEqual([]);

    const taken = await api.ask('POST', `${PATH}/${id}/commit`);
    expect([200, 202]).toContain(taken.status);
    expect((await reached(id, 'committed')).difference).toBeNull();
    expect(await posted()).toEqual(['10 820 20000', '11 55 875']);
    const usage = await api.ask(
      'GET',
      '/v1/usage?meter=late&window=total&subject=c&from=2026-10-01T00:00:00Z&to=2026-12-01T00:00:00Z',
    );
    expect(usage.body).toMatchObject({ rows: [{ value: '875' }] });
    // The hours are taken.
    api.nowMs += 60_000;
    const second = { from: '2026-11-02T00:00:00Z', to: '2026-11-03T00:00:00Z' };
    const other = ((await api.ask('POST', PATH, { body: second })).body as Shown).id;
    await reached(other, 'ready');
    expect(await api.ask('POST', `${PATH}/${other}/commit`)).toMatchObject({
      status: 409,
      body: { code: 'backfill_overlaps' },
    });
    expect(await api.ask('POST', `${PATH}/${other}/discard`)).toMatchObject({
      status: 200,
      body: { state: 'discarded' },
    });
    expect(await api.ask('POST', `${PATH}/${other}/commit`)).toMatchObject({
      status: 409,
      body: { code: 'backfill_state' },
    });

    // October has its invoice: what the backfill brought is an adjustment on November's.
    expect(await close(10)).toEqual([
      { kind: 'usage', quantity: 55_000_000_000n, amount: 875n },
      { kind: 'adjustment', quantity: 820_000_000_000n, amount: 20_000n },
    ]);
    await api.ask('POST', `${PATH}/${id}/revert`);
    await reached(id, 'reverted');
    expect(await posted()).toEqual(['10 0 0', '11 0 0']);
    expect((await api.ask('GET', PATH)).body).toMatchObject({
      items: [{ state: 'discarded' }, { state: 'reverted' }],
    });
    expect(await api.audit('backfill.commit')).toEqual([`meter/late/backfill/${id}`]);
    await world.expectChecks();
  },
  TEST_MS,
);
