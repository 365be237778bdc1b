/**
 * The client that products use to record usage.
 *
 *   const usage = new TallylineClient({ url, key });
 *   await usage.record({ type: 'llm.request', subject: 'cus_1', data: { input_tokens: 812 } });
 *   await usage.close();
 *
 * An event is in exactly one of these places from `record` on:
 *
 *   queue ──▶ on its way ──▶ accepted (in the log)
 *     ▲           │ └──────▶ rejected (reported, once)
 *     └───────────┘ all attempts failed: back at its place in the queue
 *
 * Nothing else can become of it: there is no path on which it is dropped. It is encoded once, with its id,
 * and every retry sends the same bytes, so that whatever reaches the log twice is counted once.
 */
import type { UsageEvent } from '../contract/event.ts';
import { encodeEvent, type EncodedEvent } from './encode.ts';
import {
  BufferFullError,
  ClientClosedError,
  RejectedEventsError,
  UnsentError,
  UnsentEventsError,
  type ClientClock,
  type ClientOptions,
  type ClientStats,
  type RecordedEvent,
  type Rejection,
} from './options.ts';
import { send, type Answer, type Endpoint } from './send.ts';

export type { ClientClock, ClientOptions, ClientStats, RecordedEvent, Rejection } from './options.ts';
export {
  BufferFullError,
  ClientClosedError,
  RejectedEventsError,
  UnsentError,
  UnsentEventsError,
} from './options.ts';
export type { UsageEvent } from '../contract/event.ts';
export type { RejectionCode } from '../contract/rejections.ts';

