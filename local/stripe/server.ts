// The stand-in over HTTP. One request goes through these steps, as in Stripe:
//   1. who asks: `Authorization: Bearer sk_test_…`, 401 otherwise; the API version, when one is named
//   2. what is asked: the operation by method and path, 404 otherwise; the parameters against the SDK's types, 400
//      otherwise. What fails up to here is not remembered under the idempotency key.
//   3. whether it was asked before: a kept answer is given again
//   4. the change: the handler works on a copy-on-write view; its records, its events and the answer to keep become
//      one entry, applied at once and appended to the journal
//   5. the answer, once everything it may have seen is on disk. Only then are webhooks sent.
// Handlers are synchronous, so requests are serialized by the event loop and need no locks.
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Change } from './change.ts';
import { configuredEndpoint } from './endpoint.ts';
import { Refusal, invalid } from './error.ts';
import { presentEvent } from './event.ts';
import { BadFault, FaultPlan, readAdvance, readFault, readWebhookFaults } from './fault.ts';
import type { Fault } from './fault.ts';
import { parseForm } from './form.ts';
import { handle } from './handle.ts';
import { checkKey, fingerprint, keyInUse, replay } from './idempotency.ts';
import { openJournal } from './journal.ts';
import type { Journal } from './journal.ts';
import { loadOperations } from './load.ts';
import { matchOperation } from './operation.ts';
import type { JsonObject, OperationName, Operations } from './operation.ts';
import { renderPage } from './page.ts';
import type { Params } from './params.ts';
import { State } from './state.ts';
import type { Entry } from './state.ts';
import { createValidator } from './validate.ts';
import type { Validator } from './validate.ts';
import { Deliveries, webhookRetryDefault } from './webhook.ts';
import type { WebhookFaults, WebhookRetry } from './webhook.ts';

export interface StripeStandInOptions {
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** Holds the journal. One stand-in at a time may use it. */
  dataDir: string;
  /** The one secret key that is accepted; must begin with `sk_test_`. */
  key: string;
  webhook?: { url: string; secret: string };
  webhookRetry?: WebhookRetry;
  /** Serves `/_test/…`; see fault.ts. */
  faults?: boolean;
  /** Called once when the journal cannot be written any more; the stand-in answers nothing but 500 from then on. */
  onFailure?: (error: unknown) => void;
}

export interface StripeStandIn {
  url: string;
  port: number;
  /** Ends open connections and deliveries, and closes the journal. */
  close(): Promise<void>;
}

const bodyBytesMax = 2 * 1024 * 1024;
const compactAboveBytes = 64 * 1024 * 1024;
const expireEveryMs = 3_600_000;
/** Longer than the SDK leaves a connection idle, so that it does not meet one that is just being closed. */
const keepAliveMs = 65_000;

export async function startStripeStandIn(options: StripeStandInOptions): Promise<StripeStandIn> {
  if (!/^sk_test_[A-Za-z0-9_]+$/.test(options.key))
    throw new Error('the key of the stand-in must begin with sk_test_');
  const operations = await loadOperations();
  // 1. The port first: it keeps a second stand-in with the same settings away from the journal, whose last line
  //    would look torn while the first one is writing it. Requests wait until there is something to answer from.
  let begin: (standIn: StandIn) => void = () => undefined;
  const begun = new Promise<StandIn>((resolve) => (begin = resolve));
  const server = createServer((request, response) => {
    void begun.then((standIn) => standIn.serve(request, response));
  });
  server.keepAliveTimeout = keepAliveMs;
  await listen(server, options);
  try {
    // 2. The state, as the journal tells it.
    const state = new State();
    const journal = await openJournal({
      folder: options.dataDir,
      replay: (entry) => state.apply(entry),
      snapshot: () => {
        state.expire(Date.now());
        return state.snapshot();
      },
      compactAboveBytes,
    });
    // 3. The rest: the configured webhook endpoint, and what an earlier run still owes.
    const standIn = new StandIn(options, operations, state, journal, server);
    await standIn.start();
    begin(standIn);
    return { url: standIn.url, port: (server.address() as AddressInfo).port, close: () => standIn.close() };
  } catch (error) {
    server.closeAllConnections();
    server.close();
    throw error;
  }
}

