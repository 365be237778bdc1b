/**
 * The connection to NATS, and the streams on it. What is done over it has files of its own:
 * publish-pipeline.ts (into a log), read-log.ts (out of it) and key-value.ts.
 *
 * The server may be as old as 2.9.10: one filter subject a consumer, no stream metadata, no compression.
 */
import {
  connect,
  DiscardPolicy,
  ErrorCode,
  Events,
  NatsError,
  nanos,
  RetentionPolicy,
  StorageType,
  type JetStreamClient,
  type JetStreamManager,
  type NatsConnection,
  type StreamInfo,
} from 'nats';
import { backoffMs } from './backoff.ts';
import { withoutPassword } from './config.ts';
import type { Log } from './log.ts';
import { retry } from './retry.ts';

export { PublishPipeline, PublishError, type PublishAck, type PublishErrorKind } from './publish-pipeline.ts';
export { LogRewoundError } from './pull.ts';
export { readLog, type LogMessage, type ReadLogOptions } from './read-log.ts';
export { openKeyValue, type KeyValue } from './key-value.ts';

export interface NatsLink {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  /** Whether the connection stands, as far as is known. */
  readonly connected: boolean;
  /**
   * Calls `listener(false)` when the connection is lost and `listener(true)` when it stands again, in that
   * order. Returns the function that ends it.
   */
  onConnection(listener: (connected: boolean) => void): () => void;
  /** Drains: what was written is flushed, subscriptions end, then the connection closes. */
  close(): Promise<void>;
}

export interface ConnectNatsOptions {
  /** nats://[user:password@|token@]host:port, or tls:// for the same over TLS. */
  readonly url: string;
  /** Shown in the server's connection list. */
  readonly name: string;
  readonly log: Log;
  readonly signal?: AbortSignal;
  /** How long the first connect is retried. Default 30 s. */
  readonly connectTimeoutMs?: number;
}

const CONNECT_TIMEOUT_MS = 30_000;
const DIAL_TIMEOUT_MS = 5_000;
const PING_INTERVAL_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;

/**
 * Connects, and waits until JetStream answers too. Retries until the timeout or the signal and then throws
 * the last error; once connected it reconnects for ever.
 */
export async function connectNats(o: ConnectNatsOptions): Promise<NatsLink> {
  const deadline = performance.now() + (o.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
  const server = withoutPassword(o.url);
  try {
    return await retry(() => dial(o, server), {
      attempts: Number.MAX_SAFE_INTEGER,
      baseMs: 50,
      maxMs: 1_000,
      ...(o.signal ? { signal: o.signal } : {}),
      retryable: (error) => performance.now() < deadline && !isAuthError(error),
      onRetry: (error, attempt) => o.log.warn({ error, attempt, server }, 'cannot connect to NATS yet'),
    });
  } catch (error) {
    throw new Error(`cannot connect to NATS at ${server}`, { cause: error });
  }
}

function isAuthError(error: unknown): boolean {
  return error instanceof NatsError && error.isAuthError();
}

async function dial(o: ConnectNatsOptions, server: string): Promise<NatsLink> {
  const url = new URL(o.url);
  const user = decodeURIComponent(url.username);
  const pass = decodeURIComponent(url.password);
  const nc = await connect({
    servers: url.host,
    name: o.name,
    ...(user && pass ? { user, pass } : user ? { token: user } : {}),
    ...(url.protocol === 'tls:' ? { tls: {} } : {}),
    timeout: DIAL_TIMEOUT_MS,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: 2,
    maxReconnectAttempts: -1,
    reconnectDelayHandler: () => 50 + backoffMs(0, { baseMs: 450, maxMs: 450 }, Math.random),
    // A server that is being replaced can refuse credentials for a moment.
    ignoreAuthErrorAbort: true,
    noAsyncTraces: true,
  });
  try {
    // A request of its own: it fails while JetStream is still recovering its streams.
    const jsm = await nc.jetstreamManager();
    return new Link(nc, jsm, o.log, server);
  } catch (error) {
    await nc.close();
    throw error;
  }
}

class Link implements NatsLink {
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  connected = true;
  private readonly listeners = new Set<(connected: boolean) => void>();
  private readonly log: Log;

  constructor(nc: NatsConnection, jsm: JetStreamManager, log: Log, server: string) {
    this.nc = nc;
    this.js = nc.jetstream();
    this.jsm = jsm;
    this.log = log;
    void this.watchStatus(server);
  }

  onConnection(listener: (connected: boolean) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async close(): Promise<void> {
    if (this.nc.isClosed()) return;
    // Draining needs the server's answer; without a connection there is nothing to flush.
    if (!this.connected) return this.nc.close();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, CLOSE_TIMEOUT_MS)));
    await Promise.race([this.nc.drain(), late]);
    clearTimeout(timer);
    await this.nc.close();
  }

  private async watchStatus(server: string): Promise<void> {
    for await (const status of this.nc.status()) {
      if (status.type === Events.Disconnect) {
        if (!this.nc.isClosed()) this.log.warn({ server }, 'NATS connection lost');
        this.tell(false);
      } else if (status.type === Events.Reconnect) {
        this.log.info({ server }, 'NATS connection is back');
        this.tell(true);
      } else if (status.type === Events.Error) {
        this.log.error({ server, data: status.data }, 'NATS error');
      }
    }
    this.tell(false);
  }

  private tell(connected: boolean): void {
    if (this.connected === connected) return;
    this.connected = connected;
    for (const listener of [...this.listeners]) listener(connected);
  }
}

