/**
 * What a disk does to the files of NATS while it is stopped. Each of these ends in another way on NATS 2.9: it may
 * drop the end of a stream and give its sequences to other messages, begin the stream again at 1, find a hole in it,
 * or forget that there was one. What is promised does not depend on which.
 */
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { streamName } from '../../contract/subjects.ts';
import { between } from './random.ts';

const TAIL_BYTES = 65_536;
const ZEROED_BYTES_MAX = 16_384;

interface StoreFile {
  readonly path: string;
  readonly name: string;
  readonly bytes: number;
}

export function streamFolder(store: string, shard: number): string {
  return join(store, 'jetstream', '$G', 'streams', streamName(shard));
}

/** The files that hold the messages of a shard, oldest first. */
function messageFiles(store: string, shard: number): StoreFile[] {
  const folder = join(streamFolder(store, shard), 'msgs');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('.blk'))
    .sort((a, b) => Number(a.split('.')[0]) - Number(b.split('.')[0]))
    .map((name) => ({ path: join(folder, name), name, bytes: statSync(join(folder, name)).size }))
    .filter(({ bytes }) => bytes > 0);
}

/** Each does its damage to one shard and says what it did; null when there was nothing to damage. */
export type Damage = (store: string, shard: number, random: () => number) => string | null;

/** The newest file ends earlier: a write that never came to the disk. */
export const truncated: Damage = (store, shard, random) => {
  const file = messageFiles(store, shard).at(-1);
  if (file === undefined) return null;
  const cut = between(random, 1, Math.min(file.bytes, TAIL_BYTES));
  truncateSync(file.path, file.bytes - cut);
  return `the last ${cut} of ${file.bytes} bytes of ${file.name} are cut off`;
};

/** One bit is another: near the end, where messages are that nobody has read, or anywhere. */
export const bitFlipped: Damage = (store, shard, random) => {
  const files = messageFiles(store, shard);
  const file = random() < 0.5 ? files.at(-1) : files[between(random, 0, files.length - 1)];
  if (file === undefined) return null;
  const from = random() < 0.5 ? Math.max(0, file.bytes - TAIL_BYTES) : 0;
  const at = between(random, from, file.bytes - 1);
  const bit = between(random, 0, 7);
  const handle = openSync(file.path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(handle, byte, 0, 1, at);
  byte[0]! ^= 1 << bit;
  writeSync(handle, byte, 0, 1, at);
  closeSync(handle);
  return `bit ${bit} of byte ${at} of ${file.bytes} of ${file.name} is flipped`;
};

/** The newest file ends in zeros: its length came to the disk and its last sectors did not. */
export const zeroedTail: Damage = (store, shard, random) => {
  const file = messageFiles(store, shard).at(-1);
  if (file === undefined) return null;
  const zeros = between(random, 1, Math.min(file.bytes, ZEROED_BYTES_MAX));
  const handle = openSync(file.path, 'r+');
  writeSync(handle, Buffer.alloc(zeros), 0, zeros, file.bytes - zeros);
  closeSync(handle);
  return `the last ${zeros} of ${file.bytes} bytes of ${file.name} are zeros`;
};

/** The stream is gone with all its files. */
export const forgotten: Damage = (store, shard) => {
  const folder = streamFolder(store, shard);
  if (!existsSync(folder)) return null;
  rmSync(folder, { recursive: true });
  return 'the folder of the stream is gone';
};
