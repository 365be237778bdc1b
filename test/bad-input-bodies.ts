/** Bodies that cannot be read, whole or in part: what is no JSON, no UTF-8, no msgpack, cut off, or not what it says. */
import { Packr } from 'msgpackr';
import {
  type Deck,
  WAY_NAMES,
  expectedOf,
  headersOf,
  isLines,
  isMsgpack,
  isRequest,
  wayOf,
  type Expected,
  type Part,
  type WayName,
} from './bad-input-deck.ts';
import { NO_UTF8 } from './bad-input-msgpack.ts';
import {
  JsonWriter,
  Junk,
  MsgpackWriter,
  Packed,
  dict,
  num,
  type Dict,
  type Value,
  type Writer,
} from './bad-input-values.ts';
import * as msgpack from './msgpack-encoder.ts';

const NOT_JSON: Expected = { kind: 'refused', code: 'body_not_json' };
const NOT_UNICODE: Expected = { kind: 'refused', code: 'body_not_unicode' };
const NOT_MSGPACK: Expected = { kind: 'refused', code: 'body_not_msgpack' };
const NOTHING: Expected = { kind: 'events', stored: [], rejected: [], unmatched: 0 };
/** A frame of text that is no UTF-8 (RFC 6455, section 8.1): the connection is lost, or ended with 1007. */
const LOST: Expected = { kind: 'ended', codes: [1006, 1007] };

const JSON_WAYS = WAY_NAMES.filter((way) => !isMsgpack(way));
const MSGPACK_WAYS = WAY_NAMES.filter(isMsgpack);

export function bodyInputs(deck: Deck): void {
  brokenTokens(deck);
  brokenUnicode(deck);
  cutOff(deck);
  goingOn(deck);
  otherLanguages(deck);
  brokenMsgpack(deck);
}

/** No JSON, wherever a value stands. */
const TOKENS = [
  ...[
    '01',
    '-01',
    '00',
    '.5',
    '-.5',
    '5.',
    '5.e1',
    '1.e5',
    '+1',
    '-',
    '--1',
    '- 1',
    '0x10',
    '0b1',
    '1_000',
    '1,000',
  ],
  ...[
    '1e',
    '1e+',
    '1e-',
    '1E',
    'e5',
    '1e5.5',
    '1e+-5',
    '1.5.5',
    '١',
    '１',
    'Infinity',
    '-Infinity',
    'NaN',
    'nan',
    '1n',
  ],
  ...[
    'tru',
    'True',
    'TRUE',
    'truex',
    'fals',
    'nul',
    'Null',
    'nulll',
    'none',
    'undefined',
    'x',
    '$',
    '@',
    '&',
  ],
  ...[
    "'x'",
    '`x`',
    '"a',
    'a"',
    '"a"b',
    '"a" "b"',
    '"a\\',
    '"\\"',
    '"\\x41"',
    '"\\u12"',
    '"\\u12G4"',
    '"\\u{41}"',
  ],
  ...[
    '"\\U00000041"',
    '"\\ud8"',
    '"\\ud800\\u12"',
    '"\\ "',
    '"\\a"',
    '"\\\'"',
    '"\\0"',
    '"\\N"',
    '"\\\u00e9"',
  ],
  ...[
    '{"a":1,}',
    '{,}',
    '{,"a":1}',
    '{"a"}',
    '{"a":}',
    '{"a" 1}',
    '{"a"=1}',
    '{"a":1 "b":2}',
    '{"a":1,,"b":2}',
  ],
  ...[
    '{a:1}',
    "{'a':1}",
    '{1:1}',
    '{null:1}',
    '{"a":1]',
    '{"a":1:2}',
    '{"a":"b}',
    '{"a":1;}',
    '{["a"]:1}',
    '{"a":1}}',
  ],
  ...[
    '[1,]',
    '[,1]',
    '[,]',
    '[1,,2]',
    '[1 2]',
    '[1}',
    '[1;2]',
    '[1:2]',
    '[1',
    '["a]',
    '[1]]',
    '[...]',
    '[01]',
    '[nul]',
  ],
  ...[
    '}',
    ']',
    ',',
    ':',
    '{',
    '[',
    '[[',
    '{"a":{',
    '{"a":[',
    '(1)',
    '<a/>',
    '// c',
    '/* c */ 1',
    '1 // c',
    '# c',
    '--',
  ],
  ...[
    '1 2',
    '1;',
    '\ufeff1',
    '\u00a01',
    '\u20281',
    '\f1',
    '\v1',
    '\u00001',
    '1\u0000',
    '\u001b[0m',
    '=1',
    '!1',
    '1!',
    '*',
  ],
];
const RAW_CONTROLS = Array.from({ length: 32 }, (_, code) => String.fromCharCode(code));

const field = (value: Value): Dict => dict(['n', value]);
type Place = readonly [name: string, set: (good: Dict, bad: Value) => Dict];
const PLACES: readonly Place[] = [
  ['a value', (good, bad) => good.with('data', field(bad))],
  ['an item', (good, bad) => good.with('data', field([num(1), bad]))],
  ['an id', (good, bad) => good.with('id', bad)],
  ['data', (good, bad) => good.with('data', bad)],
  [
    'a nested value',
    (good, bad) => good.with('data', dict(['a', dict(['b', num(1)], ['c', bad])], ['d', 'x'])),
  ],
  ['a value in a list', (good, bad) => good.with('data', field([dict(['k', bad]), num(2)]))],
  ['a time', (good, bad) => good.with('time', bad)],
  ['an extension', (good, bad) => good.with('specversion', '1.0').with('ext', bad)],
  // What is not kept must be sound as well: behind a fault of the event, and where no field is known.
  ['a value behind a fault', (good, bad) => good.with('data', dict(['n', num('1e400')], ['m', bad]))],
  ['an item behind a fault', (good, bad) => good.with('data', dict(['n', '\ud800'], ['m', [bad]]))],
  ['an unknown field', (good, bad) => good.with('Extra', dict(['x', [bad]]))],
  ['a repeated field', (good, bad) => good.and('data', bad)],
];
/** Binary mode has the body for data alone. */
const isInData = ([name]: Place): boolean => !/^an (id|ext|unk)|time|field/.test(name);

/** The ways that share a reader take turns: one input goes over one of them. */
const TURNS = [...JSON_WAYS, 'ndjson', 'json'] as const satisfies readonly WayName[];

function brokenTokens(deck: Deck): void {
  const controls = RAW_CONTROLS.map((control) => `"a${control}b"`);
  let turn = 0;
  for (const token of [...TOKENS, ...controls]) {
    for (const place of PLACES) {
      turn += 1;
      const way = TURNS[turn % TURNS.length]!;
      const isLost = (isLines(way) && token.includes('\n')) || (way === 'binary' && !isInData(place));
      broken(deck, `${JSON.stringify(token)} as ${place[0]}`, isLost ? 'json' : way, NOT_JSON, (good) =>
        place[1](good, new Junk(token)),
      );
    }
    turn += 1; // or every place would meet the same ways again
  }
}

/** An event that is no JSON: in a body of lines that line alone is refused, else the body. */
function broken(deck: Deck, name: string, way: WayName, whole: Expected, event: (good: Dict) => Dict): void {
  const tag = deck.tag();
  const part: Part = { event: event(deck.good(way, tag, 1)), code: 'line_not_json', id: null };
  if (isLines(way)) return deck.between(name, way, tag, part);
  const writer = deck.writer(way);
  const good = (number: number): Value => deck.good(way, tag, number);
  const isBinary = way === 'binary';
  const written = isBinary
    ? [writer.write((part.event as Dict).get('data')!)]
    : (wayOf(way).many ? [good(0), part.event, good(2)] : [part.event]).map((one) => writer.write(one));
  const headers = isBinary ? headersOf(part.event as Dict) : {};
  deck.add({ name, way, body: deck.joined(way, written), headers, expected: whole }, tag);
}

