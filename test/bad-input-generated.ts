/**
 * Bad inputs by chance: good events of every kind, written down in every spelling, and then
 *   - one fault is put into the values of one of them, whose code is known by the fault; or
 *   - bytes of the body are changed. What must come of those is said by JSON.parse and the model of test/json-model.ts,
 *     or by the slow decoder of msgpack in test/bad-input-unpack.ts.
 */
import type { EdgeRejectionCode } from '../contract/rejections.ts';
import type { Window } from './bad-input-attributes.ts';
import {
  METERS,
  TYPE,
  WAY_NAMES,
  isLines,
  isMsgpack,
  isSayable,
  wayOf,
  type Deck,
  type Expected,
  type Part,
  type Refusal,
  type WayName,
} from './bad-input-deck.ts';
import { unpackEvents } from './bad-input-unpack.ts';
import {
  type Dice,
  Dict,
  JsonWriter,
  MsgpackWriter,
  MsgpackrWriter,
  type Num,
  Packed,
  dict,
  isList,
  lineOf,
  num,
  type Entry,
  type Field,
  type Value,
} from './bad-input-values.ts';
import type { PlainEvent, PlainField } from './batch-events.ts';
import { judge, parseTokens, type ModelLimits, type Node } from './json-model.ts';
import * as msgpack from './msgpack-encoder.ts';

export interface Amounts {
  readonly faults: number;
  readonly jsonBytes: number;
  readonly msgpackBytes: number;
}

export function generatedInputs(deck: Deck, window: Window, amounts: Amounts): void {
  for (let nth = 0; nth < amounts.faults; nth++) faultInput(deck, window);
  for (let nth = 0; nth < amounts.jsonBytes; nth++) jsonBytesInput(deck, window);
  for (let nth = 0; nth < amounts.msgpackBytes; nth++) msgpackBytesInput(deck, window);
}

const UNITS = [
  'a',
  'Z',
  '0',
  ' ',
  '"',
  '\\',
  '/',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '.',
  "'",
  'é',
  'ß',
  '日',
  '😀',
  '\u2028',
];
const CONTROLS = ['\0', '\n', '\t', '\u001f', '\u007f', '\u0085'];
const SURROGATES = ['\ud800', '\udbff', '\udc00', '\udfff'];

function textOf(dice: Dice, most: number, units: readonly string[] = UNITS): string {
  let text = '';
  for (let left = dice.below(most + 1); left > 0; left--) {
    if (dice.oneIn(6)) text += String.fromCodePoint(0xa0 + dice.below(0xd700));
    else if (dice.oneIn(20)) text += String.fromCodePoint(0x10000 + dice.below(0x100000));
    else text += dice.pick(units);
  }
  return text;
}

/** A number that every format can carry, in one of the ways to write it. */
function numberOf(dice: Dice): Num {
  const digits =
    String(1 + dice.below(10 ** (1 + dice.below(9)) - 1)) +
    (dice.oneIn(3) ? String(dice.below(100_000)) : '');
  const sign = dice.oneIn(3) ? '-' : '';
  const scale = dice.oneIn(2) ? 0 : dice.below(10);
  const padded = digits.padStart(scale + 1, '0');
  const point = padded.length - scale;
  const [whole, fraction] = [padded.slice(0, point).replace(/^0+(?=.)/, ''), padded.slice(point)];
  const zeros = '0'.repeat(dice.below(4));
  if (dice.oneIn(4)) return num(`${sign}${digits}${dice.pick(['e', 'E'])}-${scale}`);
  if (fraction + zeros === '') return num(`${sign}${whole}`);
  return num(`${sign}${whole}.${fraction}${zeros}${dice.oneIn(5) ? dice.pick(['e0', 'E+0', 'e-00']) : ''}`);
}

const KEYS = [
  'a',
  'b',
  'tokens',
  'model',
  'usage',
  'input',
  '',
  'é',
  '__proto__',
  'constructor',
  'A',
  '0',
  'a b',
  'id',
  'x"y',
];

function dictOf(dice: Dice, depth: number, size: number): Dict {
  const entries = new Map<string, Value>();
  for (let left = dice.below(size + 1); left > 0; left--) {
    const key = dice.oneIn(3) ? textOf(dice, 6) : dice.pick(KEYS);
    if (!key.includes('.')) entries.set(key, valueOf(dice, depth));
  }
  return new Dict([...entries]);
}

