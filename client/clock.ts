/**
 * The client's clock. Its timers do not keep a process alive: an idle client is no reason to go on running. Where
 * somebody waits for the client, `holdProcess` is, because a process whose loop is empty ends in the middle of
 * an `await`.
 */

/** The parts of the world that a test replaces. */
export interface ClientClock {
  /** Epoch milliseconds. */
  now(): number;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

export const systemClock: ClientClock = {
  now: () => Date.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms).unref();
    return () => clearTimeout(timer);
  },
};

const LONGEST_TIMER_MS = 2 ** 31 - 1;
let holds = 0;
let timer: NodeJS.Timeout | undefined;

/** Keeps the process alive for as long as the promise is pending. */
export async function holdProcess<T>(promise: Promise<T>): Promise<T> {
  holds += 1;
  timer ??= setInterval(() => undefined, LONGEST_TIMER_MS);
  try {
    return await promise;
  } finally {
    holds -= 1;
    if (holds === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  }
}
