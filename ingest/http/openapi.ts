/**
 * The description of the edge as OpenAPI 3.1, made from the tables by which it works. Pure: the configuration in,
 * the document out. ingest/http/openapi.test.ts holds it and the edge together.
 */
import { STREAM_PATH, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK } from '../../contract/stream.ts';
import { REJECTIONS, type EdgeRejectionCode } from '../../contract/rejections.ts';
import type { AdmitLimits } from '../read/admit.ts';
import { ENCODINGS, MEDIA_TYPES } from './media-type.ts';
import {
  BODY_CODES,
  problemSchema,
  PROBLEM_CODES,
  ref,
  wireSchemas,
  type Json,
  type Schema,
} from './openapi-schemas.ts';
import { EDGE_PROBLEMS, type EdgeProblemCode } from '../problems.ts';

export interface OpenApiLimits extends AdmitLimits {
  readonly bodyBytesMax: number;
  readonly streamFrameBytesMax: number;
}

/** Problems that only one of the addresses answers. All others go for both that take events. */
const OF_STREAM: readonly EdgeProblemCode[] = [
  'upgrade_required',
  'subprotocol_unknown',
  'too_many_connections',
  'key_missing',
  'key_invalid',
  'scope_missing',
  'edge_stopping',
];
const OF_STREAM_ALONE: readonly EdgeProblemCode[] = OF_STREAM.slice(0, 3);
const OF_ANY_PATH: readonly EdgeProblemCode[] = ['not_found'];

export function openapi(limits: OpenApiLimits): Schema {
  const common = [...PROBLEM_CODES, ...BODY_CODES].filter(
    (code) => !OF_STREAM_ALONE.includes(code) && !OF_ANY_PATH.includes(code),
  );
  return {
    openapi: '3.1.0',
    info: {
      title: 'Tallyline edge',
      version: '1',
      description:
        'Takes usage events. What is answered with yes is durable and counted once. A client that got no answer, ' +
        'or 429, 500 or 503, sends the same events again with the same ids: that is safe. HTTP/1.1, no pipelining.',
    },
    security: [{ key: [] }],
    paths: {
      '/v1/events': {
        post: {
          operationId: 'sendEvents',
          summary: 'Send events',
          description: EVENTS,
          parameters: parameters(),
          requestBody: requestBody(limits),
          responses: {
            '202': {
              description: 'Every accepted event is durable; those that are rejected are listed.',
              headers: rateLimitHeaders(),
              content: { 'application/json': { schema: ref('Accepted') } },
            },
            ...problems(common.filter((code) => code !== 'events_rejected')),
          },
        },
      },
      '/api/v1/events': {
        post: {
          operationId: 'sendEventsAsToOpenMeter',
          summary: 'Send events with a client of OpenMeter',
          description: OPENMETER,
          parameters: parameters(),
          requestBody: requestBody(limits),
          responses: {
            '204': { description: 'Every event is accepted and durable.', headers: rateLimitHeaders() },
            ...problems(common.filter((code) => code !== 'no_event_admitted')),
          },
        },
      },
      [STREAM_PATH]: {
        get: {
          operationId: 'openStream',
          summary: 'Open a stream',
          description: `A WebSocket. The client sends StreamBatch, the server the kinds of StreamMessage: as JSON in text frames, or as msgpack maps in binary frames, of ${limits.streamFrameBytesMax} bytes at most.`,
          parameters: [
            {
              name: 'Sec-WebSocket-Protocol',
              in: 'header',
              required: true,
              schema: { enum: [SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK] },
            },
          ],
          responses: {
            '101': { description: 'The stream is open.' },
            ...problems(OF_STREAM),
          },
        },
      },
      '/healthz': {
        get: {
          operationId: 'isAlive',
          summary: 'Whether the process runs',
          security: [],
          responses: {
            '200': {
              description: 'It does.',
              content: { 'application/json': { schema: { type: 'object', required: ['status'] } } },
            },
            ...problems(['method_not_allowed']),
          },
        },
      },
      '/openapi.json': {
        get: {
          operationId: 'describe',
          summary: 'This document',
          security: [],
          responses: {
            '200': {
              description: 'OpenAPI 3.1.',
              content: { 'application/json': { schema: { type: 'object' } } },
            },
            ...problems(['method_not_allowed']),
          },
        },
      },
    },
    components: {
      securitySchemes: {
        key: { type: 'http', scheme: 'bearer', description: 'An API key with the scope `ingest`: `tl_…`.' },
      },
      schemas: wireSchemas(limits),
      responses: { AnyOtherPath: problemResponse(OF_ANY_PATH) },
    },
  };
}

