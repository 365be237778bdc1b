/**
 * What happens to the clients of a process when it ends. When its loop is empty ('beforeExit'), they flush. Signals
 * belong to the product: they are listened to only for a client that was told to, and afterwards the signal does what
 * it would have done without us. A second one does so at once.
 */
import { holdProcess, type ClientClock } from './clock.ts';
import { messageOf } from './errors.ts';

export interface Exiting {
  readonly clock: ClientClock;
  readonly timeoutMs: number;
  /** Events, or news of events, that the end of the process would lose. */
  endangered(): number;
  /** Events recorded so far: what could not be sent at the end is not tried again unless this has grown. */
  recorded(): number;
  flush(): Promise<void>;
  close(): Promise<void>;
}

const SIGNALS = ['SIGTERM', 'SIGINT'] as const;

const flushed = new Map<Exiting, { triedAt: number }>();
const closedBySignal = new Set<Exiting>();

export function flushOnExit(client: Exiting): void {
  if (flushed.size === 0) process.on('beforeExit', flushAll);
  flushed.set(client, { triedAt: -1 });
}

export function closeOnSignal(client: Exiting): void {
  if (closedBySignal.size === 0) for (const signal of SIGNALS) process.once(signal, closeAll);
  closedBySignal.add(client);
}

export function forget(client: Exiting): void {
  flushed.delete(client);
  closedBySignal.delete(client);
  if (flushed.size === 0) process.off('beforeExit', flushAll);
  if (closedBySignal.size === 0) for (const signal of SIGNALS) process.off(signal, closeAll);
}

function flushAll(): void {
  for (const [client, state] of flushed) {
    if (client.endangered() === 0 || client.recorded() === state.triedAt) continue;
    state.triedAt = client.recorded();
    void inTime(client, client.flush());
  }
}

function closeAll(signal: NodeJS.Signals): void {
  const all = [...closedBySignal];
  for (const other of SIGNALS) process.off(other, closeAll);
  void Promise.all(all.map((client) => inTime(client, client.close()))).then(() => {
    // Somebody else who listens decides what becomes of the process.
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
  });
}

/** Never rejects: at the end of a process nobody listens, so that the failure becomes a warning. */
async function inTime(client: Exiting, work: Promise<void>): Promise<void> {
  const { clock, timeoutMs } = client;
  let cancel = (): void => undefined;
  const timeout = new Promise<never>((_, reject) => {
    const fail = (): void => reject(new Error(`not within ${timeoutMs} ms`));
    cancel = clock.after(timeoutMs, fail);
  });
  try {
    await holdProcess(Promise.race([work, timeout]));
  } catch (error) {
    process.emitWarning(`at the end of the process: ${messageOf(error)}`, 'TallylineWarning');
  } finally {
    cancel();
  }
}
