// How many statements the engine runs at once, and how many may wait. A slot also owns the named pipe through
// which the result of its statement is streamed, so pipes are made once, at start.
import { refuse } from './error.ts';

export interface Slot {
  readonly index: number;
}

interface Waiter {
  readonly resolve: (slot: Slot) => void;
}

export class Slots {
  readonly #free: Slot[];
  readonly #waiters: Waiter[] = [];
  readonly #waitersMax: number;

  constructor(count: number, waitersMax: number) {
    this.#free = Array.from({ length: count }, (_, index) => ({ index }));
    this.#waitersMax = waitersMax;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  /**
   * A slot, at once or in turn.
   *
   * @throws Refusal (TOO_MANY_SIMULTANEOUS_QUERIES) when the queue is full; the signal's reason when it aborts
   * while waiting.
   */
  acquire(signal: AbortSignal): Promise<Slot> {
    const slot = this.#free.pop();
    if (slot !== undefined) return Promise.resolve(slot);
    if (this.#waiters.length >= this.#waitersMax) {
      return Promise.reject(
        refuse(202, `Too many simultaneous queries: ${this.#waiters.length} are waiting.`),
      );
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        resolve: (given) => {
          signal.removeEventListener('abort', onAbort);
          resolve(given);
        },
      };
      const onAbort = (): void => {
        const index = this.#waiters.indexOf(waiter);
        if (index !== -1) this.#waiters.splice(index, 1);
        reject(signal.reason as Error);
      };
      this.#waiters.push(waiter);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Gives the slot to the one who has waited longest. Once a slot. */
  release(slot: Slot): void {
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#free.push(slot);
    else waiter.resolve(slot);
  }
}
