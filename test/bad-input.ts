/**
 * Every bad input that the edge is judged by: a table of each code of contract/rejections.ts at its bounds over every
 * way in, and inputs by chance. Told by a seed and a time; the same two, the same inputs.
 */
import { createHash } from 'node:crypto';
import type { EdgeRejectionCode } from '../contract/rejections.ts';
import { attributeCases } from './bad-input/attributes.ts';
import { bodyInputs } from './bad-input/bodies.ts';
import { jsonBytesInput, msgpackBytesInput } from './bad-input/bytes.ts';
import type { EventCase, Window } from './bad-input/cases.ts';
import { correctionCases } from './bad-input/corrections.ts';
import { numberCases, repeatCases, textCases } from './bad-input/contents.ts';
import { faultInput } from './bad-input/faults.ts';
import { fieldCases, notObjectCases } from './bad-input/fields.ts';
import { frameInputs } from './bad-input/frames.ts';
import { brokenTokens, brokenUnicode } from './bad-input/json.ts';
import { bombInputs, countInputs, nestedInputs, placeInputs, sizeInputs } from './bad-input/limits.ts';
import { meterCases } from './bad-input/metered.ts';
import { msgpackCases } from './bad-input/msgpack.ts';
import { requestInputs } from './bad-input/requests.ts';
import { shapeCases, sizeCases } from './bad-input/shapes.ts';
import {
  Deck,
  WAY_NAMES,
  isLines,
  isMsgpack,
  isRequest,
  isSayable,
  wayOf,
  type BadInput,
  type WayName,
} from './bad-input/deck.ts';

/** Seeds of runs that found something, and one to begin with. They are run for ever. */
export const SEEDS_KEPT: readonly number[] = [20_261_121];

/** How many inputs by chance. */
export interface Amounts {
  /** Events with a fault in their values. */
  readonly faults: number;
  /** Bodies with changed bytes. */
  readonly jsonBytes: number;
  readonly msgpackBytes: number;
}

/** For each seed. */
export const AMOUNTS: Amounts = { faults: 600, jsonBytes: 400, msgpackBytes: 300 };

export const AGE_DAYS_MAX = 3_660;
export const AHEAD_SECONDS_MAX = 3_600;

export function windowAt(nowMs: number, slackMs: number): Window {
  return { nowMs, ageMsMax: AGE_DAYS_MAX * 86_400_000, aheadMsMax: AHEAD_SECONDS_MAX * 1_000, slackMs };
}

export interface Extent {
  /** The inputs by chance are made once for each; the table is spelled by the first. */
  readonly seeds: readonly number[];
  readonly amounts: Amounts;
  /** With those that only a door can judge: types and encodings, bombs, sizes, frames. */
  readonly doors: boolean;
}

export function badInputs(window: Window, { seeds, amounts, doors }: Extent): BadInput[] {
  const deck = new Deck(seeds[0]!);
  eventInputs(deck, window);
  brokenTokens(deck);
  brokenUnicode(deck);
  bodyInputs(deck);
  nestedInputs(deck);
  countInputs(deck);
  placeInputs(deck);
  if (doors) {
    requestInputs(deck);
    bombInputs(deck);
    sizeInputs(deck);
    frameInputs(deck);
  }
  for (const seed of seeds) chanceInputs(deck, window, seed, amounts);
  return deck.inputs;
}

export function chanceInputs(deck: Deck, window: Window, seed: number, amounts: Amounts): void {
  deck.dice.begin(seed);
  for (let nth = 0; nth < amounts.faults; nth++) faultInput(deck, window);
  for (let nth = 0; nth < amounts.jsonBytes; nth++) jsonBytesInput(deck, window);
  for (let nth = 0; nth < amounts.msgpackBytes; nth++) msgpackBytesInput(deck, window);
}

/** Ways that share a reader. */
const READERS: readonly (readonly WayName[])[] = [
  WAY_NAMES.filter((way) => !isMsgpack(way) && !isLines(way) && way !== 'binary'),
  WAY_NAMES.filter(isLines),
  WAY_NAMES.filter(isMsgpack),
  ['binary'],
];
/** A code that fewer cases than these meet is tried over every way. */
const CASES_FEW = 24;

