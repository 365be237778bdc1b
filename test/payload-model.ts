/** The payload hash as contract/payload.ts defines it, said a second time: slowly, on bigints. */
import type { PlainEvent, PlainField } from './batch-events.ts';

const WORD = 0xffff_ffffn;
const rotated = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (32n - by))) & WORD;
const encoder = new TextEncoder();

type Lanes = readonly [low: bigint, high: bigint];

function finish(hash: bigint): bigint {
  const first = ((hash ^ (hash >> 16n)) * 0x85ebca6bn) & WORD;
  const second = ((first ^ (first >> 13n)) * 0xc2b2ae35n) & WORD;
  return second ^ (second >> 16n);
}

const multiplied = ([low, high]: Lanes, [first, second]: Lanes): Lanes => [
  ((low ^ first) * 0xcc9e2d51n) & WORD,
  (((high + second) & WORD) * 0x1b873593n) & WORD,
];

/** What a lane has after it absorbed its word. */
function absorbed(lanes: Lanes, words: Lanes): Lanes {
  const [low, high] = multiplied(lanes, words);
  return [rotated(low, 13n), rotated(high, 15n)];
}

/** The hash of text-hash.ts. */
export function textHash(bytes: Uint8Array): Lanes {
  const wordAt = (at: number): bigint =>
    [0, 1, 2, 3].reduce((sum, byte) => sum | (BigInt(bytes[at + byte] ?? 0) << BigInt(8 * byte)), 0n);
  const length = BigInt(bytes.length);
  let lanes: Lanes = [0x9e3779b1n ^ length, (0x85ebca77n + length) & WORD];
  const whole = bytes.length - (bytes.length % 4);
  for (let at = 0; at < whole; at += 4) lanes = absorbed(lanes, [wordAt(at), wordAt(at)]);
  const rest = wordAt(whole);
  const [low, high] = multiplied(lanes, [rest, rest]);
  return [finish(low ^ (high >> 11n)), finish((high + (low >> 9n)) & WORD)];
}

const textOf = (text: string): Lanes[] => [textHash(encoder.encode(text))];

/** Both lanes absorb the low and then the high word. */
function integer(value: number): Lanes[] {
  const bits = BigInt.asUintN(64, BigInt(value));
  return [bits & WORD, bits >> 32n].map((word) => [word, word]);
}

function fieldHash(field: PlainField): Lanes {
  const value =
    'number' in field ? integer(field.number[0]) : textOf('text' in field ? field.text : field.literal);
  const tag = 'number' in field ? 1 : 'text' in field ? 0 : 2;
  const code = BigInt(tag * 256 + ('number' in field ? field.number[1] : 0));
  const [low, high] = [...textOf(field.path), [code, code] as const, ...value].reduce(absorbed, [
    0x13198a2en,
    0x03707344n,
  ]);
  return [finish(low), finish(high)];
}

export function payloadHash(event: PlainEvent): [low: number, high: number] {
  const time = event.timeGiven ? integer(event.timeMs) : [];
  let [low, high] = [...textOf(event.type), ...textOf(event.subject), ...time].reduce<Lanes>(absorbed, [
    0x243f6a88n,
    0x05a308d3n,
  ]);
  for (const field of event.fields) {
    const [fieldLow, fieldHigh] = fieldHash(field);
    low = (low + fieldLow) & WORD;
    high = (high + fieldHigh) & WORD;
  }
  return [Number(finish(low)), Number(finish(high))];
}
