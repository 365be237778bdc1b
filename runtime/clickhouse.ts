/**
 * ClickHouse over its HTTP interface.
 *
 * Numbers: 64-bit and wider integers and all decimals come back as strings, never as floats. Parameters are
 * ClickHouse's own, `{name:Type}` in the query, bound by the server; nothing is ever pasted into SQL.
 *
 * Inserts are synchronous (async_insert is on by default in recent servers, and then an answer does not
 * mean written) and compare the rows the server says it wrote with the rows sent. The table must not feed
 * materialized views, whose rows would be counted too.
 *
 * A guarded insert writes only if a condition holds when the server begins with it. The rows go through the table
 * function input(), whose types are the table's, so that a WHERE can stand beside them; its condition names no
 * column, so the server works it out once, before the first row, and throws at the first rows instead of writing
 * them. (With no rows it need not throw, and has nothing to write.) A guard makes an
 * insert take 3 to 4 ms longer, whatever its size (chdb 26.7: 1 row 8.4 ms instead of 5.0, 200,000 rows 63 instead of
 * 60).
 */
import { Readable } from 'node:stream';
import {
  ClickHouseError,
  ClickHouseLogLevel,
  createClient,
  type ClickHouseSettings,
} from '@clickhouse/client';

/** A failed query or command. `code` is ClickHouse's own (60 unknown table, 241 memory limit, …), 0 when
 * the failure was on the way (refused, timed out, cut). */
export class QueryError extends Error {
  readonly code: number;
  constructor(message: string, code: number, cause?: unknown) {
    super(message, { cause });
    this.name = 'QueryError';
    this.code = code;
  }
}

/**
 * A failed insert. `effectUnknown`: part or all of the rows may be there, because the answer was lost, the
 * server failed while writing, or the written count differs. Insert the same rows again; tables are keyed so
 * that it changes nothing.
 */
export class InsertError extends Error {
  readonly code: number;
  readonly effectUnknown: boolean;
  constructor(message: string, code: number, effectUnknown: boolean, cause?: unknown) {
    super(message, { cause });
    this.name = 'InsertError';
    this.code = code;
    this.effectUnknown = effectUnknown;
  }
}

/** The guard of an insert did not hold: nothing was written. */
export class GuardError extends Error {
  constructor(what: string, cause?: unknown) {
    super(what, { cause });
    this.name = 'GuardError';
  }
}

/** What must hold when the server begins with an insert. */
export interface Guard {
  /** A Boolean of SQL that names no column of the insert; a scalar subquery may read other tables. */
  readonly condition: string;
  /** Its `{name:Type}` values. */
  readonly params: Readonly<Record<string, unknown>>;
}

const GUARD_FAILED = 'the guard of this insert does not hold';

/** The guard as a predicate for the WHERE of an INSERT … SELECT that is run as a command. */
export function guardPredicate({ condition }: Guard): string {
  return `throwIf(NOT (${condition}), '${GUARD_FAILED}') = 0`;
}

export type Settings = Record<string, string | number>;

export interface ClickHouse {
  rows<T>(query: string, params?: Record<string, unknown>): Promise<T[]>;
  /** The answer as it comes, in `format` (CSVWithNames, JSONEachRow, Parquet, …), for passing through. */
  stream(query: string, params: Record<string, unknown>, format: string): Promise<Readable>;
  /** Inserts `rows` rows that `body` holds in Native format, with these columns. Throws InsertError, GuardError. */
  insertNative(
    table: string,
    columns: readonly string[],
    body: Uint8Array | readonly Uint8Array[],
    rows: number,
    settings?: Settings,
    guard?: Guard,
  ): Promise<void>;
  /**
   * Inserts objects by column name; bigints are written as decimal digits. With a guard all rows must have the
   * columns of the first. Throws InsertError, GuardError.
   */
  insertJson(table: string, rows: readonly object[], guard?: Guard): Promise<void>;
  /** Throws QueryError; GuardError where a `guardPredicate` in it did not hold. */
  command(sql: string, params?: Record<string, unknown>): Promise<void>;
  ping(): Promise<void>;
  close(): Promise<void>;
}

export interface ClickHouseOptions {
  /** http://user:password@host:port/database */
  readonly url: string;
  /** Shown in the server's query log. */
  readonly name: string;
  readonly requestTimeoutMs: number;
  readonly settings?: Settings;
  /** Requests at a time, at most; more wait. Default 16. */
  readonly maxConnections?: number;
}

const EXACT_NUMBERS = { output_format_json_quote_64bit_integers: 1, output_format_json_quote_decimals: 1 };
const INSERT_SETTINGS: Settings = { async_insert: 0, wait_end_of_query: 1 };
const NAME = /^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$/;
const FORMAT = /^[A-Za-z0-9]+$/;

