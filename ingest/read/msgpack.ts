/**
 * Reads bodies of msgpack in one pass over their bytes into the columns of an EventBatch: one map or an array of maps,
 * without objects, strings or recursion, under the same rules as JSON. Why not with a library:
 * docs/decisions/0006-msgpack-reading.md.
 *
 * What msgpack can say and JSON cannot is refused, event by event: keys that are no strings (`key_not_text`), binary
 * and extension values, timestamps among them (`value_not_json`), integers of more than 53 bits, NaN, and doubles that
 * are no short decimal (`number_not_exact`), strings that are not UTF-8 (`text_not_unicode`). They are stepped over,
 * so that the neighbours of the event are found. A body that is no msgpack counts for nothing as a whole: a byte
 * 0xc1, an end that comes too early, or more behind the value that it is.
 */
import type { EventBatch } from '../../contract/event-batch.ts';
import type { BodyContext, BodyOutcome } from './body.ts';
import { ABSENT, AMENDS, BROKEN, Draft, OTHER, TIME, isJsonMediaType } from './draft.ts';
import { DATA, DATACONTENTTYPE, DATA_BASE64, SPECVERSION, UNKNOWN, nameText } from './json-names.ts';
import { KEY_BYTES_MAX, KeySet } from './key-set.ts';
import { MsgpackData } from './msgpack-data.ts';
import { nameIn } from './msgpack-names.ts';
import { ARRAY, FOREIGN, MAP, MsgpackScan, NIL, STRING, isPrintable, isUnicode } from './msgpack-scan.ts';
import { Reception, placeOf, refuseBody } from './reception.ts';

/**
 * What msgpackr writes by default from a `new Packr()` is not plain msgpack: objects become records of its own, whose
 * values stand behind the message as the specification has it.
 */
const PLAIN_MAPS = 'from msgpackr, encode plain maps: new Packr({ useRecords: false })';

class MsgpackReader {
  readonly #scan = new MsgpackScan();
  readonly #data = new MsgpackData(this.#scan);
  readonly #draft = new Draft();
  /** The names that are none of ours, of one event. */
  readonly #unknown = new KeySet();

  read(body: Uint8Array, context: BodyContext, batch: EventBatch): BodyOutcome {
    batch.reset(body, context.tenantBytes);
    this.#data.begin(batch);
    const scan = this.#scan;
    scan.begin(batch);
    const reception = new Reception(context, batch, false);
    let events = 1;
    if (scan.next() === ARRAY) {
      events = scan.count;
      const { batchEventsMax } = context.admission;
      if (events > batchEventsMax) return refuseBody(batch, 'batch_too_large', `at most ${batchEventsMax}`);
    } else {
      scan.at = 0;
    }
    for (let index = 0; index < events; index++) {
      if (!this.#event(index, batch, reception)) return this.#refuse(batch, scan.brokenAt);
    }
    return scan.at === scan.end ? reception.outcome() : this.#refuse(batch, scan.at);
  }

  #refuse(batch: EventBatch, at: number): BodyOutcome {
    const { bytes, brokenAt } = this.#scan;
    if (brokenAt < 0) {
      const more = `a whole value ends before byte ${at}, but the body goes on; ${PLAIN_MAPS}`;
      return refuseBody(batch, 'body_not_msgpack', more);
    }
    const where = placeOf(at, batch.bodyEnd);
    const isBundled = at < batch.bodyEnd && bytes[at] === 0xc1;
    return refuseBody(batch, 'body_not_msgpack', isBundled ? `${where}; ${PLAIN_MAPS}` : where);
  }

  /** Reads one event and settles it. False when the body is broken. */
  #event(index: number, batch: EventBatch, reception: Reception): boolean {
    const scan = this.#scan;
    const draft = this.#draft;
    draft.begin();
    const begin = scan.at;
    const madeBefore = batch.make(0);
    const kind = scan.next();
    if (kind === MAP) {
      if (!this.#fields(scan.count, batch)) return false;
    } else if (kind === FOREIGN) {
      reception.rejectUnread(index, 'value_not_json');
      return true;
    } else {
      draft.isObject = false;
      if (!scan.leave(kind)) return false;
    }
    draft.bytesAtMost = scan.at - begin + (batch.make(0) - madeBefore);
    const admitted = batch.count;
    reception.end(index, draft);
    if (batch.count === admitted) batch.made(madeBefore); // Nobody reads what was made for it.
    return true;
  }

