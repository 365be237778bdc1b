import type { NatsLink } from './nats.ts';
import { pull } from './pull.ts';

export interface LogMessage {
  readonly sequence: number;
  /** A view into a larger buffer that holds other messages too: copy it before transferring it away. */
  readonly data: Uint8Array;
  /** When the server stored it, epoch milliseconds by the server's clock. */
  readonly timeMs: number;
}

export interface ReadLogOptions {
  readonly stream: string;
  /** The first sequence wanted, from 1. */
  readonly fromSequence: number;
  /** How much may be fetched ahead of what was taken; a single larger message is fetched alone. */
  readonly maxBytesInFlight: number;
  readonly signal: AbortSignal;
}

/**
 * Reads a stream in order, without acknowledgements, until the signal aborts (then it ends) or the loop is
 * left. Sequences strictly increase from `fromSequence`; a lost connection or a restarted server is
 * survived by going on after the last message handed over. A hole in the sequences (purged or deleted
 * messages) is handed over as it is: the caller compares. Throws LogRewoundError when the stream was made
 * anew or ends before `fromSequence - 1`, and NATS's error when there is no such stream.
 */
export async function* readLog(link: NatsLink, o: ReadLogOptions): AsyncGenerator<LogMessage, void, void> {
  const messages = pull(link, {
    stream: o.stream,
    from: o.fromSequence,
    maxBytesInFlight: o.maxBytesInFlight,
    signal: o.signal,
    take: (message) => message.data,
  });
  for await (const { sequence, timeMs, value } of messages) yield { sequence, data: value, timeMs };
}