export function connectClickHouse(o: ClickHouseOptions): ClickHouse {
  const client = createClient({
    url: o.url,
    application: o.name,
    request_timeout: o.requestTimeoutMs,
    max_open_connections: o.maxConnections ?? 16,
    clickhouse_settings: asSettings({ ...EXACT_NUMBERS, ...o.settings }),
    // Errors are thrown; the client's own log would print them a second time, with what was sent.
    log: { level: ClickHouseLogLevel.OFF },
    json: { parse: JSON.parse, stringify: stringifyExact },
  });

  /** By table: column name to type. */
  const types = new Map<string, ReadonlyMap<string, string>>();

  /** The types of these columns, as input() takes them. */
  const structureOf = async (table: string, columns: readonly string[]): Promise<string> => {
    let known = types.get(table);
    if (known === undefined || columns.some((column) => !known!.has(column))) {
      const answer = await client.query({
        query:
          'SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}',
        query_params: { table },
        format: 'JSONEachRow',
      });
      const rows = await answer.json<{ name: string; type: string }>();
      known = new Map(rows.map(({ name, type }) => [name, type]));
      types.set(table, known);
    }
    // A column that is not there is left to the insert, which says so.
    return columns.map((column) => `${column} ${known.get(column) ?? 'String'}`).join(', ');
  };

  const insert = async (
    table: string,
    columns: readonly string[],
    format: string,
    body: Readable,
    s: Settings,
    guard: Guard | undefined,
  ) => {
    const names = columns.map(checkedName).join(', ');
    const list = columns.length === 0 ? '' : ` (${names})`;
    const from =
      guard === undefined
        ? ''
        : ` SELECT ${names} FROM input(${quoted(await structureOf(table, columns))}) WHERE ${guardPredicate(guard)}`;
    const { stream, summary } = await client.exec({
      query: `INSERT INTO ${checkedName(table)}${list}${from} FORMAT ${format}`,
      values: body,
      ...(guard === undefined ? {} : { query_params: guard.params }),
      clickhouse_settings: asSettings({ ...INSERT_SETTINGS, ...s }),
    });
    for await (const _ of stream) void _;
    return summary === undefined ? undefined : Number(summary.written_rows);
  };

  const insertExactly = async (
    table: string,
    columns: readonly string[],
    format: string,
    chunks: readonly Uint8Array[],
    rows: number,
    settings: Settings,
    guard: Guard | undefined,
  ) => {
    let written: number | undefined;
    try {
      const body = Readable.from(chunks, { objectMode: false });
      written = await insert(table, columns, format, body, settings, guard);
    } catch (error) {
      const { message, code } = told(error);
      if (isGuardFailure(code, message)) throw new GuardError(`insert into ${table}: ${GUARD_FAILED}`, error);
      // Errors of parsing and of names come before anything is written; of all others it is not known.
      throw new InsertError(`insert into ${table}: ${message}`, code, !BEFORE_WRITING.has(code), error);
    }
    if (written === rows) return;
    const counted = written === undefined ? 'did not say how many it wrote' : `wrote ${written}`;
    throw new InsertError(`insert into ${table}: sent ${rows} rows, the server ${counted}`, 0, true);
  };

  return {
    async rows<T>(query: string, params: Record<string, unknown> = {}) {
      return failing(query, async () => {
        const answer = await client.query({ query, query_params: params, format: 'JSONEachRow' });
        return answer.json<T>();
      });
    },
    stream(query, params, format) {
      if (!FORMAT.test(format)) throw new TypeError(`not a format: ${format}`);
      return failing(query, async () => {
        const sql = `${query.replace(/[;\s]+$/, '')}\nFORMAT ${format}`;
        return (await client.exec({ query: sql, query_params: params })).stream;
      });
    },
    insertNative(table, columns, body, rows, settings = {}, guard) {
      const chunks = body instanceof Uint8Array ? [body] : body;
      return insertExactly(table, columns, 'Native', chunks, rows, settings, guard);
    },
    async insertJson(table, rows, guard) {
      if (rows.length === 0) return;
      const lines = [Buffer.from(rows.map((row) => `${stringifyExact(row)}\n`).join(''))];
      const columns = guard === undefined ? [] : Object.keys(rows[0]!);
      await insertExactly(table, columns, 'JSONEachRow', lines, rows.length, {}, guard);
    },
    async command(sql, params = {}) {
      await failing(sql, () => client.command({ query: sql, query_params: params }));
    },
    async ping() {
      // A query and not /ping: it checks the credentials and the database too.
      await failing('SELECT 1', async () => {
        const answer = await client.query({ query: 'SELECT 1', format: 'JSONEachRow' });
        await answer.text();
      });
    },
    close: () => client.close(),
  };
}

/** A parse error quotes what it could not parse, and that may be an event. */
const MESSAGE_MAX = 500;

/** ClickHouse codes of inserts that were refused before anything was written. */
const BEFORE_WRITING = new Set([
  16, // no such column in table
  47, // unknown identifier
  60, // unknown table
  62, // syntax error
  81, // unknown database
  115, // unknown setting
  164, // readonly
  192, // unknown user
  193, // wrong password
  497, // not enough privileges
  516, // authentication failed
]);

async function failing<T>(query: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const { message, code } = told(error);
    if (isGuardFailure(code, message)) throw new GuardError(GUARD_FAILED, error);
    throw new QueryError(`${message} (in: ${query.trim().slice(0, 200)})`, code, error);
  }
}

function told(error: unknown): { message: string; code: number } {
  if (error instanceof ClickHouseError)
    return { message: error.message.slice(0, MESSAGE_MAX), code: Number(error.code) };
  return { message: error instanceof Error ? error.message : String(error), code: 0 };
}

/** ClickHouse's own code of throwIf. */
const THROWN_IF = 395;

function isGuardFailure(code: number, message: string): boolean {
  return code === THROWN_IF && message.includes(GUARD_FAILED);
}

/** Types of a schema hold quotes (DateTime('UTC')). */
function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

function checkedName(name: string): string {
  if (!NAME.test(name)) throw new TypeError(`not a table or column name: ${name}`);
  return name;
}

function asSettings(settings: Settings): ClickHouseSettings {
  return settings as ClickHouseSettings;
}

function stringifyExact(value: unknown): string {
  return JSON.stringify(value, (_key, one: unknown) => (typeof one === 'bigint' ? one.toString() : one));
}