function brokenUnicode(deck: Deck): void {
  const inKey =
    (key: Junk): Place[1] =>
    (good) =>
      good.with('data', dict(['a', dict([key, num(1)])]));
  const inListKey =
    (key: Junk): Place[1] =>
    (good) =>
      good.with('data', field([dict([key, num(1)])]));
  for (const [nth, [name, bytes]] of NO_UTF8.entries()) {
    const text = new Junk(Buffer.concat([Buffer.from('"b'), bytes, Buffer.from('c"')]));
    const bare = new Junk(bytes);
    const places: readonly Place[] = [
      ...PLACES,
      ...['type', 'subject', 'source'].map((name): Place => [
        `an id, ${name}`,
        (good, bad) => good.with(name, bad),
      ]),
      ['a key', inKey(text)],
      ['a key in a list', inListKey(text)],
      ['no text', (good, bad) => good.with('data', field(bad))],
    ];
    for (const [which, place] of places.entries()) {
      for (const way of [
        TURNS[(nth + which) % TURNS.length]!,
        TURNS[(nth + which * 3 + 1) % TURNS.length]!,
      ]) {
        if (way === 'binary' && !isInData(place)) continue;
        const whole = isRequest(way) ? NOT_UNICODE : LOST;
        const value = place[0] === 'no text' ? bare : text;
        broken(deck, `${name} in ${place[0]}`, way, whole, (good) => place[1](good, value));
      }
    }
  }
}

/** A body of three events, in ASCII and without white space, and where each of them ends. */
function threeEvents(deck: Deck, way: WayName, tag: string) {
  const parts = [0, 1, 2].map((number): Part => {
    const data = dict(['n', num('-12.5')], ['a', [num(1), 'x', dict(['k', null])]], ['b', dict(['c', true])]);
    return { event: deck.good(way, tag, number).with('data', data), code: null };
  });
  const writer = deck.writer(way, true);
  const written = parts.map(({ event }) => writer.write(event));
  const ends: number[] = [];
  for (const { length } of written) ends.push((ends.at(-1) ?? -1) + 1 + length);
  if (isMsgpack(way)) return { body: Buffer.from(msgpack.array(written)), ends, parts, writer };
  const joined = written.join(isLines(way) ? '\n' : ',');
  return { body: Buffer.from(isLines(way) ? joined : `[${joined}]`), ends, parts, writer };
}

function cutOff(deck: Deck): void {
  for (const way of WAY_NAMES) {
    if (!wayOf(way).many) continue;
    const { length } = threeEvents(deck, way, deck.tag()).body;
    const step = way === 'json' || way === 'msgpack' || way === 'ndjson' ? 3 : 29;
    for (let end = isRequest(way) ? 0 : 1; end < length; end += step) {
      const tag = deck.tag();
      const { body, ends, parts, writer } = threeEvents(deck, way, tag);
      const name = `cut off behind ${end} bytes`;
      const expected = isLines(way)
        ? ofLines(end, ends, parts, writer)
        : isMsgpack(way)
          ? NOT_MSGPACK
          : NOT_JSON;
      deck.add({ name, way, body: body.subarray(0, end), expected }, tag);
    }
  }
  for (const way of ['json one', 'cloudevents', 'msgpack one', 'binary'] as const) {
    const whole = (tag: string): Buffer => {
      const event = deck.good(way, tag, 1).with('data', field([num(1), 'x']));
      return deck.writer(way, true).write(way === 'binary' ? event.get('data')! : event);
    };
    for (let end = way === 'binary' ? 1 : 0; end < whole(deck.tag()).length; end += 5) {
      const tag = deck.tag();
      const headers = way === 'binary' ? headersOf(deck.good(way, tag, 1)) : {};
      const expected = isMsgpack(way) ? NOT_MSGPACK : NOT_JSON;
      deck.add(
        { name: `cut off behind ${end} bytes`, way, body: whole(tag).subarray(0, end), headers, expected },
        tag,
      );
    }
  }
}

