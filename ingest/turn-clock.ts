/**
 * The time, looked at once a turn of the event loop: at a hundred thousand requests a second, five looks at the
 * clocks for each would cost more than checking their keys. A turn takes about a millisecond at most (turns.ts), so
 * nothing that is measured in milliseconds gets wrong by it.
 */
export interface Clocks {
  /** Epoch milliseconds. */
  now(): number;
  /** Milliseconds since some beginning, never set back. */
  elapsed(): number;
  /** Runs it at the end of this turn of the event loop. */
  defer(run: () => void): void;
}

export class TurnClock {
  readonly #clocks: Clocks;
  readonly #turnEnds: () => void;
  #isLooked = false;
  #nowMs = 0;
  #elapsedMs = 0;

  constructor(clocks: Clocks) {
    this.#clocks = clocks;
    this.#turnEnds = () => void (this.#isLooked = false);
  }

  /** Epoch milliseconds of this turn. */
  now(): number {
    if (!this.#isLooked) this.#look();
    return this.#nowMs;
  }

  /** Milliseconds since some beginning, of this turn. */
  elapsed(): number {
    if (!this.#isLooked) this.#look();
    return this.#elapsedMs;
  }

  #look(): void {
    this.#isLooked = true;
    this.#nowMs = this.#clocks.now();
    this.#elapsedMs = this.#clocks.elapsed();
    this.#clocks.defer(this.#turnEnds);
  }
}
