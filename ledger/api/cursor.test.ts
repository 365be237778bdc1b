import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeCursor, encodeCursor, pageOf } from './cursor.ts';

test('a cursor gives back its key, to the list it is of and to no other', () => {
  const part = fc.oneof(fc.string({ unit: 'grapheme' }), fc.maxSafeInteger());
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.array(part, { maxLength: 5 }), (scope, other, key) => {
      const shape = key.map((one) => typeof one as 'string' | 'number');
      const cursor = encodeCursor(scope, key);
      expect(cursor).toMatch(/^[A-Za-z0-9_-]+$/);
      expect(decodeCursor(scope, cursor, shape)).toEqual(key);
      if (other !== scope) expect(decodeCursor(other, cursor, shape)).toBeNull();
      expect(decodeCursor(scope, cursor, [...shape, 'string'])).toBeNull();
    }),
  );
});

test('whatever is sent as a cursor, it is a key of the right shape or none', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.base64String()), (text) => {
      expect(decodeCursor('list', text, ['string'])).toBeNull();
    }),
  );
  const forged = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const [mark] = JSON.parse(Buffer.from(encodeCursor('list', []), 'base64url').toString()) as [string];
  expect(decodeCursor('list', forged([mark, 'a']), ['string'])).toEqual(['a']);
  for (const value of [[mark, 1], [mark, null], [mark], { 0: mark }, [mark, ['a']], null]) {
    expect(decodeCursor('list', forged(value), ['string'])).toBeNull();
  }
  for (const number of [1.5, 2 ** 53, 'x']) {
    expect(decodeCursor('list', forged([mark, number]), ['number'])).toBeNull();
  }
  expect(decodeCursor('list', 'A'.repeat(5_000), ['string'])).toBeNull();
});

test('pages of any size give every item once, in order, also while the list changes', () => {
  const keys = fc.uniqueArray(fc.string({ minLength: 1 }), { maxLength: 30 });
  fc.assert(
    fc.property(keys, fc.integer({ min: 1, max: 7 }), fc.string({ minLength: 1 }), (items, limit, added) => {
      const seen: string[] = [];
      let list = items;
      let cursor: string | undefined;
      for (;;) {
        const page = pageOf(list, (one) => one, { scope: 's', limit, cursor });
        seen.push(...(page?.items ?? []));
        if (page?.nextCursor == null) break;
        cursor = page.nextCursor;
        if (!list.includes(added)) list = [...list, added];
      }
      const order = (a: string, b: string) => (a < b ? -1 : 1);
      expect(seen.filter((one) => one !== added || items.includes(one))).toEqual([...items].sort(order));
    }),
  );
  expect(pageOf(['a'], (one) => one, { scope: 's', limit: 1, cursor: 'nonsense' })).toBeNull();
});
