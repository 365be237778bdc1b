/** Good events by chance: of every shape, with every kind of key, text and number that is taken. */
import type { Window } from './cases.ts';
import { TYPE, wayOf, type Deck, type WayName } from './deck.ts';
import { Dict, num, type Dice, type Entry, type Num, type Value } from './values.ts';

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
export const CONTROLS = ['\0', '\n', '\t', '\u001f', '\u007f', '\u0085'];
export const SURROGATES = ['\ud800', '\udbff', '\udc00', '\udfff'];

export function textOf(dice: Dice, most: number, units: readonly string[] = UNITS): string {
  let text = '';
  for (let left = dice.below(most + 1); left > 0; left--) {
    if (dice.oneIn(6)) text += String.fromCodePoint(0xa0 + dice.below(0xd700));
    else if (dice.oneIn(20)) text += String.fromCodePoint(0x10000 + dice.below(0x100000));
    else text += dice.pick(units);
  }
  return text;
}

/** A number that every format can carry, in one of the ways to write it. */
export function numberOf(dice: Dice): Num {
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

export function dictOf(dice: Dice, depth: number, size: number): Dict {
  const entries = new Map<string, Value>();
  for (let left = dice.below(size + 1); left > 0; left--) {
    const key = dice.oneIn(3) ? textOf(dice, 6) : dice.pick(KEYS);
    if (!key.includes('.')) entries.set(key, valueOf(dice, depth));
  }
  return new Dict([...entries]);
}

export function valueOf(dice: Dice, depth: number): Value {
  const kind = dice.below(depth > 0 ? 10 : 7);
  if (kind < 3) return numberOf(dice);
  if (kind < 6) return textOf(dice, 12, [...UNITS, ...CONTROLS]);
  if (kind === 6) return dice.pick([true, false, null]);
  if (kind < 9) return dictOf(dice, depth - 1, 4);
  return Array.from({ length: dice.below(5) }, () => valueOf(dice, depth - 1));
}

/** An event that is taken. */
export function eventOf(deck: Deck, way: WayName, tag: string, number: number, { nowMs }: Window): Dict {
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
  if (dice.oneIn(8)) entries.push(['amends', `o${textOf(dice, 20)}`]);
  // In any order.
  for (let at = entries.length - 1; at > 0; at--) {
    const other = dice.below(at + 1);
    [entries[at], entries[other]] = [entries[other]!, entries[at]!];
  }
  return new Dict(entries);
}
