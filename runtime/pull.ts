/**
 * Following a stream in order, over a pull consumer that is thrown away and made anew.
 *
 * The consumer is ephemeral, in memory and without acknowledgements: it holds no truth, only a position.
 * The truth is `next`, the sequence after the last message handed over here. Whatever goes wrong (a lost
 * connection, a restarted server, a missed heartbeat, a consumer deleted under us, a hole in what it
 * delivered), the answer is the same one: forget the consumer, make another that starts at `next`. So there
 * is one path of recovery, and it is the path of the first start.
 *
 * Backpressure: one pull request is out at a time, asking for at most half of `maxBytesInFlight`, and it is
 * made only when no more than the other half waits to be taken. A single message larger than the half is
 * asked for alone. (The driver's own consume() refills as messages arrive and not as they are taken, so a
 * slow reader's memory has no bound there.)
 *
 * How a pull request ends: its batch is full (no notice is sent then), or a status message comes: 408 when
 * it expires, 409 when the next message would exceed its bytes or the consumer was deleted, 503 when nobody
 * listens. While it waits the server sends heartbeats (status 100).
 */
import {
  AckPolicy,
  createInbox,
  DeliverPolicy,
  nanos,
  ReplayPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  type Msg,
  type NatsConnection,
} from 'nats';
import { backoffMs } from './backoff.ts';
import { Fifo } from './fifo.ts';
import { isConnectionError, isStreamNotFound, type NatsLink } from './nats.ts';
import { sleep } from './retry.ts';

/** What was taken of a message of a stream, with what its reply subject says about it. */
export interface Pulled<T> {
  readonly value: T;
  /** Of its data. */
  readonly bytes: number;
  readonly sequence: number;
  readonly timeMs: number;
  /** How many more the stream had for this consumer when the message was sent. */
  readonly pending: number;
}

export interface PullOptions<T> {
  readonly stream: string;
  /** The first sequence wanted, or the newest message of each matching subject and then all that follow. */
  readonly from: number | { readonly newestOf: string };
  readonly maxBytesInFlight: number;
  readonly signal: AbortSignal;
  /**
   * What is wanted of each message, taken when it arrives. Thousands wait to be handed over, and of all that the driver
   * makes of a message most is garbage then: let go at once it costs next to nothing, kept until later it is copied.
   */
  take(message: Msg): T;
  /** Called whenever a consumer was made, with how many messages wait for it. */
  onPosition?(pending: number): void;
}

/**
 * The stream is not the one that was read: it was made anew, or it ends before what was already read. Its
 * tail was lost, and the server gives the same sequences to other messages. Reading on would skip them
 * silently, so it is an error.
 */
export class LogRewoundError extends Error {
  readonly stream: string;
  readonly lastSequence: number;
  readonly nextSequence: number;
  constructor(stream: string, lastSequence: number, nextSequence: number) {
    super(`stream ${stream} ends at ${lastSequence} and has lost what was read before ${nextSequence}`);
    this.name = 'LogRewoundError';
    this.stream = stream;
    this.lastSequence = lastSequence;
    this.nextSequence = nextSequence;
  }
}

const PULL_EXPIRES_MS = 30_000;
const HEARTBEAT_MS = 1_000;
/** Silence for longer than this means that the pull request is lost. */
const SILENCE_MAX_MS = 3 * HEARTBEAT_MS;
const CONSUMER_INACTIVE_MS = 60_000;
/** How long a stream that was there may be missing before that is an error; a cluster can lose its leader. */
const STREAM_MISSING_MAX_MS = 10_000;
const BATCH_MAX = 100_000;
const RETRY = { baseMs: 50, maxMs: 1_000 };

/**
 * Yields the stream's messages in order until the signal aborts. Sequences strictly increase. Throws
 * LogRewoundError, and NATS's error when the stream does not exist or a request is refused.
 */
export async function* pull<T>(link: NatsLink, o: PullOptions<T>): AsyncGenerator<Pulled<T>, void, void> {
  let from = o.from;
  let attempt = 0;
  let reachedMs = -Infinity; // When the last consumer ended.
  let created: string | undefined; // Of the stream, at the first consumer.
  while (!o.signal.aborted) {
    let consumer: PullConsumer<T> | undefined;
    try {
      consumer = await PullConsumer.create(link, o, from);
      // Asked for after the consumer was made, so that it can only be newer.
      const info = await link.jsm.streams.info(o.stream);
      created ??= String(info.created);
      const next = typeof from === 'number' ? from : 1;
      if (String(info.created) !== created || info.state.last_seq < next - 1) {
        throw new LogRewoundError(o.stream, info.state.last_seq, next);
      }
      o.onPosition?.(consumer.pending);
      for await (const pulled of consumer) {
        attempt = 0;
        from = pulled.sequence + 1;
        yield pulled;
        if (o.signal.aborted) return;
      }
    } catch (error) {
      const missing = isStreamNotFound(error);
      const patience = performance.now() - reachedMs < STREAM_MISSING_MAX_MS;
      if (missing ? !patience : !isConnectionError(error)) throw error;
    } finally {
      if (consumer !== undefined) {
        reachedMs = performance.now();
        consumer.dispose();
      }
    }
    await untilConnected(link, o.signal);
    await sleep(backoffMs(attempt++, RETRY, Math.random), o.signal);
  }
}

