/**
 * Whose body is read next. Reading is the one thing that keeps the event loop busy for long: 8 MiB of events
 * take some ten milliseconds. So a tenant's bodies are read at once only up to a bound a turn of the loop;
 * what goes beyond waits, in order, and between two turns of the loop the waiting tenants get one body each,
 * in rotation, until the bound is reached again. Whoever sends little is never behind more than one body of
 * each tenant that sends much.
 */
import type { Account, WaitingBody } from './account.ts';

/** Body bytes read in one turn: about a millisecond of work. */
export const TURN_BYTES_MAX = 262_144;

export class Turns {
  readonly #defer: (run: () => void) => void;
  /** Accounts with `turnBytes` above 0, and those with waiting bodies, in rotation. */
  readonly #touched: Account[] = [];
  readonly #rotation: Account[] = [];
  #scheduled = false;
  #waiting = 0;

  /** @param defer runs it at the end of this turn of the event loop. */
  constructor(defer: (run: () => void) => void) {
    this.#defer = defer;
  }

  /** Bodies that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Whether a body of so many bytes may be read now; if not, `wait` for it. */
  now(account: Account, bytes: number): boolean {
    if (account.waiting.length > 0) return false;
    if (account.turnBytes > 0 && account.turnBytes + bytes > TURN_BYTES_MAX) return false;
    if (account.turnBytes === 0) this.#touched.push(account);
    account.turnBytes += Math.max(1, bytes);
    this.#schedule();
    return true;
  }

  /** Runs its `read` when it is its turn. */
  wait(account: Account, body: WaitingBody): void {
    if (account.waiting.push(body) === 1) this.#rotation.push(account);
    this.#waiting += 1;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#defer(() => this.#turn());
  }

  #turn(): void {
    this.#scheduled = false;
    for (const account of this.#touched) account.turnBytes = 0;
    this.#touched.length = 0;
    let bytes = 0;
    while (bytes < TURN_BYTES_MAX) {
      const account = this.#rotation.shift();
      if (account === undefined) return;
      const body = account.waiting.shift()!;
      this.#waiting -= 1;
      if (account.waiting.length > 0) this.#rotation.push(account);
      bytes += body.bytes;
      body.read();
    }
    this.#schedule();
  }
}
