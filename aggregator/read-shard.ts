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
import { retry } from '../runtime/retry.ts';
import { findDifference, markOf, sameMark, type LogMark } from './log-mark.ts';
import type { PassedOver } from './passed-over.ts';
import { isLogError, LogError, type PulledMessage, type ShardLog, type Timing } from './ports.ts';

/** The log is not the one that was read, or a part of it is missing. What was handed over before is sound. */
export class LogLostError extends Error {
  override readonly name = 'LogLostError';
  /** Whether the log is the one that was read, and messages of it are not handed over: a hole, or one that was filled. */
  readonly isHole: boolean;

  constructor(message: string, options: { readonly cause?: unknown; readonly isHole?: boolean } = {}) {
    super(message, { cause: options.cause });
    this.isHole = options.isHole === true;
  }
}

export interface ReadShardOptions {
  /** When the stream was created. */
  readonly created: string;
  /** The sequence of the message behind which reading begins; 0 for the first. */
  readonly behind: number;
  /**
   * The newest message of this log that is known of, that one or one further on: somebody has read it before. Null
   * when there is none.
   */
  readonly last: LogMark | null;
  /**
   * The log may begin with a hole that ends at this sequence or before it: it was there when the incarnation began, so
   * it is known, and told. What was acknowledged behind it is not: a broker that writes behind a damaged record hands
   * nothing over until it begins another file, and everything between is a hole that has grown since. The edges hold
   * those messages, and release them when a watermark passes them, so they have to learn of a new incarnation first.
   */
  readonly holeUntil: number;
  /** Holes in front of the place that were passed over: a loss when their messages are there again. Told of further ones. */
  readonly passedOver: PassedOver;
  readonly maxBytesInFlight: number;
  readonly log: Log;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}

export interface ReadMessage extends LogMark {
  /** A view into a larger buffer that holds other messages too. */
  readonly data: Uint8Array;
}

/** Why the log is not the one that was read, or has more than was read of it; null when neither is so. */
async function findLoss(
  shardLog: ShardLog,
  { created, behind, passedOver }: ReadShardOptions,
  last: LogMark | null,
): Promise<LogLostError | null> {
  const difference = await findDifference(shardLog, created, last, behind);
  if (difference !== null) return new LogLostError(difference);
  const again = await passedOver.foundAgain(shardLog);
  return again === null ? null : new LogLostError(again, { isHole: true });
}

const COMPARE_AGAIN = { attempts: Number.MAX_SAFE_INTEGER, baseMs: 50, maxMs: 1_000 };

/** Ends with the signal. @throws LogLostError */
export async function* readShard(
  shardLog: ShardLog,
  o: ReadShardOptions,
): AsyncGenerator<ReadMessage, void, void> {
  const reading = new AbortController();
  const stop = (): void => reading.abort();
  o.signal.addEventListener('abort', stop, { once: true });
  if (o.signal.aborted) stop();
  let last = o.last;
  let next = o.behind + 1;

  /** Nothing was handed over yet since reading began, or began anew. */
  let isFirst = true;
  /** A message that was handed to us and was not in the log when it was looked for. */
  let doubted: LogMark | null = null;

  /** The newest comparison: what it found, or null. */
  let comparison: Promise<LogLostError | null> = Promise.resolve(null);
  let comparisons = 0;
  const compare = (): void => {
    // What has been found stands: a comparison begun after that would not be repeated when it fails.
    if (reading.signal.aborted) return;
    isFirst = true;
    const known = last;
    const number = ++comparisons;
    const isNewest = (): boolean => number === comparisons;
    comparison = retry(() => findLoss(shardLog, o, known), {
      ...COMPARE_AGAIN,
      timing: o.timing,
      signal: reading.signal,
      // A failed connection is followed by another beginning, with a comparison of its own.
      retryable: (error) => isLogError(error, 'away') && isNewest(),
    });
    comparison.then(
      (loss) => loss !== null && isNewest() && stop(),
      () => isNewest() && stop(),
    );
  };
  const compared = async (): Promise<LogLostError | null> => {
    for (;;) {
      const mine = comparison;
      try {
        const loss = await mine;
        if (mine === comparison) return loss;
      } catch (error) {
        if (mine === comparison) throw error;
      }
    }
  };

  /**
   * Whether the log that was compared has the first message, too. The broker may have lost its end, handed out what came
   * behind, and found what it had lost again, all before the comparison: then the log is the one that was read, and the
   * message is of another. One that comes again is taken, should the broker hand over what it does not find.
   */
  const isThere = async (first: LogMark): Promise<boolean> => {
    const present = await retry(() => shardLog.messageAt(first.sequence), {
      ...COMPARE_AGAIN,
      timing: o.timing,
      signal: reading.signal,
      retryable: (error) => isLogError(error, 'away'),
    });
    if (present !== null && sameMark(present, first)) return true;
    if (doubted !== null && sameMark(doubted, first)) return true;
    doubted = first;
    return false;
  };

  const proven = async (message: LogMark): Promise<'proven' | 'lost' | 'of another log'> => {
    for (;;) {
      const number = comparisons;
      if ((await compared()) !== null) return 'lost';
      if (!isFirst) return 'proven';
      if (!(await isThere(message))) return 'of another log';
      if (number !== comparisons) continue;
      isFirst = false;
      return 'proven';
    }
  };

  const messages = (): AsyncIterable<PulledMessage> =>
    shardLog.read({
      from: next,
      maxBytesInFlight: o.maxBytesInFlight,
      signal: reading.signal,
      onPosition: compare,
    });

  try {
    for (let reader = messages()[Symbol.asyncIterator](); ;) {
      const step = await reader.next();
      if (step.done === true) break;
      const { sequence, timeMs, data } = step.value;
      const mark = markOf(sequence, timeMs, data);
      const answer = await proven(mark);
      if (answer === 'lost') break;
      if (answer === 'of another log') {
        await reader.return?.();
        reader = messages()[Symbol.asyncIterator]();
        continue;
      }
      if (sequence !== next) {
        const hole = `${shardLog.name} continues at ${sequence} where ${next} was next: messages are missing`;
        const isKnown = next === o.behind + 1 && sequence - 1 <= o.holeUntil;
        if (!isKnown) throw new LogLostError(hole, { isHole: true });
        o.log.error({ stream: shardLog.name, missingFrom: next, missingTo: sequence - 1 }, hole);
        o.passedOver.add({ from: next, to: sequence - 1 });
      }
      if (last === null || sequence >= last.sequence) last = mark;
      next = sequence + 1;
      yield { ...mark, data };
    }
    if (o.signal.aborted) return;
    throw (await compared()) ?? new LogLostError(`${shardLog.name} cannot be read on`);
  } catch (error) {
    if (o.signal.aborted) return;
    if (error instanceof LogError && error.kind === 'rewound')
      throw new LogLostError(error.message, { cause: error });
    if (isLogError(error, 'gone')) throw new LogLostError(`${shardLog.name} is gone`, { cause: error });
    throw error;
  } finally {
    o.signal.removeEventListener('abort', stop);
    reading.abort();
  }
}
