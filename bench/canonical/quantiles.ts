/**
 * Quantiles of times in bounded memory, however many there are: counts in buckets of which 64 divide each doubling, so
 * a quantile is at most 1.6 % too high, and never too low.
 */
const STEPS = 64;
const STEP_BITS = 6;
/** Microseconds: 2^36 are 19 hours, and what takes longer counts as that. */
const OCTAVES = 36;

export class Quantiles {
  readonly #counts = new Float64Array(STEPS * (OCTAVES - STEP_BITS + 2));
  #count = 0;

  get count(): number {
    return this.#count;
  }

  addMs(ms: number): void {
    const micros = Math.max(0, Math.ceil(ms * 1_000));
    this.#counts[Math.min(this.#counts.length - 1, bucketOf(micros))]! += 1;
    this.#count += 1;
  }

  /** The least time, in milliseconds, that `part` of all do not exceed; 0 when there are none. */
  ms(part: number): number {
    const wanted = Math.max(1, Math.ceil(this.#count * part));
    let seen = 0;
    for (let bucket = 0; bucket < this.#counts.length; bucket++) {
      seen += this.#counts[bucket]!;
      if (seen >= wanted) return endOf(bucket) / 1_000;
    }
    return 0;
  }
}

/** Up to 2 * STEPS every microsecond has a bucket; beyond, STEPS each doubling. */
function bucketOf(micros: number): number {
  if (micros < 2 * STEPS) return micros;
  const octave = Math.floor(Math.log2(micros)) - STEP_BITS;
  return octave * STEPS + Math.floor(micros / 2 ** octave);
}

/** The highest number in a bucket. */
function endOf(bucket: number): number {
  if (bucket < 2 * STEPS) return bucket;
  const octave = Math.floor(bucket / STEPS) - 1;
  return (bucket - octave * STEPS + 1) * 2 ** octave - 1;
}

/** Of a few numbers that are at hand. */
export function quantileOf(values: readonly number[], part: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? 0;
}

/** By least squares: by how much the values rise with each step of x. 0 for fewer than two. */
export function slopeOf(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (at: 0 | 1): number => points.reduce((sum, point) => sum + point[at], 0) / points.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  let [above, below] = [0, 0];
  for (const [x, y] of points) {
    above += (x - meanX) * (y - meanY);
    below += (x - meanX) ** 2;
  }
  return below === 0 ? 0 : above / below;
}
