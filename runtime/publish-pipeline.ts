/**
 * Publishing with many acknowledgements under way at once.
 *
 * JetStream acknowledges a message by answering on its reply subject. The driver's own js.publish makes a
 * request, a timer and several promises a message; that, not the server, was its cost (36 µs against 2.3).
 * Here one subscription takes all answers: message n is published with the reply subject `<inbox>.<n>`, and
 * n says which slot of the preallocated table is waiting. n = generation * slots + slot, so an answer that
 * comes after its slot was given up and reused carries another n and is ignored.
 *
 * Every publish ends in one of two ways:
 *   resolved   the message is in the log, at the sequence given
 *   rejected   with a PublishError. `effectUnknown` false: it is not in the log. True: it may be, or may
 *              still come to be; who retries must send the same identity again and let it be deduplicated.
 *
 * When the connection is lost, everything in flight is rejected at once with effectUnknown: the answer, if
 * there was one, went to a connection that is gone. Until it stands again publishes are refused without
 * being sent; the driver would buffer them, and drop that buffer on its next dial without telling.
 */
import { createInbox, headers as createHeaders, type Msg, type Subscription } from 'nats';
import type { NatsLink } from './nats.ts';
import type { Metrics } from './metrics.ts';

export interface PublishAck {
  readonly stream: string;
  readonly sequence: number;
  /** The server knew the Nats-Msg-Id. Only possible for messages published with that header. */
  readonly duplicate: boolean;
}

/**
 * full         the stream, its storage or this pipeline has no room: nothing was stored, try later
 * unavailable  nobody took the message: nothing was stored, try later
 * timeout      no answer, or the connection was lost before it: unknown
 * rejected     the message itself is refused (too large, wrong expected sequence): do not retry as it is
 */
export type PublishErrorKind = 'full' | 'unavailable' | 'timeout' | 'rejected';

export class PublishError extends Error {
  readonly kind: PublishErrorKind;
  readonly effectUnknown: boolean;
  /** JetStream's error code, where the server gave one. */
  readonly errCode?: number;

  constructor(kind: PublishErrorKind, message: string, errCode?: number, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PublishError';
    this.kind = kind;
    this.effectUnknown = kind === 'timeout';
    if (errCode !== undefined) this.errCode = errCode;
  }
}

export interface PublishPipelineOptions {
  /** Messages waiting for their acknowledgement, at most. */
  readonly maxInFlight: number;
  /** Bytes of data waiting, at most; the last message admitted may exceed it by its own size. */
  readonly maxInFlightBytes: number;
  readonly ackTimeoutMs: number;
  readonly metrics?: Metrics;
}

type Resolve = (ack: PublishAck) => void;
type Reject = (error: PublishError) => void;

/** JetStream errors that mean "no room": resources, memory and storage exceeded, and a failed store. */
const NO_ROOM = new Set([10_023, 10_028, 10_047, 10_077]);

const FREE = -1;
const ASCII = new TextDecoder('latin1');
const NO_RESPONDERS = 503;

export class PublishPipeline {
  private readonly link: NatsLink;
  private readonly options: PublishPipelineOptions;
  private readonly slots: number;
  private readonly prefix: string;
  private readonly subscription: Subscription;
  private readonly forgetListener: () => void;

  // The table of what is in flight, one row a slot.
  private readonly ids: Float64Array;
  private readonly deadlines: Float64Array;
  private readonly bytes: Uint32Array;
  private readonly resolves: (Resolve | undefined)[];
  private readonly rejects: (Reject | undefined)[];
  private readonly free: Uint32Array;
  private freeCount: number;
  private readonly generations: Float64Array;

  private bytesNow = 0;
  private timer: NodeJS.Timeout | undefined;
  private readonly idleWaiters: (() => void)[] = [];
  private closed = false;

  constructor(link: NatsLink, options: PublishPipelineOptions) {
    const slots = options.maxInFlight;
    if (!Number.isSafeInteger(slots) || slots < 1) throw new RangeError('maxInFlight must be at least 1');
    this.link = link;
    this.options = options;
    this.slots = slots;
    this.ids = new Float64Array(slots).fill(FREE);
    this.deadlines = new Float64Array(slots);
    this.bytes = new Uint32Array(slots);
    this.generations = new Float64Array(slots);
    this.resolves = new Array<Resolve | undefined>(slots).fill(undefined);
    this.rejects = new Array<Reject | undefined>(slots).fill(undefined);
    this.free = Uint32Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.freeCount = slots;

    this.prefix = `${createInbox()}.`;
    this.subscription = link.nc.subscribe(`${this.prefix}*`, {
      callback: (error, message) => {
        if (error === null) this.onAnswer(message);
        else this.failAll(`the subscription for acknowledgements ended: ${error.message}`);
      },
    });
    this.forgetListener = link.onConnection((connected) => {
      if (!connected) this.failAll('the connection was lost before the acknowledgement');
    });
    if (options.metrics) this.exportMetrics(options.metrics);
  }

  get inFlight(): number {
    return this.slots - this.freeCount;
  }

  get inFlightBytes(): number {
    return this.bytesNow;
  }

  /** Whether a publish would be refused now for want of room in the pipeline. */
  full(): boolean {
    return this.freeCount === 0 || this.bytesNow >= this.options.maxInFlightBytes;
  }

