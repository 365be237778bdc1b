// What this process must know of a statement before the engine sees it:
//
// - `rows`    its result is streamed: it is run with INTO OUTFILE on a pipe of ours, in the format it names;
// - `answer`  it has a small result (SHOW, DESCRIBE, EXPLAIN …), taken as a whole;
// - `command` it has none (DDL, SET, INSERT … SELECT);
// - `insert`  data follows it. The engine's own reading of inline data ends at the first empty line and takes
//             what follows for SQL, so the data never goes inline: it is put in a file, and the statement is
//             run with FROM INFILE on it. INSERT … SELECT … FROM input('…') FORMAT … has data too: there the
//             table function input becomes file, which reads the same rows.
import { clickHouseError } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { isWord, nextToken, tokens } from './lexer.ts';
import type { Token } from './lexer.ts';

export type Statement =
  | { readonly kind: 'empty' }
  | {
      readonly kind: 'rows';
      /** Everything before FORMAT, without a trailing semicolon or comment. */
      readonly head: string;
      /** Named by the statement itself. */
      readonly format: string | null;
      /** Settings behind the format, or ''. */
      readonly tail: string;
    }
  | {
      readonly kind: 'answer' | 'command';
      readonly sql: string;
      readonly format: string | null;
      readonly isInsert: boolean;
    }
  | {
      readonly kind: 'insert';
      /** Up to the place where FROM INFILE belongs. */
      readonly head: string;
      /** Settings between that place and the format, or ''. */
      readonly settings: string;
      /** For INSERT … SELECT … FROM input(…): what stands in the brackets, and what behind them. */
      readonly input: { readonly structure: string; readonly rest: string } | null;
      readonly format: string;
      /** Where the data begins, as an index into the text. */
      readonly dataStart: number;
    }
  | { readonly kind: 'refused'; readonly error: ClickHouseError };

const answers = new Set(['SHOW', 'DESCRIBE', 'DESC', 'EXPLAIN', 'EXISTS', 'CHECK', 'KILL']);
const rows = new Set(['SELECT', 'WITH', 'FROM', 'VALUES']);

function refused(code: 36 | 48 | 62, message: string): Statement {
  return { kind: 'refused', error: clickHouseError(code, message) };
}

/** The index behind the name of an INSERT's target: `db.table`, or `FUNCTION name(…)`. */
function endOfTarget(text: string, insert: Token): number {
  let token = nextToken(text, insert.end);
  if (isWord(token, 'INTO')) token = nextToken(text, token?.end ?? text.length);
  if (isWord(token, 'TABLE')) token = nextToken(text, token?.end ?? text.length);
  const isFunction = isWord(token, 'FUNCTION');
  if (isFunction) token = nextToken(text, token?.end ?? text.length);
  let end = token?.end ?? text.length;
  for (let next = nextToken(text, end); next?.text === '.'; next = nextToken(text, end)) {
    end = nextToken(text, next.end)?.end ?? text.length;
  }
  if (!isFunction) return end;
  let depth = 0;
  for (const next of tokens(text, end)) {
    if (next.text === '(') depth += 1;
    if (next.text === ')') depth -= 1;
    end = next.end;
    if (depth <= 0) break;
  }
  return end;
}

/** The name of a format, which may be quoted: `Null` is a keyword. Null for what cannot be one. */
function readFormatName(token: Token): string | null {
  const name = token.kind === 'quoted' ? token.text.slice(1, -1) : token.text;
  return /^[A-Za-z][A-Za-z0-9]*$/.test(name) ? name : null;
}

/** The index behind the white space that follows a format's name in its line. */
function endOfName(text: string, formatEnd: number): number {
  let at = formatEnd;
  while (at < text.length && /[ \t\r\f\v]/.test(text[at] as string)) at += 1;
  return at;
}

/** Data starts behind the first line break after the format's name, or else behind the white space. */
function startOfData(text: string, formatEnd: number): number {
  const at = endOfName(text, formatEnd);
  return text[at] === '\n' ? at + 1 : at;
}

function readInsert(text: string, insert: Token): Statement {
  const target = endOfTarget(text, insert);
  let depth = 0;
  let settingsStart: number | null = null;
  let previous: Token | null = null;
  for (const token of tokens(text, target)) {
    if (token.text === '(') depth += 1;
    else if (token.text === ')') depth -= 1;
    else if (depth === 0 && token.kind === 'word') {
      const at = settingsStart ?? token.start;
      const parts = { head: text.slice(0, at).trimEnd(), settings: text.slice(at, token.start).trim() };
      if (isWord(token, 'VALUES'))
        return { kind: 'insert', ...parts, input: null, format: 'Values', dataStart: token.end };
      if (isWord(token, 'FORMAT')) {
        const name = nextToken(text, token.end);
        const format = name === null ? null : readFormatName(name);
        if (name === null || format === null) {
          return refused(62, 'Syntax error: INSERT … FORMAT names no format.');
        }
        // In the line of the name only: behind its end a semicolon is data.
        if (text[endOfName(text, name.end)] === ';') {
          return refused(62, "You have excessive ';' symbol before data for INSERT.");
        }
        return { kind: 'insert', ...parts, input: null, format, dataStart: startOfData(text, name.end) };
      }
      if (isWord(token, 'SELECT') || isWord(token, 'WITH')) {
        return readInsertOfInput(text, token) ?? readWhole(text, 'command', true);
      }
      if (isWord(token, 'INFILE') && isWord(previous, 'FROM')) {
        return refused(36, 'INSERT … FROM INFILE reads a file of the server; send the data in the request.');
      }
      if (isWord(token, 'SETTINGS')) settingsStart = token.start;
    }
    previous = token;
  }
  return readWhole(text, 'command', true);
}

