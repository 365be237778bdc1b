import { expect, test } from 'vitest';
import { missing } from './migrate.ts';

const one = { name: '0001-one.sql', sql: 'SELECT 1', sha256: 'a' };
const two = { name: '0002-two.sql', sql: 'SELECT 2', sha256: 'b' };
const three = { name: '0003-three.sql', sql: 'SELECT 3', sha256: 'c' };

test('what was not applied is left to do, in order', () => {
  expect(missing([one, two, three], [one])).toEqual([two, three]);
  expect(missing([one, two], [one, two])).toEqual([]);
});

test.each([
  { files: [one, two], applied: [{ ...one, sha256: 'x' }], message: '0001-one.sql: was changed' },
  { files: [two], applied: [one], message: '0001-one.sql: was applied and is missing' },
  { files: [one, two, three], applied: [one, three], message: '0002-two.sql: is new, but 0003-three.sql' },
])('$message', ({ files, applied, message }) => {
  expect(() => missing(files, applied)).toThrow(message);
});
