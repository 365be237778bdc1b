import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import type { Postgres } from '../runtime/postgres.ts';
import type { StripeGateway } from './stripe.ts';

/** What every loop of this stage works with. */
export interface Billing {
  readonly pg: Postgres;
  readonly stripe: StripeGateway;
  readonly clock: Clock;
  readonly log: Log;
  readonly measures: Measures;
  readonly limits: Limits;
  /** Which database this is; see billing.installation. */
  readonly installation: string;
  /** [0, 1), for jitter. */
  readonly random: () => number;
}

export interface Limits {
  /** How many invoices are pushed at a time. */
  readonly pushes: number;
  /** How long a claimed outbox entry is ours. */
  readonly leaseMs: number;
  /** The last write of a lease begins this long before its end, so that its answer still arrives in time. */
  readonly leaseMarginMs: number;
  /** Stripe keeps an idempotency key for at least 24 hours; we rely on it for less. */
  readonly keyLifeMs: number;
  /** How far our clock, Postgres's and Stripe's may be apart when something is searched by its creation time. */
  readonly clockSkewMs: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** When an invoice that Stripe refused is tried again. */
  readonly refusedRetryMs: number;
  readonly daysUntilDue: number;
  /** Sent invoices compared in one pass. */
  readonly checks: number;
  /** How long after a comparison the next one is due; sooner while something differs. */
  readonly recheckMs: number;
  readonly recheckDifferentMs: number;
  /** How long after Stripe says "paid" the webhook may still be on its way. */
  readonly paymentGraceMs: number;
}

export const defaultLimits: Limits = {
  pushes: 4,
  leaseMs: 30_000,
  leaseMarginMs: 12_000,
  keyLifeMs: 23 * 3_600_000,
  clockSkewMs: 3_600_000,
  retryBaseMs: 500,
  retryMaxMs: 600_000,
  refusedRetryMs: 3_600_000,
  daysUntilDue: 30,
  checks: 20,
  recheckMs: 6 * 3_600_000,
  recheckDifferentMs: 300_000,
  paymentGraceMs: 300_000,
};

export interface Measures {
  pushed(outcome: 'sent' | 'postponed' | 'refused', seconds: number): void;
  request(operation: string, outcome: string, seconds: number): void;
  retried(operation: string): void;
  webhook(outcome: string): void;
  inbox(outcome: string): void;
  checked(outcome: string): void;
  standing(o: { drift: bigint; discrepancies: bigint; refused: bigint; inboxOpen: bigint }): void;
}

const SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export function createMeasures(metrics: Metrics): Measures {
  const pushes = metrics.counter(
    'tallyline_billing_outbox_pushes_total',
    'outbox entries worked on, by what came of it',
    ['outcome'],
  );
  const pushSeconds = metrics.histogram(
    'tallyline_billing_outbox_push_seconds',
    'time spent on one outbox entry',
    SECONDS,
  );
  const requests = metrics.histogram(
    'tallyline_stripe_request_seconds',
    'requests to Stripe with all their repetitions',
    SECONDS,
    ['operation', 'outcome'],
  );
  const retries = metrics.counter('tallyline_stripe_retries_total', 'requests to Stripe sent again', [
    'operation',
  ]);
  const webhooks = metrics.counter('tallyline_stripe_webhooks_total', 'webhook deliveries, by answer', [
    'outcome',
  ]);
  const inbox = metrics.counter('tallyline_stripe_inbox_events_total', 'inbox events, by what came of them', [
    'outcome',
  ]);
  const checks = metrics.counter('tallyline_stripe_checks_total', 'sent invoices compared with Stripe', [
    'outcome',
  ]);
  const drift = metrics.gauge(
    'tallyline_stripe_drift_cents',
    'minor units that differ between the ledger and Stripe, over open discrepancies',
  );
  const discrepancies = metrics.gauge('tallyline_stripe_discrepancies_count', 'open discrepancies');
  const refused = metrics.gauge(
    'tallyline_stripe_refused_invoices_count',
    'invoices that cannot be put into Stripe until a person acts',
  );
  const inboxOpen = metrics.gauge(
    'tallyline_stripe_inbox_open_events',
    'webhook events that are not worked off',
  );
  return {
    pushed(outcome, seconds) {
      pushes.inc({ outcome });
      pushSeconds.observe(seconds);
    },
    request: (operation, outcome, seconds) => requests.observe({ operation, outcome }, seconds),
    retried: (operation) => retries.inc({ operation }),
    webhook: (outcome) => webhooks.inc({ outcome }),
    inbox: (outcome) => inbox.inc({ outcome }),
    checked: (outcome) => checks.inc({ outcome }),
    standing(o) {
      // A gauge is a float by nature. It is looked at; nothing is computed from it.
      drift.set(Number(o.drift));
      discrepancies.set(Number(o.discrepancies));
      refused.set(Number(o.refused));
      inboxOpen.set(Number(o.inboxOpen));
    },
  };
}
