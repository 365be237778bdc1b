/**
 * The names of an event's top-level fields, and how a key of JSON is told to be one of them: `"subject":` is
 * compared four bytes at a time, the last four overlapping, which is three comparisons instead of ten.
 */
import { COLON, QUOTE } from './json-source.ts';

/** Numbers of names; below these stand ID, SOURCE, TYPE, SUBJECT, TIME, VOIDS and AMENDS. */
export const DATA = 7;
export const SPECVERSION = 8;
export const DATACONTENTTYPE = 9;
export const DATASCHEMA = 10;
export const DATA_BASE64 = 11;
/** Any other name. */
export const UNKNOWN = 12;

/** By number. */
const NAMES = [
  'id',
  'source',
  'type',
  'subject',
  'time',
  'voids',
  'amends',
  'data',
  'specversion',
  'datacontenttype',
  'dataschema',
  'data_base64',
] as const;

/** Bytes of a name with its quotes and its colon; by number, 0 for UNKNOWN. */
const KEY_BYTES = new Uint8Array(UNKNOWN + 1);
const WORDS_EACH = 5;
const WORDS = new Int32Array((UNKNOWN + 1) * WORDS_EACH);
const WORD_AT = new Uint8Array((UNKNOWN + 1) * WORDS_EACH);
const WORD_COUNT = new Uint8Array(UNKNOWN + 1);

const encoded = NAMES.map((name) => new TextEncoder().encode(name));
for (const [number, name] of encoded.entries()) {
  const key = new Uint8Array([QUOTE, ...name, QUOTE, COLON]);
  const view = new DataView(key.buffer);
  KEY_BYTES[number] = key.length;
  const count = Math.ceil(key.length / 4);
  WORD_COUNT[number] = count;
  for (let word = 0; word < count; word++) {
    const at = Math.min(word * 4, key.length - 4);
    WORD_AT[number * WORDS_EACH + word] = at;
    WORDS[number * WORDS_EACH + word] = view.getInt32(at, true);
  }
}

/** When the key of that name and a colon stand at `at`: the offset behind the colon; else 0. */
export function behindName(view: DataView, at: number, name: number): number {
  const count = WORD_COUNT[name]!;
  if (count === 0) return 0;
  const first = name * WORDS_EACH;
  for (let word = first; word < first + count; word++) {
    if (view.getInt32(at + WORD_AT[word]!, true) !== WORDS[word]) return 0;
  }
  return at + KEY_BYTES[name]!;
}

/** The number of the name in `bytes[start, end)`. */
export function nameOf(bytes: Uint8Array, start: number, end: number): number {
  for (let number = 0; number < UNKNOWN; number++) {
    const name = encoded[number]!;
    if (name.length !== end - start) continue;
    let at = 0;
    while (at < name.length && name[at] === bytes[start + at]) at += 1;
    if (at === name.length) return number;
  }
  return UNKNOWN;
}

export function nameText(number: number): string {
  return NAMES[number]!;
}
