import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { DAY_MS } from '../../contract/window.ts';
import { eventsOf } from '../../test/batch-events.ts';
import { judge, meaning, parseTokens, type ModelLimits, type Node } from '../../test/json-model.ts';
import { Admission } from './admit.ts';
import type { BodyContext, BodyOutcome } from './body.ts';
import { JsonReader } from './json-reader.ts';
import { MeterBook } from '../tenant/meters.ts';

// What is read is compared with a model that shares no code with the reader. fast-check prints the seed of a run that
// fails. One reader and one batch serve all runs: what they remember of one body must not change the next.

const NOW = Date.UTC(2026, 10, 21, 8, 31);
const context: BodyContext = {
  admission: new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 3_600, batchEventsMax: 1_000 }),
  meters: new MeterBook(),
  tenant: 'acme',
  tenantBytes: Buffer.from('acme'),
  nowMs: NOW,
};
const limits = (requireSpecversion: boolean): ModelLimits => ({
  nowMs: NOW,
  ageMsMax: 30 * DAY_MS,
  aheadMsMax: 3_600_000,
  requireSpecversion,
});
const batch = new EventBatch();
const reader = new JsonReader();

const read = (body: Uint8Array, requireSpecversion = false): BodyOutcome =>
  reader.readDocument(body, context, batch, requireSpecversion);

/** A text where JSON has several ways to write it. */
const written = (text: string): fc.Arbitrary<string> =>
  fc.array(fc.nat(5), { minLength: text.length, maxLength: text.length }).map((ways) => {
    const units = Array.from({ length: text.length }, (_, at) => {
      const unit = text[at]!;
      const code = unit.charCodeAt(0);
      if (ways[at] === 0) return `\\u${code.toString(16).padStart(4, '0')}`;
      if (ways[at] === 1) return `\\u${code.toString(16).toUpperCase().padStart(4, '0')}`;
      if (code >= 0xd800 && code <= 0xdfff) return unit;
      return JSON.stringify(unit).slice(1, -1);
    });
    // Half of a pair that stands as it is becomes a lone one when its other half is escaped: then both are.
    const joined = units.join('');
    return `"${joined.isWellFormed() ? joined : JSON.stringify(text).slice(1, -1)}"`;
  });
const plainly = (text: fc.Arbitrary<string>): fc.Arbitrary<string> => text.map((one) => JSON.stringify(one));

const oddText = fc.oneof(
  { weight: 3, arbitrary: fc.string({ maxLength: 12 }) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 12 }) },
  fc.constantFrom('ü', '日本', '\u{1f600}', '\ud800', 'a\udc00', '\u007f', '\u0085', 'a\nb', '"', '\\', '\0'),
  fc.constantFrom(...[255, 256, 257].map((length) => 'x'.repeat(length))),
);
const string = fc.oneof(plainly(oddText), oddText.chain(written));
const digits = fc.oneof(
  fc.stringMatching(/^[0-9]{1,3}$/),
  fc.stringMatching(/^[0-9]{14,19}$/),
  fc.stringMatching(/^90071992547409[89][0-9]0{0,3}$/),
);
const number = fc
  .tuple(
    fc.constantFrom('', '-'),
    digits.map((text) => text.replace(/^0+(?=.)/, '')),
    fc.oneof(
      fc.constant(''),
      digits.map((text) => `.${text}`),
      fc.constantFrom('.500', '.000', '.00000001'),
    ),
    fc.oneof(
      { weight: 3, arbitrary: fc.constant('') },
      fc.tuple(
        fc.constantFrom('e', 'E', 'e+', 'e-'),
        fc.constantFrom('0', '3', '09', '16', '400', '99999999999'),
      ),
    ),
  )
  .map((parts) => parts.flat().join(''));
