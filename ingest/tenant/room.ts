/**
 * How much may be under way: requests (and batches of streams) let in and not yet answered, and the bytes
 * reserved for their bodies. The memory of the process has a bound that does not depend on who sends, and one
 * tenant can take half of the room at most, so that there is always some for the others.
 */
import type { Account } from './account.ts';

export interface RoomLimits {
  readonly requestsInFlightMax: number;
  readonly bytesInFlightMax: number;
}

/** The part of the room that one tenant may take. */
const SHARE_OF_ONE = 1 / 2;

export class Room {
  requests = 0;
  bytes = 0;
  readonly #limits: RoomLimits;
  readonly #requestsOfOne: number;
  readonly #bytesOfOne: number;
  #onEmpty: (() => void) | null = null;

  constructor(limits: RoomLimits) {
    this.#limits = limits;
    this.#requestsOfOne = Math.max(1, Math.floor(limits.requestsInFlightMax * SHARE_OF_ONE));
    this.#bytesOfOne = Math.floor(limits.bytesInFlightMax * SHARE_OF_ONE);
  }

  /** Lets one more in with so many bytes. False: there is no room, and nothing changed. */
  enter(account: Account, bytes: number): boolean {
    if (this.requests >= this.#limits.requestsInFlightMax || account.requests >= this.#requestsOfOne)
      return false;
    if (!this.#fits(account, bytes)) return false;
    this.requests += 1;
    this.bytes += bytes;
    account.requests += 1;
    account.bytes += bytes;
    return true;
  }

  /** Reserves more for one that was let in. False: there is no room, and nothing changed. */
  more(account: Account, bytes: number): boolean {
    if (!this.#fits(account, bytes)) return false;
    this.bytes += bytes;
    account.bytes += bytes;
    return true;
  }

  /** One is done; `bytes` is all that was reserved for it. */
  leave(account: Account, bytes: number): void {
    this.requests -= 1;
    this.bytes -= bytes;
    account.requests -= 1;
    account.bytes -= bytes;
    if (this.requests > 0) return;
    this.#onEmpty?.();
    this.#onEmpty = null;
  }

  /** Resolves when nothing is under way. */
  empty(): Promise<void> {
    return this.requests === 0 ? Promise.resolve() : new Promise((resolve) => (this.#onEmpty = resolve));
  }

  /** One body alone always fits into an empty share, or it could never be sent. */
  #fits(account: Account, bytes: number): boolean {
    if (this.bytes + bytes > this.#limits.bytesInFlightMax) return false;
    return account.bytes === 0 || account.bytes + bytes <= this.#bytesOfOne;
  }
}
