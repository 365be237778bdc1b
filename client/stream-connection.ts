/**
 * One connection of the WebSocket transport (contract/stream.ts), from the upgrade to its end.
 *
 *   opening ──welcome──▶ open ──goaway──▶ draining ──last answer──▶ ended
 *      └───────────────────┴─────────────────┴── lost, closed, silent ──▶ ended
 *
 * Every batch that was sent on it is answered once: by the edge, or by the end of the connection, after which nobody
 * knows whether it is in the log, and it must go again under the same ids. A connection never outlives its peer: it is
 * pinged, and when nothing was heard between two pings, or a batch stays without its answer, it is given up.
 */
import { CLOSE_CODES } from '../contract/stream.ts';
import {
  later,
  meaningOf,
  parseObject,
  rejectedOf,
  retryAfterMs,
  statusOf,
  type Answer,
  type Batch,
} from './answer.ts';
import type { ClientClock } from './clock.ts';

/** A socket of `ws`, as far as we use it. */
export interface Socket {
  send(text: string): void;
  ping(): void;
  close(code: number): void;
  terminate(): void;
  on(event: 'message', told: (data: unknown, isBinary: boolean) => void): unknown;
  on(event: 'close', told: (code: number, reason: unknown) => void): unknown;
  on(event: 'error', told: (error: Error) => void): unknown;
  on(event: 'ping' | 'pong', told: () => void): unknown;
  on(event: 'upgrade', told: (response: UpgradeResponse) => void): unknown;
  on(event: 'unexpected-response', told: (request: unknown, response: UpgradeResponse) => void): unknown;
}

interface UpgradeResponse {
  readonly statusCode?: number | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly socket: { unref(): unknown };
  on(event: 'data', told: (chunk: unknown) => void): unknown;
  on(event: 'end' | 'close', told: () => void): unknown;
}

export interface ConnectionOptions {
  readonly url: string;
  readonly timeoutMs: number;
  readonly heartbeatMs: number;
  readonly clock: ClientClock;
}

export interface Ending {
  readonly error: Error;
  readonly code: string | null;
  /** Connecting again with this key is of no use. */
  readonly held: boolean;
  readonly retryAfterMs: number | null;
}

export interface ConnectionListener {
  /** The welcome came: there is credit to send with. */
  opened(): void;
  /** A batch has its answer, and its credit is free again. */
  answered(): void;
  goingAway(): void;
  /** Once. The batches under way have their answers by then. */
  ended(ending: Ending): void;
}

interface UnderWay {
  readonly batch: Batch;
  readonly bytes: number;
  readonly sentAt: number;
  readonly settle: (answer: Answer) => void;
}

interface Welcome {
  readonly batches: number;
  readonly bytes: number;
  readonly batchEvents: number;
  readonly frameBytes: number;
  readonly idleSeconds: number;
}

const REFUSAL_BYTES_MAX = 16_384;

export class StreamConnection {
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #listener: ConnectionListener;
  readonly #underWay = new Map<number, UnderWay>();
  #state: 'opening' | 'open' | 'draining' | 'ended' = 'opening';
  #welcome: Welcome | null = null;
  #batches = 0;
  #bytesUnderWay = 0;
  #heard = true;
  /** What the socket said before it closed. */
  #error: Error | null = null;
  #stopTimer: () => void;

