import { expect, test } from 'vitest';
import { isProblem, mistakeOf, problem, PROBLEMS, validationProblem } from './problems.ts';

test('every problem has a status, a title and says what to do', () => {
  for (const [code, kind] of Object.entries(PROBLEMS)) {
    expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/);
    expect(kind.status, code).toBeGreaterThanOrEqual(400);
    expect(kind.title, code).toMatch(/^[A-Z].+\.$/);
    expect(kind.detail, code).toMatch(/^[A-Z].+\.$/);
    // What is answered 5xx is never the fault of the request, so the same request may succeed.
    if (kind.status >= 500) expect(kind.transient, code).toBe(true);
  }
});

test('a problem is an answer of RFC 9457, and its own members never replace the standard ones', () => {
  const answer = problem('meter_conflict', 'Choose another.', { existing: 1, status: 200, code: 'fine' });
  expect(answer).toEqual({
    status: 409,
    headers: { 'content-type': 'application/problem+json' },
    body: {
      type: '/docs#meter_conflict',
      title: PROBLEMS.meter_conflict.title,
      status: 409,
      code: 'meter_conflict',
      detail: 'Choose another.',
      existing: 1,
    },
  });
  expect(isProblem(answer)).toBe(true);
  expect(isProblem({ status: 201, body: {} })).toBe(false);
  expect(problem('usage_not_ready').headers).toMatchObject({ 'retry-after': '2' });
});

test('a validation problem carries every mistake', () => {
  const errors = [
    { path: 'a', message: 'x' },
    { path: 'b', message: 'y' },
  ];
  expect(validationProblem(errors).body).toMatchObject({ status: 400, code: 'validation_failed', errors });
});

test('a sentence of the domain becomes a mistake with its place', () => {
  const check = (sentence: string, path: string, message: string) =>
    expect(mistakeOf(sentence)).toEqual({ path, message });
  check('key: lower-case letters', 'key', 'lower-case letters');
  check(
    'prices[1].tiers[0].upTo: above the tier before it',
    'prices[1].tiers[0].upTo',
    'above the tier before it',
  );
  check('there is nothing: at all', '', 'there is nothing: at all');
  check('nothing', '', 'nothing');
});
