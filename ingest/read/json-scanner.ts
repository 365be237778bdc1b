/**
 * The fast way of reading JSON: events that look like one seen before are read by the kernel (assembly/edge/scan.ts), as
 * many as stand in a row. All others are read by JsonReader, and what it reads and admission lets in becomes a template for
 * the next ones (json-template.ts).
 *
 * What a template says holds for one tenant, whose meters let every event of it through whatever its values are; for one
 * state of those meters and of the path table; and for one format. A tenant has a few, tried in turn; a tenant whose events
 * are never like one before soon has none, and is asked again after some thousand events: learning in vain costs as much as
 * reading.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import { CANDIDATES_MAX, TEMPLATES_MAX, TEMPLATE_BYTES, type EdgeKernel } from '../edge-kernel.ts';
import type { BodyContext } from './body.ts';
import type { Draft } from './draft.ts';
import { templateOf, type Step } from './json-template.ts';

/** Tenants remembered. */
const TENANTS_MAX = 4_096;
/** Formats that differ in what they take: JSON, lines, and both with a specversion. */
const FORMATS = 4;
const STEPS_AT = 16;
const STEP_BYTES = 16;

// Patience is for trying: an event read by the kernel pays for a try in vain, which costs a fifth of what it saves.
const PATIENCE_FIRST = 64;
const PATIENCE_MAX = 256;
// Lessons are for learning, which costs as much as reading three events.
const LESSONS_FIRST = 16;
const EVENTS_A_LESSON = 16;
/** Events that neither is spent on, after which a tenant without either has both again. */
const REST_EVENTS = 4_096;

interface Known {
  readonly tenant: string;
  /** The state of the meters and of the path table for which the templates hold. */
  metersVersion: number;
  generation: number;
  /** By format: numbers of templates, the newest first. */
  readonly lists: number[][];
  patience: number;
  /** In events that pay for one. */
  lessons: number;
  resting: number;
}

export class JsonScanner {
  /** After `scan`: where it stopped, how many events it read, and whether it stopped behind an event. */
  at = 0;
  events = 0;
  isBehind = false;

  readonly #kernel: EdgeKernel;
  readonly #tenants = new Map<string, Known>();
  /** By template: whose it is. */
  readonly #owners: (Known | null)[] = Array.from({ length: TEMPLATES_MAX }, () => null);
  #nextTemplate = 0;
  /** A template that is being made. */
  readonly #scratch = new Uint8Array(TEMPLATE_BYTES);
  readonly #scratchWords = new Uint32Array(this.#scratch.buffer);

  // Of the body that is read.
  #context: BodyContext | null = null;
  #known: Known | null = null;
  #format = 0;
  #isLines = false;
  #isOurs = false;

  constructor(kernel: EdgeKernel) {
    this.#kernel = kernel;
  }

