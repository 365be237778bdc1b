/**
 * One fault by chance in a good event by chance. Which code it is told is known by the fault: nothing else is wrong
 * with the event.
 */
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import type { Window } from './cases.ts';
import { CONTROLS, SURROGATES, textOf, numberOf, dictOf, valueOf, eventOf } from './chance.ts';
import * as msgpack from '../msgpack-encoder.ts';
import { METERS, WAY_NAMES, isMsgpack, isSayable, wayOf, type Deck, type Part } from './deck.ts';
import { Dict, Packed, dict, isList, num, type Dice, type Entry, type Value } from './values.ts';
import { MsgpackrWriter } from './writers.ts';

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
    const name = dice.pick(['id', 'type', 'subject']);
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
export function faultInput(deck: Deck, window: Window): void {
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
