// Delivers events to webhook endpoints: at least once, in no particular order, signed.
//
// The body is the event as indented JSON. `Stripe-Signature: t=<seconds>,v1=<hex>` carries HMAC-SHA256 over
// `<seconds>.<body>` with the endpoint's secret; each attempt is signed anew. Any 2xx ends the delivery of one event
// to one endpoint, anything else is tried again after a growing, jittered delay, for three days. A restart begins
// again with all that is still pending, so a delivery whose record was lost to a crash is made twice.
import { createHmac } from 'node:crypto';
import type { JsonObject } from './operation.ts';
import type { Entry, EventRecord, State } from './state.ts';

export interface WebhookRetry {
  /** Delay before the second attempt; it doubles from there. */
  firstMs: number;
  maxMs: number;
  giveUpAfterMs: number;
}

export const webhookRetryDefault: WebhookRetry = {
  firstMs: 1_000,
  maxMs: 300_000,
  giveUpAfterMs: 3 * 24 * 3_600_000,
};

const concurrencyMax = 16;
const attemptTimeoutMs = 10_000;

/** The value of `Stripe-Signature` for a body. */
export function sign(body: string, secret: string, seconds: number): string {
  const signature = createHmac('sha256', secret).update(`${seconds}.${body}`, 'utf8').digest('hex');
  return `t=${seconds},v1=${signature}`;
}

/** What tests may do to deliveries. */
export interface WebhookFaults {
  delayMs: number;
  /** How often each event is sent; 1 is normal. */
  copies: number;
  paused: boolean;
}

export interface DeliveryOptions {
  state: State;
  /** Applies and journals an entry. */
  commit(entry: Entry): Promise<void>;
  present(event: EventRecord): JsonObject;
  /** The secret of the configured endpoint. */
  configuredSecret: string | undefined;
  retry: WebhookRetry;
  faults: WebhookFaults;
  now(): number;
}

interface Delivery {
  event: string;
  endpoint: string;
  attempts: number;
}

export class Deliveries {
  private readonly options: DeliveryOptions;
  private readonly ready: Delivery[] = [];
  private readonly timers = new Set<NodeJS.Timeout>();
  private readonly running = new Set<Promise<void>>();
  private readonly stopping = new AbortController();

  constructor(options: DeliveryOptions) {
    this.options = options;
  }

  /** Takes up everything that an earlier run left pending. */
  resume(): void {
    for (const event of this.options.state.all('event')) this.enqueue(event);
  }

  enqueue(event: EventRecord): void {
    for (const endpoint of event.pending) {
      for (let copy = 0; copy < this.options.faults.copies; copy += 1) {
        this.later({ event: event.id, endpoint, attempts: 0 }, this.options.faults.delayMs);
      }
    }
  }

  /** Starts what may start; called again when a pause ends. */
  pump(): void {
    while (
      !this.options.faults.paused &&
      this.running.size < concurrencyMax &&
      !this.stopping.signal.aborted
    ) {
      const delivery = this.ready.shift();
      if (delivery === undefined) return;
      const attempt = this.attempt(delivery).finally(() => {
        this.running.delete(attempt);
        this.pump();
      });
      this.running.add(attempt);
      // A failed journal ends the process through its own channel.
      attempt.catch(() => undefined);
    }
  }

  async close(): Promise<void> {
    this.stopping.abort();
    for (const timer of this.timers) clearTimeout(timer);
    await Promise.allSettled(this.running);
  }

  private later(delivery: Delivery, delayMs: number): void {
    if (this.stopping.signal.aborted) return;
    if (delayMs <= 0) {
      this.ready.push(delivery);
      this.pump();
      return;
    }
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.later(delivery, 0);
    }, delayMs);
    this.timers.add(timer);
  }

  private async attempt(delivery: Delivery): Promise<void> {
    const { state, retry } = this.options;
    const event = state.get('event', delivery.event);
    const endpoint = state.get('webhook_endpoint', delivery.endpoint);
    if (event === undefined || endpoint === undefined || endpoint.disabled) return;
    const secret = endpoint.secret ?? this.options.configuredSecret;
    if (secret === undefined) return;

    if (await this.send(endpoint.url, secret, JSON.stringify(this.options.present(event), null, 2))) {
      await this.record(delivery);
      return;
    }
    if (this.options.now() - event.created * 1000 > retry.giveUpAfterMs) return;
    const delay = Math.min(retry.firstMs * 2 ** delivery.attempts, retry.maxMs);
    this.later({ ...delivery, attempts: delivery.attempts + 1 }, delay * (1 + Math.random() / 4));
  }

  private async send(url: string, secret: string, body: string): Promise<boolean> {
    try {
      const response = await fetch(url, {
        method: 'POST',
        headers: {
          'content-type': 'application/json; charset=utf-8',
          'user-agent': 'Stripe/1.0 (+https://stripe.com/docs/webhooks)',
          'stripe-signature': sign(body, secret, Math.floor(this.options.now() / 1000)),
        },
        body,
        redirect: 'manual',
        signal: AbortSignal.any([this.stopping.signal, AbortSignal.timeout(attemptTimeoutMs)]),
      });
      await response.body?.cancel();
      return response.ok;
    } catch {
      return false;
    }
  }

  /** Remembers that an endpoint has an event. Its invoice learns when the last endpoint has its `invoice.created`. */
  private async record(delivery: Delivery): Promise<void> {
    const { state, now } = this.options;
    const event = state.get('event', delivery.event);
    if (event === undefined || !event.pending.includes(delivery.endpoint)) return;
    const delivered = { ...event, pending: event.pending.filter((each) => each !== delivery.endpoint) };
    const entry: Entry = { at: now(), put: [delivered] };
    if (event.type === 'invoice.created' && delivered.pending.length === 0) {
      const { id } = event.data['object'] as { id: string };
      const invoice = state.get('invoice', id);
      if (invoice !== undefined)
        entry.put?.push({ ...invoice, webhooksDeliveredAt: Math.floor(now() / 1000) });
    }
    await this.options.commit(entry);
  }
}
