/** Bounds of an exponential backoff, in milliseconds. */
export interface BackoffBounds {
  readonly baseMs: number;
  readonly maxMs: number;
}

/**
 * Full-jitter exponential backoff: a uniformly random wait in [0, min(maxMs, baseMs * 2^attempt)).
 * `attempt` counts from 0; `random` returns [0, 1). Jitter over the whole range, and not around its end,
 * is what keeps a crowd that failed together from coming back together.
 */
export function backoffMs(attempt: number, bounds: BackoffBounds, random: () => number): number {
  // 2 ** 1024 is Infinity and min() takes care of it: no attempt number is too large.
  const ceiling = Math.min(bounds.maxMs, bounds.baseMs * 2 ** Math.max(0, attempt));
  return Math.floor(random() * ceiling);
}
