/**
 * The on-disk buffer: every event is written before `record` resolves, and stays until the edge has answered for it.
 *
 *   record ──▶ line in the last segment ──▶ memory, when it has room and nothing older waits on disk
 *                        └──▶ on disk only, and read when memory has room again
 *
 * The order is kept, memory stays bounded, and an outage fills the disk up to `bytesMax` and not the heap. Events that
 * come at the same time share one write (and, with sync 'each', one fsync).
 *
 *   1. The event has its id.      A crash here: `record` has not resolved, and the event was not taken.
 *   2. Its line is written.       A crash from here on: the next client of this folder sends it.
 *   3. It is sent and answered.   A crash here: it is sent again, under the same id, and counts once.
 *   4. It is marked as settled; when all of a segment is, its files are removed.
 */
import { mkdir, open, readdir, type FileHandle } from 'node:fs/promises';
import { resolve as absolute } from 'node:path';
import type { UsageEvent } from '../contract/event.ts';
import type { ClientClock } from './clock.ts';
import type { Backlog } from './delivery.ts';
import type { EncodedEvent } from './encode.ts';
import { SpoolError } from './errors.ts';
import type { SpoolOptions } from './options.ts';
import type { Entry } from './queue.ts';
import { encodeLine, LINE_OVERHEAD } from './spool-lines.ts';
import { lockDirectory } from './spool-lock.ts';
import { folderOf, Segment, writeFully } from './spool-segment.ts';

export interface SpoolContext extends Required<SpoolOptions> {
  readonly clock: ClientClock;
  /** Memory takes another event. */
  hasRoom(): boolean;
  /** The next event in order, for memory. */
  add(entry: Entry): void;
  /** There may be room on disk again. */
  changed(): void;
  /** Something failed that loses no event now. */
  onTrouble(error: SpoolError): void;
}

interface Pending {
  readonly event: EncodedEvent;
  readonly line: string;
  readonly resolve: () => void;
  readonly reject: (error: SpoolError) => void;
}

interface Active {
  readonly segment: Segment;
  readonly file: FileHandle;
}

const SEGMENT_BYTES_MAX = 4_194_304;
const SEGMENTS_LEAST = 8;
const WRITE_BYTES_MAX = 1_048_576;
const READ_BYTES = 1_048_576;
const SYNC_INTERVAL_MS = 1_000;

export class Spool implements Backlog {
  readonly #context: SpoolContext;
  readonly #directory: string;
  readonly #segmentBytes: number;
  #unlock: () => Promise<void> = () => Promise.resolve();
  #segments: Segment[] = [];
  /** The one that is written to; always the last of `#segments`. */
  #active: Active | null = null;
  #nextIndex = 1;
  #nextNumber = 1;
  /** On disk and promised to it. */
  #bytes = 0;
  #unread = 0;
  /** Everything before it is in memory or settled. */
  #cursor = { index: 0, offset: 0, at: 0 };
  #pending: Pending[] = [];
  #writing: Promise<void> | null = null;
  #stopSyncTimer: (() => void) | null = null;
  /** Marks, syncs and removals, one after the other. */
  #background: Promise<void> = Promise.resolve();
  #troubled = false;

  private constructor(context: SpoolContext) {
    this.#context = context;
    this.#directory = absolute(context.directory);
    this.#segmentBytes = Math.min(SEGMENT_BYTES_MAX, Math.floor(context.bytesMax / SEGMENTS_LEAST));
  }

