import { expect, test } from 'vitest';
import { splitStatements } from './statements.ts';

test.each<{ name: string; sql: string; statements: string[] }>([
  { name: 'nothing', sql: ' \n-- only a comment;\n', statements: [] },
  { name: 'two statements', sql: 'SELECT 1;\nSELECT 2;\n', statements: ['SELECT 1', 'SELECT 2'] },
  { name: 'no final semicolon', sql: 'SELECT 1;\nSELECT 2', statements: ['SELECT 1', 'SELECT 2'] },
  { name: 'a semicolon within a line', sql: 'SELECT 1; SELECT 2;', statements: ['SELECT 1; SELECT 2'] },
  { name: 'in a string', sql: "SELECT 'a;\nb';\nSELECT 2;", statements: ["SELECT 'a;\nb'", 'SELECT 2'] },
  { name: 'a doubled quote', sql: "SELECT 'it''s;\n';\nX;", statements: ["SELECT 'it''s;\n'", 'X'] },
  { name: 'an escaped quote', sql: "SELECT '\\';\n';\nX;", statements: ["SELECT '\\';\n'", 'X'] },
  { name: 'in an identifier', sql: 'SELECT `a;\nb`;\nX;', statements: ['SELECT `a;\nb`', 'X'] },
  {
    name: 'in a line comment',
    sql: 'SELECT 1 -- not here;\n+ 1;',
    statements: ['SELECT 1 -- not here;\n+ 1'],
  },
  { name: "a comment's quote", sql: "SELECT 1 -- it's\n;\nX;", statements: ["SELECT 1 -- it's", 'X'] },
  { name: 'in a block comment', sql: 'SELECT /* a;\n */ 1;\nX;', statements: ['SELECT /* a;\n */ 1', 'X'] },
  { name: 'a comment after it', sql: 'SELECT 1; -- one\nX;', statements: ['SELECT 1', '-- one\nX'] },
  { name: 'windows lines', sql: 'SELECT 1;\r\nSELECT 2;\r\n', statements: ['SELECT 1', 'SELECT 2'] },
  { name: 'empty ones', sql: ';\n;\nX;\n;', statements: ['X'] },
])('$name', ({ sql, statements }) => {
  expect(splitStatements(sql)).toEqual(statements);
});