function listen(server: Server, { host, port }: StripeStandInOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

interface Answer {
  status: number;
  body: JsonObject;
  headers: { [name: string]: string };
}

/** A recognised request, ready to be done. */
interface Call {
  name: OperationName;
  ids: { [name: string]: string };
  params: Params;
  method: string;
  path: string;
  key: string | undefined;
  requestId: string;
}

class StandIn {
  private readonly options: StripeStandInOptions;
  private readonly operations: Operations;
  private readonly state: State;
  private readonly journal: Journal;
  private readonly validator: Validator;
  private readonly server: Server;
  private readonly plan = new FaultPlan();
  private readonly webhookFaults: WebhookFaults = { delayMs: 0, copies: 1, paused: false };
  private readonly deliveries: Deliveries;
  private readonly keysInUse = new Set<string>();
  private expiring: NodeJS.Timeout | undefined;
  private clockOffsetMs = 0;
  private failed = false;
  readonly url: string;

  constructor(
    options: StripeStandInOptions,
    operations: Operations,
    state: State,
    journal: Journal,
    server: Server,
  ) {
    const { port } = server.address() as AddressInfo;
    this.url = `http://${options.host.includes(':') ? `[${options.host}]` : options.host}:${port}`;
    this.server = server;
    this.options = options;
    this.operations = operations;
    this.state = state;
    this.journal = journal;
    this.validator = createValidator(operations);
    this.deliveries = new Deliveries({
      state,
      commit: (entry) => this.commit(entry),
      present: presentEvent,
      configuredSecret: options.webhook?.secret,
      retry: options.webhookRetry ?? webhookRetryDefault,
      faults: this.webhookFaults,
      now: () => this.now(),
    });
  }

  async start(): Promise<void> {
    // Events written from now on are owed to the configured endpoint.
    this.state.expire(this.now());
    await this.configureEndpoint();
    this.deliveries.resume();
    this.expiring = setInterval(() => this.state.expire(this.now()), expireEveryMs);
  }

  async close(): Promise<void> {
    clearInterval(this.expiring);
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeAllConnections();
    await this.deliveries.close();
    await closed;
    await this.journal.close();
  }

  private async configureEndpoint(): Promise<void> {
    const { webhook } = this.options;
    const existing = this.state.get('webhook_endpoint', configuredEndpoint);
    if (webhook === undefined) {
      if (existing !== undefined) {
        await this.commit({
          at: this.now(),
          remove: [{ object: 'webhook_endpoint', id: configuredEndpoint }],
        });
      }
      return;
    }
    if (existing?.url === webhook.url) return;
    await this.commit({
      at: this.now(),
      put: [
        {
          object: 'webhook_endpoint',
          id: configuredEndpoint,
          created: existing?.created ?? Math.floor(this.now() / 1000),
          url: webhook.url,
          secret: null,
          enabledEvents: ['*'],
          description: 'Configured when the stand-in started',
          disabled: false,
          metadata: {},
        },
      ],
    });
  }

  private now(): number {
    return Date.now() + this.clockOffsetMs;
  }

  /** Applies the entry and resolves once it is on disk. Its events are then on their way. */
  private async commit(entry: Entry): Promise<void> {
    this.state.apply(entry);
    try {
      await this.journal.append(entry);
    } catch (error) {
      if (!this.failed) this.options.onFailure?.(error);
      this.failed = true;
      throw error;
    }
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.respond(request, response);
    } catch (error) {
      this.crash(response, error);
    }
  }

  private async respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? 'GET';
    const [path = '/', query = ''] = (request.url ?? '/').split('?', 2);
    const body = await readBody(request);
    if (path === '/' && method === 'GET') {
      await this.journal.settled();
      response.writeHead(200, {
        'content-type': 'text/html; charset=utf-8',
        'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'",
      });
      response.end(renderPage(this.state));
      return;
    }
    if (this.options.faults === true && path.startsWith('/_test/')) {
      this.serveTest(method, path, body, response);
      return;
    }

    const requestId = newId('req', 14);
    const fault = this.plan.take(method, path);
    if (fault?.when === 'before' && fault.kind !== 'status') return strike(fault, request, response);
    const answer = await this.answer(request, method, path, query, body, requestId, fault);
    if (fault?.when === 'after' && fault.kind !== 'status') return strike(fault, request, response, answer);
    send(response, answer);
  }

  private async answer(
    request: IncomingMessage,
    method: string,
    path: string,
    query: string,
    body: string | undefined,
    requestId: string,
    fault: Fault | undefined,
  ): Promise<Answer> {
    const headers = { 'request-id': requestId, 'stripe-version': this.operations.apiVersion };
    try {
      if (this.failed)
        throw new Refusal({ status: 500, type: 'api_error', message: 'The journal cannot be written.' });
      if (body === undefined) throw invalid(`The request body is larger than ${bodyBytesMax} bytes.`);
      this.authorize(request);
      const call = this.recognize(request, method, path, query, body, requestId);
      const answer = await this.perform(call, fault);
      return { ...answer, headers: { ...headers, ...answer.headers } };
    } catch (error) {
      if (error instanceof Refusal) return { status: error.details.status, body: error.body(), headers };
      throw error;
    }
  }

  private authorize(request: IncomingMessage): void {
    const unauthorized = (message: string) =>
      new Refusal({ status: 401, type: 'invalid_request_error', message });
    const header = request.headers.authorization;
    if (header === undefined) {
      throw unauthorized(
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
      );
    }
    const [scheme, value = ''] = header.split(' ', 2);
    // Basic auth with the key as the user name is what `curl -u sk_test_…:` sends.
    const isBasic = scheme?.toLowerCase() === 'basic';
    const key = isBasic ? (Buffer.from(value, 'base64').toString('utf8').split(':')[0] ?? '') : value;
    if (key !== this.options.key)
      throw unauthorized(`Invalid API Key provided: ${key.slice(0, 8)}${'*'.repeat(8)}`);
  }

  private recognize(
    request: IncomingMessage,
    method: string,
    path: string,
    query: string,
    body: string,
    requestId: string,
  ): Call {
    const version = request.headers['stripe-version'];
    if (version !== undefined && version !== this.operations.apiVersion) {
      throw invalid(
        `Invalid Stripe API version: ${String(version)}. The stand-in speaks ${this.operations.apiVersion}.`,
      );
    }
    const found = matchOperation(this.operations.operations, method, decodePath(path));
    if (found === undefined) {
      throw new Refusal({
        status: 404,
        type: 'invalid_request_error',
        message: `Unrecognized request URL (${method}: ${path}). If you are trying to list objects, remove the trailing slash. If you are trying to retrieve an object, make sure you passed a valid (non-empty) identifier.`,
      });
    }
    const type = request.headers['content-type'] ?? '';
    if (method === 'POST' && body !== '' && !type.startsWith('application/x-www-form-urlencoded')) {
      throw invalid(
        'Invalid request (check that your POST content type is application/x-www-form-urlencoded). ' +
          `The content type was ${type === '' ? 'absent' : type}.`,
      );
    }
    const params = this.validator.check(found.name, parseForm(method === 'POST' ? body : query));
    const header = request.headers['idempotency-key'];
    const key = method === 'POST' && typeof header === 'string' && header !== '' ? header : undefined;
    if (key !== undefined) checkKey(key);
    return { ...found, params, method, path, key, requestId };
  }

  private async perform(call: Call, fault: Fault | undefined): Promise<Answer> {
    const { key, requestId } = call;
    const asked = fingerprint(call.method, call.path, call.params);
    const failure = fault?.kind === 'status' ? failureOf(fault.status) : undefined;
    if (key !== undefined) {
      if (this.keysInUse.has(key)) throw keyInUse(key);
      this.state.expire(this.now());
      const kept = replay(this.state.answers.get(key), asked);
      // A fault comes before a kept answer too, and does not replace it.
      if (kept !== undefined && failure !== undefined) return { ...failure, headers: {} };
      if (kept !== undefined) {
        const headers = {
          'idempotency-key': key,
          'original-request': kept.request,
          'idempotent-replayed': 'true',
        };
        return { status: kept.status, body: kept.body, headers };
      }
    }
    const done =
      failure !== undefined && fault?.when === 'before'
        ? { entry: { at: this.now() }, ...failure }
        : this.work(call);
    const told = failure ?? done;
    const entry: Entry = done.entry;
    if (key !== undefined && (failure === undefined || fault?.stored === true)) {
      entry.answer = {
        key,
        at: entry.at,
        fingerprint: asked,
        request: requestId,
        status: told.status,
        body: told.body,
      };
    }

    if (key !== undefined) this.keysInUse.add(key);
    try {
      if (entry.put !== undefined || entry.remove !== undefined || entry.answer !== undefined)
        await this.commit(entry);
      else await this.journal.settled();
    } finally {
      if (key !== undefined) this.keysInUse.delete(key);
    }
    for (const record of entry.put ?? []) {
      if (record.object === 'event') this.deliveries.enqueue(record);
    }
    const headers = key === undefined ? {} : { 'idempotency-key': key, 'original-request': requestId };
    return { status: told.status, body: told.body, headers };
  }

  /** Runs the handler. A refusal of the handler is an answer too, without an effect. */
  private work(call: Call): { entry: Entry; status: number; body: JsonObject } {
    const change = new Change(this.state, {
      nowMs: this.now(),
      newId: (prefix) => newId(prefix, 24),
      apiVersion: this.operations.apiVersion,
      url: this.url,
      request: { id: call.requestId, idempotency_key: call.key ?? null },
    });
    try {
      const body = handle(call.name, change, call.params, call.ids);
      return { entry: change.entry(), status: 200, body };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { entry: { at: this.now() }, status: error.details.status, body: error.body() };
    }
  }

  private serveTest(method: string, path: string, body: string | undefined, response: ServerResponse): void {
    try {
      const order: unknown = method === 'POST' ? JSON.parse(body ?? '') : undefined;
      if (method === 'POST' && path === '/_test/faults') this.plan.add(readFault(order));
      else if (method === 'DELETE' && path === '/_test/faults') this.plan.clear();
      else if (method === 'POST' && path === '/_test/webhooks') {
        Object.assign(this.webhookFaults, readWebhookFaults(order, this.webhookFaults));
        this.deliveries.pump();
      } else if (method === 'POST' && path === '/_test/clock') {
        this.clockOffsetMs += readAdvance(order) * 1000;
        this.state.expire(this.now());
      } else if (method !== 'GET' || path !== '/_test/faults') {
        throw new BadFault(`there is no ${method} ${path}`);
      }
    } catch (error) {
      if (!(error instanceof BadFault) && !(error instanceof SyntaxError)) throw error;
      send(response, { status: 400, body: { error: { message: error.message } }, headers: {} });
      return;
    }
    const faults = this.plan.list().map((fault) => ({ ...fault, method: fault.method ?? null }));
    const webhooks = { ...this.webhookFaults };
    send(response, {
      status: 200,
      body: { faults, webhooks, now: Math.floor(this.now() / 1000) },
      headers: {},
    });
  }

  /** A bug, a failed journal or a client that went away in the middle of its request. */
  private crash(response: ServerResponse, error: unknown): void {
    if (response.destroyed || response.headersSent) {
      response.destroy();
      return;
    }
    const message = `The stand-in failed: ${error instanceof Error ? error.message : String(error)}`;
    send(response, { ...failureOf(500, message), headers: {} });
  }
}

