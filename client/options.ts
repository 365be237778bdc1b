import type { RejectionCode } from '../contract/rejections.ts';
import type { UsageEvent } from '../contract/event.ts';
import type { ClientClock } from './clock.ts';
import type { UnsentError } from './errors.ts';

/** An event as a product records it: `id` may be left out, and a bigint anywhere in `data` is kept exactly. */
export interface RecordedEvent extends Omit<UsageEvent, 'id' | 'time'> {
  readonly id?: string;
  readonly time?: string | Date;
}

/** An event in the place of another. Its time is that of the use, and not of the correction: it must be said. */
export type Amendment<Events> = EventOf<Events> & { readonly time: string | Date };

export interface VoidOptions {
  /** The source of the original. Default: that of the client. */
  readonly source?: string;
  /**
   * The id of the void. Default 'void': it need only be unique among the corrections of one event, and with the same
   * one a second call is a duplicate. Another one is needed to void an event again that was amended meanwhile.
   */
  readonly correctionId?: string;
}

/** The shape of `data` by event type, such as `{ 'llm.request': { input_tokens: number } }`. */
export type EventMap = Readonly<Record<string, Readonly<Record<string, unknown>> | undefined>>;

/** The events that a client of these types takes; without an own map, any. `data` may be absent where its shape says so. */
export type EventOf<Events> = string extends keyof Events
  ? RecordedEvent
  : {
      [Type in keyof Events & string]: Omit<RecordedEvent, 'type' | 'data'> & {
        readonly type: Type;
      } & (undefined extends Events[Type]
          ? { readonly data?: Exclude<Events[Type], undefined> }
          : { readonly data: Events[Type] });
    }[keyof Events & string];

/** An event that was refused for good: it is not counted, and it is not kept by the client. */
export interface Rejection {
  /** The event as it was sent. */
  readonly event: UsageEvent;
  /** A code of the rejection table, or the code of the problem with which the whole request was refused. */
  readonly code: RejectionCode | (string & {});
  readonly message: string;
  /** The HTTP status of the answer; over WebSocket the one that HTTP would have had. */
  readonly status: number;
}

export interface SpoolOptions {
  /** A folder of its own for one process at a time and one tenant; it is made when it is not there. */
  readonly directory: string;
  /** Bytes of events on disk. When they are reached, `onFull` decides. 64 KiB or more. Default 256 MiB. */
  readonly bytesMax?: number;
  /**
   * 'each': `record` resolves when the event would survive a loss of power. 'interval': it survives the end of the
   * process at once, and a loss of power after a second. Default 'interval'.
   */
  readonly sync?: 'each' | 'interval';
}

