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

/** A seed of its own for each name and number, so that a round draws the same whatever ran before it. */
export function seedOf(seed: number, name: string, number: number): number {
  let state = seed | 0;
  for (const character of `${name} ${number}`) {
    state = Math.imul(state ^ character.charCodeAt(0), 0x01000193);
    state ^= state >>> 15;
  }
  return state >>> 0;
}

/** A whole number of [least, most]. */
export function between(random: () => number, least: number, most: number): number {
  return least + Math.floor(random() * (most - least + 1));
}

export function pick<T>(random: () => number, from: readonly T[]): T {
  return from[between(random, 0, from.length - 1)]!;
}

export function shuffled<T>(random: () => number, from: readonly T[]): T[] {
  const left = [...from];
  return from.map(() => left.splice(between(random, 0, left.length - 1), 1)[0]!);
}