/**
 * INSERT … SELECT … FROM input('structure') … FORMAT name, whose data follows. Null for a SELECT from elsewhere, which
 * has none.
 */
function readInsertOfInput(text: string, select: Token): Statement | null {
  let depth = 0;
  let input: { readonly start: number; readonly open: number; readonly depth: number } | null = null;
  let close: Token | null = null;
  let name: Token | null = null;
  for (const token of tokens(text, select.end)) {
    if (token.text === '(') {
      if (input === null && isWord(name, 'INPUT')) input = { start: name!.start, open: token.end, depth };
      depth += 1;
    } else if (token.text === ')') {
      depth -= 1;
      if (input !== null && close === null && depth === input.depth) close = token;
    } else if (depth === 0 && isWord(token, 'FORMAT') && input !== null && close !== null) {
      const formatName = nextToken(text, token.end);
      const format = formatName === null ? null : readFormatName(formatName);
      if (formatName === null || format === null) {
        return refused(62, 'Syntax error: INSERT … FORMAT names no format.');
      }
      return {
        kind: 'insert',
        head: text.slice(0, input.start),
        settings: '',
        input: {
          structure: text.slice(input.open, close.start),
          rest: text.slice(close.end, token.start).trim(),
        },
        format,
        dataStart: startOfData(text, formatName.end),
      };
    }
    name = token;
  }
  return null;
}

/** A statement without data: everything up to its end, which must be the end of the text. */
function readWhole(text: string, kind: 'rows' | 'answer' | 'command', isInsert: boolean): Statement {
  let depth = 0;
  let end = 0;
  let semicolon = false;
  let format: { readonly start: number; readonly name: string; readonly end: number } | null = null;
  let previous: Token | null = null;
  let beforePrevious: Token | null = null;
  for (const token of tokens(text)) {
    if (semicolon && token.text !== ';') {
      return refused(62, 'Syntax error (Multi-statements are not allowed).');
    }
    if (token.text === ';') {
      semicolon = true;
      continue;
    }
    if (isWord(token, 'OUTFILE') && isWord(previous, 'INTO')) {
      return refused(36, 'INTO OUTFILE writes a file of the server; read the answer instead.');
    }
    if (token.text === '(' || token.text === '[') depth += 1;
    else if (token.text === ')' || token.text === ']') depth -= 1;
    const name = isWord(previous, 'FORMAT') && beforePrevious !== null ? readFormatName(token) : null;
    if (depth === 0 && previous !== null && name !== null) {
      format = { start: previous.start, name, end: token.end };
    } else if (
      format !== null &&
      previous !== null &&
      previous.end === format.end &&
      !isWord(token, 'SETTINGS')
    ) {
      // Not the last clause: `format` was a name here.
      format = null;
    }
    if (kind === 'rows' && depth === 0 && isWord(token, 'INSERT') && isInsertStart(previous)) {
      return readWhole(text, 'command', true);
    }
    end = token.end;
    beforePrevious = previous;
    previous = token;
  }
  const sql = text.slice(0, end);
  if (kind !== 'rows') return { kind, sql, format: format?.name ?? null, isInsert };
  if (format === null) return { kind, head: sql, format: null, tail: '' };
  return {
    kind,
    head: text.slice(0, format.start).trimEnd(),
    format: format.name,
    tail: text.slice(format.end, end).trim(),
  };
}

/** `WITH x AS (…) INSERT INTO`: an INSERT that begins with its common tables. */
function isInsertStart(previous: Token | null): boolean {
  return previous?.text === ')';
}

function readKill(text: string): Statement {
  for (const token of tokens(text)) {
    if (isWord(token, 'SYNC')) return refused(48, 'KILL QUERY … SYNC would never answer here; use ASYNC.');
  }
  return readWhole(text, 'answer', false);
}

/**
 * Reads one statement. For an INSERT with data only its beginning is looked at, so the text may be cut off
 * anywhere behind the word that starts the data.
 */
export function readStatement(text: string): Statement {
  const first = nextToken(text, 0);
  if (first === null) return { kind: 'empty' };
  const word = first.text.toUpperCase();
  if (word === 'INSERT') return readInsert(text, first);
  if (word === 'KILL') return readKill(text);
  if (first.text === '(' || rows.has(word)) return readWhole(text, 'rows', false);
  return readWhole(text, answers.has(word) ? 'answer' : 'command', false);
}

/** A string literal. Backslash and quote are the only characters that could end it. */
export function quoteString(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\0', '\\0')}'`;
}

export function quoteName(value: string): string {
  return `\`${value.replaceAll('\\', '\\\\').replaceAll('`', '\\`').replaceAll('\0', '\\0')}\``;
}

/** The statement that streams its rows into the pipe at `path`. */
export function composeRows(
  statement: Extract<Statement, { kind: 'rows' }>,
  format: string,
  path: string,
): string {
  return `${statement.head}\nINTO OUTFILE ${quoteString(path)} APPEND FORMAT ${format} ${statement.tail}`;
}

/** The statement that reads its data from the file at `path`. */
export function composeInsert(statement: Extract<Statement, { kind: 'insert' }>, path: string): string {
  const { input } = statement;
  if (input !== null) {
    return `${statement.head}file(${quoteString(path)}, ${statement.format}, ${input.structure}) ${input.rest}`;
  }
  return `${statement.head}\nFROM INFILE ${quoteString(path)} ${statement.settings} FORMAT ${statement.format}`;
}
