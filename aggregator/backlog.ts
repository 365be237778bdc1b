/**
 * How much was read from the logs and is not durable yet, in bytes, over all shards: reading waits while it
 * is at its bound. One message is always let in, however large, so that nothing can wait for ever.
 *
 * Each message counts for more than its bytes: what is known of it and the views of its columns lie on the heap. Without
 * that a backlog of messages with one event each would take several times its bound.
 */

/** On the heap: 1,150 bytes measured for a prepared message that waits. Views of its columns, twice that, come and go. */
export const MESSAGE_BYTES = 1_500;

export class Backlog {
  readonly bytesMax: number;
  readonly #messageBytes: number;
  #bytes = 0;
  #waiting: (() => void)[] = [];

  /** @param messageBytes what a message counts for beside its own bytes. */
  constructor(bytesMax: number, messageBytes = MESSAGE_BYTES) {
    this.bytesMax = bytesMax;
    this.#messageBytes = messageBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get full(): boolean {
    return this.#bytes >= this.bytesMax;
  }

  /** Resolves when it is worth looking again. */
  async changed(): Promise<void> {
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** A message of so many bytes; what is to be released for it. */
  add(bytes: number): number {
    const counted = bytes + this.#messageBytes;
    this.#bytes += counted;
    return counted;
  }

  /** Something that was let in takes more. */
  grow(bytes: number): void {
    this.#bytes += bytes;
  }

  release(bytes: number): void {
    this.#bytes -= bytes;
    if (!this.full) this.wake();
  }

  /** Lets everybody look again; those who are stopping leave. */
  wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
