// Splits what a client sends, in the URL and in the body, into the statement and the data behind it.
import type { Body } from './body.ts';
import { refuse, Refusal } from './error.ts';
import { isWord, nextToken } from './lexer.ts';
import { readStatement } from './statement.ts';
import type { Statement } from './statement.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function fromLatin1(text: string): string {
  try {
    return utf8.decode(Buffer.from(text, 'latin1'));
  } catch (error) {
    throw new Refusal(refuse(62, 'Syntax error: the statement is not UTF-8.').error, { cause: error });
  }
}

/** Statements are cut as bytes (latin1), so that positions are byte positions, and then read as UTF-8. */
function decodeStatement(statement: Statement): Statement {
  switch (statement.kind) {
    case 'empty':
    case 'refused':
      return statement;
    case 'rows':
      return { ...statement, head: fromLatin1(statement.head), tail: fromLatin1(statement.tail) };
    case 'answer':
    case 'command':
      return { ...statement, sql: fromLatin1(statement.sql) };
    case 'insert':
      return {
        ...statement,
        head: fromLatin1(statement.head),
        settings: fromLatin1(statement.settings),
        input:
          statement.input === null
            ? null
            : {
                structure: fromLatin1(statement.input.structure),
                rest: fromLatin1(statement.input.rest),
              },
      };
  }
}

/**
 * Reads the statement from the URL's query and the body. For an INSERT what is left in the body is its data.
 *
 * @param statementBytesMax of a statement without its data
 * @throws Refusal when the statement is too large
 */
export async function splitStatement(
  query: string,
  body: Body,
  statementBytesMax: number,
): Promise<Statement> {
  const beginning = Buffer.from(query, 'utf8');
  const parts: Buffer[] = [beginning];
  let bytes = beginning.length;
  let tryAt = 0;

  const tryInsert = (whole: boolean): Statement | null => {
    const buffer = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
    parts.splice(0, parts.length, buffer);
    const text = buffer.toString('latin1');
    if (!whole && !isWord(nextToken(text, 0), 'INSERT')) return null;
    const statement = readStatement(text);
    if (statement.kind === 'insert') {
      // Data must have begun: what is cut off before that could still be a longer word.
      if (!whole && statement.dataStart >= text.length) return null;
      body.unread(buffer.subarray(statement.dataStart));
    } else if (!whole) return null;
    return decodeStatement(statement);
  };

  // An INSERT in the URL is complete: the body is its data.
  if (query !== '') {
    if (readStatement(beginning.toString('latin1')).kind === 'insert') return tryInsert(true) as Statement;
    parts.push(Buffer.from('\n'));
    bytes += 1;
  }
  for (let group = await body.take(1); group.length > 0; group = await body.take(1)) {
    for (const piece of group) {
      parts.push(piece);
      bytes += piece.length;
    }
    if (bytes < tryAt) continue;
    tryAt = bytes * 2;
    const insert = tryInsert(false);
    if (insert !== null) return insert;
    if (bytes > statementBytesMax) {
      throw refuse(229, `The statement is larger than ${statementBytesMax} bytes.`);
    }
  }
  return tryInsert(true) as Statement;
}
