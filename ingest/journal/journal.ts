/**
 * The edge journal: blocks on this machine's own disk, durable before they are promised.
 *
 * Appending. Blocks wait in a queue. One commit at a time takes what has come together (all blocks of one turn
 * of the event loop, and all that came while the last commit ran) and writes it behind the last segment in one
 * synced write. Only then their owners are told, in order.
 *
 *   1. write and sync   A crash before its end leaves a torn tail that nobody was promised.
 *   2. index, and tell  A crash here sends again what was never promised. Harmless.
 *
 * Segments. One is appended to. It is sealed when it is full, or when it has been open for ten seconds and is
 * being emptied, so that a restart does not send hours of a quiet edge again. A new one is made, its header
 * synced, then the folder synced, all before its first record: a file without a sound header holds no promise.
 * A segment whose blocks are all released is removed. A process never appends to what an earlier one has
 * written; what it makes of that stands in journal-recovery.ts.
 *
 * When the disk fails. After a failed sync nobody knows what is on the disk, and a second sync that succeeds does
 * not mean that it is. So everything queued is refused, the segment is cut back to what was synced before and
 * never written again, and a new one is tried until it can be made. Until then nothing is taken.
 */
import { randomBytes } from 'node:crypto';
import { backoffMs } from '../../runtime/backoff.ts';
import { ConfigError } from '../../runtime/config.ts';
import type { JournalFile } from './journal-disk.ts';
import { JournalIndex, JournalSegment, type Place } from './journal-index.ts';
import {
  encodeRecordHeader,
  encodeSegmentHeader,
  readBlock,
  RECORD_HEADER_BYTES,
  recordBytes,
  SEGMENT_HEADER_BYTES,
  segmentName,
  TAG_BYTES,
} from './journal-record.ts';
import { DAMAGED, recoverJournal, type RecoveryOptions } from './journal-recovery.ts';

export interface JournalOptions extends RecoveryOptions {
  /** For messages. */
  readonly folder: string;
  /** Of all segments together. */
  readonly bytesMax: number;
  /** At which a segment is sealed. */
  readonly segmentBytesMax: number;
  /** [0, 1). */
  random(): number;
  /** Runs it after the time; the result calls it off. */
  after(ms: number, run: () => void): () => void;
}

/** Who appends a block, and is told once what became of it. Must not throw. */
export interface Keeper {
  readonly shard: number;
  readonly events: number;
  readonly block: Uint8Array;
  /** It is durable. The state of the place in the index is the keeper's from now on; it begins as under way. */
  kept(place: Place): void;
  /** It is not in the journal, or not for certain. */
  notKept(error: JournalError): void;
}

/**
 * full     the bound is reached
 * failed   the disk does not take it
 * closed   the process ends
 */
export class JournalError extends Error {
  override readonly name = 'JournalError';
  readonly kind: 'full' | 'failed' | 'closed';
  constructor(kind: JournalError['kind'], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}

/** One write and sync takes at most this much, so that the first in it do not wait for megabytes. */
const COMMIT_BYTES_MAX = 4 * 1024 ** 2;
/** Two or three parts each: the kernel takes 1,024 parts in one synced write. */
const COMMIT_BLOCKS_MAX = 256;
const SEAL_AFTER_MS = 10_000;
/** Read at once when blocks are sent again: they lie behind each other. */
const WINDOW_BYTES = 256 * 1024;
const SEGMENTS_MIN = 4;
const SEGMENTS_MAX = 1_024;
/** Room for a few blocks: with less than this it counts as full, so that what was let in finds room. */
const HEADROOM_BYTES = 256 * 1024;
const HEAL = { baseMs: 200, maxMs: 5_000 };
const PADDING = new Uint8Array(8);

interface Active {
  readonly segment: JournalSegment;
  readonly file: JournalFile;
}

export class Journal {
  readonly index: JournalIndex;
  /** Called when `unable` may have changed. */
  onChange: () => void = () => {};
  readonly #o: JournalOptions;
  readonly #segmentBytesMax: number;
  readonly #headroomBytes: number;
  #unlock: () => Promise<void> = () => Promise.resolve();
  #nextNumber = 1;
  /** Of all segments, and of what is queued. */
  #bytes = 0;
  #queue: Keeper[] = [];
  #committing = false;
  #onIdle: (() => void)[] = [];
  #active: Active | null = null;
  #failure: unknown = null;
  #failures = 0;
  #stopHealing: () => void = () => {};
  #healing = Promise.resolve();
  #tidying: Promise<void> | null = null;
  #closed = false;
  #reader: { readonly segment: JournalSegment; readonly file: JournalFile } | null = null;
  #window: { readonly segment: JournalSegment; readonly start: number; readonly bytes: Buffer } | null = null;

