import { describe, expect, test } from 'vitest';
import { EventBatch } from '../../contract/event-batch.ts';
import type { Meter } from '../../contract/meter.ts';
import { Admission } from '../read/admit.ts';
import { readBody } from '../read/body.ts';
import { MeterBook } from './meters.ts';

const admission = new Admission({ eventAgeDaysMax: 30, eventAheadSecondsMax: 60, batchEventsMax: 100 });

const sum = (key: string, valueProperty: string, eventType = 'request'): Meter => ({
  key,
  eventType,
  aggregation: 'sum',
  valueProperty,
  groupBy: [],
});
const count = (key: string, eventType = 'request'): Meter => ({
  key,
  eventType,
  aggregation: 'count',
  valueProperty: null,
  groupBy: [],
});
const entryOf = (meter: unknown, tenant = 'acme'): string => JSON.stringify({ tenant, meter });

function bookOf(...meters: readonly Meter[]): MeterBook {
  const book = new MeterBook();
  for (const meter of meters) expect(book.set(`acme.${meter.key}`, entryOf(meter))).toBe(true);
  return book;
}

interface Fate {
  /** The code and the message before its second colon; null: admitted. */
  readonly refused: string | null;
  readonly unmatched: number;
}

function fateOf(
  book: MeterBook,
  data: unknown,
  o: { type?: string; tenant?: string; batch?: EventBatch } = {},
): Fate {
  const tenant = o.tenant ?? 'acme';
  const body = Buffer.from(JSON.stringify({ id: 'e', type: o.type ?? 'request', subject: 's', data }));
  const context = { admission, meters: book, tenant, tenantBytes: Buffer.from(tenant), nowMs: 0 };
  const outcome = readBody(body, 'json', context, o.batch ?? new EventBatch());
  if (!outcome.read) throw new Error(outcome.message);
  const [rejected] = outcome.rejected;
  const refused = rejected === undefined ? null : `${rejected.code} ${rejected.message.split(': ')[0]}`;
  return { refused, unmatched: outcome.unmatched };
}
const admitted: Fate = { refused: null, unmatched: 0 };
const unmatched: Fate = { refused: null, unmatched: 1 };
const refused = (code: string, field: string): Fate => ({
  refused: `meter_value_${code} ${field}`,
  unmatched: 0,
});

describe('an event has what the meters of its type need', () => {
  const book = bookOf(sum('input_tokens', 'usage.tokens'), count('requests'));
  const field = 'data.usage.tokens (meter input_tokens)';
  test.each<[unknown, Fate]>([
    [{ usage: { tokens: 12 } }, admitted],
    [{ usage: { tokens: -0.5 } }, admitted],
    [{ usage: { tokens: '12.000000001' } }, admitted],
    [{ 'usage.tokens': 3 }, admitted],
    [{ other: 1, usage: { a: 1, tokens: 2 } }, admitted],
    [{}, refused('missing', field)],
    [null, refused('missing', field)],
    [{ tokens: 12 }, refused('missing', field)],
    [{ usage: 12 }, refused('missing', field)],
    [{ usage: { tokens: { a: 1 } } }, refused('missing', field)],
    [{ usage: { tokens: null } }, refused('missing', field)],
    [{ usage: { tokens: true } }, refused('not_a_number', field)],
    [{ usage: { tokens: [1] } }, refused('not_a_number', field)],
    [{ usage: { tokens: [null] } }, refused('not_a_number', field)],
    [{ usage: { tokens: {} } }, refused('not_a_number', field)],
    [{ usage: { tokens: '' } }, refused('not_a_number', field)],
    [{ usage: { tokens: 'null' } }, refused('not_a_number', field)],
    [{ usage: { tokens: '1e3' } }, refused('not_a_number', field)],
    [{ usage: { tokens: '1000000000000000000' } }, refused('out_of_range', field)],
    [{ usage: { tokens: '0.0000000001' } }, refused('out_of_range', field)],
  ])('%j', (data, expected) => {
    expect(fateOf(book, data)).toEqual(expected);
    // In a batch that has seen other events, too, the answer is the same.
    const batch = new EventBatch();
    for (const before of [{ usage: { tokens: 1 } }, { b: 1, usage: { tokens: '1' } }, { usage: { x: 1 } }]) {
      fateOf(book, before, { batch });
      expect(fateOf(book, data, { batch })).toEqual(expected);
    }
  });

  test('a type without a meter is admitted and counted as unmatched, for whatever tenant', () => {
    expect(fateOf(book, {}, { type: 'login' })).toEqual(unmatched);
    expect(fateOf(book, {}, { type: 'request ' })).toEqual(unmatched);
    expect(fateOf(book, {}, { tenant: 'globex' })).toEqual(unmatched);
    expect(fateOf(new MeterBook(), {})).toEqual(unmatched);
    expect(fateOf(bookOf(count('requests')), {})).toEqual(admitted);
  });

  test('the events of a batch are judged each for itself', () => {
    const meters = bookOf(sum('a', 'x'), sum('b', 'y', 'other'));
    const sent = (id: string, type: string, data: unknown): unknown => ({ id, type, subject: 's', data });
    const body = Buffer.from(
      JSON.stringify([
        sent('1', 'request', { x: 1, y: 'no' }),
        sent('2', 'other', { x: 'no', y: 2 }),
        sent('3', 'third', {}),
        sent('4', 'request', { y: 1 }),
        sent('5', 'other', { y: 'no' }),
        sent('6', 'request', { y: 1, x: '7' }),
      ]),
    );
    const context = { admission, meters, tenant: 'acme', tenantBytes: Buffer.from('acme'), nowMs: 0 };
    const batch = new EventBatch();
    expect(readBody(body, 'json', context, batch)).toMatchObject({
      unmatched: 1,
      rejected: [
        { index: 3, id: '4', code: 'meter_value_missing' },
        { index: 4, id: '5', code: 'meter_value_not_a_number' },
      ],
    });
    expect(batch.count).toBe(4);
  });

  test('of several meters the first that refuses is named', () => {
    const meters = bookOf(count('n'), sum('a', 'x'), sum('b', 'y'));
    expect(fateOf(meters, { x: '?' })).toEqual(refused('not_a_number', 'data.x (meter a)'));
    expect(fateOf(meters, { x: 1 })).toEqual(refused('missing', 'data.y (meter b)'));
    // A definition that comes a second time keeps its place.
    expect(meters.set('acme.a', entryOf(sum('a', 'x')))).toBe(true);
    expect(fateOf(meters, {})).toEqual(refused('missing', 'data.x (meter a)'));
  });
});

