/**
 * The one table of what the API refuses and why (RFC 9457). A code is stable: clients branch on it, and the
 * problem's `type` leads to its entry in /docs. `detail` says what to do about it; a route may say it more
 * precisely. A `transient` problem may be gone the next time the same request is sent, so its answer is not
 * kept under an Idempotency-Key.
 */
export interface ProblemKind {
  readonly status: 400 | 401 | 403 | 404 | 406 | 409 | 413 | 415 | 422 | 500 | 503;
  /** The same for every occurrence. */
  readonly title: string;
  /** What to do, when the route knows nothing better. */
  readonly detail: string;
  readonly transient: boolean;
}

const final = (status: ProblemKind['status'], title: string, detail: string): ProblemKind => ({
  status,
  title,
  detail,
  transient: false,
});
const transient = (status: ProblemKind['status'], title: string, detail: string): ProblemKind => ({
  status,
  title,
  detail,
  transient: true,
});

export const PROBLEMS = {
  validation_failed: final(
    400,
    'The request is not valid.',
    'Correct every mistake listed in `errors` and send the request again.',
  ),
  body_unreadable: final(400, 'The body is not JSON.', 'Send a well-formed JSON object as the body.'),
  cursor_invalid: final(
    400,
    'The cursor does not belong to this request.',
    'Pass a `nextCursor` back unchanged, with the same parameters, or start again without a cursor.',
  ),
  key_missing: final(
    401,
    'No API key was sent.',
    'Send the header `Authorization: Bearer tl_…` with a key of your tenant.',
  ),
  key_invalid: final(
    401,
    'The API key is not known, was revoked, or has ended.',
    'Check the key, or ask an administrator of the tenant for a new one.',
  ),
  scope_missing: final(
    403,
    'The API key lacks the scope for this request.',
    'Use a key that has the scope named in `requiredScope`.',
  ),
  not_found: final(
    404,
    'There is no such thing here.',
    'Check the path and the method; `/docs` lists all of them.',
  ),
  meter_not_found: final(404, 'There is no meter with this key.', 'List the meters with GET /v1/meters.'),
  backfill_not_found: final(
    404,
    'The meter has no backfill with this id.',
    'List the backfills with GET /v1/meters/{key}/backfills.',
  ),
  plan_not_found: final(
    404,
    'There is no plan with this key and version.',
    'List the plans with GET /v1/plans, or publish one with POST /v1/plans.',
  ),
  customer_not_found: final(
    404,
    'There is no customer with this id.',
    'Create the customer with PUT /v1/customers/{id}.',
  ),
  invoice_not_found: final(
    404,
    'There is no invoice with this id.',
    'List the invoices of a customer with GET /v1/customers/{id}/invoices.',
  ),
  key_not_found: final(404, 'There is no API key with this id.', 'List the keys with GET /v1/keys.'),
  format_not_acceptable: final(
    406,
    'None of the accepted media types can be given.',
    'Accept application/json, application/x-ndjson, text/csv or application/vnd.apache.parquet, or use `format`.',
  ),
  idempotency_in_progress: transient(
    409,
    'A request with this Idempotency-Key is being worked on.',
    'Wait a moment and send the same request again to get its answer.',
  ),
  meter_conflict: final(
    409,
    'Another meter has this key.',
    'A meter never changes under its key: choose another key for the new definition.',
  ),
  backfill_not_ready: transient(
    409,
    'Not every shard has the backfill yet.',
    'Send the request again in a few seconds; GET tells how many shards have it.',
  ),
  backfill_overlaps: final(
    409,
    'Another backfill of the meter holds some of these hours.',
    'Revert the other one first, or propose other hours.',
  ),
  backfill_state: final(
    409,
    'The backfill is not in a state in which this can be done.',
    'Look at its `state` with GET; propose another one if it is over.',
  ),
  terms_fixed: final(
    409,
    'Currency, plan and anchor can no longer change.',
    'Usage of the customer is already posted under them: leave them as they are.',
  ),
  key_revoked: final(
    409,
    'The API key is revoked.',
    'A revoked key cannot be rotated: make a new one with POST /v1/keys.',
  ),
  key_rotated: final(
    409,
    'The API key was rotated already.',
    'Rotate the key that took its place, which `replacedBy` names.',
  ),
  subject_billed: final(
    409,
    'A subject with posted usage cannot be taken away.',
    'Keep the subject with this customer.',
  ),
  subject_taken: final(
    409,
    'A subject belongs to another customer.',
    'A subject belongs to one customer of a tenant: take it from the other customer first.',
  ),
  no_subscription: final(
    409,
    'The customer had no subscription in this period.',
    'Periods are billed from the anchor of the customer on.',
  ),
  period_open: transient(
    409,
    'The period is not over yet.',
    'Close it after `endsAt`. Until then GET /v1/customers/{id}/balance shows what has accrued.',
  ),
  behind: transient(
    409,
    'Not all usage of the period has been posted yet.',
    'Send the request again in a few seconds; if it stays, look at the metering lag of the ledger.',
  ),
  usage_mismatch: transient(
    409,
    'The usage recomputed from raw events differs from the rollup or from what was posted.',
    'The invoice is held back. Look into the `differences`, repair them, and close again.',
  ),
  body_too_large: final(
    413,
    'The body is too large.',
    'Send a smaller body; the limit is named in the detail.',
  ),
  media_type_unsupported: final(
    415,
    'The media type of the body is not supported.',
    'Send JSON with the header `Content-Type: application/json`.',
  ),
  idempotency_key_reused: final(
    422,
    'This Idempotency-Key was used for another request.',
    'Use a new key for every different request, and the same key only to repeat one.',
  ),
  meters_limit_reached: final(
    422,
    'The tenant has as many meters as it may have.',
    'Use an existing meter, or its groupBy, instead of one meter per value.',
  ),
  backfills_limit_reached: final(
    422,
    'The meter has as many backfills as it may have.',
    'Give a new meter the definition of this one, and backfill that.',
  ),
  plan_unknown: final(
    422,
    'There is no such plan for the customer.',
    'Publish the plan with POST /v1/plans first, or name a version that exists.',
  ),
  plan_currency: final(
    422,
    'The plan is in another currency than the customer.',
    'Choose a plan in the currency of the customer.',
  ),
  not_a_period: final(
    422,
    'No period of the customer begins at this instant.',
    'Send the `periodStart` that the answer names.',
  ),
  group_by_unknown: final(
    422,
    'The meter does not keep this dimension.',
    'Group and filter by `subject` and by the paths in the groupBy of the meter.',
  ),
  range_invalid: final(
    422,
    'The range is empty or too long.',
    'Choose a `from` before `to`, and a range within the limit of the window.',
  ),
  timezone_unknown: final(
    422,
    'The time zone is not known.',
    'Use a name of the IANA time zone database, such as Europe/Berlin.',
  ),
  percentile_unavailable: final(
    422,
    'The events of the meter have no number to rank.',
    'Ask for percentiles of a sum, min, max, average or latest.',
  ),
  usage_too_many_rows: final(
    422,
    'The answer has too many rows.',
    'Choose a shorter range, a larger window or fewer groups, or page through format=json.',
  ),
  usage_query_too_large: final(
    422,
    'The query would read too much.',
    'Choose a shorter range, fewer subjects or fewer groups.',
  ),
  internal: transient(
    500,
    'Something went wrong on our side.',
    'Send the request again; if it stays, report the `instance` of this problem.',
  ),
  usage_not_ready: transient(
    503,
    'Usage cannot be read yet.',
    'The aggregator has not set up its tables yet: try again in a few seconds.',
  ),
  usage_unavailable: transient(
    503,
    'Usage cannot be read at the moment.',
    'Try again in a few seconds, with a shorter range if it was a long one.',
  ),
  log_unavailable: transient(
    503,
    'The event log cannot be reached at the moment.',
    'Nothing is lost: send the same request again in a few seconds.',
  ),
  busy: transient(503, 'Too much is going on at once.', 'Try again in a few seconds.'),
} as const satisfies Record<string, ProblemKind>;

