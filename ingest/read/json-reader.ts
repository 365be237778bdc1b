/**
 * Reads bodies of JSON in one pass over their bytes into the columns of an EventBatch: strict RFC 8259, no objects,
 * no strings, no recursion.
 *
 * Events of a product look like the one before. So a key is first compared with the key that stood in this place
 * the last time, four bytes at a time, and only read when it is another.
 *
 * Events that look like one seen before are not read here at all, where there is a scanner (json-scanner.ts): it takes as
 * many as stand in a row, and this file reads the next one.
 *
 * A fault of syntax ends the document (in NDJSON: the line). Any other fault is noted in the draft, and the event is
 * read on to its end: its neighbours must be found, and its id named. Of two faults in one event the first is noted.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import type { BodyContext, BodyOutcome } from './body.ts';
import { ABSENT, AMENDS, BROKEN, Draft, OTHER, TEXT, TIME, isJsonItself, isJsonMediaType } from './draft.ts';
import { JsonData } from './json-data.ts';
import type { JsonScanner } from './json-scanner.ts';
import {
  DATA,
  DATACONTENTTYPE,
  DATA_BASE64,
  SPECVERSION,
  UNKNOWN,
  behindName,
  nameOf,
  nameText,
} from './json-names.ts';
import {
  ARRAY_CLOSE,
  ARRAY_OPEN,
  COLON,
  COMMA,
  JsonSource,
  LINE_FEED,
  OBJECT_CLOSE,
  OBJECT_OPEN,
  QUOTE,
  SPACE,
} from './json-source.ts';
import { JsonText, plainEnd } from './json-text.ts';
import { JsonValue, isNull } from './json-value.ts';
import { KEY_BYTES_MAX, KeySet } from './key-set.ts';
import { Reception, placeOf, refuseBody } from './reception.ts';

const QUOTE_COMMA = (COMMA << 8) | QUOTE;
/** Before the first name of an event. */
const NONE = UNKNOWN + 1;

export class JsonReader {
  readonly #source = new JsonSource();
  readonly #text = new JsonText(this.#source);
  readonly #value = new JsonValue(this.#source, this.#text);
  readonly #data = new JsonData(this.#source, this.#text, this.#value);
  readonly #draft = new Draft();
  /** By name: the one that came after it the last time. */
  readonly #following = new Uint8Array(NONE + 1);
  /** The names that are none of ours, of one event. */
  readonly #unknown = new KeySet();
  /** Of the body that is read. */
  #scanner: JsonScanner | null = null;

  // Set by #key: the number of the name, and its range in the bytes of the batch.
  #name = 0;
  #nameStart = 0;
  #nameEnd = 0;

  /** One event, or a list of them. */
  readDocument(
    body: Uint8Array,
    context: BodyContext,
    batch: EventBatch,
    requireSpecversion: boolean,
  ): BodyOutcome {
    batch.reset(body, context.tenantBytes);
    const source = this.#source;
    source.begin(batch, false);
    const { bytes } = source;
    const reception = new Reception(context, batch, requireSpecversion);
    const scanner = context.scanner ?? null;
    this.#scanner = scanner;
    scanner?.begin(context, batch, requireSpecversion, false);
    let at = source.space(0);
    if (bytes[at] !== ARRAY_OPEN) {
      if (this.#scan(at, batch, 1, reception) === 0) at = this.#event(at, batch, 0, reception);
      else at = scanner!.at;
    } else {
      at = source.space(at + 1);
      if (bytes[at] === ARRAY_CLOSE) at += 1;
      else {
        const { batchEventsMax } = context.admission;
        for (let index = 0; ;) {
          if (index === batchEventsMax)
            return refuseBody(batch, 'batch_too_large', `at most ${batchEventsMax}`);
          const scanned = this.#scan(at, batch, batchEventsMax - index, reception);
          index += scanned;
          if (scanned > 0) at = scanner!.at;
          if (scanned === 0 || !scanner!.isBehind) {
            if (index === batchEventsMax) continue;
            at = this.#event(at, batch, index, reception);
            if (at < 0) break;
            index += 1;
          }
          if (bytes[at]! <= SPACE) at = source.space(at);
          const byte = bytes[at];
          at += 1;
          if (byte === COMMA) {
            if (bytes[at]! <= SPACE) at = source.space(at);
          } else if (byte === ARRAY_CLOSE) break;
          else {
            at = source.fault(at - 1);
            break;
          }
        }
      }
    }
    if (at >= 0) {
      at = source.space(at);
      if (at === source.end) return reception.outcome();
      source.fault(at);
    }
    // A body in another encoding is called that, wherever JSON ends in it.
    if (source.notUnicode || !source.isUnicode(0)) return refuseBody(batch, 'body_not_unicode');
    return refuseBody(batch, 'body_not_json', placeOf(source.faultAt, source.end));
  }

  /** One event a line. `index` is the number of the line, blank ones included. */
  readLines(body: Uint8Array, context: BodyContext, batch: EventBatch): BodyOutcome {
    batch.reset(body, context.tenantBytes);
    const source = this.#source;
    source.begin(batch, true);
    const { bytes, end } = source;
    const { batchEventsMax } = context.admission;
    const reception = new Reception(context, batch, false);
    const scanner = context.scanner ?? null;
    this.#scanner = scanner;
    scanner?.begin(context, batch, false, true);
    let events = 0;
    let start = 0;
    for (let index = 0; ; index++) {
      source.beginLine(start);
      let at = source.space(start);
      if (bytes[at] !== LINE_FEED && at !== end) {
        const scanned = this.#scan(at, batch, batchEventsMax - events, reception);
        if (scanned > 0) {
          events += scanned;
          index += scanned - 1;
          // The beginning of the line after them; or behind the last one, which ends its line.
          start = scanner!.at;
          if (!scanner!.isBehind) continue;
          start = source.space(start);
          if (start === end) return reception.outcome();
          start += 1;
          continue;
        }
        events += 1;
        if (events > batchEventsMax) return refuseBody(batch, 'batch_too_large', `at most ${batchEventsMax}`);
        at = this.#line(at, batch, index, reception);
      }
      if (at === end) return reception.outcome();
      start = at + 1;
    }
  }

  /** Lets the scanner read events from `at` on; returns how many it took. */
  #scan(at: number, batch: EventBatch, most: number, reception: Reception): number {
    const scanner = this.#scanner;
    if (scanner === null || !scanner.canScan(batch)) return 0;
    const unmatched = scanner.scan(at, batch, most);
    if (unmatched > 0) reception.tookElsewhere(unmatched);
    return scanner.events;
  }

