/**
 * The HTTP door of the edge: POST /v1/events, and POST /api/v1/events for clients of OpenMeter.
 *
 * A request is refused as early as what is known of it allows: key, content type, encoding, declared length,
 * quota and room are looked at before its body is read. What it may use is reserved by its declared length (or
 * chunk by chunk, when it declares none) until its answer is out, so that the memory of the process has a bound
 * that does not depend on who sends.
 *
 *   head ──▶ reading ──▶ inside ──▶ (answering) ──▶ finished
 *
 * A client that goes away while its body comes in gives up its place. Once a body is in, its events may be in a
 * block, and it keeps its place until they are settled, whoever listens. An answer that the client does not take
 * at once is kept and counted until it has: what is held for those who do not read is bounded, too.
 *
 * uWebSockets hands out memory that is gone after the callback: `req` is read at once, a body in one piece is
 * read inside its callback, pieces are copied. After `onAborted` nothing may touch `res`.
 */
import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js';
import type { Account } from '../tenant/account.ts';
import { binaryHead, structured } from './cloudevents-http.ts';
import type { Decompressor } from './decompress.ts';
import { Exchange, Waiting } from './exchange.ts';
import {
  httpAnswer,
  problemAnswer,
  rejectedAnswer,
  tooLarge,
  type AnswerShape,
  type HttpAnswer,
} from './http-answer.ts';
import type { Intake } from '../intake.ts';
import { NO_FIELDS, writeAnswer, writeRest, type AnswerFields } from './http-write.ts';
import type { EdgeMeasures } from '../measures.ts';
import { bodyKind, encodingOf } from './media-type.ts';
import type { EdgeProblemCode } from '../problems.ts';
import { rateLimitFields, type Quotas } from '../tenant/quota.ts';
import type { Room } from '../tenant/room.ts';
import type { Senders } from '../tenant/senders.ts';
import type { TurnClock } from '../turn-clock.ts';

export interface HttpLimits {
  readonly bodyBytesMax: number;
  /** How long the body of a request may take to come in. */
  readonly bodySecondsMax: number;
}

export interface HttpOptions {
  readonly limits: HttpLimits;
  readonly senders: Senders;
  readonly room: Room;
  readonly intake: Intake;
  readonly quotas: Quotas;
  readonly decompressor: Decompressor;
  readonly measures: EdgeMeasures;
  /** The description of this door, as JSON. */
  readonly openapi: string;
  readonly clock: TurnClock;
}

export interface HttpDoor {
  /** Answers a request that is none of ours with its problem. */
  refuse(res: HttpResponse, code: EdgeProblemCode): void;
  /** Ends what the door does by itself. After the last answer. */
  stop(): void;
}

const SWEEP_MS = 1_000;
/** How long bodies that are coming in may still take when the edge stops. */
const STOPPING_MS = 2_000;

export function attachHttp(app: TemplatedApp, o: HttpOptions): HttpDoor {
  const door = new Door(o);
  const paths: readonly (readonly [string, AnswerShape])[] = [
    ['/v1/events', 'tallyline'],
    ['/api/v1/events', 'openmeter'],
  ];
  for (const [path, shape] of paths) {
    app.post(path, (res, req) => door.events(res, req, shape));
    app.any(path, (res) => door.refuse(res, 'method_not_allowed', 'POST'));
  }
  const alive = Buffer.from('{"status":"alive"}\n');
  const description = Buffer.from(o.openapi);
  app.get('/healthz', (res) => door.page(res, alive));
  app.get('/openapi.json', (res) => door.page(res, description));
  for (const path of ['/healthz', '/openapi.json'])
    app.any(path, (res) => door.refuse(res, 'method_not_allowed', 'GET'));
  app.any('/v1/stream', (res) => door.refuse(res, 'upgrade_required'));
  app.any('/*', (res) => door.refuse(res, 'not_found'));
  return door;
}

class Door implements HttpDoor {
  readonly #o: HttpOptions;
  readonly #tooLarge: HttpAnswer;
  readonly #sweep: NodeJS.Timeout;
  readonly #waiting = new Waiting();
  #stoppingSinceMs = Infinity;

  constructor(options: HttpOptions) {
    this.#o = options;
    this.#tooLarge = tooLarge(options.limits.bodyBytesMax);
    this.#sweep = setInterval(() => this.#endSlow(options.clock.elapsed()), SWEEP_MS);
  }