export type ProblemCode = keyof typeof PROBLEMS;

/** One mistake of a request: where it is ("prices[1].tiers[0].upTo", "limit", "" for the whole) and what to do. */
export interface Mistake {
  readonly path: string;
  readonly message: string;
}

/** The body of an answer that is a problem. Further members say more, by code. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ProblemCode;
  readonly detail: string;
  readonly errors?: readonly Mistake[];
  readonly [member: string]: unknown;
}

/** What a route answers. A problem is an answer as good as any: expected outcomes are values. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ProblemAnswer extends Answer {
  readonly body: Problem;
}

/** `detail` says more precisely what to do; `members` are added to the body. */
export function problem(
  code: ProblemCode,
  detail?: string,
  members: Readonly<Record<string, unknown>> = {},
): ProblemAnswer {
  const kind = PROBLEMS[code];
  const body: Problem = {
    ...members,
    type: `/docs#${code}`,
    title: kind.title,
    status: kind.status,
    code,
    detail: detail ?? kind.detail,
  };
  const retryAfter = kind.status === 503 ? { 'retry-after': '2' } : {};
  return {
    status: kind.status,
    body,
    headers: { 'content-type': 'application/problem+json', ...retryAfter },
  };
}

export function validationProblem(errors: readonly Mistake[]): ProblemAnswer {
  const count = errors.length === 1 ? '1 mistake' : `${errors.length} mistakes`;
  return problem('validation_failed', `The request has ${count}: correct what \`errors\` lists.`, { errors });
}

export function isProblem(answer: Answer): answer is ProblemAnswer {
  return answer.status >= 400;
}

/** "prices[1].upTo: must be …" as a mistake; text without a place is about the whole body. */
export function mistakeOf(sentence: string): Mistake {
  const match = /^([A-Za-z_][A-Za-z0-9_.[\]]*): (.+)$/s.exec(sentence);
  return match === null ? { path: '', message: sentence } : { path: match[1]!, message: match[2]! };
}
