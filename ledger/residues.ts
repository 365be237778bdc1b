/**
 * What has to return to zero, as gauges: drift between the stages, clearing accounts, and invoices that wait
 * for Stripe. Over all tenants together: the conservation report and the checks say whose they are.
 */
import { formatQuantity } from '../contract/quantity.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { readCounters, readLedgerDrift, readStripeDrift } from './conservation.ts';
import type { LedgerContext } from './context.ts';
import { Pace } from './pace.ts';
import { readCheckState } from './rollup-check.ts';

const SELECT_TENANTS = 'SELECT tenant FROM ledger.tenants ORDER BY tenant';

const SELECT_CLEARING = `
  SELECT account, currency, sum(abs(amount))::text AS amount FROM ledger.balances
  WHERE account IN ('accrued_usage', 'invoice_pending', 'stripe_in_flight')
  GROUP BY account, currency`;

const SELECT_OLDEST = `
  SELECT (extract(epoch FROM $1::timestamptz - min(created_at)))::float8 AS seconds, count(*)::int AS waiting
  FROM ledger.outbox WHERE done_at IS NULL`;

/** After so long the drift of no further tenant is read in one turn. */
const DRIFT_MS = 3_000;
/** Reading drift compares all usage of a tenant's customers, unique counts included. */
const DRIFT = { share: 0.02, restMsMax: 600_000 };
/** While something differs, so that it is soon seen when it does not any more; no rest at all when it took this or less. */
const DRIFTING_SHARE = 0.05;
const DRIFTING_MS = 1_500;

export interface Residues {
  /** Reads everything once. Throws when an engine is away. */
  read(): Promise<void>;
}

export function residueGauges(metrics: Metrics, ctx: LedgerContext): Residues {
  const rollup = metrics.gauge(
    'tallyline_drift_rollup_rows',
    'hours of a meter and subject that differ from the raw events',
  );
  const unchecked = metrics.gauge(
    'tallyline_rollup_check_waiting_count',
    'changed hours whose rollups wait to be compared with raw events',
  );
  const uncheckedOldest = metrics.gauge(
    'tallyline_rollup_check_oldest_seconds',
    'how long the oldest of them has waited',
  );
  const sweepProgress = metrics.gauge(
    'tallyline_rollup_sweep_ratio',
    'part of the running comparison of everything that is done; 1 when none is running',
  );
  const sweepAge = metrics.gauge(
    'tallyline_rollup_sweep_age_seconds',
    'since the last complete comparison of everything began; -1 before the first is through',
  );
  const ledger = metrics.gauge(
    'tallyline_drift_ledger_count',
    'units by which what is posted differs from the rollups',
  );
  const stripe = metrics.gauge('tallyline_drift_stripe_cents', 'minor units between invoices and Stripe');
  const lost = metrics.gauge('tallyline_unaccounted_events', 'received less all verdicts');
  const clearing = metrics.gauge(
    'tallyline_clearing_residue_cents',
    'minor units on clearing accounts, over all customers without regard to sign',
    ['account', 'currency'],
  );
  const waiting = metrics.gauge('tallyline_outbox_waiting_count', 'invoices that Stripe does not have yet');
  const oldest = metrics.gauge('tallyline_outbox_oldest_seconds', 'age of the oldest of them');
  const pace = new Pace(DRIFT);
  const driftOf = new Map<string, bigint>();
  let last = '';
  const sumOfDrift = (): bigint => [...driftOf.values()].reduce((sum, one) => sum + one, 0n);
  /** Anew for the tenants behind the last one, in a circle, as many as there is time for; of others as it was. */
  async function readDrift(): Promise<bigint> {
    const tenants = (await ctx.pg.query<{ tenant: string }>(SELECT_TENANTS)).map((row) => row.tenant);
    for (const tenant of driftOf.keys()) if (!tenants.includes(tenant)) driftOf.delete(tenant);
    const startedMs = ctx.clock.now();
    if (!pace.isDue(startedMs)) return sumOfDrift();
    const next = tenants.findIndex((tenant) => tenant > last);
    const from = next < 0 ? 0 : next;
    for (const tenant of [...tenants.slice(from), ...tenants.slice(0, from)]) {
      driftOf.set(tenant, await readLedgerDrift(ctx.pg, ctx.ch, tenant));
      last = tenant;
      if (ctx.clock.now() - startedMs > DRIFT_MS) break;
    }
    const sum = sumOfDrift();
    const endedMs = ctx.clock.now();
    if (sum === 0n) pace.done(startedMs, endedMs);
    else if (endedMs - startedMs > DRIFTING_MS) pace.done(startedMs, endedMs, DRIFTING_SHARE);
    return sum;
  }
  return {
    async read() {
      const drift = await readDrift();
      const check = await readCheckState(ctx.pg, null);
      // A gauge is a float whatever we do; exact numbers are in the report.
      rollup.set(Number(check.findings));
      unchecked.set(Number(check.waitingHours));
      const nowMs = ctx.clock.now();
      uncheckedOldest.set(
        check.waitingSinceMs === null ? 0 : Math.max(0, nowMs - check.waitingSinceMs) / 1_000,
      );
      sweepProgress.set(check.sweepPermille === null ? 1 : check.sweepPermille / 1_000);
      sweepAge.set(check.sweptToMs === null ? -1 : Math.max(0, nowMs - check.sweptToMs) / 1_000);
      ledger.set(Number(formatQuantity(drift)));
      stripe.set(Number(await readStripeDrift(ctx.pg, null)));
      lost.set(Number((await readCounters(ctx.ch, null)).unaccounted));
      clearing.reset();
      const accounts = await ctx.pg.query<{ account: string; currency: string; amount: string }>(
        SELECT_CLEARING,
      );
      for (const { account, currency, amount } of accounts)
        clearing.set({ account, currency }, Number(amount));
      const at = new Date(nowMs).toISOString();
      const [outbox] = await ctx.pg.query<{ seconds: number | null; waiting: number }>(SELECT_OLDEST, [at]);
      waiting.set(outbox?.waiting ?? 0);
      oldest.set(Math.max(0, outbox?.seconds ?? 0));
    },
  };
}
