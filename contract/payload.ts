/**
 * The payload hash: a 64-bit fingerprint of what an event says besides its identity. A retry has the same one; a
 * different one under the same identity is a conflict. It is part of the log and of the raw rows, so its
 * definition must not change as long as duplicates are to be recognised:
 *
 * Two lanes of 32 bits run side by side, `low` and `high`, each with its own way to absorb a word. H(text) is the
 * hash of the text's UTF-8 (text-hash.ts); each lane absorbs its own half of it. Integers are absorbed by both:
 * in two's complement, the low word and then the high word.
 *
 *   field = finish(START_FIELD, absorbed: H(dotted path), the word tag << 8 | scale, and
 *                  the mantissa of a number, or H of the text or literal)
 *   event = finish((START_EVENT, absorbed: H(type), H(subject), and the time in epoch ms if the sender gave it)
 *                  + the sum of all fields, modulo 2^32)
 *
 * Fields are added, so the order of keys does not matter; nor does nesting, since paths are dotted; nor does a time
 * that the edge filled in. Only texts enter, never their numbers in a block or table: every edge comes to the same.
 * It guards against mistakes, not against an adversary, who could only contradict himself.
 */
import type { BlockColumns } from './block-columns.ts';
import { FIELD_NUMBER } from './fields.ts';
import type { ShapeDictionary } from './shape-dictionary.ts';
import type { TextDictionary } from './text-dictionary.ts';
import { finish } from './text-hash.ts';

const START_EVENT_LOW = 0x243f6a88;
const START_EVENT_HIGH = 0x05a308d3;
export const START_FIELD_LOW = 0x13198a2e;
export const START_FIELD_HIGH = 0x03707344;

export function absorbLow(lane: number, word: number): number {
  const mixed = Math.imul(lane ^ word, 0xcc9e2d51);
  return (mixed << 13) | (mixed >>> 19);
}

export function absorbHigh(lane: number, word: number): number {
  const mixed = Math.imul((lane + word) | 0, 0x1b873593);
  return (mixed << 15) | (mixed >>> 17);
}

/** Of a safe integer in two's complement; its low word is `value | 0`. */
function highWord(value: number): number {
  return Math.floor(value * 2 ** -32) | 0;
}

/**
 * Writes the payload hashes of a block's events to `out`, two words each from `begin` on. All at once at the end of
 * a block: the hash of a text was made when it came into the dictionary, what a path adds with its shape.
 *
 * In two loops, because the engine puts only so many small functions into one that calls them: in one loop an
 * event took 57 ns instead of 35.
 */
export function hashPayloads(
  columns: BlockColumns,
  events: number,
  texts: TextDictionary,
  shapes: ShapeDictionary,
  out: Uint32Array,
  begin: number,
): void {
  absorbAttributes(columns, events, texts, out, begin);
  addFields(columns, events, texts, shapes, out, begin);
}

function absorbAttributes(
  columns: BlockColumns,
  events: number,
  texts: TextDictionary,
  out: Uint32Array,
  begin: number,
): void {
  const { type, subject, time, flags } = columns;
  const { low: textLow, high: textHigh } = texts;
  for (let at = 0; at < events; at++) {
    let low = absorbLow(absorbLow(START_EVENT_LOW, textLow[type[at]!]!), textLow[subject[at]!]!);
    let high = absorbHigh(absorbHigh(START_EVENT_HIGH, textHigh[type[at]!]!), textHigh[subject[at]!]!);
    if (flags[at] === 1) {
      const timeLow = time[at]! | 0;
      const timeHigh = highWord(time[at]!);
      low = absorbLow(absorbLow(low, timeLow), timeHigh);
      high = absorbHigh(absorbHigh(high, timeLow), timeHigh);
    }
    out[begin + at * 2] = low;
    out[begin + at * 2 + 1] = high;
  }
}

function addFields(
  columns: BlockColumns,
  events: number,
  texts: TextDictionary,
  shapes: ShapeDictionary,
  out: Uint32Array,
  begin: number,
): void {
  const { shape, cells, cellStart } = columns;
  const { fields, start, seedLow, seedHigh } = shapes;
  const { low: textLow, high: textHigh } = texts;
  for (let at = 0; at < events; at++) {
    let low = out[begin + at * 2]! | 0;
    let high = out[begin + at * 2 + 1]! | 0;
    let field = start[shape[at]!]!;
    const end = cellStart[at + 1]!;
    for (let cell = cellStart[at]!; cell < end; cell++, field++) {
      const value = cells[cell]!;
      const word = value | 0;
      let fieldLow = seedLow[field]!;
      let fieldHigh = seedHigh[field]!;
      if (fields[field * 2 + 1]! >>> 8 === FIELD_NUMBER) {
        const highOfValue = highWord(value);
        fieldLow = absorbLow(absorbLow(fieldLow, word), highOfValue);
        fieldHigh = absorbHigh(absorbHigh(fieldHigh, word), highOfValue);
      } else {
        fieldLow = absorbLow(fieldLow, textLow[word]!);
        fieldHigh = absorbHigh(fieldHigh, textHigh[word]!);
      }
      low = (low + finish(fieldLow)) | 0;
      high = (high + finish(fieldHigh)) | 0;
    }
    out[begin + at * 2] = finish(low);
    out[begin + at * 2 + 1] = finish(high);
  }
}