export interface ClientOptions {
  /** The edge, such as https://edge.example.com; http(s) for both transports. */
  readonly url: string;
  /** An API key with the scope `ingest`. */
  readonly key: string;
  /** A request for each batch, or one connection with an acknowledgement for each batch. Default 'http'. */
  readonly transport?: 'http' | 'websocket';
  /** `source` of the events that name none. Default: none. */
  readonly source?: string;
  /** Events in one batch. Default 500. */
  readonly batchEventsMax?: number;
  /** Bytes of one batch; a larger event goes alone. Default 1 MiB. */
  readonly batchBytesMax?: number;
  /** How long an event waits for others. Default 200 ms. */
  readonly flushIntervalMs?: number;
  /** Events held in memory, those on their way included. With a spool, what is more waits on disk. Default 50,000. */
  readonly bufferEventsMax?: number;
  /**
   * What `record` does when the buffer, or with a spool the disk, is full: wait for room, throw a BufferFullError, or
   * not take the event and tell `onDropped`. The last one loses events, by your choice. Default 'block'.
   */
  readonly onFull?: 'block' | 'throw' | 'drop';
  /** Keeps every event on disk until the edge has answered for it. Default: memory only. */
  readonly spool?: SpoolOptions;
  /** Requests under way at the same time (default 4), or batches (default 64) within the credit that the edge gives. */
  readonly requestsInFlightMax?: number;
  /** How often one batch is sent before it is given back to the buffer. Default 8. */
  readonly attemptsMax?: number;
  /** The first wait between attempts is random below this. Default 100 ms. */
  readonly backoffBaseMs?: number;
  /** The longest wait that we choose ourselves. Default 10 s. */
  readonly backoffMaxMs?: number;
  /** The longest wait that the edge can ask for. Default 60 s. */
  readonly retryAfterMaxMs?: number;
  /** How long one answer may take. Default 30 s. */
  readonly requestTimeoutMs?: number;
  /** A WebSocket is pinged this often; when nothing at all was heard in between, it is given up. Default 15 s. */
  readonly heartbeatMs?: number;
  /**
   * HTTP bodies as gzip: true from 1 KiB on, 'auto' from 8 KiB on unless the edge is on this machine. Default 'auto'.
   */
  readonly compress?: boolean | 'auto';
  /** Sends what is buffered when the process would end by itself. Not on process.exit(). Default true. */
  readonly flushOnExit?: boolean;
  /** Closes the client on SIGTERM and SIGINT, then lets the signal do what it does without us. Default false. */
  readonly handleSignals?: boolean;
  /** How long the end of the process may wait for us, in both cases. Default 10 s. */
  readonly exitTimeoutMs?: number;
  /**
   * Told of every event that was refused for good, once (after a crash with a spool perhaps again). Without it,
   * `flush` and `close` reject instead.
   */
  readonly onRejected?: (rejection: Rejection) => void;
  /** Told when a batch could not be sent. Its events stay in the buffer. */
  readonly onUnsent?: (error: UnsentError) => void;
  /** Told of an event that `onFull: 'drop'` did not take, with the id under which it may be recorded again. */
  readonly onDropped?: (event: UsageEvent) => void;
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
  /** Attempts for a batch after its first one. */
  readonly retried: number;
  /** Events held, in memory and on disk, those on their way included. */
  readonly buffered: number;
  /** Events not taken under `onFull: 'drop'`. */
  readonly dropped: number;
  /** WebSocket connections made after the first one. */
  readonly reconnects: number;
}

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
  heartbeatMs: 15_000,
  exitTimeoutMs: 10_000,
} as const;
const WEBSOCKET_BATCHES_IN_FLIGHT_MAX = 64;
const SPOOL_BYTES_MAX = 268_435_456;
const SPOOL_BYTES_LEAST = 65_536;

export type Limits = { readonly [K in keyof typeof DEFAULTS]: number };

/** Throws a TypeError or RangeError for options that cannot work. */
export function readLimits(options: ClientOptions): Limits {
  if (!/^https?:$/.test(new URL(options.url).protocol)) throw new TypeError('url must be http(s)://…');
  if (options.key === '') throw new TypeError('key is empty');
  oneOf('transport', options.transport, ['http', 'websocket']);
  oneOf('onFull', options.onFull, ['block', 'throw', 'drop']);
  oneOf('compress', options.compress, [true, false, 'auto']);
  oneOf('spool.sync', options.spool?.sync, ['each', 'interval']);
  if (options.spool?.directory === '') throw new TypeError('spool.directory is empty');
  const presets = { ...DEFAULTS } as Record<string, number>;
  if (options.transport === 'websocket') presets['requestsInFlightMax'] = WEBSOCKET_BATCHES_IN_FLIGHT_MAX;
  const limits: Record<string, number> = {};
  for (const [name, preset] of Object.entries(presets)) {
    const least = name === 'flushIntervalMs' || name.startsWith('backoff') ? 0 : 1;
    limits[name] = atLeast(name, options[name as keyof typeof DEFAULTS] ?? preset, least);
  }
  return limits as Limits;
}

export function readSpoolOptions(options: SpoolOptions): Required<SpoolOptions> {
  const { directory, sync = 'interval', bytesMax = SPOOL_BYTES_MAX } = options;
  return { directory, sync, bytesMax: atLeast('spool.bytesMax', bytesMax, SPOOL_BYTES_LEAST) };
}

function atLeast(name: string, value: number, least: number): number {
  if (!Number.isFinite(value) || value < least) throw new RangeError(`${name} must be ${least} or more`);
  return value;
}

function oneOf(name: string, value: unknown, allowed: readonly unknown[]): void {
  if (value === undefined || allowed.includes(value)) return;
  throw new TypeError(`${name} must be one of ${allowed.map(String).join(', ')}`);
}
