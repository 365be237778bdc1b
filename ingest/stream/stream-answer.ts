/** The server's messages of a stream as bytes: text for JSON, a map for msgpack (contract/stream.ts). */
import { Packr } from 'msgpackr';
import type { ServerMessage } from '../../contract/stream.ts';
import type { IntakeAnswer } from '../intake.ts';
import { edgeProblem, type EdgeProblemCode } from '../problems.ts';

// Plain maps, which every decoder reads; not the records of this one encoder.
const packr = new Packr({ useRecords: false, variableMapSize: true });

export function encodeServerMessage(message: ServerMessage, json: boolean): string | Uint8Array {
  return json ? JSON.stringify(message) : packr.pack(message);
}

/** Used when nothing better is known of when to try again. */
const RETRY_AFTER_MS = 1_000;

export function answerTo(batch: number, answer: IntakeAnswer): ServerMessage {
  if (!answer.taken) return refusal(batch, answer.code, answer.detail, answer.retryAfterMs);
  const { accepted, rejected, unmatched } = answer;
  return unmatched === 0
    ? { type: 'ack', batch, accepted, rejected }
    : { type: 'ack', batch, accepted, rejected, unmatched };
}

/** The same code and words as over HTTP. What is worth a retry there is so here: 429, 500 and 503. */
export function refusal(
  batch: number,
  code: EdgeProblemCode,
  detail?: string,
  retryAfterMs?: number,
): ServerMessage {
  const problem = edgeProblem(code, detail);
  const retry = problem.status === 429 || problem.status >= 500;
  return {
    type: 'refused',
    batch,
    code,
    message: problem.detail,
    retry,
    retryAfterMs: retry ? (retryAfterMs ?? RETRY_AFTER_MS) : 0,
  };
}
