import { backoffMs } from '../runtime/backoff.ts';
import { sleep } from '../runtime/retry.ts';
import type { Log } from '../runtime/log.ts';

export interface LoopOptions {
  readonly name: string;
  /** How long it rests when there was nothing to do. */
  readonly everyMs: number;
  readonly log: Log;
  readonly stopping: AbortSignal;
  /** One pass; true when there may be more to do at once. */
  pass(): Promise<boolean>;
  /** Called after every pass, with whether it failed. */
  onPass?(failed: boolean): void;
}

export interface Loop {
  /** Ends the rest: there is something to do. */
  ring(): void;
  /** Resolves once the loop has ended, after `stopping`. */
  readonly ended: Promise<void>;
}

const FAILED = { baseMs: 200, maxMs: 10_000 };

/** Repeats a pass until told to stop. A pass that throws is logged and tried again with a growing wait. */
export function startLoop(o: LoopOptions): Loop {
  let rung = false;
  let alarm = new AbortController();
  const ring = (): void => {
    rung = true;
    alarm.abort();
  };
  o.stopping.addEventListener('abort', ring, { once: true });

  async function run(): Promise<void> {
    let failures = 0;
    while (!o.stopping.aborted) {
      let restMs = o.everyMs;
      rung = false;
      try {
        if (await o.pass()) restMs = 0;
        failures = 0;
      } catch (error) {
        restMs = backoffMs(failures, FAILED, Math.random);
        failures += 1;
        o.log.warn({ error, loop: o.name, failures }, 'a pass failed');
      }
      o.onPass?.(failures > 0);
      if (restMs === 0 || (rung && failures === 0)) continue;
      alarm = new AbortController();
      await sleep(restMs, alarm.signal);
    }
  }
  return { ring, ended: run() };
}
