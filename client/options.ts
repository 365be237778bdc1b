import type { RejectionCode } from '../contract/rejections.ts';
import type { UsageEvent } from '../contract/event.ts';

/** An event as a product records it: `id` may be left out, and a bigint anywhere in `data` is kept exactly. */
export interface RecordedEvent extends Omit<UsageEvent, 'id' | 'time'> {
  readonly id?: string;
  readonly time?: string | Date;
}

/** An event that was refused for good: it is not counted, and it is not kept by the client. */
export interface Rejection {
  /** The event as it was sent. */
  readonly event: UsageEvent;
  /** A code of the rejection table, or the code of the problem with which the whole request was refused. */
  readonly code: RejectionCode | (string & {});
  readonly message: string;
  /** The HTTP status of the answer. */
  readonly status: number;
}

/** The parts of the world that a test replaces. */
export interface ClientClock {
  /** Epoch milliseconds. */
  now(): number;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

export interface ClientOptions {
  /** The edge, such as https://edge.example.com. */
  readonly url: string;
  /** An API key with the scope `ingest`. */
  readonly key: string;
  /** `source` of the events that name none. Default: none. */
  readonly source?: string;
  /** Events in one request. Default 500. */
  readonly batchEventsMax?: number;
  /** Bytes of one request; a larger event goes alone. Default 1 MiB. */
  readonly batchBytesMax?: number;
  /** How long an event waits for others. Default 200 ms. */
  readonly flushIntervalMs?: number;
  /** Events held, those on their way included. Default 50,000. */
  readonly bufferEventsMax?: number;
  /** What `record` does when the buffer is full: wait for room, or throw a BufferFullError. Default 'block'. */
  readonly onFull?: 'block' | 'throw';
  /** Requests under way at the same time. Default 4. */
  readonly requestsInFlightMax?: number;
  /** How often one batch is sent before it is given back to the buffer. Default 8. */
  readonly attemptsMax?: number;
  /** The first wait between attempts is random below this. Default 100 ms. */
  readonly backoffBaseMs?: number;
  /** The longest wait that we choose ourselves. Default 10 s. */
  readonly backoffMaxMs?: number;
  /** The longest wait that a Retry-After can ask for. Default 60 s. */
  readonly retryAfterMaxMs?: number;
  /** How long one request may take. Default 30 s. */
  readonly requestTimeoutMs?: number;
  /** Told once of every event that was refused for good. Without it, `flush` and `close` reject instead. */
  readonly onRejected?: (rejection: Rejection) => void;
  /** Told when a batch could not be sent in all its attempts. Its events stay in the buffer. */
  readonly onUnsent?: (error: UnsentError) => void;
  readonly fetch?: typeof fetch;
  /** [0, 1), for the jitter. */
  readonly random?: () => number;
  readonly clock?: ClientClock;
}

export interface ClientStats {
  /** Events that the edge has acknowledged: they are in the log. */
  readonly accepted: number;
  /** Events refused for good. */
  readonly rejected: number;
  /** Requests sent again. */
  readonly retried: number;
  /** Events held, those on their way included. */
  readonly buffered: number;
}

/** `record` with `onFull: 'throw'`: the event was not taken. */
export class BufferFullError extends Error {
  override readonly name = 'BufferFullError';
}

/** `record` after `close`: the event was not taken. */
export class ClientClosedError extends Error {
  override readonly name = 'ClientClosedError';
}

/** Events could not be sent in all attempts. They are still in the buffer, and go with the next flush. */
export class UnsentError extends Error {
  override readonly name = 'UnsentError';
  readonly buffered: number;

  constructor(buffered: number, cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`${buffered} events could not be sent yet: ${why}`, { cause });
    this.buffered = buffered;
  }
}

/** `close` ended with events that could not be sent: here they are, to be kept and recorded again. */
export class UnsentEventsError extends Error {
  override readonly name = 'UnsentEventsError';
  readonly events: readonly UsageEvent[];

  constructor(events: readonly UsageEvent[], cause: unknown) {
    super(`closed with ${events.length} events that could not be sent`, { cause });
    this.events = events;
  }
}

/** Events were refused for good and nobody listens with `onRejected`. */
export class RejectedEventsError extends Error {
  override readonly name = 'RejectedEventsError';
  readonly rejections: readonly Rejection[];

  constructor(rejections: readonly Rejection[]) {
    const first = rejections[0];
    super(`${rejections.length} events were refused; the first: ${first?.code} (${first?.message})`);
    this.rejections = rejections;
  }
}
