import { expect, test } from 'vitest';
import { isReservedPath, isReservedType } from './corrections.ts';
import { meterMistakes, type Meter } from './meter.ts';

const METER: Meter = {
  key: 'tokens',
  eventType: 'llm.request',
  aggregation: 'sum',
  valueProperty: 'tokens',
  groupBy: ['model'],
  filters: [{ property: 'region', in: ['eu'] }],
};

test('a path is reserved when its first key is, and a type when it lies below', () => {
  const paths = [
    'tallyline',
    'tallyline.',
    'tallyline.voids',
    'tallyline.a.b',
    'tallylines',
    'a.tallyline',
    '',
  ];
  expect(paths.map(isReservedPath)).toEqual([true, true, true, true, false, false, false]);
  const types = ['tallyline.void', 'tallyline.', 'tallyline', 'tallylines.x', 'Tallyline.x', ''];
  expect(types.map(isReservedType)).toEqual([true, true, false, false, false, false]);
});

test('no meter can be defined on what is reserved', () => {
  expect(meterMistakes(METER)).toEqual([]);
  const cases: readonly (readonly [Partial<Meter>, string])[] = [
    [{ eventType: 'tallyline.void' }, 'eventType'],
    [{ valueProperty: 'tallyline.target' }, 'valueProperty'],
    [{ groupBy: ['model', 'tallyline.voids'] }, 'groupBy'],
    [{ filters: [{ property: 'tallyline', notIn: [''] }] }, 'filters[0].property'],
  ];
  for (const [change, field] of cases) {
    const mistakes = meterMistakes({ ...METER, ...change });
    expect(mistakes.map((mistake) => mistake.split(':')[0])).toEqual([field]);
  }
  expect(meterMistakes({ ...METER, eventType: 'tallyline', valueProperty: 'a.tallyline' })).toEqual([]);
});
