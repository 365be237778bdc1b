/** The only source of wall-clock time. Passed in, so that pure code and tests choose their own. */
export interface Clock {
  /** Epoch milliseconds, UTC. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };
