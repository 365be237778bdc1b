import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { EVENT_LIMITS } from '../../contract/event.ts';
import { REJECTIONS, type RejectionCode } from '../../contract/rejections.ts';
import { Account } from '../tenant/account.ts';
import { Admission } from '../read/admit.ts';
import { readBody, type BodyFormat } from '../read/body.ts';
import { httpAnswer, problemAnswer } from './http-answer.ts';
import type { IntakeAnswer } from '../intake.ts';
import { MEDIA_TYPES } from './media-type.ts';
import { MeterBook } from '../tenant/meters.ts';
import { openapi } from './openapi.ts';
import { EDGE_PROBLEMS, type EdgeProblemCode } from '../problems.ts';
import { answerTo, refusal } from '../stream/stream-answer.ts';

const limits = {
  eventAgeDaysMax: 3_660,
  eventAheadSecondsMax: 3_600,
  batchEventsMax: 10,
  bodyBytesMax: 8_388_608,
  streamFrameBytesMax: 1_048_576,
};
const NOW_MS = Date.UTC(2026, 10, 21, 12);
const document = JSON.parse(JSON.stringify(openapi(limits))) as Record<string, unknown>;
const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
ajv.addSchema({ $id: 'openapi', ...document });

/** What the schema at this place of the document says of a value: null, or what is wrong. */
function mistakes(pointer: string, value: unknown): string | null {
  const validate = ajv.getSchema(`openapi#${pointer}`);
  if (validate === undefined) throw new Error(`there is no ${pointer}`);
  return validate(value) === true ? null : ajv.errorsText(validate.errors);
}

const admission = new Admission(limits);
const batch = new EventBatch();
const { tenant, tenantBytes } = new Account('acme');

/** The code that an event is rejected with, or null. */
function rejectionOf(event: unknown, format: BodyFormat): RejectionCode | null {
  const body = new TextEncoder().encode(JSON.stringify(event));
  const context = { admission, meters: new MeterBook(), tenant, tenantBytes, nowMs: NOW_MS };
  const outcome = readBody(body, format, context, batch);
  if (!outcome.read) throw new Error(outcome.message);
  expect(batch.count + outcome.rejected.length).toBe(1);
  return outcome.rejected[0]?.code ?? null;
}

const schemaOf = (format: BodyFormat): string => {
  const [type] = Object.entries(MEDIA_TYPES).find(([, each]) => each === format)!;
  const escaped = type.replaceAll('~', '~0').replaceAll('/', '~1').replaceAll('+', '%2B');
  return `/paths/~1v1~1events/post/requestBody/content/${escaped}/schema`;
};

/** What no schema can say: then an event may pass the schema and be rejected. */
const UNSAYABLE: readonly (RejectionCode | null)[] = [
  'data_too_deep',
  'data_too_many_fields',
  'data_path_too_long',
  'data_path_repeated',
  'number_not_exact',
  'event_too_large',
  'time_too_old',
  'time_too_far_ahead',
];

