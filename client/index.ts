/**
 * The client that products use to record usage.
 *
 *   await using usage = new TallylineClient({ url, key });
 *   await usage.record({ type: 'llm.request', subject: 'cus_1', data: { input_tokens: 812 } });
 *
 * An event is in exactly one of these places from the moment on at which `record` has resolved:
 *
 *   queue ──▶ on its way ──▶ accepted (in the log)
 *     ▲           │ └──────▶ rejected (reported)
 *     └───────────┘ it could not be sent: back at its place in the queue
 *
 * Nothing else can become of it: there is no path on which it is dropped. It is encoded once, with its id,
 * and every retry sends the same bytes, so that whatever reaches the log twice is counted once. This holds over HTTP
 * and over WebSocket, which differ in how a batch gets its answer and in nothing else; and with a spool also across
 * the end of the process: what is in the queue or on its way stands on disk as well.
 *
 * `onFull: 'drop'` is no exception: an event that finds no room is told to `onDropped` and was never taken.
 */
import type { UsageEvent } from '../contract/event.ts';
import { systemClock, holdProcess, type ClientClock } from './clock.ts';
import { Delivery, tell } from './delivery.ts';
import { encodeEvent, type EncodedEvent } from './encode.ts';
import { BufferFullError, ClientClosedError, UnsentError, UnsentEventsError } from './errors.ts';
import { closeOnSignal, flushOnExit, forget, type Exiting } from './exit.ts';
import { HttpSender } from './http.ts';
import {
  readLimits,
  readSpoolOptions,
  type Amendment,
  type ClientOptions,
  type ClientStats,
  type EventMap,
  type EventOf,
  type Limits,
  type RecordedEvent,
  type SpoolOptions,
  type VoidOptions,
} from './options.ts';
import type { Sender } from './answer.ts';
import { Spool } from './spool.ts';
import { WebSocketSender } from './websocket.ts';

export type { ClientClock } from './clock.ts';
export type {
  Amendment,
  ClientOptions,
  ClientStats,
  EventMap,
  EventOf,
  RecordedEvent,
  Rejection,
  SpoolOptions,
  VoidOptions,
} from './options.ts';
export {
  BufferFullError,
  ClientClosedError,
  RejectedEventsError,
  SpoolError,
  UnsentError,
  UnsentEventsError,
} from './errors.ts';
export type { UsageEvent } from '../contract/event.ts';
export type { RejectionCode } from '../contract/rejections.ts';

/** What every void is but for its original. */
const VOID = { id: 'void', type: 'tallyline.void', subject: '' } as const;

/** `Events`: the shape of `data` by event type; without it every event is taken as it comes. */
export class TallylineClient<Events extends object = EventMap> {
  readonly #options: ClientOptions;
  readonly #limits: Limits;
  readonly #clock: ClientClock;
  readonly #sender: Sender;
  readonly #delivery: Delivery;
  /** Null without a spool. */
  readonly #spool: Promise<Spool> | null;
  readonly #exiting: Exiting;
  #recorded = 0;
  #dropped = 0;
  #closed = false;
  #closing: Promise<void> | null = null;