/** A random id in Stripe's manner: letters and digits. */
function newId(prefix: string, length: number): string {
  const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  let id = '';
  for (const byte of randomBytes(length)) id += alphabet[byte % alphabet.length] ?? '';
  return `${prefix}_${id}`;
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** The body as text; undefined when it is too large, after reading it to its end so that the answer arrives. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= bodyBytesMax) chunks.push(chunk);
  }
  return bytes > bodyBytesMax ? undefined : Buffer.concat(chunks).toString('utf8');
}

function failureOf(status: number, message?: string): { status: number; body: JsonObject } {
  if (status === 429) {
    const details = { type: 'invalid_request_error', code: 'rate_limit' };
    return {
      status,
      body: { error: { ...details, message: message ?? 'Too many requests hit the API too quickly.' } },
    };
  }
  if (status < 500)
    return {
      status,
      body: { error: { type: 'invalid_request_error', message: message ?? 'A fault was ordered.' } },
    };
  const said = message ?? 'Sorry! There was an error while talking to one of our backends.';
  return { status, body: { error: { type: 'api_error', message: said } } };
}

function send(response: ServerResponse, answer: Answer): void {
  const body = JSON.stringify(answer.body, null, 2);
  response.writeHead(answer.status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...answer.headers,
  });
  response.end(body);
}

/** The faults of the connection. A timeout is simply no answer: the client gives up, or `close` ends it. */
function strike(fault: Fault, request: IncomingMessage, response: ServerResponse, answer?: Answer): void {
  switch (fault.kind) {
    case 'reset':
      request.socket.resetAndDestroy();
      return;
    case 'cut': {
      const body = JSON.stringify(answer?.body ?? {}, null, 2);
      response.writeHead(answer?.status ?? 200, {
        ...answer?.headers,
        'content-length': Buffer.byteLength(body),
      });
      response.write(body.slice(0, body.length / 2), () => request.socket.destroy());
      return;
    }
    case 'timeout':
    case 'status':
      return;
  }
}
