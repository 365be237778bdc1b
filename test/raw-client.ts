/** A client that speaks as badly as it is told to: bytes on a socket, and what came back. */
import { connect, type Socket } from 'node:net';

export class RawClient {
  received = '';
  /** How the connection ended: in order, or by an error. Null while it is open. */
  ended: 'closed' | 'reset' | null = null;
  endedAfterMs = 0;
  isConnected = false;
  readonly #socket: Socket;
  readonly #startedMs = performance.now();
  #sending: NodeJS.Timeout | undefined;

  constructor(port: number, { reading = true }: { readonly reading?: boolean } = {}) {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.#socket = socket;
    if (reading) socket.on('data', (chunk: Buffer) => (this.received += chunk.toString()));
    socket.once('connect', () => (this.isConnected = true));
    socket.once('error', () => this.#end('reset'));
    socket.once('close', () => this.#end('closed'));
  }

  send(text: string): void {
    if (text !== '') this.#socket.write(text);
  }

  /** The same text again and again, until the connection ends. */
  keepSending(text: string, everyMs: number): void {
    this.#sending = setInterval(() => this.send(text), everyMs);
  }

  /** How many answers with this status have come. */
  answers(status: number): number {
    return this.received.split(`HTTP/1.1 ${status} `).length - 1;
  }

  destroy(): void {
    clearInterval(this.#sending);
    this.#socket.destroy();
  }

  #end(how: 'closed' | 'reset'): void {
    clearInterval(this.#sending);
    this.ended ??= how;
    this.endedAfterMs = performance.now() - this.#startedMs;
  }
}
