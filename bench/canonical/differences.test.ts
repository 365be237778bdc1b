// Each way in which a total can be wrong is told; nothing is, when all are right.
import { describe, expect, test } from 'vitest';
import { billedSubjects, expectedPostings } from './customers.ts';
import { differencesOf, type ExpectedTotals, type FoundTotals, type FoundValue } from './differences.ts';
import { Tally, type MeterKey } from './tally.ts';
import { MODELS, subjectName } from './workload.ts';

const SUBJECTS = 50;
const tally = new Tally(SUBJECTS);
tally.add(9, { phase: 1, requests: 30, eventsPerRequest: 100 });
const expected: ExpectedTotals = {
  tally,
  probes: 4,
  postings: expectedPostings(tally, billedSubjects(SUBJECTS, 5)),
};

function rowsOf(meter: MeterKey): FoundValue[] {
  const subjects = Array.from({ length: SUBJECTS }, (_, subject) => subject);
  const grouped = { input_tokens: tally.inputTokens, output_tokens: tally.outputTokens }[
    meter as 'input_tokens'
  ];
  return subjects.flatMap((subject) =>
    grouped === undefined
      ? [{ subject: subjectName(subject), model: '', value: String(tally.valueOf(meter, subject)) }]
      : MODELS.flatMap((model, at) => {
          const value = grouped[subject * MODELS.length + at]!;
          return value === 0 ? [] : [{ subject: subjectName(subject), model, value: String(value) }];
        }),
  );
}

function right(): FoundTotals & { meters: Record<MeterKey, FoundValue[]> } {
  return {
    received: 3_004n,
    verdicts: new Map([
      ['counted', 3_004n - 59n],
      ['duplicate', 59n],
    ]),
    meters: {
      input_tokens: rowsOf('input_tokens'),
      output_tokens: rowsOf('output_tokens'),
      requests: rowsOf('requests'),
      largest_input: rowsOf('largest_input'),
      users: rowsOf('users'),
    },
    postings: new Map([...expected.postings].map(([key, quantity]) => [key, { quantity, cents: quantity }])),
  };
}

test('nothing is told when every total is as it was worked out', () => {
  expect(differencesOf(expected, right())).toEqual([]);
});

describe('told is', () => {
  test('an event more or less, and what has no verdict', () => {
    const found = { ...right(), received: 3_005n };
    expect(differencesOf(expected, found)).toEqual([
      'received is 3005 and not 3004',
      'conservation: 3005 received, 3004 with a verdict',
    ]);
  });

  test('a duplicate that was counted', () => {
    const verdicts = new Map([
      ['counted', 2_946n],
      ['duplicate', 58n],
    ]);
    expect(differencesOf(expected, { ...right(), verdicts })).toEqual([
      'counted is 2946 and not 2945',
      'duplicate is 58 and not 59',
    ]);
  });

  test('a verdict that nothing should have', () => {
    const verdicts = new Map([...right().verdicts, ['conflict', 1n] as const]);
    expect(differencesOf(expected, { ...right(), verdicts })).toContain('conflict is 1 and not 0');
  });

  test.each(['input_tokens', 'output_tokens', 'requests', 'largest_input', 'users'] as const)(
    'one subject of %s, wrong, missing, unknown, or exchanged with another',
    (meter) => {
      const [row, ...others] = rowsOf(meter);
      const told = (rows: FoundValue[]): string => {
        const found = right();
        found.meters[meter] = rows;
        return differencesOf(expected, found).join('\n');
      };
      const value = String(BigInt(row!.value) + 1n);
      const name = row!.model === '' ? row!.subject : `${row!.subject} ${row!.model}`;
      expect(told([{ ...row!, value }, ...others])).toContain(`${name} is ${value} and not ${row!.value}`);
      expect(told(others)).toContain(`${name} is missing and not ${row!.value}`);
      expect(told([row!, ...others, { ...row!, subject: 'cus_000050' }])).toContain('cus_000050');
      expect(told([row!, ...others, { ...row!, model: 'medium' }])).toContain('medium is unknown');
      const [a, b] = [others[0]!, others.find((other) => other.value !== others[0]!.value)!];
      const exchanged = others.map((other) =>
        other === a ? { ...a, value: b.value } : other === b ? { ...b, value: a.value } : other,
      );
      expect(told([row!, ...exchanged])).toContain(`${meter}, 2 subjects or groups`);
    },
  );

  test('a posting that differs, in its quantity or in its amount, and one that should not be', () => {
    const [key, quantity] = [...expected.postings][0]!;
    const told = (posting: { quantity: string; cents: string }, of = key): string => {
      const found = right();
      return differencesOf(expected, {
        ...found,
        postings: new Map([...found.postings, [of, posting]]),
      }).join('\n');
    };
    expect(told({ quantity: '1', cents: quantity })).toContain(`${key} is posted as 1 for ${quantity} cents`);
    expect(told({ quantity, cents: '0' })).toContain(`${key} is posted as ${quantity} for 0 cents`);
    expect(told({ quantity: '1', cents: '1' }, 'cus_000001 users')).toContain('postings, 1 of');
  });
});