  /** Before the events of a body. */
  begin(context: BodyContext, batch: EventBatch, requireSpecversion: boolean, isLines: boolean): void {
    this.#context = context;
    this.#format = (requireSpecversion ? 1 : 0) + (isLines ? 2 : 0);
    this.#isLines = isLines;
    this.#isOurs = batch.home === this.#kernel.home;
    const known = (this.#known = this.#tenants.get(context.tenant) ?? null);
    if (known === null) return;
    const { version } = context.meters;
    if (known.metersVersion !== version || known.generation !== batch.paths.generation) {
      this.#forget(known);
      known.metersVersion = version;
      known.generation = batch.paths.generation;
    }
    this.#tell(known);
  }

  /** Whether `scan` may read something from here on. */
  canScan(batch: EventBatch): boolean {
    const known = this.#known;
    if (known === null || known.patience === 0 || known.lists[this.#format]!.length === 0) return false;
    return this.#isOurs && batch.isHome;
  }

  /** Reads events from `start` on, `most` of them at most, into the batch. Returns how many of them no meter counts. */
  scan(start: number, batch: EventBatch, most: number): number {
    const kernel = this.#kernel;
    const { bodyEnd, count, fieldCount } = batch;
    this.at = kernel.exports.scan(start, bodyEnd, count, fieldCount, most, this.#isLines);
    this.isBehind = kernel.resultWord(0) === 1;
    const events = kernel.resultWord(1);
    this.events = events;
    const known = this.#known!;
    if (events === 0) {
      known.patience -= 1;
      return 0;
    }
    known.patience = Math.min(PATIENCE_MAX, known.patience + events);
    known.lessons = Math.min(LESSONS_FIRST * EVENTS_A_LESSON, known.lessons + events);
    batch.advance(count + events, kernel.resultWord(2));
    return kernel.resultWord(3);
  }

  /** The event in `[start, end)` of the body was committed last, after the draft. */
  learn(batch: EventBatch, draft: Draft, start: number, end: number): void {
    const { tenant, meters } = this.#context!;
    const known = (this.#known ??= this.#meet(tenant, meters.version, batch.paths.generation));
    if (!this.#isOurs || !batch.isHome) return;
    if (known.patience === 0 || known.lessons < EVENTS_A_LESSON) {
      known.resting += 1;
      if (known.resting < REST_EVENTS) return;
      known.patience = PATIENCE_FIRST;
      known.lessons = LESSONS_FIRST * EVENTS_A_LESSON;
      known.resting = 0;
    }
    known.lessons -= EVENTS_A_LESSON;
    const verdict = meters.assures(tenant, batch);
    if (verdict === 'asks') return;
    const steps = templateOf(batch, draft, start, end);
    if (steps === null || !fits(steps)) return;
    const length = this.#encode(steps, batch.bytes);
    const list = known.lists[this.#format]!;
    // The event may have been like one before but for a value that the kernel does not take.
    if (list.some((number) => this.#isSame(number, length))) return;
    const number = this.#take(known);
    this.#write(number, length, verdict === 'unmatched');
    list.unshift(number);
    if (list.length > CANDIDATES_MAX) this.#owners[list.pop()!] = null;
    this.#tell(known);
  }

  /** The kernel is told what may be tried. */
  #tell({ lists }: Known): void {
    const list = lists[this.#format]!;
    if (list.length === 0) return;
    const kernel = this.#kernel;
    for (let at = 0; at < list.length; at++) kernel.u32[kernel.candidates / 4 + at] = list[at]!;
    const { nowMs, admission } = this.#context!;
    const earliest = Math.max(0, nowMs - admission.ageMsMax);
    kernel.exports.begin(list.length, earliest, nowMs + admission.aheadMsMax, nowMs);
  }

  #meet(tenant: string, metersVersion: number, generation: number): Known {
    if (this.#tenants.size === TENANTS_MAX) {
      this.#tenants.clear();
      this.#owners.fill(null);
    }
    const lists = Array.from({ length: FORMATS }, () => []);
    const patience = PATIENCE_FIRST;
    const lessons = LESSONS_FIRST * EVENTS_A_LESSON;
    const known = { tenant, metersVersion, generation, lists, patience, lessons, resting: 0 };
    this.#tenants.set(tenant, known);
    return known;
  }

  #forget(known: Known): void {
    for (const list of known.lists) {
      for (const number of list) this.#owners[number] = null;
      list.length = 0;
    }
  }

  /** A number for a template, taken from whoever has had it longest. */
  #take(known: Known): number {
    const number = this.#nextTemplate;
    this.#nextTemplate = (number + 1) % TEMPLATES_MAX;
    const owner = this.#owners[number]!;
    if (owner !== null) {
      for (const list of owner.lists) {
        const at = list.indexOf(number);
        if (at >= 0) list.splice(at, 1);
      }
    }
    this.#owners[number] = known;
    return number;
  }

  /** Writes the steps and behind them their literals as the kernel has them; returns how many bytes that are. */
  #encode(steps: readonly Step[], bytes: Uint8Array): number {
    const words = this.#scratchWords;
    let word = 0;
    let text = steps.length * STEP_BYTES;
    for (const { kind, what, start, end } of steps) {
      words.set([kind, what, STEPS_AT + text, end - start], word);
      word += STEP_BYTES / 4;
      this.#scratch.set(bytes.subarray(start, end), text);
      text += end - start;
    }
    return text;
  }

  #isSame(number: number, length: number): boolean {
    const { u8, templates } = this.#kernel;
    const begin = templates + number * TEMPLATE_BYTES + STEPS_AT;
    for (let at = 0; at < length; at++) if (u8[begin + at] !== this.#scratch[at]) return false;
    return true;
  }

  #write(number: number, length: number, isUnmatched: boolean): void {
    const { u8, u32, templates } = this.#kernel;
    const begin = templates + number * TEMPLATE_BYTES;
    u32.fill(0, begin / 4, (begin + STEPS_AT) / 4);
    u32[begin / 4] = number; // Until something else has followed it, it follows itself.
    u32[begin / 4 + 2] = isUnmatched ? 1 : 0;
    u8.set(this.#scratch.subarray(0, length), begin + STEPS_AT);
  }
}

/** With what a comparison may read behind the last literal. */
function fits(steps: readonly Step[]): boolean {
  const first = steps[0]!;
  const last = steps.at(-1)!;
  return STEPS_AT + steps.length * STEP_BYTES + (last.end - first.start) + 16 <= TEMPLATE_BYTES;
}
