/**
 * What has to return to zero, as gauges: drift between the stages, clearing accounts, and invoices that wait
 * for Stripe. Over all tenants together: the conservation report and the checks say whose they are.
 */
import { formatQuantity } from '../contract/quantity.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { readConservation } from './conservation.ts';
import type { LedgerContext } from './context.ts';

const SELECT_TENANTS = 'SELECT tenant FROM ledger.tenants ORDER BY tenant';

const SELECT_CLEARING = `
  SELECT account, currency, sum(abs(amount))::text AS amount FROM ledger.balances
  WHERE account IN ('accrued_usage', 'invoice_pending', 'stripe_in_flight')
  GROUP BY account, currency`;

const SELECT_OLDEST = `
  SELECT (extract(epoch FROM $1::timestamptz - min(created_at)))::float8 AS seconds, count(*)::int AS waiting
  FROM ledger.outbox WHERE done_at IS NULL`;

export interface Residues {
  /** Reads everything once. Throws when an engine is away. */
  read(): Promise<void>;
}

export function residueGauges(metrics: Metrics, ctx: LedgerContext): Residues {
  const rollup = metrics.gauge('tallyline_drift_rollup_rows', 'rollup rows that differ from the raw events');
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
  return {
    async read() {
      const sums = { rollup: 0n, ledger: 0n, stripe: 0n, lost: 0n };
      for (const { tenant } of await ctx.pg.query<{ tenant: string }>(SELECT_TENANTS)) {
        const report = await readConservation(ctx, tenant);
        sums.rollup += report.drift.rollup;
        sums.ledger += report.drift.ledger;
        sums.stripe += report.drift.stripeCents;
        sums.lost += report.unaccounted;
      }
      // A gauge is a float whatever we do; exact numbers are in the report.
      rollup.set(Number(sums.rollup));
      ledger.set(Number(formatQuantity(sums.ledger)));
      stripe.set(Number(sums.stripe));
      lost.set(Number(sums.lost));
      clearing.reset();
      const accounts = await ctx.pg.query<{ account: string; currency: string; amount: string }>(
        SELECT_CLEARING,
      );
      for (const { account, currency, amount } of accounts)
        clearing.set({ account, currency }, Number(amount));
      const at = new Date(ctx.clock.now()).toISOString();
      const [outbox] = await ctx.pg.query<{ seconds: number | null; waiting: number }>(SELECT_OLDEST, [at]);
      waiting.set(outbox?.waiting ?? 0);
      oldest.set(Math.max(0, outbox?.seconds ?? 0));
    },
  };
}
