/**
 * A *bucket* is where events are added up: (tenant, subject, hour, dimensions). With a meter it is the key of a rollup
 * row. Workers write the buckets of a block as bytes, and everybody compares bytes: with a hundred thousand customers
 * nearly every event of a block is in a bucket of its own, and a text for each would be half of what it costs.
 *
 * Bytes of a bucket: the hour in epoch seconds as u32, the number of dimensions as u32, then the subject and each
 * dimension as u32 length and UTF-8; all little-endian. The tenant stands beside it, as a number.
 *
 * Beside it stands its hash too, 64 bits of Chaskey with a key that a process draws when it starts: who chooses names of
 * subjects cannot choose which of them meet in a table.
 */
import { copyWords, SLACK_BYTES } from '../contract/byte-words.ts';
import { grown } from '../contract/grown.ts';
import { Chaskey } from '../contract/identity.ts';

const SCRATCH_FIRST = 1_024;
const BYTES_FIRST = 16_384;
const BUCKETS_FIRST = 256;
const HEAD_BYTES = 8;
/** What the hash may write behind a bucket. */
const PADDING = 16;

/** The buckets of a block, or of whoever collected them. */
export interface Buckets {
  readonly count: number;
  /** The number of each one's tenant. */
  readonly tenant: Uint32Array;
  /** Bucket `n` is `bytes[start[n], start[n + 1])`, with slack behind the last. */
  readonly start: Uint32Array;
  readonly bytes: Uint8Array;
  /** Two words a bucket. */
  readonly hash: Uint32Array;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Writes buckets, one after the other. */
export class BucketWriter {
  readonly #chaskey: Chaskey;
  readonly #state = new Int32Array(4);
  readonly #mac = new Uint32Array(4);
  // The bucket that is being written.
  #bytes = new Uint8Array(SCRATCH_FIRST);
  #words = new Int32Array(this.#bytes.buffer);
  #view = new DataView(this.#bytes.buffer);
  #end = 0;
  // Those that are written.
  #count = 0;
  #tenant = new Uint32Array(BUCKETS_FIRST);
  #start = new Uint32Array(BUCKETS_FIRST + 1);
  #hash = new Uint32Array(BUCKETS_FIRST * 2);
  #written = new Uint8Array(BYTES_FIRST);
  #writtenView = new DataView(this.#written.buffer);

  /** @param key 16 bytes as 32 hexadecimal digits. */
  constructor(key: string) {
    const words = Uint32Array.from([0, 8, 16, 24], (at) => Number.parseInt(key.slice(at, at + 8), 16));
    this.#chaskey = new Chaskey(words);
  }

  begin(hourSeconds: number, dimensions: number): void {
    this.#view.setUint32(0, hourSeconds, true);
    this.#view.setUint32(4, dimensions, true);
    this.#end = HEAD_BYTES;
  }

  /** The subject, then each dimension: UTF-8. */
  slice(bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    const at = this.#reserve(length);
    for (let from = start, to = at; from < end; from++, to++) this.#bytes[to] = bytes[from]!;
    this.#end = at + length;
  }

  text(text: string): void {
    const { length } = text;
    const start = this.#reserve(length);
    for (let at = 0; at < length; at++) {
      const unit = text.charCodeAt(at);
      if (unit >= 0x80) return this.#encode(text);
      this.#bytes[start + at] = unit;
    }
    this.#end = start + length;
  }

  #encode(text: string): void {
    const bytes = encoder.encode(text);
    this.slice(bytes, 0, bytes.length);
  }

  /** Ends the bucket; returns its number. */
  end(tenant: number): number {
    const length = this.#end;
    this.#chaskey.begin(this.#words, 0, this.#state);
    this.#chaskey.finish(this.#words, this.#bytes, 0, length, this.#state, this.#mac, 0);
    if (this.#count === this.#tenant.length) this.#growCount();
    const number = this.#count++;
    const start = this.#start[number]!;
    if (start + length + SLACK_BYTES > this.#written.length) this.#growWritten(start + length + SLACK_BYTES);
    copyWords(this.#view, 0, length, this.#writtenView, start);
    this.#start[number + 1] = start + length;
    this.#tenant[number] = tenant;
    this.#hash[number * 2] = this.#mac[0]!;
    this.#hash[number * 2 + 1] = this.#mac[1]!;
    return number;
  }

  /** All of them. Views: they hold until something more is written. */
  get written(): Buckets {
    const count = this.#count;
    return {
      count,
      tenant: this.#tenant.subarray(0, count),
      start: this.#start.subarray(0, count + 1),
      bytes: this.#written.subarray(0, this.#start[count]! + SLACK_BYTES),
      hash: this.#hash.subarray(0, count * 2),
    };
  }

  /** Begins again. */
  clear(): void {
    this.#count = 0;
  }

  /** All of them, in memory of their own; the writer begins again. */
  take(): Buckets {
    const { count, tenant, start, bytes, hash } = this.written;
    this.clear();
    return { count, tenant: tenant.slice(), start: start.slice(), bytes: bytes.slice(), hash: hash.slice() };
  }

  /** Writes the length of a text; returns where it begins. */
  #reserve(length: number): number {
    const at = this.#end;
    if (at + 4 + length + PADDING > this.#bytes.length) {
      const larger = new Uint8Array((((at + 4 + length + PADDING) * 2) >>> 4) << 4);
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#words = new Int32Array(larger.buffer);
      this.#view = new DataView(larger.buffer);
    }
    this.#view.setUint32(at, length, true);
    return at + 4;
  }

  #growCount(): void {
    const capacity = this.#tenant.length * 2;
    this.#tenant = grown(this.#tenant, new Uint32Array(capacity));
    this.#start = grown(this.#start, new Uint32Array(capacity + 1));
    this.#hash = grown(this.#hash, new Uint32Array(capacity * 2));
  }

  #growWritten(least: number): void {
    this.#written = grown(this.#written, new Uint8Array(least * 2));
    this.#writtenView = new DataView(this.#written.buffer);
  }
}

export interface BucketParts {
  readonly subject: string;
  readonly hourSeconds: number;
  readonly dimensions: readonly string[];
}

/** What the bytes at `start` say. */
export function bucketParts(bytes: Uint8Array, start: number): BucketParts {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const texts: string[] = [];
  let at = start + HEAD_BYTES;
  for (let left = 1 + view.getUint32(start + 4, true); left > 0; left--) {
    const length = view.getUint32(at, true);
    texts.push(decoder.decode(bytes.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  const [subject, ...dimensions] = texts;
  return { subject: subject!, hourSeconds: view.getUint32(start, true), dimensions };
}

/** The same subject and hour, with `dimension` for each of the dimensions. */
export function writeSibling(
  writer: BucketWriter,
  tenant: number,
  bytes: Uint8Array,
  start: number,
  dimension: string,
): number {
  const { subject, hourSeconds, dimensions } = bucketParts(bytes, start);
  writer.begin(hourSeconds, dimensions.length);
  writer.text(subject);
  for (let left = dimensions.length; left > 0; left--) writer.text(dimension);
  return writer.end(tenant);
}
