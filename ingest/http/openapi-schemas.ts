/**
 * What goes over the wire of the edge, as JSON Schema 2020-12, made from the tables that the edge itself checks by:
 * EVENT_LIMITS, FIELD_LIMITS, REJECTIONS, EDGE_PROBLEMS. What a schema cannot say (bytes of UTF-8, exactness of
 * numbers, a repeated key, the accepted window) its descriptions do, and the codes of the rejections.
 */
import { RESERVED_PREFIX, TYPE_VOID } from '../../contract/corrections.ts';
import { EVENT_LIMITS } from '../../contract/event.ts';
import { FIELD_LIMITS } from '../../contract/fields.ts';
import { REJECTIONS, type EdgeRejectionCode } from '../../contract/rejections.ts';
import { CLOSE_CODES } from '../../contract/stream.ts';
import { EVENT_BYTES_MAX, type AdmitLimits } from '../read/admit.ts';
import { EDGE_PROBLEMS, type EdgeProblemCode } from '../problems.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type Schema = { readonly [key: string]: Json };

export const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });

/** Codes that are said of one event, in a list of rejected ones. */
export const EVENT_CODES = edgeRejections().filter((code) => REJECTIONS[code].status === 422);
/** Codes that are said of a body as a whole. */
export const BODY_CODES = edgeRejections().filter((code) => REJECTIONS[code].status !== 422);
export const PROBLEM_CODES = Object.keys(EDGE_PROBLEMS) as (keyof typeof EDGE_PROBLEMS)[];

function edgeRejections(): EdgeRejectionCode[] {
  const codes = Object.keys(REJECTIONS) as (keyof typeof REJECTIONS)[];
  return codes.filter((code): code is EdgeRejectionCode => REJECTIONS[code].stage !== 'log');
}

/** No control character and no lone surrogate. */
const PLAIN = '[^\\u0000-\\u001f\\u007f-\\u009f\\ud800-\\udfff]';
const DATE = '(19[7-9]\\d|[2-9]\\d{3})-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])';
const CLOCK = '([01]\\d|2[0-3]):[0-5]\\d:([0-5]\\d|60)(\\.\\d{1,9})?';
const INSTANT = `^${DATE}[Tt ]${CLOCK}([Zz]|[+-]([01]\\d|2[0-3]):[0-5]\\d)$`;
const JSON_SUBTYPE = `${anyCase('json')}\\s*(;|$)`;
const JSON_TYPE = `^\\s*(${anyCase('application')}|${anyCase('text')})/${JSON_SUBTYPE}|^\\s*[^\\s;/]+/[^\\s;/]+\\+${JSON_SUBTYPE}`;

const text = (bytes: number, description: string, start = ''): Schema => ({
  type: 'string',
  minLength: 1,
  maxLength: bytes,
  pattern: `^${start}${PLAIN}*$`,
  description: `${description} At most ${bytes} bytes of UTF-8.`,
});

/** The same, where null means that it is absent. */
const nullable = (bytes: number, description: string): Schema => ({
  ...text(bytes, description),
  type: ['string', 'null'],
});

/** The same, where absent, null and '' mean the same. */
const optional = (bytes: number, description: string): Schema => ({
  ...text(bytes, description),
  type: ['string', 'null'],
  minLength: 0,
});