const systemClock: ClientClock = {
  now: () => Date.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

const DEFAULTS = {
  batchEventsMax: 500,
  batchBytesMax: 1_048_576,
  flushIntervalMs: 200,
  bufferEventsMax: 50_000,
  requestsInFlightMax: 4,
  attemptsMax: 8,
  backoffBaseMs: 100,
  backoffMaxMs: 10_000,
  retryAfterMaxMs: 60_000,
  requestTimeoutMs: 30_000,
} as const;
type Limits = { readonly [K in keyof typeof DEFAULTS]: number };

interface Entry extends EncodedEvent {
  /** Counts from 1 in the order of `record`. */
  readonly number: number;
}

interface FlushWaiter {
  /** The last event that it waits for. */
  readonly upTo: number;
  remaining: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class TallylineClient {
  readonly #limits: Limits;
  readonly #endpoint: Endpoint;
  readonly #source: string | undefined;
  readonly #block: boolean;
  readonly #random: () => number;
  readonly #clock: ClientClock;
  readonly #onRejected: ((rejection: Rejection) => void) | undefined;
  readonly #onUnsent: ((error: UnsentError) => void) | undefined;

  #queue: Entry[] = [];
  #queueBytes = 0;
  #inFlightEvents = 0;
  #requests = 0;
  #recorded = 0;
  #accepted = 0;
  #rejected = 0;
  #retried = 0;
  #flushes: FlushWaiter[] = [];
  #roomWaiters: (() => void)[] = [];
  /** Refusals that nobody was told of. */
  #unreported: Rejection[] = [];
  #stopTimer: (() => void) | null = null;
  /** After a batch had failed in all its attempts: nothing is sent before the pause is over or a flush. */
  #paused = false;
  #closed = false;

  /** Throws a TypeError or RangeError for options that cannot work. */
  constructor(options: ClientOptions) {
    if (!/^https?:$/.test(new URL(options.url).protocol)) throw new TypeError('url must be http(s)://…');
    if (options.key === '') throw new TypeError('key is empty');
    this.#limits = readLimits(options);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#source = options.source;
    this.#block = (options.onFull ?? 'block') === 'block';
    this.#onRejected = options.onRejected;
    this.#onUnsent = options.onUnsent;
    this.#endpoint = {
      url: `${options.url.replace(/\/+$/, '')}/v1/events`,
      key: options.key,
      timeoutMs: this.#limits.requestTimeoutMs,
      fetch: options.fetch ?? fetch,
      now: () => this.#clock.now(),
    };
  }

  get stats(): ClientStats {
    return {
      accepted: this.#accepted,
      rejected: this.#rejected,
      retried: this.#retried,
      buffered: this.#buffered,
    };
  }

  get #buffered(): number {
    return this.#queue.length + this.#inFlightEvents;
  }

  /**
   * Takes the event into the buffer; it is sent with others, soon. Resolves when it was taken: at once, or
   * under `onFull: 'block'` when there is room. Rejects with a TypeError for what JSON cannot hold, a
   * BufferFullError or a ClientClosedError; the event was not taken then.
   */
  async record(event: RecordedEvent): Promise<void> {
    if (this.#closed) throw new ClientClosedError('the client is closed');
    const encoded = encodeEvent(event, {
      source: this.#source,
      newId: () => crypto.randomUUID(),
      now: () => this.#clock.now(),
    });
    while (this.#buffered >= this.#limits.bufferEventsMax) {
      if (!this.#block) throw new BufferFullError(`${this.#buffered} events are waiting to be sent`);
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
      if (this.#closed) throw new ClientClosedError('the client was closed before there was room');
    }
    this.#queue.push({ ...encoded, number: ++this.#recorded });
    this.#queueBytes += encoded.bytes;
    this.#pump();
  }

  /**
   * Sends everything recorded so far. Resolves when all of it is accepted or was reported to `onRejected`.
   * Rejects with an UnsentError when a batch failed in all its attempts (its events stay in the buffer), and
   * with a RejectedEventsError when events were refused and there is no `onRejected`.
   */
  async flush(): Promise<void> {
    this.#paused = false;
    if (this.#buffered > 0) {
      await new Promise<void>((resolve, reject) => {
        this.#flushes.push({ upTo: this.#recorded, remaining: this.#buffered, resolve, reject });
        this.#pump();
      });
    }
    const unreported = this.#unreported;
    this.#unreported = [];
    if (unreported.length > 0) throw new RejectedEventsError(unreported);
  }

  /**
   * Flushes, then takes nothing more. Rejects like `flush`; when events could not be sent, with an
   * UnsentEventsError that hands them back: they are the caller's from then on.
   */
  async close(): Promise<void> {
    this.#closed = true;
    this.#wakeAll();
    try {
      await this.flush();
    } catch (error) {
      if (!(error instanceof UnsentError)) throw error;
      // Other batches may still be on their way: what becomes of them belongs to the answer.
      while (this.#requests > 0) await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
      if (this.#queue.length === 0) return this.flush();
      const events = this.#queue.map(({ json }) => JSON.parse(json) as UsageEvent);
      this.#queue = [];
      this.#queueBytes = 0;
      throw new UnsentEventsError(events, error);
    } finally {
      this.#setTimer(null);
    }
  }

  /** Starts as many requests as there is reason and room for, and sees to the timer for the rest. */
  #pump(): void {
    const { batchEventsMax, batchBytesMax, bufferEventsMax, requestsInFlightMax, flushIntervalMs } =
      this.#limits;
    while (!this.#paused && this.#requests < requestsInFlightMax && this.#queue.length > 0) {
      const full =
        this.#queue.length >= batchEventsMax ||
        this.#queueBytes >= batchBytesMax ||
        this.#buffered >= bufferEventsMax;
      if (!full && this.#flushes.length === 0) break;
      void this.#deliver(this.#takeBatch());
    }
    if (this.#queue.length === 0) this.#setTimer(null);
    else if (!this.#paused && this.#stopTimer === null) this.#setTimer(flushIntervalMs);
  }

  #setTimer(ms: number | null): void {
    this.#stopTimer?.();
    this.#stopTimer = null;
    if (ms === null) return;
    this.#stopTimer = this.#clock.after(ms, () => {
      this.#stopTimer = null;
      this.#paused = false;
      if (this.#requests < this.#limits.requestsInFlightMax && this.#queue.length > 0) {
        void this.#deliver(this.#takeBatch());
      }
      this.#pump();
    });
  }

  #takeBatch(): Entry[] {
    const { batchEventsMax, batchBytesMax } = this.#limits;
    let count = 0;
    let bytes = 2;
    while (count < this.#queue.length && count < batchEventsMax) {
      const more = this.#queue[count]!.bytes + 1;
      if (count > 0 && bytes + more > batchBytesMax) break;
      bytes += more;
      count += 1;
    }
    const batch = this.#queue.splice(0, count);
    for (const entry of batch) this.#queueBytes -= entry.bytes;
    this.#inFlightEvents += batch.length;
    return batch;
  }

  /** Never rejects: what becomes of the batch is told to those who wait for it. */
  async #deliver(batch: readonly Entry[]): Promise<void> {
    this.#requests += 1;
    try {
      await this.#deliverAll(batch);
    } finally {
      this.#requests -= 1;
      this.#wakeAll();
      this.#pump();
    }
  }

  async #deliverAll(batch: readonly Entry[]): Promise<void> {
    const answer = await this.#sendWithRetries(batch);
    switch (answer.outcome) {
      case 'taken': {
        const refusals = answer.rejected.map(({ index, code, message }) => ({
          entry: batch[index]!,
          code,
          message,
          status: answer.status,
        }));
        this.#accepted += batch.length - refusals.length;
        return this.#settle(batch, refusals);
      }
      case 'refused': {
        // What is too much for one request may be right for two.
        if (answer.status === 413 && batch.length > 1) {
          const half = Math.ceil(batch.length / 2);
          await this.#deliverAll(batch.slice(0, half));
          return this.#deliverAll(batch.slice(half));
        }
        return this.#settle(
          batch,
          batch.map((entry) => ({ entry, ...answer })),
        );
      }
      case 'later':
        return this.#giveBack(batch, answer.error);
    }
  }

  async #sendWithRetries(batch: readonly Entry[]): Promise<Answer> {
    const { attemptsMax, backoffBaseMs, backoffMaxMs, retryAfterMaxMs } = this.#limits;
    const body = `[${batch.map(({ json }) => json).join(',')}]`;
    for (let attempt = 1; ; attempt++) {
      const answer = await send(this.#endpoint, body, batch.length);
      if (answer.outcome !== 'later' || attempt >= attemptsMax) return answer;
      // Full jitter, on top of what the server asks for: those it told the same must not come back together.
      const jitter = this.#random() * Math.min(backoffMaxMs, backoffBaseMs * 2 ** (attempt - 1));
      const asked = Math.min(answer.retryAfterMs ?? 0, retryAfterMaxMs);
      await new Promise<void>((resolve) => this.#clock.after(asked + jitter, resolve));
      this.#retried += 1;
    }
  }

  #settle(
    batch: readonly Entry[],
    refusals: readonly { entry: Entry; code: string; message: string; status: number }[],
  ): void {
    this.#rejected += refusals.length;
    this.#inFlightEvents -= batch.length;
    for (const { entry, code, message, status } of refusals) {
      this.#report({ event: JSON.parse(entry.json) as UsageEvent, code, message, status });
    }
    for (const waiter of this.#flushes) {
      for (const { number } of batch) if (number <= waiter.upTo) waiter.remaining -= 1;
    }
    const done = this.#flushes.filter(({ remaining }) => remaining === 0);
    this.#flushes = this.#flushes.filter(({ remaining }) => remaining > 0);
    for (const { resolve } of done) resolve();
    this.#wakeAll();
  }

  #report(rejection: Rejection): void {
    if (this.#onRejected === undefined) {
      this.#unreported.push(rejection);
      return;
    }
    try {
      this.#onRejected(rejection);
    } catch (error) {
      // A listener that throws must not change what becomes of the other events, nor hide its mistake.
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #giveBack(batch: readonly Entry[], cause: Error): void {
    this.#inFlightEvents -= batch.length;
    this.#queue = [...batch, ...this.#queue].sort((a, b) => a.number - b.number);
    for (const { bytes } of batch) this.#queueBytes += bytes;
    this.#paused = true;
    const error = new UnsentError(this.#buffered, cause);
    const failed = this.#flushes.filter(({ upTo }) => batch.some(({ number }) => number <= upTo));
    this.#flushes = this.#flushes.filter((waiter) => !failed.includes(waiter));
    for (const { reject } of failed) reject(error);
    this.#onUnsent?.(error);
    if (!this.#closed) this.#setTimer(this.#limits.backoffMaxMs);
  }

  #wakeAll(): void {
    for (const wake of this.#roomWaiters.splice(0)) wake();
  }
}

function readLimits(options: ClientOptions): Limits {
  const limits: Record<string, number> = {};
  for (const [name, preset] of Object.entries(DEFAULTS)) {
    const value = options[name as keyof typeof DEFAULTS] ?? preset;
    const least = name === 'flushIntervalMs' || name.startsWith('backoff') ? 0 : 1;
    if (!Number.isFinite(value) || value < least) throw new RangeError(`${name} must be ${least} or more`);
    limits[name] = value;
  }
  return limits as Limits;
}
