import { expect, test } from 'vitest';
import { percentileOf, percentileText } from './aggregate.ts';

test('a percentile is a decimal above 0 and up to 1, held in whole parts of a million', () => {
  const check = (text: string, parts: number | null) => expect(percentileOf(text), text).toBe(parts);
  check('0.5', 500_000);
  check('0.50', 500_000);
  check('0.999999', 999_999);
  check('0.29', 290_000);
  check('1', 1_000_000);
  check('1.0', 1_000_000);
  for (const text of ['0', '0.0', '1.1', '2', '.5', '0,5', '5e-1', '-0.5', '0.1234567', '', ' 0.5', 'NaN']) {
    check(text, null);
  }
  for (const text of ['0.5', '0.95', '0.000001', '1']) expect(percentileText(percentileOf(text)!)).toBe(text);
});
