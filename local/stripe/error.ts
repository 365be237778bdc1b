// What Stripe says when it refuses: an HTTP status and `{error: {type, code, param, message}}`.
//
// A refusal is thrown rather than returned: it ends a request from any depth of a handler, nothing of the
// request's change has been applied yet, and one place (server.ts) turns it into the answer.
import type { JsonObject } from './operation.ts';

export type ErrorType = 'invalid_request_error' | 'idempotency_error' | 'api_error' | 'card_error';

export interface RefusalDetails {
  status: number;
  type: ErrorType;
  message: string;
  code?: string;
  param?: string;
}

export class Refusal extends Error {
  readonly details: RefusalDetails;

  constructor(details: RefusalDetails) {
    super(details.message);
    this.details = details;
  }

  /** The body of the answer. */
  body(): JsonObject {
    const { type, code, param, message } = this.details;
    return {
      error: {
        ...(code === undefined
          ? {}
          : { code, doc_url: `https://stripe.com/docs/error-codes/${code.replaceAll('_', '-')}` }),
        message,
        ...(param === undefined ? {} : { param }),
        type,
      },
    };
  }
}

/** A request that Stripe answers with 400 `invalid_request_error`. */
export function invalid(message: string, code?: string, param?: string): Refusal {
  return new Refusal({
    status: 400,
    type: 'invalid_request_error',
    message,
    ...(code === undefined ? {} : { code }),
    ...(param === undefined ? {} : { param }),
  });
}

/** An id in the path that names nothing: 404. An id in a parameter that names nothing is a 400 of the same code. */
export function missing(kind: string, id: string, param: string, status: 400 | 404 = 404): Refusal {
  return new Refusal({
    status,
    type: 'invalid_request_error',
    code: 'resource_missing',
    param,
    message: `No such ${kind}: '${id}'`,
  });
}

/** A parameter that Stripe knows and the stand-in does not act on. Refused, because ignoring it would be a lie. */
export function unsupported(param: string): Refusal {
  return invalid(
    `The local Stripe stand-in does not implement the parameter ${param}.`,
    'stand_in_unsupported',
    param,
  );
}
