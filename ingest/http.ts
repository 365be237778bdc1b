/**
 * The public door of the edge: POST /v1/events.
 *
 * A request is refused as early as what is known of it allows: path, method, key, content type, declared
 * length and room are looked at before its body is read. What it may use is reserved by its declared
 * length (or chunk by chunk, when it declares none) until its answer is out, so that the memory of the
 * process has a bound that does not depend on who sends.
 *
 * uWebSockets hands out memory that is gone after the callback: `req` is read at once, a body in one piece
 * is admitted inside its callback, pieces are copied. After `onAborted` nothing may touch `res`.
 */
import { App, us_listen_socket_close, us_socket_local_port } from 'uWebSockets.js';
import type { HttpRequest, HttpResponse, us_listen_socket } from 'uWebSockets.js';
import { REJECTIONS } from '../contract/rejections.ts';
import { admitBatch, type BatchFormat } from './batch.ts';
import type { Admission } from './admit.ts';
import { bearerOf, type KeyRing } from './keys.ts';
import type { EdgeMeasures } from './measures.ts';
import type { Pack } from './pack.ts';
import { edgeProblem, type EdgeProblemCode } from './problems.ts';

export interface EdgeLimits {
  readonly bodyBytesMax: number;
  readonly requestsInFlightMax: number;
  readonly bytesInFlightMax: number;
  /** How long the body of a request may take to come in. */
  readonly bodySecondsMax: number;
}

export interface EdgeOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly limits: EdgeLimits;
  readonly keys: KeyRing;
  readonly admission: Admission;
  readonly pack: Pack;
  readonly measures: EdgeMeasures;
  now(): number;
  /** Why no event can be taken now, or null. Asked before a body is read. */
  closedBecause(): EdgeProblemCode | null;
  /** The problem to answer when a block of the request failed. */
  problemOf(failure: unknown): EdgeProblemCode;
  /** An exception, which is a bug of ours. */
  onBug(error: unknown): void;
}

const RETRY_AFTER_SECONDS = '1';
const JSON_TYPE = 'application/json';
const PROBLEM_TYPE = 'application/problem+json';
const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;
const SWEEP_MS = 1_000;

const REASONS: Readonly<Record<number, string>> = {
  200: '200 OK',
  202: '202 Accepted',
  400: '400 Bad Request',
  401: '401 Unauthorized',
  403: '403 Forbidden',
  404: '404 Not Found',
  405: '405 Method Not Allowed',
  408: '408 Request Timeout',
  413: '413 Content Too Large',
  415: '415 Unsupported Media Type',
  422: '422 Unprocessable Content',
  500: '500 Internal Server Error',
  503: '503 Service Unavailable',
};

/** One request that was let in. */
interface Exchange {
  readonly res: HttpResponse;
  readonly tenant: string;
  readonly format: BatchFormat;
  readonly startedMs: number;
  /** Bytes reserved for it. */
  reserved: number;
  /** Where the pieces of the body are collected; null while there is none. */
  body: Buffer | null;
  received: number;
  reading: boolean;
  aborted: boolean;
  finished: boolean;
}

export class Edge {
  readonly #o: EdgeOptions;
  readonly #app = App();
  readonly #reading = new Set<Exchange>();
  readonly #sweep: NodeJS.Timeout;
  #listening: us_listen_socket | null = null;
  #requests = 0;
  #bytes = 0;
  #stopping = false;
  #onIdle: (() => void) | null = null;

  constructor(options: EdgeOptions) {
    this.#o = options;
    this.#app.post('/v1/events', (res, req) => this.#onEvents(res, req));
    this.#app.any('/v1/events', (res) => this.#problem(res, 'method_not_allowed'));
    this.#app.get('/healthz', (res) => this.#answer(res, 200, JSON_TYPE, '{"status":"alive"}\n'));
    this.#app.any('/*', (res) => this.#problem(res, 'not_found'));
    this.#sweep = setInterval(() => this.#endSlowBodies(), SWEEP_MS);
    options.measures.watch({
      requestsInFlight: () => this.#requests,
      bytesInFlight: () => this.#bytes,
    });
  }

