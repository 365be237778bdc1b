import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeLine, LINE_OVERHEAD, linesOf, runsOf } from './spool-lines.ts';

const payloads = (bytes: Buffer): (string | null)[] =>
  [...linesOf(bytes)].map(({ payload }) => payload?.toString() ?? null);
const json = fc.json({ stringUnit: 'grapheme' }).filter((text) => !text.includes('\n'));

test('what was written is read, and a line has the bytes that were counted on', () => {
  fc.assert(
    fc.property(fc.array(json), (texts) => {
      const bytes = Buffer.from(texts.map(encodeLine).join(''));
      expect(payloads(bytes)).toEqual(texts);
      const sizes = texts.map((text) => Buffer.byteLength(text) + LINE_OVERHEAD);
      expect(bytes.length).toBe(sizes.reduce((sum, size) => sum + size, 0));
    }),
  );
});

test('a changed byte takes its line with it, or joins or splits lines, and never makes another payload', () => {
  const texts = ['{"id":"a"}', '{"id":"b"}', '{"id":"c"}'];
  const whole = Buffer.from(texts.map(encodeLine).join(''));
  for (let at = 0; at < whole.length; at++) {
    for (const bit of [1, 2, 8, 32, 128]) {
      const bytes = Buffer.from(whole);
      bytes[at]! ^= bit;
      const read = payloads(bytes).filter((payload) => payload !== null);
      expect(read.length).toBeLessThan(3);
      expect(texts).toEqual(expect.arrayContaining(read));
    }
  }
});

test('what a file system leaves of a line that was never written is none', () => {
  for (const bytes of [Buffer.alloc(64), Buffer.from('\n'), Buffer.from('00000000 \n'), Buffer.from(' \n')]) {
    expect(payloads(bytes).filter((payload) => payload !== null && payload !== '')).toEqual([]);
  }
});

test('runs are numbers that follow each other', () => {
  expect(runsOf([])).toEqual([]);
  expect(runsOf([4, 5, 6, 9])).toEqual([
    { from: 4, to: 6 },
    { from: 9, to: 9 },
  ]);
});