/** Waits until the connection stands or the signal aborts. */
async function untilConnected(link: NatsLink, signal: AbortSignal): Promise<void> {
  while (!link.connected && !signal.aborted && !link.nc.isClosed()) {
    await new Promise<void>((resolve) => {
      const end = () => {
        forget();
        signal.removeEventListener('abort', end);
        resolve();
      };
      const forget = link.onConnection(end);
      signal.addEventListener('abort', end);
    });
  }
  if (link.nc.isClosed() && !signal.aborted) throw new Error('the NATS connection was closed');
}

/** One consumer, from its making to the first thing that goes wrong with it: its iteration ends then. */
class PullConsumer<T> implements AsyncIterable<Pulled<T>> {
  private readonly link: NatsLink;
  private readonly nc: NatsConnection;
  private readonly options: PullOptions<T>;
  private readonly name: string;
  /** How many messages waited for it when it was made. */
  readonly pending: number;
  private next: number;

  private readonly half: number;
  private readonly queue = new Fifo<Pulled<T>>();
  private queuedBytes = 0;
  private consumerSequence = 0;

  private pullNumber = 0;
  private pullOpen = false;
  private pullMessagesLeft = 0;
  private pullBytesLeft = 0;
  private pullDelivered = 0;
  /** The next message is larger than a pull request may ask for, and has to be asked for alone. */
  private tooLarge = false;
  private lastHeard = 0;

  private over = false;
  private wake: (() => void) | undefined;
  private readonly inbox = createInbox();
  private readonly ends: (() => void)[] = [];

  private constructor(link: NatsLink, options: PullOptions<T>, info: ConsumerInfo, next: number) {
    this.link = link;
    this.nc = link.nc;
    this.options = options;
    this.name = info.name;
    this.pending = info.num_pending;
    this.next = next;
    this.half = Math.max(1, Math.floor(options.maxBytesInFlight / 2));
  }

  static async create<T>(
    link: NatsLink,
    o: PullOptions<T>,
    from: PullOptions<T>['from'],
  ): Promise<PullConsumer<T>> {
    const config: Partial<ConsumerConfig> = {
      ack_policy: AckPolicy.None,
      replay_policy: ReplayPolicy.Instant,
      mem_storage: true,
      num_replicas: 1,
      max_waiting: 8,
      inactive_threshold: nanos(CONSUMER_INACTIVE_MS),
      ...(typeof from === 'number'
        ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: Math.max(1, from) }
        : { deliver_policy: DeliverPolicy.LastPerSubject, filter_subject: from.newestOf }),
    };
    const info = await link.jsm.consumers.add(o.stream, config);
    return new PullConsumer(link, o, info, typeof from === 'number' ? from : 1);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Pulled<T>, void, void> {
    this.listen();
    for (;;) {
      const pulled = this.queue.take();
      if (pulled === undefined) {
        if (this.over) return;
        this.pullIfRoom();
        await new Promise<void>((resolve) => (this.wake = resolve));
        continue;
      }
      this.queuedBytes -= pulled.bytes;
      this.pullIfRoom();
      yield pulled;
    }
  }

  /** Ends the subscription and asks the server to forget the consumer; it would forget it anyway, later. */
  dispose(): void {
    this.end();
    for (const end of this.ends.splice(0)) end();
    if (this.link.connected && !this.nc.isClosed() && !this.nc.isDraining()) {
      this.link.jsm.consumers.delete(this.options.stream, this.name).catch(() => {});
    }
  }

  private listen(): void {
    const end = () => this.end();
    const subscription = this.nc.subscribe(`${this.inbox}.*`, {
      callback: (error, message) => (error === null ? this.onMessage(message) : this.end()),
    });
    const watchdog = setInterval(() => {
      if (this.pullOpen && performance.now() - this.lastHeard > SILENCE_MAX_MS) this.end();
    }, HEARTBEAT_MS);
    this.options.signal.addEventListener('abort', end);
    this.ends.push(
      () => this.nc.isClosed() || subscription.unsubscribe(),
      () => clearInterval(watchdog),
      () => this.options.signal.removeEventListener('abort', end),
      this.link.onConnection(end),
    );
    if (this.options.signal.aborted || !this.link.connected) this.end();
  }

  private end(): void {
    this.over = true;
    this.wakeReader();
  }

  private wakeReader(): void {
    this.wake?.();
    this.wake = undefined;
  }

