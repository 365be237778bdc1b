/**
 * The second door of the edge: the stream of contract/stream.ts at /v1/stream.
 *
 * A connection holds no state that matters: which batches are under way, and what they have reserved. When it
 * ends, in whatever way, batches under way are packed and become durable or not, and nobody is told; the client
 * sends them again, and identities make that harmless.
 *
 * A connection cannot make the process hold more than its credit, one frame that has not come in whole, and
 * the answers that it does not read, and each of these is bounded. A peer that is gone without a word is found
 * by a ping. A key that is revoked or has ended takes its connections with it.
 */
import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t, WebSocket } from 'uWebSockets.js';
import {
  CLOSE_CODES,
  STREAM_PATH,
  SUBPROTOCOL_JSON,
  SUBPROTOCOL_MSGPACK,
  type CloseName,
  type ServerMessage,
} from '../../contract/stream.ts';
import type { Account, Accounts } from '../tenant/account.ts';
import type { Intake } from '../intake.ts';
import { bearerOf, type KeyRing } from '../tenant/keys.ts';
import type { EdgeProblemCode } from '../problems.ts';
import type { Room } from '../tenant/room.ts';
import { answerTo, encodeServerMessage, refusal } from './stream-answer.ts';
import { jsonEnvelope, msgpackEnvelope } from './stream-frame.ts';
import type { StreamMeasures } from './stream-measures.ts';

export interface StreamLimits {
  readonly streamConnectionsMax: number;
  readonly streamConnectionsOfTenantMax: number;
  readonly streamFrameBytesMax: number;
  /** Batches that one connection may have under way. */
  readonly streamCreditBatches: number;
  readonly streamCreditBytes: number;
  readonly streamIdleSeconds: number;
  /** Bytes of answers that a connection has not read. */
  readonly streamUnreadBytesMax: number;
  readonly batchEventsMax: number;
}

export interface StreamOptions {
  readonly limits: StreamLimits;
  readonly keys: KeyRing;
  readonly accounts: Accounts;
  readonly room: Room;
  readonly intake: Intake;
  readonly measures: StreamMeasures;
  /** Epoch milliseconds. */
  now(): number;
  /** Answers a request for an upgrade that is refused, as over HTTP. */
  refuse(res: HttpResponse, code: EdgeProblemCode): void;
}

export interface Stream {
  readonly connections: number;
  /** Tells every client to send nothing more here. */
  goAway(): void;
  /** Ends every connection. */
  closeAll(): void;
  /** Ends the connections whose key has ended. Revoked keys are seen to at once. */
  endExpired(): void;
}

interface Connection {
  readonly account: Account;
  readonly keyId: string;
  readonly json: boolean;
  /** The batches under way. */
  readonly batches: Set<number>;
  bytes: number;
  open: boolean;
}

type Socket = WebSocket<Connection>;

const DISABLED = 0; // uWebSockets' name for "no compression"; its types export it as a type only

export function attachStream(app: TemplatedApp, o: StreamOptions): Stream {
  const stream = new StreamDoor(o);
  app.ws<Connection>(STREAM_PATH, {
    compression: DISABLED as never,
    maxPayloadLength: o.limits.streamFrameBytesMax,
    // An answer is never dropped in silence: `send` looks at the same bound before it writes. This one is for the
    // pongs of a client that sends pings and reads nothing.
    maxBackpressure: o.limits.streamUnreadBytesMax,
    closeOnBackpressureLimit: true,
    idleTimeout: o.limits.streamIdleSeconds,
    sendPingsAutomatically: true,
    upgrade: (res, req, context) => stream.upgrade(res, req, context),
    open: (socket) => stream.opened(socket),
    message: (socket, frame, isBinary) => stream.frame(socket, new Uint8Array(frame), isBinary),
    close: (socket, code) => stream.closed(socket, code),
  });
  return stream;
}

class StreamDoor implements Stream {
  readonly #o: StreamOptions;
  readonly #sockets = new Set<Socket>();
  readonly #byKey = new Map<string, Set<Socket>>();
  readonly #ofTenant = new Map<Account, number>();
  #goingAway = false;

