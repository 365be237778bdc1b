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
import { ColdKeys } from './cold-keys.ts';
import { Generation, NONE } from './generation.ts';

/** No entry. Below EARLIER, so that "was before" is one comparison. */
export const ABSENT = -2;

/** 32 million keys at 0.1 % false answers. */
const FILTER_BYTES_MAX = 64 * 1024 ** 2;
/** Keys drained with a block even if it brought nothing new. */
const DRAIN_LEAST = 64;

export class DedupeIndex {
  readonly #third: number;
  readonly #cold: ColdKeys;
  /** Newest first. */
  #generations: Generation[];
  #found: Generation;
  #foundEntry = 0;
  #putSinceDrain = 0;
  /** How many of the oldest generation's keys are in the cold tier. */
  #drained = 0;
  readonly #words = new Uint32Array(4);

  /**
   * @param keysMax identities kept exactly; @param expected how many are about to be loaded; @param filterBytesMax the
   * bound of the cold tier.
   */
  constructor(keysMax: number, expected = 0, filterBytesMax = FILTER_BYTES_MAX) {
    this.#third = Math.max(1, Math.floor(keysMax / 3));
    this.#cold = new ColdKeys(filterBytesMax, this.#third);
    this.#found = this.#generation(expected);
    this.#generations = [this.#found];
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
    return this.#generations.reduce((sum, generation) => sum + generation.bytes, 0);
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
    if (this.#generations[0]!.full) this.seal();
    this.#generations[0]!.put(words, at, position, hash, hashAt);
    this.#putSinceDrain += 1;
  }

  /** Takes a key that ClickHouse has: exactly while the current generation has room, else into the cold tier. */
  load(words: Uint32Array, at: number, position: number, hash: Uint32Array, hashAt: number): void {
    const generation = this.#generations[0]!;
    if (generation.size < this.#third) generation.put(words, at, position, hash, hashAt);
    else this.#cold.add(words, at);
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
    this.#putSinceDrain = 0;
  }

  /** Ends the current generation: what is put next is newer. */
  seal(): void {
    this.#found = this.#generation(this.#third);
    this.#generations = [this.#found, ...this.#generations];
  }

  #drain(durable: number, keys: number): void {
    let left = keys;
    while (left > 0 && this.#generations.length > 2) {
      const oldest = this.#generations.at(-1)!;
      if (oldest.newest > durable) return;
      const end = Math.min(oldest.size, this.#drained + left);
      left -= end - this.#drained;
      for (; this.#drained < end; this.#drained++) {
        oldest.identityOf(this.#drained, this.#words, 0);
        this.#cold.add(this.#words, 0);
      }
      if (end < oldest.size) return;
      this.#drained = 0;
      this.#generations.pop();
    }
  }

  #generation(expected: number): Generation {
    return new Generation(this.#third, expected);
  }
}
