/**
 * What the edge answers when it does not take a request (RFC 9457). Codes are stable: clients branch on
 * them. What is wrong with the events themselves has its codes in contract/rejections.ts, which are used
 * here for a body as a whole.
 */
import { REJECTIONS, type EdgeRejectionCode } from '../contract/rejections.ts';

interface ProblemKind {
  readonly status: 400 | 401 | 403 | 404 | 405 | 408 | 413 | 415 | 422 | 426 | 429 | 500 | 503;
  /** The same for every occurrence. */
  readonly title: string;
  /** What to do. */
  readonly detail: string;
}

const kind = (status: ProblemKind['status'], title: string, detail: string): ProblemKind => ({
  status,
  title,
  detail,
});

const SAFE_RETRY =
  'Send the same events again with the same ids: one that is already stored is not counted twice.';
const NOTHING_STORED = 'Nothing of this request was stored: send it again.';

export const EDGE_PROBLEMS = {
  key_missing: kind(401, 'No API key was sent.', 'Send the header `Authorization: Bearer tl_…`.'),
  key_invalid: kind(
    401,
    'The API key is not known, was revoked, or has ended.',
    'Check the key, or ask for a new one.',
  ),
  scope_missing: kind(403, 'The API key may not send events.', 'Use a key that has the scope `ingest`.'),
  not_found: kind(404, 'There is no such thing here.', 'Events go to POST /v1/events.'),
  method_not_allowed: kind(405, 'The method is not allowed here.', 'Events are sent with POST.'),
  body_too_slow: kind(408, 'The body did not come in time.', NOTHING_STORED),
  no_event_admitted: kind(
    422,
    'Every event of the request was rejected.',
    'Correct what `rejected` says of each event; the same events sent again are rejected again.',
  ),
  events_rejected: kind(
    400,
    'Some events of the request were rejected, all others are stored.',
    'Correct what `rejected` says of each. To send the others again with the same ids changes nothing.',
  ),
  upgrade_required: kind(
    426,
    'This is the address of a WebSocket.',
    'Open it as one, with the subprotocol `tallyline.v1.json` or `tallyline.v1.msgpack`.',
  ),
  subprotocol_unknown: kind(
    400,
    'No subprotocol that is spoken here was offered.',
    'Offer `tallyline.v1.json` or `tallyline.v1.msgpack` in Sec-WebSocket-Protocol.',
  ),
  too_many_connections: kind(503, 'Too many streams are open.', 'Use one stream for many events.'),
  quota_exceeded: kind(
    429,
    'The tenant has used up its quota for now.',
    'Nothing of this request was stored: send it again when the time of Retry-After is over.',
  ),
  internal_error: kind(500, 'Something is wrong on our side.', SAFE_RETRY),
  edge_busy: kind(503, 'Too much is on its way to the log.', NOTHING_STORED),
  edge_stopping: kind(503, 'This server is going away.', NOTHING_STORED),
  log_unavailable: kind(503, 'The log cannot be reached.', NOTHING_STORED),
  log_unconfirmed: kind(
    503,
    'The log did not confirm every event.',
    `Some events of this request may have been stored, others not. ${SAFE_RETRY}`,
  ),
  log_full: kind(
    503,
    'The log is full until its readers have caught up.',
    `Some events of this request may have been stored, others not. ${SAFE_RETRY}`,
  ),
  journal_full: kind(
    503,
    'The log cannot be reached or is full, and so is the journal of this server.',
    `Some events of this request may have been stored, others not. ${SAFE_RETRY}`,
  ),
} as const satisfies Record<string, ProblemKind>;

export type EdgeProblemCode = keyof typeof EDGE_PROBLEMS | EdgeRejectionCode;

export interface Problem {
  readonly type: 'about:blank';
  readonly title: string;
  readonly status: number;
  readonly code: EdgeProblemCode;
  readonly detail: string;
  readonly [member: string]: unknown;
}

/** `detail` says more than the table; `members` are added to the body. */
export function edgeProblem(
  code: EdgeProblemCode,
  detail?: string,
  members: Readonly<Record<string, unknown>> = {},
): Problem {
  const found = isOwn(code) ? EDGE_PROBLEMS[code] : rejection(code);
  return {
    type: 'about:blank',
    title: found.title,
    status: found.status,
    code,
    detail: detail ?? found.detail,
    ...members,
  };
}

function isOwn(code: EdgeProblemCode): code is keyof typeof EDGE_PROBLEMS {
  return Object.hasOwn(EDGE_PROBLEMS, code);
}

function rejection(code: EdgeRejectionCode): Pick<ProblemKind, 'status' | 'title' | 'detail'> {
  const { status, message } = REJECTIONS[code];
  return { status, title: message, detail: message };
}