  private constructor(options: JournalOptions) {
    this.#o = options;
    this.#segmentBytesMax = Math.max(
      Math.min(options.segmentBytesMax, Math.floor(options.bytesMax / SEGMENTS_MIN)),
      Math.ceil(options.bytesMax / SEGMENTS_MAX),
    );
    this.#headroomBytes = Math.min(HEADROOM_BYTES, Math.floor(options.bytesMax / 8));
    this.index = new JournalIndex(options.shards);
    options.measures.watch({
      bytes: () => this.#bytes,
      waitingBlocks: () => this.index.waiting,
      heldBlocks: () => this.index.held,
      asideBlocks: () => this.index.aside,
      oldestSeconds: () => {
        const oldest = this.index.oldestHeldMs();
        return oldest === null ? 0 : Math.max(0, options.now() - oldest) / 1_000;
      },
    });
  }

  /**
   * Takes the folder and reads what is in it.
   *
   * @throws ConfigError when the folder cannot be used, is in use, or holds what is not ours.
   */
  static async open(options: JournalOptions): Promise<Journal> {
    const journal = new Journal(options);
    try {
      journal.#unlock = await options.disk.lock();
      journal.#nextNumber = await recoverJournal(options, journal.index);
      for (const { bytes } of journal.index.segments) journal.#bytes += bytes;
      await journal.#removeFinished();
      // Made at once, so that a folder that cannot be written is found out at the start.
      await journal.#openSegment();
    } catch (error) {
      await journal.#unlock();
      const why = error instanceof Error ? error.message : String(error);
      throw new ConfigError([`TALLYLINE_EDGE_JOURNAL=${options.folder} cannot be used: ${why}`]);
    }
    return journal;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Why it takes nothing now; null when it does. */
  get unable(): 'full' | 'failed' | null {
    if (this.#failure !== null) return 'failed';
    return this.#bytes + this.#headroomBytes > this.#o.bytesMax ? 'full' : null;
  }

  /** The keeper is told later, or at once when it cannot be taken. */
  append(keeper: Keeper): void {
    const bytes = recordBytes(keeper.block.length);
    if (this.#closed) return keeper.notKept(new JournalError('closed', 'the edge journal is closed'));
    if (this.#failure !== null) {
      this.#o.measures.refused('failed');
      return keeper.notKept(new JournalError('failed', 'the edge journal cannot be written', this.#failure));
    }
    if (this.#bytes + bytes > this.#o.bytesMax) {
      this.#o.measures.refused('full');
      return keeper.notKept(new JournalError('full', `the edge journal has its ${this.#o.bytesMax} bytes`));
    }
    this.#bytes += bytes;
    this.#queue.push(keeper);
    this.onChange();
    if (this.#committing) return;
    this.#committing = true;
    // What else this turn appends is in the same commit.
    queueMicrotask(() => void this.#commitAll());
  }

  /** Resolves when everything appended was told. */
  idle(): Promise<void> {
    if (!this.#committing) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  /**
   * The block, in memory of its own; null when it is not sound any more. For one caller at a time. Reads ahead,
   * for it is asked for in the order of the files.
   */
  async read({ segment, at }: Place): Promise<Uint8Array | null> {
    const offset = segment.offsets[at]!;
    const length = recordBytes(segment.lengths[at]!);
    let window = this.#window;
    const inside =
      window !== null &&
      window.segment === segment &&
      window.start <= offset &&
      window.start + window.bytes.length >= offset + length;
    if (!inside) {
      const ahead = Math.min(WINDOW_BYTES, segment.bytes - offset);
      const file = await this.#readerOf(segment);
      const bytes = await file.read(offset, Math.max(length, ahead));
      window = this.#window = { segment, start: offset, bytes };
    }
    const block = readBlock(window!.bytes, offset - window!.start, segment.tag);
    return block === null ? null : new Uint8Array(block);
  }

  /** Removes segments whose blocks are all released. Never waits; a failure only delays. */
  tidy(): void {
    if (this.#tidying !== null || this.#closed || !this.#hasFinished()) return;
    this.#tidying = this.#removeFinished()
      .catch((error: unknown) => this.#o.log.error({ error }, 'a segment of the edge journal stays'))
      .finally(() => {
        this.#tidying = null;
        this.onChange();
      });
  }

  /** Finishes what is queued, removes what is released, and lets go of the folder. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#stopHealing();
    await this.idle();
    await this.#healing;
    await this.#tidying;
    await this.#seal();
    await this.#removeFinished();
    await this.#reader?.file.close();
    await this.#unlock();
    const { held: blocks } = this.index;
    const { log, folder } = this.#o;
    if (blocks > 0) log.info({ folder, blocks }, 'blocks stay in the edge journal for the next start');
  }

  async #commitAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const keptAtMs = this.#o.now();
      let batch: Keeper[] = [];
      let active: Active;
      try {
        active = await this.#writable(this.#queue[0]!);
        batch = this.#takeBatch(active.segment);
        await this.#write(active, batch, keptAtMs);
      } catch (error) {
        this.#fail(error, batch);
        continue;
      }
      this.#tell(active.segment, batch, keptAtMs);
    }
    this.#committing = false;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /** Step 1. */
  async #write({ segment, file }: Active, batch: readonly Keeper[], keptAtMs: number): Promise<void> {
    const parts: Uint8Array[] = [];
    for (const { shard, events, block } of batch) {
      parts.push(encodeRecordHeader(segment.tag, { shard, events, keptAtMs }, block), block);
      const padding = recordBytes(block.length) - RECORD_HEADER_BYTES - block.length;
      if (padding > 0) parts.push(PADDING.subarray(0, padding));
    }
    const start = performance.now();
    await file.append(parts, segment.bytes);
    this.#o.measures.synced(performance.now() - start, batch.length);
    this.#failures = 0;
  }

  /** Step 2. */
  #tell(segment: JournalSegment, batch: readonly Keeper[], keptAtMs: number): void {
    for (const keeper of batch) {
      const { shard, block } = keeper;
      const offset = segment.bytes;
      segment.bytes += recordBytes(block.length);
      keeper.kept(this.index.addNew(segment, { offset, blockBytes: block.length, shard, keptAtMs }));
    }
  }

  /** Never empty: a block larger than a segment has one of its own. */
  #takeBatch(segment: JournalSegment): Keeper[] {
    let bytes = 0;
    let blocks = 0;
    for (const { block } of this.#queue) {
      const more = recordBytes(block.length);
      const over =
        bytes + more > COMMIT_BYTES_MAX ||
        segment.bytes + bytes + more > this.#segmentBytesMax ||
        blocks === COMMIT_BLOCKS_MAX;
      if (blocks > 0 && over) break;
      bytes += more;
      blocks += 1;
    }
    return this.#queue.splice(0, blocks);
  }

  /** The segment that takes the block. */
  async #writable(next: Keeper): Promise<Active> {
    if (this.#active !== null) {
      const { segment } = this.#active;
      const full = segment.bytes + recordBytes(next.block.length) > this.#segmentBytesMax;
      if (segment.count === 0 || (!full && !this.#agedOut(segment))) return this.#active;
      await this.#seal();
      this.tidy();
    }
    return this.#openSegment();
  }

  /** Open for long, and being emptied. */
  #agedOut(segment: JournalSegment): boolean {
    return segment.held < segment.count && segment.openedAtMs + SEAL_AFTER_MS < this.#o.now();
  }

  async #openSegment(): Promise<Active> {
    const { disk, shards, deployment } = this.#o;
    const number = this.#nextNumber++;
    const name = segmentName(number);
    const tag = Uint8Array.from(randomBytes(TAG_BYTES));
    const openedAtMs = this.#o.now();
    const file = await disk.create(name);
    try {
      await file.append([encodeSegmentHeader({ shards, deployment, tag, openedAtMs })], 0);
      await disk.sync();
    } catch (error) {
      await file.close().catch(() => undefined);
      await disk.remove(name).catch(() => undefined);
      throw error;
    }
    const segment = new JournalSegment({ number, tag, openedAtMs, bytes: SEGMENT_HEADER_BYTES, shards });
    this.#bytes += segment.bytes;
    this.index.segments.push(segment);
    this.#active = { segment, file };
    return this.#active;
  }

  async #seal(): Promise<void> {
    const active = this.#active;
    if (active === null) return;
    this.#active = null;
    active.segment.sealed = true;
    await active.file.close();
  }

  #fail(error: unknown, batch: readonly Keeper[]): void {
    const { log, measures, folder } = this.#o;
    const refused = [...batch, ...this.#queue];
    this.#queue = [];
    this.#failure = error;
    log.error({ error, folder, blocks: refused.length }, 'the edge journal cannot be written');
    for (const keeper of refused) {
      this.#bytes -= recordBytes(keeper.block.length);
      measures.refused('failed');
      keeper.notKept(new JournalError('failed', 'the edge journal cannot be written', error));
    }
    this.onChange();
    this.#healLater();
  }

  #healLater(): void {
    if (this.#closed) return;
    const ms = HEAL.baseMs + backoffMs(this.#failures++, HEAL, () => this.#o.random());
    this.#stopHealing = this.#o.after(ms, () => {
      this.#healing = this.#heal();
    });
  }

  async #heal(): Promise<void> {
    const { log, folder } = this.#o;
    try {
      await this.#abandon();
      await this.#openSegment();
    } catch (error) {
      log.error({ error, folder }, 'the edge journal still cannot be written');
      return this.#healLater();
    }
    this.#failure = null;
    log.warn({ folder }, 'the edge journal can be written again');
    this.onChange();
  }

  /**
   * Cuts off what was written and perhaps not synced. It was not promised; left behind, the next start could
   * not tell it from damage.
   */
  async #abandon(): Promise<void> {
    const active = this.#active;
    if (active === null) return;
    this.#active = null;
    const { segment, file } = active;
    segment.sealed = true;
    try {
      await file.truncate(segment.bytes);
    } catch (error) {
      this.#o.log.error({ error, file: segmentName(segment.number) }, 'a segment could not be cut back');
    }
    await file.close().catch(() => undefined);
    this.tidy();
  }

  async #readerOf(segment: JournalSegment): Promise<JournalFile> {
    if (this.#reader?.segment === segment) return this.#reader.file;
    const last = this.#reader;
    this.#reader = null;
    await last?.file.close();
    const file = await this.#o.disk.open(segmentName(segment.number));
    this.#reader = { segment, file };
    return file;
  }

  #hasFinished(): boolean {
    return this.index.segments.some(
      (segment) => segment.held === 0 && (segment.sealed || this.#mayBeSealed(segment)),
    );
  }

  /** The active segment goes too when it is old, so that an edge without traffic holds nothing. */
  #mayBeSealed(active: JournalSegment): boolean {
    return active.count > 0 && !this.#committing && this.#agedOut(active);
  }

  async #removeFinished(): Promise<void> {
    const { disk, log } = this.#o;
    const { segments } = this.index;
    const active = this.#active?.segment;
    if (active?.held === 0 && this.#mayBeSealed(active)) await this.#seal();
    const isFinished = ({ sealed, held }: JournalSegment): boolean => sealed && held === 0;
    let next = segments.find(isFinished);
    if (next === undefined) return;
    for (; next !== undefined; next = segments.find(isFinished)) {
      const name = segmentName(next.number);
      if (next.damaged) {
        const kept = segmentName(next.number, DAMAGED);
        await disk.rename(name, kept);
        log.error({ file: kept }, 'a damaged segment is kept aside: look at it, then remove it');
      } else {
        await disk.remove(name);
      }
      segments.splice(segments.indexOf(next), 1);
      this.#bytes -= next.bytes;
    }
    // A crash before this brings them back at the next start, to be sent again. Harmless.
    await disk.sync();
  }
}
