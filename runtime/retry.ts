import { setTimeout as delay } from 'node:timers/promises';
import { backoffMs, type BackoffBounds } from './backoff.ts';

export interface RetryOptions extends BackoffBounds {
  /** How often `fn` runs at most, the first time included. */
  readonly attempts: number;
  /** Ends the waiting between attempts; the last error is thrown then. */
  readonly signal?: AbortSignal;
  /** Where waiting and jitter come from, when not from this machine's clock and die. */
  readonly timing?: {
    sleep(ms: number, signal?: AbortSignal): Promise<void>;
    random(): number;
  };
  /** Says whether another attempt can help. A `false` throws the error at once. */
  retryable(error: unknown): boolean;
  /** Called before every wait: the place to count and log. `attempt` is the one that failed, from 1. */
  onRetry?(error: unknown, attempt: number, waitMs: number): void;
}

/** Runs `fn` until it succeeds, is not retryable, or its attempts are spent; then throws its last error. */
export async function retry<T>(fn: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  const wait = options.timing?.sleep ?? sleep;
  const random = options.timing?.random ?? Math.random;
  for (let attempt = 1; ; attempt++) {
    try {
      return await fn(attempt);
    } catch (error) {
      if (attempt >= options.attempts || !options.retryable(error) || options.signal?.aborted) throw error;
      const waitMs = backoffMs(attempt - 1, options, random);
      options.onRetry?.(error, attempt, waitMs);
      await wait(waitMs, options.signal);
      if (options.signal?.aborted) throw error;
    }
  }
}

/** Waits `ms` milliseconds, or until the signal aborts. Never throws. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, signal ? { signal } : undefined);
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
}