export function wireSchemas(limits: AdmitLimits): Readonly<Record<string, Schema>> {
  const attributes = {
    id: text(
      EVENT_LIMITS.idBytes,
      'Yours. With the tenant and the source it is the identity of the event: sending it again counts once.',
    ),
    source: optional(EVENT_LIMITS.sourceBytes, 'Where the event comes from; part of its identity.'),
    voids: nullable(
      EVENT_LIMITS.idBytes,
      'The id of another event of the same source, which counts no more. It makes this event a void.',
    ),
    amends: nullable(
      EVENT_LIMITS.idBytes,
      'The id of another event of the same source, in whose place this one counts.',
    ),
    type: optional(EVENT_LIMITS.typeBytes, 'Which meters it is for. A void has none.'),
    subject: optional(EVENT_LIMITS.subjectBytes, 'Whose usage it is. A void needs none.'),
    time: {
      type: ['string', 'null'],
      format: 'date-time',
      pattern: INSTANT,
      description: `When it was used, in RFC 3339; the time of acceptance when absent. At most ${limits.eventAgeDaysMax} days ago and ${limits.eventAheadSecondsMax} seconds ahead. Digits beyond the millisecond are cut.`,
    },
    data: { anyOf: [ref('Data'), { type: 'null' }] },
    data_base64: { type: 'null' },
  };
  /** What an event that is a void may lack, another may not. */
  const kinds = [
    {
      required: ['type', 'subject'],
      properties: {
        voids: { type: 'null' },
        type: text(
          EVENT_LIMITS.typeBytes,
          `Which meters it is for. Those that begin with ${RESERVED_PREFIX}. are reserved.`,
          `(?!${RESERVED_PREFIX}\\.)`,
        ),
        subject: text(EVENT_LIMITS.subjectBytes, 'Whose usage it is.'),
      },
    },
    {
      required: ['voids'],
      properties: {
        voids: { type: 'string' },
        amends: { type: 'null' },
        type: { enum: [TYPE_VOID, '', null] },
      },
    },
  ];
  const withVersion = {
    ...attributes,
    specversion: { const: '1.0' },
    datacontenttype: { type: ['string', 'null'], pattern: JSON_TYPE },
  };
  const extension = {
    type: ['string', 'number', 'boolean', 'null'],
    description: 'An extension attribute of CloudEvents: let through and not stored.',
  };
  return {
    Event: {
      type: 'object',
      required: ['id'],
      properties: { ...attributes, specversion: { type: 'null' } },
      additionalProperties: false,
      anyOf: kinds,
      description: `An event. All of it together, each number as 8, is at most ${EVENT_BYTES_MAX} bytes.`,
    },
    EventWithExtensions: {
      type: 'object',
      required: ['specversion', 'id'],
      properties: withVersion,
      patternProperties: { '^[a-z0-9]+$': {} },
      additionalProperties: false,
      anyOf: kinds,
      allOf: [{ patternProperties: { [extensionName(Object.keys(withVersion))]: extension } }],
      description: 'An event that says that it is a CloudEvent: extension attributes are let through.',
    },
    CloudEvent: {
      allOf: [
        ref('EventWithExtensions'),
        {
          required: ['source', 'type'],
          properties: {
            source: text(EVENT_LIMITS.sourceBytes, 'Required by CloudEvents.'),
            type: text(EVENT_LIMITS.typeBytes, `Required by CloudEvents; of a void it is ${TYPE_VOID}.`),
          },
        },
      ],
      description: 'An event with all attributes that CloudEvents 1.0 requires.',
    },
    Data: {
      type: 'object',
      propertyNames: { not: { pattern: `^${RESERVED_PREFIX}($|\\.)` } },
      additionalProperties: ref('Value'),
      description: `Keys that are ${RESERVED_PREFIX}, or begin with it and a dot, are reserved. Nested objects are read as dotted paths: ${FIELD_LIMITS.fieldsMax} fields, ${FIELD_LIMITS.depthMax} levels, ${FIELD_LIMITS.pathLengthMax} bytes a path at most. No key may stand twice in an object.`,
    },
    Value: {
      anyOf: [
        { type: 'string' },
        {
          type: 'number',
          description:
            'Exact or refused: at most 2^53 - 1 without its point, and 9 decimals. Send anything longer as a string.',
        },
        { type: ['boolean', 'null'] },
        { type: 'array' },
        { type: 'object', additionalProperties: ref('Value') },
      ],
    },
    Rejected: {
      type: 'object',
      required: ['index', 'id', 'code', 'message'],
      properties: {
        index: {
          type: 'integer',
          minimum: 0,
          description: 'Of the event in the request, from 0; in NDJSON the line, blank ones counted.',
        },
        id: { type: ['string', 'null'], description: 'Of the event, when it has one.' },
        code: { enum: EVENT_CODES, description: codeList(EVENT_CODES) },
        message: { type: 'string', description: 'What to change. It names the field.' },
      },
      additionalProperties: false,
    },
    Accepted: {
      type: 'object',
      required: ['accepted', 'rejected'],
      properties: { ...counts(), rejected: { type: 'array', items: ref('Rejected') } },
      additionalProperties: false,
      description: 'Every accepted event is durable. Those that are rejected are listed.',
    },
    ...streamSchemas(limits),
  };
}

function counts(): Record<string, Schema> {
  return {
    accepted: { type: 'integer', minimum: 0 },
    unmatched: {
      type: 'integer',
      minimum: 1,
      description: 'Of the accepted events, those that no meter counts; absent when there are none.',
    },
  };
}

const LISTING: readonly EdgeProblemCode[] = ['no_event_admitted', 'events_rejected'];

/** A problem (RFC 9457) with one of these codes. Some list the events that are rejected. */
export function problemSchema(codes: readonly EdgeProblemCode[]): Schema {
  const listing = codes.filter((code) => LISTING.includes(code));
  const others = codes.filter((code) => !LISTING.includes(code));
  if (listing.length === 0) return problemOf(others, {}, []);
  const lists = problemOf(listing, { ...counts(), rejected: { type: 'array', items: ref('Rejected') } }, [
    'accepted',
    'rejected',
  ]);
  return others.length === 0 ? lists : { anyOf: [problemOf(others, {}, []), lists] };
}