function valueOf(dice: Dice, depth: number): Value {
  const kind = dice.below(depth > 0 ? 10 : 7);
  if (kind < 3) return numberOf(dice);
  if (kind < 6) return textOf(dice, 12, [...UNITS, ...CONTROLS]);
  if (kind === 6) return dice.pick([true, false, null]);
  if (kind < 9) return dictOf(dice, depth - 1, 4);
  return Array.from({ length: dice.below(5) }, () => valueOf(dice, depth - 1));
}

/** An event that is taken. */
function eventOf(deck: Deck, way: WayName, tag: string, number: number, { nowMs }: Window): Dict {
  const { dice } = deck;
  const entries: Entry[] = [
    ['id', `${tag}.${number}.${textOf(dice, 20)}`],
    ['type', TYPE],
    ['subject', `s${textOf(dice, 20)}`],
    ['source', tag],
  ];
  if (wayOf(way).cloud || dice.oneIn(6)) {
    entries.push(['specversion', '1.0']);
    if (dice.oneIn(2)) entries.push(['traceparent', textOf(dice, 10)]);
  }
  if (dice.oneIn(2))
    entries.push(['time', new Date(nowMs - 3_600_000 - dice.below(2_000_000_000)).toISOString()]);
  if (!dice.oneIn(6)) entries.push(['data', dictOf(dice, 4, 8)]);
  // In any order.
  for (let at = entries.length - 1; at > 0; at--) {
    const other = dice.below(at + 1);
    [entries[at], entries[other]] = [entries[other]!, entries[at]!];
  }
  return new Dict(entries);
}

type Faulty = readonly [event: Value, code: EdgeRejectionCode];
/** Puts a fault into a good event; null when there is no place for it. */
type Fault = (dice: Dice, event: Dict, window: Window, isPacked: boolean) => Faulty | null;

const BYTES_MAX = { id: 256, source: 512, type: 128, subject: 256 } as const;
type Attribute = keyof typeof BYTES_MAX;
const ATTRIBUTES = Object.keys(BYTES_MAX) as Attribute[];
const isCloud = (event: Dict): boolean => event.get('specversion') !== undefined;

function inserted(dice: Dice, text: string, more: string): string {
  const characters = [...text];
  characters.splice(dice.below(characters.length + 1), 0, more);
  return characters.join('');
}

/** The objects of `data`, with those in lists or without, each with what makes the event anew around it. */
function dictsIn(event: Dict, inLists: boolean): (readonly [Dict, (other: Dict) => Dict, depth: number])[] {
  const found: (readonly [Dict, (other: Dict) => Dict, number])[] = [];
  const walk = (value: Value, rebuild: (other: Value) => Dict, depth: number): void => {
    if (value instanceof Dict) {
      found.push([value, rebuild, depth]);
      value.entries.forEach(([key, item], at) => {
        const entries = (other: Value): Entry[] =>
          value.entries.map((entry, one) => (one === at ? [key, other] : entry));
        walk(item, (other) => rebuild(new Dict(entries(other))), depth + 1);
      });
    } else if (isList(value) && inLists) {
      value.forEach((item, at) =>
        walk(item, (other) => rebuild(value.map((old, one) => (one === at ? other : old))), depth + 1),
      );
    }
  };
  const data = event.get('data');
  if (data !== undefined) walk(data, (other) => event.with('data', other), 1);
  return found;
}

/** Adds an entry to one of the objects of data, at any place in it. */
function addedTo(dice: Dice, event: Dict, inLists: boolean, key: Entry[0], value: Value): Dict | null {
  const dicts = dictsIn(event, inLists);
  if (dicts.length === 0) return null;
  const [chosen, rebuild] = dice.pick(dicts);
  const entries = [...chosen.entries];
  entries.splice(dice.below(entries.length + 1), 0, [key, value]);
  return rebuild(new Dict(entries));
}

const fault = (event: Dict | null, code: EdgeRejectionCode): Faulty | null =>
  event === null ? null : [event, code];

