// A disk that can be full: a file system in memory of a few megabytes, mounted on a folder of a world. It takes the
// right to mount, which a person who runs the tests may not have: then there is none, and the row that needs it is
// skipped with the reason.
import { execFile, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const BALLAST = 'ballast';
const PIECE_BYTES = 65_536;

export class SmallDiskUnavailable extends Error {
  override readonly name = 'SmallDiskUnavailable';
}

export class SmallDisk {
  readonly path: string;

  /** A process that ends too early must not leave a mount behind. */
  readonly #onExit = (): void => void spawnSync('umount', ['-l', this.path]);

  private constructor(path: string) {
    this.path = path;
    process.once('exit', this.#onExit);
  }

  /** @throws SmallDiskUnavailable */
  static async mount(path: string, bytes: number): Promise<SmallDisk> {
    mkdirSync(path, { recursive: true });
    try {
      await run('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=0700`, 'tallyline-faults', path]);
    } catch (error) {
      const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
      throw new SmallDiskUnavailable(
        `a small disk cannot be mounted here (${reason}): run as root on Linux to have this row`,
        { cause: error },
      );
    }
    return new SmallDisk(path);
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Takes all the room that is left, to the byte that the file system gives. */
  fill(): void {
    const file = openSync(join(this.path, BALLAST), 'a');
    try {
      for (let bytes = PIECE_BYTES; bytes >= 1;) {
        try {
          writeSync(file, Buffer.alloc(bytes, 1));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
          bytes = Math.floor(bytes / 2);
        }
      }
    } finally {
      closeSync(file);
    }
  }

  makeRoom(): void {
    rmSync(join(this.path, BALLAST), { force: true });
  }

  /** Gone from the tree at once, and freed when the last process has let go of it. */
  async unmount(): Promise<void> {
    process.off('exit', this.#onExit);
    await run('umount', ['-l', this.path]).catch(() => {});
  }
}
