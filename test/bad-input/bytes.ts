/**
 * Bodies of good events of which some bytes were changed by chance. What must come of them is said by JSON.parse and
 * the model of test/json-model.ts, or by a slow decoder of msgpack.
 */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import type { PlainEvent, PlainField } from '../batch-events.ts';
import { judge, parseTokens, type ModelLimits, type Node } from '../json-model.ts';
import type { Window } from './cases.ts';
import { eventOf } from './chance.ts';
import { unpackEvents } from './unpack.ts';
import { isLines, wayOf, type Deck, type Expected, type Refusal, type WayName } from './deck.ts';
import { lineOf, type Dice, type Field } from './values.ts';
import { JsonWriter, MsgpackWriter, MsgpackrWriter } from './writers.ts';

const JSON_BYTES = Buffer.from('"\\,:[]{}0123456789.eE+-tfnu \t\n\r/b');
const ODD_BYTES = Uint8Array.of(
  0,
  0x1f,
  0x7f,
  0x80,
  0xbf,
  0xc2,
  0xc3,
  0xe2,
  0xed,
  0xf0,
  0xf5,
  0xff,
  0xef,
  0xbb,
);

/** One to three changes of a byte or a few. */
function mutated(dice: Dice, body: Buffer, likely: Uint8Array): Buffer {
  let bytes = body;
  for (let left = 1 + dice.below(3); left > 0; left--) {
    const at = dice.below(bytes.length + 1);
    const byte = dice.oneIn(4) ? dice.below(256) : dice.pick([...(dice.oneIn(3) ? ODD_BYTES : likely)]);
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
    const from = dice.below(bytes.length + 1);
    const kinds: readonly (readonly Uint8Array[])[] = [
      [before],
      [before, Uint8Array.of(byte), after],
      [before, Uint8Array.of(byte), after.subarray(1)],
      [before, after.subarray(1 + dice.below(4))],
      [before, bytes.subarray(from, from + dice.below(12)), after],
    ];
    bytes = Buffer.concat(kinds[dice.oneIn(12) ? 0 : 1 + dice.below(4)]!);
  }
  return bytes;
}

const JSON_WAYS: readonly WayName[] = [
  'json',
  'json',
  'json one',
  'ndjson',
  'cloudevents batch',
  'openmeter',
];

export function jsonBytesInput(deck: Deck, window: Window): void {
  const { dice } = deck;
  const way = dice.pick(JSON_WAYS);
  const tag = deck.tag();
  const count = wayOf(way).many ? 1 + dice.below(3) : 1;
  const writer = new JsonWriter(dice.oneIn(3) ? dice : null, isLines(way));
  const written = Array.from({ length: count }, (_, at) => writer.write(eventOf(deck, way, tag, at, window)));
  const body = mutated(dice, deck.joined(way, written), JSON_BYTES);
  const expected = isLines(way) ? ofLines(body, window) : ofDocument(body, window, wayOf(way).cloud);
  if (expected !== null) deck.add({ name: 'changed bytes', way, body, expected }, tag);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decoded(bytes: Uint8Array): string | null {
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}

/** The tokens of sound JSON, else null. */
function parsed(text: string): Node | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  return parseTokens(text);
}

/** Null: what comes of it depends on when it is sent. */
function ofDocument(body: Uint8Array, window: Window, isCloudEvents: boolean): Expected | null {
  const text = decoded(body);
  if (text === null) return { kind: 'refused', code: 'body_not_unicode' };
  const root = parsed(text);
  if (root === null) return { kind: 'refused', code: 'body_not_json' };
  const events = root.kind === 'array' ? root.items : [root];
  return ofNodes([...events.entries()], window, isCloudEvents);
}

