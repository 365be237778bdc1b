/**
 * One request to the edge and what its answer means. Nothing here waits or tries again.
 */
import type { RejectedEvent } from '../contract/rejections.ts';

/**
 * taken    the edge has answered for every event: those listed are refused, all others are in the log
 * refused  the request as a whole is refused for good
 * later    no answer, or one that says to come back: the events may be in the log or not, and the same ids
 *          make sending them again harmless
 */
export type Answer =
  | {
      readonly outcome: 'taken';
      readonly status: number;
      readonly rejected: readonly RejectedEvent[];
    }
  | {
      readonly outcome: 'refused';
      readonly status: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly outcome: 'later'; readonly error: Error; readonly retryAfterMs: number | null };

/** Of the 4xx, those that are about the moment and not about the request: timeout, too early, too many. */
const COME_BACK: ReadonlySet<number> = new Set([408, 425, 429]);

export interface Endpoint {
  readonly url: string;
  readonly key: string;
  readonly timeoutMs: number;
  readonly fetch: typeof fetch;
  now(): number;
}

export async function send(endpoint: Endpoint, body: string, events: number): Promise<Answer> {
  let response: Response;
  let text: string;
  try {
    response = await endpoint.fetch(endpoint.url, {
      method: 'POST',
      headers: { authorization: `Bearer ${endpoint.key}`, 'content-type': 'application/json' },
      body,
      redirect: 'error',
      signal: AbortSignal.timeout(endpoint.timeoutMs),
    });
    text = await response.text();
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const why = cause instanceof Error ? cause.message : String(cause);
    return later(new Error(`no answer from ${endpoint.url}: ${why}`, { cause: error }), null);
  }
  const { status } = response;
  const answer = parse(text);
  if (status === 202 || status === 422) {
    const rejected = rejectedOf(answer, events);
    if (rejected !== null && (status === 202 || rejected.length > 0))
      return { outcome: 'taken', status, rejected };
    // A 202 that does not account for the events is not from an edge of ours: it promises nothing.
    if (status === 202) return later(new Error('the answer 202 does not say which events were taken'), null);
  }
  const { code, detail, title } = answer;
  const message =
    typeof detail === 'string' ? detail : typeof title === 'string' ? title : response.statusText;
  if (COME_BACK.has(status) || status < 400 || status >= 500) {
    const wait = retryAfterMs(response.headers.get('retry-after'), endpoint.now());
    return later(new Error(`${status} from ${endpoint.url}: ${message}`), wait);
  }
  return { outcome: 'refused', status, code: typeof code === 'string' ? code : `http_${status}`, message };
}

/** RFC 9110: seconds, or a date. */
export function retryAfterMs(header: string | null, nowMs: number): number | null {
  if (header === null) return null;
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1_000;
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : Math.max(0, at - nowMs);
}

function later(error: Error, wait: number | null): Answer {
  return { outcome: 'later', error, retryAfterMs: wait };
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** The list of refusals, or null when it is not there or does not account for `events` events. */
function rejectedOf(answer: Record<string, unknown>, events: number): readonly RejectedEvent[] | null {
  const { accepted, rejected } = answer;
  if (typeof accepted !== 'number' || !Array.isArray(rejected)) return null;
  if (accepted + rejected.length !== events) return null;
  const list = rejected as readonly RejectedEvent[];
  const indexes = new Set(list.map((one) => one.index));
  if (indexes.size !== list.length) return null;
  return list.every(({ index }) => Number.isInteger(index) && index >= 0 && index < events) ? list : null;
}