  /** Reads the event of a line and returns the end of the line, whatever stands in it. */
  #line(start: number, batch: EventBatch, index: number, reception: Reception): number {
    const source = this.#source;
    const behind = this.#read(start, batch);
    if (behind >= 0) {
      const at = source.space(behind);
      if (source.bytes[at] === LINE_FEED || at === source.end) {
        this.#end(start, behind, batch, index, reception);
        return at;
      }
    }
    reception.rejectUnread(index, 'line_not_json');
    return source.lineEnd(start);
  }

  #event(start: number, batch: EventBatch, index: number, reception: Reception): number {
    const at = this.#read(start, batch);
    if (at >= 0) this.#end(start, at, batch, index, reception);
    return at;
  }

  /** The draft has been read, from `start` to `end`. */
  #end(start: number, end: number, batch: EventBatch, index: number, reception: Reception): void {
    const isTaken = reception.end(index, this.#draft);
    if (isTaken) this.#scanner?.learn(batch, this.#draft, start, end);
  }

  /** Reads one event into the draft; returns the offset behind it. */
  #read(start: number, batch: EventBatch): number {
    const draft = this.#draft;
    draft.begin();
    if (this.#source.bytes[start] !== OBJECT_OPEN) {
      draft.isObject = false;
      return this.#value.skip(start);
    }
    const end = this.#fields(start + 1, batch);
    draft.bytesAtMost = end - start;
    return end;
  }

  #fields(start: number, batch: EventBatch): number {
    const source = this.#source;
    const draft = this.#draft;
    const following = this.#following;
    const { bytes, view } = source;
    const { kind, plain, start: starts, end: ends } = draft;
    this.#unknown.reset();
    let seen = 0;
    let name = NONE;
    let at = bytes[start]! <= SPACE ? source.space(start) : start;
    if (bytes[at] === OBJECT_CLOSE) return at + 1;
    for (;;) {
      // 1. The key.
      const previous = name;
      name = following[previous]!;
      let behind = behindName(view, at, name);
      if (behind === 0) {
        behind = this.#key(at, batch);
        if (behind < 0) return -1;
        name = this.#name;
        following[previous] = name;
      } else if (name > DATA) {
        this.#nameStart = at + 1;
        this.#nameEnd = behind - 2;
      }
      at = bytes[behind]! <= SPACE ? source.space(behind) : behind;
      // 2. The value: nearly always a plain text, unless it is `data`.
      const bit = 1 << name;
      if (name <= TIME && bytes[at] === QUOTE && (seen & bit) === 0) {
        const close = plainEnd(view, at + 1);
        const next = view.getUint16(close, true);
        if ((next & 0xff) === QUOTE) {
          seen |= bit;
          kind[name] = TEXT;
          plain[name] = 1;
          starts[name] = at + 1;
          ends[name] = close;
          at = close + 1;
          if (next === QUOTE_COMMA) {
            at += 1;
            if (bytes[at]! <= SPACE) at = source.space(at);
            continue;
          }
        } else {
          seen |= bit;
          at = this.#rough(name, at, batch);
        }
      } else {
        if ((seen & bit) !== 0) {
          draft.fail('key_repeated', nameText(name));
          at = this.#value.skip(at);
        } else if (name > TIME) {
          if (name === DATA) at = this.#readData(at, batch);
          else at = name <= AMENDS ? this.#corrects(name, at, batch) : this.#other(name, at, batch);
        } else {
          at = this.#rough(name, at, batch);
        }
        if (name !== UNKNOWN) seen |= bit;
      }
      if (at < 0) return -1;
      // 3. A comma or the end.
      if (bytes[at]! <= SPACE) at = source.space(at);
      const next = bytes[at];
      at += 1;
      if (next === OBJECT_CLOSE) return at;
      if (next !== COMMA) return source.fault(at - 1);
      if (bytes[at]! <= SPACE) at = source.space(at);
    }
  }

  /** Reads a key and its colon. */
  #key(start: number, batch: EventBatch): number {
    const source = this.#source;
    const text = this.#text;
    if (source.bytes[start] !== QUOTE) return source.fault(start);
    const end = text.take(start + 1, batch);
    if (end < 0) return -1;
    const colon = source.space(end);
    if (source.bytes[colon] !== COLON) return source.fault(colon);
    this.#nameStart = text.start;
    this.#nameEnd = text.end;
    this.#name = text.kind === BROKEN ? UNKNOWN : nameOf(batch.bytes, text.start, text.end);
    return colon + 1;
  }

  /** An attribute that is no plain text. */
  #rough(name: number, start: number, batch: EventBatch): number {
    const source = this.#source;
    const draft = this.#draft;
    if (source.bytes[start] === QUOTE) {
      const text = this.#text;
      const at = text.take(start + 1, batch);
      draft.setText(name, text.start, text.end);
      draft.kind[name] = text.kind;
      draft.plain[name] = text.plain;
      return at;
    }
    if (isNull(source, start)) return start + 4;
    draft.kind[name] = OTHER;
    return this.#value.skip(start);
  }

  /** The name of another event. Few events have one, so that it is not read where the attributes of all events are. */
  #corrects(name: number, start: number, batch: EventBatch): number {
    const draft = this.#draft;
    const at = this.#rough(name, start, batch);
    if (draft.kind[name] !== ABSENT) draft.corrects = true;
    return at;
  }

  #readData(start: number, batch: EventBatch): number {
    const source = this.#source;
    if (source.bytes[start] === OBJECT_OPEN) return this.#data.read(start, batch, this.#draft);
    if (isNull(source, start)) return start + 4;
    this.#draft.fail('data_not_an_object', 'data');
    return this.#value.skip(start);
  }

  /** The fields that are neither kept nor `data`: what they say of it, and whether they may stand there. */
  #other(name: number, start: number, batch: EventBatch): number {
    const source = this.#source;
    const draft = this.#draft;
    const text = this.#text;
    const nameStart = this.#nameStart;
    const nameEnd = this.#nameEnd;
    const first = source.bytes[start];
    const isText = first === QUOTE;
    const isAbsent = isNull(source, start);
    const end = isText ? text.take(start + 1, batch) : this.#value.skip(start);
    if (end < 0) return -1;
    if (name === SPECVERSION) {
      if (!isAbsent) draft.specversion = isText && isTaken(batch.bytes, text) ? '1.0' : 'other';
      return end;
    }
    if (name === DATA_BASE64) {
      if (!isAbsent) draft.hasForeignData = true;
      return end;
    }
    if (isText && text.kind === BROKEN) {
      draft.fail('text_not_unicode', textOf(batch.bytes, nameStart, nameEnd));
    } else if (name === DATACONTENTTYPE && !isAbsent) {
      if (!isText) draft.fail('field_not_text', nameText(name));
      else if (!isJson(batch.bytes, text.start, text.end)) draft.hasForeignData = true;
    }
    if (name === UNKNOWN) this.#takeUnknown(batch.bytes, nameStart, nameEnd);
    draft.sawUnknown(batch.bytes, nameStart, nameEnd, first !== OBJECT_OPEN && first !== ARRAY_OPEN);
    return end;
  }

  #takeUnknown(bytes: Uint8Array, start: number, end: number): void {
    if (this.#draft.fault !== null) return; // One fault is enough, and a body may be nothing but such names.
    const unknown = this.#unknown;
    if (!unknown.isOpen) unknown.open();
    if (!unknown.add(bytes, start, end)) this.#draft.fail('key_repeated', textOf(bytes, start, end));
    if (unknown.bytes > KEY_BYTES_MAX) this.#draft.fail('event_too_large', '');
  }
}

function isJson(bytes: Uint8Array, start: number, end: number): boolean {
  return isJsonItself(bytes, start, end) || isJsonMediaType(textOf(bytes, start, end));
}

/** The version of CloudEvents. */
function isTaken(bytes: Uint8Array, { kind, start, end }: JsonText): boolean {
  return (
    kind === TEXT &&
    end - start === 3 &&
    bytes[start] === 0x31 &&
    bytes[start + 1] === 0x2e &&
    bytes[start + 2] === 0x30
  );
}

function textOf(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString();
}
