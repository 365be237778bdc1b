/**
 * The canonical workload: what event n of a phase says follows from n and the seed by arithmetic, so a run of any
 * length can be worked out again without keeping an event.
 *
 *   subjects    the rank of a subject is drawn from octaves that are equally likely (1, 2 to 3, 4 to 7, ...), which is
 *               Zipf's law with exponent 1: of 100,000 subjects the first has 6 % of the events, the first hundred
 *               40 %, and the last half 12 %
 *   values      two numbers of 1 to 5 digits, one of 4 models, one of 64 users
 *   duplicates  one event in fifty repeats an earlier one, byte for byte: a quarter of them an event of the same
 *               request (of the last ten, where a request holds one), half one of the 64 requests before, as retries
 *               do, a quarter any event since the phase began
 *   ids         version 4 UUIDs; the first word is a bijection of n, a digit of the third says which phase
 *
 * How many digits a number has follows from n modulo 10, and an event repeats one with the same remainder: so a
 * request has the same layout every time, and the generator only patches digits.
 */
export interface WorkloadOptions {
  /** 32 bits. */
  readonly seed: number;
  readonly subjects: number;
  /** 0 to 15: phases of one run share no event. */
  readonly phase: number;
}

/** What was sent in one phase: events 0 to requests * eventsPerRequest - 1. */
export interface SentPhase {
  readonly phase: number;
  readonly requests: number;
  /** 1, or a multiple of 10. */
  readonly eventsPerRequest: number;
}

export const TENANT = 'bench';
export const EVENT_TYPE = 'llm.request';
export const MODELS = ['small-0', 'small-1', 'large-0', 'large-1'] as const;
export const USERS = 64;
export const SUBJECTS = 100_000;
/** Events are numbered in 32 bits. */
export const EVENTS_MAX = 2 ** 32 - 1;

/** Digits of the two numbers, by n modulo 10. */
export const INPUT_DIGITS = [4, 3, 4, 2, 4, 3, 5, 4, 3, 4] as const;
export const OUTPUT_DIGITS = [3, 3, 2, 3, 4, 3, 2, 3, 3, 1] as const;
export const LAYOUTS = INPUT_DIGITS.length;
export const SUBJECT_DIGITS = 6;

/** Small models take most of the requests. */
const MODEL_OF = Uint8Array.of(0, 0, 0, 1, 1, 2, 2, 3);
const LEAST = Int32Array.of(0, 1, 10, 100, 1_000, 10_000);

/** Stretch of numbers in which duplicates stand at fixed places. It is a request of the canonical size. */
const STRETCH = 100;
const DUPLICATE_EVERY = 50;
const DUPLICATE_AT = 37;
/** From a duplicate to an original in the same stretch: a multiple of LAYOUTS that leads to no other duplicate. */
const BACK = 10;
const RECENT_STRETCHES = 64;

/** The order of names is not the order of ranks. A prime, so that every subject has a name of its own. */
const NAME_STEP = 7_919;

/**
 * The finalizer of MurmurHash3: a bijection on 32 bits. Everything here stays within signed 32 bits, which the engine
 * keeps out of memory: with unsigned ones an event took half as long again.
 */
export function mix(word: number): number {
  let mixed = word;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** How many of the first events of a phase repeat another one. */
export function duplicatesAmong(events: number): number {
  const places = Math.floor((events + DUPLICATE_EVERY - 1 - DUPLICATE_AT) / DUPLICATE_EVERY);
  // The second place of the first stretch has no stretch before it to repeat from.
  return places - (events > DUPLICATE_AT + DUPLICATE_EVERY ? 1 : 0);
}

/** Looks at one event after the other; what it finds stands in its fields until the next. */
export class Workload {
  readonly subjects: number;
  readonly phase: number;
  /** The number of the subject, which is a part of its name. */
  subject = 0;
  model = 0;
  user = 0;
  input = 0;
  output = 0;
  readonly #seed: number;
  readonly #octaves: number;
  readonly #lastWidth: number;

  constructor({ seed, subjects, phase }: WorkloadOptions) {
    if (subjects % NAME_STEP === 0 || subjects < 2 || subjects >= 10 ** SUBJECT_DIGITS)
      throw new RangeError(`2 to 999,999 subjects, and no multiple of ${NAME_STEP}`);
    if (!Number.isInteger(phase) || phase < 0 || phase > 15) throw new RangeError('a phase is 0 to 15');
    this.subjects = subjects;
    this.phase = phase;
    this.#seed = mix((mix(seed | 0) + phase) | 0);
    this.#octaves = Math.floor(Math.log2(subjects));
    this.#lastWidth = subjects - 2 ** this.#octaves + 1;
  }

  /** The event that number n repeats; n itself when it is the first. An original repeats none. */
  originalOf(n: number): number {
    if (n % DUPLICATE_EVERY !== DUPLICATE_AT) return n;
    const stretch = Math.floor(n / STRETCH);
    const first = n % STRETCH === DUPLICATE_AT;
    if (first && stretch % 2 === 0) return n - BACK;
    if (stretch === 0) return n;
    const drawn = mix(n ^ this.#seed ^ 0x2545f491) >>> 1;
    if (!first && stretch % 2 === 1) return (drawn % stretch) * STRETCH + (n % STRETCH) - BACK;
    return n - BACK - STRETCH * (1 + (drawn % Math.min(stretch, RECENT_STRETCHES)));
  }

  /** `n` is an original. */
  look(n: number): void {
    const first = mix((n + this.#seed) | 0);
    const second = mix(first ^ 0x9e3779b9);
    const third = mix(second ^ 0x85157af5);
    const fourth = mix(third ^ 0x1b56c4e9);
    const layout = n % LAYOUTS;
    const inputLeast = LEAST[INPUT_DIGITS[layout]!]!;
    const outputLeast = LEAST[OUTPUT_DIGITS[layout]!]!;
    this.model = MODEL_OF[first & 7]!;
    this.subject = this.subjectOfRank(this.#rank(first >>> 8, second >>> 1));
    this.input = inputLeast + ((third >>> 1) % (9 * inputLeast));
    this.output = outputLeast + ((fourth & 0xffff) % (9 * outputLeast));
    this.user = fourth >>> 26;
  }

  /** The number in the name of the subject with this rank; rank 0 has the most events. */
  subjectOfRank(rank: number): number {
    return (rank * NAME_STEP) % this.subjects;
  }

  /** The four words of the id of an original, into `words`. */
  idWords(n: number, words: Int32Array): void {
    words[0] = mix(n ^ this.#seed);
    words[1] = mix(words[0] ^ 0x7feb352d);
    words[2] = mix(words[1] ^ 0x046ca68b);
    words[3] = mix(words[2] ^ 0x5851f42d);
  }

  /** Each octave has weight 2, the last one, which is cut off, 1. */
  #rank(which: number, where: number): number {
    const octaves = this.#octaves;
    const octave = (which % (2 * octaves + 1)) >> 1;
    const begin = 1 << octave;
    const within = octave < octaves ? where & (begin - 1) : where % this.#lastWidth;
    return begin - 1 + within;
  }
}

export const subjectName = (subject: number): string =>
  `cus_${String(subject).padStart(SUBJECT_DIGITS, '0')}`;
/** The number in a subject's name; -1 for another name. */
export const subjectNumber = (name: string): number =>
  /^cus_\d{6}$/.test(name) ? Number(name.slice(4)) : -1;
