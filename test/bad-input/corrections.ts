/** Corrections: what names the original, what they may lack, and what of an event is reserved for them. */
import { data, quoted, set, type Change, type EventCase } from './cases.ts';
import { dict, num, type Dict, type Value } from './values.ts';

const TYPES = [
  'tallyline.',
  'tallyline.x',
  'tallyline.void',
  'tallyline.void2',
  'tallyline..',
  'tallyline.voids',
];
const TYPES_FREE = ['tallyline', 'tallylines.x', 'Tallyline.void', 'tallyline_x', 'tall', 'x.tallyline.void'];
const KEYS = [
  'tallyline',
  'tallyline.',
  'tallyline.voids',
  'tallyline.amends',
  'tallyline.target',
  'tallyline.x.y',
];
const KEYS_FREE = [
  'tallylines',
  'tallyline2.voids',
  'Tallyline',
  'tally.line',
  'tall',
  ' tallyline',
  'tallyline\0',
];

/** The good event as a void: without what a void needs not. In CloudEvents a type is required. */
const voided =
  (change: (event: Dict) => Value = (event) => event): Change =>
  (good) => {
    const type = good.get('specversion') === undefined ? null : 'tallyline.void';
    return change(good.without('subject').with('type', type).with('voids', 'evt-1'));
  };
const amended =
  (change: (event: Dict) => Value): Change =>
  (good) =>
    change(good.with('amends', 'evt-1'));

export function* correctionCases(): Generator<EventCase> {
  yield { name: 'a void', code: null, event: voided() };
  yield {
    name: 'a void with its type',
    code: null,
    event: voided((event) => event.with('type', 'tallyline.void')),
  };
  yield {
    name: 'a void without a type',
    code: (isCloud) => (isCloud ? 'field_missing' : null),
    event: voided((event) => event.without('type')),
  };
  yield { name: 'a void with a subject', code: null, event: voided((event) => event.with('subject', 'c')) };
  yield { name: 'a void without data', code: null, event: voided((event) => event.without('data')) };
  yield { name: 'an amendment', code: null, event: amended((event) => event) };
  yield { name: 'a void that amends null', code: null, event: voided((event) => event.with('amends', null)) };
  for (const name of ['type', 'subject'])
    yield {
      name: `an amendment without ${name}`,
      code: 'field_missing',
      event: amended((event) => event.without(name)),
    };
  for (const name of ['voids', 'amends'] as const) {
    const as = name === 'voids' ? voided : amended;
    const being = (value: Value): Change => as((event) => event.with(name, value));
    yield { name: `${name} null`, code: null, event: set(name, null) };
    yield { name: `${name} ""`, code: 'field_missing', event: being('') };
    for (const value of [num(0), true, [], ['evt-1'], dict(), dict(['id', 'evt-1'])])
      yield { name: `${name} ${JSON.stringify(value)}`, code: 'field_not_text', event: being(value) };
    for (const unit of ['x', 'é', '日', '😀']) {
      const size = Buffer.byteLength(unit);
      const full = unit.repeat(Math.floor(256 / size)) + 'x'.repeat(256 % size);
      yield { name: `${name} of 256 bytes of ${unit}`, code: null, event: being(full) };
      yield { name: `${name} of more bytes of ${unit}`, code: 'field_too_long', event: being(`${full}x`) };
    }
    for (const text of ['a\0', '\n', '\u0085'])
      yield { name: `${name} ${quoted(text)}`, code: 'text_has_control', event: being(text) };
    for (const text of ['\ud800', 'a\udfff'])
      yield { name: `${name} ${quoted(text)}`, code: 'text_not_unicode', event: being(text) };
    yield {
      name: `${name} twice`,
      code: 'key_repeated',
      event: as((event) => event.and(name, 'evt-1')),
    };
    yield {
      name: `${name} of an event with a fault`,
      code: 'data_too_deep',
      event: as((event) => event.with('data', dict(['a', dict(['b', [[[[[[[[]]]]]]]]])]))),
    };
  }
  yield {
    name: 'a void that amends',
    code: 'correction_ambiguous',
    event: voided((event) => event.with('amends', 'evt-1')),
  };
  yield {
    name: 'an amendment that voids',
    code: 'correction_ambiguous',
    event: amended((event) => event.with('voids', 'evt-2')),
  };
  for (const type of ['llm.request', 'tallyline.', 'tallyline.voids', 'tallyline.amend'])
    yield {
      name: `a void of type ${type}`,
      code: 'void_has_type',
      event: voided((event) => event.with('type', type)),
    };
  for (const type of TYPES) {
    yield { name: `type ${type}`, code: 'type_reserved', event: set('type', type) };
    yield {
      name: `an amendment of type ${type}`,
      code: 'type_reserved',
      event: amended((event) => event.with('type', type)),
    };
  }
  for (const type of TYPES_FREE) yield { name: `type ${type}`, code: null, event: set('type', type) };
  for (const key of KEYS) {
    for (const value of ['x', num(1), null, [], dict(), dict(['voids', 'x'])]) {
      const told = `${quoted(key)}: ${JSON.stringify(value)}`;
      yield {
        name: `data ${told}`,
        code: 'data_path_reserved',
        event: data(dict(['a', num(1)], [key, value])),
      };
    }
    yield { name: `data a: ${quoted(key)}`, code: null, event: data(dict(['a', dict([key, num(1)])])) };
    yield { name: `data [${quoted(key)}]`, code: null, event: data(dict(['a', [dict([key, num(1)])]])) };
  }
  for (const key of KEYS_FREE)
    yield { name: `data ${quoted(key)}`, code: null, event: data(dict([key, num(1)])) };
}
