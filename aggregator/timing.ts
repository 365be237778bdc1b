/** Time and chance of this machine, behind their port. */
import type { Clock } from '../runtime/clock.ts';
import { sleep } from '../runtime/retry.ts';
import type { Timing } from './ports.ts';

export function timingOf(clock: Clock): Timing {
  return {
    now: () => clock.now(),
    elapsedMs: () => performance.now(),
    sleep,
    random: () => Math.random(),
  };
}