describe('events', () => {
  const sound = { id: 'a', source: 's', type: 't', subject: 'c', data: { n: 1 } };
  const table: readonly (readonly [string, unknown])[] = [
    ['a sound event', sound],
    ['one without what is optional', { id: 'a', type: 't', subject: 'c' }],
    ['nulls for what is optional', { ...sound, source: null, time: null, data: null, specversion: null }],
    ['an empty source', { ...sound, source: '' }],
    ['a number', 7],
    ['null', null],
    ['a text', 'event'],
    ['no id', { ...sound, id: undefined }],
    ['a null id', { ...sound, id: null }],
    ['an empty id', { ...sound, id: '' }],
    ['a number for an id', { ...sound, id: 7 }],
    ['an id that is too long', { ...sound, id: 'x'.repeat(EVENT_LIMITS.idBytes + 1) }],
    ['the longest id', { ...sound, id: 'x'.repeat(EVENT_LIMITS.idBytes) }],
    ['the longest type', { ...sound, type: 'x'.repeat(EVENT_LIMITS.typeBytes) }],
    ['a type that is too long', { ...sound, type: 'x'.repeat(EVENT_LIMITS.typeBytes + 1) }],
    ['the longest source', { ...sound, source: 'x'.repeat(EVENT_LIMITS.sourceBytes) }],
    ['a source that is too long', { ...sound, source: 'x'.repeat(EVENT_LIMITS.sourceBytes + 1) }],
    ['a control character', { ...sound, subject: 'a\u0000b' }],
    ['a control character beyond ASCII', { ...sound, subject: 'a\u0085b' }],
    ['a lone surrogate', { ...sound, subject: 'a\ud800' }],
    ['a pair of surrogates', { ...sound, subject: '😀' }],
    ['an unknown field', { ...sound, extra: 1 }],
    ['an extension without specversion', { ...sound, datacontenttype: 'application/json' }],
    ['a CloudEvent', { ...sound, specversion: '1.0' }],
    ['one with extensions', { ...sound, specversion: '1.0', traceparent: '00', sampled: true, n: null }],
    ['one with an extension that is an object', { ...sound, specversion: '1.0', trace: {} }],
    ['one with an extension that is misnamed', { ...sound, specversion: '1.0', traceParent: '00' }],
    ['one without a source', { ...sound, specversion: '1.0', source: undefined }],
    ['one with an empty source', { ...sound, specversion: '1.0', source: '' }],
    ['another version', { ...sound, specversion: '0.3' }],
    ['a number for a version', { ...sound, specversion: 1 }],
    ['data in base64', { ...sound, specversion: '1.0', data_base64: 'AA==' }],
    ['no data in base64', { ...sound, data_base64: null }],
    [
      'data that is JSON by another name',
      { ...sound, specversion: '1.0', datacontenttype: 'Application/x+JSON;a=b' },
    ],
    ['data that is not JSON', { ...sound, specversion: '1.0', datacontenttype: 'text/plain' }],
    ['a number for a datacontenttype', { ...sound, specversion: '1.0', datacontenttype: 1 }],
    ['data that is an array', { ...sound, data: [1] }],
    ['data that is a text', { ...sound, data: 'x' }],
    [
      'data of all kinds',
      { ...sound, data: { a: 'x', b: 1.5, c: true, d: null, e: [1, { f: 2 }], g: { h: {} } } },
    ],
    ...[
      '2026-11-21T08:30:00Z',
      '2026-11-21t08:30:00.123456789z',
      '2026-11-21 08:30:00+01:00',
      '2026-11-21T08:30:60Z',
      '2026-11-21T08:30:00',
      '2026-11-21T24:00:00Z',
      '2026-11-21T08:60:00Z',
      '2026-13-21T08:30:00Z',
      '2026-11-21T08:30:00.Z',
      '2026-11-21T08:30:00.1234567890Z',
      '2026-11-21T08:30:00+24:00',
      '2026-11-21',
      '1969-12-31T23:59:59Z',
      '',
      ' 2026-11-21T08:30:00Z',
    ].map((time) => [`the time "${time}"`, { ...sound, time }] as const),
    ['a number for a time', { ...sound, time: 1_795_000_000 }],
    ['a void', { id: 'v', source: 's', type: 'tallyline.void', voids: 'a' }],
    ['a void without a type', { id: 'v', source: 's', voids: 'a' }],
    ['a void without an id', { source: 's', type: 'tallyline.void', voids: 'a' }],
    ['a void with a null type', { id: 'v', voids: 'a', type: null, subject: '' }],
    ['a void with an empty type', { id: 'v', voids: 'a', type: '' }],
    ['a void with another type', { id: 'v', voids: 'a', type: 't' }],
    ['a void with data', { id: 'v', source: 's', type: 'tallyline.void', voids: 'a', data: { why: 'test' } }],
    ['a void of nothing', { id: 'v', voids: '', type: 'tallyline.void' }],
    ['a null void', { ...sound, voids: null }],
    ['a void of an id that is too long', { id: 'v', voids: 'x'.repeat(EVENT_LIMITS.idBytes + 1) }],
    ['a void of the longest id', { id: 'v', voids: 'x'.repeat(EVENT_LIMITS.idBytes) }],
    ['a void of a number', { id: 'v', voids: 7 }],
    ['the type of a void alone', { ...sound, type: 'tallyline.void' }],
    ['an amendment', { ...sound, amends: 'a' }],
    ['an amendment that is a CloudEvent', { ...sound, specversion: '1.0', amends: 'a' }],
    ['a void that is a CloudEvent', { specversion: '1.0', id: 'v', source: 's', voids: 'a', type: null }],
    [
      'a typed void that is a CloudEvent',
      { specversion: '1.0', id: 'v', source: 's', voids: 'a', type: 'tallyline.void', ext: 1 },
    ],
    ['an amendment without a type', { ...sound, amends: 'a', type: undefined }],
    ['an amendment without a subject', { ...sound, amends: 'a', subject: '' }],
    ['an amendment of nothing', { ...sound, amends: '' }],
    ['a null amendment', { ...sound, amends: null }],
    ['both', { ...sound, amends: 'a', voids: 'a' }],
    ['a reserved type', { ...sound, type: 'tallyline.' }],
    ['one that is none', { ...sound, type: 'tallyline' }],
    ['a reserved key', { ...sound, data: { tallyline: {} } }],
    ['a reserved path', { ...sound, data: { 'tallyline.x': 1 } }],
    ['keys that are none', { ...sound, data: { tallyline2: 1, a: { tallyline: { x: 1 } } } }],
  ];

  for (const format of ['json', 'cloudevents'] as const) {
    test.each(table)(`%s is valid just when it is admitted as ${format}`, (_what, event) => {
      const wrong = mistakes(schemaOf(format), JSON.parse(JSON.stringify(event)));
      expect([wrong === null, wrong]).toEqual([rejectionOf(event, format) === null, wrong]);
    });
  }

  // A failure can be run again with the seed that it prints.
  test('any event is valid when it is admitted, and admitted when it is valid, but for what no schema can say', () => {
    const odd = fc.oneof(
      fc.constant(null),
      fc.integer(),
      fc.boolean(),
      fc.array(fc.string(), { maxLength: 2 }),
    );
    const reserved = fc.constantFrom('tallyline', 'tallyline.void', 'tallyline.x');
    const words = fc.oneof(
      { weight: 8, arbitrary: fc.string({ minLength: 1, maxLength: 20 }) },
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
      fc.constantFrom('', 'a\u0007', 'a\udc00', '\u009f', 'x'.repeat(129), 'x'.repeat(257), 'x'.repeat(513)),
      odd,
    );
    const time = fc.oneof(
      fc
        .date({ min: new Date('1960-01-01'), max: new Date('2035-01-01'), noInvalidDate: true })
        .map((date) => date.toISOString()),
      fc.stringMatching(
        /^20\d\d-[01]\d-[0-2]\d[Tt ][0-2]\d:[0-6]\d:[0-6]\d(\.\d{1,3})?(Z|[+-][0-2]\d:[0-6]\d)$/,
      ),
      words,
    );
    const event = fc.record(
      {
        id: words,
        source: words,
        type: fc.oneof({ weight: 4, arbitrary: words }, reserved),
        subject: words,
        voids: fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, words),
        amends: fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, words),
        time,
        data: fc.oneof(
          { weight: 6, arbitrary: fc.dictionary(fc.string(), fc.jsonValue()) },
          { weight: 2, arbitrary: fc.jsonValue() },
          fc.dictionary(reserved, fc.jsonValue()),
        ),
        specversion: fc.constantFrom('1.0', '1.0', '1.0', '0.3', null),
        datacontenttype: fc.oneof(
          fc.constantFrom('application/json', 'text/json; a', 'x/y+json', 'text/plain', null),
          odd,
        ),
        dataschema: words,
        data_base64: fc.constantFrom(null, 'AA=='),
        trace1: fc.oneof(words, fc.object()),
        Trace: words,
      },
      { requiredKeys: ['id'] },
    );
    // Most events must be sound but for one thing or none, or their faults hide each other.
    const nearlySound = fc
      .tuple(
        event,
        fc.subarray(['id', 'source', 'type', 'subject', 'time', 'specversion', 'data', 'voids', 'amends'], {
          maxLength: 2,
        }),
      )
      .map(([drawn, names]) => {
        const mixed: Record<string, unknown> = {
          id: 'a',
          source: 's',
          type: 't',
          subject: 'c',
          specversion: '1.0',
        };
        for (const name of names) if (name in drawn) mixed[name] = drawn[name as keyof typeof drawn];
        return mixed;
      });
    const outcomes = new Set<string>();
    fc.assert(
      fc.property(fc.oneof(nearlySound, event), fc.constantFrom('json', 'cloudevents'), (drawn, format) => {
        const sent = JSON.parse(JSON.stringify(drawn)) as unknown;
        const code = rejectionOf(sent, format as BodyFormat);
        const wrong = mistakes(schemaOf(format as BodyFormat), sent);
        outcomes.add(code ?? 'admitted');
        if (code === null) expect(wrong).toBeNull();
        else if (wrong === null) expect(isUnsayable(code, sent)).toBe(true);
      }),
      { numRuns: 4_000 },
    );
    expect(outcomes.size).toBeGreaterThan(8);
  });
});

