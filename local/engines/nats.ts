// A NATS server with JetStream for one machine.
//
// npm has no package that carries the server, so it is looked for in this order: `nats-server` on PATH, the
// copy in the cache folder, and on Debian and Ubuntu the distribution's package, which any user may download
// and unpack without installing it. Debian's is 2.9.10; nothing here needs more.
import { execFile } from 'node:child_process';
import { accessSync, chmodSync, constants, copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { EngineError } from './engine.ts';
import type { Engine, EngineLog } from './engine.ts';
import { findOnPath, isAlive, preparing, startProcess, withParentDeathSignal } from './process.ts';

const startDeadlineMs = 20_000;
const stopDeadlineMs = 10_000;
const downloadDeadlineMs = 120_000;
const fileStoreBytesDefault = 16 * 1024 ** 3;
const memoryStoreBytes = 256 * 1024 ** 2;
const payloadBytesMax = 8 * 1024 ** 2;
const pendingBytesMax = 128 * 1024 ** 2;

export interface NatsOptions {
  /** Where JetStream keeps its streams; created when missing. */
  readonly dataDir: string;
  readonly port: number;
  /** Where a downloaded server is kept between starts. */
  readonly cacheDir: string;
  readonly log: EngineLog;
  /** The most bytes all streams together may reserve on disk. 16 GiB by default. */
  readonly fileStoreBytesMax?: number;
}

/** The configuration file of the server. Strings are written as JSON, which NATS's format accepts. */
export function natsConfig(o: {
  dataDir: string;
  port: number;
  pidFile: string;
  fileStoreBytesMax: number;
}): string {
  return `# Written anew at every start.
host: "127.0.0.1"
port: ${o.port}
server_name: "tallyline-local"
pid_file: ${JSON.stringify(o.pidFile)}
max_payload: ${payloadBytesMax}
max_pending: ${pendingBytesMax}
jetstream {
  store_dir: ${JSON.stringify(join(o.dataDir, 'store'))}
  max_memory_store: ${memoryStoreBytes}
  max_file_store: ${o.fileStoreBytesMax}
}
`;
}

function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
    execFile(command, args, { cwd, env, timeout: downloadDeadlineMs }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${command}: ${stderr.trim() || error.message}`, { cause: error }));
    });
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Options that make apt keep its lists and downloads in `folder`, so that no right of root is needed. */
function privateApt(folder: string): string[] {
  const lists = join(folder, 'lists', 'partial');
  const archives = join(folder, 'cache', 'archives', 'partial');
  mkdirSync(lists, { recursive: true });
  mkdirSync(archives, { recursive: true });
  return [
    ...['-o', `Dir::State::Lists=${join(folder, 'lists')}`],
    ...['-o', `Dir::Cache=${join(folder, 'cache')}`],
    ...['-o', 'APT::Sandbox::User=root'],
  ];
}

async function downloadPackage(folder: string): Promise<string> {
  const download = async (options: readonly string[]): Promise<string> => {
    await run('apt-get', [...options, '-qq', 'download', 'nats-server'], folder);
    const name = readdirSync(folder).find((file) => file.endsWith('.deb'));
    if (name === undefined) throw new Error('apt-get download left no package');
    return join(folder, name);
  };
  try {
    return await download(['-o', 'APT::Sandbox::User=root']);
  } catch {
    // No package lists on this machine, or outdated ones (fresh containers): fetch lists of our own.
    const options = privateApt(folder);
    await run('apt-get', [...options, '-qq', 'update'], folder);
    return await download(options);
  }
}

/**
 * Fetches the distribution's package and puts its server at `target`. Everything happens in a folder of its
 * own beside the target and ends in one rename, so that two processes doing this at once are both right.
 */
async function installFromApt(target: string, log: EngineLog): Promise<void> {
  mkdirSync(dirname(target), { recursive: true });
  const folder = mkdtempSync(join(dirname(target), 'nats-download-'));
  try {
    log('nats-server is not installed: fetching the Debian package into the cache folder (about 4 MB, once)');
    const unpacked = join(folder, 'unpacked');
    await run('dpkg', ['-x', await downloadPackage(folder), unpacked], folder);
    const binary = ['usr/sbin/nats-server', 'usr/bin/nats-server']
      .map((path) => join(unpacked, path))
      .find((path) => existsSync(path));
    if (binary === undefined) throw new Error('the nats-server package holds no nats-server');
    const staged = join(folder, 'nats-server');
    copyFileSync(binary, staged);
    chmodSync(staged, 0o755);
    renameSync(staged, target);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const hints = `Install it in one of these ways and start again:
  macOS    brew install nats-server
  Debian   sudo apt-get install nats-server
  Docker   docker run -p 4222:4222 nats:2 -js     and set NATS_URL=nats://127.0.0.1:4222
  Binary   https://github.com/nats-io/nats-server/releases, put nats-server on PATH`;

/**
 * The path of a NATS server, fetched first if need be.
 *
 * @throws EngineError with hints when there is none and none can be had.
 */
export async function findNatsServer(cacheDir: string, log: EngineLog): Promise<string> {
  const installed = findOnPath('nats-server');
  if (installed !== null) return installed;
  const cached = join(cacheDir, 'nats-server');
  if (isExecutable(cached)) return cached;
  if (findOnPath('apt-get') === null || findOnPath('dpkg') === null) {
    throw new EngineError(`NATS: there is no nats-server on PATH and no apt to fetch it with.\n${hints}`);
  }
  try {
    await installFromApt(cached, log);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new EngineError(`NATS: nats-server could not be fetched with apt (${why}).\n${hints}`, {
      cause: error,
    });
  }
  return cached;
}

/** JetStream does not lock its folder, and two servers on it destroy it: refuse while one still runs. */
function refuseSecondServer(pidFile: string, dataDir: string): void {
  if (!existsSync(pidFile)) return;
  const pid = Number(readFileSync(pidFile, 'utf8').trim());
  if (!Number.isSafeInteger(pid) || pid <= 0 || !isAlive(pid)) return;
  const commandFile = `/proc/${pid}/comm`;
  // Where there is no /proc a recycled pid cannot be told apart, and refusing is the safe answer.
  if (
    existsSync('/proc/self/comm') &&
    !(existsSync(commandFile) && /nats-server/.test(readFileSync(commandFile, 'utf8')))
  ) {
    return;
  }
  throw new EngineError(`NATS: a server (pid ${pid}) already uses ${dataDir}. Stop it first: kill ${pid}`);
}

/**
 * Starts NATS with JetStream on 127.0.0.1, file storage in `dataDir`.
 *
 * @throws EngineError when the server cannot be had or does not start.
 */
export async function startNats(options: NatsOptions): Promise<Engine> {
  const { dataDir, port, log } = options;
  const binary = await findNatsServer(options.cacheDir, log);
  const configFile = join(dataDir, 'nats.conf');
  await preparing('NATS', dataDir, () => {
    mkdirSync(dataDir, { recursive: true });
    const pidFile = join(dataDir, 'nats.pid');
    refuseSecondServer(pidFile, dataDir);
    const fileStoreBytesMax = options.fileStoreBytesMax ?? fileStoreBytesDefault;
    writeFileSync(configFile, natsConfig({ dataDir, port, pidFile, fileStoreBytesMax }));
  });

  let version = 'unknown';
  const [command, ...args] = [...withParentDeathSignal('TERM'), binary, '-c', configFile];
  const server = await startProcess({
    name: 'NATS',
    command,
    args,
    log: (line) => {
      version = /Version:\s+(\S+)/.exec(line)?.[1] ?? version;
      log(line);
    },
    port,
    dataDir,
    readyLine: (line) => line.includes('Server is ready'),
    readyDeadlineMs: startDeadlineMs,
    stopSignal: 'SIGTERM',
    stopDeadlineMs,
  });
  const { pid, exited, stop, kill } = server;
  return { name: 'nats', url: `nats://127.0.0.1:${port}`, pid, version, exited, stop, kill };
}
