/**
 * The memory of an index's kernel (aggregator/assembly/dedupe.ts): columns of the block that is decided, and behind
 * them areas, one for each generation. Areas that were given back are used again, because their pages are there
 * already: the first touch of a fresh page costs more than an insert.
 *
 * One memory has at most 4 GiB, which is 130 million keys. When an area cannot be had, `area` says so, and the
 * TypeScript generation takes over, which has no such bound.
 */
import { loadKernel } from '../../runtime/kernel.ts';

/** As in the kernel. */
export const KERNEL_EVENTS_MAX = 2_048;
const GENERATIONS_MAX = 1_024;
const PAYLOADS = KERNEL_EVENTS_MAX * 16;
const REFUSED = PAYLOADS + KERNEL_EVENTS_MAX * 8;
const VERDICTS = REFUSED + KERNEL_EVENTS_MAX;
const GENERATIONS = VERDICTS + KERNEL_EVENTS_MAX;

const PAGE_BYTES = 65_536;
const BYTES_FIRST = 2 * PAGE_BYTES;
/** What one memory can have. */
export const KERNEL_BYTES_MAX = 2 ** 32;

/** What the kernel exports; addresses come back signed. */
export interface DedupeKernel {
  columns(): number;
  free(): number;
  decide(generations: number, count: number, firstPosition: number): number;
  findOne(generation: number): number;
  position(generation: number, entry: number): number;
  samePayload(entry: number): number;
  isNear(generation: number, position: number): number;
  addOne(generation: number, position: number): number;
  writeOne(generation: number, entry: number, position: number): void;
  identities(generation: number, from: number, most: number): number;
  next(): number;
}

/** What a decision reads of a block. */
export interface Columns {
  readonly identity: Uint32Array;
  readonly payloadHash: Uint32Array;
}

interface Area {
  readonly address: number;
  readonly bytes: number;
}

export class KernelMemory {
  readonly kernel: DedupeKernel;
  readonly #memory: WebAssembly.Memory;
  readonly #columns: number;
  #end: number;
  /** Areas that were given back, and how much of each is clean again. */
  readonly #returned: (Area & { cleanTo: number; readonly dirtyTo: number })[] = [];
  // Each growth takes these away and needs new ones.
  #words!: Uint32Array;
  #bytes!: Uint8Array;
  #view!: DataView;

  constructor(bytesMax = KERNEL_BYTES_MAX) {
    const { exports, memory } = loadKernel<DedupeKernel>('aggregator', 'dedupe', {
      bytesFirst: BYTES_FIRST,
      bytesMax,
    });
    this.kernel = exports;
    this.#memory = memory;
    this.#columns = exports.columns();
    this.#end = exports.free();
    this.#see();
  }

  /** Of areas that were given back and not taken again. */
  get spareBytes(): number {
    return this.#returned.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Another one after each `area`. */
  get view(): DataView {
    return this.#view;
  }

  /** The address of so many bytes, a multiple of 64; null when they cannot be had. What was said to be dirty is zero. */
  area(bytes: number): number | null {
    const at = this.#returned.findIndex((one) => one.bytes === bytes);
    if (at >= 0) {
      const [area] = this.#returned.splice(at, 1);
      this.#clean(area!, Infinity);
      return area!.address;
    }
    const missing = this.#end + bytes - this.#memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.#memory.grow(Math.ceil(missing / PAGE_BYTES));
      } catch (error) {
        if (error instanceof RangeError) return null;
        throw error;
      }
      this.#see();
    }
    const address = this.#end;
    this.#end += bytes;
    return address;
  }

  /** Takes an area back. Its first `dirtyTo` bytes are to be zeros before it is taken again. */
  giveBack(address: number, bytes: number, dirtyTo: number): void {
    this.#returned.push({ address, bytes, cleanTo: 0, dirtyTo });
  }

  /** Cleans up to so many bytes of what was given back, so that taking it again need not. */
  clean(bytes: number): void {
    const area = this.#returned.find(({ cleanTo, dirtyTo }) => cleanTo < dirtyTo);
    if (area !== undefined) this.#clean(area, bytes);
  }

  /** Puts one key in front of the kernel. */
  putIdentity(words: Uint32Array, at: number): void {
    const own = this.#words;
    const to = this.#columns >>> 2;
    own[to] = words[at]!;
    own[to + 1] = words[at + 1]!;
    own[to + 2] = words[at + 2]!;
    own[to + 3] = words[at + 3]!;
  }

  putPayload(hash: Uint32Array, at: number): void {
    const to = (this.#columns + PAYLOADS) >>> 2;
    this.#words[to] = hash[at]!;
    this.#words[to + 1] = hash[at + 1]!;
  }

  /** The column of identities. */
  get identities(): Uint32Array {
    return this.#words.subarray(this.#columns >>> 2);
  }

  /** Decides events `[from, to)` of a block until it meets what it does not take; returns which that is. */
  decide(
    generations: readonly { readonly address: number }[],
    { identity, payloadHash }: Columns,
    refused: Uint8Array,
    verdicts: Uint8Array,
    from: number,
    to: number,
    positionOfFirst: number,
  ): number {
    if (generations.length > GENERATIONS_MAX) return from;
    const columns = this.#columns;
    generations.forEach(({ address }, at) => (this.#words[((columns + GENERATIONS) >>> 2) + at] = address));
    let at = from;
    while (at < to) {
      const count = Math.min(KERNEL_EVENTS_MAX, to - at);
      this.#words.set(identity.subarray(at * 4, (at + count) * 4), columns >>> 2);
      this.#words.set(payloadHash.subarray(at * 2, (at + count) * 2), (columns + PAYLOADS) >>> 2);
      this.#bytes.set(refused.subarray(at, at + count), columns + REFUSED);
      const decided = this.kernel.decide(generations.length, count, positionOfFirst + (at - from));
      const found = columns + VERDICTS;
      verdicts.set(this.#bytes.subarray(found, found + decided), at);
      at += decided;
      if (decided < count) break;
    }
    return at;
  }

  #clean(area: { readonly address: number; cleanTo: number; readonly dirtyTo: number }, bytes: number): void {
    const to = Math.min(area.dirtyTo, area.cleanTo + bytes);
    this.#bytes.fill(0, area.address + area.cleanTo, area.address + to);
    area.cleanTo = to;
  }

  #see(): void {
    this.#words = new Uint32Array(this.#memory.buffer);
    this.#bytes = new Uint8Array(this.#memory.buffer);
    this.#view = new DataView(this.#memory.buffer);
  }
}