  /** Throws a TypeError or RangeError for options that cannot work. Connects to nothing yet. */
  constructor(options: ClientOptions) {
    this.#options = options;
    this.#limits = readLimits(options);
    this.#clock = options.clock ?? systemClock;
    const random = options.random ?? Math.random;
    this.#sender = this.#newSender(random);
    this.#delivery = new Delivery({
      sender: this.#sender,
      limits: this.#limits,
      clock: this.#clock,
      random,
      onRejected: options.onRejected,
      onUnsent: options.onUnsent,
    });
    this.#spool = options.spool === undefined ? null : this.#openSpool(options.spool);
    const { exitTimeoutMs } = this.#limits;
    this.#exiting = {
      clock: this.#clock,
      timeoutMs: exitTimeoutMs,
      endangered: () => this.#delivery.buffered + this.#delivery.unreported,
      recorded: () => this.#recorded,
      flush: () => this.#flush(),
      close: () => this.#closeOnce(),
    };
    if (options.flushOnExit ?? true) flushOnExit(this.#exiting);
    if (options.handleSignals ?? false) closeOnSignal(this.#exiting);
  }

  get stats(): ClientStats {
    const { accepted, rejected, retried, buffered } = this.#delivery;
    return {
      accepted,
      rejected,
      retried,
      buffered,
      dropped: this.#dropped,
      reconnects: this.#sender.reconnects,
    };
  }

  /**
   * Takes the event into the buffer; it is sent with others, soon. Resolves when it was taken: at once, with a spool
   * when it is on disk, and under `onFull: 'block'` when there is room. Rejects with a TypeError for what JSON cannot
   * hold, a BufferFullError, a SpoolError or a ClientClosedError; the event was not taken then.
   */
  record(event: EventOf<Events>): Promise<void> {
    return this.#take(event as RecordedEvent);
  }

  /**
   * Takes the event with that id out of what counts: a correction, which goes the way of an event and is taken, or not,
   * as `record` says. It is sent when everything recorded before it has its answer. Amended afterwards, the event
   * counts again.
   */
  void(id: string, { source, correctionId }: VoidOptions = {}): Promise<void> {
    const named = source === undefined ? {} : { source };
    return this.#take({ ...VOID, ...named, id: correctionId ?? VOID.id, voids: id });
  }

  /**
   * Counts the event in the place of the one with that id, of the same source. Amended again, the last one counts; the
   * id is that of the original each time. Taken as by `record`.
   */
  async amend(id: string, event: Amendment<Events>): Promise<void> {
    const amendment = { ...(event as RecordedEvent), amends: id };
    if (amendment.time === undefined)
      throw new TypeError('time is missing: an amendment says when the use was');
    await this.#take(amendment);
  }

  async #take(event: RecordedEvent): Promise<void> {
    if (this.#closed) throw new ClientClosedError('the client is closed');
    const encoded = encodeEvent(event, {
      source: this.#options.source,
      newId: () => crypto.randomUUID(),
      now: () => this.#clock.now(),
    });
    const spool = this.#spool === null ? null : await this.#spool;
    // Between the last look for room and the taking nothing waits.
    while (spool === null ? !this.#delivery.hasRoom : spool.isFull(encoded)) {
      if (this.#closed) break;
      if (this.#isDropped(encoded)) return;
      await holdProcess(this.#delivery.change());
    }
    if (this.#closed) throw new ClientClosedError('the client was closed before there was room');
    this.#recorded += 1;
    if (spool === null) this.#delivery.add({ ...encoded, number: this.#recorded });
    else await spool.append(encoded);
  }

  /**
   * Sends everything recorded so far, and with a spool what earlier clients have left in it. Resolves when all of it is
   * accepted or was reported to `onRejected`. Rejects with an UnsentError when a batch could not be sent (its events
   * stay in the buffer), and with a RejectedEventsError when events were refused and there is no `onRejected`.
   */
  flush(): Promise<void> {
    return holdProcess(this.#flush());
  }

  /**
   * Flushes, then takes nothing more. Rejects like `flush`; when events could not be sent, with an
   * UnsentEventsError that hands them back: they are the caller's from then on. With a spool it is an UnsentError, and
   * they stay on disk for the next client of that folder.
   */
  close(): Promise<void> {
    return holdProcess(this.#closeOnce());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #flush(): Promise<void> {
    await this.#spool;
    await this.#delivery.flush();
    this.#delivery.throwUnreported();
  }

  #closeOnce(): Promise<void> {
    this.#closing ??= this.#close().finally(() => {
      this.#closing = Promise.resolve();
    });
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = true;
    this.#delivery.wake();
    // A spool that could not be opened has taken nothing, and `record` has said so.
    const spool = await this.#spool?.catch(() => null);
    await spool?.written();
    try {
      if (spool !== null) await this.#flush();
    } catch (error) {
      if (!(error instanceof UnsentError)) throw error;
      // Other batches may still be on their way: what becomes of them belongs to the answer.
      this.#delivery.stop();
      await this.#delivery.quiet();
      if (this.#delivery.buffered === 0) return await this.#flush();
      const entries = this.#delivery.takeQueue();
      if (spool !== undefined) throw error;
      const events = entries.map(({ json }) => JSON.parse(json) as UsageEvent);
      throw new UnsentEventsError(events, error.cause);
    } finally {
      this.#delivery.stop();
      this.#sender.close();
      forget(this.#exiting);
      await spool?.close();
    }
  }

  /** What `onFull` says; to wait when it is false. */
  #isDropped(event: EncodedEvent): boolean {
    switch (this.#options.onFull ?? 'block') {
      case 'block':
        return false;
      case 'throw':
        throw new BufferFullError(`${this.#delivery.buffered} events are waiting to be sent`);
      case 'drop':
        this.#dropped += 1;
        if (this.#options.onDropped !== undefined) {
          tell(this.#options.onDropped, JSON.parse(event.json) as UsageEvent);
        }
        return true;
    }
  }

  #newSender(random: () => number): Sender {
    const { url, key, compress = 'auto' } = this.#options;
    const { requestsInFlightMax: inFlightMax, requestTimeoutMs: timeoutMs, heartbeatMs } = this.#limits;
    const clock = this.#clock;
    return this.#options.transport === 'websocket'
      ? new WebSocketSender({
          url,
          key,
          inFlightMax,
          timeoutMs,
          heartbeatMs,
          limits: this.#limits,
          random,
          clock,
          onRoom: () => this.#delivery.pump(),
        })
      : new HttpSender({
          url,
          key,
          compress,
          inFlightMax,
          timeoutMs,
          fetch: this.#options.fetch ?? fetch,
          now: () => clock.now(),
        });
  }

  #openSpool(options: SpoolOptions): Promise<Spool> {
    const opened = Spool.open({
      ...readSpoolOptions(options),
      clock: this.#clock,
      hasRoom: () => this.#delivery.hasRoom,
      add: (entry) => this.#delivery.add(entry),
      changed: () => this.#delivery.wake(),
      onTrouble: (error) => process.emitWarning(error),
    });
    // Whoever records or flushes is told when it failed.
    opened.then(
      (spool) => this.#delivery.attach(spool),
      () => undefined,
    );
    return opened;
  }
}
