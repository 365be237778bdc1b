/** Bodies in which something is no JSON or no UTF-8, wherever a value stands. */
import { NO_UTF8 } from './msgpack.ts';
import {
  headersOf,
  isLines,
  isRequest,
  wayOf,
  type Deck,
  type Expected,
  type Part,
  type WayName,
} from './deck.ts';
import { JSON_WAYS, LOST, NOT_JSON, NOT_UNICODE } from './refusals.ts';
import { Junk, dict, num, type Dict, type Value } from './values.ts';

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

export const only = (value: Value): Dict => dict(['n', value]);
export type Place = readonly [name: string, set: (good: Dict, bad: Value) => Dict];
export const PLACES: readonly Place[] = [
  ['a value', (good, bad) => good.with('data', only(bad))],
  ['an item', (good, bad) => good.with('data', only([num(1), bad]))],
  ['an id', (good, bad) => good.with('id', bad)],
  ['data', (good, bad) => good.with('data', bad)],
  [
    'a nested value',
    (good, bad) => good.with('data', dict(['a', dict(['b', num(1)], ['c', bad])], ['d', 'x'])),
  ],
  ['a value in a list', (good, bad) => good.with('data', only([dict(['k', bad]), num(2)]))],
  ['a time', (good, bad) => good.with('time', bad)],
  ['an extension', (good, bad) => good.with('specversion', '1.0').with('ext', bad)],
  // What is not kept must be sound as well: behind a fault of the event, and where no field is known.
  ['a value behind a fault', (good, bad) => good.with('data', dict(['n', num('1e400')], ['m', bad]))],
  ['an item behind a fault', (good, bad) => good.with('data', dict(['n', '\ud800'], ['m', [bad]]))],
  ['an unknown field', (good, bad) => good.with('Extra', dict(['x', [bad]]))],
  ['a repeated field', (good, bad) => good.and('data', bad)],
];
/** Binary mode has the body for data alone. */
const isInData = ([name]: Place): boolean => !/^an (id|attribute|ext|unk)|time|field/.test(name);

/** The ways that share a reader take turns: one input goes over one of them. */
const TURNS = [...JSON_WAYS, 'ndjson', 'json'] as const satisfies readonly WayName[];

export function brokenTokens(deck: Deck): void {
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

export function brokenUnicode(deck: Deck): void {
  const inKey =
    (key: Junk): Place[1] =>
    (good) =>
      good.with('data', dict(['a', dict([key, num(1)])]));
  const inListKey =
    (key: Junk): Place[1] =>
    (good) =>
      good.with('data', only([dict([key, num(1)])]));
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
      ['no text', (good, bad) => good.with('data', only(bad))],
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