/** Of lines, those that are whole are taken. */
function ofLines(end: number, ends: readonly number[], parts: readonly Part[], writer: Writer): Expected {
  const whole = ends.filter((one) => one <= end).length;
  const isCut = whole < parts.length && end > (whole === 0 ? 0 : ends[whole - 1]! + 1);
  const cut: Part = { event: null, code: 'line_not_json', id: null };
  return expectedOf(isCut ? [...parts.slice(0, whole), cut] : parts.slice(0, whole), writer);
}

function goingOn(deck: Deck): void {
  const behindJson = [
    'x',
    '[]',
    '{}',
    ',',
    '\0',
    ']',
    ']]',
    '\ufeff',
    'null',
    ';',
    '1',
    '"',
    '\\',
    ',{}',
    '\f',
    '// c',
  ];
  for (const way of JSON_WAYS) {
    if (isLines(way)) continue;
    for (const more of behindJson) {
      const tag = deck.tag();
      const event = deck.good(way, tag, 1);
      const isBinary = way === 'binary';
      const one = new JsonWriter(null, false).write(isBinary ? event.get('data')! : event);
      const body = Buffer.concat([deck.joined(way, [one]), Buffer.from(more)]);
      const headers = isBinary ? headersOf(event) : {};
      deck.add({ name: `${JSON.stringify(more)} behind it`, way, body, headers, expected: NOT_JSON }, tag);
      const before = Buffer.concat([Buffer.from(more), deck.joined(way, [one])]);
      deck.add(
        { name: `${JSON.stringify(more)} before it`, way, body: before, headers, expected: NOT_JSON },
        tag,
      );
    }
  }
  // In binary mode a body that closes the event early could say more of it than the header does.
  const escapes = [
    '{},"subject":"evil"',
    '1},"subject":{',
    'null,"id":"evil"',
    '{}}',
    '1}',
    '"x","id":"y"',
    '{"a":1},"data":{}',
  ];
  for (const body of escapes) {
    const tag = deck.tag();
    const headers = headersOf(deck.good('binary', tag, 1));
    deck.add(
      { name: `data ${body}`, way: 'binary', body: Buffer.from(body), headers, expected: NOT_JSON },
      tag,
    );
  }
  for (const way of MSGPACK_WAYS) {
    for (const more of [[0], [0xc0], [0x80], [0x90], [0xc1], [0xff], [0xa0], [0xdd, 0, 0x98, 0x96, 0x80]]) {
      const tag = deck.tag();
      const one = new MsgpackWriter(null).write(deck.good(way, tag, 1));
      const body = Buffer.concat([deck.joined(way, [one]), Uint8Array.from(more)]);
      // The envelope of a frame ends where the frame does.
      deck.add(
        { name: `${Buffer.from(more).toString('hex')} behind it`, way, body, expected: NOT_MSGPACK },
        tag,
      );
    }
  }
}

