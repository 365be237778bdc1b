import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nextToken, tokens } from './lexer.ts';
import { composeInsert, composeRows, quoteName, quoteString, readStatement } from './statement.ts';

function kinds(text: string): string {
  return [...tokens(text)].map((token) => `${token.kind}:${token.text}`).join(' ');
}

describe('tokens', () => {
  const table: readonly (readonly [string, string])[] = [
    ["SELECT 'a''b\\'c', 1", "word:SELECT string:'a''b\\'c' symbol:, number:1"],
    ['`a``b` "c\\"d"', 'quoted:`a``b` quoted:"c\\"d"'],
    ['1 -- x\n2 # y\n3 #! z\n4', 'number:1 number:2 number:3 number:4'],
    ['1 /* a /* b */ c */ 2', 'number:1 number:2'],
    ['$$ it; $$ $t$ $$ ; $t$ x', 'string:$$ it; $$ string:$t$ $$ ; $t$ word:x'],
    ["'never closed; SELECT", "string:'never closed; SELECT"],
    ['', ''],
  ];
  for (const [text, expected] of table) {
    it(`cuts ${JSON.stringify(text)}`, () => expect(kinds(text)).toBe(expected));
  }

  it('always moves on and never past the end', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'\'"`\\$/*-#; \n\tabF1()'.split('')) }), (text) => {
        let at = 0;
        for (const token of tokens(text)) {
          expect(token.start).toBeGreaterThanOrEqual(at);
          expect(token.end).toBeGreaterThan(token.start);
          expect(token.end).toBeLessThanOrEqual(text.length);
          at = token.end;
        }
      }),
    );
  });

  it('reads any quoted value back as one token', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (value) => {
        expect(nextToken(`${quoteString(value)};`, 0)?.text).toBe(quoteString(value));
        expect(nextToken(`${quoteName(value)};`, 0)?.text).toBe(quoteName(value));
      }),
    );
  });
});

describe('statements without data', () => {
  const rows: readonly (readonly [string, string, string | null, string])[] = [
    ['SELECT 1', 'SELECT 1', null, ''],
    ['SELECT 1;', 'SELECT 1', null, ''],
    ['SELECT 1 -- end', 'SELECT 1', null, ''],
    ['SELECT 1 FORMAT JSON', 'SELECT 1', 'JSON', ''],
    ['select 1 format `Null`;', 'select 1', 'Null', ''],
    ['SELECT 1 FORMAT CSV SETTINGS a = 1', 'SELECT 1', 'CSV', 'SETTINGS a = 1'],
    ['SELECT 1 SETTINGS a = 1 FORMAT CSV', 'SELECT 1 SETTINGS a = 1', 'CSV', ''],
    ["SELECT 'x FORMAT CSV'", "SELECT 'x FORMAT CSV'", null, ''],
    ['SELECT 1 AS format', 'SELECT 1 AS format', null, ''],
    ['SELECT a FROM format WHERE b', 'SELECT a FROM format WHERE b', null, ''],
    ['(SELECT 1 FORMAT CSV)', '(SELECT 1 FORMAT CSV)', null, ''],
    ['WITH 1 AS x SELECT x FORMAT TSV', 'WITH 1 AS x SELECT x', 'TSV', ''],
  ];
  for (const [text, head, format, tail] of rows) {
    it(`streams ${text}`, () => expect(readStatement(text)).toEqual({ kind: 'rows', head, format, tail }));
  }

  it('knows answers, commands and INSERT … SELECT', () => {
    const kindOf = (text: string): string => readStatement(text).kind;
    expect(kindOf('SHOW TABLES')).toBe('answer');
    expect(kindOf('/* x */ describe table t')).toBe('answer');
    expect(kindOf('KILL QUERY WHERE 1 ASYNC')).toBe('answer');
    expect(kindOf('CREATE TABLE t (a UInt8) ENGINE = Memory')).toBe('command');
    expect(kindOf('SET a = 1')).toBe('command');
    expect(kindOf('  -- nothing\n')).toBe('empty');
    for (const text of [
      'INSERT INTO t SELECT 1',
      'INSERT INTO t (a) SELECT 1 FORMAT CSV',
      'INSERT INTO t WITH 1 AS x SELECT x',
      'INSERT INTO t (SELECT 1)',
      'WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x',
    ]) {
      expect([text, readStatement(text)]).toEqual([
        text,
        expect.objectContaining({ kind: 'command', isInsert: true }),
      ]);
    }
  });

  it('refuses what would reach files, hang or run twice', () => {
    const codeOf = (text: string): number | null => {
      const statement = readStatement(text);
      return statement.kind === 'refused' ? statement.error.code : null;
    };
    expect(codeOf("SELECT 1 INTO /* x */ OUTFILE 'f'")).toBe(36);
    expect(codeOf("INSERT INTO t FROM INFILE 'f' FORMAT CSV")).toBe(36);
    expect(codeOf('SELECT 1; SELECT 2')).toBe(62);
    expect(codeOf('KILL QUERY WHERE 1 sync')).toBe(48);
    expect(codeOf('INSERT INTO t FORMAT CSV; 1')).toBe(62);
    expect(codeOf('INSERT INTO t FORMAT CSV ;\n1')).toBe(62);
  });
});