describe('the book follows the bucket', () => {
  test('a meter holds from the next event on, and no longer than it stands there', () => {
    const book = new MeterBook();
    const batch = new EventBatch();
    expect(fateOf(book, {}, { batch })).toEqual(unmatched);
    book.set('acme.a', entryOf(sum('a', 'x')));
    expect(fateOf(book, {}, { batch })).toEqual(refused('missing', 'data.x (meter a)'));
    book.set('acme.b', entryOf(sum('b', 'y')));
    expect(fateOf(book, { x: 1 }, { batch })).toEqual(refused('missing', 'data.y (meter b)'));
    expect(book.size).toBe(2);
    expect(book.set('acme.a', null)).toBe(true);
    expect(fateOf(book, { y: 1 }, { batch })).toEqual(admitted);
    expect(book.set('acme.b', null)).toBe(true);
    expect(book.set('acme.b', null)).toBe(true);
    expect(fateOf(book, {}, { batch })).toEqual(unmatched);
    expect(book.size).toBe(0);
  });

  test('a definition that changed under its key is taken as it is now', () => {
    const book = bookOf(sum('a', 'x'));
    expect(fateOf(book, { x: 1 })).toEqual(admitted);
    book.set('acme.a', entryOf(sum('a', 'y')));
    expect(fateOf(book, { x: 1 })).toEqual(refused('missing', 'data.y (meter a)'));
    book.set('acme.a', entryOf(sum('a', 'y', 'other')));
    expect(fateOf(book, { x: 1 })).toEqual(unmatched);
  });

  test.each([
    ['acme.a', 'no JSON'],
    ['acme.a', 'null'],
    ['acme.a', entryOf({ ...sum('a', 'x'), aggregation: 'median' })],
    ['acme.a', entryOf({ ...sum('a', 'x'), valueProperty: null })],
    ['acme.a', entryOf(sum('b', 'x'))],
    ['acme.a', entryOf(sum('a', 'x'), 'globex')],
    ['acme.a', entryOf(sum('a', '\ud800'))],
    ['acme.a', entryOf(sum('a', 'x', 'request\ud800'))],
    ['a', entryOf(sum('a', 'x'))],
  ])('what is not sound is refused, and then the log alone decides: %s %s', (entry, json) => {
    const book = new MeterBook();
    expect(book.set(entry, json)).toBe(false);
    expect(fateOf(book, {})).toEqual(unmatched);
    book.set('acme.a', entryOf(sum('a', 'x')));
    expect(book.set(entry, json)).toBe(false);
    expect(fateOf(book, {})).toEqual(entry === 'acme.a' ? unmatched : refused('missing', 'data.x (meter a)'));
  });

  test('tenants do not see each other’s meters', () => {
    const book = bookOf(sum('a', 'x'));
    book.set('globex.a', entryOf(sum('a', 'y'), 'globex'));
    const batch = new EventBatch();
    for (let round = 0; round < 3; round++) {
      expect(fateOf(book, { x: 1 }, { batch })).toEqual(admitted);
      expect(fateOf(book, { x: 1 }, { batch, tenant: 'globex' })).toEqual(
        refused('missing', 'data.y (meter a)'),
      );
      expect(fateOf(book, { y: 1 }, { batch, tenant: 'globex' })).toEqual(admitted);
    }
  });

  test('an emptied path table, or another one, changes no answer', () => {
    const book = bookOf(sum('a', 'n.x'));
    const [one, two] = [new EventBatch(), new EventBatch()];
    const missing = refused('missing', 'data.n.x (meter a)');
    for (let round = 0; round < 3; round++) {
      expect(fateOf(book, { n: { x: 1 } }, { batch: one })).toEqual(admitted);
      one.paths.trim(0);
      // Where n.x had its number a moment ago, m.x has it now.
      expect(fateOf(book, { m: { x: 1 } }, { batch: one })).toEqual(missing);
      expect(fateOf(book, { n: { x: 1 } }, { batch: one })).toEqual(admitted);
      expect(fateOf(book, { y: 1, m: { x: 2 } }, { batch: two })).toEqual(missing);
      expect(fateOf(book, { y: 1, n: { x: '2' } }, { batch: two })).toEqual(admitted);
      one.paths.trim(0);
      two.paths.trim(0);
    }
  });

  test('five hundred meters of as many types', () => {
    const meters = Array.from({ length: 500 }, (_, at) => sum(`m${at}`, `v${at}`, `type.${at}`));
    const book = bookOf(...meters);
    const batch = new EventBatch();
    for (const at of [0, 499, 250, 0]) {
      expect(fateOf(book, { [`v${at}`]: 1 }, { type: `type.${at}`, batch })).toEqual(admitted);
      expect(fateOf(book, { v: 1 }, { type: `type.${at}`, batch }).refused).toContain(`(meter m${at})`);
    }
  });
});
