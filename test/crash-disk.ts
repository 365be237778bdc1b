// A disk in memory that crashes where a test says, and then shows what a real one might hold.
//
// Every operation is counted. At the chosen one the "machine" stops: the operation is not done, done by half, done
// but not synced, or done without its caller hearing of it, and every later one fails. `afterKill()` is the disk as the next process
// finds it when only the process died: what was written is there. `afterPowerLoss()` keeps what was synced, and
// of the rest any part: sectors of a file each for itself, and names created or removed each for itself.
import type { JournalDisk, JournalFile } from '../ingest/journal/journal-disk.ts';

const SECTOR = 512;

interface Content {
  /** As the operating system holds it. */
  bytes: Buffer;
  /** As it is on the disk for certain. */
  synced: Buffer;
}

export class CrashError extends Error {
  override readonly name = 'CrashError';
}

export interface Crash {
  /** At which operation, from 1. */
  readonly at: number;
  readonly how: 'before' | 'half' | 'unsynced' | 'after';
}

export class CrashDisk implements JournalDisk {
  readonly #names: Map<string, Content>;
  #syncedNames: Map<string, Content>;
  readonly #crash: Crash | null;
  /** Operations that fail without a crash, by their number. */
  readonly failing = new Set<number>();
  operations = 0;
  crashed = false;
  /** Held back while set, so that a test sees what waits for it. */
  beforeAppend: () => Promise<void> = () => Promise.resolve();

  constructor(files: ReadonlyMap<string, Buffer> = new Map(), crash: Crash | null = null) {
    this.#names = new Map(
      [...files].map(([name, bytes]) => [name, { bytes: Buffer.from(bytes), synced: Buffer.from(bytes) }]),
    );
    this.#syncedNames = new Map(this.#names);
    this.#crash = crash;
  }

  files(): Map<string, Buffer> {
    return new Map([...this.#names].map(([name, { bytes }]) => [name, Buffer.from(bytes)]));
  }

  afterKill(): Map<string, Buffer> {
    return this.files();
  }

  afterPowerLoss(random: () => number): Map<string, Buffer> {
    const names = new Map<string, Content>();
    for (const name of new Set([...this.#names.keys(), ...this.#syncedNames.keys()])) {
      const [now, before] = [this.#names.get(name), this.#syncedNames.get(name)];
      const content = now === before || random() < 0.5 ? now : before;
      if (content !== undefined) names.set(name, content);
    }
    return new Map([...names].map(([name, content]) => [name, partOf(content, random)]));
  }

  lock(): Promise<() => Promise<void>> {
    return Promise.resolve(() => Promise.resolve());
  }

  list(): Promise<string[]> {
    return this.run(() => [...this.#names.keys()]);
  }

  read(name: string): Promise<Buffer> {
    return this.run(() => Buffer.from(this.content(name).bytes));
  }

  async create(name: string): Promise<JournalFile> {
    if (this.#names.has(name)) throw new Error(`${name} exists`);
    await this.run(() => {
      this.#names.set(name, { bytes: Buffer.alloc(0), synced: Buffer.alloc(0) });
    });
    return new CrashFile(this, this.content(name));
  }

  open(name: string): Promise<JournalFile> {
    return Promise.resolve(new CrashFile(this, this.content(name)));
  }

  rename(from: string, to: string): Promise<void> {
    return this.run(() => {
      const content = this.content(from);
      this.#names.delete(from);
      this.#names.set(to, content);
    });
  }

  remove(name: string): Promise<void> {
    return this.run(() => {
      this.content(name);
      this.#names.delete(name);
    });
  }

  sync(): Promise<void> {
    return this.run(() => {
      this.#syncedNames = new Map(this.#names);
    });
  }

  content(name: string): Content {
    const content = this.#names.get(name);
    if (content === undefined) throw new Error(`there is no ${name}`);
    return content;
  }

  /** Does it, or crashes. Without its parts an operation is whole or not at all. */
  async run<T>(whole: () => T, parts: { half?: () => void; unsynced?: () => void } = {}): Promise<T> {
    // A turn of the event loop passes, as with a real disk.
    await new Promise((resolve) => setImmediate(resolve));
    if (this.crashed) throw new CrashError('the machine has stopped');
    this.operations += 1;
    if (this.failing.has(this.operations)) throw new Error('EIO: told to fail');
    if (this.#crash?.at !== this.operations) return whole();
    this.crashed = true;
    if (this.#crash.how === 'half') parts.half?.();
    if (this.#crash.how === 'unsynced') parts.unsynced?.();
    if (this.#crash.how === 'after') whole();
    throw new CrashError(`crashed ${this.#crash.how} operation ${this.operations}`);
  }
}

class CrashFile implements JournalFile {
  readonly #disk: CrashDisk;
  readonly #content: Content;

  constructor(disk: CrashDisk, content: Content) {
    this.#disk = disk;
    this.#content = content;
  }

  async append(parts: readonly Uint8Array[], position: number): Promise<void> {
    await this.#disk.beforeAppend();
    const bytes = Buffer.concat(parts);
    const put = (part: Buffer): void => {
      const content = this.#content;
      const next = Buffer.alloc(Math.max(content.bytes.length, position + part.length));
      content.bytes.copy(next);
      part.copy(next, position);
      content.bytes = next;
    };
    await this.#disk.run(
      () => {
        put(bytes);
        this.#sync();
      },
      { half: () => put(bytes.subarray(0, Math.floor(bytes.length / 2))), unsynced: () => put(bytes) },
    );
  }

  read(position: number, length: number): Promise<Buffer> {
    return this.#disk.run(() => Buffer.from(this.#content.bytes.subarray(position, position + length)));
  }

  truncate(length: number): Promise<void> {
    const cut = (): void => {
      this.#content.bytes = Buffer.from(this.#content.bytes.subarray(0, length));
    };
    return this.#disk.run(
      () => {
        cut();
        this.#sync();
      },
      { unsynced: cut },
    );
  }

  #sync(): void {
    this.#content.synced = Buffer.from(this.#content.bytes);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** What was synced, and any of the sectors that were not; what is missing in between is zeros. */
function partOf({ bytes, synced }: Content, random: () => number): Buffer {
  const shorter = Math.min(bytes.length, synced.length);
  const longer = Math.max(bytes.length, synced.length);
  const length = longer === shorter ? shorter : shorter + Math.floor(random() * (longer - shorter + 1));
  const found = Buffer.alloc(length);
  synced.copy(found, 0, 0, Math.min(length, synced.length));
  for (let at = 0; at < length; at += SECTOR) {
    if (random() < 0.5) bytes.copy(found, at, at, Math.min(at + SECTOR, length));
  }
  return found;
}
