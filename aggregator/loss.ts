/** What the broker lost of a log, as far as it can be known, and what an operator should do. */
export interface Loss {
  readonly reason: string;
  /** The incarnation that begins. */
  readonly incarnation: number;
  /** The sequences of the old log that are gone, or may be: from the first to the last that was known of. */
  readonly lostFrom: number;
  readonly lostTo: number;
  /** Up to here they had been counted. */
  readonly countedTo: number;
  /** Events that had been made durable behind that. */
  readonly countedBeyond: number;
  /** The sequence from which the present log is read. */
  readonly readFrom: number;
  /** Acceptance of the newest block behind the watermark, epoch milliseconds; 0 for none. */
  readonly acceptedAtMs: number;
}

/** What an operator has to know, in one sentence after the other. */
export function tellLoss(stream: string, loss: Loss): string {
  const { reason, incarnation, lostFrom, lostTo, countedTo, countedBeyond, readFrom, acceptedAtMs } = loss;
  const since = acceptedAtMs === 0 ? 'ever' : `since a minute before ${new Date(acceptedAtMs).toISOString()}`;
  return (
    `incarnation mismatch: ${reason}. ` +
    (lostTo < lostFrom
      ? `Everything in ${stream} up to ${readFrom - 1} was counted; `
      : `Messages ${lostFrom} to ${lostTo} of ${stream} as it was are gone; ` +
        `what was counted of them (up to ${countedTo}, and ${countedBeyond} events behind) stays counted; `) +
    `incarnation ${incarnation} goes on with the present log from ${readFrom}, and nothing counts twice. ` +
    'Events that the broker had acknowledged and lost before they were read are not counted: edges with a journal ' +
    `send them again by themselves, otherwise have the producers send everything again that they sent ${since}, ` +
    'with the same ids. Then find out why NATS lost data.'
  );
}