  constructor(socket: Socket, options: ConnectionOptions, listener: ConnectionListener) {
    this.#socket = socket;
    this.#options = options;
    this.#listener = listener;
    const { clock, timeoutMs } = options;
    this.#stopTimer = clock.after(timeoutMs, () => this.#lose(`no welcome within ${timeoutMs} ms`));
    socket.on('upgrade', (response) => void response.socket.unref());
    socket.on('unexpected-response', (_, response) => this.#refusedUpgrade(response));
    socket.on('message', (data, isBinary) => this.#message(data, isBinary));
    socket.on('ping', () => (this.#heard = true));
    socket.on('pong', () => (this.#heard = true));
    socket.on('error', (error) => (this.#error = error));
    socket.on('close', (code, reason) => this.#closed(code, String(reason)));
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /** Batches that the server lets us have under way; 0 before its welcome. */
  get creditBatches(): number {
    return this.#welcome?.batches ?? 0;
  }

  /** It can never be sent here, however long it waits. */
  isTooLarge(batch: Batch): boolean {
    if (this.#welcome === null) return false;
    const { batchEvents, frameBytes, bytes } = this.#welcome;
    return batch.events > batchEvents || this.#frameBytes(batch) > Math.min(frameBytes, bytes);
  }

  hasRoomFor(batch: Batch): boolean {
    if (this.#state !== 'open' || this.#welcome === null) return false;
    const { batches, bytes } = this.#welcome;
    return this.#underWay.size < batches && this.#bytesUnderWay + this.#frameBytes(batch) <= bytes;
  }

  /** Only after `hasRoomFor`. */
  send(batch: Batch, settle: (answer: Answer) => void): void {
    const bytes = this.#frameBytes(batch);
    const head = this.#head();
    this.#underWay.set(this.#batches, { batch, bytes, sentAt: this.#options.clock.now(), settle });
    this.#bytesUnderWay += bytes;
    this.#batches += 1;
    this.#socket.send(`${head}${batch.body}}`);
  }

  close(): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'opening') this.#socket.terminate();
    else this.#socket.close(1000);
    this.#end({ error: new Error('the client was closed'), code: null, held: false, retryAfterMs: null });
  }

  #head(): string {
    return `{"batch":${this.#batches},"events":`;
  }

  #frameBytes(batch: Batch): number {
    return this.#head().length + batch.bytes + 1;
  }

  #message(data: unknown, isBinary: boolean): void {
    this.#heard = true;
    if (this.#state === 'ended') return;
    const message = isBinary ? {} : parseObject(String(data));
    switch (message['type']) {
      case 'welcome':
        return this.#welcomed(message);
      case 'ack':
        return this.#answered(message, (batch) => acknowledged(message, batch));
      case 'refused':
        return this.#answered(message, () => refusal(message, this.#options.url));
      case 'goaway':
        if (this.#state !== 'open') return;
        this.#state = 'draining';
        this.#listener.goingAway();
        return this.#endWhenDrained();
      case undefined:
        return this.#lose('the server said what is not in the protocol');
      default:
        // Of a later version of the protocol, and nothing that we wait for.
        return;
    }
  }

  #welcomed(message: Readonly<Record<string, unknown>>): void {
    const welcome = readWelcome(message);
    if (welcome === null) return this.#lose('the welcome of the server cannot be read');
    if (this.#state !== 'opening') return this.#lose('the server said welcome twice');
    this.#welcome = welcome;
    this.#state = 'open';
    this.#stopTimer();
    const idleMs = welcome.idleSeconds > 0 ? welcome.idleSeconds * 500 : Infinity;
    this.#beat(Math.min(this.#options.heartbeatMs, idleMs));
    this.#listener.opened();
  }

  /** A ping now, and a look at what came of it after the time. */
  #beat(everyMs: number): void {
    this.#heard = false;
    this.#socket.ping();
    this.#stopTimer = this.#options.clock.after(everyMs, () => {
      const { clock, timeoutMs } = this.#options;
      const oldest = this.#underWay.values().next().value;
      if (!this.#heard) this.#lose(`nothing was heard of the server for ${everyMs} ms`);
      else if (oldest !== undefined && clock.now() - oldest.sentAt >= timeoutMs)
        this.#lose(`a batch had no answer within ${timeoutMs} ms`);
      else this.#beat(everyMs);
    });
  }

  #answered(message: Readonly<Record<string, unknown>>, read: (batch: Batch) => Answer | null): void {
    const number = message['batch'];
    const found = typeof number === 'number' ? this.#underWay.get(number) : undefined;
    const answer = found === undefined ? null : read(found.batch);
    if (found === undefined || answer === null) {
      return this.#lose('the server answered what was not asked, or not for every event');
    }
    this.#underWay.delete(number as number);
    this.#bytesUnderWay -= found.bytes;
    found.settle(answer);
    this.#endWhenDrained();
    this.#listener.answered();
  }

  #endWhenDrained(): void {
    if (this.#state !== 'draining' || this.#underWay.size > 0) return;
    this.#socket.close(1000);
    this.#end({ error: new Error('the server sent us away'), code: null, held: false, retryAfterMs: null });
  }

  #refusedUpgrade(response: UpgradeResponse): void {
    const status = response.statusCode ?? 0;
    let text = '';
    const finish = (): void => {
      const { code, detail } = parseObject(text);
      const message = typeof detail === 'string' ? detail : 'the upgrade was refused';
      const retryAfter = response.headers['retry-after'];
      this.#socket.terminate();
      this.#end({
        error: new Error(`${status} from ${this.#options.url}: ${message}`),
        code: typeof code === 'string' ? code : `http_${status}`,
        // A request for an upgrade holds no event: what is wrong with it is never wrong with them.
        held: meaningOf(status) !== 'later',
        retryAfterMs: retryAfterMs(
          typeof retryAfter === 'string' ? retryAfter : null,
          this.#options.clock.now(),
        ),
      });
    };
    response.on('data', (chunk) => {
      if (text.length < REFUSAL_BYTES_MAX) text += String(chunk);
      else finish();
    });
    response.on('end', finish);
    response.on('close', finish);
  }

  #closed(code: number, reason: string): void {
    const known = Object.entries(CLOSE_CODES).find(([, one]) => one.code === code);
    if (known === undefined) {
      return this.#end(this.#lost(whyOf(this.#error) ?? `closed with ${code} ${reason}`.trimEnd()));
    }
    const [name, { retry, reason: meaning }] = known;
    const error = new Error(`${this.#options.url} closed the connection: ${name}, ${meaning}`);
    this.#end({ error, code: name, held: !retry, retryAfterMs: null });
  }

  /** Gives the connection up; a half-open socket would not answer a closing handshake either. */
  #lose(why: string): void {
    this.#socket.terminate();
    this.#end(this.#lost(why));
  }

  #lost(why: string): Ending {
    const error = new Error(`no connection to ${this.#options.url}: ${why}`, { cause: this.#error });
    return { error, code: null, held: false, retryAfterMs: null };
  }

  #end(ending: Ending): void {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    this.#stopTimer();
    const underWay = [...this.#underWay.values()];
    this.#underWay.clear();
    for (const { settle } of underWay) settle(answerOf(ending));
    this.#listener.ended(ending);
  }
}

/** An error that gathers those of several addresses has a code and no message. */
function whyOf(error: (Error & { readonly code?: unknown }) | null): string | null {
  if (error === null) return null;
  return error.message === '' ? String(error.code) : error.message;
}

/** What the end of a connection means for a batch that it was to carry. */
export function answerOf({ error, code, held }: Ending): Answer {
  if (held) return { outcome: 'held', error, code: code ?? 'transport_unavailable' };
  return { outcome: 'later', error, code, retryAfterMs: null, paced: true };
}

function acknowledged(message: Readonly<Record<string, unknown>>, batch: Batch): Answer | null {
  const rejected = rejectedOf(message, batch.events);
  if (rejected === null) return null;
  return { outcome: 'taken', status: rejected.length === batch.events ? 422 : 202, rejected };
}

function refusal(message: Readonly<Record<string, unknown>>, url: string): Answer | null {
  const { code, message: why, retry, retryAfterMs: wait } = message;
  if (typeof code !== 'string' || typeof why !== 'string' || typeof retry !== 'boolean') return null;
  const error = new Error(`${code} from ${url}: ${why}`);
  if (retry) return later(error, code, typeof wait === 'number' && wait > 0 ? wait : null);
  const status = statusOf(code);
  return meaningOf(status) === 'held'
    ? { outcome: 'held', error, code }
    : { outcome: 'refused', status, code, message: why };
}

/** Null for one that no batch could be sent under. */
function readWelcome(message: Readonly<Record<string, unknown>>): Welcome | null {
  const { batches, bytes } = objectOf(message['credit']);
  const { batchEvents, frameBytes, idleSeconds } = objectOf(message['limits']);
  if (!isCount(batches) || !isCount(bytes) || !isCount(batchEvents) || !isCount(frameBytes)) return null;
  return {
    batches,
    bytes,
    batchEvents,
    frameBytes,
    idleSeconds: typeof idleSeconds === 'number' ? idleSeconds : 0,
  };
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}