const space = fc.constantFrom('', '', '', ' ', '\n', '\t\r ');
const around = (text: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.tuple(space, text, space).map((parts) => parts.join(''));
const KEYS = [
  'a',
  'b',
  'ab',
  'a.b',
  '',
  '.',
  '__proto__',
  'ü',
  'a"',
  'a\\',
  'b\u0000',
  'constructor',
  '\ud800',
  'tallyline',
  'tallyline.target',
  'tallyline2',
  'tally',
];
const key = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('"a"', '"b"', '"c"', '"d"', '"e"', '"f"') },
  fc.constantFrom(...KEYS).chain(written),
  string,
);
const object = (entry: fc.Arbitrary<string>, maxLength: number): fc.Arbitrary<string> =>
  fc.array(around(entry), { maxLength }).map((entries) => `{${entries.join(',')}}`);
const { value, data } = fc.letrec<{ value: string; array: string; data: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 10, depthSize: 'small' },
    { weight: 2, arbitrary: string },
    { weight: 3, arbitrary: number },
    fc.constantFrom('true', 'false', 'null', '{}', '[]', '{ }', '[\n]'),
    tie('array'),
    tie('data'),
  ),
  array: fc.array(around(tie('value')), { maxLength: 3 }).map((items) => `[${items.join(',')}]`),
  data: object(
    fc.tuple(key, space, around(tie('value'))).map(([name, gap, one]) => `${name}${gap}:${one}`),
    4,
  ),
}));
const deep = fc
  .tuple(
    fc.integer({ min: 6, max: 10 }),
    fc.constantFrom('{"a":', '[', '{"b":['),
    fc.constantFrom('1', '{}', '[]'),
  )
  .map(([levels, open, inner]) => {
    const close = open.replace('{"a":', '}').replace('{"b":[', ']}').replace('[', ']');
    return `{"x":${open.repeat(levels)}${inner}${close.repeat(levels)}}`;
  });
const wide = fc
  .integer({ min: 62, max: 66 })
  .map((count) => `{${Array.from({ length: count }, (_, at) => `"f${at}":${at}`).join(',')}}`);

