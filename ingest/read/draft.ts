/**
 * The attributes of the event that a reader of bodies is at: what stood where, before anything is said of it.
 * A reader calls `begin`, fills this and the draft part of its EventBatch, and asks Admission.
 *
 * Ranges are ranges of `batch.bytes`. A reader sets what it meets; what it does not meet stays as `begin` left it.
 */
import { ID, SOURCE, SUBJECT, TYPE } from '../../contract/event-batch.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';

/** Beside ID, SOURCE, TYPE and SUBJECT of contract/event-batch.ts. */
export const TIME = 4;
/** The id of another event that this one takes out, or takes the place of. */
export const VOIDS = 5;
export const AMENDS = 6;
export const ATTRIBUTES_READ = 7;

/** Nothing stood there, or null. */
export const ABSENT = 0;
/** A text, well-formed UTF-8, in the range. It may be empty. */
export const TEXT = 1;
/** A value that is no text. */
export const OTHER = 2;
/** A text that is not well-formed Unicode (a lone surrogate, bytes that are no UTF-8): there is no range. */
export const BROKEN = 3;

/** More bytes than any body has; not Infinity, because a field that holds a double costs more. */
const UNBOUNDED = 0x3fff_ffff;

export class Draft {
  /** False: the event is a number, a text, an array, ...; then nothing else of this means anything. */
  isObject = true;

  // By attribute: ID, SOURCE, TYPE, SUBJECT, TIME, VOIDS, AMENDS.
  readonly kind = new Uint8Array(ATTRIBUTES_READ);
  readonly start = new Uint32Array(ATTRIBUTES_READ);
  readonly end = new Uint32Array(ATTRIBUTES_READ);
  /**
   * 1: the reader knows that the text holds no control character, so that admission need not look at it
   * again. A reader that does not know leaves the 0 of `setText`.
   */
  readonly plain = new Uint8Array(ATTRIBUTES_READ);

  /** VOIDS or AMENDS is not absent. */
  corrects = false;

  specversion: 'absent' | '1.0' | 'other' = 'absent';
  /** data_base64, or a datacontenttype that is not JSON: `data` is not for us to read. */
  hasForeignData = false;

  /** A top-level field that is none of ours stood there; the first of them, or the first that is no extension. */
  hasUnknownField = false;
  /** One of them can be no extension attribute of CloudEvents either, by its name or by its value. */
  hasForeignField = false;
  unknownStart = 0;
  unknownEnd = 0;

  /**
   * The first fault met while reading, in the order of the bytes: those of `data` and of its values, repeated
   * keys, keys that are no text. What is wrong with an attribute is found by admission, not noted here.
   */
  fault: EdgeRejectionCode | null = null;
  /** What the fault is about, such as 'data.a.b' or 'id'; '' when it is the event as a whole. */
  faultField = '';

  /**
   * A bound on the bytes of the attributes, texts and literals of the event, when the reader has one at hand (such
   * as the bytes it has read for it). Admission counts only when bound and paths together may be too much.
   */
  bytesAtMost = UNBOUNDED;

  begin(): void {
    const { kind } = this;
    kind[ID] = ABSENT;
    kind[SOURCE] = ABSENT;
    kind[TYPE] = ABSENT;
    kind[SUBJECT] = ABSENT;
    kind[TIME] = ABSENT;
    this.isObject = true;
    if (this.corrects) {
      kind[VOIDS] = ABSENT;
      kind[AMENDS] = ABSENT;
      this.corrects = false;
    }
    if (this.specversion !== 'absent') this.specversion = 'absent';
    this.hasForeignData = false;
    this.hasUnknownField = false;
    this.hasForeignField = false;
    if (this.fault !== null) this.fault = null;
    this.bytesAtMost = UNBOUNDED;
  }

  setText(attribute: number, start: number, end: number): void {
    this.kind[attribute] = TEXT;
    this.plain[attribute] = 0;
    this.start[attribute] = start;
    this.end[attribute] = end;
  }

  /** Keeps the first fault of an event. */
  fail(code: EdgeRejectionCode, field: string): void {
    if (this.fault !== null) return;
    this.fault = code;
    this.faultField = shortened(field);
  }

  /**
   * A top-level field that is neither an attribute of ours nor one of CloudEvents that has a meaning here. Its name
   * is the range. `scalar`: its value is a text, a number, true, false or null.
   */
  sawUnknown(bytes: Uint8Array, start: number, end: number, scalar: boolean): void {
    const foreign = !scalar || !isExtensionName(bytes, start, end);
    if (!this.hasUnknownField || (foreign && !this.hasForeignField)) {
      this.unknownStart = start;
      this.unknownEnd = end;
    }
    this.hasUnknownField = true;
    if (foreign) this.hasForeignField = true;
  }
}

/** CloudEvents 1.0, "Naming conventions": lower-case letters and digits. */
function isExtensionName(bytes: Uint8Array, start: number, end: number): boolean {
  if (start === end) return false;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (!((byte >= 0x61 && byte <= 0x7a) || (byte >= 0x30 && byte <= 0x39))) return false;
  }
  return true;
}

const JSON_MEDIA_TYPE = /^\s*(?:application|text)\/json\s*(?:;|$)|^\s*[^\s;/]+\/[^\s;/]+\+json\s*(?:;|$)/i;

const JSON_ITSELF = new TextEncoder().encode('application/json');

/** Whether `bytes[start, end)` are application/json: what nearly all senders say, so that no string is made of it. */
export function isJsonItself(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== JSON_ITSELF.length) return false;
  for (let at = 0; at < JSON_ITSELF.length; at++) if (bytes[start + at] !== JSON_ITSELF[at]) return false;
  return true;
}

/** Whether `data` under this datacontenttype is JSON (CloudEvents JSON format, section 3.1). */
export function isJsonMediaType(text: string): boolean {
  return JSON_MEDIA_TYPE.test(text);
}

/** A path stands in a message; a sender who made it a megabyte long need not read all of it. */
export function shortened(path: string): string {
  return path.length <= 120 ? path : `${path.slice(0, 120)}…`;
}
