// What the pipeline must come to, worked out from the numbers of the events alone: by subject, in typed arrays. All
// sums stay below 2^53 (2^32 events of at most 99,999), so floats hold them exactly.
import { duplicatesAmong, MODELS, Workload, type SentPhase } from './workload.ts';

/** The meters of the workload, and the one of the probe. */
export const METERS = [
  {
    key: 'input_tokens',
    eventType: 'llm.request',
    aggregation: 'sum',
    valueProperty: 'input_tokens',
    groupBy: ['model'],
  },
  {
    key: 'output_tokens',
    eventType: 'llm.request',
    aggregation: 'sum',
    valueProperty: 'output_tokens',
    groupBy: ['model'],
  },
  {
    key: 'requests',
    eventType: 'llm.request',
    aggregation: 'count',
    filters: [{ property: 'model', notIn: [MODELS[0]] }],
  },
  { key: 'largest_input', eventType: 'llm.request', aggregation: 'max', valueProperty: 'input_tokens' },
  { key: 'users', eventType: 'llm.request', aggregation: 'unique_count', valueProperty: 'user' },
] as const;
export type MeterKey = (typeof METERS)[number]['key'];

/** Totals of a meter over all subjects; largest_input and users are added up over the subjects. */
export type MeterTotals = Readonly<Record<MeterKey, bigint>>;

export class Tally {
  readonly subjects: number;
  received = 0;
  counted = 0;
  /** By subject * models + model. */
  readonly inputTokens: Float64Array;
  readonly outputTokens: Float64Array;
  /** By subject. */
  readonly events: Uint32Array;
  readonly requests: Uint32Array;
  readonly largestInput: Uint32Array;
  /** A bit a user, the first 32 and the others. */
  readonly #usersLow: Int32Array;
  readonly #usersHigh: Int32Array;

  constructor(subjects: number) {
    this.subjects = subjects;
    this.inputTokens = new Float64Array(subjects * MODELS.length);
    this.outputTokens = new Float64Array(subjects * MODELS.length);
    this.events = new Uint32Array(subjects);
    this.requests = new Uint32Array(subjects);
    this.largestInput = new Uint32Array(subjects);
    this.#usersLow = new Int32Array(subjects);
    this.#usersHigh = new Int32Array(subjects);
  }

  get duplicates(): number {
    return this.received - this.counted;
  }

  /** Adds everything that was sent in a phase. */
  add(seed: number, sent: SentPhase): void {
    const { subjects } = this;
    const workload = new Workload({ seed, subjects, phase: sent.phase });
    const events = sent.requests * sent.eventsPerRequest;
    let counted = 0;
    for (let n = 0; n < events; n++) {
      if (workload.originalOf(n) !== n) continue;
      counted += 1;
      workload.look(n);
      this.#addEvent(workload);
    }
    if (events - counted !== duplicatesAmong(events))
      throw new Error(`${events - counted} duplicates among ${events}, not ${duplicatesAmong(events)}`);
    this.received += events;
    this.counted += counted;
  }

  #addEvent({ subject, model, input, output, user }: Workload): void {
    const group = subject * MODELS.length + model;
    this.inputTokens[group]! += input;
    this.outputTokens[group]! += output;
    this.events[subject]! += 1;
    if (model !== 0) this.requests[subject]! += 1;
    if (input > this.largestInput[subject]!) this.largestInput[subject] = input;
    if (user < 32) this.#usersLow[subject]! |= 1 << user;
    else this.#usersHigh[subject]! |= 1 << (user - 32);
  }

  users(subject: number): number {
    return bitsIn(this.#usersLow[subject]!) + bitsIn(this.#usersHigh[subject]!);
  }

  /** A meter's value for a subject, over all of its groups. */
  valueOf(meter: MeterKey, subject: number): number {
    switch (meter) {
      case 'input_tokens':
        return overModels(this.inputTokens, subject);
      case 'output_tokens':
        return overModels(this.outputTokens, subject);
      case 'requests':
        return this.requests[subject]!;
      case 'largest_input':
        return this.largestInput[subject]!;
      case 'users':
        return this.users(subject);
    }
  }

  totals(): MeterTotals {
    const sum = (meter: MeterKey): bigint => {
      let total = 0n;
      for (let subject = 0; subject < this.subjects; subject++) total += BigInt(this.valueOf(meter, subject));
      return total;
    };
    return {
      input_tokens: sum('input_tokens'),
      output_tokens: sum('output_tokens'),
      requests: sum('requests'),
      largest_input: sum('largest_input'),
      users: sum('users'),
    };
  }
}

function overModels(values: Float64Array, subject: number): number {
  let sum = 0;
  for (let model = 0; model < MODELS.length; model++) sum += values[subject * MODELS.length + model]!;
  return sum;
}

function bitsIn(word: number): number {
  let count = 0;
  for (let rest = word; rest !== 0; rest &= rest - 1) count += 1;
  return count;
}
