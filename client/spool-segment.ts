/**
 * One file of a spool: events in the order of `record`, and beside it a file of those that the edge has answered for.
 *
 *   00000012.events    a line an event; appended, never changed
 *   00000012.settled   a line a run of events, "from to", counted from 0
 *   00000012.damaged   the first one again, when it had damaged lines and all others are settled: for a person
 *
 * When all is settled both files go. A crash between any two of these steps leaves events that are sent again, which
 * their ids make harmless, and never one that is forgotten.
 */
import { appendFile, open, readFile, rename, rm, truncate, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeLine, LINE_OVERHEAD, linesOf, runsOf } from './spool-lines.ts';

const NAME = /^(\d{8,15})\.(events|settled|damaged)$/;
const RUN = /^(\d{1,15}) (\d{1,15})$/;

export interface Folder {
  /** In order. `hasEvents`: false for marks of nothing. */
  readonly segments: readonly { readonly index: number; readonly hasEvents: boolean }[];
  /** No file has this number or one above it. */
  readonly nextIndex: number;
}

export function folderOf(names: readonly string[]): Folder {
  const found = new Map<number, boolean>();
  let nextIndex = 1;
  for (const name of names) {
    const [, digits, kind] = NAME.exec(name) ?? [];
    if (digits === undefined) continue;
    const index = Number(digits);
    nextIndex = Math.max(nextIndex, index + 1);
    if (kind !== 'damaged') found.set(index, kind === 'events' || found.get(index) === true);
  }
  const segments = [...found].map(([index, hasEvents]) => ({ index, hasEvents }));
  return { segments: segments.sort((a, b) => a.index - b.index), nextIndex };
}

export class Segment {
  readonly index: number;
  /** The number of its first event. */
  readonly first: number;
  readonly path: string;
  readonly #settledPath: string;
  readonly #damagedPath: string;
  /** Lines, damaged ones included. */
  count = 0;
  bytes = 0;
  /** Events that nobody has answered for. */
  left = 0;
  damaged = 0;
  /** 1 for the lines that were settled before this process; they are not read again. */
  #settledBefore = new Uint8Array(0);

  constructor(directory: string, index: number, first: number) {
    const name = join(directory, String(index).padStart(8, '0'));
    this.index = index;
    this.first = first;
    this.path = `${name}.events`;
    this.#settledPath = `${name}.settled`;
    this.#damagedPath = `${name}.damaged`;
  }

  /** The number behind its last event. */
  get end(): number {
    return this.first + this.count;
  }

  /** Makes the file. */
  create(): Promise<FileHandle> {
    return open(this.path, 'wx', 0o600);
  }

  /**
   * Reads what an earlier process left. `isLast`: that process may have died while it wrote, so that damage at the end
   * is an event whose `record` never resolved, and is cut.
   */
  async recover(isLast: boolean): Promise<void> {
    const content = await readFile(this.path);
    this.#settledBefore = new Uint8Array(Math.ceil(content.length / LINE_OVERHEAD));
    for (const { from, to } of await this.#readSettled()) this.#settledBefore.fill(1, from, to + 1);
    let count = 0;
    let damagedAtEnd = 0;
    for (const { payload, end } of linesOf(content)) {
      count += 1;
      if (payload === null) {
        damagedAtEnd += 1;
        continue;
      }
      if (this.#settledBefore[count - 1] !== 1) this.left += 1;
      this.damaged += damagedAtEnd;
      damagedAtEnd = 0;
      this.count = count;
      this.bytes = end;
    }
    if (isLast && this.bytes < content.length) await truncate(this.path, this.bytes);
    else if (this.bytes < content.length) {
      this.damaged += Math.max(1, damagedAtEnd);
      this.count = count;
      this.bytes = content.length;
    }
  }

  /**
   * Reads some lines from `offset` on, about `bytesMax` bytes, and says where it stopped. `at` counts the lines from 0.
   */
  async read(
    offset: number,
    at: number,
    bytesMax: number,
    take: (json: string, bytes: number, at: number) => void,
  ): Promise<{ readonly offset: number; readonly at: number }> {
    const file = await open(this.path, 'r');
    try {
      for (let size = bytesMax; ; size *= 2) {
        const length = Math.min(size, this.bytes - offset);
        const chunk = Buffer.allocUnsafe(length);
        await readFully(file, chunk, offset);
        let next = at;
        let end = 0;
        for (const line of linesOf(chunk)) {
          if (line.payload !== null && this.#settledBefore[next] !== 1) {
            take(line.payload.toString(), line.payload.length, next);
          }
          next += 1;
          end = line.end;
        }
        if (end > 0 || offset + length >= this.bytes) {
          return end > 0 ? { offset: offset + end, at: next } : { offset: this.bytes, at: this.count };
        }
      }
    } finally {
      await file.close();
    }
  }

  /** Writes down that the edge has answered for these lines, counted from 0. */
  async mark(lines: readonly number[]): Promise<void> {
    const text = runsOf(lines).map(({ from, to }) => encodeLine(`${from} ${to}`));
    await appendFile(this.#settledPath, text.join(''), { mode: 0o600 });
  }

  async remove(): Promise<void> {
    // 1. The events. A crash after this leaves marks of nothing, which the next process removes.
    if (this.damaged > 0) await rename(this.path, this.#damagedPath);
    else await rm(this.path, { force: true });
    // 2. The marks.
    await rm(this.#settledPath, { force: true });
  }

  async #readSettled(): Promise<{ from: number; to: number }[]> {
    let content: Buffer;
    try {
      content = await readFile(this.#settledPath);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    const runs: { from: number; to: number }[] = [];
    for (const { payload } of linesOf(content)) {
      const [, from, to] = RUN.exec(payload?.toString() ?? '') ?? [];
      if (from !== undefined && to !== undefined) runs.push({ from: Number(from), to: Number(to) });
    }
    return runs;
  }
}

async function readFully(file: FileHandle, into: Buffer, position: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw new Error('the file is shorter than it was');
    done += bytesRead;
  }
}

/** All of it, or an error. */
export async function writeFully(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
