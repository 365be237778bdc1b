/**
 * What the edge takes for an event, whatever format it came in. A reader has read one whole event, its attributes
 * into a Draft and its `data` into the draft part of an EventBatch; here is decided whether it is admitted.
 *
 * One fault an event is told, and which one does not depend on the format: that it is no object; specversion; id,
 * source, voids, amends, type, subject and time in this order; a field that is not known; data that is not JSON; the
 * first fault met in reading (repeated keys, and everything about `data`); its size.
 *
 * A correction is an event that names another one. What tells it in the log comes behind it (correction.ts), beside
 * these limits.
 */
import { ID, SOURCE, SUBJECT, TYPE, ATTRIBUTES_KEPT, type EventBatch } from '../../contract/event-batch.ts';
import { EVENT_LIMITS } from '../../contract/event.ts';
import { FIELD_LIMITS, FIELD_NUMBER } from '../../contract/fields.ts';
import { REJECTIONS, type EdgeRejectionCode } from '../../contract/rejections.ts';
import { DAY_MS } from '../../contract/window.ts';
import { ABSENT, AMENDS, BROKEN, OTHER, TEXT, TIME, VOIDS, shortened, type Draft } from './draft.ts';
import { InstantReader } from './instant.ts';
import { isReservedType, isVoidType } from './reserved.ts';

/** What the edge takes, from its config; the shape of an event itself has its limits in contract/. */
export interface AdmitLimits {
  /** How old the time of an event may be. */
  readonly eventAgeDaysMax: number;
  /** How far the time of an event may lie ahead of ours. */
  readonly eventAheadSecondsMax: number;
  /** Events in one request. */
  readonly batchEventsMax: number;
}

/** Bytes of UTF-8 in everything that is kept of an event: its texts, its paths and its values, 8 a number. */
export const EVENT_BYTES_MAX = 65_536;

const NUMBER_BYTES = 8;
/** What a field can add to the bytes that were read for an event: a nested path repeats its beginning. */
const FIELD_BYTES_ADDED_MAX = FIELD_LIMITS.pathLengthMax + NUMBER_BYTES;

// By attribute. The time is no text here.
const NAMES = ['id', 'source', 'type', 'subject', 'time', 'voids', 'amends'] as const;
const BYTES_MAX = [
  EVENT_LIMITS.idBytes,
  EVENT_LIMITS.sourceBytes,
  EVENT_LIMITS.typeBytes,
  EVENT_LIMITS.subjectBytes,
  0,
  EVENT_LIMITS.idBytes,
  EVENT_LIMITS.idBytes,
] as const;

export class Admission {
  readonly batchEventsMax: number;
  /** How far the time of an event may lie behind ours, and ahead of it. */
  readonly ageMsMax: number;
  readonly aheadMsMax: number;
  readonly #instants = new InstantReader();
  /** What the last refusal is about; '' when it is about the event as a whole. */
  #field = '';

  constructor(limits: AdmitLimits) {
    this.batchEventsMax = limits.batchEventsMax;
    this.ageMsMax = limits.eventAgeDaysMax * DAY_MS;
    this.aheadMsMax = limits.eventAheadSecondsMax * 1_000;
  }

