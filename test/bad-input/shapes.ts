/** `data` of an event: its depth, its fields, its paths and its size, at their bounds and beyond them. */
import { type EventCase, type Change, data, field, listed, nested, inDict, inList, many } from './cases.ts';
import { dict, num, type Dict, type Value } from './values.ts';

const EVENT_BYTES_MAX = 65_536;

export function* shapeCases(): Generator<EventCase> {
  yield { name: 'no data', code: null, event: (good) => good.without('data') };
  yield { name: 'data null', code: null, event: data(null) };
  yield { name: 'data {}', code: null, event: data(dict()) };
  for (const value of [num(0), num('1e2'), true, false, '', 'text', '{}', [], [dict()], [[]]])
    yield { name: `data ${JSON.stringify(value)}`, code: 'data_not_an_object', event: data(value) };

  // Depth. `data` itself is the first level.
  const leaves: readonly Value[] = [num(1), 'x', null, dict()];
  for (const leaf of leaves) {
    yield { name: 'data of 8 levels', code: null, event: data(nested(8, inDict, leaf)) };
    yield { name: 'data of 9 levels', code: 'data_too_deep', event: data(nested(9, inDict, leaf)) };
  }
  const lists: readonly (readonly [string, number, number])[] = [
    ['1 object and 7 lists', 1, 7],
    ['4 objects and 4 lists', 4, 4],
    ['7 objects and 1 list', 7, 1],
  ];
  for (const [name, objects, arrays] of lists) {
    for (const leaf of [...leaves.slice(0, 3), 'é\u0000']) {
      const within = data(nested(objects, inDict, nested(arrays, inList, leaf)));
      yield { name: `data of ${name}`, code: null, event: within };
      for (const more of [dict(), [], [leaf], dict(['b', leaf])])
        yield {
          name: `data of ${name}, and one more`,
          code: 'data_too_deep',
          event: data(nested(objects, inDict, nested(arrays, inList, more))),
        };
    }
  }
  yield { name: 'data of 8 objects and a list', code: 'data_too_deep', event: data(nested(8, inDict, [])) };
  for (const levels of [100, 400]) {
    yield {
      name: `data of ${levels} levels`,
      code: 'data_too_deep',
      event: data(nested(levels, inDict, num(1))),
    };
    yield {
      name: `a list of ${levels} levels`,
      code: 'data_too_deep',
      event: field(nested(levels, inList, num(1))),
    };
  }
  // A wide and a deep one beside each other: what counts is the deepest place, wherever it stands.
  const deep = nested(9, inDict, num(1));
  yield {
    name: 'the last of many is too deep',
    code: 'data_too_deep',
    event: data(dict(...many(40), ['z', deep])),
  };

  // Fields, counted after flattening.
  const fields: readonly (readonly [string, number, (count: number) => Value])[] = [
    ['flat', 64, (count) => dict(...many(count))],
    ['in two objects', 64, (count) => dict(['a', dict(...many(32))], ['b', dict(...many(count - 32))])],
    ['in lists', 64, (count) => dict(...many(count).map(([key]) => [key, [num(1), num(2)]] as const))],
    ['in empty objects', 64, (count) => dict(...many(count).map(([key]) => [key, dict()] as const))],
    ['one below the other', 64, (count) => dict(...many(count - 1), ['z', nested(7, inDict, 'x')])],
  ];
  for (const [name, most, of] of fields) {
    yield { name: `${most} fields ${name}`, code: null, event: data(of(most)) };
    yield { name: `${most + 1} fields ${name}`, code: 'data_too_many_fields', event: data(of(most + 1)) };
  }
  yield { name: '5,000 fields', code: 'data_too_many_fields', event: data(dict(...many(5_000))) };
  yield { name: 'a list of 5,000', code: null, event: field(many(5_000).map(([, value]) => value)) };

  // Paths, with their dots.
  for (const unit of ['k', 'é', '日', '😀']) {
    const size = Buffer.byteLength(unit);
    const of = (bytes: number): string => unit.repeat(Math.floor(bytes / size)) + 'k'.repeat(bytes % size);
    yield { name: `a key of 256 bytes of ${unit}`, code: null, event: data(dict([of(256), num(1)])) };
    yield {
      name: `a key of 257 bytes of ${unit}`,
      code: 'data_path_too_long',
      event: data(dict([of(257), num(1)])),
    };
    const below = (bytes: number): Change => data(dict([of(100), dict([of(50), dict([of(bytes), num(1)])])]));
    yield { name: `keys of 256 bytes of ${unit}`, code: null, event: below(104) };
    yield { name: `keys of 257 bytes of ${unit}`, code: 'data_path_too_long', event: below(105) };
  }
  const tooLong = 'k'.repeat(257);
  for (const value of [dict(), [], 'x', null, dict(['a', num(1)])])
    yield { name: 'a key that is too long', code: 'data_path_too_long', event: data(dict([tooLong, value])) };
  yield { name: 'a huge key', code: 'data_path_too_long', event: data(dict(['k'.repeat(70_000), num(1)])) };
  yield { name: 'a key of 257 bytes in a list', code: null, event: listed(dict([tooLong, num(1)])) };
  yield {
    name: 'a huge key in a list',
    code: 'event_too_large',
    event: listed(dict(['k'.repeat(70_000), num(1)])),
  };
}

