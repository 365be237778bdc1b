// Sends events through the edge, over and over until it takes them. An edge that is full, away or over the quota of
// the tenant is waited for: the ids make it safe to send the same again. A bad event never takes its neighbours
// with it, not even one that spoils the whole body: such a batch is halved until the event stands alone.
import { backoffMs } from '../runtime/backoff.ts';
import { sleep } from '../runtime/retry.ts';

export interface Edge {
  readonly edge: string;
  readonly key: string;
}

/** An event that the edge did not take; `index` counts from 0 in the batch. */
export interface RejectedOfBatch {
  readonly index: number;
  readonly code: string;
  readonly message: string;
}

export interface SendOptions {
  /** How long an edge that does not take the batch is waited for. */
  readonly patienceMs: number;
  /** Called before each repetition, with what the edge said. */
  readonly onWait?: (said: string) => void;
  /** Ends the waiting. */
  readonly signal?: AbortSignal;
}

/** The edge did not take the batch, and trying again is of no use, or was for too long. */
export class NotTaken extends Error {
  override readonly name = 'NotTaken';
}

const PAUSE = { baseMs: 200, maxMs: 5_000 };
const REQUEST_TIMEOUT_MS = 60_000;
const SAID_CHARACTERS_MAX = 500;
const LINE_END = Buffer.from('\n');

/** Events as JSON, each on one line. Returns those that were rejected, in order. */
export async function sendBatch(
  to: Edge,
  events: readonly Buffer[],
  options: SendOptions,
): Promise<RejectedOfBatch[]> {
  const answer = await sendWhole(to, events, options);
  if ('rejected' in answer) return [...answer.rejected];
  if (events.length === 1) return [{ index: 0, ...answer.spoiled }];
  const half = events.length >> 1;
  const first = await sendBatch(to, events.slice(0, half), options);
  const second = await sendBatch(to, events.slice(half), options);
  return [...first, ...second.map((one) => ({ ...one, index: one.index + half }))];
}

type BatchAnswer =
  | { readonly rejected: readonly RejectedOfBatch[] }
  | { readonly spoiled: { readonly code: string; readonly message: string } };

async function sendWhole(
  { edge, key }: Edge,
  events: readonly Buffer[],
  { patienceMs, onWait, signal }: SendOptions,
): Promise<BatchAnswer> {
  const body = Buffer.concat(events.flatMap((event) => [event, LINE_END]));
  const begun = performance.now();
  for (let attempt = 0; ; attempt++) {
    let said: string;
    let waitMs = backoffMs(attempt, PAUSE, Math.random);
    try {
      const response = await fetch(new URL('/v1/events', edge), {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/x-ndjson' },
        body,
        signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      });
      const text = await response.text();
      const answer = answerOf(response.status, text);
      if (answer !== null) return answer;
      said = `${response.status}: ${text.slice(0, SAID_CHARACTERS_MAX)}`;
      if (response.status < 500 && response.status !== 429 && response.status !== 408)
        throw new NotTaken(said);
      waitMs = Math.max(waitMs, Number(response.headers.get('retry-after') ?? 0) * 1_000);
    } catch (error) {
      if (error instanceof NotTaken) throw error;
      said = whyOf(error);
    }
    if (performance.now() - begun + waitMs > patienceMs || signal?.aborted === true) throw new NotTaken(said);
    onWait?.(said);
    await sleep(waitMs, signal);
  }
}

/** Null: neither taken nor read. */
function answerOf(status: number, text: string): BatchAnswer | null {
  if (![202, 400, 413, 422].includes(status)) return null;
  let body: { rejected?: readonly RejectedOfBatch[]; code?: string; title?: string; detail?: string };
  try {
    body = JSON.parse(text) as typeof body;
  } catch {
    return null;
  }
  if (body.rejected !== undefined) return { rejected: body.rejected };
  if (status !== 400 && status !== 413) return null;
  return { spoiled: { code: body.code ?? String(status), message: body.detail ?? body.title ?? text } };
}

/** fetch says "fetch failed" and keeps the reason behind it. */
function whyOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
