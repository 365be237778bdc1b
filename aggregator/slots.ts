/**
 * Slots: the memory that blocks live in, from the socket until their rows are encoded. It is allocated once, shared with
 * the worker threads, and used again and again.
 *
 * Before, each message was copied into memory of its own, which went to a thread and back and to a thread again, with a
 * dozen columns beside it. That memory lies outside of the heap, and what of it is let go makes the engine collect
 * garbage: a sixth of what the main thread did; and moving and cloning so much cost another sixth. Now a message is
 * copied into a slot, a thread writes what it finds in the block behind it (prepared-columns.ts), and what is posted are
 * a few numbers and names.
 *
 * Messages of one shard that come one after another share a slot (prepare-queue.ts), or many small ones would take all
 * slots and leave most of each empty: blocks of 4 KB filled a 60th of the memory, and two of three of them found no slot.
 *
 * A slot has *holders*: the consumer, once for each message in it, from the moment that it has placed the message until
 * a flush has encoded it or it is forgotten; and each job of a thread while it runs, since nobody can take a job back.
 * Only when the last one lets go is the slot free. So a fence or a stop may drop everything at any moment, and no thread
 * ever writes into memory that is somebody else's by then. Who fills a slot does not hold it: if all that he has put
 * there was let go, it is free like any other, and he finds that it was taken again.
 *
 * There are as many slots as the backlog has room for. What does not fit, because it is larger than a slot or all are
 * taken, lives in memory of its own, as before: slots are for speed, and nothing waits for one.
 */

/** Room for a block of the edge's default size with what is found in it, twice over. */
export const SLOT_BYTES = 256 * 1024;
/** What one shared memory can have, less a page. */
const MEMORY_BYTES_MAX = 2 ** 32 - 65_536;
const PAGE_BYTES = 65_536;

/** A message that stays where it is until its slot is let go, or for good where it has none. */
export interface Placed {
  readonly bytes: Uint8Array;
  readonly slot: Slot | null;
}

/**
 * Zeroed memory that threads can share. It is that of a WebAssembly memory, so that a kernel can work in it; the system
 * gives it out page by page as it is written.
 */
export function sharedMemory(bytes: number): SharedArrayBuffer {
  const pages = Math.ceil(bytes / PAGE_BYTES);
  const limits = { initial: pages, maximum: pages, shared: true };
  const { buffer } = new WebAssembly.Memory(limits);
  return buffer as ArrayBufferLike as SharedArrayBuffer;
}

/** How many slots a backlog of so many bytes is given. */
export function slotsFor(backlogBytesMax: number): number {
  return Math.max(1, Math.floor(Math.min(backlogBytesMax, MEMORY_BYTES_MAX) / SLOT_BYTES));
}

/** The bytes of a slot, in whichever thread. */
export function slotBytes(memory: SharedArrayBuffer, size: number, number: number): Uint8Array {
  return new Uint8Array(memory, number * size, size);
}

/** Where what stands behind so many bytes begins: typed arrays need aligned memory. */
export function behind(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

export class Slots {
  readonly memory: SharedArrayBuffer;
  /** Of one slot; a multiple of 8. */
  readonly size: number;
  readonly count: number;
  /** Messages that found no slot. */
  passed = 0;
  /** The one that was freed last is taken first: it may still be in the processor's cache. */
  readonly #free: Slot[] = [];

  /** @param onFree sees the bytes of a slot that was freed: what is left in there is nobody's. */
  constructor(
    memory: SharedArrayBuffer,
    size: number,
    onFree: (bytes: Uint8Array) => void = () => undefined,
  ) {
    this.memory = memory;
    this.size = size;
    this.count = Math.floor(memory.byteLength / size);
    for (let number = this.count - 1; number >= 0; number--) {
      const free = (slot: Slot): void => {
        onFree(slot.bytes);
        this.#free.push(slot);
      };
      this.#free.push(new Slot(number, slotBytes(memory, size, number), free));
    }
  }

  get used(): number {
    return this.count - this.#free.length;
  }

  /** Copies a message to the beginning of a free slot; whoever gets it holds that. */
  place(message: Uint8Array): Placed {
    const { length } = message;
    const slot = length > 0 && length <= this.size ? this.#free.pop() : undefined;
    if (slot === undefined) {
      this.passed += 1;
      return { bytes: new Uint8Array(message), slot: null };
    }
    slot.begin();
    return { bytes: slot.place(message), slot };
  }
}

export class Slot {
  readonly number: number;
  readonly bytes: Uint8Array;
  readonly #free: (slot: Slot) => void;
  #holders = 0;
  #turn = 0;
  #end = 0;

  constructor(number: number, bytes: Uint8Array, free: (slot: Slot) => void) {
    this.number = number;
    this.bytes = bytes;
    this.#free = free;
  }

  /** How often it was taken: who remembers it knows whether the slot is still the one that he has taken. */
  get turn(): number {
    return this.#turn;
  }

  /** Behind all that was placed and reserved: a multiple of 8, or the slot's own end. */
  get end(): number {
    return this.#end;
  }

  get isHeld(): boolean {
    return this.#holders > 0;
  }

  /** For a new owner. */
  begin(): void {
    this.#turn += 1;
    this.#end = 0;
  }

  /** Copies a message behind all that is there, where it must have room; whoever gets it holds the slot. */
  place(message: Uint8Array): Uint8Array {
    const { length } = message;
    const start = this.#end;
    if (start + length > this.bytes.length)
      throw new Error(`no room for ${length} bytes in slot ${this.number}`);
    const bytes = this.bytes.subarray(start, start + length);
    // Not set(): into shared memory, from an odd address, that goes byte by byte (23 us for 92 KB, this 2 us).
    Buffer.from(bytes.buffer, bytes.byteOffset, length).fill(message);
    this.reserve(length);
    this.hold();
    return bytes;
  }

  /** Nothing will be placed in so many further bytes, or in what is left if that is less. */
  reserve(bytes: number): void {
    this.#end = Math.min(this.bytes.length, this.#end + behind(bytes));
  }

  hold(): void {
    this.#holders += 1;
  }

  /** Once for each `hold`, and for `place`. */
  release(): void {
    if (this.#holders === 0) throw new Error(`slot ${this.number} is let go by one who does not hold it`);
    this.#holders -= 1;
    if (this.#holders === 0) this.#free(this);
  }
}
