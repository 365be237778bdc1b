/**
 * Messages that no decoder may take, made from a block that an edge has published: garbage, a block that was cut, one
 * with a flipped bit, one whose header lies about what follows (with a checksum that fits, so that only the lie can
 * give it away), a version or kind that nobody knows. A lie is always larger than what padding could hide, so each
 * must be refused whole.
 */
import { crc32 } from 'node:zlib';
import { BLOCK_VERSION, HEADER, HEADER_BYTES, MAGIC } from '../../contract/block.ts';
import { MESSAGE_EVENTS, MESSAGE_METER } from '../../contract/subjects.ts';
import { between, pick } from './random.ts';

export interface Poison {
  readonly what: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

type Maker = (block: Uint8Array, random: () => number) => Poison;

const GARBAGE_BYTES_MAX = 3_000;
/** More than the seven bytes by which a section may be padded. */
const LIE_LEAST = 8;
const COUNTS = ['events', 'cells', 'texts', 'shapes', 'shapeFields', 'textBytes', 'idBytes'] as const;

function randomBytes(random: () => number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => between(random, 0, 255));
}

function copyOf(block: Uint8Array): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const bytes = new Uint8Array(block);
  return { bytes, view: new DataView(bytes.buffer) };
}

function seal({ bytes, view }: { bytes: Uint8Array<ArrayBuffer>; view: DataView }): Uint8Array<ArrayBuffer> {
  view.setUint32(HEADER.crc, crc32(bytes.subarray(HEADER.events)), true);
  return bytes;
}

/** These need no block to start from, and can be the first message of a log. */
const MAKERS_ALONE: readonly Maker[] = [
  () => ({ what: 'nothing at all', bytes: new Uint8Array(0) }),
  (_, random) => ({ what: 'garbage', bytes: randomBytes(random, between(random, 1, GARBAGE_BYTES_MAX)) }),
  (_, random) => {
    const bytes = randomBytes(random, between(random, 12, HEADER_BYTES - 1));
    const view = new DataView(bytes.buffer);
    view.setUint32(HEADER.magic, MAGIC, true);
    view.setUint16(HEADER.version, BLOCK_VERSION, true);
    view.setUint16(HEADER.kind, MESSAGE_EVENTS, true);
    return { what: 'a header that ends too soon', bytes };
  },
  (_, random) => {
    const bytes = randomBytes(random, between(random, 12, 200));
    const view = new DataView(bytes.buffer);
    view.setUint32(HEADER.magic, MAGIC, true);
    view.setUint16(HEADER.version, 1, true);
    view.setUint16(HEADER.kind, MESSAGE_METER, true);
    return { what: 'a meter that is garbage', bytes };
  },
];

const MAKERS_OF_BLOCK: readonly Maker[] = [
  (block, random) => {
    const kept = between(random, 1, block.length - 1);
    return { what: `a block cut after ${kept} bytes`, bytes: new Uint8Array(block.subarray(0, kept)) };
  },
  (block, random) => {
    const { bytes } = copyOf(block);
    // Beyond the checksum's own field, or a flip could make a kind that is read as another message.
    const at = between(random, HEADER.events, bytes.length - 1);
    bytes[at]! ^= 1 << between(random, 0, 7);
    return { what: `a block with a bit of byte ${at} flipped`, bytes };
  },
  (block, random) => {
    const one = copyOf(block);
    const count = pick(random, COUNTS);
    const truth = one.view.getUint32(HEADER[count], true);
    const lies = [truth + between(random, LIE_LEAST, 1_000), 0xffff_ffff, 0x8000_0000, 0x1_0000 + truth];
    // Less than the truth only where enough of it can be left out.
    if (truth >= 2 * LIE_LEAST) lies.push(truth - between(random, LIE_LEAST, truth));
    const lie = pick(random, lies);
    one.view.setUint32(HEADER[count], lie, true);
    return { what: `a block that says ${lie} ${count} and has ${truth}`, bytes: seal(one) };
  },
  (block, random) => {
    const one = copyOf(block);
    const version = between(random, BLOCK_VERSION + 1, 0xffff);
    one.view.setUint16(HEADER.version, version, true);
    return { what: `a block of version ${version}`, bytes: one.bytes };
  },
  (block, random) => {
    const one = copyOf(block);
    one.view.setUint16(HEADER.kind, between(random, 100, 0xffff), true);
    return { what: 'a message of a kind that nobody knows', bytes: one.bytes };
  },
  (block, random) => {
    const more = randomBytes(random, between(random, LIE_LEAST, 500));
    const bytes = new Uint8Array(block.length + more.length);
    bytes.set(block);
    bytes.set(more, block.length);
    return { what: `a block with ${more.length} bytes behind it`, bytes: seal(copyOf(bytes)) };
  },
];

/** One of each kind that needs no block. */
export function poisonAlone(random: () => number): Poison[] {
  return MAKERS_ALONE.map((make) => make(new Uint8Array(0), random));
}

/** One of each kind. */
export function poisonFrom(block: Uint8Array, random: () => number): Poison[] {
  return [...poisonAlone(random), ...MAKERS_OF_BLOCK.map((make) => make(block, random))];
}