const FAULTS: readonly Fault[] = [
  (dice, event) => {
    const name = dice.pick(isCloud(event) ? ['id', 'type', 'subject'] : ['id', 'type', 'subject']);
    return [dice.oneIn(2) ? event.without(name) : event.with(name, dice.pick(['', null])), 'field_missing'];
  },
  (dice, event) => {
    const value = dice.pick<Value>([numberOf(dice), true, dictOf(dice, 2, 2), [textOf(dice, 3)]]);
    return [event.with(dice.pick([...ATTRIBUTES, 'time']), value), 'field_not_text'];
  },
  (dice, event) => {
    const name = dice.pick(ATTRIBUTES);
    let text = String(event.get(name));
    while (Buffer.byteLength(text) <= BYTES_MAX[name]) text += textOf(dice, 8);
    return [event.with(name, text), 'field_too_long'];
  },
  (dice, event) => {
    const name = dice.pick(ATTRIBUTES);
    return [
      event.with(name, inserted(dice, String(event.get(name)), dice.pick(CONTROLS))),
      'text_has_control',
    ];
  },
  (dice, event) => {
    const name = dice.pick(ATTRIBUTES);
    return [
      event.with(name, inserted(dice, String(event.get(name)), dice.pick(SURROGATES))),
      'text_not_unicode',
    ];
  },
  (dice, event) => {
    const name = isCloud(event) ? `E${dice.below(1_000)}` : `e${dice.below(1_000)}`;
    return [event.and(name, valueOf(dice, 2)), 'field_unknown'];
  },
  (dice, event) => {
    const name = dice.pick(event.entries)[0];
    return [event.and(name, numberOf(dice)), 'key_repeated'];
  },
  (dice, event) => {
    const dicts = dictsIn(event, true).filter(([{ entries }]) => entries.length > 0);
    if (dicts.length === 0) return null;
    const [chosen, rebuild] = dice.pick(dicts);
    const entries = [...chosen.entries];
    entries.splice(dice.below(entries.length + 1), 0, [dice.pick(entries)[0], numberOf(dice)]);
    return [rebuild(new Dict(entries)), 'key_repeated'];
  },
  (dice, event, _, isPacked) => {
    const lost = isPacked
      ? new Packed(msgpack.float64(dice.pick([NaN, Infinity, 1e-10, 0.1 + 0.2, 2 ** 53, 1e300])))
      : num(dice.pick(['1e400', '9007199254740992', '-1e-10', '0.12345678901', `${1 + dice.below(9)}e16`]));
    return fault(addedTo(dice, event, isPacked, 'lost', lost), 'number_not_exact');
  },
  (dice, event) => {
    let value: Value = dice.pick<Value>([num(1), 'x', null]);
    for (let level = 9 + dice.below(20); level > 0; level--)
      value = dice.oneIn(2) ? [value] : dict(['d', value]);
    return fault(addedTo(dice, event, true, 'deep', value), 'data_too_deep');
  },
  (dice, event) => {
    const more = Array.from(
      { length: 65 + dice.below(20) },
      (_, at) => [`more${at}`, numberOf(dice)] as const,
    );
    const data = event.get('data');
    const entries = data instanceof Dict ? data.entries : [];
    return [
      event.with('data', new Dict(dice.oneIn(2) ? [...entries, ...more] : [...more, ...entries])),
      'data_too_many_fields',
    ];
  },
  (dice, event) => {
    let key = '';
    while (Buffer.byteLength(key) <= 256) key += textOf(dice, 8).replaceAll('.', '');
    return fault(addedTo(dice, event, false, key, valueOf(dice, 0)), 'data_path_too_long');
  },
  (dice, event) => {
    const [one, other] = [`p${dice.below(9)}`, `q${dice.below(9)}`];
    const data = event.get('data');
    const entries = data instanceof Dict ? data.entries : [];
    const pair: readonly Entry[] = [
      [`${one}.${other}`, numberOf(dice)],
      [one, dict(['z', true], [other, textOf(dice, 3)])],
    ];
    const both = dice.oneIn(2) ? pair : [...pair].reverse();
    return [event.with('data', new Dict([both[0]!, ...entries, both[1]!])), 'data_path_repeated'];
  },
  (dice, event) => {
    const value = dice.pick<Value>([numberOf(dice), textOf(dice, 5), true, false, [dictOf(dice, 1, 2)]]);
    return [event.with('data', value), 'data_not_an_object'];
  },
  (dice, event, { nowMs }) => {
    const time = [...new Date(nowMs - 7_200_000).toISOString()];
    // Wherever a letter is put, or one of these is left out, it is no instant any more.
    if (dice.oneIn(2))
      time.splice(dice.below(time.length + 1), 0, dice.pick(['x', 'é', '\n', '+', '\u0660']));
    else time.splice(dice.pick([4, 7, 10, 13, 16, 23]), 1);
    return [event.with('time', time.join('')), 'time_not_rfc3339'];
  },
  (dice, event, { nowMs, ageMsMax, aheadMsMax }) => {
    const off = 600_000 + dice.below(1_000_000_000);
    if (dice.oneIn(2))
      return [event.with('time', new Date(nowMs + aheadMsMax + off).toISOString()), 'time_too_far_ahead'];
    return [event.with('time', new Date(nowMs - ageMsMax - off).toISOString()), 'time_too_old'];
  },
  (dice, event) => [
    event.with('specversion', dice.pick<Value>(['1.1', '0.3', '', num('1.0'), true, '1'])),
    'specversion_unknown',
  ],
  (dice, event) => {
    if (dice.oneIn(2))
      return [event.with('data_base64', dice.pick<Value>(['aGk=', num(1), []])), 'data_not_json'];
    const type = dice.pick(['text/plain', 'application/xml', 'image/png', '']);
    return [event.with('specversion', '1.0').with('datacontenttype', type), 'data_not_json'];
  },
  (dice, event) => {
    const text = 'y'.repeat(65_536 + dice.below(100));
    return fault(addedTo(dice, event, false, 'large', text), 'event_too_large');
  },
  (dice, event) => {
    const text = inserted(dice, textOf(dice, 8), dice.pick(SURROGATES));
    const more: readonly Entry[] = [
      ['text', text],
      [text, numberOf(dice)],
      ['list', [text]],
      ['list', [dict([text, true])]],
    ];
    return fault(addedTo(dice, event, true, ...dice.pick(more)), 'text_not_unicode');
  },
  (dice, _, __, isPacked) => [
    dice.pick<Value>([null, numberOf(dice), textOf(dice, 5), ...(isPacked ? [true] : [])]),
    'event_not_an_object',
  ],
  (dice, event) => {
    const data = event.get('data');
    const clean = data instanceof Dict ? data.without('tokens') : dict();
    const value = dice.pick<readonly [Value | undefined, EdgeRejectionCode]>([
      [undefined, 'meter_value_missing'],
      [null, 'meter_value_missing'],
      [true, 'meter_value_not_a_number'],
      [`${textOf(dice, 5)}x`, 'meter_value_not_a_number'],
      ['1000000000000000000', 'meter_value_out_of_range'],
      [`1.${'1'.repeat(10 + dice.below(20))}`, 'meter_value_out_of_range'],
    ]);
    const whole = value[0] === undefined ? clean : clean.with('tokens', value[0]);
    return [event.with('type', METERS[0]!.eventType).with('data', whole), value[1]];
  },
  (dice, event, _, isPacked) => {
    if (!isPacked) return null;
    const foreign = new Packed(
      dice.oneIn(2)
        ? msgpack.binary(Buffer.from(textOf(dice, 9)))
        : msgpack.extension(dice.below(256) - 128, Buffer.from(textOf(dice, 9)), 8),
    );
    return fault(addedTo(dice, event, true, 'foreign', foreign), 'value_not_json');
  },
  (dice, event, _, isPacked) => {
    if (!isPacked) return null;
    const key = dice.pick<Entry[0]>([
      numberOf(dice),
      true,
      null,
      new Packed(msgpack.binary(Buffer.from('k'))),
    ]);
    return fault(addedTo(dice, event, true, key, valueOf(dice, 1)), 'key_not_text');
  },
];