  constructor(options: StreamOptions) {
    this.#o = options;
    options.keys.onGone((id) => {
      for (const socket of [...(this.#byKey.get(id) ?? [])]) this.#end(socket, 'key_invalid');
    });
    options.measures.watch({ connections: () => this.connections });
  }

  get connections(): number {
    return this.#sockets.size;
  }

  goAway(): void {
    this.#goingAway = true;
    const { reason } = CLOSE_CODES.going_away;
    for (const socket of [...this.#sockets]) {
      this.#send(socket, { type: 'goaway', code: 'edge_stopping', message: reason });
    }
  }

  closeAll(): void {
    for (const socket of [...this.#sockets]) this.#end(socket, 'going_away');
  }

  endExpired(): void {
    const now = this.#o.now();
    for (const [id, sockets] of this.#byKey) {
      if (this.#o.keys.isValid(id, now)) continue;
      for (const socket of [...sockets]) this.#end(socket, 'key_invalid');
    }
  }

  upgrade(res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
    const { keys, accounts, limits } = this.#o;
    const key = bearerOf(req.getHeader('authorization'));
    if (key === null) return this.#o.refuse(res, 'key_missing');
    const record = keys.verify(key, this.#o.now());
    if (record === null) return this.#o.refuse(res, 'key_invalid');
    if (!record.scopes.includes('ingest')) return this.#o.refuse(res, 'scope_missing');
    const offered = req.getHeader('sec-websocket-protocol').split(',');
    const protocol = offered
      .map((one) => one.trim())
      .find((one) => one === SUBPROTOCOL_JSON || one === SUBPROTOCOL_MSGPACK);
    if (protocol === undefined) return this.#o.refuse(res, 'subprotocol_unknown');
    if (this.#goingAway || this.#o.intake.stopping) return this.#o.refuse(res, 'edge_stopping');
    const account = accounts.of(record.tenant);
    if (
      this.connections >= limits.streamConnectionsMax ||
      (this.#ofTenant.get(account) ?? 0) >= limits.streamConnectionsOfTenantMax
    ) {
      return this.#o.refuse(res, 'too_many_connections');
    }
    const connection: Connection = {
      account,
      keyId: record.id,
      json: protocol === SUBPROTOCOL_JSON,
      batches: new Set(),
      bytes: 0,
      open: true,
    };
    res.upgrade(
      connection,
      req.getHeader('sec-websocket-key'),
      protocol,
      req.getHeader('sec-websocket-extensions'),
      context,
    );
  }

  opened(socket: Socket): void {
    const { limits } = this.#o;
    const { account, keyId } = socket.getUserData();
    this.#sockets.add(socket);
    this.#ofTenant.set(account, (this.#ofTenant.get(account) ?? 0) + 1);
    const sameKey = this.#byKey.get(keyId);
    if (sameKey === undefined) this.#byKey.set(keyId, new Set([socket]));
    else sameKey.add(socket);
    this.#send(socket, {
      type: 'welcome',
      credit: { batches: limits.streamCreditBatches, bytes: limits.streamCreditBytes },
      limits: {
        batchEvents: limits.batchEventsMax,
        frameBytes: limits.streamFrameBytesMax,
        idleSeconds: limits.streamIdleSeconds,
      },
    });
  }

  closed(socket: Socket, code: number): void {
    const connection = socket.getUserData();
    connection.open = false;
    this.#sockets.delete(socket);
    const { account, keyId } = connection;
    const left = (this.#ofTenant.get(account) ?? 1) - 1;
    if (left === 0) this.#ofTenant.delete(account);
    else this.#ofTenant.set(account, left);
    const sameKey = this.#byKey.get(keyId);
    sameKey?.delete(socket);
    if (sameKey?.size === 0) this.#byKey.delete(keyId);
    this.#o.measures.closed(code);
  }

  frame(socket: Socket, frame: Uint8Array, isBinary: boolean): void {
    const connection = socket.getUserData();
    const { json, account, batches } = connection;
    const { limits, intake, room } = this.#o;
    // 1. What it breaks ends the connection: the client has a mistake that no retry mends.
    if (isBinary === json) return this.#end(socket, 'frame_type_wrong');
    const envelope = json ? jsonEnvelope(frame) : msgpackEnvelope(frame);
    if (envelope === null) return this.#end(socket, 'frame_malformed');
    const { batch, start, end } = envelope;
    if (batches.has(batch)) return this.#end(socket, 'batch_in_use');
    const bytes = frame.length;
    if (batches.size >= limits.streamCreditBatches || connection.bytes + bytes > limits.streamCreditBytes)
      return this.#end(socket, 'credit_exceeded');
    // 2. What we cannot take now is answered, and the connection stays.
    const refused = intake.refuses(account);
    if (refused !== null) return this.#refuse(socket, batch, refused.code, refused.retryAfterMs);
    if (!room.enter(account, bytes)) return this.#refuse(socket, batch, 'edge_busy');
    // 3. The rest is what it is over HTTP.
    batches.add(batch);
    connection.bytes += bytes;
    intake.take(account, frame.subarray(start, end), json ? 'json' : 'msgpack', (answer) => {
      room.leave(account, bytes);
      batches.delete(batch);
      connection.bytes -= bytes;
      this.#o.measures.batch(answer.taken ? 'taken' : 'refused');
      if (connection.open) this.#send(socket, answerTo(batch, answer));
    });
  }

  #refuse(socket: Socket, batch: number, code: EdgeProblemCode, retryAfterMs?: number): void {
    this.#o.measures.batch('refused');
    this.#send(socket, refusal(batch, code, undefined, retryAfterMs));
  }

  #send(socket: Socket, message: ServerMessage): void {
    const { json } = socket.getUserData();
    if (socket.getBufferedAmount() > this.#o.limits.streamUnreadBytesMax) {
      return this.#end(socket, 'reader_too_slow');
    }
    socket.send(encodeServerMessage(message, json), !json);
  }

  #end(socket: Socket, name: CloseName): void {
    const { code, reason } = CLOSE_CODES[name];
    if (socket.getUserData().open) socket.end(code, `${name}: ${reason}`);
  }
}