  #fields(count: number, batch: EventBatch): boolean {
    const scan = this.#scan;
    const draft = this.#draft;
    this.#unknown.reset();
    let seen = 0;
    for (let pair = 0; pair < count; pair++) {
      // 1. The key.
      const key = scan.shortString() ? STRING : scan.next();
      if (key !== STRING) {
        draft.fail('key_not_text', '');
        if (!scan.leave(key) || !scan.skip(1)) return false;
        continue;
      }
      const name = nameIn(scan, scan.start, scan.stop);
      // 2. The value.
      let sound: boolean;
      if ((seen & (1 << name)) !== 0 && name !== UNKNOWN) {
        draft.fail('key_repeated', nameText(name));
        sound = scan.skip(1);
      } else if (name <= TIME) {
        sound = this.#attribute(name);
      } else if (name === DATA) {
        sound = this.#readData(batch);
      } else if (name <= AMENDS) {
        sound = this.#attribute(name);
        if (draft.kind[name] !== ABSENT) draft.corrects = true;
      } else {
        sound = this.#other(name, scan.start, scan.stop);
      }
      if (!sound) return false;
      seen |= 1 << name;
    }
    return true;
  }

  #attribute(name: number): boolean {
    const scan = this.#scan;
    const draft = this.#draft;
    const kind = scan.shortString() ? STRING : scan.next();
    if (kind !== STRING) {
      if (kind === NIL) return true;
      draft.kind[name] = OTHER;
      return scan.leave(kind);
    }
    draft.setText(name, scan.start, scan.stop);
    if (name === TIME) return true; // An instant is compared character by character anyway.
    if (isPrintable(scan, scan.start, scan.stop)) draft.plain[name] = 1;
    else if (!isUnicode(scan, scan.start, scan.stop)) draft.kind[name] = BROKEN;
    return true;
  }

  #readData(batch: EventBatch): boolean {
    const scan = this.#scan;
    const kind = scan.next();
    if (kind === MAP) return this.#data.read(scan.count, batch, this.#draft);
    if (kind === NIL) return true;
    this.#draft.fail(kind === FOREIGN ? 'value_not_json' : 'data_not_an_object', 'data');
    return scan.leave(kind);
  }

  /** The fields that are neither kept nor `data`: what they say of it, and whether they may stand there. */
  #other(name: number, nameStart: number, nameStop: number): boolean {
    const scan = this.#scan;
    const draft = this.#draft;
    const kind = scan.next();
    const isText = kind === STRING;
    if (name === SPECVERSION) {
      if (kind !== NIL) draft.specversion = isText && this.#textIs('1.0') ? '1.0' : 'other';
      return scan.leave(kind);
    }
    if (name === DATA_BASE64) {
      if (kind !== NIL) draft.hasForeignData = true;
      return scan.leave(kind);
    }
    if (kind === FOREIGN) draft.fail('value_not_json', this.#told(nameStart, nameStop));
    else if (isText && !isUnicode(scan, scan.start, scan.stop)) {
      draft.fail('text_not_unicode', this.#told(nameStart, nameStop));
    } else if (name === DATACONTENTTYPE && kind !== NIL) {
      if (!isText) draft.fail('field_not_text', nameText(name));
      else if (!isJsonMediaType(this.#textOf(scan.start, scan.stop))) draft.hasForeignData = true;
    }
    if (name === UNKNOWN && draft.fault === null) this.#takeUnknown(nameStart, nameStop);
    draft.sawUnknown(scan.bytes, nameStart, nameStop, kind !== MAP && kind !== ARRAY);
    return scan.leave(kind);
  }

  /** Once there is a fault this need not go on: one is enough, and every name that is taken costs memory. */
  #takeUnknown(start: number, stop: number): void {
    const scan = this.#scan;
    const draft = this.#draft;
    const unknown = this.#unknown;
    if (!isUnicode(scan, start, stop)) return draft.fail('text_not_unicode', this.#told(start, stop));
    if (unknown.bytes === 0) unknown.open();
    if (!unknown.add(scan.bytes, start, stop)) draft.fail('key_repeated', this.#told(start, stop));
    else if (unknown.bytes > KEY_BYTES_MAX) draft.fail('event_too_large', '');
  }

  #textIs(text: string): boolean {
    const { start, stop } = this.#scan;
    return stop - start === text.length && this.#textOf(start, stop) === text;
  }

  #textOf(start: number, stop: number): string {
    const { bytes } = this.#scan;
    return Buffer.from(bytes.buffer, bytes.byteOffset + start, stop - start).toString();
  }

  /** A name as it stands in a message, where not all of a long one is told. */
  #told(start: number, stop: number): string {
    return this.#textOf(start, Math.min(stop, start + 256));
  }
}

const reader = new MsgpackReader();

/** `body` is not kept. What was in the batch before is gone. */
export function readMsgpack(body: Uint8Array, context: BodyContext, batch: EventBatch): BodyOutcome {
  return reader.read(body, context, batch);
}
