/**
 * The files of the edge journal, version 1. Little-endian; every part starts on a multiple of 8.
 *
 * A segment is a header of 64 bytes and records behind it. A record is a header of 40 bytes, a block as the log
 * gets it, and zeros up to the next multiple of 8.
 *
 * Every record repeats the segment's *tag*, 64 random bits that nobody outside ever sees. Behind damage the next
 * record is found by it, and only by it: what a sender puts into his events cannot pass for a record.
 *
 * Two checksums a record, so that a damaged block does not hide where the next record begins.
 */
import { crc32 } from 'node:zlib';

export const JOURNAL_VERSION = 1;
export const SEGMENT_HEADER_BYTES = 64;
export const RECORD_HEADER_BYTES = 40;
export const TAG_BYTES = 8;

const MAGIC = 0x314a5954; // "TYJ1"
const SEGMENT = {
  magic: 0, // u32
  crc: 4, // u32 over everything from byte 8; here in every version
  version: 8, // u32
  shards: 12, // u32
  deployment: 16, // 8 bytes
  tag: 24, // 8 bytes
  openedAtMs: 32, // f64
} as const;
const RECORD = {
  tag: 0, // 8 bytes
  blockBytes: 8, // u32
  shard: 12, // u32
  events: 16, // u32
  blockCrc: 20, // u32
  keptAtMs: 24, // f64
  crc: 32, // u32 over everything before it
} as const;

export interface SegmentHeader {
  readonly version: number;
  readonly shards: number;
  /** Whose events these are: 16 hexadecimal digits that differ between deployments. */
  readonly deployment: string;
  readonly tag: Uint8Array;
  /** Epoch milliseconds. */
  readonly openedAtMs: number;
}

export interface RecordFacts {
  readonly shard: number;
  readonly events: number;
  /** Epoch milliseconds. */
  readonly keptAtMs: number;
}

export interface FoundRecord extends RecordFacts {
  /** Where the record begins. */
  readonly offset: number;
  readonly blockBytes: number;
}

export function encodeSegmentHeader(header: Omit<SegmentHeader, 'version'>): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  bytes.writeUInt32LE(MAGIC, SEGMENT.magic);
  bytes.writeUInt32LE(JOURNAL_VERSION, SEGMENT.version);
  bytes.writeUInt32LE(header.shards, SEGMENT.shards);
  bytes.write(header.deployment, SEGMENT.deployment, 8, 'hex');
  bytes.set(header.tag, SEGMENT.tag);
  bytes.writeDoubleLE(header.openedAtMs, SEGMENT.openedAtMs);
  bytes.writeUInt32LE(crc32(bytes.subarray(SEGMENT.version)), SEGMENT.crc);
  return bytes;
}

/** Null when it is not sound. A version that is not ours may have other fields behind the version. */
export function readSegmentHeader(file: Buffer): SegmentHeader | null {
  if (file.length < SEGMENT_HEADER_BYTES || file.readUInt32LE(SEGMENT.magic) !== MAGIC) return null;
  const bytes = file.subarray(0, SEGMENT_HEADER_BYTES);
  if (bytes.readUInt32LE(SEGMENT.crc) !== crc32(bytes.subarray(SEGMENT.version))) return null;
  return {
    version: bytes.readUInt32LE(SEGMENT.version),
    shards: bytes.readUInt32LE(SEGMENT.shards),
    deployment: bytes.toString('hex', SEGMENT.deployment, SEGMENT.deployment + 8),
    tag: Uint8Array.from(bytes.subarray(SEGMENT.tag, SEGMENT.tag + TAG_BYTES)),
    openedAtMs: bytes.readDoubleLE(SEGMENT.openedAtMs),
  };
}

const SUFFIX = '.journal';
const DIGITS = 10;

/** Segments are numbered in the order in which they were opened; a number is never used again. */
export function segmentName(number: number, suffix = SUFFIX): string {
  return `${String(number).padStart(DIGITS, '0')}${suffix}`;
}

/** Null when the file is no segment. */
export function segmentNumber(name: string, suffix = SUFFIX): number | null {
  if (!name.endsWith(suffix)) return null;
  const digits = name.slice(0, -suffix.length);
  return /^\d{10,15}$/.test(digits) ? Number(digits) : null;
}

/** What a block takes in a segment. */
export function recordBytes(blockBytes: number): number {
  return RECORD_HEADER_BYTES + Math.ceil(blockBytes / 8) * 8;
}

