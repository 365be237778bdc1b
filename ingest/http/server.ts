/**
 * The port that both doors share, and the connections that are open on it.
 *
 * What uWebSockets does by itself, measured with version 20 (its timers are coarse: 10 s become 8 to 12):
 *   - a connection without a request for 10 s is closed, be it new, between requests, or sending a head slowly;
 *   - a body that does not come in at 16 KiB a second, averaged over 10 s, ends its connection without an answer
 *     (the HTTP door answers 408 before that);
 *   - from the end of a body to its answer there is no limit but ours; a client that does not read the answer is
 *     closed after 10 s;
 *   - heads of more than 4 KiB (UWS_HTTP_MAX_HEADERS_SIZE) get 431, HTTP/1.0 and what is no HTTP get 505;
 *   - `Expect: 100-continue` is answered at once;
 *   - a request that is sent before the answer to the last one is out ends the connection: no pipelining.
 *   - at the limit of the system for open files it takes all of a core in vain, until one is free again. So the
 *     limit for connections must be lower; see `connectionsAllowed`.
 * What it cannot do: say how many connections wait in the backlog of the system, or hold them there. A connection
 * beyond the limit is taken and closed.
 */
import { readFileSync } from 'node:fs';
import * as uws from 'uWebSockets.js';
import { App, us_listen_socket_close, us_socket_local_port } from 'uWebSockets.js';
import type { TemplatedApp, us_listen_socket } from 'uWebSockets.js';

const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;
/** How long clients that are told to go may take, before their connections are closed. */
const LEAVE_MS = 250;
const LEAVE_STEP_MS = 10;

/** Open files that are no connections: to NATS, of the journal, of Node itself. */
const FILES_OF_OUR_OWN = 256;

/** How many connections the process may have: what is configured, or what the system's limit leaves of it. */
export function connectionsAllowed(configured: number): number {
  let openFiles = Infinity;
  try {
    // Node raises the soft limit to the hard one when it starts.
    const limits = readFileSync('/proc/self/limits', 'utf8');
    openFiles = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    // Not Linux: it is for the operator to keep them apart.
  }
  return Math.max(1, Math.min(configured, openFiles - FILES_OF_OUR_OWN));
}

export class Server {
  readonly app: TemplatedApp;
  readonly #connectionsMax: number;
  #connections = 0;
  #listening: us_listen_socket | null = null;

  constructor(limits: { readonly connectionsMax: number }) {
    this.#connectionsMax = limits.connectionsMax;
    // Leaves out the header field that names the library; the types lack it.
    (uws as unknown as { _cfg(what: string): void })._cfg('silent');
    this.app = App();
    this.app.filter((res, change) => {
      this.#connections += change;
      if (change > 0 && this.#connections > this.#connectionsMax) res.close();
    });
  }

  /** Open connections, streams included. */
  get connections(): number {
    return this.#connections;
  }

  /** A connection that became a stream has ended: the filter above is not told. */
  streamEnded(): void {
    this.#connections -= 1;
  }

  /** Resolves with the port; 0 takes any free one. Rejects when it is taken. */
  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (socket: us_listen_socket | false): void => {
        if (socket === false)
          return reject(new Error(`cannot listen on ${host}:${port}: is the port taken?`));
        this.#listening = socket;
        resolve(us_socket_local_port(socket));
      };
      // Without the option two processes would share the port in silence. The types lack this form.
      const app = this.app as unknown as {
        listen(
          host: string,
          port: number,
          options: number,
          done: (s: us_listen_socket | false) => void,
        ): void;
      };
      app.listen(host, port, LIBUS_LISTEN_EXCLUSIVE_PORT, done);
    });
  }

  /** Takes no new connection. Those that are open go on. */
  stopListening(): void {
    if (this.#listening !== null) us_listen_socket_close(this.#listening);
    this.#listening = null;
  }

  /**
   * Closes what is open still, when nothing is under way any more. A client that sends its next request meanwhile
   * is answered and told to go, so that few are cut off between a request and its answer.
   */
  async close(): Promise<void> {
    const until = performance.now() + LEAVE_MS;
    while (this.#connections > 0 && performance.now() < until)
      await new Promise((resolve) => setTimeout(resolve, LEAVE_STEP_MS));
    this.app.close();
  }
}
