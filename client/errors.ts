import type { UsageEvent } from '../contract/event.ts';
import type { Rejection } from './options.ts';

/** `record` with `onFull: 'throw'`: the event was not taken. */
export class BufferFullError extends Error {
  override readonly name = 'BufferFullError';
}

/** `record` after `close`: the event was not taken. */
export class ClientClosedError extends Error {
  override readonly name = 'ClientClosedError';
}

/** Events could not be sent yet. They are still in the buffer, and go with the next flush. */
export class UnsentError extends Error {
  override readonly name = 'UnsentError';
  readonly buffered: number;
  /** The code of the edge's last answer, such as `log_full` or `key_invalid`; null when there was no answer. */
  readonly code: string | null;

  constructor(buffered: number, cause: unknown, code: string | null = null) {
    super(`${buffered} events could not be sent yet: ${messageOf(cause)}`, { cause });
    this.buffered = buffered;
    this.code = code;
  }
}

/** `close` ended with events that could not be sent: here they are, to be kept and recorded again. */
export class UnsentEventsError extends Error {
  override readonly name = 'UnsentEventsError';
  readonly events: readonly UsageEvent[];

  constructor(events: readonly UsageEvent[], cause: unknown) {
    super(`closed with ${events.length} events that could not be sent: ${messageOf(cause)}`, { cause });
    this.events = events;
  }
}

/** Events were refused for good and nobody listens with `onRejected`. */
export class RejectedEventsError extends Error {
  override readonly name = 'RejectedEventsError';
  /** The first 1,000 of them. */
  readonly rejections: readonly Rejection[];
  readonly total: number;

  constructor(rejections: readonly Rejection[], total: number) {
    const first = rejections[0];
    super(`${total} events were refused; the first: ${first?.code} (${first?.message})`);
    this.rejections = rejections;
    this.total = total;
  }
}

/**
 * The folder of the spool cannot be used: another process has it, or the disk is full or broken. With an `event`, it
 * was not taken. Should it have reached the disk all the same, then under the id that it has here: recorded again as
 * it stands, it counts once.
 */
export class SpoolError extends Error {
  override readonly name = 'SpoolError';
  readonly event: UsageEvent | null;

  constructor(message: string, cause?: unknown, event: UsageEvent | null = null) {
    super(cause === undefined ? message : `${message}: ${messageOf(cause)}`, { cause });
    this.event = event;
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
