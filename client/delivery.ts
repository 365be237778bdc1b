/**
 * The core of the client: what is in the buffer goes out in batches, and what comes back settles it. It knows the
 * transport as a `Sender` and the spool as a `Backlog`, and is the same for all of them.
 *
 * Batches are under way side by side, and may be in the log in another order. For corrections the order matters: what
 * they name must stand before them, and the last one holds. So a batch with a correction waits until no other is under
 * way; what was recorded before it has its answer then.
 */
import type { UsageEvent } from '../contract/event.ts';
import { later, type Answer, type Sender } from './answer.ts';
import { waitMs } from './backoff.ts';
import type { ClientClock } from './clock.ts';
import { RejectedEventsError, UnsentError } from './errors.ts';
import type { Limits, Rejection } from './options.ts';
import { EventQueue, type Entry } from './queue.ts';

/** Where events are kept until they are settled, in addition to memory. */
export interface Backlog {
  /** Events that are not in memory. */
  readonly unread: number;
  /** The number of the last event written. */
  readonly last: number;
  /** Hands over the next ones that are not in memory, in order and at once: some, or none when there are none. */
  read(take: (entry: Entry) => void): Promise<void>;
  /** The edge has answered for them. */
  settled(entries: readonly Entry[]): void;
}

export interface DeliveryOptions {
  readonly sender: Sender;
  readonly limits: Limits;
  readonly clock: ClientClock;
  readonly random: () => number;
  readonly onRejected: ((rejection: Rejection) => void) | undefined;
  readonly onUnsent: ((error: UnsentError) => void) | undefined;
}

interface FlushWaiter {
  /** The last event that it waits for. */
  readonly upTo: number;
  remaining: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

interface Refusal {
  readonly entry: Entry;
  readonly code: string;
  readonly message: string;
  readonly status: number;
}

/** Refusals kept for the next flush, where nobody listens. */
const UNREPORTED_MAX = 1_000;

export class Delivery {
  readonly #o: DeliveryOptions;
  readonly #queue = new EventQueue();
  #backlog: Backlog | null = null;
  #reading = false;
  #inFlightEvents = 0;
  #batches = 0;
  #last = 0;
  #accepted = 0;
  #rejected = 0;
  #retried = 0;
  #flushes: FlushWaiter[] = [];
  #changeWaiters: (() => void)[] = [];
  /** The first refusals that nobody was told of, and how many there are. */
  #unreported: Rejection[] = [];
  #unreportedTotal = 0;
  #stopTimer: (() => void) | null = null;
  /** After a batch could not be sent: nothing is sent before the pause is over or a flush. */
  #paused = false;
  #stopped = false;

  constructor(options: DeliveryOptions) {
    this.#o = options;
  }

  get accepted(): number {
    return this.#accepted;
  }

  get rejected(): number {
    return this.#rejected;
  }

  get retried(): number {
    return this.#retried;
  }

  get buffered(): number {
    return this.#inMemory + (this.#backlog?.unread ?? 0);
  }

  get #inMemory(): number {
    return this.#queue.length + this.#inFlightEvents;
  }

  get hasRoom(): boolean {
    return this.#inMemory < this.#o.limits.bufferEventsMax;
  }

  /** Resolves when something was settled, or `wake` was called. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#changeWaiters.push(resolve));
  }

  wake(): void {
    for (const wake of this.#changeWaiters.splice(0)) wake();
  }

  attach(backlog: Backlog): void {
    this.#backlog = backlog;
    this.pump();
  }

  add(entry: Entry): void {
    this.#last = entry.number;
    this.#queue.push(entry);
    this.pump();
  }

  /** Resolves when everything so far is settled; rejects with an UnsentError when some of it could not be sent. */
  flush(): Promise<void> {
    this.#paused = false;
    if (this.buffered === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const upTo = Math.max(this.#last, this.#backlog?.last ?? 0);
      this.#flushes.push({ upTo, remaining: this.buffered, resolve, reject });
      this.pump();
    });
  }

  get unreported(): number {
    return this.#unreportedTotal;
  }

