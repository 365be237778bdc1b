import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareInvoices, type Difference } from './difference.ts';

const ledger = {
  currency: 'USD',
  total: 130n,
  lines: [
    { id: 'a', amount: 100n },
    { id: 'b', amount: 50n },
    { id: 'c', amount: -20n },
  ],
};
const copied = ledger.lines.map(({ id, amount }) => ({ id: `il_${id}`, line: id, amount }));

function check(
  stripe: { total?: bigint; currency?: string; lines?: typeof copied | unknown[] },
  expected: [Difference['kind'], string, bigint][],
): void {
  const found = compareInvoices(ledger, {
    currency: stripe.currency ?? 'usd',
    total: stripe.total ?? 130n,
    lines: (stripe.lines ?? copied) as typeof copied,
  });
  expect(found.map((one) => [one.kind, one.line, one.drift])).toEqual(expected);
}

describe('compareInvoices', () => {
  test('a faithful copy differs by nothing, in any order of lines', () => {
    check({}, []);
    check({ lines: [...copied].reverse() }, []);
  });
  test('a line of another amount drifts by the difference, and the total adds nothing to it', () => {
    const lines = [{ ...copied[0]!, amount: 93n }, ...copied.slice(1)];
    check({ lines, total: 123n }, [
      ['line_amount', 'a', 7n],
      ['total', '', 0n],
    ]);
  });
  test('two wrong lines that cancel out are still two', () => {
    const lines = [{ ...copied[0]!, amount: 101n }, { ...copied[1]!, amount: 49n }, copied[2]!];
    check({ lines }, [
      ['line_amount', 'a', 1n],
      ['line_amount', 'b', 1n],
    ]);
  });
  test('missing, repeated and foreign lines drift by what they are worth', () => {
    check({ lines: copied.slice(0, 2), total: 150n }, [
      ['line_missing', 'c', 20n],
      ['total', '', 0n],
    ]);
    check({ lines: [...copied, { ...copied[1]!, id: 'il_again' }], total: 180n }, [
      ['line_repeated', 'il_again', 50n],
      ['total', '', 0n],
    ]);
    check({ lines: [...copied, { id: 'il_x', line: null, amount: 9n }], total: 139n }, [
      ['line_unexpected', 'il_x', 9n],
      ['total', '', 0n],
    ]);
  });
  test('a total that its lines do not explain (a tax) drifts by the rest', () => {
    check({ total: 155n }, [['total', '', 25n]]);
  });
  test('another currency makes the whole amount drift', () => {
    check({ currency: 'eur' }, [['currency', '', 130n]]);
  });

  test('there is drift exactly when something differs, and never less than the totals differ by', () => {
    const lines = fc.array(fc.bigInt(-1_000n, 1_000n), { maxLength: 6 });
    fc.assert(
      fc.property(lines, lines, fc.bigInt(-50n, 50n), (ours, theirs, tax) => {
        const sum = (amounts: bigint[]) => amounts.reduce((a, b) => a + b, 0n);
        const found = compareInvoices(
          { currency: 'USD', total: sum(ours), lines: ours.map((amount, at) => ({ id: `l${at}`, amount })) },
          {
            currency: 'usd',
            total: sum(theirs) + tax,
            lines: theirs.map((amount, at) => ({ id: `il${at}`, line: `l${at}`, amount })),
          },
        );
        const equal = tax === 0n && ours.length === theirs.length && ours.every((a, at) => a === theirs[at]);
        expect(found.length === 0).toBe(equal);
        const off = sum(theirs) + tax - sum(ours);
        expect(sum(found.map((one) => one.drift)) >= (off < 0n ? -off : off)).toBe(true);
      }),
    );
  });
});