  /** Resolves with the port. Rejects when it is taken. */
  listen(): Promise<number> {
    const { host, port } = this.#o;
    return new Promise((resolve, reject) => {
      const done = (socket: us_listen_socket | false): void => {
        if (socket === false)
          return reject(new Error(`cannot listen on ${host}:${port}: is the port taken?`));
        this.#listening = socket;
        resolve(us_socket_local_port(socket));
      };
      // Without the option two processes would share the port in silence. The types lack this form.
      const app = this.#app as unknown as {
        listen(
          host: string,
          port: number,
          options: number,
          done: (s: us_listen_socket | false) => void,
        ): void;
      };
      app.listen(host, port, LIBUS_LISTEN_EXCLUSIVE_PORT, done);
    });
  }

  /** Takes no new connection and no new request; resolves when every request let in has its answer. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#listening !== null) us_listen_socket_close(this.#listening);
    this.#listening = null;
    if (this.#requests > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    clearInterval(this.#sweep);
    this.#app.close();
  }

  #onEvents(res: HttpResponse, req: HttpRequest): void {
    const { keys, limits } = this.#o;
    // 1. Who is it?
    const key = bearerOf(req.getHeader('authorization'));
    if (key === null) return this.#problem(res, 'key_missing');
    const record = keys.verify(key);
    if (record === null) return this.#problem(res, 'key_invalid');
    if (!record.scopes.includes('ingest')) return this.#problem(res, 'scope_missing');
    // 2. Can it be read at all?
    const format = formatOf(req.getHeader('content-type'));
    if (format === null) return this.#problem(res, 'content_type_unknown');
    const declared = Number(req.getHeader('content-length') || 0);
    if (!(declared <= limits.bodyBytesMax)) return this.#tooLarge(res);
    // 3. Is there room, and does the log stand? A sender who is told early sends nothing in vain.
    const closed = this.#stopping ? 'edge_stopping' : this.#o.closedBecause();
    if (closed !== null) return this.#problem(res, closed);
    const full =
      this.#requests >= limits.requestsInFlightMax || this.#bytes + declared > limits.bytesInFlightMax;
    if (full) return this.#problem(res, 'edge_busy');

    const exchange: Exchange = {
      res,
      tenant: record.tenant,
      format,
      startedMs: performance.now(),
      reserved: declared,
      body: null,
      received: 0,
      reading: true,
      aborted: false,
      finished: false,
    };
    this.#requests += 1;
    this.#bytes += declared;
    this.#reading.add(exchange);
    res.onAborted(() => {
      exchange.aborted = true;
      // A request whose events are in blocks keeps its place until they are settled.
      if (exchange.reading) this.#release(exchange);
    });
    res.onData((chunk, isLast) => this.#onData(exchange, chunk, isLast));
  }

  #onData(exchange: Exchange, chunk: ArrayBuffer, isLast: boolean): void {
    if (exchange.finished || exchange.aborted) return;
    const { limits } = this.#o;
    const start = exchange.received;
    exchange.received += chunk.byteLength;
    if (exchange.received > limits.bodyBytesMax) return this.#refuse(exchange, 'body_too_large');
    if (exchange.received > exchange.reserved) {
      const more = exchange.received - exchange.reserved;
      if (this.#bytes + more > limits.bytesInFlightMax) return this.#refuse(exchange, 'edge_busy');
      this.#bytes += more;
      exchange.reserved = exchange.received;
    }
    if (isLast && start === 0) return this.#admit(exchange, new Uint8Array(chunk));
    let body = exchange.body;
    if (body === null || body.length < exchange.received) {
      const larger = Buffer.allocUnsafe(Math.max(exchange.reserved, exchange.received * 2));
      if (body !== null) body.copy(larger, 0, 0, start);
      exchange.body = body = larger;
    }
    body.set(new Uint8Array(chunk), start);
    if (isLast) this.#admit(exchange, body.subarray(0, exchange.received));
  }

  #admit(exchange: Exchange, body: Uint8Array): void {
    const { admission, pack, measures } = this.#o;
    exchange.reading = false;
    this.#reading.delete(exchange);
    exchange.body = null;
    const ticket = pack.begin();
    try {
      const outcome = admitBatch(
        body,
        exchange.format,
        { admission, tenant: exchange.tenant, nowMs: this.#o.now() },
        (event) => pack.add(ticket, event),
      );
      if (!outcome.read) return this.#refuse(exchange, outcome.code, outcome.message);
      const { admitted, rejected } = outcome;
      measures.rejected(rejected);
      if (admitted === 0 && rejected.length > 0) {
        const problem = edgeProblem('no_event_admitted', undefined, { accepted: 0, rejected });
        return this.#finish(exchange, 422, PROBLEM_TYPE, JSON.stringify(problem));
      }
      pack.end(ticket, (failure) => {
        if (failure !== null) return this.#refuse(exchange, this.#o.problemOf(failure));
        measures.accepted(admitted);
        this.#finish(exchange, 202, JSON_TYPE, accepted(admitted, rejected));
      });
    } catch (error) {
      this.#o.onBug(error);
      this.#refuse(exchange, 'internal_error');
    }
  }

  #refuse(exchange: Exchange, code: EdgeProblemCode, detail?: string): void {
    const problem = edgeProblem(code, detail ?? this.#detailOf(code));
    this.#finish(exchange, problem.status, PROBLEM_TYPE, JSON.stringify(problem));
  }

  #finish(exchange: Exchange, status: number, type: string, body: string): void {
    if (exchange.finished) return;
    if (!exchange.aborted) this.#answer(exchange.res, status, type, body, exchange.startedMs);
    this.#release(exchange);
  }

  #release(exchange: Exchange): void {
    if (exchange.finished) return;
    exchange.finished = true;
    this.#reading.delete(exchange);
    this.#requests -= 1;
    this.#bytes -= exchange.reserved;
    if (this.#requests === 0) this.#onIdle?.();
  }

  #tooLarge(res: HttpResponse): void {
    this.#problem(res, 'body_too_large', this.#detailOf('body_too_large'));
  }

  #detailOf(code: EdgeProblemCode): string | undefined {
    if (code !== 'body_too_large') return undefined;
    return `${REJECTIONS.body_too_large.message} At most ${this.#o.limits.bodyBytesMax} bytes.`;
  }

  #problem(res: HttpResponse, code: EdgeProblemCode, detail?: string): void {
    const problem = edgeProblem(code, detail);
    this.#answer(res, problem.status, PROBLEM_TYPE, JSON.stringify(problem));
  }

  #answer(res: HttpResponse, status: number, type: string, body: string, startedMs?: number): void {
    this.#o.measures.answered(status, startedMs === undefined ? null : performance.now() - startedMs);
    res.cork(() => {
      res.writeStatus(REASONS[status]!).writeHeader('Content-Type', type);
      if (status === 401) res.writeHeader('WWW-Authenticate', 'Bearer');
      if (status === 405) res.writeHeader('Allow', 'POST');
      if (status === 503) res.writeHeader('Retry-After', RETRY_AFTER_SECONDS);
      // A client on a kept connection must look for another server.
      res.end(body, this.#stopping || status === 408);
    });
  }

  #endSlowBodies(): void {
    const oldest = performance.now() - this.#o.limits.bodySecondsMax * 1_000;
    // Exchanges are in the order in which they began.
    for (const exchange of this.#reading) {
      if (exchange.startedMs > oldest) return;
      this.#refuse(exchange, 'body_too_slow');
    }
  }
}

function accepted(admitted: number, rejected: readonly object[]): string {
  if (rejected.length === 0) return `{"accepted":${admitted},"rejected":[]}`;
  return JSON.stringify({ accepted: admitted, rejected });
}

/** Parameters (charset) are let through: JSON is UTF-8, whatever they say, and that is checked. */
function formatOf(contentType: string): BatchFormat | null {
  if (contentType === JSON_TYPE) return 'json';
  switch (contentType.split(';', 1)[0]!.trim().toLowerCase()) {
    case JSON_TYPE:
      return 'json';
    case 'application/x-ndjson':
      return 'ndjson';
    default:
      return null;
  }
}