  /** Throws the refusals that nobody was told of, once. */
  throwUnreported(): void {
    if (this.#unreportedTotal === 0) return;
    const error = new RejectedEventsError(this.#unreported, this.#unreportedTotal);
    this.#unreported = [];
    this.#unreportedTotal = 0;
    throw error;
  }

  /** What is in memory and not under way; it is no longer ours. */
  takeQueue(): readonly Entry[] {
    return this.#queue.takeAll();
  }

  /** Resolves when nothing is under way any more. */
  async quiet(): Promise<void> {
    while (this.#batches > 0 || this.#reading) await this.change();
  }

  /** Nothing starts by itself after it. */
  stop(): void {
    this.#stopped = true;
    this.#paused = true;
    this.#setTimer(null);
  }

  /** Starts as many batches as there is reason and room for, and sees to the timer for the rest. */
  pump(): void {
    const { batchEventsMax, batchBytesMax, flushIntervalMs } = this.#o.limits;
    while (!this.#paused && this.#mayStart) {
      const full =
        this.#queue.length >= batchEventsMax ||
        this.#queue.bytes >= batchBytesMax ||
        !this.hasRoom ||
        (this.#backlog?.unread ?? 0) > 0;
      if (!full && this.#flushes.length === 0) break;
      void this.#deliver(this.#takeBatch());
    }
    if (this.#paused) return;
    if (this.#queue.length === 0) this.#setTimer(null);
    else if (this.#stopTimer === null) this.#setTimer(flushIntervalMs);
    if (!this.#reading && this.hasRoom && (this.#backlog?.unread ?? 0) > 0) void this.#readBacklog();
  }

  async #readBacklog(): Promise<void> {
    this.#reading = true;
    try {
      await this.#backlog!.read((entry) => this.#queue.push(entry));
    } catch (error) {
      this.#unsent([], error, 'spool_unreadable');
    } finally {
      this.#reading = false;
      this.wake();
    }
    this.pump();
  }

  #setTimer(ms: number | null): void {
    this.#stopTimer?.();
    this.#stopTimer = null;
    if (ms === null || this.#stopped) return;
    this.#stopTimer = this.#o.clock.after(ms, () => {
      this.#stopTimer = null;
      this.#paused = false;
      if (this.#mayStart) void this.#deliver(this.#takeBatch());
      this.pump();
    });
  }

  get #mayStart(): boolean {
    if (this.#queue.length === 0 || this.#batches >= this.#o.sender.inFlightMax) return false;
    return this.#batches === 0 || !this.#queue.correctsWithin(this.#o.limits.batchEventsMax);
  }

  #takeBatch(): readonly Entry[] {
    const batch = this.#queue.take(this.#o.limits.batchEventsMax, this.#o.limits.batchBytesMax);
    this.#inFlightEvents += batch.length;
    return batch;
  }

  /** Never rejects: what becomes of the batch is told to those who wait for it. */
  async #deliver(batch: readonly Entry[]): Promise<void> {
    this.#batches += 1;
    try {
      await this.#deliverAll(batch);
    } finally {
      this.#batches -= 1;
      this.wake();
      this.pump();
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
      case 'held':
        return this.#giveBack(batch, answer.error, answer.code);
    }
  }

  async #sendWithRetries(batch: readonly Entry[]): Promise<Answer> {
    const { sender, limits, random, clock } = this.#o;
    const body = `[${batch.map(({ json }) => json).join(',')}]`;
    const bytes = batch.reduce((sum, entry) => sum + entry.bytes + 1, 1);
    for (let attempt = 1; ; attempt++) {
      let answer: Answer;
      try {
        answer = await sender.send({ body, bytes, events: batch.length });
      } catch (error) {
        answer = later(error instanceof Error ? error : new Error(String(error)), null, null);
      }
      if (answer.outcome !== 'later' || attempt >= limits.attemptsMax) return answer;
      if (answer.paced !== true) {
        const wait = waitMs(attempt, answer.retryAfterMs, limits, random);
        await new Promise<void>((resolve) => void clock.after(wait, resolve));
      }
      this.#retried += 1;
    }
  }

  #settle(batch: readonly Entry[], refusals: readonly Refusal[]): void {
    this.#rejected += refusals.length;
    this.#inFlightEvents -= batch.length;
    // 1. Report. A crash after this, with a spool: the next client sends them again and reports again.
    for (const { entry, code, message, status } of refusals) {
      this.#report({ event: JSON.parse(entry.json) as UsageEvent, code, message, status });
    }
    // 2. Forget.
    this.#backlog?.settled(batch);
    // 3. Tell those who wait for it.
    for (const waiter of this.#flushes) {
      for (const { number } of batch) if (number <= waiter.upTo) waiter.remaining -= 1;
    }
    const done = this.#flushes.filter(({ remaining }) => remaining === 0);
    this.#flushes = this.#flushes.filter(({ remaining }) => remaining > 0);
    for (const { resolve } of done) resolve();
    this.wake();
  }

  #report(rejection: Rejection): void {
    if (this.#o.onRejected !== undefined) return tell(this.#o.onRejected, rejection);
    this.#unreportedTotal += 1;
    if (this.#unreported.length < UNREPORTED_MAX) this.#unreported.push(rejection);
  }

  #giveBack(batch: readonly Entry[], cause: Error, code: string | null): void {
    this.#inFlightEvents -= batch.length;
    this.#queue.putBack(batch);
    this.#unsent(batch, cause, code);
  }

  /** `batch`: those that could not be sent; none when it concerns all. */
  #unsent(batch: readonly Entry[], cause: unknown, code: string | null): void {
    this.#paused = true;
    const error = new UnsentError(this.buffered, cause, code);
    const failed = this.#flushes.filter(
      ({ upTo }) => batch.length === 0 || batch.some(({ number }) => number <= upTo),
    );
    this.#flushes = this.#flushes.filter((waiter) => !failed.includes(waiter));
    for (const { reject } of failed) reject(error);
    if (this.#o.onUnsent !== undefined) tell(this.#o.onUnsent, error);
    this.#setTimer(this.#o.limits.backoffMaxMs);
  }
}

/** A listener that throws must not change what becomes of the events, nor hide its mistake. */
export function tell<T>(listener: (told: T) => void, told: T): void {
  try {
    listener(told);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
