/**
 * Splits a file of SQL into its statements: a `;` that is the last thing on its line, outside of quotes and
 * comments, ends one. A `;` in the middle of a line does not. Comments stay with the statement they stand
 * in; a piece of nothing but comments and space is no statement.
 */
export function splitStatements(sql: string): string[] {
  const statements: string[] = [];
  let start = 0;
  let solid = false; // Whether there was anything but space and comments since `start`.
  let i = 0;
  while (i < sql.length) {
    const end = skipComment(sql, i);
    if (end > i) {
      i = end;
      continue;
    }
    const character = sql[i] as string;
    if (character === "'" || character === '"' || character === '`') {
      i = endOfQuoted(sql, i);
      solid = true;
    } else if (character === ';' && endsLine(sql, i + 1)) {
      if (solid) statements.push(sql.slice(start, i).trim());
      start = ++i;
      solid = false;
    } else {
      if (!/\s/.test(character) && character !== ';') solid = true;
      i++;
    }
  }
  if (solid) statements.push(sql.slice(start).trim());
  return statements;
}

/** The index after the comment that starts at `i`; `i` itself when none does. */
function skipComment(sql: string, i: number): number {
  if (sql.startsWith('--', i)) {
    const end = sql.indexOf('\n', i);
    return end === -1 ? sql.length : end;
  }
  if (sql.startsWith('/*', i)) {
    const end = sql.indexOf('*/', i + 2);
    return end === -1 ? sql.length : end + 2;
  }
  return i;
}

/** The index after the closing quote; a backslash escapes, and a doubled quote simply opens again. */
function endOfQuoted(sql: string, i: number): number {
  const quote = sql[i];
  for (let j = i + 1; j < sql.length; j++) {
    if (sql[j] === '\\') j++;
    else if (sql[j] === quote) return j + 1;
  }
  return sql.length;
}

/** Whether nothing but space and a comment follows up to the end of the line. */
function endsLine(sql: string, i: number): boolean {
  return /^[ \t\r]*(?:--[^\n]*)?(?:\n|$)/.test(sql.slice(i, sql.indexOf('\n', i) + 1 || undefined));
}