  stop(): void {
    clearInterval(this.#sweep);
  }

  /** A page that is the same for all. */
  page(res: HttpResponse, page: Buffer): void {
    this.#answer(res, { status: 200, body: page, retryAfter: 0 });
  }

  refuse(res: HttpResponse, code: EdgeProblemCode, allow = ''): void {
    this.#answer(res, problemAnswer(code), null, allow);
  }

  events(res: HttpResponse, req: HttpRequest, shape: AnswerShape): void {
    const { senders, limits, intake, room, clock } = this.#o;
    // 1. Who is it?
    const account = senders.of(req.getHeader('authorization'), clock.now());
    if (typeof account === 'string') return this.refuse(res, account);
    // 2. Can it be read at all?
    const contentType = req.getHeader('content-type');
    const kind = bodyKind(contentType, req.getHeader('ce-specversion') !== '');
    if (kind === null) return this.refuse(res, 'content_type_unknown');
    const encoding = encodingOf(req.getHeader('content-encoding'));
    if (encoding === null) return this.refuse(res, 'content_encoding_unknown');
    const declared = Number(req.getHeader('content-length'));
    if (declared > limits.bodyBytesMax) return this.#answer(res, this.#tooLarge);
    // 3. May it come in now, and is there room? A sender who is told early sends nothing in vain.
    const refused = intake.refuses(account);
    if (refused !== null)
      return this.#answer(res, problemAnswer(refused.code, refused.detail, refused.retryAfterMs), account);
    let head = '';
    if (kind === 'cloudevents-binary') {
      const read = binaryHead((field) => req.forEach(field));
      if (!read.sound) {
        this.#o.measures.rejected([read.rejected]);
        return this.#answer(res, rejectedAnswer(0, [read.rejected], 0, shape));
      }
      head = read.json;
    }
    if (!room.enter(account, declared)) return this.refuse(res, 'edge_busy');

    const exchange = new Exchange(res, account, kind, encoding, shape, declared, clock.elapsed());
    exchange.head = head;
    this.#waiting.add(exchange);
    res.onAborted(() => this.#onAborted(exchange));
    res.onData((chunk, isLast) => this.#onData(exchange, chunk, isLast));
  }

  #onAborted(exchange: Exchange): void {
    exchange.aborted = true;
    // What is inside keeps its place until it is settled.
    if (exchange.phase !== 'inside') this.#release(exchange);
  }

  #onData(exchange: Exchange, chunk: ArrayBuffer, isLast: boolean): void {
    // After an answer that came early the rest of the body is passed over.
    if (exchange.phase !== 'reading') return;
    const start = exchange.passed;
    const received = start + chunk.byteLength;
    exchange.passed = received;
    if (received > this.#o.limits.bodyBytesMax) return this.#finish(exchange, this.#tooLarge);
    if (isLast && start === 0) {
      if (!this.#reserve(exchange, received)) return this.#refuse(exchange, 'edge_busy');
      return this.#bodyIn(exchange, new Uint8Array(chunk), true);
    }
    let { body } = exchange;
    if (body === null || body.length < received) {
      const larger = Math.max(exchange.reserved, isLast ? received : received * 2);
      if (!this.#reserve(exchange, larger)) return this.#refuse(exchange, 'edge_busy');
      exchange.body = Buffer.allocUnsafe(larger);
      if (body !== null) body.copy(exchange.body, 0, 0, start);
      body = exchange.body;
    }
    body.set(new Uint8Array(chunk), start);
    if (isLast) this.#bodyIn(exchange, body.subarray(0, received), false);
  }

  /** The whole body is there. @param passing its memory is gone after the call. */
  #bodyIn(exchange: Exchange, body: Uint8Array, passing: boolean): void {
    this.#waiting.delete(exchange);
    exchange.phase = 'inside';
    const { encoding, account } = exchange;
    if (encoding === 'identity') return this.#take(exchange, body);
    const kept = passing ? body.slice() : body;
    this.#o.decompressor.add(account, kept, encoding, (outcome) => {
      // Nothing of it is in a block: who has gone away is let go.
      if (exchange.aborted) return this.#release(exchange);
      if (outcome.fault === 'body_too_large') return this.#finish(exchange, this.#tooLarge);
      if (outcome.fault !== null) return this.#refuse(exchange, outcome.fault);
      if (!this.#reserve(exchange, exchange.reserved + outcome.body.length))
        return this.#refuse(exchange, 'edge_busy');
      this.#take(exchange, outcome.body);
    });
  }

  #take(exchange: Exchange, body: Uint8Array): void {
    exchange.body = null;
    const { account, kind, shape } = exchange;
    if (kind === 'cloudevents-binary') return this.#takeData(exchange, body);
    this.#o.intake.take(account, body, kind, (answer) => this.#finish(exchange, httpAnswer(answer, shape)));
  }

  /** Takes a body that is the data of one event. */
  #takeData(exchange: Exchange, data: Uint8Array): void {
    const { account, shape } = exchange;
    const event = structured(exchange.head, data);
    if (event === null) return this.#refuse(exchange, 'body_not_json');
    this.#o.intake.take(account, event, 'cloudevents', (answer) => {
      // The place of a fault would be one in the event that we made.
      if (!answer.taken && answer.code === 'body_not_json') this.#refuse(exchange, answer.code);
      else this.#finish(exchange, httpAnswer(answer, shape));
    });
  }

  #refuse(exchange: Exchange, code: EdgeProblemCode): void {
    this.#finish(exchange, problemAnswer(code));
  }

  /** Answers a request that was let in. */
  #finish(exchange: Exchange, answer: HttpAnswer): void {
    const { res, account, startedMs, phase } = exchange;
    if (phase !== 'reading' && phase !== 'inside') return;
    if (exchange.aborted) return this.#release(exchange);
    const { clock, measures } = this.#o;
    measures.answered(answer.status, clock.elapsed() - startedMs);
    const fields = this.#fieldsOf(answer, account);
    let isOut = false as boolean;
    res.cork(() => void (isOut = writeAnswer(res, answer, fields)));
    if (isOut) this.#release(exchange);
    else this.#wait(exchange, answer);
  }

  /** The answer is long, or its client does not read. It keeps its place, and takes room as a body does. */
  #wait(exchange: Exchange, answer: HttpAnswer): void {
    if (exchange.phase === 'inside') this.#waiting.add(exchange);
    exchange.answers(this.#o.clock.elapsed());
    // No answer is better than one more that is held: the client sends again, and nothing is counted twice.
    if (!this.#reserve(exchange, exchange.reserved + answer.body.length)) return void exchange.res.close();
    writeRest(exchange.res, answer, (passed, isAll) => {
      exchange.passed = passed;
      if (isAll) this.#release(exchange);
    });
  }

  #release(exchange: Exchange): void {
    if (exchange.phase === 'finished') return;
    if (exchange.phase !== 'inside') this.#waiting.delete(exchange);
    exchange.phase = 'finished';
    exchange.body = null;
    this.#o.room.leave(exchange.account, exchange.reserved);
  }

  /** Makes sure that so many bytes are reserved. */
  #reserve(exchange: Exchange, bytes: number): boolean {
    const more = bytes - exchange.reserved;
    if (more <= 0) return true;
    if (!this.#o.room.more(exchange.account, more)) return false;
    exchange.reserved = bytes;
    return true;
  }

  /** Answers in the callback of a request's head. */
  #answer(res: HttpResponse, answer: HttpAnswer, account: Account | null = null, allow = ''): void {
    this.#o.measures.answered(answer.status, null);
    if (writeAnswer(res, answer, this.#fieldsOf(answer, account, allow))) return;
    // A problem is short: who leaves no room for it does not read. A page is long, but there is only one of it.
    if (answer.status !== 200) return void res.close();
    res.onAborted(() => {});
    writeRest(res, answer, () => {});
  }

  /** @param account whose quota an answer tells of that takes events, or refuses them for the quota. */
  #fieldsOf({ status }: HttpAnswer, account: Account | null, allow = ''): AnswerFields {
    const { quotas, clock, intake } = this.#o;
    const close = intake.stopping || status === 408;
    const telling = account !== null && (status === 202 || status === 204 || status === 429);
    const rateLimit = telling ? rateLimitFields(quotas.state(account.tenant, clock.now())) : null;
    return rateLimit === null && !close && allow === '' ? NO_FIELDS : { allow, rateLimit, close };
  }

  #endSlow(nowMs: number): void {
    const { intake, limits } = this.#o;
    if (intake.stopping && this.#stoppingSinceMs === Infinity) this.#stoppingSinceMs = nowMs;
    const isStopped = nowMs - this.#stoppingSinceMs > STOPPING_MS;
    const oldestMs = nowMs - limits.bodySecondsMax * 1_000;
    this.#waiting.each((exchange) => {
      const isSlow = exchange.waitsSinceMs <= oldestMs || exchange.isTooSlow(nowMs);
      if (!isSlow && !isStopped) return;
      if (exchange.phase === 'answering') exchange.res.close();
      else this.#refuse(exchange, isStopped ? 'edge_stopping' : 'body_too_slow');
    });
  }
}
