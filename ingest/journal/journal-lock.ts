/**
 * One process a folder.
 *
 * A lock is a Unix socket in the folder on which its owner listens. The kernel stops the listening with the
 * process, however it ends, so a lock that nobody answers on is stale. A file with a process number cannot tell
 * that: after a reboot the number belongs to somebody else, and in two containers that share the folder both
 * are number 1.
 *
 *   1. Put up a lock of our own, under a name that nobody else ever uses: `lock.<chance>`. It is moved there when
 *      it is listened on, so that what can be seen answers as long as its owner lives.
 *   2. Look for others. One that answers: the folder is taken, and ours is taken down. One that does not is
 *      stale for ever, and is removed.
 *   3. Nobody answers: the folder is ours.
 *
 * Of two that begin at the same time at least one sees the other, because each puts up its own before it looks.
 * Perhaps both do, and neither has it; they may begin again.
 */
import { randomBytes } from 'node:crypto';
import { readdir, rename, unlink } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join, relative } from 'node:path';

/** What the kernels at hand take for a socket's path (Linux 108, macOS 104, with its end). */
const PATH_BYTES_MAX = 100;
const PREFIX = 'lock.';
/** Nobody listens; it is gone; it is no socket. */
const NOBODY = new Set<string | undefined>(['ECONNREFUSED', 'ENOENT', 'ENOTSOCK']);

export class FolderLockedError extends Error {
  override readonly name = 'FolderLockedError';
}

/** Resolves with what gives it back. @throws FolderLockedError when another process has the folder. */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const id = randomBytes(6).toString('hex');
  const [hidden, ours] = [socketPath(folder, `new.${id}`), socketPath(folder, `${PREFIX}${id}`)];
  const server = await listen(hidden);
  await rename(hidden, ours);
  const unlock = async (): Promise<void> => {
    await unlink(ours).catch(() => undefined);
    await close(server);
  };
  try {
    for (const name of await readdir(folder)) {
      if (!name.startsWith(PREFIX) || name === `${PREFIX}${id}`) continue;
      const other = socketPath(folder, name);
      if (await answers(other)) {
        throw new FolderLockedError(
          `${folder} is in use by another process: every edge needs a journal folder of its own`,
        );
      }
      await unlink(other).catch(() => undefined);
    }
  } catch (error) {
    await unlock();
    throw error;
  }
  return unlock;
}

/** As it is or as seen from here, whichever is shorter. */
function socketPath(folder: string, name: string): string {
  const whole = join(folder, name);
  const fromHere = relative(process.cwd(), whole);
  const path = fromHere.length < whole.length ? fromHere : whole;
  if (Buffer.byteLength(path) <= PATH_BYTES_MAX) return path;
  throw new Error(`the path of ${folder} is too long for the socket that locks it: choose a shorter one`);
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.unref();
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (NOBODY.has(error.code)) resolve(false);
      else reject(error);
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
