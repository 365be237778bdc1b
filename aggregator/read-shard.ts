/**
 * Reads a shard's log in order, and only the log that was read before.
 *
 * Whenever reading begins, at the start and after whatever interrupted it, the message that was read last is
 * compared with what stands at its sequence now. A broker that came back with an earlier state of its storage
 * gives the sequences behind that state to other messages, and may have grown beyond our place before we look:
 * then nothing else tells. Nothing is handed over before the comparison is done, and it does not wait for a next
 * message, because what now stands before our place would wait with it.
 */
import type { Log } from '../runtime/log.ts';
import { isConnectionError, isStreamNotFound, LogRewoundError, type NatsLink } from '../runtime/nats.ts';
import { pull } from '../runtime/pull.ts';
import { retry } from '../runtime/retry.ts';
import { findDifference, markOf, type LogMark } from './log-mark.ts';

/** The log is not the one that was read, or a part of it is missing. What was handed over before is sound. */
export class LogLostError extends Error {
  override readonly name = 'LogLostError';
}

export interface ReadShardOptions {
  readonly stream: string;
  /** When the stream was created. */
  readonly created: string;
  /** The sequence of the message that was read last; 0 for none. */
  readonly behind: number;
  /** Its mark; null when it is not there any more. */
  readonly last: LogMark | null;
  /** Whether the log may go on behind a hole: that is known, and told. */
  readonly holeAllowed: boolean;
  readonly maxBytesInFlight: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface ReadMessage extends LogMark {
  /** A view into a larger buffer that holds other messages too. */
  readonly data: Uint8Array;
}

const COMPARE_AGAIN = { attempts: Number.MAX_SAFE_INTEGER, baseMs: 50, maxMs: 1_000 };

/** Ends with the signal. @throws LogLostError */
export async function* readShard(
  link: NatsLink,
  o: ReadShardOptions,
): AsyncGenerator<ReadMessage, void, void> {
  const reading = new AbortController();
  const stop = (): void => reading.abort();
  o.signal.addEventListener('abort', stop, { once: true });
  if (o.signal.aborted) stop();
  let last = o.last;
  let next = o.behind + 1;

  /** The newest comparison: the difference that it found, or null. */
  let comparison: Promise<string | null> = Promise.resolve(null);
  let comparisons = 0;
  const compare = (): void => {
    const known = last;
    const number = ++comparisons;
    const isNewest = (): boolean => number === comparisons;
    comparison = retry(() => findDifference(link, o.stream, o.created, known), {
      ...COMPARE_AGAIN,
      signal: reading.signal,
      // A failed connection is followed by another beginning, with a comparison of its own.
      retryable: (error) => isConnectionError(error) && isNewest(),
    });
    comparison.then(
      (difference) => difference !== null && isNewest() && stop(),
      () => isNewest() && stop(),
    );
  };
  const compared = async (): Promise<string | null> => {
    for (;;) {
      const mine = comparison;
      try {
        const difference = await mine;
        if (mine === comparison) return difference;
      } catch (error) {
        if (mine === comparison) throw error;
      }
    }
  };

  try {
    const messages = pull(link, {
      stream: o.stream,
      from: next,
      maxBytesInFlight: o.maxBytesInFlight,
      signal: reading.signal,
      onPosition: compare,
    });
    for await (const { sequence, timeMs, message } of messages) {
      if ((await compared()) !== null) break;
      if (sequence !== next) {
        const hole = `${o.stream} continues at ${sequence} where ${next} was next: messages are missing`;
        if (!o.holeAllowed || next !== o.behind + 1) throw new LogLostError(hole);
        o.log.error({ stream: o.stream, missingFrom: next, missingTo: sequence - 1 }, hole);
      }
      const mark = markOf(sequence, timeMs, message.data);
      last = mark;
      next = sequence + 1;
      yield { ...mark, data: message.data };
    }
    if (o.signal.aborted) return;
    const difference = await compared();
    throw new LogLostError(difference ?? `${o.stream} cannot be read on`);
  } catch (error) {
    if (o.signal.aborted) return;
    if (error instanceof LogRewoundError) throw new LogLostError(error.message, { cause: error });
    if (isStreamNotFound(error)) throw new LogLostError(`${o.stream} is gone`, { cause: error });
    throw error;
  } finally {
    o.signal.removeEventListener('abort', stop);
    reading.abort();
  }
}
