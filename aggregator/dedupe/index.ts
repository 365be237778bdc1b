/**
 * Which identities were counted, where in the log, and with which payload: exact, in bounded memory, and without
 * forgetting anything.
 *
 * Three tiers. Hot (generation.ts): the newest identities, exact. Cold (cold-keys.ts): of all others, whether they may
 * have been counted; "no" proves an identity new. ClickHouse: what is counted, asked only for what the cold tier did
 * not rule out. Verdicts come out the same whatever lies in which tier.
 *
 * A key's way. It goes into the current generation. When that holds a third of the bound, it becomes the previous one
 * and a new one begins; the one before is drained: with every block some of its keys go over into the cold tier, two
 * for each new one, so that it is gone before the current generation is half full and no block ever waits for more.
 * Until then it is looked into. A key that is not durable yet cannot be asked for, so a generation is drained only
 * when the watermark is behind its last key; the bound waits for the flush, whose backlog has a bound itself.
 *
 * Between asking and deciding nothing may go over into the cold tier, or an identity that was asked for, not found,
 * and counted in between would be new a second time: `rotate` is called when all that was asked for is decided.
 */
import { positionInShard } from '../position-in-shard.ts';
import { ColdKeys } from './cold-keys.ts';
import { Generation, NONE, type ExactKeys } from './generation.ts';
import { KernelGeneration } from './kernel-generation.ts';
import { KERNEL_BYTES_MAX, KernelMemory, type Columns } from './kernel-memory.ts';

/** No entry. Below EARLIER, so that "was before" is one comparison. */
export const ABSENT = -2;

/** 32 million keys at 0.1 % false answers. */
const FILTER_BYTES_MAX = 64 * 1024 ** 2;
/** Keys drained with a block even if it brought nothing new. */
const DRAIN_LEAST = 64;
/** Of a kernel's memory: the current one, the previous one, the one that is drained, and one for a late flush. */
const GENERATIONS_LEAST = 4;
/** Of memory that a generation gave back, for each new key: eight times what a key of the directory takes. */
const CLEAN_BYTES = 32;

export class DedupeIndex {
  readonly #third: number;
  readonly #cold: ColdKeys;
  /** Null where the reference keeps everything: the bound is beyond what one memory holds. */
  readonly #memory: KernelMemory | null;
  /** Newest first. */
  #generations: ExactKeys[];
  /** The same, while the kernel has all of them. */
  #decidable: readonly KernelGeneration[] | null = null;
  #found: ExactKeys;
  #foundEntry = 0;
  #putSinceDrain = 0;
  /** How many of the oldest generation's keys are in the cold tier. */
  #drained = 0;