/** Several events, one of them with a fault, over any way and in any spelling. */
function faultInput(deck: Deck, window: Window): void {
  const { dice } = deck;
  const way = dice.pick(WAY_NAMES);
  const tag = deck.tag();
  const count = wayOf(way).many ? 1 + dice.below(5) : 1;
  const bad = dice.below(count);
  const parts = Array.from({ length: count }, (_, at): Part => {
    const event = eventOf(deck, way, tag, at, window);
    if (at !== bad) return { event, code: null };
    const made = dice.pick(FAULTS)(dice, event, window, isMsgpack(way));
    if (made === null || !isSayable(way, made[0])) return { event, code: null };
    return { event: made[0], code: made[1] };
  });
  if (!parts.every(({ event }) => isSayable(way, event))) return;
  const isPlain = parts.every(({ code }) => code === null);
  const writer = isPlain && isMsgpack(way) && dice.oneIn(2) ? new MsgpackrWriter() : deck.writer(way);
  const encoding =
    wayOf(way).door === 'http' && dice.oneIn(6) ? dice.pick(['gzip', 'br'] as const) : 'identity';
  deck.events(`by chance ${parts[bad]!.code ?? 'good'}`, way, tag, parts, writer, { encoding });
}

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

function jsonBytesInput(deck: Deck, window: Window): void {
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

function msgpackBytesInput(deck: Deck, window: Window): void {
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