const EVENTS =
  'One event or many. Good events are accepted whatever their neighbours are. In binary mode (header field ' +
  'ce-specversion) the attributes of one CloudEvent are header fields, percent-encoded, and the body is its data; ' +
  'the Content-Type is that of data and must be JSON. An event with voids takes another event out of what counts, one ' +
  'with amends counts in its place: whatever names the same original, the last one in the log holds.';
const OPENMETER =
  'The same under the address, and with the answers, that clients of OpenMeter expect: 204 when all events are ' +
  'accepted. When some are rejected the answer is 400 with the list, and the others are stored none the less: they ' +
  'may be sent again with the same ids, or not.';

function parameters(): Schema[] {
  const header = (name: string, description: string, schema: Schema = { type: 'string' }): Schema => ({
    name,
    in: 'header',
    required: false,
    description,
    schema,
  });
  const attribute = (name: string): Schema =>
    header(`ce-${name}`, `Binary mode: the attribute ${name}, percent-encoded.`);
  return [
    header('Content-Encoding', 'How the body is compressed, once at most.', { enum: Object.keys(ENCODINGS) }),
    header('ce-specversion', 'Makes it the binary mode of CloudEvents.', { const: '1.0' }),
    ...['id', 'source', 'type', 'subject', 'time', 'voids', 'amends'].map(attribute),
  ];
}

function requestBody(limits: OpenApiLimits): Schema {
  const one = [ref('Event'), ref('EventWithExtensions')];
  const oneOrMany = (events: Schema[]): Schema => ({
    anyOf: [...events, { type: 'array', maxItems: limits.batchEventsMax, items: { anyOf: events } }],
  });
  const schemas: Readonly<Record<string, Schema>> = {
    json: oneOrMany(one),
    msgpack: { ...oneOrMany(one), description: 'The same as msgpack: a map, or an array of maps.' },
    ndjson: {
      type: 'string',
      description: `One event a line, ${limits.batchEventsMax} at most. A line that is no JSON is one rejected event.`,
    },
    cloudevents: oneOrMany([ref('CloudEvent')]),
    'cloudevents-batch': oneOrMany([ref('CloudEvent')]),
  };
  const content: Record<string, Schema> = {};
  for (const [type, format] of Object.entries(MEDIA_TYPES)) content[type] = { schema: schemas[format]! };
  return {
    required: true,
    description: `At most ${limits.bodyBytesMax} bytes, compressed or not, and ${limits.batchEventsMax} events.`,
    content,
  };
}

/** The responses with these codes, by their status. */
function problems(codes: readonly EdgeProblemCode[]): Record<string, Schema> {
  const byStatus = new Map<number, EdgeProblemCode[]>();
  for (const code of codes) {
    const status = statusOf(code);
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const responses: Record<string, Schema> = {};
  for (const [status, ofStatus] of [...byStatus].sort(([a], [b]) => a - b))
    responses[String(status)] = problemResponse(ofStatus);
  return responses;
}

function problemResponse(codes: readonly EdgeProblemCode[]): Schema {
  const headers = headersOf(statusOf(codes[0]!));
  return {
    description: codes.map((code) => `\`${code}\``).join(', '),
    ...(headers === null ? {} : { headers }),
    content: { 'application/problem+json': { schema: problemSchema(codes) } },
  };
}

function headersOf(status: number): Schema | null {
  const header = (description: string): Json => ({ description, schema: { type: 'string' } });
  const retryAfter = { 'Retry-After': { description: 'Seconds.', schema: { type: 'integer', minimum: 1 } } };
  switch (status) {
    case 401:
      return { 'WWW-Authenticate': header('Bearer') };
    case 405:
      return { Allow: header('The method that is allowed.') };
    case 415:
      return { 'Accept-Encoding': header('The encodings that are taken.') };
    case 426:
      return { Upgrade: header('websocket') };
    case 429:
      return { ...retryAfter, ...rateLimitHeaders() };
    case 503:
      return retryAfter;
    default:
      return null;
  }
}

function rateLimitHeaders(): { [name: string]: Json } {
  const header = (what: string): Json => ({
    description: `${what} Only for a tenant with a quota. As in draft-ietf-httpapi-ratelimit-headers-11, which may change.`,
    schema: { type: 'string' },
  });
  return {
    'RateLimit-Policy': header('The quotas of the tenant.'),
    RateLimit: header('What is left of them.'),
  };
}

function statusOf(code: EdgeProblemCode): number {
  return code in EDGE_PROBLEMS
    ? EDGE_PROBLEMS[code as keyof typeof EDGE_PROBLEMS].status
    : REJECTIONS[code as EdgeRejectionCode].status;
}