export interface StreamOptions {
  readonly name: string;
  readonly subjects: string[];
  /** Bytes on disk. When they are used up, publishes are refused ('full'); nothing is ever discarded. */
  readonly maxBytes: number;
  readonly replicas: number;
  /** Window of Nats-Msg-Id deduplication. We do not use it; it costs memory. Default 1 s (least: 100 ms). */
  readonly duplicateWindowMs?: number;
}

/**
 * Creates the stream, or brings the one that exists to these options. It never shrinks: a smaller maxBytes
 * than the stream has is left as it is, and fewer replicas too. A stream with other retention, storage or
 * discard rules is an error, because it could forget events that were acknowledged.
 */
export async function ensureStream(link: NatsLink, o: StreamOptions): Promise<StreamInfo> {
  const existing = await streamInfo(link, o.name);
  if (existing === null) {
    try {
      return await link.jsm.streams.add({
        name: o.name,
        subjects: o.subjects,
        storage: StorageType.File,
        retention: RetentionPolicy.Limits,
        discard: DiscardPolicy.New,
        max_bytes: o.maxBytes,
        num_replicas: o.replicas,
        allow_direct: true,
        duplicate_window: nanos(o.duplicateWindowMs ?? 1_000),
      });
    } catch (error) {
      // Another process may have made it in between.
      const made = await streamInfo(link, o.name);
      if (made === null) throw new Error(`cannot create stream ${o.name}`, { cause: error });
      return verifyStream(link, made, o);
    }
  }
  return verifyStream(link, existing, o);
}

async function verifyStream(link: NatsLink, info: StreamInfo, o: StreamOptions): Promise<StreamInfo> {
  const { config } = info;
  const unsafe = [
    config.storage !== StorageType.File ? `storage is ${config.storage}, not file` : '',
    config.retention !== RetentionPolicy.Limits ? `retention is ${config.retention}, not limits` : '',
    config.discard !== DiscardPolicy.New ? `discard is ${config.discard}, not new` : '',
    config.max_age > 0 ? 'it has a maximum age' : '',
    config.max_msgs > 0 ? 'it has a maximum of messages' : '',
  ].filter((finding) => finding !== '');
  if (unsafe.length > 0) throw new Error(`stream ${o.name} may lose events: ${unsafe.join('; ')}`);

  const unlimited = config.max_bytes <= 0;
  const maxBytes = unlimited ? config.max_bytes : Math.max(config.max_bytes, o.maxBytes);
  const replicas = Math.max(config.num_replicas, o.replicas);
  const subjects = [...new Set([...config.subjects, ...o.subjects])];
  const same =
    maxBytes === config.max_bytes &&
    replicas === config.num_replicas &&
    subjects.length === config.subjects.length &&
    config.allow_direct === true;
  if (same) return info;
  return link.jsm.streams.update(o.name, {
    ...config,
    subjects,
    max_bytes: maxBytes,
    num_replicas: replicas,
    allow_direct: true,
  });
}

/** The stream, or null when there is none of this name. */
async function streamInfo(link: NatsLink, name: string): Promise<StreamInfo | null> {
  try {
    return await link.jsm.streams.info(name);
  } catch (error) {
    if (isStreamNotFound(error)) return null;
    throw error;
  }
}

const STREAM_NOT_FOUND = 10_059;

export function isStreamNotFound(error: unknown): boolean {
  return error instanceof NatsError && error.api_error?.err_code === STREAM_NOT_FOUND;
}

/** JetStream's own error code (10071, 10077, …) of an error, if it is one. */
export function jetStreamCode(error: unknown): number | undefined {
  return error instanceof NatsError ? error.api_error?.err_code : undefined;
}

/** Whether an error says that the connection, and not the request, is at fault. */
export function isConnectionError(error: unknown): boolean {
  if (!(error instanceof NatsError)) return false;
  const code: string = error.code;
  return (
    code === ErrorCode.Timeout ||
    code === ErrorCode.NoResponders ||
    code === ErrorCode.JetStreamNotEnabled ||
    code === ErrorCode.ConnectionClosed ||
    code === ErrorCode.Disconnect ||
    error.api_error?.code === 503
  );
}