/** Beside the codes above: bytes where a schema counts characters, and dates that no month has. */
function isUnsayable(code: RejectionCode, event: unknown): boolean {
  const text = JSON.stringify(event);
  if (code === 'field_too_long') return /[^\x20-\x7e]/.test(text);
  if (code === 'time_not_rfc3339') return /-(02-(29|3\d)|(04|06|09|11)-31)/.test(text);
  // A lone surrogate in data, or as an extension's value or in a key.
  if (code === 'text_not_unicode') return /\\ud[89a-f]/.test(text);
  return UNSAYABLE.includes(code);
}

describe('the document', () => {
  test('every reference leads somewhere, and every schema is one', () => {
    const text = JSON.stringify(document);
    for (const [, pointer] of text.matchAll(/"\$ref":"#([^"]+)"/g))
      expect(mistakes(pointer!, 7)).toBeDefined();
    const operations = Object.values(document['paths'] as object).flatMap((path) =>
      Object.values(path as object),
    ) as {
      operationId: string;
      responses: Record<string, { description: string; content?: Record<string, { schema: object }> }>;
      requestBody?: { content: Record<string, { schema: object }> };
    }[];
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length);
    for (const { responses, requestBody } of operations) {
      const media = Object.values(responses).flatMap(({ content }) => Object.values(content ?? {}));
      for (const { schema } of [...media, ...Object.values(requestBody?.content ?? {})])
        expect(ajv.validateSchema(schema), ajv.errorsText()).toBe(true);
      for (const [status, { description }] of Object.entries(responses)) {
        expect(status).toMatch(/^[1-5]\d\d$/);
        expect(description).not.toBe('');
      }
    }
  });

  test('it names every code that the edge can answer, and no other', () => {
    const rejections = Object.entries(REJECTIONS).filter(([, { stage }]) => stage !== 'log');
    const answered = [...Object.keys(EDGE_PROBLEMS), ...rejections.map(([code]) => code)];
    expect([...new Set(codesIn(document))].sort()).toEqual(answered.sort());
  });

  test('every media type that is taken stands in it', () => {
    for (const type of Object.keys(MEDIA_TYPES)) {
      for (const path of ['/v1/events', '/api/v1/events']) {
        const pointer = `/paths/${path.replaceAll('/', '~1')}/post/requestBody/content/${type.replaceAll('/', '~1').replaceAll('+', '%2B')}/schema`;
        expect(ajv.getSchema(`openapi#${pointer}`), pointer).toBeDefined();
      }
    }
  });

  test('what is answered is as it says', () => {
    const rejected = [{ index: 3, id: null, code: 'field_missing', message: 'id: missing' }] as const;
    const answers = [
      ['tallyline', { taken: true, accepted: 1, unmatched: 0, rejected: [] }, 202],
      ['tallyline', { taken: true, accepted: 4, unmatched: 2, rejected }, 202],
      ['tallyline', { taken: true, accepted: 0, unmatched: 0, rejected }, 422],
      ['tallyline', { taken: true, accepted: 0, unmatched: 0, rejected: [] }, 202],
      ['openmeter', { taken: true, accepted: 7, unmatched: 1, rejected: [] }, 204],
      ['openmeter', { taken: true, accepted: 7, unmatched: 1, rejected }, 400],
      ['openmeter', { taken: true, accepted: 0, unmatched: 0, rejected }, 400],
      ['tallyline', { taken: false, code: 'quota_exceeded', retryAfterMs: 1_200 }, 429],
      ['openmeter', { taken: false, code: 'body_not_json', detail: 'at byte 7' }, 400],
    ] as const;
    for (const [shape, answer, status] of answers) {
      const sent = httpAnswer(answer, shape);
      expect(sent.status).toBe(status);
      if (status === 204) expect(sent.body).toBe('');
      else expect(mistakes(pointerOf(shape, sent.status), JSON.parse(sent.body.toString()))).toBeNull();
      const message = answerTo(7, answer as IntakeAnswer);
      expect(mistakes('/components/schemas/StreamMessage', message)).toBeNull();
    }
    expect(
      httpAnswer({ taken: false, code: 'quota_exceeded', retryAfterMs: 1_200 }, 'tallyline').retryAfter,
    ).toBe(2);
  });

  test('every problem is as it says, wherever it is answered', () => {
    const paths = document['paths'] as Record<string, Record<string, { responses: Record<string, object> }>>;
    let checked = 0;
    for (const [path, operations] of Object.entries(paths)) {
      for (const [method, { responses }] of Object.entries(operations)) {
        for (const status of Object.keys(responses).filter((each) => each >= '400')) {
          const pointer = `/paths/${path.replaceAll('/', '~1')}/${method}/responses/${status}/content/application~1problem%2Bjson/schema`;
          const problem = (responses[status] as { content: Record<string, { schema: object }> }).content;
          for (const code of codesIn(problem['application/problem+json']!.schema) as EdgeProblemCode[]) {
            checked += 1;
            const answer = problemAnswer(code);
            expect([code, answer.status]).toEqual([code, Number(status)]);
            expect(answer.retryAfter > 0).toBe(status === '503' || status === '429');
            // These two come with their list, which is looked at above.
            if (code === 'no_event_admitted' || code === 'events_rejected') continue;
            expect(mistakes(pointer, JSON.parse(answer.body.toString()))).toBeNull();
          }
        }
      }
    }
    expect(checked).toBeGreaterThan(40);
    expect(mistakes('/components/schemas/StreamMessage', refusal(1, 'edge_busy'))).toBeNull();
  });
});

function pointerOf(shape: 'tallyline' | 'openmeter', status: number): string {
  const path = shape === 'tallyline' ? '~1v1~1events' : '~1api~1v1~1events';
  const type = status === 202 ? 'application~1json' : 'application~1problem%2Bjson';
  return `/paths/${path}/post/responses/${status}/content/${type}/schema`;
}

/** The codes that any schema in it says a member `code` can be. */
function codesIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const members = Object.values(value).flatMap((member) => codesIn(member));
  const { code } =
    (value as { properties?: { code?: { enum?: string[]; const?: string } } }).properties ?? {};
  return [...members, ...(code?.enum ?? []), ...(code?.const === undefined ? [] : [code.const])];
}
