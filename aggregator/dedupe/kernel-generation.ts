/**
 * A generation whose keys lie in the memory of the kernel, laid out as aggregator/assembly/dedupe/generation.ts tells:
 * 30 bytes a key when it is full, of which 27 are the entry. It does what generation.ts does, which is the reference.
 *
 * Laid out for all its keys at once, so that nothing grows; pages that no key reached are not there. Segments have
 * room for five standard deviations more than their share. A generation is full when one of them is.
 *
 * Positions are kept in 40 bits, as the distance from a base 8 million messages before the first. What does not fit is
 * kept here, by its entry; it can be the answer of ClickHouse about an event of long ago. The kernel leaves events
 * that meet such an entry to us.
 */
import { EARLIER } from '../position-in-shard.ts';
import { NONE, type ExactKeys } from './generation.ts';
import { KERNEL_EVENTS_MAX, type KernelMemory } from './kernel-memory.ts';

const HEADER_BYTES = 64;
const HEADER = {
  size: 0,
  segmentBits: 4,
  buckets: 8,
  entriesMax: 12,
  entryBytes: 16,
  fills: 20,
  directory: 24,
  entries: 28,
  newest: 32, // f64
} as const;

/** Entry numbers have 14 bits. */
const SEGMENT_ENTRIES_MAX = 16_384;
const SEGMENT_BITS_MAX = 16;
const BUCKET_BYTES = 64;
/** Of 21 slots, when the generation is full. */
const BUCKET_KEYS = 17;
/** With so many bits of the segment a whole byte of the identity need not be kept. */
const IMPLIED_BITS = 8;
/** In smaller generations the segments' last pages would cost more than that byte. */
const IMPLIED_KEYS = 2 ** 20;
const ENTRY_BYTES = 27;
const FAR = -3;
/** Positions that do not fit; with more, the generation is full. */
const FAR_MAX = 2 ** 20;

export class KernelGeneration implements ExactKeys {
  readonly address: number;
  readonly #memory: KernelMemory;
  readonly #layout: Layout;
  readonly #far = new Map<number, number>();
  #handedOver = 0;

  /** What a generation of so many keys takes of the memory when it is full; Infinity for more than can be told apart. */
  static bytesFor(keys: number): number {
    return layOut(keys)?.bytes ?? Infinity;
  }

  /** Null when the memory has no room for it. */
  static in(memory: KernelMemory, keys: number): KernelGeneration | null {
    const layout = layOut(keys);
    if (layout === null) return null;
    const address = memory.area(layout.bytes);
    return address === null ? null : new KernelGeneration(memory, layout, address);
  }

  private constructor(memory: KernelMemory, layout: Layout, address: number) {
    this.#memory = memory;
    this.#layout = layout;
    this.address = address;
    const { view } = memory;
    const put = (at: number, value: number): void => view.setUint32(address + at, value, true);
    put(HEADER.segmentBits, layout.segmentBits);
    put(HEADER.buckets, layout.buckets);
    put(HEADER.entriesMax, layout.entriesMax);
    put(HEADER.entryBytes, layout.entryBytes);
    put(HEADER.fills, address + HEADER_BYTES);
    put(HEADER.directory, address + layout.directory);
    put(HEADER.entries, address + layout.entries);
    view.setFloat64(address + HEADER.newest, EARLIER, true);
  }

  get size(): number {
    return this.#memory.view.getUint32(this.address + HEADER.size, true);
  }

  get newest(): number {
    return this.#memory.view.getFloat64(this.address + HEADER.newest, true);
  }

  get bytes(): number {
    return this.#layout.entries + this.size * this.#layout.entryBytes;
  }

  find(words: Uint32Array, at: number): number {
    this.#memory.putIdentity(words, at);
    const entry = this.#memory.kernel.findOne(this.address) >>> 0;
    return entry === 0 ? NONE : entry;
  }

  positionOf(entry: number): number {
    const position = this.#memory.kernel.position(this.address, entry);
    return position === FAR ? this.#far.get(entry)! : position;
  }

  samePayload(entry: number, hash: Uint32Array, at: number): boolean {
    this.#memory.putPayload(hash, at);
    return this.#memory.kernel.samePayload(entry) !== 0;
  }

  put(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): boolean {
    const { kernel } = this.#memory;
    const known = this.find(words, at);
    if (known !== NONE && this.positionOf(known) <= position) return true;
    if (this.#far.size >= FAR_MAX) return false;
    this.#memory.putPayload(hash, hashAt);
    const isNear = kernel.isNear(this.address, position) !== 0;
    let entry = known;
    if (known === NONE) entry = kernel.addOne(this.address, position) >>> 0;
    else kernel.writeOne(this.address, known, position);
    if (entry === 0) return false;
    if (isNear) this.#far.delete(entry);
    else this.#far.set(entry, position);
    return true;
  }

  handOver(most: number, take: (words: Uint32Array, at: number) => void): number {
    const { kernel } = this.#memory;
    let handed = 0;
    while (handed < most) {
      const wanted = Math.min(KERNEL_EVENTS_MAX, most - handed);
      const count = kernel.identities(this.address, this.#handedOver, wanted);
      this.#handedOver = kernel.next() >>> 0;
      const words = this.#memory.identities;
      for (let key = 0; key < count; key++) take(words, key * 4);
      handed += count;
      if (count < wanted) break;
    }
    return handed;
  }

  release(): void {
    this.#memory.giveBack(this.address, this.#layout.bytes, this.#layout.entries);
  }
}

interface Layout {
  readonly segmentBits: number;
  /** Of each segment, as are the entries. */
  readonly buckets: number;
  readonly entriesMax: number;
  readonly entryBytes: number;
  /** Where the directory and the entries begin, and how long all is. */
  readonly directory: number;
  readonly entries: number;
  readonly bytes: number;
}

/** Null for more keys than the numbers in it can tell apart. */
function layOut(keys: number): Layout | null {
  let segmentBits = keys < IMPLIED_KEYS ? 0 : IMPLIED_BITS;
  while (withRoom(keys / 2 ** segmentBits) > SEGMENT_ENTRIES_MAX) segmentBits += 1;
  if (segmentBits > SEGMENT_BITS_MAX) return null;
  const segments = 2 ** segmentBits;
  const entriesMax = withRoom(keys / segments);
  const buckets = Math.max(Math.ceil(keys / segments / BUCKET_KEYS), Math.ceil(entriesMax / 20));
  const entryBytes = segmentBits >= IMPLIED_BITS ? ENTRY_BYTES : ENTRY_BYTES + 1;
  const directory = aligned(HEADER_BYTES + segments * 4);
  const entries = directory + segments * buckets * BUCKET_BYTES;
  // Entries are read in words, up to 8 bytes behind the last.
  const bytes = aligned(entries + segments * entriesMax * entryBytes + 8);
  return { segmentBits, buckets, entriesMax, entryBytes, directory, entries, bytes };
}

function withRoom(keys: number): number {
  return Math.ceil(keys + 5 * Math.sqrt(keys));
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}