  /**
   * @param keysMax identities kept exactly; @param expected how many are about to be loaded; @param filterBytesMax the
   * bound of the cold tier; @param kernelBytesMax 0 for the reference alone.
   */
  constructor(
    keysMax: number,
    expected = 0,
    filterBytesMax = FILTER_BYTES_MAX,
    kernelBytesMax = KERNEL_BYTES_MAX,
  ) {
    this.#third = Math.max(1, Math.floor(keysMax / 3));
    this.#cold = new ColdKeys(filterBytesMax, this.#third);
    const needed = KernelGeneration.bytesFor(this.#third) * GENERATIONS_LEAST;
    this.#memory = needed < kernelBytesMax ? new KernelMemory(kernelBytesMax) : null;
    this.#found = this.#generation(expected);
    this.#generations = [this.#found];
    this.#seeDecidable();
  }

  /** How many keys a generation takes. */
  get generationKeys(): number {
    return this.#third;
  }

  /** Identities kept exactly. */
  get size(): number {
    return this.#generations.reduce((sum, generation) => sum + generation.size, 0);
  }

  get bytes(): number {
    const spare = this.#memory?.spareBytes ?? 0;
    return this.#generations.reduce((sum, generation) => sum + generation.bytes, spare);
  }

  /** Identities, filters and bytes of the cold tier. */
  get cold(): {
    readonly size: number;
    readonly filters: number;
    readonly bytes: number;
    falseShare(): number;
  } {
    return this.#cold;
  }

  /** Nothing has gone over into the cold tier: what `look` does not know is new. */
  get complete(): boolean {
    return this.#cold.filters === 0;
  }

  /** The position of the identity's first event, EARLIER, or ABSENT. */
  look(words: Uint32Array, at: number): number {
    for (const generation of this.#generations) {
      const entry = generation.find(words, at);
      if (entry !== NONE) {
        this.#found = generation;
        this.#foundEntry = entry;
        return generation.positionOf(entry);
      }
    }
    return ABSENT;
  }

  /** Whether what the last `look` found said the same. */
  samePayload(hash: Uint32Array, at: number): boolean {
    return this.#found.samePayload(this.#foundEntry, hash, at);
  }

  /** Whether ClickHouse has to be asked before the identity can be decided. */
  unknown(words: Uint32Array, at: number): boolean {
    return this.#cold.has(words, at) && this.look(words, at) === ABSENT;
  }

  put(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): void {
    if (!this.#generations[0]!.put(words, at, position, hash, hashAt)) {
      this.seal();
      this.#generations[0]!.put(words, at, position, hash, hashAt);
    }
    this.#putSinceDrain += 1;
  }

  /**
   * Decides events `[from, to)` of a block as `decideBlock` of verdict.ts would, in the kernel; returns the first that
   * it leaves to that.
   */
  decide(
    block: Columns,
    refused: Uint8Array,
    verdicts: Uint8Array,
    sequence: number,
    from: number,
    to: number,
  ): number {
    const generations = this.#decidable;
    if (generations === null) return from;
    const current = generations[0]!;
    const before = current.size;
    const position = positionInShard(sequence, from);
    const decided = this.#memory!.decide(generations, block, refused, verdicts, from, to, position);
    this.#putSinceDrain += current.size - before;
    return decided;
  }

  /** Takes a key that ClickHouse has: exactly while the current generation has room, else into the cold tier. */
  load(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): void {
    const generation = this.#generations[0]!;
    const isExact = generation.size < this.#third && generation.put(words, at, position, hash, hashAt);
    if (!isExact) this.#cold.add(words, at);
  }

  /** Makes room for so many keys, in the cold tier, that ClickHouse has. */
  expectCold(keys: number): void {
    this.#cold.reserve(keys);
  }

  loadCold(words: Uint32Array, at: number): void {
    this.#cold.add(words, at);
  }

  /** Keeps to the bound. Call it when all that was asked for is decided; `durable` is the watermark. */
  rotate(durable: number): void {
    if (this.#generations[0]!.size >= this.#third) this.seal();
    const waiting = this.#generations.length - 2;
    if (waiting > 0) this.#drain(durable, (this.#putSinceDrain * 2 + DRAIN_LEAST) * waiting);
    this.#memory?.clean((this.#putSinceDrain + DRAIN_LEAST) * CLEAN_BYTES);
    this.#putSinceDrain = 0;
  }

  /** Ends the current generation: what is put next is newer. */
  seal(): void {
    this.#found = this.#generation(this.#third);
    this.#generations = [this.#found, ...this.#generations];
    this.#seeDecidable();
  }

  #drain(durable: number, keys: number): void {
    let left = keys;
    while (left > 0 && this.#generations.length > 2) {
      const oldest = this.#generations.at(-1)!;
      if (oldest.newest > durable) return;
      const handed = oldest.handOver(left, (words, at) => this.#cold.add(words, at));
      left -= handed;
      this.#drained += handed;
      if (this.#drained < oldest.size) return;
      this.#drained = 0;
      this.#generations.pop();
      oldest.release();
      this.#seeDecidable();
    }
  }

  #generation(expected: number): ExactKeys {
    const inKernel = this.#memory === null ? null : KernelGeneration.in(this.#memory, this.#third);
    return inKernel ?? new Generation(this.#third, expected);
  }

  #seeDecidable(): void {
    const inKernel = this.#generations.filter((one) => one instanceof KernelGeneration);
    this.#decidable = inKernel.length === this.#generations.length ? inKernel : null;
  }
}
