/**
 * A TCP proxy that misbehaves as networks do. It stands between two processes of a world and passes bytes on,
 * in order and unchanged, until it is told otherwise:
 *
 *   slow        every piece waits for a random time, so that answers come late and time-outs come near
 *   sliced      a piece goes on in slices of a few bytes, so that no reader finds a whole message at once
 *   resetting   each connection is reset (RST, not FIN) when a random number of bytes has gone by, in the
 *               middle of whatever is under way; the next connection lives as long by another number
 *   black hole  nothing goes by in either direction and nobody is told; connecting works and leads nowhere.
 *               What came in is held and goes on when the hole closes, unless the connection is reset then
 *   half open   the far end of every connection is gone and the near end was not told: what it sends is
 *               swallowed, and no answer comes. New connections work
 *
 * All choices come from the seed. When bytes arrive is up to the machine, so a seed repeats what was done and not
 * to which byte of a conversation it was done.
 */
import { createServer, connect, type Server, type Socket } from 'node:net';
import { between } from './random.ts';

export const FAULTS = ['slow', 'sliced', 'resetting', 'black hole', 'half open'] as const;
export type NetworkFault = (typeof FAULTS)[number];

const SLOW_MS_MAX = 80;
const SLICE_BYTES_MAX = 7;
/** Slices of one piece; the rest of it follows whole. A megabyte in slices would only measure the event loop. */
const SLICES_MAX = 200;
const RESET_AFTER_BYTES_MAX = 60_000;

interface Connection {
  readonly near: Socket;
  readonly far: Socket;
  /** The far end is gone, and the near end does not know. */
  halfOpen: boolean;
  /** Bytes until it is reset, both directions together; Infinity when it is not. */
  bytesLeft: number;
}

export class Proxy {
  readonly #server: Server;
  readonly #toPort: number;
  readonly #random: () => number;
  readonly #connections = new Set<Connection>();
  #fault: NetworkFault | null = null;
  /** Resolves when the black hole closes. */
  #holeClosed: Promise<void> = Promise.resolve();
  #closeHole: () => void = () => {};
  /** Connections that a fault has reset or cut. */
  broken = 0;

  private constructor(server: Server, toPort: number, random: () => number) {
    this.#server = server;
    this.#toPort = toPort;
    this.#random = random;
    server.on('connection', (near) => this.#join(near));
  }

  /** To a port of 127.0.0.1, from a free one. */
  static async open(toPort: number, random: () => number): Promise<Proxy> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: '127.0.0.1', port: 0 }, resolve);
    });
    return new Proxy(server, toPort, random);
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy does not listen');
    return address.port;
  }

  get connections(): number {
    return this.#connections.size;
  }

  begin(fault: NetworkFault): void {
    this.#fault = fault;
    if (fault === 'black hole') {
      this.#holeClosed = new Promise((resolve) => (this.#closeHole = resolve));
    }
    for (const connection of this.#connections) {
      if (fault === 'resetting') connection.bytesLeft = this.#bytesUntilReset();
      if (fault === 'half open') {
        connection.halfOpen = true;
        this.broken += 1;
        connection.far.destroy();
      }
    }
  }

  /**
   * The fault is over. `reset` breaks the connections that went through it, as a router does that forgot them;
   * otherwise they go on where they were, and half-open ones stay so until the near end gives them up.
   */
  end(how: { readonly reset: boolean }): void {
    this.#fault = null;
    for (const connection of this.#connections) {
      connection.bytesLeft = Infinity;
      if (how.reset) this.#reset(connection);
    }
    this.#closeHole();
  }

  async close(): Promise<void> {
    this.#closeHole();
    for (const { near, far } of this.#connections) {
      near.destroy();
      far.destroy();
    }
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #bytesUntilReset(): number {
    return between(this.#random, 1, RESET_AFTER_BYTES_MAX);
  }

  #reset(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    this.broken += 1;
    connection.near.resetAndDestroy();
    connection.far.resetAndDestroy();
  }

  #join(near: Socket): void {
    const far = connect({ host: '127.0.0.1', port: this.#toPort });
    const bytesLeft = this.#fault === 'resetting' ? this.#bytesUntilReset() : Infinity;
    const connection: Connection = { near, far, halfOpen: false, bytesLeft };
    this.#connections.add(connection);
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      // What breaks a connection is told to the other side by `close`.
      socket.on('error', () => {});
    }
    // A black hole swallows the news of an end too: what was sent before may still arrive when it closes.
    const end = async (other: Socket): Promise<void> => {
      while (this.#fault === 'black hole') await this.#holeClosed;
      this.#connections.delete(connection);
      other.destroy();
    };
    near.once('close', () => void end(far));
    far.once('close', () => {
      if (!connection.halfOpen) void end(near);
    });
    void this.#carry(connection, near, far);
    void this.#carry(connection, far, near);
  }

  /** Carries one direction until it ends. A piece is on its way before the next one is taken: the order stays. */
  async #carry(connection: Connection, from: Socket, to: Socket): Promise<void> {
    try {
      for await (const piece of from as AsyncIterable<Buffer>) {
        while (this.#fault === 'black hole') await this.#holeClosed;
        if (connection.halfOpen) continue;
        if (this.#fault === 'slow') await elapsed(this.#random() * SLOW_MS_MAX);
        const passing = piece.subarray(0, Math.min(piece.length, connection.bytesLeft));
        connection.bytesLeft -= passing.length;
        if (passing.length > 0) await this.#send(to, passing);
        if (connection.bytesLeft <= 0) return this.#reset(connection);
      }
      to.end();
    } catch {
      // The connection is broken; both sockets hear of it by their `close`.
    }
  }

  async #send(to: Socket, piece: Buffer): Promise<void> {
    let at = 0;
    for (let slice = 0; this.#fault === 'sliced' && slice < SLICES_MAX && at < piece.length; slice++) {
      const end = at + between(this.#random, 1, SLICE_BYTES_MAX);
      await written(to, piece.subarray(at, end));
      at = end;
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (at < piece.length) await written(to, piece.subarray(at));
  }
}

function elapsed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function written(to: Socket, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    if (to.destroyed) return reject(new Error('the connection is closed'));
    to.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}
