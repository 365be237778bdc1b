/**
 * What an outcome is as an answer of HTTP: its status and its body, in our shape or in that of OpenMeter.
 *
 *   path             all accepted    some rejected                  all rejected
 *   /v1/events       202 with counts 202 with counts and the list   422 with the list
 *   /api/v1/events   204, no body    400 with counts and the list   400 with the list
 *
 * OpenMeter has no partial answer: its clients look at nothing but the status. An answer of success would hide
 * the rejected events from them, so there is an error as soon as one is rejected. The others are stored none the
 * less, and a client that sends all of them again changes nothing.
 */
import { REJECTIONS, type RejectedEvent } from '../../contract/rejections.ts';
import type { IntakeAnswer } from '../intake.ts';
import { edgeProblem, type EdgeProblemCode } from '../problems.ts';
import { retryAfterSeconds } from '../tenant/quota.ts';

export type AnswerShape = 'tallyline' | 'openmeter';

export interface HttpAnswer {
  readonly status: number;
  /** A string is ASCII, so that its length is that of its bytes. Empty: there is none. */
  readonly body: string | Buffer;
  /** Seconds; 0 for no such header field. */
  readonly retryAfter: number;
}

const RETRY_AFTER_SECONDS = 1;

const ONE_ACCEPTED = taken('{"accepted":1,"rejected":[]}');
const ALL_ACCEPTED: HttpAnswer = { status: 204, body: '', retryAfter: 0 };

export function httpAnswer(answer: IntakeAnswer, shape: AnswerShape): HttpAnswer {
  if (!answer.taken) return problemAnswer(answer.code, answer.detail, answer.retryAfterMs);
  const { accepted, rejected, unmatched } = answer;
  if (rejected.length > 0) return rejectedAnswer(accepted, rejected, unmatched, shape);
  if (shape === 'openmeter') return ALL_ACCEPTED;
  if (unmatched > 0) return taken(`{"accepted":${accepted},"rejected":[],"unmatched":${unmatched}}`);
  return accepted === 1 ? ONE_ACCEPTED : taken(`{"accepted":${accepted},"rejected":[]}`);
}

export function rejectedAnswer(
  accepted: number,
  rejected: readonly RejectedEvent[],
  unmatched: number,
  shape: AnswerShape,
): HttpAnswer {
  const more = unmatched > 0 ? { unmatched } : {};
  if (accepted > 0 && shape === 'tallyline') return taken(encoded({ accepted, rejected, ...more }));
  const code = shape === 'openmeter' ? 'events_rejected' : 'no_event_admitted';
  const problem = edgeProblem(code, undefined, { accepted, rejected, ...more });
  return { status: problem.status, body: encoded(problem), retryAfter: 0 };
}

const known = new Map<EdgeProblemCode, HttpAnswer>();

/** `detail` says more than the table; without one the answer is made once. */
export function problemAnswer(code: EdgeProblemCode, detail?: string, retryAfterMs?: number): HttpAnswer {
  if (detail !== undefined || retryAfterMs !== undefined) return problem(code, detail, retryAfterMs);
  let answer = known.get(code);
  if (answer === undefined) known.set(code, (answer = problem(code)));
  return answer;
}

/** The same, saying how large a body may be. */
export function tooLarge(bodyBytesMax: number): HttpAnswer {
  return problemAnswer(
    'body_too_large',
    `${REJECTIONS.body_too_large.message} At most ${bodyBytesMax} bytes.`,
  );
}

function problem(code: EdgeProblemCode, detail?: string, retryAfterMs?: number): HttpAnswer {
  const found = edgeProblem(code, detail);
  let retryAfter = 0;
  if (retryAfterMs !== undefined) retryAfter = Math.max(1, retryAfterSeconds(retryAfterMs));
  else if (found.status === 503 || found.status === 429) retryAfter = RETRY_AFTER_SECONDS;
  return { status: found.status, body: encoded(found), retryAfter };
}

function taken(body: string | Buffer): HttpAnswer {
  return { status: 202, body, retryAfter: 0 };
}

function encoded(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}