  /**
   * Null when the draft is an event: its columns are set in `batch`, at the index `batch.count`, and the reader
   * commits it. Else the code of the refusal, with its message in `message`.
   */
  admit(
    batch: EventBatch,
    draft: Draft,
    requireSpecversion: boolean,
    nowMs: number,
  ): EdgeRejectionCode | null {
    if (!draft.isObject) return this.#refuse('event_not_an_object', '');
    const { specversion } = draft;
    if (specversion === 'other') return this.#refuse('specversion_unknown', '');
    if (requireSpecversion && specversion === 'absent') return this.#refuse('field_missing', 'specversion');
    let fault: EdgeRejectionCode | null;
    if (draft.corrects) fault = this.#correction(batch, draft, requireSpecversion);
    else if (this.#usual(batch, draft)) fault = this.#type(batch, draft);
    else {
      fault =
        this.#text(batch, draft, ID, false) ??
        this.#text(batch, draft, SOURCE, !requireSpecversion) ??
        this.#text(batch, draft, TYPE, false) ??
        this.#type(batch, draft) ??
        this.#text(batch, draft, SUBJECT, false);
    }
    fault ??= this.#time(batch, draft, nowMs);
    if (fault !== null) return fault;
    if (draft.hasUnknownField && (specversion === 'absent' || draft.hasForeignField)) {
      return this.#refuse('field_unknown', unknownField(batch, draft));
    }
    if (draft.hasForeignData) return this.#refuse('data_not_json', '');
    if (draft.fault !== null) return this.#refuse(draft.fault, draft.faultField);
    const fields = batch.fieldCount - batch.fieldStart[batch.count]!;
    if (draft.bytesAtMost + fields * FIELD_BYTES_ADDED_MAX <= EVENT_BYTES_MAX || fits(batch)) return null;
    return this.#refuse('event_too_large', '');
  }

  message(code: EdgeRejectionCode): string {
    return messageOf(code, this.#field);
  }

  #usual(batch: EventBatch, draft: Draft): boolean {
    const { kind, plain, start, end } = draft;
    const { start: starts, end: ends } = batch;
    let column = batch.count * ATTRIBUTES_KEPT;
    for (let attribute = 0; attribute < ATTRIBUTES_KEPT; attribute++, column++) {
      const from = start[attribute]!;
      const to = end[attribute]!;
      const length = to - from;
      if (
        kind[attribute] !== TEXT ||
        plain[attribute] !== 1 ||
        length > BYTES_MAX[attribute]! ||
        length === 0
      )
        return false;
      starts[column] = from;
      ends[column] = to;
    }
    return true;
  }

  #correction(batch: EventBatch, draft: Draft, requireSpecversion: boolean): EdgeRejectionCode | null {
    const isVoid = draft.kind[VOIDS] !== ABSENT;
    const isAmend = draft.kind[AMENDS] !== ABSENT;
    return (
      this.#text(batch, draft, ID, false) ??
      this.#text(batch, draft, SOURCE, !requireSpecversion) ??
      (isVoid ? this.#textFault(batch, draft, VOIDS, false) : null) ??
      (isAmend ? this.#textFault(batch, draft, AMENDS, false) : null) ??
      (isVoid && isAmend ? this.#refuse('correction_ambiguous', NAMES[AMENDS]) : null) ??
      this.#text(batch, draft, TYPE, isVoid && !requireSpecversion) ??
      (isVoid ? this.#typeOfVoid(batch, draft) : this.#type(batch, draft)) ??
      this.#text(batch, draft, SUBJECT, isVoid)
    );
  }

  /** Of a type that is a text and has no fault as such. */
  #type(batch: EventBatch, draft: Draft): EdgeRejectionCode | null {
    if (!isReservedType(batch.view, draft.start[TYPE]!, draft.end[TYPE]!)) return null;
    return this.#refuse('type_reserved', NAMES[TYPE]);
  }

  /** The same of a void, which may have none. */
  #typeOfVoid(batch: EventBatch, draft: Draft): EdgeRejectionCode | null {
    if (draft.kind[TYPE] === ABSENT) return null;
    const start = draft.start[TYPE]!;
    const end = draft.end[TYPE]!;
    if (start === end || isVoidType(batch.view, start, end)) return null;
    return this.#refuse('void_has_type', NAMES[TYPE]);
  }

  #text(batch: EventBatch, draft: Draft, attribute: number, optional: boolean): EdgeRejectionCode | null {
    const isText = draft.kind[attribute] === TEXT;
    const column = batch.count * ATTRIBUTES_KEPT + attribute;
    batch.start[column] = isText ? draft.start[attribute]! : 0;
    batch.end[column] = isText ? draft.end[attribute]! : 0;
    return this.#textFault(batch, draft, attribute, optional);
  }

  #textFault(
    batch: EventBatch,
    draft: Draft,
    attribute: number,
    optional: boolean,
  ): EdgeRejectionCode | null {
    const kind = draft.kind[attribute];
    if (kind === TEXT) {
      const start = draft.start[attribute]!;
      const end = draft.end[attribute]!;
      const length = end - start;
      if (length > BYTES_MAX[attribute]!) return this.#refuse('field_too_long', NAMES[attribute]!);
      if (length > 0) {
        if (draft.plain[attribute] === 1 || !hasControl(batch.bytes, start, end)) return null;
        return this.#refuse('text_has_control', NAMES[attribute]!);
      }
    } else {
      if (kind === OTHER) return this.#refuse('field_not_text', NAMES[attribute]!);
      if (kind === BROKEN) return this.#refuse('text_not_unicode', NAMES[attribute]!);
    }
    return optional ? null : this.#refuse('field_missing', NAMES[attribute]!);
  }

  #time(batch: EventBatch, draft: Draft, nowMs: number): EdgeRejectionCode | null {
    const { count } = batch;
    const kind = draft.kind[TIME];
    if (kind === ABSENT) {
      batch.timeMs[count] = nowMs;
      batch.timeGiven[count] = 0;
      return null;
    }
    if (kind === OTHER) return this.#refuse('field_not_text', 'time');
    const timeMs =
      kind === TEXT ? this.#instants.read(batch.view, draft.start[TIME]!, draft.end[TIME]!) : NaN;
    if (timeMs >= nowMs - this.ageMsMax && timeMs <= nowMs + this.aheadMsMax && timeMs >= 0) {
      batch.timeMs[count] = timeMs;
      batch.timeGiven[count] = 1;
      return null;
    }
    if (Number.isNaN(timeMs)) return this.#refuse('time_not_rfc3339', 'time');
    return this.#refuse(timeMs > nowMs ? 'time_too_far_ahead' : 'time_too_old', 'time');
  }

  #refuse(code: EdgeRejectionCode, field: string): EdgeRejectionCode {
    this.#field = field;
    return code;
  }
}

/** The public message of a code: it names the field. */
export function messageOf(code: EdgeRejectionCode, field: string): string {
  const { message } = REJECTIONS[code];
  return field === '' ? message : `${field}: ${message}`;
}

/** U+0000 to U+001F, U+007F and U+0080 to U+009F in UTF-8. */
function hasControl(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte < 0x20 || byte === 0x7f) return true;
    if (byte === 0xc2 && bytes[at + 1]! < 0xa0) return true;
  }
  return false;
}

function unknownField(batch: EventBatch, draft: Draft): string {
  const name = Buffer.from(batch.bytes.subarray(draft.unknownStart, draft.unknownEnd)).toString();
  return shortened(name);
}

/** Counts exactly. The attributes of the draft stand in its columns already. */
function fits(batch: EventBatch): boolean {
  const { count, fieldCount, paths } = batch;
  let bytes = 0;
  for (let at = count * ATTRIBUTES_KEPT; at < (count + 1) * ATTRIBUTES_KEPT; at++) {
    bytes += batch.end[at]! - batch.start[at]!;
  }
  for (let at = batch.fieldStart[count]!; at < fieldCount; at++) {
    bytes += paths.length[batch.path[at]!]!;
    bytes += batch.code[at]! >> 8 === FIELD_NUMBER ? NUMBER_BYTES : batch.textEnd[at]! - batch.textStart[at]!;
  }
  return bytes <= EVENT_BYTES_MAX;
}