  private pullIfRoom(): void {
    if (this.pullOpen || this.over || this.queuedBytes > this.half) return;
    const alone = this.tooLarge;
    if (alone && this.queuedBytes > 0) return;
    this.tooLarge = false;
    this.pullOpen = true;
    this.pullNumber++;
    this.pullDelivered = 0;
    this.pullMessagesLeft = alone ? 1 : BATCH_MAX;
    this.pullBytesLeft = alone ? Number.MAX_SAFE_INTEGER : this.half;
    this.lastHeard = performance.now();
    const request = {
      batch: this.pullMessagesLeft,
      ...(alone ? {} : { max_bytes: this.half }),
      expires: nanos(PULL_EXPIRES_MS),
      idle_heartbeat: nanos(HEARTBEAT_MS),
    };
    this.nc.publish(
      `$JS.API.CONSUMER.MSG.NEXT.${this.options.stream}.${this.name}`,
      JSON.stringify(request),
      { reply: `${this.inbox}.${this.pullNumber}` },
    );
  }

  private onMessage(message: Msg): void {
    if (this.over) return;
    this.lastHeard = performance.now();
    if (message.subject.startsWith(this.inbox)) return this.onStatus(message);
    const at = parseAckSubject(message.reply ?? '');
    // A hole in what the consumer sent: a message got lost on the way.
    if (at === null || at.consumerSequence !== this.consumerSequence + 1) return this.end();
    this.consumerSequence = at.consumerSequence;
    this.pullDelivered++;
    this.pullMessagesLeft--;
    // As the server counts it: subject, reply subject, headers and data.
    this.pullBytesLeft -= messageBytes(message);
    if (this.pullMessagesLeft <= 0 || this.pullBytesLeft <= 0) this.pullOpen = false;
    if (at.sequence >= this.next) {
      this.next = at.sequence + 1;
      const { sequence, timeMs, pending } = at;
      const bytes = message.data.length;
      this.queue.push({ value: this.options.take(message), bytes, sequence, timeMs, pending });
      this.queuedBytes += bytes;
    }
    this.wakeReader();
  }

  private onStatus(message: Msg): void {
    const status = message.headers?.code ?? 0;
    if (status === 100) return; // A heartbeat.
    if (message.subject !== `${this.inbox}.${this.pullNumber}`) return; // Of a request that ended before.
    const description = (message.headers?.description ?? '').toLowerCase();
    if (status === 408 || status === 404) {
      this.pullOpen = false;
      this.wakeReader();
    } else if (status === 409 && description.includes('exceeds')) {
      this.pullOpen = false;
      if (this.pullDelivered === 0) this.tooLarge = true;
      this.wakeReader();
    } else {
      this.end();
    }
  }
}

function messageBytes(message: Msg): number {
  // The client's size() is subject + reply + headers + data.
  return (message as Msg & { size(): number }).size();
}

interface AckSubject {
  readonly sequence: number;
  readonly consumerSequence: number;
  readonly timeMs: number;
  readonly pending: number;
}

/**
 * Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time ns>.<pending>`, or
 * the longer form with domain and account before the stream and a token after. Null when it is neither. Once a message,
 * so it makes no tokens: a tenth of what that cost.
 */
export function parseAckSubject(subject: string): AckSubject | null {
  if (!subject.startsWith('$JS.ACK.')) return null;
  let dots = 0;
  for (let at = 0; at < subject.length; at++) if (subject.charCodeAt(at) === DOT) dots += 1;
  if (dots < 8) return null;
  // The tokens that are numbers: behind `$JS`, `ACK`, in the longer form two more, then stream and consumer.
  let at = 0;
  for (let skip = dots >= 10 ? 6 : 4; skip > 0; skip--) at = subject.indexOf('.', at) + 1;
  const numbers = new Array<number>(5);
  for (let number = 0; number < 5; number++) {
    const dot = subject.indexOf('.', at);
    const end = dot < 0 ? subject.length : dot;
    // The time in nanoseconds is more than a number holds.
    const value = wholeNumber(subject, at, number === TIME ? end - 6 : end);
    if (value === null) return null;
    numbers[number] = value;
    at = end + 1;
  }
  const [, sequence, consumerSequence, timeMs, pending] = numbers as [number, number, number, number, number];
  return { sequence, consumerSequence, timeMs, pending };
}

const DOT = 0x2e;
const ZERO = 0x30;
/** Among the numbers. */
const TIME = 3;

/** Digits; none are 0. Null for anything else, and for what is not a safe integer. */
function wholeNumber(text: string, start: number, end: number): number | null {
  let value = 0;
  for (let at = start; at < end; at++) {
    const digit = text.charCodeAt(at) - ZERO;
    if (digit < 0 || digit > 9) return null;
    value = value * 10 + digit;
  }
  return Number.isSafeInteger(value) ? value : null;
}
