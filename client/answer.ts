/**
 * What stands between the core of the client and its two transports: a batch goes out, one answer comes back. A
 * transport never tries again by itself and never loses a batch: each `send` is answered once.
 */
import { REJECTIONS, type RejectedEvent } from '../contract/rejections.ts';

export interface Batch {
  /** A JSON array. Encoded once: every time it is sent, it is the same. */
  readonly body: string;
  /** Of the body as UTF-8. */
  readonly bytes: number;
  readonly events: number;
}

/**
 * taken    the edge has answered for every event: those listed are refused, all others are in the log
 * refused  these events are refused for good, all of them
 * later    no answer, or one that says to come back: the events may be in the log or not, and the same ids
 *          make sending them again harmless
 * held     the edge cannot be used like this (the key, the address): nothing was said of the events, and no
 *          attempt of ours can help
 */
export type Answer =
  | { readonly outcome: 'taken'; readonly status: number; readonly rejected: readonly RejectedEvent[] }
  | {
      readonly outcome: 'refused';
      readonly status: number;
      readonly code: string;
      readonly message: string;
    }
  | {
      readonly outcome: 'later';
      readonly error: Error;
      readonly code: string | null;
      readonly retryAfterMs: number | null;
      /** The transport waits by itself before it connects again: no wait is due before the next `send`. */
      readonly paced?: true;
    }
  | { readonly outcome: 'held'; readonly error: Error; readonly code: string };

export interface Sender {
  /** Batches that may be under way now. */
  readonly inFlightMax: number;
  /** Connections made again after one was lost or sent us away. */
  readonly reconnects: number;
  /** Never rejects. */
  send(batch: Batch): Promise<Answer>;
  /** Nothing is sent after it. */
  close(): void;
}

export function later(error: Error, code: string | null, retryAfterMs: number | null): Answer {
  return { outcome: 'later', error, code, retryAfterMs };
}

/** Of the 4xx, those that are about the moment: timeout, too early, too many. */
const COME_BACK: ReadonlySet<number> = new Set([408, 425, 429]);
/** Those that are about the key or the address, and say nothing of the events. */
const MISTAKEN: ReadonlySet<number> = new Set([401, 403, 404, 405, 407]);

/** What an answer other than 202 and 422 means by its status. */
export function meaningOf(status: number): 'later' | 'held' | 'refused' {
  if (COME_BACK.has(status) || status < 400 || status >= 500) return 'later';
  return MISTAKEN.has(status) ? 'held' : 'refused';
}

const STATUSES: Readonly<Record<string, number>> = {
  key_missing: 401,
  key_invalid: 401,
  scope_missing: 403,
};

/** The status with which the code comes over HTTP, for a transport that has none. */
export function statusOf(code: string): number {
  if (Object.hasOwn(REJECTIONS, code)) return REJECTIONS[code as keyof typeof REJECTIONS].status;
  return STATUSES[code] ?? 400;
}

/** RFC 9110: seconds, or a date. */
export function retryAfterMs(header: string | null, nowMs: number): number | null {
  if (header === null) return null;
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1_000;
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs);
}

/** `{}` for what is no JSON object. */
export function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** The list of refusals, or null when it is not there or does not account for `events` events. */
export function rejectedOf(
  answer: Readonly<Record<string, unknown>>,
  events: number,
): readonly RejectedEvent[] | null {
  const { accepted, rejected } = answer;
  if (typeof accepted !== 'number' || !Array.isArray(rejected)) return null;
  if (accepted + rejected.length !== events) return null;
  const list = rejected as readonly RejectedEvent[];
  const indexes = new Set(list.map((one) => one.index));
  if (indexes.size !== list.length) return null;
  return list.every(({ index }) => Number.isInteger(index) && index >= 0 && index < events) ? list : null;
}