/** Every case of one event through every reader that can say it; the ways to one reader take turns. */
function eventInputs(deck: Deck, window: Window): void {
  const cases: EventCase[] = [
    ...[...attributeCases(window), ...fieldCases(), ...notObjectCases()],
    ...[...shapeCases(), ...sizeCases(), ...numberCases(), ...textCases(), ...repeatCases()],
    ...[...meterCases(), ...msgpackCases(), ...correctionCases()],
  ];
  const cloudless = ({ code }: EventCase): string | null => (typeof code === 'function' ? code(true) : code);
  const casesOf = new Map<string | null, number>();
  for (const one of cases) casesOf.set(cloudless(one), (casesOf.get(cloudless(one)) ?? 0) + 1);
  for (const [turn, one] of cases.entries()) {
    const { name, code, event, timeMs, only } = one;
    const isRare = casesOf.get(cloudless(one))! < CASES_FEW;
    for (const ways of READERS) {
      const sayable = ways.filter(
        (way) => only?.(way) !== false && isSayable(way, event(deck.good(way, '', 1), '')),
      );
      const chosen = isRare ? sayable : sayable.slice(turn % sayable.length).slice(0, 1);
      for (const way of chosen) {
        const tag = deck.tag();
        const made = event(deck.good(way, tag, 1), tag);
        const found = typeof code === 'function' ? code(wayOf(way).cloud) : code;
        const encoding =
          isRequest(way) && deck.dice.oneIn(8) ? deck.dice.pick(['gzip', 'br'] as const) : 'identity';
        deck.between(name, way, tag, { event: made, code: found, timeMs }, deck.writer(way), { encoding });
      }
    }
  }
}

const all = WAY_NAMES;
const many = WAY_NAMES.filter((way) => wayOf(way).many);
const structured = WAY_NAMES.filter((way) => way !== 'binary');
const requests = WAY_NAMES.filter(isRequest);
const json = WAY_NAMES.filter((way) => !isMsgpack(way));
const documents = json.filter((way) => !isLines(way));

/** The ways over which each code can be met. */
export const REACHED: Readonly<Record<EdgeRejectionCode, readonly WayName[]>> = {
  event_not_an_object: structured,
  field_missing: all,
  field_not_text: structured,
  field_too_long: all,
  field_unknown: structured,
  key_repeated: all,
  key_not_text: all.filter(isMsgpack),
  specversion_unknown: all,
  text_not_unicode: all,
  text_has_control: all,
  type_reserved: all,
  void_has_type: all,
  correction_ambiguous: all,
  time_not_rfc3339: all,
  time_too_old: all,
  time_too_far_ahead: all,
  data_not_an_object: all,
  data_not_json: structured,
  data_too_deep: all,
  data_too_many_fields: all,
  data_path_too_long: all,
  data_path_reserved: all,
  data_path_repeated: all,
  number_not_exact: all,
  value_not_json: all.filter(isMsgpack),
  event_too_large: all,
  line_not_json: all.filter(isLines),
  body_not_json: documents,
  body_not_msgpack: all.filter(isMsgpack),
  // A frame of text is looked at before we see it.
  body_not_unicode: documents.filter(isRequest),
  body_not_decompressed: requests,
  body_too_large: requests,
  batch_too_large: many,
  content_type_unknown: ['json', 'binary'],
  content_encoding_unknown: ['json', 'msgpack'],
  meter_value_missing: all,
  meter_value_not_a_number: all,
  meter_value_out_of_range: all,
};

/** What HTTP decides, whatever the body says. */
export const OF_THE_DOORS: readonly EdgeRejectionCode[] = [
  'body_not_decompressed',
  'body_too_large',
  'content_type_unknown',
  'content_encoding_unknown',
];

/** The codes that no input expects, over which way. */
export function unreached(inputs: readonly BadInput[]): { code: EdgeRejectionCode; way: WayName }[] {
  const found = new Set<string>();
  for (const { way, expected } of inputs) {
    if (expected.kind === 'refused') found.add(`${expected.code} ${way}`);
    if (expected.kind === 'events') for (const { code } of expected.rejected) found.add(`${code} ${way}`);
  }
  return Object.entries(REACHED).flatMap(([name, ways]) => {
    const code = name as EdgeRejectionCode;
    return ways.filter((way) => !found.has(`${code} ${way}`)).map((way) => ({ code, way }));
  });
}

/** How many inputs differ in more than the ids of their events. */
export function differentIn(inputs: readonly BadInput[]): number {
  const digests = inputs.map((input) =>
    createHash('sha1').update(essenceOf(input), 'latin1').digest('base64'),
  );
  return new Set(digests).size;
}

/** What is different about an input when the word that only its ids have is taken out of it. */
function essenceOf({ way, encoding, headers, body, sent, isChunked, tag }: BadInput): string {
  const bytes = `${Buffer.from(body).toString('latin1')}\0${sent === null ? '' : Buffer.from(sent).toString('latin1')}`;
  return [way, encoding, isChunked, JSON.stringify(headers), bytes].join('\0').replaceAll(tag, '');
}
