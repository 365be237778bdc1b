// What is run in a session, for a request and beside it.
import { forbiddenFunctions, refuseToReader } from './access.ts';
import type { Chdb, Connection, InsertResult, QueryResult } from './chdb.ts';
import { parseEngineError, Refusal, refuse } from './error.ts';
import type { ClickHouseError } from './error.ts';
import { openPipe } from './pipe.ts';
import type { ResultPipe } from './pipe.ts';
import { composeInsert, composeRows, quoteString, readStatement } from './statement.ts';
import type { Statement } from './statement.ts';

export type Outcome =
  | { readonly kind: 'done'; readonly result: QueryResult }
  | { readonly kind: 'failed'; readonly error: ClickHouseError };

/** The engine's error as ClickHouse words it. */
export function engineError(error: unknown): ClickHouseError {
  if (error instanceof Refusal) return error.error;
  return parseEngineError(error instanceof Error ? error.message : String(error));
}

/** Runs one statement outside any request. */
export async function runOnce(chdb: Chdb, sql: string, format: string): Promise<string> {
  const connection = chdb.connect();
  try {
    return Buffer.from((await connection.query(sql, format)).bytes).toString('utf8');
  } finally {
    connection.close();
  }
}

/** The names that the read-only user may not call, from what this engine knows. */
export async function loadForbiddenFunctions(chdb: Chdb): Promise<ReadonlySet<string>> {
  const names = await runOnce(chdb, 'SELECT name FROM system.table_functions', 'TSVRaw');
  return forbiddenFunctions(names.split('\n').filter((name) => name !== ''));
}

function textOf(statement: Extract<Statement, { kind: 'rows' | 'answer' | 'command' }>): string {
  if (statement.kind !== 'rows') return statement.sql;
  return statement.format === null
    ? statement.head
    : `${statement.head} FORMAT ${statement.format} ${statement.tail}`;
}

/**
 * One statement as the engine prints it back, without comments and with every quote in one form.
 *
 * @throws the engine's error when it is no statement, or more than one
 */
async function printBack(connection: Connection, sql: string): Promise<string> {
  try {
    const result = await connection.query(`SELECT formatQuerySingleLine(${quoteString(sql)})`, 'TSVRaw');
    return Buffer.from(result.bytes).toString('utf8').trim();
  } catch (error) {
    const { code, name, message } = engineError(error);
    const told = message.replace(/\.?\s*:? In scope SELECT formatQuerySingleLine[\s\S]*$/, '');
    throw new Refusal({ code, name, message: told }, { cause: error });
  }
}

/** A syntax error of the statement as it was sent, rather than of what we made of it. */
async function syntaxError(
  connection: Connection,
  sql: string,
  error: ClickHouseError,
): Promise<ClickHouseError> {
  if (error.code !== 62) return error;
  try {
    await printBack(connection, sql);
    return error;
  } catch (told) {
    return engineError(told);
  }
}

/**
 * What the read-only user may run of this statement: the form in which the engine prints it back.
 *
 * @throws Refusal when it may not, or when it is no statement at all.
 */
export async function restrictToReader(
  connection: Connection,
  statement: Statement,
  forbidden: ReadonlySet<string>,
): Promise<Statement> {
  if (statement.kind === 'insert') throw refuse(164, 'The read-only user may not insert.');
  if (statement.kind === 'empty' || statement.kind === 'refused') return statement;
  let canonical: string;
  try {
    const sql = `SELECT formatQuerySingleLine(${quoteString(textOf(statement))})`;
    canonical = Buffer.from((await connection.query(sql, 'TSVRaw')).bytes)
      .toString('utf8')
      .trim();
  } catch (error) {
    throw new Refusal(engineError(error), { cause: error });
  }
  const refusal = refuseToReader(canonical, forbidden);
  if (refusal !== null) throw new Refusal(refusal);
  return readStatement(canonical);
}

export interface RunningRows {
  readonly pipe: ResultPipe;
  /** The bytes of the result; at their end when the engine is through. */
  readonly chunks: AsyncIterator<Buffer>;
  /** Settles when the engine is through; never rejects. */
  readonly outcome: Promise<Outcome>;
}

/** Starts a statement whose rows come through the pipe. */
export function startRows(
  connection: Connection,
  statement: Extract<Statement, { kind: 'rows' }>,
  format: string,
  path: string,
): RunningRows {
  const pipe = openPipe(path);
  const outcome = connection.query(composeRows(statement, format, path), format).then(
    (result): Outcome => ({ kind: 'done', result }),
    async (error: unknown): Promise<Outcome> => {
      return { kind: 'failed', error: await syntaxError(connection, textOf(statement), engineError(error)) };
    },
  );
  void outcome.then(() => pipe.finish());
  const chunks = (pipe.stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  return { pipe, chunks, outcome };
}

/** Inserts the spooled data. */
export async function insertFile(
  connection: Connection,
  statement: Extract<Statement, { kind: 'insert' }>,
  path: string,
): Promise<InsertResult> {
  return await connection.insert(composeInsert(statement, path));
}

/** Cancels the statement that runs with this comment. Never with SYNC, which would not return. */
export async function killQuery(chdb: Chdb, comment: string): Promise<void> {
  await runOnce(chdb, `KILL QUERY WHERE Settings['log_comment'] = ${quoteString(comment)} ASYNC`, 'Null');
}
