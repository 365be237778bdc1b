// Where the data of an INSERT lies until its last byte has arrived, and until the engine has read it: in a file, which
// is how the engine takes binary data. A client that goes away half way so inserts nothing.
//
// Bytes go to the file in groups of a mebibyte, on another thread: every write of its own wakes a thread and then this
// one, which for pieces of 64 KiB cost as much as all the copying. What is small enough to be all here when its last
// byte arrives is written at once, on this thread, which takes some microseconds. Its file is emptied and used again:
// to make and remove a file costs more, and a file system that is busy with others' makes it wait.
//
// The file is on the disk and not in a file system of memory (/dev/shm), where the same bytes cost a third more, as
// there its memory is got in single pages; and it seldom lives long enough to be written to the disk.
import { closeSync, ftruncateSync, openSync, writev, writevSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Body } from './body.ts';

/** Written at once, and its file used again. */
const smallBytesMax = 256 * 1024;
const groupBytes = 1024 * 1024;

const writeVector = promisify(writev);

function bytesOf(group: readonly Buffer[]): number {
  return group.reduce((sum, piece) => sum + piece.length, 0);
}

/** What is left of a group of which so many bytes were written. */
function rest(group: readonly Buffer[], written: number): readonly Buffer[] {
  let first = 0;
  let behind = written;
  while (first < group.length && behind >= group[first]!.length) {
    behind -= group[first]!.length;
    first += 1;
  }
  const left = group.slice(first);
  if (behind > 0) left[0] = left[0]!.subarray(behind);
  return left;
}

export class SpoolFile {
  readonly path: string;
  readonly #fd: number;
  #isSmall = false;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, 'w', 0o600);
  }

  /** Takes the data, whole. Once after each `empty`. */
  async fill(body: Body): Promise<void> {
    let group = await body.take(smallBytesMax);
    let at = 0;
    if (body.atEnd && bytesOf(group) <= smallBytesMax) {
      this.#isSmall = true;
      while (group.length > 0) {
        const written = writevSync(this.#fd, group as Buffer[], at);
        at += written;
        group = rest(group, written);
      }
      return;
    }
    while (group.length > 0) {
      for (let left = group; left.length > 0;) {
        const { bytesWritten } = await writeVector(this.#fd, left as Buffer[], at);
        at += bytesWritten;
        left = rest(left, bytesWritten);
      }
      group = await body.take(groupBytes);
    }
  }

  /** Empties the file. False when it was large, or what became of it is not known: then it is to be removed. */
  empty(): boolean {
    if (!this.#isSmall) return false;
    ftruncateSync(this.#fd, 0);
    // ext4 takes a file that was cut to nothing and is then closed with data for one that is being replaced, and
    // writes the data to the disk (0.4 ms). Closed while it is empty it is like a new one.
    closeSync(openSync(this.path, 'r'));
    this.#isSmall = false;
    return true;
  }

  async remove(): Promise<void> {
    closeSync(this.#fd);
    await rm(this.path, { force: true });
  }
}

export class Spool {
  readonly #folder: string;
  readonly #keptMax: number;
  readonly #kept: SpoolFile[] = [];
  #serial = 0;

  /** @param keptMax empty files that are kept */
  constructor(folder: string, keptMax: number) {
    this.#folder = folder;
    this.#keptMax = keptMax;
  }

  /** An empty file. */
  take(): SpoolFile {
    const kept = this.#kept.pop();
    if (kept !== undefined) return kept;
    this.#serial += 1;
    return new SpoolFile(join(this.#folder, `insert-${this.#serial}`));
  }

  /** Leaves nothing of the data. */
  async giveBack(file: SpoolFile): Promise<void> {
    if (this.#kept.length < this.#keptMax && file.empty()) this.#kept.push(file);
    else await file.remove();
  }
}