function otherLanguages(deck: Deck): void {
  const text = (tag: string, way: WayName): string => {
    const event = deck.good(way, tag, 1).with('subject', 'café');
    const one = new JsonWriter(null, false).write(event).toString();
    return wayOf(way).many ? `[${one}]` : one;
  };
  const utf16be = (from: string): Buffer => Buffer.from(from, 'utf16le').swap16();
  const utf32 = (from: string): Buffer => {
    const points = [...from].map((character) => character.codePointAt(0)!);
    return Buffer.from(new Uint8Array(Uint32Array.from(points).buffer));
  };
  const encodings: readonly (readonly [string, Expected, (json: string) => Buffer])[] = [
    ['a byte order mark', NOT_JSON, (json) => Buffer.from(`\ufeff${json}`)],
    ['UTF-16LE', NOT_UNICODE, (json) => Buffer.from(json, 'utf16le')],
    ['UTF-16LE with its mark', NOT_UNICODE, (json) => Buffer.from(`\ufeff${json}`, 'utf16le')],
    ['UTF-16BE', NOT_UNICODE, utf16be],
    ['UTF-16BE with its mark', NOT_UNICODE, (json) => utf16be(`\ufeff${json}`)],
    ['UTF-32LE', NOT_UNICODE, utf32],
    ['Latin-1', NOT_UNICODE, (json) => Buffer.from(json, 'latin1')],
    ['UTF-16LE in ASCII', NOT_JSON, (json) => Buffer.from(json.replace('é', 'e'), 'utf16le')],
    ['UTF-7', NOT_JSON, (json) => Buffer.from(json.replace('{', '+AHs-'))],
    ['base64', NOT_JSON, (json) => Buffer.from(Buffer.from(json).toString('base64'))],
    ['HTML', NOT_JSON, () => Buffer.from('<!doctype html><title>502 Bad Gateway</title>')],
    ['a form', NOT_JSON, () => Buffer.from('id=a&type=t&subject=s')],
    ['CSV', NOT_JSON, () => Buffer.from('id,type,subject\na,t,s\n')],
    ['YAML', NOT_JSON, () => Buffer.from('- id: a\n  type: t\n')],
    ['XML', NOT_JSON, () => Buffer.from('<?xml version="1.0"?><event id="a"/>')],
    ['two documents', NOT_JSON, (json) => Buffer.from(`${json}\n${json}`)],
    ['single quotes', NOT_JSON, (json) => Buffer.from(json.replaceAll('"', "'"))],
    ['a prefix against hijacking', NOT_JSON, (json) => Buffer.from(`)]}',\n${json}`)],
    ['a call', NOT_JSON, (json) => Buffer.from(`callback(${json})`)],
    ['nothing', NOT_JSON, () => Buffer.alloc(0)],
    ['white space', NOT_JSON, () => Buffer.from(' \t\r\n \n')],
    ['zeros', NOT_JSON, () => Buffer.alloc(4_096)],
    ['0xff', NOT_UNICODE, () => Buffer.alloc(4_096, 0xff)],
    ['msgpack', NOT_UNICODE, (json) => Buffer.from(msgpack.array([msgpack.text(json)]))],
  ];
  for (const way of JSON_WAYS) {
    if (isLines(way) || way === 'binary' || !isRequest(way)) continue;
    for (const [name, expected, of] of encodings) {
      const tag = deck.tag();
      deck.add({ name, way, body: of(text(tag, way)), expected }, tag);
    }
  }
  for (const way of WAY_NAMES) {
    if (!wayOf(way).many) continue;
    const body = isMsgpack(way) ? msgpack.array([]) : Buffer.from(isLines(way) ? '\n \n\r\n' : ' [ ] ');
    deck.add({ name: 'no event', way, body, expected: NOTHING });
  }
  // A line that is none leaves the others alone, and blank ones are counted.
  const tag = deck.tag();
  const good = (number: number): string =>
    new JsonWriter(null, true).write(deck.good('ndjson', tag, number)).toString();
  const lines = [
    '\ufeff{}',
    good(0),
    '',
    ' \t ',
    '{',
    good(1),
    '\r',
    `${good(2)} ${good(3)}`,
    `${good(4)}\r`,
    '[',
    good(5),
    '\0',
  ];
  const bad = [0, 4, 7, 9, 11].map((index) => ({ index, id: null, code: 'line_not_json' as const }));
  const stored = [0, 1, 4, 5].map((number): Part => ({
    event: deck.good('ndjson', tag, number),
    code: null,
  }));
  const taken = expectedOf(stored, new JsonWriter(null, true)) as Extract<Expected, { kind: 'events' }>;
  deck.add(
    {
      name: 'lines',
      way: 'ndjson',
      body: Buffer.from(lines.join('\n')),
      expected: { ...taken, rejected: bad },
    },
    tag,
  );
}

