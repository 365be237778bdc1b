import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Refusal } from './error.ts';
import { parseForm } from './form.ts';
import type { FormValue } from './form.ts';

/** Objects without a prototype compare by content. */
function plain(value: FormValue): unknown {
  return JSON.parse(JSON.stringify(value)) as unknown;
}

describe('form encoding', () => {
  test.each<[string, unknown]>([
    ['', {}],
    ['a=1&b=2', { a: '1', b: '2' }],
    ['a=1&a=2', { a: '2' }],
    ['name=J%C3%BCrgen+M&empty=&bare', { name: 'Jürgen M', empty: '', bare: '' }],
    ['period[start]=1&period[end]=2', { period: { start: '1', end: '2' } }],
    ['expand[]=a&expand[]=b', { expand: ['a', 'b'] }],
    ['expand[0]=a&expand[1]=b', { expand: { 0: 'a', 1: 'b' } }],
    [
      'lines[0][period][end]=9&lines[1][amount]=-5',
      { lines: { 0: { period: { end: '9' } }, 1: { amount: '-5' } } },
    ],
    [
      'lines[][amount]=1&lines[][metadata][k]=x&lines[][amount]=2',
      { lines: [{ amount: '1', metadata: { k: 'x' } }, { amount: '2' }] },
    ],
    ['metadata%5Bkey%5D=%26%3D%5B', { metadata: { key: '&=[' } }],
    ['a[b=1', { 'a[b': '1' }],
  ])('%s', (text, expected) => {
    expect(plain(parseForm(text))).toEqual(expected);
  });

  test.each(['a=1&a[b]=2', 'a[b]=1&a=2', 'a[]=1&a[b]=2', 'a[b]=1&a[]=2', 'a=%ZZ'])(
    '%s is refused',
    (text) => {
      expect(() => parseForm(text)).toThrow(Refusal);
    },
  );

  test('the name __proto__ is a name like any other', () => {
    const form = parseForm('__proto__[polluted]=1&metadata[constructor]=2');
    expect(Object.keys(form)).toEqual(['__proto__', 'metadata']);
    expect(({} as { polluted?: string }).polluted).toBeUndefined();
  });

  test('any flat form comes back as it was sent', () => {
    const names = fc.string({ minLength: 1, unit: 'binary' }).filter((name) => !name.includes('['));
    fc.assert(
      fc.property(fc.dictionary(names, fc.string({ unit: 'binary' })), (fields) => {
        const text = new URLSearchParams(fields).toString();
        const received = parseForm(text);
        for (const [name, value] of new URLSearchParams(text)) expect(received[name]).toBe(value);
      }),
    );
  });
});
