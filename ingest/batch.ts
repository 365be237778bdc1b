/**
 * From the body of a request to admitted events. Callers see bytes go in and events come out one by one;
 * that the bytes become JavaScript objects on the way is this file's business alone.
 *
 * A body of JSON is one document: when it cannot be read, nothing in it can, and the request is refused
 * with the place of the fault. In NDJSON every line stands for itself: a bad line is one rejected event.
 */
import { isAscii, isUtf8 } from 'node:buffer';
import type { AdmittedEvent } from '../contract/event.ts';
import { REJECTIONS, type EdgeRejectionCode, type RejectedEvent } from '../contract/rejections.ts';
import type { Admission } from './admit.ts';
import { elementsWithRoundedNumber, isRounded, mayHoldRoundedNumber, scanJson } from './json-scan.ts';

export type BatchFormat = 'json' | 'ndjson';

export interface BatchContext {
  readonly admission: Admission;
  readonly tenant: string;
  /** The time of acceptance, epoch milliseconds. */
  readonly nowMs: number;
}

/** Takes each admitted event. The event is scratch space, valid until the sink returns. */
export type EventSink = (event: AdmittedEvent) => void;

export type BodyFault = 'body_not_json' | 'body_not_unicode' | 'batch_too_large';

/** `read` false: the body as a whole was refused, and the sink has seen nothing of it. */
export type BatchOutcome =
  | { readonly read: true; readonly admitted: number; readonly rejected: readonly RejectedEvent[] }
  | { readonly read: false; readonly code: BodyFault; readonly message: string };

/** `body` is not kept: it may be memory that is gone after the call. */
export function admitBatch(
  body: Uint8Array,
  format: BatchFormat,
  context: BatchContext,
  sink: EventSink,
): BatchOutcome {
  return format === 'json' ? admitJson(body, context, sink) : admitLines(body, context, sink);
}

function admitJson(body: Uint8Array, context: BatchContext, sink: EventSink): BatchOutcome {
  const text = textOf(body);
  if (text === null) return refuse('body_not_unicode');
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    const at = scanJson(text, () => undefined);
    const where = at >= text.length || at < 0 ? 'it ends too early' : `the fault is at character ${at}`;
    return refuse('body_not_json', where);
  }
  const events: readonly unknown[] = Array.isArray(parsed) ? parsed : [parsed];
  const { batchEventsMax } = context.admission;
  if (events.length > batchEventsMax) return refuse('batch_too_large', `at most ${batchEventsMax}`);
  const rounded = mayHoldRoundedNumber(body) ? elementsWithRoundedNumber(text) : null;
  const batch = new Batch(context, sink);
  for (let at = 0; at < events.length; at++) batch.take(at, events[at], rounded?.has(at) === true);
  return batch.outcome();
}

function admitLines(body: Uint8Array, context: BatchContext, sink: EventSink): BatchOutcome {
  const lines = linesOf(body);
  const { batchEventsMax } = context.admission;
  let events = 0;
  for (const line of lines) if (line === null || !isBlank(line)) events += 1;
  if (events > batchEventsMax) return refuse('batch_too_large', `at most ${batchEventsMax}`);
  const mayBeRounded = mayHoldRoundedNumber(body);
  const batch = new Batch(context, sink);
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    if (line !== null && isBlank(line)) continue;
    let value: unknown;
    try {
      if (line === null) throw new SyntaxError('not UTF-8');
      value = JSON.parse(line);
    } catch {
      batch.reject(at, null, 'line_not_json', REJECTIONS.line_not_json.message);
      continue;
    }
    batch.take(at, value, mayBeRounded && holdsRounded(line));
  }
  return batch.outcome();
}

class Batch {
  readonly #context: BatchContext;
  readonly #sink: EventSink;
  readonly #rejected: RejectedEvent[] = [];
  #admitted = 0;

  constructor(context: BatchContext, sink: EventSink) {
    this.#context = context;
    this.#sink = sink;
  }

  take(index: number, value: unknown, rounded: boolean): void {
    const { admission, tenant, nowMs } = this.#context;
    const code = admission.admit(value, tenant, nowMs);
    if (code !== null) this.reject(index, idOf(value), code, admission.message(code));
    else if (rounded)
      this.reject(index, idOf(value), 'number_not_exact', `data: ${REJECTIONS.number_not_exact.message}`);
    else {
      this.#admitted += 1;
      this.#sink(admission.event);
    }
  }

  reject(index: number, id: string | null, code: EdgeRejectionCode, message: string): void {
    this.#rejected.push({ index, id, code, message });
  }

  outcome(): BatchOutcome {
    return { read: true, admitted: this.#admitted, rejected: this.#rejected };
  }
}

function refuse(code: BodyFault, more?: string): BatchOutcome {
  const { message } = REJECTIONS[code];
  return { read: false, code, message: more === undefined ? message : `${message.slice(0, -1)} (${more}).` };
}

/** The id to name an event by in the answer: a text that is short enough to be one. */
function idOf(value: unknown): string | null {
  if (typeof value !== 'object' || value === null) return null;
  const { id } = value as { id?: unknown };
  return typeof id === 'string' && id.length <= 256 ? id : null;
}

/** Null when the bytes are no UTF-8. */
function textOf(bytes: Uint8Array): string | null {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isAscii(buffer)) return buffer.toString('latin1');
  return isUtf8(buffer) ? buffer.toString('utf8') : null;
}

/** The lines of the body; one that is no UTF-8 is null and spoils no other. */
function linesOf(body: Uint8Array): (string | null)[] {
  const text = textOf(body);
  if (text !== null) return text.split('\n');
  const lines: (string | null)[] = [];
  for (let start = 0; start <= body.length;) {
    const newline = body.indexOf(0x0a, start);
    const end = newline < 0 ? body.length : newline;
    lines.push(textOf(body.subarray(start, end)));
    start = end + 1;
  }
  return lines;
}

function isBlank(line: string): boolean {
  return line.charCodeAt(0) !== 0x7b && line.trim() === '';
}

function holdsRounded(line: string): boolean {
  let found = false;
  scanJson(line, (literal) => {
    if (!found) found = isRounded(literal);
  });
  return found;
}