  /** Rejects with a SpoolError when the folder cannot be used. */
  static async open(context: SpoolContext): Promise<Spool> {
    const spool = new Spool(context);
    try {
      await mkdir(spool.#directory, { recursive: true, mode: 0o700 });
      spool.#unlock = await lockDirectory(spool.#directory);
      await spool.#recover();
      return spool;
    } catch (error) {
      await spool.#unlock();
      if (error instanceof SpoolError) throw error;
      throw new SpoolError(`spool.directory ${spool.#directory} cannot be used`, error);
    }
  }

  get unread(): number {
    return this.#unread;
  }

  get last(): number {
    return this.#nextNumber - 1;
  }

  /** Whether the event is too much now. One that is larger than the disk may hold goes in alone. */
  isFull(event: EncodedEvent): boolean {
    const isTooMuch = (): boolean =>
      this.#bytes > 0 && this.#bytes + event.bytes + LINE_OVERHEAD > this.#context.bytesMax;
    if (isTooMuch()) this.#retireActive(0);
    return isTooMuch();
  }

  /** Resolves when the event is on disk. Rejects with a SpoolError when it is not. */
  append(event: EncodedEvent): Promise<void> {
    this.#bytes += event.bytes + LINE_OVERHEAD;
    return new Promise((resolve, reject) => {
      this.#pending.push({ event, line: encodeLine(event.json), resolve, reject });
      this.#writing ??= this.#write();
    });
  }

  async read(take: (entry: Entry) => void): Promise<void> {
    while (this.#unread > 0) {
      const { index, offset, at } = this.#cursor;
      const segment = this.#segments.find(
        (one) => one.index > index || (one.index === index && offset < one.bytes),
      );
      if (segment === undefined) throw new Error(`${this.#unread} events of the spool are nowhere`);
      const isNext = segment.index > index;
      const found: Entry[] = [];
      const from = isNext ? { offset: 0, at: 0 } : { offset, at };
      let stop: typeof from;
      try {
        stop = await segment.read(from.offset, from.at, READ_BYTES, (json, bytes, line) =>
          found.push({ json, bytes, number: segment.first + line }),
        );
      } catch (error) {
        // What was left of it has been settled meanwhile, and it is gone.
        if (!this.#segments.includes(segment)) continue;
        throw error;
      }
      // From here on nothing waits: what is handed over and where we stand change together.
      this.#cursor = { index: segment.index, ...stop };
      this.#unread -= found.length;
      for (const entry of found) take(entry);
      if (found.length > 0) return;
    }
  }

  settled(entries: readonly Entry[]): void {
    const bySegment = new Map<Segment, number[]>();
    let segment: Segment | undefined;
    for (const { number } of entries) {
      if (segment === undefined || number < segment.first || number >= segment.end) {
        segment = this.#segments.find((one) => number >= one.first && number < one.end)!;
      }
      const lines = bySegment.get(segment);
      if (lines === undefined) bySegment.set(segment, [number - segment.first]);
      else lines.push(number - segment.first);
    }
    for (const [one, lines] of bySegment) {
      one.left -= lines.length;
      if (one.left === 0 && one !== this.#active?.segment) this.#retire(one, null);
      else this.#later(() => one.mark(lines));
    }
    this.#retireActive(this.#segmentBytes / 4);
  }

  /** Resolves when nothing is being written. */
  async written(): Promise<void> {
    while (this.#writing !== null) await this.#writing;
  }

  async close(): Promise<void> {
    await this.written();
    this.#stopSyncTimer?.();
    this.#retireActive(0);
    this.#seal();
    await this.#background;
    await this.#unlock();
  }

  async #recover(): Promise<void> {
    const { segments, nextIndex } = folderOf(await readdir(this.#directory));
    const last = segments.findLast(({ hasEvents }) => hasEvents)?.index;
    for (const { index, hasEvents } of segments) {
      const segment = new Segment(this.#directory, index, this.#nextNumber);
      if (hasEvents) await segment.recover(index === last);
      if (segment.damaged > 0) {
        const what = `${segment.path} has ${segment.damaged} damaged lines; it will be kept as .damaged`;
        this.#context.onTrouble(new SpoolError(what));
      }
      if (segment.left === 0) {
        await segment.remove();
        continue;
      }
      this.#segments.push(segment);
      this.#nextNumber = segment.end;
      this.#bytes += segment.bytes;
      this.#unread += segment.left;
    }
    this.#nextIndex = nextIndex;
  }

  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      const group = this.#takeGroup();
      try {
        const { segment, file } = await this.#writable();
        const bytes = Buffer.from(group.map(({ line }) => line).join(''));
        try {
          await writeFully(file, bytes, segment.bytes);
          if (this.#context.sync === 'each') await file.datasync();
        } catch (error) {
          await this.#cut(segment, file);
          throw error;
        }
        this.#taken(segment, group);
      } catch (error) {
        for (const { event, reject } of group) {
          this.#bytes -= event.bytes + LINE_OVERHEAD;
          const usage = JSON.parse(event.json) as UsageEvent;
          reject(new SpoolError('the event could not be written to the spool', error, usage));
        }
        this.#context.changed();
      }
    }
    this.#writing = null;
  }

  #takeGroup(): Pending[] {
    let count = 0;
    for (let bytes = 0; count < this.#pending.length && bytes < WRITE_BYTES_MAX; count++) {
      bytes += this.#pending[count]!.event.bytes;
    }
    return this.#pending.splice(0, count);
  }

  async #writable(): Promise<Active> {
    if (this.#active !== null && this.#active.segment.bytes >= this.#segmentBytes) this.#seal();
    if (this.#active !== null) return this.#active;
    const segment = new Segment(this.#directory, this.#nextIndex, this.#nextNumber);
    this.#nextIndex += 1;
    const file = await segment.create();
    await syncDirectory(this.#directory);
    this.#active = { segment, file };
    this.#segments.push(segment);
    return this.#active;
  }

  /** Takes back what was written in part. Where not even that works, nothing more is written to the file. */
  async #cut(segment: Segment, file: FileHandle): Promise<void> {
    try {
      await file.truncate(segment.bytes);
    } catch {
      this.#seal();
    }
  }

  #taken(segment: Segment, group: readonly Pending[]): void {
    for (const { event, resolve } of group) {
      const number = this.#nextNumber++;
      segment.count += 1;
      segment.left += 1;
      segment.bytes += event.bytes + LINE_OVERHEAD;
      if (this.#unread === 0 && this.#context.hasRoom()) {
        this.#cursor = { index: segment.index, offset: segment.bytes, at: segment.count };
        this.#context.add({ ...event, number });
      } else this.#unread += 1;
      resolve();
    }
    if (this.#context.sync === 'interval') {
      this.#stopSyncTimer ??= this.#context.clock.after(SYNC_INTERVAL_MS, () => {
        this.#stopSyncTimer = null;
        const file = this.#active?.file;
        if (file !== undefined) this.#later(() => file.datasync());
      });
    }
  }

  /** Writes no more to the active segment. */
  #seal(): void {
    if (this.#active === null) return;
    const { segment, file } = this.#active;
    this.#active = null;
    if (segment.left === 0) this.#retire(segment, file);
    else this.#later(() => synced(file));
  }

  /** Makes room, when all of the active segment is settled and it has these bytes or more. */
  #retireActive(bytesLeast: number): void {
    if (this.#active === null || this.#writing !== null) return;
    const { segment } = this.#active;
    if (segment.left === 0 && segment.count > 0 && segment.bytes >= bytesLeast) this.#seal();
  }

  #retire(segment: Segment, file: FileHandle | null): void {
    this.#segments = this.#segments.filter((one) => one !== segment);
    this.#bytes -= segment.bytes;
    this.#later(async () => {
      await file?.close();
      await segment.remove();
    });
  }

  #later(work: () => Promise<void>): void {
    this.#background = this.#background.then(work).then(
      () => {
        this.#troubled = false;
      },
      (error: unknown) => {
        // Said once, until something works again. What is not marked or removed is sent again and counts once.
        const isNew = !this.#troubled;
        this.#troubled = true;
        if (isNew) this.#context.onTrouble(new SpoolError('the spool could not be tidied', error));
      },
    );
  }
}

async function synced(file: FileHandle): Promise<void> {
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Makes the name of a new file survive a loss of power. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