function problemOf(codes: readonly EdgeProblemCode[], members: Schema, required: readonly string[]): Schema {
  return {
    type: 'object',
    required: ['type', 'title', 'status', 'code', 'detail', ...required],
    properties: {
      type: { const: 'about:blank' },
      title: { type: 'string' },
      status: { type: 'integer' },
      code: { enum: codes, description: codeList(codes) },
      detail: { type: 'string', description: 'What to do.' },
      ...members,
    },
    additionalProperties: false,
  };
}

const BODY_CODES_OF_STREAM = [
  'body_not_json',
  'body_not_unicode',
  'body_not_msgpack',
  'batch_too_large',
] as const satisfies readonly EdgeProblemCode[];

/** Whether a batch of a stream can be refused with it. */
function isOfBatch(code: keyof typeof EDGE_PROBLEMS): boolean {
  const { status } = EDGE_PROBLEMS[code];
  return (status === 429 || status >= 500) && code !== 'too_many_connections';
}

/** The messages of a stream (contract/stream.ts). */
function streamSchemas(limits: AdmitLimits): Readonly<Record<string, Schema>> {
  const message = (
    type: string | null,
    description: string,
    properties: Record<string, Schema>,
    ...optionalOnes: string[]
  ): Schema => ({
    type: 'object',
    required: [
      ...(type === null ? [] : ['type']),
      ...Object.keys(properties).filter((name) => !optionalOnes.includes(name)),
    ],
    properties: { ...(type === null ? {} : { type: { const: type } }), ...properties },
    additionalProperties: false,
    description,
  });
  const integer = { type: 'integer', minimum: 0 };
  const object = (properties: Record<string, Schema>): Schema => ({
    type: 'object',
    required: Object.keys(properties),
    properties,
    additionalProperties: false,
  });
  const { accepted, unmatched } = counts() as { accepted: Schema; unmatched: Schema };
  const codes = [...PROBLEM_CODES.filter(isOfBatch), ...BODY_CODES_OF_STREAM];
  const closes = Object.entries(CLOSE_CODES).map(
    ([name, { code, retry, reason }]) =>
      `${code} ${name}: ${reason}${retry ? '; connect again' : '; do not connect again with the same'}`,
  );
  return {
    StreamBatch: message(null, 'From the client. The number is one that no batch under way has.', {
      batch: { ...integer, maximum: Number.MAX_SAFE_INTEGER },
      events: {
        type: 'array',
        maxItems: limits.batchEventsMax,
        items: { anyOf: [ref('Event'), ref('EventWithExtensions')] },
      },
    }),
    StreamMessage: {
      anyOf: ['Welcome', 'Ack', 'Refused', 'GoAway'].map((name) => ref(`Stream${name}`)),
      description: `From the server. The connection closes with one of: ${closes.join('. ')}.`,
    },
    StreamWelcome: message('welcome', 'The first message.', {
      credit: object({ batches: integer, bytes: integer }),
      limits: object({ batchEvents: integer, frameBytes: integer, idleSeconds: integer }),
    }),
    StreamAck: message(
      'ack',
      'Every accepted event of the batch is durable.',
      { batch: integer, accepted, rejected: { type: 'array', items: ref('Rejected') }, unmatched },
      'unmatched',
    ),
    StreamRefused: message('refused', 'Nothing of the batch is promised.', {
      batch: integer,
      code: { enum: codes },
      message: { type: 'string' },
      retry: { type: 'boolean', description: 'Whether the same events may come again.' },
      retryAfterMs: integer,
    }),
    StreamGoAway: message('goaway', 'Send nothing more here. What is under way is still answered.', {
      code: { const: 'edge_stopping' },
      message: { type: 'string' },
    }),
  };
}

/** Each code with what it says, one a line. */
function codeList(codes: readonly EdgeProblemCode[]): string {
  return codes
    .map((code) => {
      const said =
        code in EDGE_PROBLEMS
          ? EDGE_PROBLEMS[code as keyof typeof EDGE_PROBLEMS].title
          : REJECTIONS[code as EdgeRejectionCode].message;
      return `- \`${code}\`: ${said}`;
    })
    .join('\n');
}

/** Lower-case letters and digits, but none of these names. */
function extensionName(names: readonly string[]): string {
  return `^(?!(${names.join('|')})$)[a-z0-9]+$`;
}

function anyCase(word: string): string {
  return [...word].map((letter) => `[${letter}${letter.toUpperCase()}]`).join('');
}
