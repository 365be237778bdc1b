import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { attributeText, binaryHead, mayBeOneValue, structured, type BinaryHead } from './cloudevents-http.ts';

const utf8 = new TextEncoder();
const headOf = (...fields: (readonly [string, string])[]): BinaryHead =>
  binaryHead((field) => fields.forEach(([name, value]) => field(name, value)));
const textOf = (bytes: Uint8Array | null): string | null => bytes && new TextDecoder().decode(bytes);

describe('an attribute in a header field', () => {
  test.each([
    ['plain', 'plain'],
    ['Euro%20%E2%82%AC%20%F0%9F%98%80', 'Euro € 😀'],
    ['%e2%82%ac', '€'],
    ['%41', 'A'],
    ['100%2541', '100%41'],
    ['"a \\"quoted\\" one"', 'a "quoted" one'],
    ['"%20"', ' '],
    ['say "hi"', 'say "hi"'],
    ['a+b', 'a+b'],
    ['', ''],
    ['%01', '\u0001'],
  ])('%j means %j', (value, text) => {
    expect(attributeText(value)).toBe(text);
  });

  test.each(['100%', '%4', '%zz', '%C0%A0', '%ED%A0%80', '%FF', '%E2%82', 'é', 'a\ufffdb', '"open', '"a"b"'])(
    '%j is malformed',
    (value) => {
      expect(attributeText(value)).toBeNull();
    },
  );

  test('any text comes through its encoding', () => {
    const codePoint = fc.integer({ min: 0, max: 0x10ffff }).filter((code) => code < 0xd800 || code > 0xdfff);
    const texts = fc.array(codePoint).map((codes) => String.fromCodePoint(...codes));
    fc.assert(
      fc.property(texts, (text) => {
        // encodeURIComponent encodes all that the binding demands, and some more.
        expect(attributeText(encodeURIComponent(text))).toBe(text);
      }),
    );
  });
});

describe('the event of a request in binary mode', () => {
  test('has the attributes of the header and the body as it came', () => {
    const head = headOf(
      ['host', 'x'],
      ['ce-specversion', '1.0'],
      ['ce-id', 'a%22b'],
      ['ce-subject', 'caf%C3%A9'],
      ['ce-traceparent', '00-1'],
    );
    if (!head.sound) throw new Error('not sound');
    expect(textOf(structured(head.json, utf8.encode(' {"n":1.50} ')))).toBe(
      '{"specversion":"1.0","id":"a\\"b","subject":"café","data": {"n":1.50} }',
    );
    expect(textOf(structured(head.json, new Uint8Array(0)))).toBe(
      '{"specversion":"1.0","id":"a\\"b","subject":"café","data":null}',
    );
  });

  test('is refused for a field that stands twice or is malformed, and named by its id', () => {
    expect(headOf(['ce-id', 'a'], ['ce-type', 'x'], ['ce-type', 'y'])).toMatchObject({
      sound: false,
      rejected: { index: 0, id: 'a', code: 'key_repeated', message: expect.stringMatching(/^ce-type: /) },
    });
    expect(headOf(['ce-subject', '%FF'], ['ce-id', 'b'])).toMatchObject({
      sound: false,
      rejected: { index: 0, id: 'b', code: 'text_not_unicode' },
    });
    expect(headOf(['ce-id', 'x'.repeat(257)], ['ce-type', '%'])).toMatchObject({ rejected: { id: null } });
  });

  test.each([
    '{},"subject":"evil"',
    '1},"subject":"evil"',
    '{}}',
    '{',
    '"a',
    '"a\\"',
    '[1',
    '1 2',
    '"a""b"',
    ' ',
    ',',
    '',
  ])('a body of %j does not pass for one value', (body) => {
    expect(mayBeOneValue(utf8.encode(body))).toBe(false);
  });

  test('no body puts anything beside data, whatever it is', () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      '"',
      '\\',
      ',',
      ':',
      '1',
      'null',
      ' ',
      '"id"',
      '{}',
      '""',
      'é',
    );
    const body = fc.oneof(
      fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
      fc.json(),
      fc.tuple(fc.json(), piece).map((both) => both.join('')),
    );
    fc.assert(
      fc.property(body, (text) => {
        const event = textOf(structured('{"id":"a","data":', utf8.encode(text)));
        const alone = parsed(text);
        // What is JSON passes; and what passes is JSON by itself, or the event is none.
        if (alone !== undefined) expect(event).not.toBeNull();
        const together = event === null || text === '' ? undefined : parsed(event);
        if (together !== undefined) expect(together).toEqual({ value: { id: 'a', data: alone?.value } });
        if (together !== undefined) expect(alone).toBeDefined();
      }),
      { numRuns: 3_000 },
    );
  });
});

function parsed(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return undefined;
  }
}
