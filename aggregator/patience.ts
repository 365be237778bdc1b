/**
 * Waiting for ClickHouse, and at the start of a shard for NATS. A request that fails is made again, with full
 * jitter up to a few seconds between, for as long as the process runs: giving up would lose nothing, but it would
 * help nobody either. It is never silent: each failure is counted and logged, and after ten seconds the process is
 * not ready, with the reason.
 */
import { backoffMs } from '../runtime/backoff.ts';
import type { Log } from '../runtime/log.ts';
import { FencedError } from './fence.ts';
import type { Timing } from './ports.ts';

const BACKOFF = { baseMs: 50, maxMs: 5_000 };
const UNREADY_AFTER_MS = 10_000;

export interface PatienceOptions {
  readonly log: Log;
  readonly timing: Timing;
  readonly signal: AbortSignal;
  onFailure(): void;
  setReady(ready: boolean, reason?: string): void;
}

/** Thrown when stopping began while a request was being made again. */
export class StoppedError extends Error {
  override readonly name = 'StoppedError';
}

export class Patience {
  readonly #options: PatienceOptions;
  /** Requests that are failing, with the time of their first failure. */
  readonly #failing = new Map<symbol, number>();
  #unready = false;

  constructor(options: PatienceOptions) {
    this.#options = options;
  }

  /** Runs `request` until it succeeds. It must change nothing when it is repeated. */
  async until<T>(what: string, request: () => Promise<T>): Promise<T> {
    const { log, timing, signal } = this.#options;
    const one = Symbol(what);
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await request();
        this.#succeeded(one);
        return answer;
      } catch (error) {
        if (signal.aborted) throw new StoppedError(what, { cause: error });
        // Somebody else does this now; nothing is to be made again.
        if (error instanceof FencedError) {
          this.#succeeded(one);
          throw error;
        }
        const waitMs = backoffMs(attempt, BACKOFF, () => timing.random());
        log.warn({ error, what, attempt, waitMs }, 'a request failed; trying again');
        this.#failed(one, what);
        await timing.sleep(waitMs, signal);
        if (signal.aborted) throw new StoppedError(what, { cause: error });
      }
    }
  }

  #failed(one: symbol, what: string): void {
    this.#options.onFailure();
    const now = this.#options.timing.elapsedMs();
    const since = this.#failing.get(one) ?? now;
    this.#failing.set(one, since);
    if (this.#unready || now - since < UNREADY_AFTER_MS) return;
    this.#unready = true;
    this.#options.setReady(false, `failing for more than ${UNREADY_AFTER_MS / 1_000} s: ${what}`);
  }

  #succeeded(one: symbol): void {
    if (!this.#failing.delete(one) || this.#failing.size > 0 || !this.#unready) return;
    this.#unready = false;
    this.#options.setReady(true);
  }
}