const twice = fc.constantFrom(
  '{"a.b":1,"a":{"b":2}}',
  '{"a":{"b":{"c":1}},"a.b":{"d":1,"c":2}}',
  '{"a.b":{"x":1},"a":{"b":2}}',
  '{"":{"a":1},".a":2}',
);
const TIMES = [
  '2026-11-21T08:30:00Z',
  '2026-11-21T08:30:00.1239+00:30',
  '2026-11-21',
  '1999-01-01T00:00:00Z',
];
const TYPES = ['tallyline.void', 'tallyline.x', 'tallyline.', 'tallyline', 'tall', 'tallyline2.x', ''];
/** A field that is mostly as it should be. */
const field = (name: string, usual: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc
    .tuple(
      fc.oneof({ weight: 9, arbitrary: fc.constant(JSON.stringify(name)) }, written(name)),
      space,
      fc.oneof({ weight: 40, arbitrary: around(usual) }, around(value)),
    )
    .map(([name, gap, one]) => `${name}${gap}:${one}`);
const text = (...texts: string[]): fc.Arbitrary<string> => plainly(fc.constantFrom(...texts));
const FIELDS = [
  field('id', fc.oneof({ weight: 4, arbitrary: text('e-1', 'e-2') }, string)),
  field('source', text('gateway', 'ü', '')),
  field('type', fc.oneof({ weight: 9, arbitrary: text('t', 'llm.request') }, text(...TYPES))),
  field('subject', text('cus_1', 'cus_2')),
  field('time', fc.oneof({ weight: 3, arbitrary: text(TIMES[0]!, TIMES[1]!) }, text(...TIMES))),
  field('data', fc.oneof({ weight: 6, arbitrary: data }, deep, wide, twice, fc.constant('null'))),
];
const CORRECTIONS = [
  field('voids', fc.oneof({ weight: 6, arbitrary: text('e-0', 'ü') }, string)),
  field('amends', fc.oneof({ weight: 6, arbitrary: text('e-0', 'ü') }, string)),
  field('type', fc.constantFrom('null', '"tallyline.void"', '"\\u0074allyline.void"')),
];
const OTHERS = [
  ...['specversion', 'specversion', 'data_base64'].map((name) => field(name, text('1.0', '1.0', '0.3'))),
  field('datacontenttype', text('application/json', 'Application/x+JSON; charset=utf-8', 'text/plain')),
  field('dataschema', text('https://example.com/schema')),
  field('traceparent', text('00-ab')),
  field('Extra', value),
  ...CORRECTIONS,
  ...CORRECTIONS,
  ...FIELDS,
];
const event = fc
  .tuple(
    fc.oneof(
      { weight: 8, arbitrary: fc.constant(FIELDS) },
      { weight: 2, arbitrary: fc.subarray(FIELDS, { minLength: 3 }) },
      fc.constant([FIELDS[0]!, FIELDS[5]!, CORRECTIONS[0]!]),
      fc.constant([...FIELDS, CORRECTIONS[1]!]),
    ),
    fc.oneof({ weight: 6, arbitrary: fc.constant([]) }, fc.subarray(OTHERS, { maxLength: 3 })),
    fc.boolean(),
  )
  .chain(([usual, others, isShuffled]) => {
    const all = [...usual, ...others];
    return fc
      .tuple(...all)
      .chain((fields) =>
        isShuffled ? fc.shuffledSubarray(fields, { minLength: fields.length }) : fc.constant(fields),
      );
  })
  .map((fields) => `{${fields.join(',')}}`);
const document = fc.oneof(
  { weight: 3, arbitrary: fc.array(around(event), { maxLength: 4 }).map((list) => `[${list.join(',')}]`) },
  around(event),
  around(value),
);

/** What the model makes of a sound document. */
function expected(body: string, requireSpecversion: boolean): unknown {
  const root = parseTokens(body);
  expect(meaning(root), 'the model parses as JSON.parse does').toEqual(JSON.parse(body));
  const events: readonly Node[] = root.kind === 'array' ? root.items : [root];
  const verdicts = events.map((one) => judge(one, limits(requireSpecversion)));
  return {
    read: true,
    events: verdicts.flatMap((one) => ('event' in one ? [one.event] : [])),
    rejected: verdicts.flatMap((one, index) => ('code' in one ? [{ index, ...one }] : [])),
  };
}

function actual(body: Uint8Array, requireSpecversion: boolean): unknown {
  const outcome = read(body, requireSpecversion);
  if (!outcome.read) return outcome;
  const events = eventsOf(batch);
  expect(outcome.unmatched).toBe(events.filter(({ type }) => type !== 'tallyline.void').length);
  return {
    read: true,
    events,
    rejected: outcome.rejected.map(({ index, id, code }) => ({ index, id, code })),
  };
}

test('what is read is what the model reads, to the digit and the byte', { timeout: 60_000 }, () => {
  let admitted = 0;
  let corrections = 0;
  const codes = new Set<string>();
  fc.assert(
    fc.property(document, fc.boolean(), (body, requireSpecversion) => {
      const result = actual(Buffer.from(body), requireSpecversion);
      expect(result).toEqual(expected(body, requireSpecversion));
      admitted += batch.count;
      corrections += batch.corrections;
      for (const { code } of (result as { rejected: { code: string }[] }).rejected) codes.add(code);
    }),
    { numRuns: 2_500 },
  );
  // The generator reaches what it is there for.
  expect(admitted).toBeGreaterThan(250);
  expect(corrections).toBeGreaterThan(25);
  expect([...codes]).toEqual(
    expect.arrayContaining([
      'correction_ambiguous',
      'data_path_repeated',
      'data_path_reserved',
      'data_path_too_long',
      'data_too_deep',
      'data_too_many_fields',
      'field_unknown',
      'key_repeated',
      'number_not_exact',
      'specversion_unknown',
      'text_has_control',
      'text_not_unicode',
      'time_too_old',
      'type_reserved',
      'void_has_type',
    ]),
  );
});

const mutation = fc.record({
  at: fc.nat(),
  kind: fc.constantFrom('truncate', 'insert', 'delete', 'replace', 'repeat'),
  byte: fc.oneof(
    fc.constantFrom(...Buffer.from('"\\,:[]{}0123456789.eE+-tfnu \t\n\r/b')),
    fc.constantFrom(0, 0x1f, 0x7f, 0x80, 0xbf, 0xc2, 0xc3, 0xe2, 0xed, 0xf0, 0xf5, 0xff, 0xef, 0xbb),
    fc.nat(255),
  ),
});

function mutated(body: string, mutations: readonly { at: number; kind: string; byte: number }[]): Buffer {
  let bytes = Buffer.from(body);
  for (const { at, kind, byte } of mutations) {
    const place = at % (bytes.length + 1);
    const [before, after] = [bytes.subarray(0, place), bytes.subarray(place)];
    const rest = after.subarray(1);
    const insert = Buffer.of(byte);
    bytes =
      kind === 'truncate'
        ? before
        : kind === 'insert'
          ? Buffer.concat([before, insert, after])
          : kind === 'delete'
            ? Buffer.concat([before, rest])
            : kind === 'repeat'
              ? Buffer.concat([before, after.subarray(0, 9), after])
              : Buffer.concat([before, insert, rest]);
  }
  return bytes;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
function soundText(bytes: Uint8Array): string | null {
  try {
    const decoded = utf8.decode(bytes);
    JSON.parse(decoded);
    return decoded;
  } catch {
    return null;
  }
}

test('what JSON.parse takes is taken, and nothing else', { timeout: 60_000 }, () => {
  let broken = 0;
  fc.assert(
    fc.property(document, fc.array(mutation, { minLength: 1, maxLength: 2 }), (body, mutations) => {
      const bytes = mutated(body, mutations);
      const decoded = soundText(bytes);
      const result = actual(bytes, false);
      if (decoded !== null) {
        expect(result).toEqual(expected(decoded, false));
        return;
      }
      broken += 1;
      expect(result).toMatchObject({ read: false });
      expect((result as { code: string }).code).toBe(utf8Sound(bytes) ? 'body_not_json' : 'body_not_unicode');
      expect(batch.count).toBe(0);
    }),
    { numRuns: 4_000 },
  );
  expect(broken).toBeGreaterThan(1_000);
});

function utf8Sound(bytes: Uint8Array): boolean {
  try {
    utf8.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

test('every prefix of a body is refused, and says that it ends too early', () => {
  const body = Buffer.from(
    '[{"id":"ü\\u00fc\\ud83d\\ude00","type":"t","subject":"s","time":null,"data":' +
      '{"a":{"b":[1,{"c":false}],"d":-12.50e+1},"e":"x","f":true}}, null ]',
  );
  expect(read(body)).toMatchObject({ read: true, rejected: [{ index: 1 }] });
  const isWhole = (end: number): boolean => (body[end]! & 0xc0) !== 0x80;
  for (let end = 0; end < body.length; end++) {
    if (!isWhole(end)) continue;
    expect(read(body.subarray(0, end)), String(end)).toEqual({
      read: false,
      code: 'body_not_json',
      message: 'The body is not JSON (it ends too early).',
    });
  }
});

test('lines stand for themselves: each is what it would be as a body of its own', { timeout: 60_000 }, () => {
  const line = fc.oneof(
    { weight: 3, arbitrary: event.map((one) => Buffer.from(one)) },
    fc.tuple(event, fc.array(mutation, { minLength: 1, maxLength: 2 })).map((parts) => mutated(...parts)),
    fc.constantFrom(...['', ' \t', '\r', '5', 'null', '{}'].map((one) => Buffer.from(one))),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 6 }), fc.boolean(), (lines, endsWithBreak) => {
      const broken = lines.flatMap((one) => splitLines(one));
      const events: unknown[] = [];
      const rejected: unknown[] = [];
      broken.forEach((one, index) => {
        if (one.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)) return;
        // A line is one event, so a list is none.
        const decoded = soundText(one);
        if (decoded === null) return rejected.push({ index, id: null, code: 'line_not_json' });
        const verdict = judge(parseTokens(decoded), limits(false));
        if ('event' in verdict) events.push(verdict.event);
        else rejected.push({ index, ...verdict });
      });
      const parts = broken.flatMap((one, at) => (at === 0 ? [one] : [Buffer.from('\n'), one]));
      const body = Buffer.concat(endsWithBreak ? [...parts, Buffer.from('\n')] : parts);
      const outcome = reader.readLines(body, context, batch);
      expect({
        events: eventsOf(batch),
        rejected: outcome.read && outcome.rejected.map(({ index, id, code }) => ({ index, id, code })),
      }).toEqual({ events, rejected });
    }),
    { numRuns: 2_000 },
  );
});