function ofLines(body: Buffer, window: Window): Expected | null {
  const events: (readonly [number, Node | null])[] = [];
  let start = 0;
  for (let index = 0; start <= body.length; index++) {
    const found = body.indexOf(0x0a, start);
    const end = found < 0 ? body.length : found;
    const line = body.subarray(start, end);
    start = end + 1;
    if (line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)) continue;
    const text = decoded(line);
    events.push([index, text === null ? null : parsed(text)]);
  }
  return ofNodes(events, window, false);
}

/** Null for an event is a line that is no JSON; null for an answer, that the hour decides. */
function ofNodes(
  events: readonly (readonly [number, Node | null])[],
  window: Window,
  isCloudEvents: boolean,
): Expected | null {
  const stored: string[] = [];
  const rejected: Refusal[] = [];
  for (const [index, node] of events) {
    if (node === null) {
      rejected.push({ index, id: null, code: 'line_not_json' });
      continue;
    }
    const [now, later] = [0, 600_000].map((ms) =>
      judge(node, limitsAt(window, window.nowMs + ms, isCloudEvents)),
    );
    if ('event' in now! !== 'event' in later!) return null;
    if ('event' in now!) stored.push(lineOfModel(now.event));
    else rejected.push({ index, id: now!.id, code: now!.code as EdgeRejectionCode });
  }
  // No change of a few bytes makes a type one that a meter counts.
  return { kind: 'events', stored, rejected, unmatched: stored.length };
}

function limitsAt({ ageMsMax, aheadMsMax }: Window, nowMs: number, requireSpecversion: boolean): ModelLimits {
  return { nowMs, ageMsMax, aheadMsMax, requireSpecversion };
}

/** As `lineOf`, from what a model or a reader has. */
export function lineOfModel(event: PlainEvent): string {
  const { id, source, type, subject, timeMs, timeGiven } = event;
  return lineOf({
    id,
    source,
    type,
    subject,
    timeMs: timeGiven ? timeMs : null,
    fields: event.fields.map(fieldOf),
  });
}

function fieldOf(field: PlainField): Field {
  if ('text' in field) return [field.path, 'text', field.text];
  if ('literal' in field) return [field.path, 'literal', field.literal];
  return [field.path, 'number', `${field.number[0]}e-${field.number[1]}`];
}

const MSGPACK_BYTES = Uint8Array.of(
  ...[0x00, 0x01, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x91, 0x9f, 0xa0, 0xa1, 0xbf, 0xe0, 0xff],
  ...Array.from({ length: 32 }, (_, at) => 0xc0 + at),
);

export function msgpackBytesInput(deck: Deck, window: Window): void {
  const { dice } = deck;
  const way: WayName = dice.oneIn(4) ? 'msgpack one' : 'msgpack';
  const tag = deck.tag();
  const count = way === 'msgpack' ? 1 + dice.below(3) : 1;
  const writer = dice.oneIn(2) ? new MsgpackrWriter() : new MsgpackWriter(dice);
  const written = Array.from({ length: count }, (_, at) => writer.write(eventOf(deck, way, tag, at, window)));
  const body = mutated(dice, deck.joined(way, written), MSGPACK_BYTES);
  const expected = ofMsgpack(body, window);
  if (expected !== null) deck.add({ name: 'changed bytes', way, body, expected }, tag);
}

function ofMsgpack(body: Uint8Array, window: Window): Expected | null {
  const events = unpackEvents(body);
  if (events === null) return { kind: 'refused', code: 'body_not_msgpack' };
  if (events.length > 10_000) return { kind: 'refused', code: 'batch_too_large' };
  const whole = ofNodes(
    events.map(({ node }, index) => [index, node] as const).filter((_, index) => !events[index]!.isOdd),
    window,
    false,
  );
  if (whole === null || whole.kind !== 'events') return whole;
  const odd = events.flatMap(({ isOdd }, index): Refusal[] =>
    isOdd ? [{ index, id: null, code: null }] : [],
  );
  const rejected = [...whole.rejected, ...odd].sort((one, other) => one.index - other.index);
  return { ...whole, rejected };
}
