/** One request that was let in, and the list of those that wait for their client. */
import type { HttpResponse } from 'uWebSockets.js';
import type { Account } from '../tenant/account.ts';
import type { AnswerShape } from './http-answer.ts';
import type { BodyKind, Encoding } from './media-type.ts';

/**
 * A client must send its body, and take its answer, at this pace. uWebSockets asks for the same of a body over
 * 10 seconds, but ends the connection without a word; this is a little earlier.
 */
export const PACE_BYTES_PER_SECOND = 16_384;
const PACE_MS = 7_000;

export class Exchange {
  readonly res: HttpResponse;
  readonly account: Account;
  readonly kind: BodyKind;
  readonly encoding: Encoding;
  readonly shape: AnswerShape;
  readonly startedMs: number;
  /** Bytes reserved for it. */
  reserved: number;
  /** In binary mode: the event up to its data. */
  head = '';
  /** Where the pieces of the body are collected; null while there is none. */
  body: Buffer | null = null;
  /**
   * reading    its body comes in
   * inside     it is ours: decompressed, read, packed, on its way to the log
   * answering  the client takes its answer slowly
   * finished   nothing is left to do
   */
  phase: 'reading' | 'inside' | 'answering' | 'finished' = 'reading';
  aborted = false;
  /** Bytes of the body, or of the answer, that have passed. */
  passed = 0;
  /** When it began to wait for its client; when the pace was looked at last, and how much had passed then. */
  waitsSinceMs: number;
  #pacedMs: number;
  #pacedBytes = 0;
  /** Neighbours in the list. */
  previous: Exchange | null = null;
  next: Exchange | null = null;

  constructor(
    res: HttpResponse,
    account: Account,
    kind: BodyKind,
    encoding: Encoding,
    shape: AnswerShape,
    reserved: number,
    startedMs: number,
  ) {
    this.res = res;
    this.account = account;
    this.kind = kind;
    this.encoding = encoding;
    this.shape = shape;
    this.reserved = reserved;
    this.startedMs = startedMs;
    this.waitsSinceMs = startedMs;
    this.#pacedMs = startedMs;
  }

  /** The body is through; what passes from now on is the answer. */
  answers(nowMs: number): void {
    this.phase = 'answering';
    this.passed = 0;
    this.waitsSinceMs = nowMs;
    this.#pacedMs = nowMs;
    this.#pacedBytes = 0;
  }

  /** To be asked every second or so. */
  isTooSlow(nowMs: number): boolean {
    const elapsedMs = nowMs - this.#pacedMs;
    if (elapsedMs < PACE_MS) return false;
    if (this.passed - this.#pacedBytes < (elapsedMs * PACE_BYTES_PER_SECOND) / 1_000) return true;
    this.#pacedMs = nowMs;
    this.#pacedBytes = this.passed;
    return false;
  }
}

/** Exchanges that wait for their client. Linked, since one is added and removed with every request. */
export class Waiting {
  #oldest: Exchange | null = null;
  #newest: Exchange | null = null;

  add(exchange: Exchange): void {
    exchange.previous = this.#newest;
    if (this.#newest === null) this.#oldest = exchange;
    else this.#newest.next = exchange;
    this.#newest = exchange;
  }

  /** It must be in the list. */
  delete(exchange: Exchange): void {
    const { previous, next } = exchange;
    if (previous === null) this.#oldest = next;
    else previous.next = next;
    if (next === null) this.#newest = previous;
    else next.previous = previous;
    exchange.previous = exchange.next = null;
  }

  /** `see` may delete the one that it is given. */
  each(see: (exchange: Exchange) => void): void {
    for (let exchange = this.#oldest; exchange !== null;) {
      const { next } = exchange;
      see(exchange);
      exchange = next;
    }
  }
}
