/** The folder of the edge journal, as the operating system gives it. */
import { constants } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { lockFolder } from './journal-lock.ts';

/** What the journal asks of a disk. */
export interface JournalDisk {
  /** Makes the folder if need be, and the right to it ours alone. The result gives it back. */
  lock(): Promise<() => Promise<void>>;
  list(): Promise<string[]>;
  read(name: string): Promise<Buffer>;
  /** Throws when the file exists. */
  create(name: string): Promise<JournalFile>;
  open(name: string): Promise<JournalFile>;
  rename(from: string, to: string): Promise<void>;
  remove(name: string): Promise<void>;
  /** Makes creating, renaming and removing durable. */
  sync(): Promise<void>;
}

export interface JournalFile {
  /** Writes all of it, one part behind the other. When it resolves, and not before, all of it is durable. */
  append(parts: readonly Uint8Array[], position: number): Promise<void>;
  /** Up to the length; fewer bytes at the end of the file. */
  read(position: number, length: number): Promise<Buffer>;
  /** Durable when it resolves. */
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

const { O_CREAT, O_EXCL, O_RDWR, O_DSYNC } = constants;
/**
 * On Linux a write is synced by itself: one trip to the thread pool instead of two, which on a busy event loop is
 * one turn less until a request has its answer (and about 80 µs of CPU a commit of 1 KB instead of 110). Elsewhere the flag
 * may not reach through the drive's cache, but Node's datasync does.
 */
const WRITE_SYNCS = process.platform === 'linux';

export class JournalFolder implements JournalDisk {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async lock(): Promise<() => Promise<void>> {
    await mkdir(this.#path, { recursive: true });
    return lockFolder(this.#path);
  }

  list(): Promise<string[]> {
    return readdir(this.#path);
  }

  read(name: string): Promise<Buffer> {
    return readFile(join(this.#path, name));
  }

  async create(name: string): Promise<JournalFile> {
    const flags = O_RDWR | O_CREAT | O_EXCL | (WRITE_SYNCS ? O_DSYNC : 0);
    return new File(await open(join(this.#path, name), flags));
  }

  async open(name: string): Promise<JournalFile> {
    return new File(await open(join(this.#path, name), O_RDWR | (WRITE_SYNCS ? O_DSYNC : 0)));
  }

  rename(from: string, to: string): Promise<void> {
    return rename(join(this.#path, from), join(this.#path, to));
  }

  remove(name: string): Promise<void> {
    return unlink(join(this.#path, name));
  }

  async sync(): Promise<void> {
    const folder = await open(this.#path, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

class File implements JournalFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async append(parts: readonly Uint8Array[], position: number): Promise<void> {
    const { bytesWritten } = await this.#handle.writev(parts, position);
    let length = 0;
    for (const part of parts) length += part.length;
    if (bytesWritten < length) await this.#writeRest(Buffer.concat(parts), bytesWritten, position);
    if (!WRITE_SYNCS) await this.#handle.datasync();
  }

  /** A disk that fills takes a part, and says why only at the next try. */
  async #writeRest(whole: Buffer, written: number, position: number): Promise<void> {
    for (let done = written; done < whole.length;) {
      const { bytesWritten } = await this.#handle.write(whole, done, whole.length - done, position + done);
      if (bytesWritten === 0) throw new Error('the disk takes no more');
      done += bytesWritten;
    }
  }

  async read(position: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(bytes, done, length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return bytes.subarray(0, done);
  }

  async truncate(length: number): Promise<void> {
    await this.#handle.truncate(length);
    await this.#handle.sync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
