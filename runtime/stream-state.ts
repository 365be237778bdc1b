/**
 * Whether what a broker says of a stream can be true.
 *
 * A stream cannot hold more messages than it has sequences. NATS 2.9.10 says that it does after a file of it was
 * damaged in the sequence of a record: it takes its last sequence from there, goes on counting from it, and keeps
 * messages behind that already have the numbers that it gives now. Requests and consumers are answered with the old
 * ones, the new ones are never found, and it stays so over restarts. All of it looks sound from outside, except that
 * the numbers do not add up: with 89 messages whose last sequence was read as 82, and 20 published behind them, it says
 * "109 messages, first 1, last 102".
 */
export interface StreamNumbers {
  readonly messages: number;
  readonly first_seq: number;
  readonly last_seq: number;
}

/** What does not add up, as a sentence; null when it can be true. Fewer messages than sequences is a hole. */
export function contradictionOf(name: string, state: StreamNumbers): string | null {
  const { messages, first_seq: first, last_seq: last } = state;
  const sequences = Math.max(0, last - Math.max(1, first) + 1);
  if (messages <= sequences) return null;
  return (
    `${name} says that it holds ${messages} messages in ${sequences} sequences (${first} to ${last}): ` +
    'it gives sequences to messages that older ones have'
  );
}
