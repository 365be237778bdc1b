// Real Postgres, the real Stripe SDK and the stand-in for one test file of billing-sync. Trouble is made on
// order of the stand-in; what Stripe has is read past our own code.
import { join } from 'node:path';
import { createMeasures, defaultLimits, type Billing } from '../billing-sync/context.ts';
import { readInstallation } from '../billing-sync/store.ts';
import { connectStripe, type StripeGateway } from '../billing-sync/stripe.ts';
import { startStripeStandIn, type StripeStandIn } from '../local/stripe/server.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics, type Metrics } from '../runtime/metrics.ts';
import { migratePostgres } from '../runtime/migrate.ts';
import { connectPostgres, type Postgres } from '../runtime/postgres.ts';
import { startEngines, type Engines } from './engines.ts';

const KEY = 'sk_test_billing';
const HOUR_MS = 3_600_000;

export interface StripeCustomer {
  readonly id: string;
  readonly metadata: Readonly<Record<string, string>>;
}
export interface StripeInvoice {
  readonly id: string;
  readonly status: string;
  readonly total: number;
  readonly currency: string;
  readonly customer: string;
  readonly metadata: Readonly<Record<string, string>>;
}
export interface StripeLine {
  readonly amount: number;
  readonly description: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly period: { readonly start: number; readonly end: number };
}

export class BillingBench {
  readonly engines: Engines;
  readonly pg: Postgres;
  readonly metrics: Metrics = createMetrics('billing-sync');
  readonly clock = { now: () => Date.now() + this.aheadMs };
  readonly log = createLog('test', 'silent');
  private readonly measures = createMeasures(this.metrics);
  private standIn: StripeStandIn | undefined;
  installation = '';
  /** How far the clocks of billing-sync and the stand-in are ahead. */
  private aheadMs = 0;

  private constructor(engines: Engines) {
    this.engines = engines;
    this.pg = connectPostgres({
      url: engines.databaseUrl,
      name: 'test',
      poolMax: 12,
      log: this.log,
      statementTimeoutMs: 10_000,
    });
  }

  /** With the schemas named, and Stripe started unless it is to know where webhooks go. */
  static async start(schemas: readonly ('ledger' | 'billing')[]): Promise<BillingBench> {
    const bench = new BillingBench(await startEngines({ postgres: true }));
    for (const schema of schemas) {
      const folder = schema === 'billing' ? 'billing-sync' : schema;
      const directory = new URL(`../${folder}/migrations/`, import.meta.url);
      await migratePostgres(bench.pg, { directory, schema });
    }
    if (schemas.includes('billing')) bench.installation = await readInstallation(bench.pg);
    return bench;
  }

  async startStripe(webhook?: { url: string; secret: string }): Promise<void> {
    this.standIn = await startStripeStandIn({
      host: '127.0.0.1',
      port: 0,
      dataDir: join(this.engines.dir, 'stripe'),
      key: KEY,
      faults: true,
      ...(webhook === undefined
        ? {}
        : { webhook, webhookRetry: { firstMs: 20, maxMs: 100, giveUpAfterMs: HOUR_MS } }),
    });
  }

  async stop(): Promise<void> {
    await this.standIn?.close();
    await this.pg.close();
    await this.engines.stop();
  }

  /** @param timeoutMs short where a request is to time out: else a busy machine must not look like one. */
  gateway(timeoutMs = 10_000): StripeGateway {
    return connectStripe({
      apiKey: KEY,
      apiBase: this.url(),
      timeoutMs,
      attempts: 3,
      retryBaseMs: 1,
      retryMaxMs: 5,
      clock: this.clock,
    });
  }

  billing(stripe = this.gateway()): Billing {
    return {
      pg: this.pg,
      stripe,
      clock: this.clock,
      log: this.log,
      measures: this.measures,
      installation: this.installation,
      random: Math.random,
      limits: { ...defaultLimits, retryBaseMs: 1, retryMaxMs: 5 },
    };
  }

  async has<T>(path: string): Promise<T[]> {
    const all: T[] = [];
    const joint = path.includes('?') ? '&' : '?';
    for (let after = ''; ;) {
      const response = await fetch(`${this.url()}/v1/${path}${joint}limit=100${after}`, {
        headers: { authorization: `Bearer ${KEY}` },
      });
      const page = (await response.json()) as { data: (T & { id: string })[]; has_more: boolean };
      all.push(...page.data);
      if (!page.has_more) return all;
      after = `&starting_after=${page.data.at(-1)?.id}`;
    }
  }

  /** A write in Stripe that somebody else makes: a person in its dashboard. */
  async act(path: string, params: Record<string, string>): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.url()}/v1/${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(params).toString(),
    });
    if (!response.ok) throw new Error(`Stripe refused ${path}: ${await response.text()}`);
    return (await response.json()) as Record<string, unknown>;
  }

  async order(method: 'POST' | 'DELETE', what: string, body?: object): Promise<void> {
    const response = await fetch(`${this.url()}/_test/${what}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`the stand-in refused ${what}: ${await response.text()}`);
  }

  /** Lets time pass, here and in Stripe. */
  async pass(hours: number): Promise<void> {
    this.aheadMs += hours * HOUR_MS;
    await this.order('POST', 'clock', { advanceSeconds: hours * 3_600 });
  }

  private url(): string {
    if (this.standIn === undefined) throw new Error('the stand-in is not started');
    return this.standIn.url;
  }
}

/** A gateway whose process is killed at one of its calls, before Stripe sees it or before the answer is recorded. */
export function dyingAt(call: number, when: 'before' | 'after', gateway: StripeGateway): StripeGateway {
  let calls = 0;
  return new Proxy(gateway, {
    get(target, name: keyof StripeGateway) {
      return async (...args: unknown[]) => {
        calls += 1;
        const dies = calls === call;
        if (dies && when === 'before') throw new Error('killed');
        const answer = await (target[name] as (...a: unknown[]) => Promise<unknown>)(...args);
        if (dies) throw new Error('killed');
        return answer;
      };
    },
  });
}

/** A database that takes one transaction more, the claim of the outbox, and then is never heard of again. */
export function deadAfterClaim(pg: Postgres): Postgres {
  let transactions = 0;
  return {
    retries: 0,
    query: (sql, params) => pg.query(sql, params),
    transaction(fn, o) {
      transactions += 1;
      return transactions === 1 ? pg.transaction(fn, o) : Promise.reject(new Error('dead'));
    },
    listen: (channel, onNotify, signal) => pg.listen(channel, onNotify, signal),
    close: () => pg.close(),
  };
}
