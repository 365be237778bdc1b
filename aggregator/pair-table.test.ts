import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PairTable } from './pair-table.ts';

const number = fc.oneof(fc.nat(3), fc.nat(5_000), fc.integer({ min: 0, max: 2 ** 32 - 1 }));
const turn = fc.array(fc.tuple(number, number), { maxLength: 3_000 });

test('the same pair has the same number and no other has it, dense, turn after turn', () => {
  const table = new PairTable();
  fc.assert(
    fc.property(fc.array(turn, { maxLength: 3 }), (turns) => {
      for (const pairs of turns) {
        table.clear();
        const known = new Map<string, number>();
        for (const [first, second] of pairs) {
          const text = `${first} ${second}`;
          if (!known.has(text)) known.set(text, known.size);
          expect(table.of(first, second)).toBe(known.get(text));
        }
        expect(table.count).toBe(known.size);
      }
    }),
    { numRuns: 60 },
  );
});
