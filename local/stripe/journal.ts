// The durable memory: one JSON line an entry, appended and synced before the request that made it is answered.
//
//   1. `append` queues the line. Lines that queue up while a sync runs go out together in the next write.
//   2. write, fdatasync. Only then do the promises of the batch resolve, in order.
// A kill in the middle of 2 leaves a torn last line; opening cuts it off, since nobody was told about it. A broken
// line anywhere else means that the file was damaged, and the stand-in refuses to start on it.
// A failed write (a full disk) ends the journal: what is in memory can then no longer be trusted to survive.
import { mkdir, open, readFile, rename, truncate } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Entry } from './state.ts';

const fileName = 'journal.jsonl';
const newline = 10;

export interface Journal {
  /** Resolves once the entry is on disk. */
  append(entry: Entry): Promise<void>;
  /** Resolves once everything appended so far is on disk. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

export interface JournalOptions {
  folder: string;
  /** Called for every entry, oldest first, before `openJournal` resolves. */
  replay(entry: Entry): void;
  /** What to write instead when the file is larger than `compactAboveBytes`. */
  snapshot(): Iterable<Entry>;
  compactAboveBytes: number;
}

export async function openJournal(options: JournalOptions): Promise<Journal> {
  const { folder } = options;
  await mkdir(folder, { recursive: true });
  const path = join(folder, fileName);
  const size = await replayFile(path, options.replay);
  if (size > options.compactAboveBytes) await compact(folder, path, options.snapshot());
  const file = await open(path, 'a');
  await syncFolder(folder);
  return new FileJournal(file);
}

/** Replays the file, cuts a torn last line off, and returns the size that is left. */
async function replayFile(path: string, replay: (entry: Entry) => void): Promise<number> {
  let content: Buffer;
  try {
    content = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
  let start = 0;
  for (let line = 1; start < content.length; line += 1) {
    const end = content.indexOf(newline, start);
    if (end < 0) {
      await truncate(path, start);
      return start;
    }
    try {
      replay(JSON.parse(content.toString('utf8', start, end)) as Entry);
    } catch (cause) {
      throw new Error(`${path} is damaged at line ${line}; move the file away to start empty`, { cause });
    }
    start = end + 1;
  }
  return start;
}

/** Replaces the journal by the entries of a snapshot: written and synced beside it, then renamed over it. */
async function compact(folder: string, path: string, entries: Iterable<Entry>): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w');
  for (const entry of entries) await file.write(`${JSON.stringify(entry)}\n`);
  await file.sync();
  await file.close();
  await rename(temporary, path);
  await syncFolder(folder);
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync();
  await handle.close();
}

class FileJournal implements Journal {
  private readonly file: FileHandle;
  private queued: string[] = [];
  /** The batch that takes new lines: it has not been written yet. */
  private next: Promise<void> | undefined;
  /** The batch that is being written, or was last. */
  private current: Promise<void> = Promise.resolve();

  constructor(file: FileHandle) {
    this.file = file;
  }

  append(entry: Entry): Promise<void> {
    this.queued.push(`${JSON.stringify(entry)}\n`);
    if (this.next === undefined) {
      const before = this.current;
      const batch = before.then(() => this.write());
      this.next = batch;
      this.current = batch;
      // Whoever appended hears of a failure; this only keeps it from being reported a second time.
      batch.catch(() => undefined);
    }
    return this.next;
  }

  settled(): Promise<void> {
    return this.current;
  }

  async close(): Promise<void> {
    await this.current.catch(() => undefined);
    await this.file.close();
  }

  private async write(): Promise<void> {
    const lines = this.queued.join('');
    this.queued = [];
    this.next = undefined;
    await this.file.appendFile(lines);
    await this.file.datasync();
  }
}