export function encodeRecordHeader(tag: Uint8Array, facts: RecordFacts, block: Uint8Array): Buffer {
  const bytes = Buffer.alloc(RECORD_HEADER_BYTES);
  bytes.set(tag, RECORD.tag);
  bytes.writeUInt32LE(block.length, RECORD.blockBytes);
  bytes.writeUInt32LE(facts.shard, RECORD.shard);
  bytes.writeUInt32LE(facts.events, RECORD.events);
  bytes.writeUInt32LE(crc32(block), RECORD.blockCrc);
  bytes.writeDoubleLE(facts.keptAtMs, RECORD.keptAtMs);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, RECORD.crc)), RECORD.crc);
  return bytes;
}

/** The block of a sound record that begins at the offset, as a view; null when it is not sound. */
export function readBlock(bytes: Buffer, offset: number, tag: Uint8Array): Uint8Array | null {
  const found = readRecordHeader(bytes, offset, tag);
  if (found === null) return null;
  const start = offset + RECORD_HEADER_BYTES;
  const block = bytes.subarray(start, start + found.blockBytes);
  const whole = block.length === found.blockBytes && offset + recordBytes(block.length) <= bytes.length;
  return whole && crc32(block) === bytes.readUInt32LE(offset + RECORD.blockCrc) ? block : null;
}

function readRecordHeader(bytes: Buffer, offset: number, tag: Uint8Array): FoundRecord | null {
  if (offset + RECORD_HEADER_BYTES > bytes.length) return null;
  if (bytes.compare(tag, 0, TAG_BYTES, offset, offset + TAG_BYTES) !== 0) return null;
  const crc = crc32(bytes.subarray(offset, offset + RECORD.crc));
  if (bytes.readUInt32LE(offset + RECORD.crc) !== crc) return null;
  return {
    offset,
    blockBytes: bytes.readUInt32LE(offset + RECORD.blockBytes),
    shard: bytes.readUInt32LE(offset + RECORD.shard),
    events: bytes.readUInt32LE(offset + RECORD.events),
    keptAtMs: bytes.readDoubleLE(offset + RECORD.keptAtMs),
  };
}

/**
 * By which the records of a segment are found. The first record stands where every first record stands, so it
 * can say the tag when the header cannot. Null when there is neither.
 */
export function tagOf(file: Buffer): Uint8Array | null {
  const header = readSegmentHeader(file);
  if (header !== null) return header.tag;
  const first = file.subarray(SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + TAG_BYTES);
  return first.length === TAG_BYTES ? Uint8Array.from(first) : null;
}

export interface SegmentScan {
  /** Unsound stretches that have a sound record behind them. */
  readonly damaged: number;
  /** Where the last sound record ends. What is behind it is a torn tail, or damage; the caller knows which. */
  readonly soundEnd: number;
}

/** Finds every sound record of a whole segment, in order. */
export function scanSegment(
  file: Buffer,
  tag: Uint8Array,
  onRecord: (record: FoundRecord) => void,
): SegmentScan {
  let damaged = 0;
  let unsound = 0; // Stretches since the last sound record.
  let soundEnd = SEGMENT_HEADER_BYTES;
  let offset = SEGMENT_HEADER_BYTES;
  let inStretch = false;
  while (offset < file.length) {
    const found = readRecordHeader(file, offset, tag);
    if (found !== null && readBlock(file, offset, tag) !== null) {
      onRecord(found);
      damaged += unsound;
      unsound = 0;
      inStretch = false;
      offset += recordBytes(found.blockBytes);
      soundEnd = offset;
    } else if (found !== null) {
      // Its block is not sound, or is not all there. Where it ends is known.
      unsound += 1;
      inStretch = false;
      offset += recordBytes(found.blockBytes);
    } else {
      if (!inStretch) unsound += 1;
      inStretch = true;
      offset = nextTag(file, offset + 8, tag);
    }
  }
  return { damaged, soundEnd };
}

/** The next place that the tag stands at, among those where a record may begin; the end when there is none. */
function nextTag(file: Buffer, from: number, tag: Uint8Array): number {
  for (let at = file.indexOf(tag, from); at !== -1; at = file.indexOf(tag, at + 1)) {
    if (at % 8 === 0) return at;
  }
  return file.length;
}