  /**
   * Resolves once JetStream has acknowledged the message; rejects with a PublishError, never anything else.
   * `data` must not change until then: it is not copied.
   */
  publish(subject: string, data: Uint8Array, headers?: Record<string, string>): Promise<PublishAck> {
    if (this.closed) return refuse('unavailable', 'the pipeline is closed');
    if (!this.link.connected) return refuse('unavailable', 'not connected to NATS');
    if (this.full()) return refuse('full', 'too much is in flight');

    const slot = this.free[this.freeCount - 1] as number;
    const generation = (this.generations[slot] as number) + 1;
    const id = generation * this.slots + slot;
    try {
      this.link.nc.publish(subject, data, {
        reply: this.prefix + id,
        ...(headers === undefined ? {} : { headers: encodeHeaders(headers) }),
      });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const closed = this.link.nc.isClosed() || this.link.nc.isDraining();
      return Promise.reject(new PublishError(closed ? 'unavailable' : 'rejected', message, undefined, error));
    }
    this.freeCount--;
    this.generations[slot] = generation;
    this.ids[slot] = id;
    this.bytes[slot] = data.length;
    this.bytesNow += data.length;
    this.deadlines[slot] = performance.now() + this.options.ackTimeoutMs;
    this.timer ??= this.startTimer();
    return new Promise((resolve, reject) => {
      this.resolves[slot] = resolve;
      this.rejects[slot] = reject;
    });
  }

  /** Resolves when nothing is in flight. Everything in flight ends within ackTimeoutMs, one way or another. */
  drain(): Promise<void> {
    if (this.inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.idleWaiters.push(resolve));
  }

  /** Ends the pipeline; what is still in flight is rejected with effectUnknown. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.forgetListener();
    if (!this.link.nc.isClosed()) this.subscription.unsubscribe();
    this.failAll('the pipeline was closed before the acknowledgement');
  }

  private onAnswer(message: Msg): void {
    const id = Number(message.subject.slice(this.prefix.length));
    const slot = id % this.slots;
    if (this.ids[slot] !== id) return; // Given up before its answer came.
    const { data } = message;
    if (data.length === 0) {
      const status = message.headers?.code;
      const reason = status === NO_RESPONDERS ? 'no stream listens on the subject' : 'an empty answer';
      return this.fail(slot, new PublishError('unavailable', reason));
    }
    let answer: Answer;
    try {
      answer = JSON.parse(ASCII.decode(data)) as Answer;
    } catch (error) {
      // Somebody answered, but not JetStream as we know it: whether it is stored cannot be said.
      return this.fail(slot, new PublishError('timeout', 'not an acknowledgement', undefined, error));
    }
    if (answer.error !== undefined) return this.fail(slot, fromApi(answer.error));
    if (typeof answer.seq !== 'number' || answer.stream === undefined) {
      return this.fail(slot, new PublishError('timeout', 'not an acknowledgement'));
    }
    const resolve = this.resolves[slot];
    this.release(slot);
    resolve?.({ stream: answer.stream, sequence: answer.seq, duplicate: answer.duplicate === true });
  }

  private fail(slot: number, error: PublishError): void {
    const reject = this.rejects[slot];
    this.release(slot);
    reject?.(error);
  }

  private failAll(reason: string): void {
    for (let slot = 0; slot < this.slots; slot++) {
      if (this.ids[slot] !== FREE) this.fail(slot, new PublishError('timeout', reason));
    }
  }

  private release(slot: number): void {
    this.ids[slot] = FREE;
    this.resolves[slot] = undefined;
    this.rejects[slot] = undefined;
    this.bytesNow -= this.bytes[slot] as number;
    this.free[this.freeCount++] = slot;
    if (this.freeCount < this.slots) return;
    clearInterval(this.timer);
    this.timer = undefined;
    for (const waiter of this.idleWaiters.splice(0)) waiter();
  }

  /** One timer for all, running only while something is in flight; a timeout is late by a tenth at most. */
  private startTimer(): NodeJS.Timeout {
    const tick = () => {
      const now = performance.now();
      for (let slot = 0; slot < this.slots; slot++) {
        if (this.ids[slot] === FREE || (this.deadlines[slot] as number) > now) continue;
        this.fail(slot, new PublishError('timeout', `no answer within ${this.options.ackTimeoutMs} ms`));
      }
    };
    return setInterval(tick, Math.max(5, this.options.ackTimeoutMs / 10));
  }

  private exportMetrics(metrics: Metrics): void {
    metrics.gauge('tallyline_publish_in_flight_messages', 'waiting for their ack', [], () => this.inFlight);
    metrics.gauge('tallyline_publish_in_flight_bytes', 'waiting for their ack', [], () => this.bytesNow);
    metrics
      .gauge('tallyline_publish_in_flight_limit_messages', 'that may wait for their ack')
      .set(this.slots);
    metrics
      .gauge('tallyline_publish_in_flight_limit_bytes', 'that may wait for their ack')
      .set(this.options.maxInFlightBytes);
  }
}

interface ApiError {
  readonly code?: number;
  readonly err_code?: number;
  readonly description?: string;
}

interface Answer {
  readonly stream?: string;
  readonly seq?: number;
  readonly duplicate?: boolean;
  readonly error?: ApiError;
}

/** What JetStream's refusal means. Exported for its test. */
export function fromApi(error: ApiError): PublishError {
  const code = error.err_code;
  const message = error.description ?? 'refused without a reason';
  if (code !== undefined && NO_ROOM.has(code)) return new PublishError('full', message, code);
  return new PublishError((error.code ?? 500) >= 500 ? 'unavailable' : 'rejected', message, code);
}

function refuse(kind: PublishErrorKind, message: string): Promise<never> {
  return Promise.reject(new PublishError(kind, message));
}

function encodeHeaders(headers: Record<string, string>) {
  const encoded = createHeaders();
  for (const [name, value] of Object.entries(headers)) encoded.set(name, value);
  return encoded;
}
