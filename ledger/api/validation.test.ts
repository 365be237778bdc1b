import { expect, test } from 'vitest';
import { mistakesOf, readParameters, textMistakes } from './validation.ts';

test('findings become mistakes with their place, each once', () => {
  const finding = (keyword: string, instancePath: string, params: object, message = 'm') => ({
    keyword,
    instancePath,
    params: params as Record<string, unknown>,
    message,
  });
  expect(
    mistakesOf([
      finding('required', '', { missingProperty: 'key' }),
      finding('required', '/prices/1', { missingProperty: 'meter' }),
      finding('additionalProperties', '/prices/0/tiers/2', { additionalProperty: 'up' }),
      finding('enum', '/window', { allowedValues: ['hour', 'day'] }),
      finding('type', '/a~1b/0', {}, 'must be string'),
      finding('type', '/a~1b/0', {}, 'must be string'),
    ]),
  ).toEqual([
    { path: 'key', message: 'is required' },
    { path: 'prices[1].meter', message: 'is required' },
    { path: 'prices[0].tiers[2].up', message: 'is not known here: remove it or correct its name' },
    { path: 'window', message: 'must be one of hour, day' },
    { path: 'a/b[0]', message: 'must be string' },
  ]);
});

test('query parameters are read by their schema, and what does not fit is left to be found', () => {
  const schema = {
    properties: { limit: { type: 'integer' }, subject: { type: 'array' }, meter: { type: 'string' } },
    patternProperties: { '^filter\\..+$': { type: 'array' } },
  };
  const check = (given: Record<string, unknown>, read: Record<string, unknown>) =>
    expect(readParameters(given, schema)).toEqual(read);
  check({ limit: '10', meter: '10', subject: 'a,b' }, { limit: 10, meter: '10', subject: ['a,b'] });
  check({ subject: ['a', 'b'], 'filter.user.plan': 'x' }, { subject: ['a', 'b'], 'filter.user.plan': ['x'] });
  for (const limit of ['ten', '1.5', '-1', '', '1e3', ' 1', '9'.repeat(16)]) check({ limit }, { limit });
  check({ limit: ['1', '2'], other: 'x' }, { limit: ['1', '2'], other: 'x' });
});

test('text that no store could keep as it is is found wherever it stands', () => {
  const value = { fine: 'ok 💰', nul: 'a\0b', list: ['ok', { half: '\ud800' }], number: 1, none: null };
  expect(textMistakes(value).map((one) => one.path)).toEqual(['nul', 'list[1].half']);
  expect(textMistakes(undefined)).toEqual([]);
});
