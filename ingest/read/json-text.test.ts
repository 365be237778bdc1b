import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import { BROKEN, TEXT } from './draft.ts';
import { JsonSource } from './json-source.ts';
import { JsonText, plainEnd } from './json-text.ts';

const batch = new EventBatch();
const source = new JsonSource();
const text = new JsonText(source);

function begin(body: Uint8Array): void {
  batch.reset(body, new Uint8Array(0));
  source.begin(batch, false);
}

test('plainEnd finds the first byte that is not plain, at every offset and behind every byte', () => {
  const isPlain = (byte: number): boolean => byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c;
  for (let byte = 0; byte < 256; byte++) {
    for (let next = 0; next < 256; next += 5) {
      for (let lead = 0; lead < 4; lead++) {
        begin(Uint8Array.of(...Array<number>(lead).fill(0x61), byte, next));
        const expected = isPlain(byte) ? (isPlain(next) ? lead + 2 : lead + 1) : lead;
        if (plainEnd(batch.view, 0) !== expected) throw new Error(`${lead} ${byte} ${next}`);
      }
    }
  }
});

function take(body: string): { value: string | null; end: number; plain: number } {
  begin(Buffer.from(body));
  const end = text.take(1, batch);
  if (end < 0) return { value: null, end: source.faultAt, plain: 0 };
  if (text.kind === BROKEN) return { value: 'broken', end, plain: 0 };
  expect(text.kind).toBe(TEXT);
  const value = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
    batch.bytes.subarray(text.start, text.end),
  );
  return { value, end, plain: text.plain };
}

test.each([
  ['""', '', 1],
  ['"a b~"', 'a b~', 1],
  ['"a\u007fb"', 'a\u007fb', 0],
  ['"\u00e9\u65e5\u{1f600}"', '\u00e9\u65e5\u{1f600}', 1],
  ['"\u00a0\u00c2"', '\u00a0\u00c2', 1],
  ['"a\u0085"', 'a\u0085', 0],
  ['"\\"\\\\\\/\\u00a0\\u007E"', '"\\/\u00a0~', 1],
  ['"\\u009f"', '\u009f', 0],
  ['"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t', 0],
  ['"\\u0000\\u007F\\u0080\\u07ff\\u0800\\uFFFF"', '\0\u007f\u0080\u07ff\u0800\uffff', 0],
  ['"\\ud800\\udc00\\uDBFF\\uDFFF"', '\u{10000}\u{10ffff}', 1],
])('%s', (body, value, plain) => {
  expect(take(body)).toEqual({ value, end: Buffer.byteLength(body), plain });
});

test.each([
  '\\ud800',
  '\\udc00',
  '\\udc00\\ud800',
  '\\ud800\\ud800\\udc00',
  '\\ud800\\n',
  '\\ud800\\u0041',
  '\\udbffx',
])('%s is no Unicode', (inner) => {
  expect(take(`"${inner}"`).value).toBe('broken');
});

test.each([
  ['"abc', 4],
  ['"abc\\', 5],
  ['"\\x41"', 2],
  ['"\\u00g0"', 5],
  ['"\\u00', 5],
  ['"\\ud800\\u12', 11],
  ['"\\ud800\\', 8],
  ['"a\nb"', 2],
  ['"a\0b"', 2],
  ['"a\u001f"', 2],
  ["'a'", 3],
])('%s is no string: the fault is at %i', (body, at) => {
  expect(take(body)).toEqual({ value: null, end: at, plain: 0 });
});

test('a string is what JSON.parse makes of it', () => {
  const piece = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 6 }).map((raw) => raw.replace(/[\p{Cc}"\\]/gu, '')),
    fc.stringMatching(/^\\u[0-9a-fA-F]{4}$/),
    fc.constantFrom('\\ud83d', '\\ude00', '\\n', '\\"', '\\\\', '\\/', '\\u00', '\\', '\u007f'),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
      const body = `"${pieces.join('')}"`;
      let expected: string | null = null;
      try {
        expected = JSON.parse(body) as string;
      } catch {
        // Not a string.
      }
      const { value, end } = take(body);
      if (expected === null) {
        // It may be one that ends earlier.
        if (value !== null) expect(end).toBeLessThan(Buffer.byteLength(body));
      } else expect(value).toBe(expected.isWellFormed() ? expected : 'broken');
    }),
    { numRuns: 2_000 },
  );
});

test('made texts stay where they are while others are made', () => {
  begin(Buffer.from(`"\\u0041${'x'.repeat(40_000)}" "\\u0042${'y'.repeat(40_000)}"`));
  const end = text.take(1, batch);
  const first = [text.start, text.end] as const;
  text.take(end + 2, batch);
  const range = ([start, stop]: readonly [number, number]): string =>
    Buffer.from(batch.bytes.subarray(start, stop)).toString();
  expect(range(first)).toBe(`A${'x'.repeat(40_000)}`);
  expect(range([text.start, text.end])).toBe(`B${'y'.repeat(40_000)}`);
});
