// Cuts SQL into tokens the way ClickHouse's own lexer does, as far as it matters for finding where a statement
// ends, which format it names and where its inline data begins. It never has to be right about what a token
// means, only about where strings, quoted names and comments end.
//
// Positions are indexes into the text given. To cut bytes, decode them as latin1: every special character of
// SQL is ASCII, and bytes above 127 only occur inside words, strings and comments.

export type TokenKind = 'word' | 'number' | 'string' | 'quoted' | 'symbol';

export interface Token {
  readonly kind: TokenKind;
  readonly start: number;
  readonly end: number;
  /** As written, quotes included. */
  readonly text: string;
}

const space = /[ \t\n\r\f\v\0]/;
const wordStart = /[A-Za-z_\u0080-\uffff]/;
const wordPart = /[A-Za-z0-9_$\u0080-\uffff]/;
const digit = /[0-9]/;
const heredocTag = /\$[A-Za-z0-9_]*\$/y;

/** The end of a quoted run that starts at `start`: backslash escapes and doubled quotes are inside it. */
function endOfQuoted(text: string, start: number, quote: string): number {
  let at = start + 1;
  while (at < text.length) {
    const character = text[at];
    if (character === '\\') at += 2;
    else if (character !== quote) at += 1;
    else if (text[at + 1] === quote) at += 2;
    else return at + 1;
  }
  return text.length;
}

/** Block comments nest. */
function endOfBlockComment(text: string, start: number): number {
  let depth = 0;
  let at = start;
  while (at < text.length) {
    if (text.startsWith('/*', at)) {
      depth += 1;
      at += 2;
    } else if (text.startsWith('*/', at)) {
      depth -= 1;
      at += 2;
      if (depth === 0) return at;
    } else {
      at += 1;
    }
  }
  return text.length;
}

function endOfLine(text: string, start: number): number {
  const end = text.indexOf('\n', start);
  return end === -1 ? text.length : end + 1;
}

/** The end of the white space and comments that start at `start`. */
export function skipBlanks(text: string, start: number): number {
  let at = start;
  while (at < text.length) {
    const character = text[at] as string;
    if (space.test(character)) at += 1;
    else if (text.startsWith('--', at)) at = endOfLine(text, at);
    else if (text.startsWith('# ', at) || text.startsWith('#!', at)) at = endOfLine(text, at);
    else if (text.startsWith('/*', at)) at = endOfBlockComment(text, at);
    else break;
  }
  return at;
}

function heredocEnd(text: string, start: number): number | null {
  heredocTag.lastIndex = start;
  const tag = heredocTag.exec(text)?.[0];
  if (tag === undefined) return null;
  const end = text.indexOf(tag, start + tag.length);
  return end === -1 ? null : end + tag.length;
}

function endOfRun(text: string, start: number, part: RegExp): number {
  let at = start;
  while (at < text.length && part.test(text[at] as string)) at += 1;
  return at;
}

/** The first token at or after `start`, or null at the end. */
export function nextToken(text: string, start: number): Token | null {
  const from = skipBlanks(text, start);
  if (from >= text.length) return null;
  const make = (kind: TokenKind, end: number): Token => ({
    kind,
    start: from,
    end,
    text: text.slice(from, end),
  });
  const character = text[from] as string;
  if (character === "'") return make('string', endOfQuoted(text, from, "'"));
  if (character === '"' || character === '`') return make('quoted', endOfQuoted(text, from, character));
  if (character === '$') {
    const end = heredocEnd(text, from);
    return end === null ? make('symbol', from + 1) : make('string', end);
  }
  if (wordStart.test(character)) return make('word', endOfRun(text, from, wordPart));
  if (digit.test(character)) return make('number', endOfRun(text, from, wordPart));
  return make('symbol', from + 1);
}

/** All tokens from `start` on. */
export function* tokens(text: string, start = 0): Generator<Token> {
  let token = nextToken(text, start);
  while (token !== null) {
    yield token;
    token = nextToken(text, token.end);
  }
}

/** True when the token is this bare word, whatever its case. */
export function isWord(token: Token | null | undefined, word: string): boolean {
  return token?.kind === 'word' && token.text.toUpperCase() === word;
}