function brokenMsgpack(deck: Deck): void {
  const announced: readonly (readonly [string, readonly number[]])[] = [
    ['a list of ten million', [0xdd, 0x00, 0x98, 0x96, 0x80]],
    ['a list of four billion', [0xdd, 0xff, 0xff, 0xff, 0xff]],
    ['a list of 65,535', [0xdc, 0xff, 0xff]],
    ['a list of 15', [0x9f]],
    ['a map of ten million', [0xdf, 0x00, 0x98, 0x96, 0x80]],
    ['a map of four billion', [0xdf, 0xff, 0xff, 0xff, 0xff]],
    ['a map of 2^31', [0xdf, 0x80, 0x00, 0x00, 0x00]],
    ['a map of 65,535', [0xde, 0xff, 0xff]],
    ['a map of 15', [0x8f]],
    ['a text of four billion', [0xdb, 0xff, 0xff, 0xff, 0xff]],
    ['a text of 2^31', [0xdb, 0x80, 0x00, 0x00, 0x00]],
    ['a text of 65,535', [0xda, 0xff, 0xff]],
    ['a text of 255', [0xd9, 0xff]],
    ['a text of 31', [0xbf]],
    ['bytes of four billion', [0xc6, 0xff, 0xff, 0xff, 0xff]],
    ['bytes of 255', [0xc4, 0xff]],
    ['an extension of four billion', [0xc9, 0xff, 0xff, 0xff, 0xff, 0x01]],
    ['an extension of 255', [0xc7, 0xff, 0x01]],
    ['a fixext of 16', [0xd8, 0x01]],
    ['half a double', [0xcb, 0x3f, 0xf0]],
    ['half an integer', [0xcf, 0x00]],
    ['the byte that is never used', [0xc1]],
    ['the head of a text', [0xd9]],
    ['the head of a list', [0xdd, 0x00]],
  ];
  for (const [nth, way] of MSGPACK_WAYS.entries()) {
    for (const [which, [name, bytes]] of announced.entries()) {
      const value = new Packed(Uint8Array.from(bytes));
      if (isRequest(way)) {
        const alone = Uint8Array.from(bytes);
        deck.add({ name: `${name}, and nothing else`, way, body: alone, expected: NOT_MSGPACK });
      }
      const places: readonly Place[] = [
        ['the event', () => dict()],
        ...PLACES,
        ['a key', (good, bad) => good.with('data', dict([bad as Packed, num(1)]))],
        ['a key beside id', (good, bad) => good.and(bad as Packed, num(1))],
        ['a key in a list', (good, bad) => good.with('data', field([dict([bad as Packed, num(1)])]))],
      ];
      for (const [at, [place, set]] of places.entries()) {
        if ((which + at) % MSGPACK_WAYS.length !== nth) continue;
        const tag = deck.tag();
        if (place.includes('behind a fault') && place.includes('value')) continue; // JSON alone has such a number
        const writer = deck.writer(way, true);
        // It is the last thing in the body: what is announced would be found in what stands behind it.
        const event = place === 'the event' ? value : set(deck.good(way, tag, 1), value);
        const whole = writer.write(event);
        const cut = whole.subarray(0, whole.lastIndexOf(value.bytes) + bytes.length);
        deck.add(
          { name: `${name} as ${place}`, way, body: deck.joined(way, [cut]), expected: NOT_MSGPACK },
          tag,
        );
      }
    }
    const notOurs: readonly (readonly [string, (event: object) => Uint8Array])[] = [
      ['records of msgpackr', (event) => new Packr().pack([event, { ...event, more: 1 }, event])],
      ['a record of msgpackr', (event) => new Packr().pack(event)],
      ['JSON', (event) => Buffer.from(JSON.stringify([event]))],
      ['JSON of one event', (event) => Buffer.from(JSON.stringify(event))],
    ];
    for (const [name, of] of notOurs) {
      if (!isRequest(way)) continue;
      const body = of({ id: 'never', type: 't', subject: 's', data: { n: 1 } });
      deck.add({ name, way, body, expected: NOT_MSGPACK });
    }
  }
  const scalars: readonly (readonly [string, Uint8Array])[] = [
    ['5', Uint8Array.of(5)],
    ['-1', Uint8Array.of(0xff)],
    ['nil', msgpack.nil],
    ['a text', msgpack.text('id')],
    ['1.5', msgpack.float64(1.5)],
  ];
  for (const [name, body] of scalars) {
    const rejected = [{ index: 0, id: null, code: 'event_not_an_object' as const }];
    deck.add({
      name,
      way: 'msgpack one',
      body,
      expected: { kind: 'events', stored: [], rejected, unmatched: 0 },
    });
  }
}
