// Gathers records into what is sent together, and keeps the hash of everything so far, by which a later run knows
// that it reads the same file.
import { createHash, type Hash } from 'node:crypto';
import { isEvent, type FileRecord, type FoundEvent, type Unreadable } from './record.ts';

export interface Batch {
  readonly events: readonly FoundEvent[];
  readonly unreadable: readonly Unreadable[];
  /** Of all records up to the end of this batch. */
  readonly records: number;
  readonly digest: string;
  /** Of the file, read when the batch was full. */
  readonly bytesRead: number;
}

export interface BatchLimits {
  readonly events: number;
  readonly bytes: number;
}

export const EMPTY_DIGEST = createHash('sha256').digest('hex');
const LINE_END = '\n';

export class Batches {
  readonly #limits: BatchLimits;
  readonly #hash: Hash = createHash('sha256');
  #records = 0;
  #events: FoundEvent[] = [];
  #unreadable: Unreadable[] = [];
  #bytes = 0;

  constructor(limits: BatchLimits) {
    this.#limits = limits;
  }

  get records(): number {
    return this.#records;
  }

  /** Of all records so far. */
  get digest(): string {
    return this.#hash.copy().digest('hex');
  }

  /** A record that an earlier run has dealt with. */
  pass(record: FileRecord): void {
    this.#records += 1;
    if (isEvent(record)) this.#hash.update(record.event).update(LINE_END);
    else this.#hash.update(`${record.code}${LINE_END}`);
  }

  /** Adds a record; returns the batch before it, when that is full. */
  add(record: FileRecord, bytesRead: number): Batch | null {
    const bytes = isEvent(record) ? record.event.length + 1 : 0;
    const isFull =
      this.#events.length + this.#unreadable.length >= this.#limits.events ||
      (this.#bytes > 0 && this.#bytes + bytes > this.#limits.bytes);
    const full = isFull ? this.take(bytesRead) : null;
    this.pass(record);
    if (isEvent(record)) this.#events.push(record);
    else this.#unreadable.push(record);
    this.#bytes += bytes;
    return full;
  }

  /** What was gathered so far; null when that is nothing. */
  take(bytesRead: number): Batch | null {
    if (this.#events.length + this.#unreadable.length === 0) return null;
    const batch = {
      events: this.#events,
      unreadable: this.#unreadable,
      records: this.#records,
      digest: this.digest,
      bytesRead,
    };
    [this.#events, this.#unreadable, this.#bytes] = [[], [], 0];
    return batch;
  }
}