describe('statements with data', () => {
  const table: readonly (readonly [string, string, string, string, string])[] = [
    ['INSERT INTO t FORMAT CSV\n1,2', 'INSERT INTO t', '', 'CSV', '1,2'],
    ['INSERT INTO t FORMAT CSV  \n\n1', 'INSERT INTO t', '', 'CSV', '\n1'],
    ['INSERT INTO t FORMAT CSV 1,2', 'INSERT INTO t', '', 'CSV', '1,2'],
    [
      'insert into d.t (a, `values`) values (1), (2)',
      'insert into d.t (a, `values`)',
      '',
      'Values',
      ' (1), (2)',
    ],
    ['INSERT INTO t VALUES(1)', 'INSERT INTO t', '', 'Values', '(1)'],
    ['INSERT INTO t SETTINGS a = 1 FORMAT TSV\nx', 'INSERT INTO t', 'SETTINGS a = 1', 'TSV', 'x'],
    ['INSERT INTO values VALUES (1)', 'INSERT INTO values', '', 'Values', ' (1)'],
    ['INSERT INTO format FORMAT CSV\n1', 'INSERT INTO format', '', 'CSV', '1'],
    [
      "INSERT INTO FUNCTION null('format CSV') FORMAT CSV\n1",
      "INSERT INTO FUNCTION null('format CSV')",
      '',
      'CSV',
      '1',
    ],
    ['INSERT INTO TABLE `a b`.`c` FORMAT Native\n\n\n', 'INSERT INTO TABLE `a b`.`c`', '', 'Native', '\n\n'],
    ['INSERT INTO t FORMAT CSV', 'INSERT INTO t', '', 'CSV', ''],
    ['INSERT INTO t FORMAT RowBinary\n;\n', 'INSERT INTO t', '', 'RowBinary', ';\n'],
  ];
  for (const [text, head, settings, format, data] of table) {
    it(`splits ${JSON.stringify(text)}`, () => {
      const statement = readStatement(text);
      expect(statement).toMatchObject({ kind: 'insert', head, settings, format });
      if (statement.kind === 'insert') expect(text.slice(statement.dataStart)).toBe(data);
    });
  }

  it('knows that input(…) has data, and reads it from a file', () => {
    const sql =
      "INSERT INTO t (a) SELECT a FROM Input('a Array(String)') WHERE f((SELECT 1 FORMAT)) FORMAT Native";
    const statement = readStatement(`${sql}\n);'\0/*`);
    if (statement.kind !== 'insert') throw new Error(statement.kind);
    expect(statement.dataStart).toBe(sql.length + 1);
    expect(composeInsert(statement, "/a'b")).toBe(
      "INSERT INTO t (a) SELECT a FROM file('/a\\'b', Native, 'a Array(String)') WHERE f((SELECT 1 FORMAT))",
    );
    expect(readStatement('INSERT INTO t SELECT input(1), a FROM s').kind).toBe('command');
    expect(readStatement("INSERT INTO t SELECT a FROM input('a UInt8')").kind).toBe('command');
  });

  it('is composed around a file or a pipe', () => {
    const insert = readStatement('INSERT INTO t (a) SETTINGS x = 1 FORMAT CSV\n1');
    if (insert.kind !== 'insert') throw new Error(insert.kind);
    expect(composeInsert(insert, "/a'b")).toBe(
      "INSERT INTO t (a)\nFROM INFILE '/a\\'b' SETTINGS x = 1 FORMAT CSV",
    );
    const rows = readStatement('SELECT 1 FORMAT CSV SETTINGS x = 1');
    if (rows.kind !== 'rows') throw new Error(rows.kind);
    expect(composeRows(rows, 'CSV', '/p')).toBe(
      "SELECT 1\nINTO OUTFILE '/p' APPEND FORMAT CSV SETTINGS x = 1",
    );
  });
});
