/**
 * The events of one body, in columns: what a reader of bodies fills and the packing into blocks reads. No
 * event becomes an object and no text a string on the way: a text is a range of `bytes`.
 *
 * `bytes` begins with a copy of the body (a copy of 228 bytes is 16 ns, less than a view on foreign memory), so that
 * the body may be memory that is gone after the call, and all readers see one kind of array. Zeros stand behind
 * it, and behind those whatever text had to be made: a string with escapes, the JSON of an array sent as msgpack.
 *
 * A reader fills the *draft*, the event behind the last one, and then either commits it or lets it go. A batch
 * is scratch space: it is reset for the next body, and nothing of it may be kept.
 */
import type { FieldTag } from './fields.ts';
import { grown } from './grown.ts';
import { PathTable } from './path-table.ts';

/** The attributes of an event whose ranges are kept, and their numbers. `time` is kept as a number. */
export const ID = 0;
export const SOURCE = 1;
export const TYPE = 2;
export const SUBJECT = 3;
export const ATTRIBUTES_KEPT = 4;

const EVENTS_FIRST = 1_024;
const FIELDS_FIRST = 8_192;
const BYTES_FIRST = 65_536;
const NOTHING = new Uint8Array(0);

/**
 * Zeros behind the body: a reader may look this far beyond it without asking where it ends. And as much memory behind
 * every made text, whatever it holds, so that four bytes can be read wherever one may be.
 */
export const BODY_PADDING = 16;

/**
 * Memory that somebody else reads and writes too, for batches of usual size: the columns stand there whenever a body
 * begins, and leave it for the rest of a body that outgrows it.
 */
export interface BatchHome {
  readonly buffer: ArrayBuffer;
  /** Where it begins; a multiple of 16. */
  readonly begin: number;
  /** For how much there is room: bytes of bodies and made texts, events, fields. */
  readonly bytes: number;
  readonly events: number;
  readonly fields: number;
}

/** Between two columns, so that the same rows of several do not compete for one place in the processor's cache. */
const APART_BYTES = 17 * 64;

/** Offsets of the columns from the beginning of the home, each a multiple of 16, and where it ends. */
export function layOutHome({ bytes, events, fields }: Pick<BatchHome, 'bytes' | 'events' | 'fields'>) {
  let end = 0;
  const column = (length: number): number => {
    const start = end;
    end = start + Math.ceil(length / 16) * 16 + APART_BYTES;
    return start;
  };
  return {
    bytes: column(bytes),
    start: column(events * ATTRIBUTES_KEPT * 4),
    end: column(events * ATTRIBUTES_KEPT * 4),
    timeMs: column(events * 8),
    timeGiven: column(events),
    fieldStart: column((events + 1) * 4),
    path: column(fields * 4),
    code: column(fields * 2),
    mantissa: column(fields * 8),
    textStart: column(fields * 4),
    textEnd: column(fields * 4),
    all: end,
  };
}

export class EventBatch {
  readonly paths: PathTable;
  readonly home: BatchHome | null;
  /** Everything stands in the home. */
  isHome = false;
  bytes = new Uint8Array(BYTES_FIRST);
  /** The same memory; four bytes at a time are read twice as fast as one by one. */
  view = new DataView(this.bytes.buffer);
  /** Where the body ends in `bytes`. */
  bodyEnd = 0;
  /** UTF-8 of the tenant's name; the same for all events of a body. */
  tenant: Uint8Array = NOTHING;
  /** Counts the bodies: as long as it stays, so does the tenant. */
  bodies = 0;
  /** Events committed. */
  count = 0;
  /** Fields of the committed events and of the draft. */
  fieldCount = 0;

  // Columns by event. Attribute `a` of event `e` is `bytes[start[e * 4 + a], end[e * 4 + a])`; an absent source is
  // an empty range.
  start = new Uint32Array(EVENTS_FIRST * ATTRIBUTES_KEPT);
  end = new Uint32Array(EVENTS_FIRST * ATTRIBUTES_KEPT);
  /** Epoch milliseconds; the time of acceptance when the sender gave none. */
  timeMs = new Float64Array(EVENTS_FIRST);
  timeGiven = new Uint8Array(EVENTS_FIRST);
  /**
   * 1: the event is a correction, and its last two fields are the reserved ones: the id of the original, and behind it
   * room for the text of its identity, which whoever has the key writes there (contract/corrections.ts).
   */
  corrects = new Uint8Array(EVENTS_FIRST);
  /** Events committed that are corrections. Nearly always 0: then nobody looks at `corrects`. */
  corrections = 0;
  /** Event `e` has the fields `fieldStart[e]` up to, not including, `fieldStart[e + 1]`. */
  fieldStart = new Uint32Array(EVENTS_FIRST + 1);

  // Columns by field, in the order in which the sender wrote them.
  path = new Uint32Array(FIELDS_FIRST);
  /** tag << 8 | scale, as in a block. */
  code = new Uint16Array(FIELDS_FIRST);
  /** Mantissa of a number; 0 for the others. */
  mantissa = new Float64Array(FIELDS_FIRST);
  /** Range of a text or literal; empty for a number. */
  textStart = new Uint32Array(FIELDS_FIRST);
  textEnd = new Uint32Array(FIELDS_FIRST);

  #used = 0;

  constructor(paths: PathTable = new PathTable(), home: BatchHome | null = null) {
    this.paths = paths;
    this.home = home;
    if (home !== null) this.#goHome(home);
  }

