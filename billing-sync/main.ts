/**
 * billing-sync: keeps Stripe the same as the ledger, to the cent.
 *
 * Three loops over Postgres, each of which may be killed at any instant and run in any number of processes:
 * the outbox to Stripe (outbox.ts), the webhook inbox to the ledger (webhook.ts, inbox.ts), and the
 * comparison of the two (reconcile.ts).
 */
import { OUTBOX_CHANNEL } from '../ledger/index.ts';
import { integer, optional, text, url } from '../runtime/config.ts';
import { runStage } from '../runtime/lifecycle.ts';
import { migratePostgres } from '../runtime/migrate.ts';
import { connectPostgres } from '../runtime/postgres.ts';
import { createMeasures, defaultLimits, type Billing } from './context.ts';
import { workInbox } from './inbox.ts';
import { startLoop, type Loop } from './loop.ts';
import { drainOutbox } from './outbox.ts';
import { reconcile } from './reconcile.ts';
import { readInstallation } from './store.ts';
import { connectStripe } from './stripe.ts';
import { startWebhookServer } from './webhook.ts';

const fields = {
  databaseUrl: url('DATABASE_URL', {
    describe: 'Postgres',
    secret: true,
    protocols: ['postgres', 'postgresql'],
  }),
  stripeKey: text('STRIPE_API_KEY', {
    describe: "Stripe's secret or restricted key",
    secret: true,
    pattern: /^(sk|rk)_/,
  }),
  stripeBase: optional(
    url('STRIPE_API_BASE', {
      describe: "something that speaks Stripe's API; unset means Stripe",
      protocols: ['http', 'https'],
    }),
  ),
  webhookSecret: text('STRIPE_WEBHOOK_SECRET', {
    describe: 'signing secret of the webhook endpoint',
    secret: true,
    pattern: /^whsec_\S+$/,
  }),
  webhookPort: integer('TALLYLINE_WEBHOOK_PORT', {
    describe: 'port of POST /webhooks/stripe; 0 takes any free one',
    default: 0,
    min: 0,
    max: 65_535,
  }),
  webhookBytesMax: integer('TALLYLINE_BILLING_WEBHOOK_BYTES_MAX', {
    describe: 'largest webhook body',
    default: 1_048_576,
    min: 1_024,
    max: 16_777_216,
  }),
  webhookConnectionsMax: integer('TALLYLINE_BILLING_WEBHOOK_CONNECTIONS_MAX', {
    describe: 'webhook connections at a time',
    default: 64,
    min: 1,
    max: 1_024,
  }),
  webhookToleranceSeconds: integer('TALLYLINE_BILLING_WEBHOOK_TOLERANCE_SECONDS', {
    describe: "how far a signature's timestamp may be from now, either way",
    default: 300,
    min: 1,
    max: 3_600,
  }),
  stripeTimeoutMs: integer('TALLYLINE_BILLING_STRIPE_TIMEOUT_MS', {
    describe: 'how long one request to Stripe may take',
    default: 10_000,
    min: 100,
    max: 80_000,
  }),
  stripeAttempts: integer('TALLYLINE_BILLING_STRIPE_ATTEMPTS', {
    describe: 'how often one request is sent before its invoice is put aside',
    default: 4,
    min: 1,
    max: 10,
  }),
  pushes: integer('TALLYLINE_BILLING_PUSHES', {
    describe: 'invoices pushed at a time',
    default: 4,
    min: 1,
    max: 64,
  }),
  leaseSeconds: integer('TALLYLINE_BILLING_LEASE_SECONDS', {
    describe: 'how long a claimed invoice is ours; its work goes on in the next lease',
    default: 30,
    min: 5,
    max: 600,
  }),
  pollMs: integer('TALLYLINE_BILLING_POLL_MS', {
    describe: 'rest between looks at an empty outbox or inbox',
    default: 1_000,
    min: 10,
    max: 60_000,
  }),
  daysUntilDue: integer('TALLYLINE_BILLING_DAYS_UNTIL_DUE', {
    describe: 'days until an invoice is due',
    default: 30,
    min: 0,
    max: 365,
  }),
  reconcileMs: integer('TALLYLINE_BILLING_RECONCILE_MS', {
    describe: 'rest between passes of the comparison with Stripe',
    default: 15_000,
    min: 100,
    max: 3_600_000,
  }),
  reconcileInvoices: integer('TALLYLINE_BILLING_RECONCILE_INVOICES', {
    describe: 'invoices compared in one pass',
    default: 20,
    min: 1,
    max: 1_000,
  }),
  recheckSeconds: integer('TALLYLINE_BILLING_RECHECK_SECONDS', {
    describe: 'how long after a comparison of an invoice the next one is due',
    default: 21_600,
    min: 1,
    max: 2_592_000,
  }),
  poolMax: integer('TALLYLINE_BILLING_POSTGRES_CONNECTIONS', {
    describe: 'Postgres connections',
    default: 8,
    min: 2,
    max: 64,
  }),
};