function splitLines(bytes: Buffer): Buffer[] {
  const lines: Buffer[] = [];
  let start = 0;
  for (let at = 0; at <= bytes.length; at++) {
    if (at === bytes.length || bytes[at] === 0x0a) {
      lines.push(bytes.subarray(start, at));
      start = at + 1;
    }
  }
  return lines;
}

describe('what a key was the last time', () => {
  const one = (keyText: string): Buffer =>
    Buffer.from(`{"id":"e","type":"t","subject":"s","data":{${keyText}:1}}`);
  const paths = (body: Buffer): unknown => {
    const outcome = read(body);
    return outcome.read
      ? eventsOf(batch).flatMap(({ fields }) => fields.map(({ path }) => path))
      : outcome.code;
  };

  test.each([
    ['"a\\"b"', 'a"b', '"a"b"'],
    ['"a\\\\"', 'a\\', '"a\\"'],
    ['"a\\u0000"', 'a\0', '"a\0"'],
    ['"a\\nb"', 'a\nb', '"a\nb"'],
  ])('%s is known, and its bytes are still no key', (sound, path, unsound) => {
    expect(paths(one(sound))).toEqual([path]);
    expect(paths(one(sound))).toEqual([path]);
    expect(paths(one(unsound))).toBe('body_not_json');
  });

  test('a longer and a shorter key are others', () => {
    for (const name of ['tokens', 'token', 'tokens_in', 'tokens', 'token', 't', 'tokens']) {
      expect(paths(one(JSON.stringify(name)))).toEqual([name]);
    }
  });

  test('the same key below another object is another place', () => {
    expect(paths(Buffer.from(one('"x":{"a":1},"b"')))).toEqual(['x.a', 'b']);
    expect(paths(Buffer.from(one('"x":{"a":1,"b":2},"c"')))).toEqual(['x.a', 'x.b', 'c']);
    expect(paths(Buffer.from(one('"x":{"a":1},"b"')))).toEqual(['x.a', 'b']);
    expect(paths(Buffer.from(one('"x":1,"a":{"x":{"a":0}},"b"')))).toEqual(['x', 'a.x.a', 'b']);
  });

  test('a table of another batch is another', () => {
    expect(paths(one('"p":{"q":1},"b"'))).toEqual(['p.q', 'b']);
    const other = new EventBatch();
    for (const [keys, expected] of [
      ['"p":1,"q":2,"b"', ['p', 'q', 'b']],
      ['"p":{"q":1},"b"', ['p.q', 'b']],
    ] as const) {
      reader.readDocument(one(keys), context, other, false);
      expect(eventsOf(other)[0]?.fields.map(({ path }) => path)).toEqual(expected);
      expect(paths(one('"p":{"q":1},"b"'))).toEqual(['p.q', 'b']);
    }
  });

  test('a table that was emptied is learnt again', () => {
    expect(paths(one('"a"'))).toEqual(['a']);
    expect(paths(one('"x":{"y":1},"b"'))).toEqual(['x.y', 'b']);
    batch.paths.trim(1);
    expect(paths(one('"x":1,"y":2,"b"'))).toEqual(['x', 'y', 'b']);
    expect(paths(one('"x":{"y":1},"b"'))).toEqual(['x.y', 'b']);
    batch.paths.trim(1);
    expect(paths(one('"x":{"y":1},"b"'))).toEqual(['x.y', 'b']);
  });
});
