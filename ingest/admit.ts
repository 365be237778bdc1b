import { EVENT_LIMITS, type AdmittedEvent } from '../contract/event.ts';
import { FIELD_NUMBER, Fields } from '../contract/fields.ts';
import { REJECTIONS, type EdgeRejectionCode } from '../contract/rejections.ts';
import { DAY_MS } from '../contract/window.ts';
import { InstantReader } from './instant.ts';

/** What the edge takes, from its config; the shape of an event itself has its limits in contract/. */
export interface AdmitLimits {
  /** How old the time of an event may be. */
  readonly eventAgeDaysMax: number;
  /** How far the time of an event may lie ahead of ours. */
  readonly eventAheadSecondsMax: number;
  /** Events in one request. */
  readonly batchEventsMax: number;
}

/** Bytes of UTF-8 in everything that is kept of an event: its texts, its paths and its values. */
export const EVENT_BYTES_MAX = 65_536;

class Scratch implements AdmittedEvent {
  tenant = '';
  source = '';
  id = '';
  type = '';
  subject = '';
  timeMs = 0;
  timeGiven = false;
  readonly fields = new Fields();
}

/**
 * Admits one event after the other. The admitted event is scratch space, valid until the next call: at
 * hundreds of thousands of events a second an object an event would be most of the cost.
 */
export class Admission {
  /** The event that was admitted last. */
  readonly event: AdmittedEvent;
  readonly batchEventsMax: number;
  readonly #scratch = new Scratch();
  readonly #instants = new InstantReader();
  readonly #ageMsMax: number;
  readonly #aheadMsMax: number;
  /** The field that the last refusal is about; '' when it is about the event as a whole. */
  #fault = '';

  constructor(limits: AdmitLimits) {
    this.event = this.#scratch;
    this.batchEventsMax = limits.batchEventsMax;
    this.#ageMsMax = limits.eventAgeDaysMax * DAY_MS;
    this.#aheadMsMax = limits.eventAheadSecondsMax * 1_000;
  }

  /** Null when the parsed JSON is an event, which then stands in `event`; else the code of the refusal. */
  admit(value: unknown, tenant: string, nowMs: number): EdgeRejectionCode | null {
    this.#fault = '';
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'event_not_an_object';
    const sent = value as Record<string, unknown>;
    const { id, type, subject, time } = sent;
    const source = sent['source'] ?? '';
    const fault =
      this.#text('id', id, EVENT_LIMITS.idBytes) ??
      (source === '' ? null : this.#text('source', source, EVENT_LIMITS.sourceBytes)) ??
      this.#text('type', type, EVENT_LIMITS.typeBytes) ??
      this.#text('subject', subject, EVENT_LIMITS.subjectBytes) ??
      this.#time(time, nowMs) ??
      this.#data(sent['data']);
    if (fault !== null) return fault;
    const scratch = this.#scratch;
    scratch.tenant = tenant;
    scratch.id = id as string;
    scratch.source = source as string;
    scratch.type = type as string;
    scratch.subject = subject as string;
    if (!this.#fits()) {
      this.#fault = '';
      return 'event_too_large';
    }
    return null;
  }

  /** The public message of the last refusal: it names the field. */
  message(code: EdgeRejectionCode): string {
    const { message } = REJECTIONS[code];
    return this.#fault === '' ? message : `${this.#fault}: ${message}`;
  }

  #text(field: string, value: unknown, bytesMax: number): EdgeRejectionCode | null {
    this.#fault = field;
    if (value === undefined || value === null || value === '') return 'field_missing';
    if (typeof value !== 'string') return 'field_not_text';
    if (value.length > bytesMax) return 'field_too_long';
    let ascii = true;
    for (let at = 0; at < value.length; at++) {
      const unit = value.charCodeAt(at);
      if (unit < 0x20 || (unit >= 0x7f && unit <= 0x9f)) return 'text_has_control';
      if (unit > 0x7f) ascii = false;
    }
    if (ascii) return null;
    // Two different lone surrogates would be the same bytes, and so two different ids one identity.
    if (!value.isWellFormed()) return 'text_not_unicode';
    return Buffer.byteLength(value) > bytesMax ? 'field_too_long' : null;
  }

  #time(value: unknown, nowMs: number): EdgeRejectionCode | null {
    const scratch = this.#scratch;
    this.#fault = 'time';
    scratch.timeGiven = value !== undefined && value !== null;
    scratch.timeMs = nowMs;
    if (!scratch.timeGiven) return null;
    if (typeof value !== 'string') return 'field_not_text';
    const timeMs = this.#instants.read(value);
    if (timeMs === null) return 'time_not_rfc3339';
    if (timeMs < 0 || timeMs < nowMs - this.#ageMsMax) return 'time_too_old';
    if (timeMs > nowMs + this.#aheadMsMax) return 'time_too_far_ahead';
    scratch.timeMs = timeMs;
    return null;
  }

  #data(value: unknown): EdgeRejectionCode | null {
    const { fields } = this.#scratch;
    const fault = fields.read(value);
    if (fault === null) return null;
    this.#fault = shortened(fields.faultPath);
    return fault as EdgeRejectionCode;
  }

  /** Counts bytes only when three a character, the most that UTF-8 takes, would be too many. */
  #fits(): boolean {
    const { id, source, type, subject, fields } = this.#scratch;
    let characters = id.length + source.length + type.length + subject.length;
    for (let at = 0; at < fields.count; at++) {
      characters += fields.paths[at]!.length + fields.texts[at]!.length + 8;
    }
    if (characters * 3 <= EVENT_BYTES_MAX) return true;
    let bytes = 0;
    for (const text of [id, source, type, subject]) bytes += Buffer.byteLength(text);
    for (let at = 0; at < fields.count; at++) {
      bytes += Buffer.byteLength(fields.paths[at]!);
      bytes += fields.tags[at] === FIELD_NUMBER ? 8 : Buffer.byteLength(fields.texts[at]!);
    }
    return bytes <= EVENT_BYTES_MAX;
  }
}

/** A path stands in a message; a sender who made it a megabyte long need not read all of it. */
function shortened(path: string): string {
  return path.length <= 120 ? path : `${path.slice(0, 120)}…`;
}
