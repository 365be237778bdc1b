/** The limits of one event; the message of `field_too_long` names them. Bytes of UTF-8. */
export const EVENT_LIMITS = { idBytes: 256, subjectBytes: 256, sourceBytes: 512, typeBytes: 128 } as const;

/** An event as a product sends it: CloudEvents 1.0 names, without the envelope attributes we do not need. */
export interface UsageEvent {
  readonly id: string;
  /** Where the event comes from; with `id` it makes the identity. Optional over HTTP, then "" is kept. */
  readonly source?: string;
  readonly type: string;
  readonly subject: string;
  /** RFC 3339; absent means the time of acceptance. Digits beyond the millisecond are cut. */
  readonly time?: string;
  readonly data?: Readonly<Record<string, unknown>>;
  /** The id of the event of the same source that this one takes out of what counts; then it is a void. */
  readonly voids?: string;
  /** The id of the event of the same source in whose place this one counts. */
  readonly amends?: string;
}