const STATEMENT_TIMEOUT_MS = 15_000;

runStage({
  name: 'billing-sync',
  fields,
  async start(stage, config) {
    const { log, metrics, clock, stopping } = stage;
    const leaseMs = config.leaseSeconds * 1_000;
    // A write must have its answer before the lease ends.
    const leaseMarginMs = config.stripeTimeoutMs + 2_000;
    if (leaseMarginMs * 2 > leaseMs) {
      throw new Error(
        `TALLYLINE_BILLING_LEASE_SECONDS (${config.leaseSeconds}) must be at least twice ` +
          `TALLYLINE_BILLING_STRIPE_TIMEOUT_MS (${config.stripeTimeoutMs}) plus 4 seconds`,
      );
    }

    // 1. Postgres and our schema.
    const pg = connectPostgres({
      url: config.databaseUrl,
      name: stage.name,
      poolMax: config.poolMax,
      log,
      statementTimeoutMs: STATEMENT_TIMEOUT_MS,
      metrics,
    });
    stage.onStop('Postgres', () => pg.close());
    const applied = await migratePostgres(pg, {
      directory: new URL('./migrations/', import.meta.url),
      schema: 'billing',
    });
    if (applied.length > 0) log.info({ applied }, 'migrated');

    // 2. Stripe.
    const measures = createMeasures(metrics);
    const stripe = connectStripe({
      apiKey: config.stripeKey,
      apiBase: config.stripeBase,
      timeoutMs: config.stripeTimeoutMs,
      attempts: config.stripeAttempts,
      retryBaseMs: 200,
      retryMaxMs: 5_000,
      clock,
      stopping,
      onRequest: (operation, outcome, seconds) => measures.request(operation, outcome, seconds),
      onRetry: (operation) => measures.retried(operation),
    });
    const ctx: Billing = {
      pg,
      stripe,
      clock,
      log,
      measures,
      installation: await readInstallation(pg),
      random: Math.random,
      limits: {
        ...defaultLimits,
        pushes: config.pushes,
        leaseMs,
        leaseMarginMs,
        daysUntilDue: config.daysUntilDue,
        checks: config.reconcileInvoices,
        recheckMs: config.recheckSeconds * 1_000,
      },
    };
    metrics
      .gauge('tallyline_billing_pushes_limit_count', 'invoices pushed at a time, at most')
      .set(config.pushes);
    metrics
      .gauge('tallyline_billing_webhook_limit_bytes', 'largest webhook body')
      .set(config.webhookBytesMax);

    // 3. The loops. The ledger creates its own schema; until it has, the outbox cannot be read and we wait.
    let outboxReadable = false;
    const loops: Loop[] = [];
    const loop = (name: string, everyMs: number, pass: () => Promise<boolean>, onPass?: () => void): Loop => {
      const started = startLoop({
        name,
        everyMs,
        log,
        stopping,
        pass,
        onPass: (failed) => {
          if (!failed) onPass?.();
        },
      });
      loops.push(started);
      stage.onStop(`${name} loop`, () => started.ended);
      return started;
    };

    // 4. The webhook endpoint listens before we are ready, so that no delivery meets a closed door.
    let onEvent = (): void => undefined;
    const webhook = await startWebhookServer(ctx, {
      host: config.host,
      port: config.webhookPort,
      secret: config.webhookSecret,
      bodyBytesMax: config.webhookBytesMax,
      connectionsMax: config.webhookConnectionsMax,
      toleranceSeconds: config.webhookToleranceSeconds,
      onEvent: () => onEvent(),
    });
    stage.onStop('webhook endpoint', () => webhook.close());
    stage.announce({ webhook: webhook.url });

    const inbox = loop('inbox', config.pollMs, () => workInbox(ctx));
    onEvent = () => inbox.ring();
    const outbox = loop(
      'outbox',
      config.pollMs,
      async () => (await drainOutbox(ctx)).claimed > 0,
      () => {
        if (outboxReadable) return;
        outboxReadable = true;
        stage.setReady(true);
      },
    );
    // The poll would find entries anyway; a notification finds them at once.
    await pg.listen(OUTBOX_CHANNEL, () => outbox.ring(), stopping);
    loop('reconcile', config.reconcileMs, async () => (await reconcile(ctx)) === config.reconcileInvoices);
  },
});
