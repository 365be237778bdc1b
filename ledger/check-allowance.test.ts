import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CheckAllowance } from './check-allowance.ts';

test('what a turn took too much is taken off the next ones', () => {
  const allowance = new CheckAllowance({ rows: 100, ms: 10 });
  const spend = (rows: number, ms: number) => {
    allowance.spend({ rows, ms });
    return [allowance.budget.rows, allowance.budget.ms];
  };
  expect([allowance.budget.rows, allowance.budget.ms]).toEqual([100, 10]);
  expect(spend(350, 0)).toEqual([-150, 10]);
  expect(spend(0, 15)).toEqual([-50, 5]);
  expect(spend(0, 0)).toEqual([50, 10]);
  // What was not spent is not saved up.
  expect(spend(0, 0)).toEqual([100, 10]);
});

test('on the average a turn spends no more than it may, whatever size the steps have', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(1_000), { minLength: 1, maxLength: 200 }), (steps) => {
      const allowance = new CheckAllowance({ rows: 100, ms: 100 });
      let spent = 0;
      for (const step of steps) {
        const rows = allowance.budget.rows > 0 ? step : 0;
        allowance.spend({ rows, ms: 0 });
        spent += rows;
      }
      // But for the last steps, which are still to be paid for.
      expect(spent).toBeLessThanOrEqual(steps.length * 100 + 1_000);
    }),
  );
});
