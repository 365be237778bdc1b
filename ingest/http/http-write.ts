/**
 * Writes answers to the library, and never more than the client takes: `end` would keep what a client does not
 * read, and a client that sends requests and reads nothing would fill the memory of the process, a key or none.
 */
import type { HttpResponse } from 'uWebSockets.js';
import type { HttpAnswer } from './http-answer.ts';

const JSON_TYPE = '\r\nContent-Type: application/json';
const PROBLEM_TYPE = '\r\nContent-Type: application/problem+json';
/**
 * The type goes with the status: a call of the library costs more than these bytes, and it writes what it is given,
 * a line break included.
 */
const STATUS: Readonly<Record<number, string>> = {
  200: `200 OK${JSON_TYPE}`,
  202: `202 Accepted${JSON_TYPE}`,
  204: '204 No Content',
  400: `400 Bad Request${PROBLEM_TYPE}`,
  401: `401 Unauthorized${PROBLEM_TYPE}`,
  403: `403 Forbidden${PROBLEM_TYPE}`,
  404: `404 Not Found${PROBLEM_TYPE}`,
  405: `405 Method Not Allowed${PROBLEM_TYPE}`,
  408: `408 Request Timeout${PROBLEM_TYPE}`,
  413: `413 Content Too Large${PROBLEM_TYPE}`,
  415: `415 Unsupported Media Type${PROBLEM_TYPE}`,
  422: `422 Unprocessable Content${PROBLEM_TYPE}`,
  426: `426 Upgrade Required${PROBLEM_TYPE}`,
  429: `429 Too Many Requests${PROBLEM_TYPE}`,
  500: `500 Internal Server Error${PROBLEM_TYPE}`,
  503: `503 Service Unavailable${PROBLEM_TYPE}`,
};
export interface AnswerFields {
  /** The method that is allowed, with a 405; else ''. */
  readonly allow: string;
  readonly rateLimit: { readonly policy: string; readonly limit: string } | null;
  /** A client on a kept connection must look for another server. */
  readonly close: boolean;
}

export const NO_FIELDS: AnswerFields = { allow: '', rateLimit: null, close: false };

/**
 * Writes the head of an answer and as much of its body as the system takes; the caller has corked, or is in the
 * callback of a request. True: it is out. False: the rest is for `writeRest`.
 */
export function writeAnswer(
  res: HttpResponse,
  { status, body, retryAfter }: HttpAnswer,
  { allow, rateLimit, close }: AnswerFields,
): boolean {
  res.writeStatus(STATUS[status]!);
  if (rateLimit !== null)
    res.writeHeader('RateLimit-Policy', rateLimit.policy).writeHeader('RateLimit', rateLimit.limit);
  if (status === 204) {
    if (close) res.writeHeader('Connection', 'close');
    res.endWithoutBody();
    return true;
  }
  if (status >= 400) {
    if (status === 401) res.writeHeader('WWW-Authenticate', 'Bearer');
    else if (status === 405) res.writeHeader('Allow', allow);
    else if (status === 415) res.writeHeader('Accept-Encoding', 'gzip, br');
    else if (status === 426) res.writeHeader('Upgrade', 'websocket').writeHeader('Connection', 'Upgrade');
    if (retryAfter > 0) res.writeHeader('Retry-After', String(retryAfter));
  }
  if (close) {
    res.end(body, true);
    return true;
  }
  return res.tryEnd(body, body.length)[1];
}

/** Writes on, each time the client has taken some. `passed` is told how much has gone, and whether it was all. */
export function writeRest(
  res: HttpResponse,
  answer: HttpAnswer,
  passed: (bytes: number, isAll: boolean) => void,
): void {
  const body = typeof answer.body === 'string' ? Buffer.from(answer.body) : answer.body;
  res.onWritable((offset) => {
    const [isTaken, isAll] = res.tryEnd(body.subarray(offset), body.length);
    passed(isAll ? body.length : res.getWriteOffset(), isAll);
    return isTaken;
  });
}
