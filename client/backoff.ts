export interface BackoffLimits {
  readonly backoffBaseMs: number;
  readonly backoffMaxMs: number;
  readonly retryAfterMaxMs: number;
}

/**
 * How long to wait after the `failures`-th failure, from 1: full jitter (random below a bound that doubles), on top
 * of what the server asked for. Those whom it told the same must not come back together.
 */
export function waitMs(
  failures: number,
  askedMs: number | null,
  limits: BackoffLimits,
  random: () => number,
): number {
  const { backoffBaseMs, backoffMaxMs, retryAfterMaxMs } = limits;
  const jitter = random() * Math.min(backoffMaxMs, backoffBaseMs * 2 ** (failures - 1));
  return Math.min(askedMs ?? 0, retryAfterMaxMs) + jitter;
}
