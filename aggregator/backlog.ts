/**
 * How much was read from the logs and is not durable yet, in bytes, over all shards: reading waits while it
 * is at its bound. One message is always let in, however large, so that nothing can wait for ever.
 */
export class Backlog {
  readonly bytesMax: number;
  #bytes = 0;
  #waiting: (() => void)[] = [];

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
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

  add(bytes: number): void {
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
