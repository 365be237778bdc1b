/**
 * How often something costly is done: after each time it rests in proportion to what it took, so that it takes a share
 * of the time at most, however much there is to do, and is done at once where there is little.
 */
export interface PaceOptions {
  /** Of the time, such as 0.05. */
  readonly share: number;
  /** The longest rest: beyond it the share is not kept. */
  readonly restMsMax: number;
}

export class Pace {
  readonly #options: PaceOptions;
  #dueMs = 0;

  constructor(o: PaceOptions) {
    this.#options = o;
  }

  /** From now until it is due; 0 when it is. */
  restMs(nowMs: number): number {
    return Math.max(0, this.#dueMs - nowMs);
  }

  isDue(nowMs: number): boolean {
    return this.restMs(nowMs) === 0;
  }

  /** It was done, between these instants; `share` where it is another this time. */
  done(beganMs: number, endedMs: number, share = this.#options.share): void {
    const { restMsMax } = this.#options;
    this.#dueMs = endedMs + Math.min(restMsMax, Math.max(0, endedMs - beganMs) * (1 / share - 1));
  }
}
