/**
 * Where Stripe delivers events: POST /webhooks/stripe.
 *
 * 1. The body is read as bytes, bounded; the signature is checked over exactly these bytes.
 * 2. The event is inserted into the inbox under its id. A second delivery inserts nothing.
 * 3. Only then is the answer 200. When the insert fails it is 503, and Stripe delivers again for three days.
 *
 * What the event means is decided later, from the inbox (inbox.ts): an answer must not wait for that.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostInUrl } from '../runtime/http.ts';
import type { Billing } from './context.ts';
import { insertEvent } from './store.ts';
import { verifyWebhook } from './stripe.ts';

export interface WebhookOptions {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
  readonly secret: string;
  readonly bodyBytesMax: number;
  /** How far the signature's timestamp may be from now, either way. */
  readonly toleranceSeconds: number;
  /** With `bodyBytesMax` the bound on memory. */
  readonly connectionsMax: number;
  /** Called after an event was inserted. */
  onEvent(): void;
}

export interface WebhookServer {
  readonly url: string;
  /** Stops taking deliveries; resolves when those in flight are answered. */
  close(): Promise<void>;
}

const PATH = '/webhooks/stripe';
const REQUEST_TIMEOUT_MS = 10_000;

type Answer = { readonly status: number; readonly outcome: string };

export async function startWebhookServer(ctx: Billing, o: WebhookOptions): Promise<WebhookServer> {
  const server = createServer((request, response) => {
    receive(ctx, o, request)
      .catch((error: unknown): Answer => {
        ctx.log.warn({ error }, 'a webhook delivery could not be kept');
        return { status: 503, outcome: 'unavailable' };
      })
      .then((answer) => send(ctx, response, answer))
      .catch((error: unknown) => ctx.log.error({ error }, 'a webhook answer failed'));
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = REQUEST_TIMEOUT_MS;
  server.maxConnections = o.connectionsMax;
  await listen(server, o.host, o.port);
  return {
    url: `http://${hostInUrl(o.host)}:${(server.address() as AddressInfo).port}${PATH}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      }),
  };
}

async function receive(ctx: Billing, o: WebhookOptions, request: IncomingMessage): Promise<Answer> {
  if (request.url?.split('?', 1)[0] !== PATH) return { status: 404, outcome: 'not_found' };
  if (request.method !== 'POST') return { status: 405, outcome: 'method_not_allowed' };
  const body = await readBody(request, o.bodyBytesMax);
  if (body === null) return { status: 413, outcome: 'too_large' };
  const header = request.headers['stripe-signature'];
  const verified = verifyWebhook({
    body,
    signature: typeof header === 'string' ? header : undefined,
    secret: o.secret,
    nowMs: ctx.clock.now(),
    toleranceSeconds: o.toleranceSeconds,
  });
  if (verified.outcome === 'refused') return { status: 400, outcome: verified.code };
  const { id, type, createdMs } = verified.event;
  const isNew = await insertEvent(ctx.pg, {
    event: id,
    type,
    createdMs,
    payload: body.toString('utf8'),
    nowMs: ctx.clock.now(),
  });
  if (!isNew) return { status: 200, outcome: 'duplicate' };
  o.onEvent();
  return { status: 200, outcome: 'received' };
}

/** The bytes as they came, or null when there are too many; the rest is not kept. */
async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function send(ctx: Billing, response: ServerResponse, answer: Answer): void {
  ctx.measures.webhook(answer.outcome);
  const body = `${JSON.stringify({ outcome: answer.outcome })}\n`;
  response.writeHead(answer.status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(answer.status === 405 ? { allow: 'POST' } : {}),
    // What is left of a body that is too large will not be read.
    ...(answer.status === 413 ? { connection: 'close' } : {}),
  });
  response.end(body);
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