  /** Begins a body, which is copied. */
  reset(body: Uint8Array, tenant: Uint8Array): void {
    const { length } = body;
    const used = length + BODY_PADDING;
    if (!this.isHome && this.home !== null) this.#goHome(this.home);
    if (used > this.bytes.length) this.#growBytes(used, 0);
    this.bytes.set(body);
    for (let at = length; at < used; at++) this.bytes[at] = 0;
    this.bodyEnd = length;
    this.tenant = tenant;
    this.bodies += 1;
    this.count = 0;
    this.fieldCount = 0;
    if (this.corrections > 0) {
      this.corrects.fill(0);
      this.corrections = 0;
    }
    this.#used = used;
  }

  /** Events were written and committed from elsewhere, into the home: the columns go up to these counts now. */
  advance(count: number, fieldCount: number): void {
    this.count = count;
    this.fieldCount = fieldCount;
  }

  /** The draft becomes event `count - 1`. The reader has set its columns at index `count`. */
  commit(): void {
    this.count += 1;
    this.fieldStart[this.count] = this.fieldCount;
    if (this.count + 1 >= this.timeMs.length) this.#growEvents();
  }

  /** As `commit`, of a draft that is a correction. */
  commitCorrection(): void {
    this.corrects[this.count] = 1;
    this.corrections += 1;
    this.commit();
  }

  /** A dotted path that two fields of the draft have, by number; -1 for none. Which one counts would be a guess. */
  repeatedPath(): number {
    const seen = new Set<number>();
    for (let at = this.fieldStart[this.count]!; at < this.fieldCount; at++) {
      const canonical = this.paths.canonical[this.path[at]!]!;
      if (seen.has(canonical)) return canonical;
      seen.add(canonical);
    }
    return -1;
  }

  /** The draft is let go. */
  abandon(): void {
    this.fieldCount = this.fieldStart[this.count]!;
  }

  /** Adds a field to the draft. */
  addField(
    path: number,
    tag: FieldTag,
    scale: number,
    mantissa: number,
    textStart: number,
    textEnd: number,
  ): void {
    const at = this.fieldCount;
    if (at === this.path.length) this.#growFields();
    this.path[at] = path;
    this.code[at] = (tag << 8) | scale;
    this.mantissa[at] = mantissa;
    this.textStart[at] = textStart;
    this.textEnd[at] = textEnd;
    this.fieldCount = at + 1;
  }

  /**
   * Room for `length` bytes of made text at the end of `bytes`; returns where it begins. `bytes` and `view` may be
   * others afterwards, with everything at its place. `made` says how much of it was used.
   */
  make(length: number): number {
    const start = this.#used;
    const end = start + length + BODY_PADDING;
    if (end > this.bytes.length) this.#growBytes(end * 2, start);
    return start;
  }

  /** Ends the text that `make` began. */
  made(end: number): void {
    this.#used = end;
  }

  #goHome(home: BatchHome): void {
    const { buffer, begin, bytes, events, fields } = home;
    const at = layOutHome(home);
    this.bytes = new Uint8Array(buffer, begin + at.bytes, bytes);
    this.view = new DataView(buffer, begin + at.bytes, bytes);
    this.start = new Uint32Array(buffer, begin + at.start, events * ATTRIBUTES_KEPT);
    this.end = new Uint32Array(buffer, begin + at.end, events * ATTRIBUTES_KEPT);
    this.timeMs = new Float64Array(buffer, begin + at.timeMs, events);
    this.timeGiven = new Uint8Array(buffer, begin + at.timeGiven, events);
    this.corrects = new Uint8Array(events);
    this.corrections = 0;
    this.fieldStart = new Uint32Array(buffer, begin + at.fieldStart, events + 1);
    this.path = new Uint32Array(buffer, begin + at.path, fields);
    this.code = new Uint16Array(buffer, begin + at.code, fields);
    this.mantissa = new Float64Array(buffer, begin + at.mantissa, fields);
    this.textStart = new Uint32Array(buffer, begin + at.textStart, fields);
    this.textEnd = new Uint32Array(buffer, begin + at.textEnd, fields);
    this.isHome = true;
  }

  #growBytes(capacity: number, kept: number): void {
    this.isHome = false;
    const larger = new Uint8Array(capacity);
    larger.set(this.bytes.subarray(0, kept));
    this.bytes = larger;
    this.view = new DataView(larger.buffer);
  }

  #growEvents(): void {
    this.isHome = false;
    const capacity = this.timeMs.length * 2;
    this.start = grown(this.start, new Uint32Array(capacity * ATTRIBUTES_KEPT));
    this.end = grown(this.end, new Uint32Array(capacity * ATTRIBUTES_KEPT));
    this.timeMs = grown(this.timeMs, new Float64Array(capacity));
    this.timeGiven = grown(this.timeGiven, new Uint8Array(capacity));
    this.corrects = grown(this.corrects, new Uint8Array(capacity));
    this.fieldStart = grown(this.fieldStart, new Uint32Array(capacity + 1));
  }

  #growFields(): void {
    this.isHome = false;
    const capacity = this.path.length * 2;
    this.path = grown(this.path, new Uint32Array(capacity));
    this.code = grown(this.code, new Uint16Array(capacity));
    this.mantissa = grown(this.mantissa, new Float64Array(capacity));
    this.textStart = grown(this.textStart, new Uint32Array(capacity));
    this.textEnd = grown(this.textEnd, new Uint32Array(capacity));
  }
}
