/**
 * One process a folder, and no lock that survives its holder. A file with a process id does: after kill -9 it names a
 * process that is gone, or, in a container, one of the same id that is somebody else. So the lock is a Unix socket
 * that its holder listens on; whether anybody does, the kernel knows.
 *
 * Sockets are numbered, and the highest number counts. A folder is taken by making the next number, which can be made
 * once: two that find the same holder gone cannot both take its place. The socket gets its number by a link when it
 * already listens, and the file stays when its holder has gone, so that the next one counts on from there.
 */
import { randomUUID } from 'node:crypto';
import { link, open, readdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { SpoolError } from './errors.ts';

const NUMBERED = /^lock-(\d{1,15})$/;
/** The path of a Unix socket takes 104 bytes on macOS and 108 on Linux, of which the name needs some 45. */
const DIRECTORY_BYTES_MAX = 60;

/** Resolves with what gives the folder free again. Rejects with a SpoolError when somebody has it. */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const { path, release } = await shortPath(directory);
  try {
    const own = `lock-${randomUUID()}`;
    const server = await listen(join(path, own));
    try {
      await takeNext(directory, path, own);
    } catch (error) {
      await closed(server);
      throw error;
    }
    return async () => {
      await closed(server);
      await release();
    };
  } catch (error) {
    await release();
    if (error instanceof SpoolError) throw error;
    throw new SpoolError(`spool.directory ${directory} cannot be locked, which needs a local disk`, error);
  }
}

async function takeNext(directory: string, path: string, own: string): Promise<void> {
  for (;;) {
    const highest = highestOf(await readdir(directory));
    if (highest > 0 && (await isHeld(join(path, `lock-${highest}`)))) {
      throw new SpoolError(`spool.directory ${directory} is used by a client that runs: give each its own`);
    }
    const taken = join(directory, `lock-${highest + 1}`);
    try {
      await link(join(directory, own), taken);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
      throw error;
    }
    const names = await readdir(directory);
    // Whoever slept between his look and his link may have made a number that was made and removed meanwhile.
    if (highestOf(names) > highest + 1) {
      await rm(taken, { force: true });
      continue;
    }
    const old = names.filter((name) => name === own || numberOf(name) <= highest);
    await Promise.all(old.map((name) => rm(join(directory, name), { force: true })));
    return;
  }
}

function highestOf(names: readonly string[]): number {
  return Math.max(0, ...names.map(numberOf).filter(Number.isFinite));
}

/** Infinity for another name. */
function numberOf(name: string): number {
  return Number(NUMBERED.exec(name)?.[1] ?? Infinity);
}

/** True when somebody listens on the socket. */
function isHeld(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      // ENOENT: a newer holder has removed it just now, and the next look finds that one.
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false);
      else if (error.code === 'EAGAIN') resolve(true);
      else reject(error);
    });
  });
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', reject);
    server.listen(path, () => {
      server.unref();
      resolve(server);
    });
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

/** Linux knows a folder that is open by a short path as well. */
async function shortPath(directory: string): Promise<{ path: string; release: () => Promise<void> }> {
  if (Buffer.byteLength(directory) <= DIRECTORY_BYTES_MAX) {
    return { path: directory, release: () => Promise.resolve() };
  }
  if (process.platform !== 'linux') {
    throw new SpoolError(`spool.directory ${directory} is longer than ${DIRECTORY_BYTES_MAX} bytes`);
  }
  const handle = await open(directory);
  return { path: `/proc/self/fd/${handle.fd}`, release: () => handle.close() };
}
