import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fieldsOf, fillBatch } from '../test/event-batch.ts';
import { SLACK_BYTES } from './byte-words.ts';
import { EventBatch } from './event-batch.ts';
import { ShapeDictionary } from './shape-dictionary.ts';
import { PROBES_MAX, TextDictionary } from './text-dictionary.ts';
import { TextHash } from './text-hash.ts';

/** The text with something around it, as it stands in a body. */
function placed(text: Uint8Array): { view: DataView; from: number; to: number } {
  const memory = new Uint8Array(3 + text.length + SLACK_BYTES).fill(0x5a);
  memory.set(text, 3);
  return { view: new DataView(memory.buffer), from: 3, to: 3 + text.length };
}

const textAt = (texts: TextDictionary, number: number): Uint8Array =>
  texts.bytes.slice(texts.start[number], texts.start[number + 1]);

const bytes = fc.oneof(fc.uint8Array({ maxLength: 12 }), fc.uint8Array({ max: 1, maxLength: 5 }));
const look = fc.record({ text: bytes, guess: fc.nat(40) });

test('a text has one number as long as the block lasts, whatever is guessed, and comes out as it went in', () => {
  fc.assert(
    fc.property(fc.array(fc.array(look, { maxLength: 60 }), { maxLength: 4 }), (blocks) => {
      const texts = new TextDictionary();
      for (const looks of blocks) {
        const known = new Map<string, number>();
        for (const { text, guess } of looks) {
          const { view, from, to } = placed(text);
          const number = texts.of(view, from, to, guess);
          const key = text.join();
          expect(number).toBe(known.get(key) ?? known.size);
          known.set(key, number);
          expect([...textAt(texts, number)]).toEqual([...text]);
        }
        expect(texts.size).toBe(known.size);
        const distinct = looks.filter(
          ({ text }, at) => looks.findIndex((one) => one.text.join() === text.join()) === at,
        );
        expect(texts.length).toBe(distinct.reduce((sum, { text }) => sum + text.length, 0));
        texts.clear();
      }
    }),
    { numRuns: 300 },
  );
});

test('texts with equal hashes stay apart, also when there are more of them than are looked through', () => {
  const texts = new TextDictionary();
  const all = Array.from({ length: PROBES_MAX * 4 }, (_, at) => Buffer.from(`text-${at}`));
  const find = (text: Uint8Array): number => {
    const { view, from, to } = placed(text);
    return texts.find(view, from, to, 12_345, -1);
  };
  for (let round = 0; round < 3; round++) {
    for (const text of all) expect(Buffer.from(textAt(texts, find(text))).equals(text)).toBe(true);
  }
  // The first of them are found again; the others stand there once for each look.
  expect(texts.size).toBe(PROBES_MAX + 3 * (all.length - PROBES_MAX));
  texts.clear();
  expect(find(all[7]!)).toBe(0);
});

test('a text whose row is taken by crafted ones comes into the block, and what is looked through stays bounded', () => {
  // Texts that begin their search at one place of the first table.
  const hash = new TextHash();
  const crafted: Uint8Array[] = [];
  for (let at = 0; crafted.length < PROBES_MAX * 2; at++) {
    const text = Buffer.from(`t${at}`);
    hash.of(text, 0, text.length);
    if ((hash.low & 511) === 100) crafted.push(text);
  }
  const texts = new TextDictionary();
  for (let round = 0; round < 2; round++) {
    for (const text of crafted) {
      const { view, from, to } = placed(text);
      const number = texts.of(view, from, to, 0);
      expect(Buffer.from(textAt(texts, number)).equals(text)).toBe(true);
    }
  }
});

test('serial numbers that begin again make nothing of an earlier block known', () => {
  // They do so after 4,026,531,840 texts; here after 10.
  const texts = new TextDictionary(10);
  const shapes = new ShapeDictionary(texts);
  const batch = new EventBatch();
  for (let block = 0; block < 50; block++) {
    const data = { [`k${block % 7}`]: 'x', [`k${block % 3}.a`]: 1, ...(block % 2 === 0 ? { on: true } : {}) };
    const event = { id: 'e', source: '', type: 't', subject: 's', timeMs: 0, timeGiven: true };
    fillBatch(batch, 'acme', [{ ...event, fields: fieldsOf(data, '') }]);
    const shape = shapes.of(batch, 0);
    expect(shape).toBe(0);
    const paths = Object.keys(data).map((_, field) => {
      const number = shapes.fields[field * 2]!;
      return Buffer.from(textAt(texts, number)).toString();
    });
    expect(paths).toEqual(Object.keys(data));
    expect(texts.size).toBe(paths.length);
    texts.clear();
    shapes.clear();
  }
});