/** An event of exactly so many bytes: its texts, its paths, its values, 8 a number. */
function ofBytes(bytes: number, fill: (left: number) => Dict): Change {
  return (good) => {
    const names = ['id', 'source', 'type', 'subject'];
    const taken = names.reduce((sum, name) => sum + Buffer.byteLength(String(good.get(name))), 0);
    return good.with('data', fill(bytes - taken));
  };
}

export function* sizeCases(): Generator<EventCase> {
  const fills: readonly (readonly [string, (left: number) => Dict])[] = [
    ['one text', (left) => dict(['v', 'x'.repeat(left - 1)])],
    ['text beyond ASCII', (left) => dict(['v', 'é'.repeat((left - 1) >> 1) + 'x'.repeat((left - 1) % 2)])],
    ['text and a number', (left) => dict(['n', num('1.5')], ['v', 'x'.repeat(left - 10)])],
    ['text and true', (left) => dict(['t', true], ['v', 'x'.repeat(left - 6)])],
    ['nested text', (left) => dict(['aa', dict(['bb', dict(['c', num(1)], ['d', 'x'.repeat(left - 22)])])])],
    ['a list', (left) => dict(['v', ['x'.repeat(left - 5)]])],
    ['a list of escapes', (left) => dict(['v', ['\\'.repeat((left - 5) >> 1) + 'x'.repeat((left - 5) % 2)]])],
  ];
  for (const [name, fill] of fills) {
    yield { name: `64 KiB of ${name}`, code: null, event: ofBytes(EVENT_BYTES_MAX, fill) };
    yield {
      name: `64 KiB and a byte of ${name}`,
      code: 'event_too_large',
      event: ofBytes(EVENT_BYTES_MAX + 1, fill),
    };
  }
  // Paths count whole: 32 fields below a path of 200 bytes are 6,400 bytes of it.
  const paths = (left: number): Dict => {
    const below = many(32).map(([key]) => [key, 'y'] as const);
    const taken = below.reduce((sum, [key]) => sum + 201 + String(key).length + 1, 0);
    return dict(['p'.repeat(200), dict(...below)], ['v', 'x'.repeat(left - taken - 1)]);
  };
  yield { name: '64 KiB with paths', code: null, event: ofBytes(EVENT_BYTES_MAX, paths) };
  yield {
    name: '64 KiB and a byte with paths',
    code: 'event_too_large',
    event: ofBytes(EVENT_BYTES_MAX + 1, paths),
  };
  yield { name: 'a text of 200,000 bytes', code: 'event_too_large', event: field('x'.repeat(200_000)) };
  yield {
    name: 'texts of 64 KiB together',
    code: 'event_too_large',
    event: data(dict(...many(60).map(([key]) => [key, 'x'.repeat(1_200)] as const))),
  };
}
