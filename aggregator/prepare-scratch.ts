/** The memory in which a worker prepares one block after the other: columns and tables that stay, grown as needed. */
import { grown } from '../contract/grown.ts';
import { BucketWriter } from './bucket.ts';
import { PairTable } from './pair-table.ts';
import type { ColumnCounts, ColumnWriter } from './prepared-columns.ts';

const EVENTS_FIRST = 4_096;
const CONTRIBUTIONS_FIRST = 8_192;
const KEYS_FIRST = 4_096;
const BUCKETS_FIRST = 2_048;
/** What a block with many meters made of it is not kept beyond: 3.4 MB. */
const CONTRIBUTIONS_KEPT_MAX = 2 ** 18;

export class Scratch {
  readonly writer: BucketWriter;
  /** (tenant, hour) → group, (group, dimension) → group. */
  readonly groups = new PairTable();
  /** (subject, group) → bucket. */
  readonly buckets = new PairTable();
  /** (bucket, meter) → key. */
  readonly keys = new PairTable();
  /** (group, meter) → bounded group. */
  readonly bounded = new PairTable();
  /** (tenant and hour, meter) → hour of a meter. */
  readonly meterHours = new PairTable();
  /** (tenant, type) → type, (type, shape) → plans. */
  readonly types = new PairTable();
  readonly shapes = new PairTable();

  // By event.
  tenantOf = new Uint32Array(EVENTS_FIRST);
  refused = new Uint8Array(EVENTS_FIRST);
  start = new Uint32Array(EVENTS_FIRST + 1);
  // By contribution.
  key = new Uint32Array(CONTRIBUTIONS_FIRST);
  mantissa = new Float64Array(CONTRIBUTIONS_FIRST);
  scale = new Uint8Array(CONTRIBUTIONS_FIRST);
  // By key.
  keyBucket = new Uint32Array(KEYS_FIRST);
  keyMeter = new Uint32Array(KEYS_FIRST);
  ofKey = new Uint32Array(KEYS_FIRST);
  // By bucket.
  /** 1 if its group counts against the bound of a meter. */
  isBounded = new Uint8Array(BUCKETS_FIRST);
  firstKey = new Uint32Array(BUCKETS_FIRST);

  /** @param bucketKey with which buckets are hashed: 16 bytes as 32 hexadecimal digits. */
  constructor(bucketKey: string) {
    this.writer = new BucketWriter(bucketKey);
  }

  /** For a block of so many events. */
  begin(events: number): void {
    this.writer.clear();
    for (const table of [this.groups, this.buckets, this.keys, this.bounded, this.meterHours]) table.clear();
    for (const table of [this.types, this.shapes]) table.clear();
    if (this.key.length > CONTRIBUTIONS_KEPT_MAX) {
      this.key = new Uint32Array(CONTRIBUTIONS_FIRST);
      this.mantissa = new Float64Array(CONTRIBUTIONS_FIRST);
      this.scale = new Uint8Array(CONTRIBUTIONS_FIRST);
    }
    if (events > this.refused.length) {
      this.tenantOf = new Uint32Array(events);
      this.refused = new Uint8Array(events);
      this.start = new Uint32Array(events + 1);
    }
  }

  growContributions(): void {
    const length = this.key.length * 2;
    this.key = grown(this.key, new Uint32Array(length));
    this.mantissa = grown(this.mantissa, new Float64Array(length));
    this.scale = grown(this.scale, new Uint8Array(length));
  }

  growKeys(): void {
    const length = this.keyBucket.length * 2;
    this.keyBucket = grown(this.keyBucket, new Uint32Array(length));
    this.keyMeter = grown(this.keyMeter, new Uint32Array(length));
    this.ofKey = grown(this.ofKey, new Uint32Array(length));
  }

  growBuckets(): void {
    const length = this.isBounded.length * 2;
    this.isBounded = grown(this.isBounded, new Uint8Array(length));
    this.firstKey = grown(this.firstKey, new Uint32Array(length));
  }

  /** Copies what was found. The target's memory may have been another block's: all of it is written. */
  copyTo(target: ColumnWriter, start: number, { events, contributions, keys, buckets }: ColumnCounts): void {
    target.begin(start, events);
    target.bytes(this.refused, events);
    target.words(this.tenantOf, events);
    target.words(this.start, events + 1);
    target.doubles(this.mantissa, contributions);
    target.words(this.key, contributions);
    target.bytes(this.scale, contributions);
    target.words(this.keyBucket, keys);
    target.words(this.keyMeter, keys);
    target.words(this.ofKey, keys);
    const { tenant, start: starts, hash, bytes } = this.writer.written;
    target.words(tenant, buckets);
    target.words(starts, buckets + 1);
    target.words(hash, buckets * 2);
    target.bytes(bytes, bytes.length);
  }
}
