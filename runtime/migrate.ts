/**
 * Migrations: numbered .sql files (0001-name.sql), applied once, in order, and recorded with their sha256.
 * An applied file is history. One that was changed or removed since, or a new one numbered before an applied
 * one, is an error that names it, found before anything is run.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import pg from 'pg';
import type { ClickHouse } from './clickhouse.ts';
import type { Postgres } from './postgres.ts';
import { splitStatements } from './statements.ts';

export class MigrationError extends Error {
  /** The file at fault. */
  readonly file: string;
  constructor(file: string, message: string, cause?: unknown) {
    super(`migration ${file}: ${message}`, { cause });
    this.name = 'MigrationError';
    this.file = file;
  }
}

interface MigrationFile {
  readonly name: string;
  readonly sql: string;
  readonly sha256: string;
}

interface Applied {
  readonly name: string;
  readonly sha256: string;
}

const FILE = /^([0-9]{4})-[a-z0-9-]+\.sql$/;
/** A migration may rewrite a table, which the statement timeout of daily work would not allow. */
const STATEMENT_TIMEOUT = '15min';

/**
 * Applies what is missing, one transaction a file, in which the search path is the schema. Creates the
 * schema when it is missing. Processes that start at the same time wait for each other. Returns the names
 * applied now.
 */
export async function migratePostgres(
  db: Postgres,
  o: { directory: URL; schema: string },
): Promise<string[]> {
  const files = await readMigrations(o.directory);
  const schema = pg.escapeIdentifier(o.schema);
  const done: string[] = [];
  // Every turn applies one file; the lock is the transaction's, and what is applied is read under it.
  for (;;) {
    const name = await db.transaction(
      async (tx) => {
        await tx.query(`SET LOCAL statement_timeout = '${STATEMENT_TIMEOUT}'`);
        await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [`migrate ${o.schema}`]);
        await tx.query(`CREATE SCHEMA IF NOT EXISTS ${schema}`);
        await tx.query(
          `CREATE TABLE IF NOT EXISTS ${schema}.schema_migrations (
             name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
        );
        const applied = await tx.query<Applied>(
          `SELECT name, sha256 FROM ${schema}.schema_migrations ORDER BY name`,
        );
        const [next] = missing(files, applied);
        if (next === undefined) return null;
        await tx.query(`SET LOCAL search_path = ${schema}, public`);
        try {
          await tx.query(next.sql);
        } catch (error) {
          throw new MigrationError(next.name, error instanceof Error ? error.message : String(error), error);
        }
        await tx.query(`INSERT INTO ${schema}.schema_migrations (name, sha256) VALUES ($1, $2)`, [
          next.name,
          next.sha256,
        ]);
        return next.name;
      },
      { isolation: 'read committed', attempts: 1 },
    );
    if (name === null) return done;
    done.push(name);
  }
}

/**
 * Applies what is missing, statement by statement; see splitStatements for where one ends. ClickHouse has
 * no transactions for this, so every statement must be idempotent (IF NOT EXISTS): a file is recorded after
 * its last one, and after a crash, or beside another process, its statements run again. The record is the
 * table schema_migrations of the connection's database, shared by components. Returns the names applied.
 */
export async function migrateClickHouse(
  ch: ClickHouse,
  o: { directory: URL; component: string },
): Promise<string[]> {
  const files = await readMigrations(o.directory);
  await ch.command(
    `CREATE TABLE IF NOT EXISTS schema_migrations (
       component String, name String, sha256 String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
     ) ENGINE = ReplacingMergeTree ORDER BY (component, name)`,
  );
  const applied = await ch.rows<Applied>(
    'SELECT name, sha256 FROM schema_migrations FINAL WHERE component = {component:String} ORDER BY name',
    { component: o.component },
  );
  const done: string[] = [];
  for (const file of missing(files, applied)) {
    for (const statement of splitStatements(file.sql)) {
      try {
        await ch.command(statement);
      } catch (error) {
        throw new MigrationError(file.name, error instanceof Error ? error.message : String(error), error);
      }
    }
    await ch.insertJson('schema_migrations', [
      { component: o.component, name: file.name, sha256: file.sha256 },
    ]);
    done.push(file.name);
  }
  return done;
}

async function readMigrations(directory: URL): Promise<MigrationFile[]> {
  const base = directory.href.endsWith('/') ? directory : new URL(`${directory.href}/`);
  const names = (await readdir(base)).filter((name) => name.endsWith('.sql')).sort();
  const numbers = new Map<string, string>();
  const files: MigrationFile[] = [];
  for (const name of names) {
    const number = FILE.exec(name)?.[1];
    if (number === undefined) throw new MigrationError(name, 'names look like 0001-what-it-does.sql');
    const twin = numbers.get(number);
    if (twin !== undefined) throw new MigrationError(name, `has the number of ${twin}`);
    numbers.set(number, name);
    // A checkout on Windows may have other line ends; that is no change.
    const sql = (await readFile(new URL(name, base), 'utf8')).replaceAll('\r\n', '\n');
    files.push({ name, sql, sha256: createHash('sha256').update(sql).digest('hex') });
  }
  return files;
}

/** The files still to be applied, in order. Throws MigrationError when files and history disagree. */
export function missing(files: readonly MigrationFile[], applied: readonly Applied[]): MigrationFile[] {
  const byName = new Map(files.map((file) => [file.name, file]));
  for (const { name, sha256 } of applied) {
    const file = byName.get(name);
    if (file === undefined) throw new MigrationError(name, 'was applied and is missing now');
    if (file.sha256 !== sha256) throw new MigrationError(name, 'was changed after it was applied');
  }
  const last = applied.reduce((max, { name }) => (name > max ? name : max), '');
  const names = new Set(applied.map(({ name }) => name));
  const rest = files.filter(({ name }) => !names.has(name));
  const early = rest.find(({ name }) => name < last);
  if (early) throw new MigrationError(early.name, `is new, but ${last} was already applied`);
  return rest;
}
