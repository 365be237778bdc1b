/**
 * The WebSocket transport: one connection, made when there is something to send, on which batches follow each other
 * without waiting, as far as the server's credit goes. What is beyond it waits here, in order.
 *
 * A connection that was lost answers `later` for what was under way on it; the core sends it again, and it waits here
 * for the next connection, which is made after a wait with full jitter. The failures in a row are forgotten when a
 * batch was answered, not when a connection was made: a server that takes connections and drops them must not be
 * called in a tight loop.
 *
 * A server that sends us away (goaway) keeps its connection until it has answered what is under way; the next batches
 * go over a new one.
 */
import { STREAM_PATH, SUBPROTOCOL_JSON } from '../contract/stream.ts';
import type { Answer, Batch, Sender } from './answer.ts';
import { waitMs, type BackoffLimits } from './backoff.ts';
import type { ClientClock } from './clock.ts';
import { answerOf, StreamConnection, type Ending, type Socket } from './stream-connection.ts';

export interface WebSocketOptions {
  readonly url: string;
  readonly key: string;
  readonly inFlightMax: number;
  readonly timeoutMs: number;
  readonly heartbeatMs: number;
  readonly limits: BackoffLimits;
  readonly random: () => number;
  readonly clock: ClientClock;
  /** `inFlightMax` may have grown. */
  readonly onRoom: () => void;
}

interface Waiting {
  readonly batch: Batch;
  readonly settle: (answer: Answer) => void;
}

/** An acknowledgement that rejects 10,000 events takes about 2 MB. */
const MESSAGE_BYTES_MAX = 16_777_216;
/** How long the closing handshake may take. */
const CLOSE_TIMEOUT_MS = 1_000;

export class WebSocketSender implements Sender {
  readonly #options: WebSocketOptions;
  readonly #url: string;
  #waiting: Waiting[] = [];
  /** The one that new batches go to. */
  #current: StreamConnection | null = null;
  readonly #draining = new Set<StreamConnection>();
  #connecting = false;
  #stopTimer: (() => void) | null = null;
  #welcomes = 0;
  #creditBatches = 1;
  #failures = 0;
  /** Epoch milliseconds. */
  #connectNotBefore = 0;
  #closed = false;

  constructor(options: WebSocketOptions) {
    this.#options = options;
    this.#url = `${options.url.replace(/\/+$/, '').replace(/^http/, 'ws')}${STREAM_PATH}`;
  }

  get inFlightMax(): number {
    return Math.min(this.#options.inFlightMax, this.#creditBatches);
  }

  get reconnects(): number {
    return Math.max(0, this.#welcomes - 1);
  }

  send(batch: Batch): Promise<Answer> {
    return new Promise((settle) => {
      this.#waiting.push({ batch, settle });
      this.#pump();
    });
  }

  close(): void {
    this.#closed = true;
    this.#stopTimer?.();
    for (const connection of this.#draining) connection.close();
    this.#current?.close();
    this.#answerWaiting({
      error: new Error('the client was closed'),
      code: null,
      held: true,
      retryAfterMs: null,
    });
  }

  #pump(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#current === null) return this.#connectInTime();
      if (this.#current.isTooLarge(next.batch)) {
        this.#waiting.shift();
        const message = 'The batch is larger than the server takes.';
        next.settle({ outcome: 'refused', status: 413, code: 'batch_too_large', message });
      } else if (this.#current.hasRoomFor(next.batch)) {
        this.#waiting.shift();
        this.#current.send(next.batch, next.settle);
      } else return;
    }
  }

  #connectInTime(): void {
    if (this.#closed || this.#connecting || this.#stopTimer !== null) return;
    const { clock } = this.#options;
    const wait = this.#connectNotBefore - clock.now();
    if (wait <= 0) return void this.#connect();
    this.#stopTimer = clock.after(wait, () => {
      this.#stopTimer = null;
      if (this.#current === null && this.#waiting.length > 0) void this.#connect();
    });
  }

  async #connect(): Promise<void> {
    this.#connecting = true;
    const { key, timeoutMs, heartbeatMs, clock } = this.#options;
    let socket: Socket;
    try {
      // Loaded here, so that a product that uses HTTP does not load it.
      const { WebSocket } = await import('ws');
      const own = {
        headers: { authorization: `Bearer ${key}` },
        perMessageDeflate: false,
        maxPayload: MESSAGE_BYTES_MAX,
        closeTimeout: CLOSE_TIMEOUT_MS,
      };
      socket = new WebSocket(this.#url, [SUBPROTOCOL_JSON], own);
    } catch (error) {
      this.#connecting = false;
      const cause = error instanceof Error ? error : new Error(String(error));
      return this.#failed({ error: cause, code: null, held: true, retryAfterMs: null });
    }
    this.#connecting = false;
    const connection = new StreamConnection(
      socket,
      { url: this.#url, timeoutMs, heartbeatMs, clock },
      {
        opened: () => this.#opened(connection),
        answered: () => this.#answered(connection),
        goingAway: () => this.#goingAway(connection),
        ended: (ending) => this.#ended(connection, ending),
      },
    );
    this.#current = connection;
    if (this.#closed) connection.close();
  }

  #opened(connection: StreamConnection): void {
    this.#welcomes += 1;
    this.#creditBatches = connection.creditBatches;
    this.#pump();
    this.#options.onRoom();
  }

  #answered(connection: StreamConnection): void {
    if (connection !== this.#current) return;
    this.#failures = 0;
    this.#pump();
  }

  #goingAway(connection: StreamConnection): void {
    this.#current = null;
    this.#draining.add(connection);
    // All clients of that server are told at once; they must not all be at the next one at once.
    this.#backOff(null);
    this.#pump();
  }

  #ended(connection: StreamConnection, ending: Ending): void {
    this.#draining.delete(connection);
    if (connection !== this.#current) return;
    this.#current = null;
    this.#failed(ending, connection.creditBatches > 0);
  }

  /** `welcomed`: the connection had stood. Those that wait have lost nothing then, and wait for the next one. */
  #failed(ending: Ending, welcomed = false): void {
    this.#backOff(ending.retryAfterMs);
    if (!welcomed || ending.held) this.#answerWaiting(ending);
    this.#pump();
  }

  #backOff(askedMs: number | null): void {
    const { limits, random, clock } = this.#options;
    this.#failures += 1;
    this.#connectNotBefore = clock.now() + waitMs(this.#failures, askedMs, limits, random);
  }

  #answerWaiting(ending: Ending): void {
    for (const { settle } of this.#waiting.splice(0)) settle(answerOf(ending));
  }
}
