// Who may ask what. The read-write user may do everything but reach the files of this machine through INTO
// OUTFILE and FROM INFILE. The read-only user is held in three ways:
//
// 1. Its session runs with readonly = 1, which the engine enforces: no writes, no changed settings, and no table
//    function that reaches outside.
// 2. What that does not cover is refused here. The engine still reads files for the scalar function file(),
//    still contacts URLs for DESCRIBE TABLE url(…), and INTO OUTFILE is work of the client half of the engine.
//    These are looked for in the statement as the engine itself prints it back (formatQuerySingleLine), and that
//    printed form is what runs: no comment, quoting or encoding can hide a word from the check.
// 3. Its limits on time, rows and memory are set before readonly = 1 and so cannot be raised.
import { createHash, timingSafeEqual } from 'node:crypto';
import { clickHouseError } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { isWord, tokens } from './lexer.ts';
import type { Credentials } from './request.ts';

export type Role = 'writer' | 'reader';

export interface User {
  readonly name: string;
  readonly password: string;
  readonly role: Role;
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** The role of the user with these credentials, or null. Takes the same time for a wrong user and password. */
export function authenticate(users: readonly User[], credentials: Credentials): Role | null {
  let role: Role | null = null;
  for (const user of users) {
    const sameName = timingSafeEqual(sha256(user.name), sha256(credentials.user));
    const samePassword = timingSafeEqual(sha256(user.password), sha256(credentials.password));
    if (sameName && samePassword && user.password !== '') role = user.role;
  }
  return role;
}

/** Table functions that touch nothing but their arguments and the tables of this engine. */
const harmlessTableFunctions = new Set([
  'numbers',
  'numbers_mt',
  'zeros',
  'zeros_mt',
  'primes',
  'generate_series',
  'generateseries',
  'generaterandom',
  'values',
  'null',
  'view',
  'viewifpermitted',
  'merge',
  'loop',
  'format',
]);

/** Scalar functions that read files, load code or show the engine's memory. */
const harmfulFunctions = [
  'file',
  'catboostEvaluate',
  'addressToLine',
  'addressToLineWithInlines',
  'addressToSymbol',
  'getOSKernelVersion',
  'getServerSetting',
  'getMacro',
  'logTrace',
  'displayName',
  'buildId',
];

/** What the read-only user may not call, from the names of all table functions that this engine knows. */
export function forbiddenFunctions(tableFunctions: readonly string[]): ReadonlySet<string> {
  const names = tableFunctions
    .map((name) => name.toLowerCase())
    .filter((name) => !harmlessTableFunctions.has(name));
  return new Set([...names, ...harmfulFunctions.map((name) => name.toLowerCase())]);
}

const readerVerbs = new Set(['SELECT', 'WITH', 'FROM', 'SHOW', 'DESCRIBE', 'DESC', 'EXPLAIN', 'EXISTS']);

function unquote(text: string): string {
  return text.startsWith('`') || text.startsWith('"') ? text.slice(1, -1) : text;
}

/**
 * Why the read-only user may not run this statement, or null.
 *
 * @param canonical one statement as the engine prints it
 */
export function refuseToReader(canonical: string, forbidden: ReadonlySet<string>): ClickHouseError | null {
  const all = [...tokens(canonical)];
  const first = all.find((token) => token.text !== '(');
  const verb = first?.kind === 'word' ? first.text.toUpperCase() : '';
  if (!readerVerbs.has(verb)) {
    return clickHouseError(164, 'The read-only user may only SELECT, SHOW, DESCRIBE, EXPLAIN and EXISTS.');
  }
  const describes = verb === 'DESCRIBE' || verb === 'DESC';
  for (const [index, token] of all.entries()) {
    const next = all[index + 1];
    if (isWord(token, 'OUTFILE') || isWord(token, 'INFILE')) {
      return clickHouseError(164, 'The read-only user may not use OUTFILE or INFILE.');
    }
    if (next?.text !== '(' || (token.kind !== 'word' && token.kind !== 'quoted')) continue;
    if (describes && !isWord(token, 'TABLE') && !isWord(token, verb)) {
      return clickHouseError(164, 'The read-only user may DESCRIBE tables only.');
    }
    if (forbidden.has(unquote(token.text).toLowerCase())) {
      return clickHouseError(164, `The read-only user may not call ${token.text.slice(0, 100)}().`);
    }
  }
  return null;
}
