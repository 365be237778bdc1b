/** Numbers of [0, 1) that depend on the seed alone (xorshift32, G. Marsaglia 2003). */
export function seededRandom(seed: number): () => number {
  let state = (seed ^ 0x9e3779b9) | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
