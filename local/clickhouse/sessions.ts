// Sessions of the engine, each for one request at a time.
//
// A session has settings, parameters and a database of its own. To make one and prepare it costs half a millisecond of
// processor time, which is a quarter of what a small insert costs. So a session that can hold nothing but what it was
// prepared with is kept for the next request that asks for exactly the same: the same settings with the same values,
// the same database, and parameters of the same names, whose values are set anew. It is not kept
//
// - when a statement of it failed, or was cancelled: a cancel may still be under way and would hit the next statement;
// - after a command (SET, USE, CREATE TEMPORARY TABLE …), which may have changed it;
// - when it is read-only, which cannot be taken back.
//
// The settings in a statement's own SETTINGS clause end with the statement.
//
// What prepares a session goes to the engine in one text with its first statement: each text costs a turn on another
// thread.
import type { Chdb, Connection, InsertResult, QueryResult } from './chdb.ts';
import { quoteString } from './statement.ts';
import type { Statement } from './statement.ts';

export interface Preparation {
  /** Prepares a new session. */
  readonly sql: string;
  /** Sessions with the same key differ in the values of their parameters only. Null: for one request only. */
  readonly key: string | null;
  /** Prepares a session of the same key again; '' when there is nothing to do. */
  readonly again: string;
}

/** A connection while one request has it. */
export class Session implements Connection {
  /** The engine shows it with the running statement (log_comment); no other session has it. */
  readonly comment: string;
  readonly #connection: Connection;
  #preparing: string;
  #isPlain = true;

  constructor(connection: Connection, comment: string, preparing: string) {
    this.#connection = connection;
    this.comment = comment;
    this.#preparing = preparing;
  }

  query(sql: string, format: string): Promise<QueryResult> {
    return this.#watch(this.#connection.query(this.#prepared(sql), format));
  }

  insert(sql: string): Promise<InsertResult> {
    return this.#watch(this.#connection.insert(this.#prepared(sql)));
  }

  close(): void {
    this.#connection.close();
  }

  /** It may have been changed: nobody else may have it. */
  spoil(): void {
    this.#isPlain = false;
  }

  /** Holds nothing but what it was prepared with. */
  get isPlain(): boolean {
    return this.#isPlain && this.#preparing === '';
  }

  prepareAgain(sql: string): void {
    this.#preparing = sql;
  }

  #prepared(sql: string): string {
    const text = this.#preparing === '' ? sql : `${this.#preparing}; ${sql}`;
    this.#preparing = '';
    return text;
  }

  async #watch<T>(running: Promise<T>): Promise<T> {
    try {
      return await running;
    } catch (error) {
      this.spoil();
      throw error;
    }
  }
}

/** A statement of this kind leaves its session as it was. */
export function leavesSession(statement: Statement): boolean {
  switch (statement.kind) {
    case 'rows':
    case 'answer':
    case 'insert':
      return true;
    case 'command':
      return statement.isInsert;
    case 'empty':
    case 'refused':
      return false;
  }
}

export class Sessions {
  readonly #chdb: Chdb;
  readonly #idleMax: number;
  readonly #newComment: () => string;
  /** Longest unused first. */
  readonly #idle: { readonly key: string; readonly session: Session }[] = [];

  /**
   * @param idleMax sessions that are kept while nobody has them, of 0.2 MB each
   * @param newComment another one each time
   */
  constructor(chdb: Chdb, idleMax: number, newComment: () => string) {
    this.#chdb = chdb;
    this.#idleMax = idleMax;
    this.#newComment = newComment;
  }

  /** Runs `use` in a session prepared so, and ends or keeps it when everything in it has ended. */
  async use<T>(preparation: Preparation, use: (session: Session) => Promise<T>): Promise<T> {
    const session = this.#take(preparation);
    try {
      return await use(session);
    } catch (error) {
      session.spoil();
      throw error;
    } finally {
      this.#giveBack(preparation.key, session);
    }
  }

  #take({ sql, key, again }: Preparation): Session {
    const at = this.#idle.findLastIndex((idle) => idle.key === key);
    if (at === -1) {
      // The engine gives queries ids of its own: by this one they are found (system.processes, KILL QUERY).
      const comment = this.#newComment();
      const preparing = `SET log_comment = ${quoteString(comment)}; ${sql}`;
      return new Session(this.#chdb.connect(), comment, preparing);
    }
    const { session } = this.#idle.splice(at, 1)[0]!;
    session.prepareAgain(again);
    return session;
  }

  #giveBack(key: string | null, session: Session): void {
    if (key === null || !session.isPlain) {
      session.close();
      return;
    }
    this.#idle.push({ key, session });
    if (this.#idle.length > this.#idleMax) this.#idle.shift()!.session.close();
  }
}
