import fc from 'fast-check';
import { expect, test } from 'vitest';
import { burn, giveBack, type BurnableGrant, type GrantUse } from './burn.ts';

const NOW = 1_000;

const grant = (id: string, o: Partial<BurnableGrant> = {}): BurnableGrant => ({
  id,
  priority: 0,
  expiresAtMs: null,
  createdAtMs: 0,
  remaining: 100n,
  ...o,
});

const told = (uses: readonly GrantUse[]): string =>
  uses.map((use) => `${use.grantId} ${use.amount}`).join(', ');

test('grants burn by priority, then earlier expiry and never last, then creation, then id', () => {
  const rows: [string, BurnableGrant[], string][] = [
    ['the lower priority first', [grant('a', { priority: 2 }), grant('b', { priority: 1 })], 'b 100, a 50'],
    [
      'priority before expiry',
      [grant('a', { priority: 1, expiresAtMs: NOW + 1 }), grant('b', { priority: 0 })],
      'b 100, a 50',
    ],
    [
      'earlier expiry first',
      [grant('a', { expiresAtMs: 3_000 }), grant('b', { expiresAtMs: 2_000 })],
      'b 100, a 50',
    ],
    ['without expiry last', [grant('a'), grant('b', { expiresAtMs: 9_000_000 })], 'b 100, a 50'],
    [
      'both without expiry: the older first',
      [grant('a', { createdAtMs: 2 }), grant('b', { createdAtMs: 1 })],
      'b 100, a 50',
    ],
    ['all the same: by id', [grant('b'), grant('a')], 'a 100, b 50'],
    [
      'what is used up is passed over',
      [grant('a', { remaining: 0n }), grant('b', { remaining: 200n })],
      'b 150',
    ],
    ['an expired one covers nothing', [grant('a', { expiresAtMs: NOW }), grant('b')], 'b 100'],
    [
      'one that expires a millisecond later does',
      [grant('a', { expiresAtMs: NOW + 1 }), grant('b')],
      'a 100, b 50',
    ],
    ['all of it, if it is not enough', [grant('a', { remaining: 7n })], 'a 7'],
    ['nothing to burn', [], ''],
  ];
  for (const [what, grants, expected] of rows) expect(told(burn(grants, 150n, NOW)), what).toBe(expected);
});

test('what is given back goes to the grant that was burned last', () => {
  const rows: [string, GrantUse[], bigint, string][] = [
    [
      'part of the last',
      [
        { grantId: 'a', amount: 5n },
        { grantId: 'b', amount: 5n },
      ],
      3n,
      'b -3',
    ],
    [
      'more than the last',
      [
        { grantId: 'a', amount: 5n },
        { grantId: 'b', amount: 5n },
      ],
      7n,
      'b -5, a -2',
    ],
    ['never more than was burned', [{ grantId: 'a', amount: 5n }], 9n, 'a -5'],
    [
      'what was given back already is not there any more',
      [
        { grantId: 'a', amount: 5n },
        { grantId: 'b', amount: 5n },
        { grantId: 'b', amount: -4n },
      ],
      3n,
      'b -1, a -2',
    ],
    ['nothing was burned', [], 5n, ''],
  ];
  for (const [what, uses, wanted, expected] of rows)
    expect(told(giveBack(uses, wanted)), what).toBe(expected);
});

const grants = fc
  .array(
    fc.record({
      priority: fc.nat(2),
      expiresAtMs: fc.option(fc.integer({ min: 500, max: 3_000 })),
      createdAtMs: fc.nat(3),
      remaining: fc.bigInt({ min: 0n, max: 50n }),
    }),
    { maxLength: 6 },
  )
  .map((list) => list.map((one, at): BurnableGrant => ({ id: `g${at}`, ...one })));

function spend(list: readonly BurnableGrant[], uses: readonly GrantUse[]): BurnableGrant[] {
  return list.map((one) => ({
    ...one,
    remaining:
      one.remaining - uses.filter((use) => use.grantId === one.id).reduce((sum, use) => sum + use.amount, 0n),
  }));
}

const amount = fc.bigInt({ min: 0n, max: 120n });

test('a burn-down over halves equals the whole', () => {
  fc.assert(
    fc.property(grants, amount, amount, (list, first, second) => {
      const afterFirst = spend(list, burn(list, first, NOW));
      const halves = spend(afterFirst, burn(afterFirst, second, NOW));
      expect(halves).toEqual(spend(list, burn(list, first + second, NOW)));
      expect(halves.every((one) => one.remaining >= 0n)).toBe(true);
    }),
  );
});

test('giving a part back leaves what burning less would have left', () => {
  fc.assert(
    fc.property(grants, amount, amount, (list, wanted, back) => {
      const uses = burn(list, wanted, NOW);
      const burned = uses.reduce((sum, use) => sum + use.amount, 0n);
      const returns = giveBack(uses, back);
      const less = burned > back ? burned - back : 0n;
      expect(spend(spend(list, uses), returns)).toEqual(spend(list, burn(list, less, NOW)));
    }),
  );
});
