/**
 * Random 128-bit identities from a seed, for tests and benchmarks: xoshiro128** (D. Blackman and S. Vigna,
 * "Scrambled Linear Pseudorandom Number Generators", 2021), seeded by SplitMix32.
 */
export class RandomWords {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number) {
    let state = seed | 0;
    const next = (): number => {
      state = (state + 0x9e37_79b9) | 0;
      let mixed = Math.imul(state ^ (state >>> 16), 0x21f0_aaad);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a_2d97);
      return mixed ^ (mixed >>> 15);
    };
    [this.#a, this.#b, this.#c, this.#d] = [next(), next(), next(), next() | 1];
  }

  /** 32 bits, unsigned. */
  word(): number {
    const scrambled = Math.imul(this.#b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /** The next identity, to `words[at, at + 4)`. */
  identity(words: Uint32Array, at: number): void {
    for (let word = 0; word < 4; word++) words[at + word] = this.word();
  }

  some(identities: number): Uint32Array {
    const words = new Uint32Array(identities * 4);
    for (let at = 0; at < words.length; at += 4) this.identity(words, at);
    return words;
  }
}
