import { expect, test } from 'vitest';
import {
  encodeRecordHeader,
  encodeSegmentHeader,
  readBlock,
  readSegmentHeader,
  RECORD_HEADER_BYTES,
  recordBytes,
  scanSegment,
  SEGMENT_HEADER_BYTES,
  segmentName,
  segmentNumber,
  tagOf,
  type FoundRecord,
} from './journal-record.ts';

const TAG = Uint8Array.from([9, 8, 7, 6, 5, 4, 3, 2]);
const DEPLOYMENT = '00112233445566ff';

const block = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);

function record(bytes: Uint8Array, shard: number, tag = TAG): Buffer {
  const header = encodeRecordHeader(tag, { shard, events: shard + 1, keptAtMs: 1_000 + shard }, bytes);
  const whole = Buffer.alloc(recordBytes(bytes.length));
  header.copy(whole);
  whole.set(bytes, RECORD_HEADER_BYTES);
  return whole;
}

function segment(records: readonly Buffer[]): Buffer {
  const header = encodeSegmentHeader({ shards: 4, deployment: DEPLOYMENT, tag: TAG, openedAtMs: 123.5 });
  return Buffer.concat([header, ...records]);
}

function scan(file: Buffer): { found: FoundRecord[]; damaged: number; soundEnd: number } {
  const found: FoundRecord[] = [];
  const result = scanSegment(file, tagOf(file) ?? TAG, (one) => found.push(one));
  return { found, ...result };
}

const RECORDS = [record(block(13, 1), 0), record(block(40, 2), 1), record(block(8, 3), 2)];
const ENDS = RECORDS.reduce((ends, one) => [...ends, ends.at(-1)! + one.length], [SEGMENT_HEADER_BYTES]);

test('what is written is found: the header, every record, and its block', () => {
  const file = segment(RECORDS);
  expect(readSegmentHeader(file)).toEqual({
    version: 1,
    shards: 4,
    deployment: DEPLOYMENT,
    tag: TAG,
    openedAtMs: 123.5,
  });
  const { found, damaged, soundEnd } = scan(file);
  expect(found).toEqual([
    { offset: 64, blockBytes: 13, shard: 0, events: 1, keptAtMs: 1_000 },
    { offset: 120, blockBytes: 40, shard: 1, events: 2, keptAtMs: 1_001 },
    { offset: 200, blockBytes: 8, shard: 2, events: 3, keptAtMs: 1_002 },
  ]);
  expect([damaged, soundEnd]).toEqual([0, file.length]);
  expect(readBlock(file, 120, TAG)).toEqual(Buffer.from(block(40, 2)));
});

test('a file cut at any byte has the records that are wholly before it, and a tail where the next began', () => {
  const file = segment(RECORDS);
  for (let length = SEGMENT_HEADER_BYTES; length <= file.length; length++) {
    const { found, damaged, soundEnd } = scan(file.subarray(0, length));
    const whole = ENDS.filter((end) => end <= length).length - 1;
    expect([length, found.length, damaged, soundEnd]).toEqual([length, whole, 0, ENDS[whole]]);
  }
  for (let length = 0; length < SEGMENT_HEADER_BYTES; length++) {
    expect(readSegmentHeader(file.subarray(0, length))).toBeNull();
  }
});

test('a file whose end is zeros from any byte on has the records that are wholly before it', () => {
  const file = segment(RECORDS);
  for (let from = SEGMENT_HEADER_BYTES; from < file.length; from++) {
    const torn = Buffer.from(file).fill(0, from);
    const { found, damaged } = scan(torn);
    // Zeros of a padding are as good as written.
    const whole = RECORDS.filter(
      (_, at) => torn.compare(file, ENDS[at], ENDS[at + 1], ENDS[at], ENDS[at + 1]) === 0,
    );
    expect([from, found.length, damaged]).toEqual([from, whole.length, 0]);
  }
});

test('one flipped bit anywhere costs the record that it is in and no other', () => {
  const file = segment(RECORDS);
  for (let at = SEGMENT_HEADER_BYTES; at < file.length; at++) {
    const flipped = Buffer.from(file);
    flipped[at]! ^= 1 << (at % 8);
    const hit = ENDS.findIndex((end) => at < end) - 1;
    const { found, damaged, soundEnd } = scan(flipped);
    const shards = found.map(({ shard }) => shard);
    if (shards.length === RECORDS.length) {
      // Only what holds nothing: the end of the record's header, or the padding.
      expect(at - ENDS[hit]!).toBeGreaterThanOrEqual(RECORD_HEADER_BYTES - 4);
      continue;
    }
    expect([at, shards]).toEqual([at, [0, 1, 2].filter((shard) => shard !== hit)]);
    // With a sound record behind it it is damage; at the end it may be a torn tail.
    expect([damaged, soundEnd]).toEqual(hit === 2 ? [0, ENDS[2]] : [1, ENDS[3]]);
  }
});

test('without a sound header the records are found all the same', () => {
  const file = segment(RECORDS);
  for (let at = 0; at < SEGMENT_HEADER_BYTES; at++) {
    const flipped = Buffer.from(file);
    flipped[at]! ^= 0x40;
    expect(readSegmentHeader(flipped)).toBeNull();
    expect(scan(flipped).found).toHaveLength(3);
  }
});

test('what a sender writes into his events does not pass for a record behind damage', () => {
  const forged = record(block(16, 9), 3, Uint8Array.from([1, 1, 1, 1, 1, 1, 1, 1]));
  const file = segment([record(forged, 0), RECORDS[1]!]);
  file[SEGMENT_HEADER_BYTES + 32]! ^= 1; // The outer header: where its block ends is not known.
  expect(scan(file).found.map(({ shard }) => shard)).toEqual([1]);
});

test('a file name is the number of a segment, or it is none', () => {
  expect(segmentName(7)).toBe('0000000007.journal');
  expect(segmentNumber('0000000007.journal')).toBe(7);
  expect(segmentNumber('0000000007.damaged', '.damaged')).toBe(7);
  for (const name of ['lock', '7.journal', '00000000x7.journal', '0000000007.journal.old']) {
    expect(segmentNumber(name)).toBeNull();
  }
});
