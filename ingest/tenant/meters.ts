/**
 * The meters that this edge knows of, and whether an event has what they need.
 *
 * The log decides what an event counts for (docs/decisions/0004-meters-in-the-log.md): an aggregator refuses an
 * event that lacks the value of one of its meters. The edge asks the same question earlier, so that the sender
 * hears of it while the event is still theirs. It may know less than the log: a meter that was defined a moment
 * ago, or a bucket that cannot be read, lets an event through, and the log decides as ever. The rules are those of
 * aggregator/prepare.ts, to the letter; test/edge-meters.test.ts holds the two together.
 *
 * An event costs a comparison of its type with the last one and, for each meter, of the number of one place: a
 * meter remembers the place of its value and where among the fields it stood the last time. Only a value that is
 * sent as text is looked at.
 */
import { SLACK_BYTES, sameWords } from '../../contract/byte-words.ts';
import { parseMeterRecord } from '../../contract/control.ts';
import { TYPE, type EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LITERAL, FIELD_NUMBER } from '../../contract/fields.ts';
import { sameMeter, type Meter } from '../../contract/meter.ts';
import type { PathTable } from '../../contract/path-table.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { TextHash } from '../../contract/text-hash.ts';
import { decimalFault } from '../read/decimal-text.ts';
import type { Draft } from '../read/draft.ts';

/** A meter that needs a value; a count needs none. */
interface Needed {
  readonly meter: Meter;
  /** The dotted path of the value in UTF-8, and its hash. */
  readonly path: Uint8Array;
  readonly low: number;
  readonly high: number;
  /** The place where the value stood the last time, and which of the fields it was. 0: not known yet. */
  place: number;
  field: number;
}

interface TypeMeters {
  /** UTF-8 with SLACK_BYTES behind it, and its length without them. */
  readonly type: DataView;
  readonly length: number;
  readonly needed: readonly Needed[];
  /** Which state of which path table the places in `needed` are of. */
  epoch: number;
}

interface TenantMeters {
  /** By key, in the order in which they became known. */
  readonly meters: Map<string, Meter>;
  /** By `low` of the hash of the type's bytes. Null: to be made when the next event comes. */
  types: Map<number, TypeMeters[]> | null;
}

const utf8 = new TextEncoder();

export class MeterBook {
  /** Whether the event checked last is of a type that a meter of its tenant counts. */
  matched = false;
  /** What the last refusal is about: the field and the meter, such as 'data.tokens (meter input_tokens)'. */
  faultField = '';

  readonly #tenants = new Map<string, TenantMeters>();
  readonly #hash = new TextHash();
  #scratch = new Uint8Array(256);

  // Events of a batch are mostly of one type: the meters of the last one are tried first.
  #tenant = '';
  #type: TypeMeters | null = null;

  #paths: PathTable | null = null;
  #generation = 0;
  #epoch = 0;

  get size(): number {
    let size = 0;
    for (const { meters } of this.#tenants.values()) size += meters.size;
    return size;
  }

  /**
   * Takes an entry of the bucket: the JSON of a MeterDefined under `tenant.key`, or null for one that is gone.
   * False when it is not sound: then no meter of that name is known here, and the log decides alone.
   */
  set(entry: string, json: string | null): boolean {
    const dot = entry.lastIndexOf('.');
    if (dot < 0) return json === null;
    const [tenant, key] = [entry.slice(0, dot), entry.slice(dot + 1)];
    const defined = json === null ? null : parseMeterRecord(json);
    if (
      defined === null ||
      defined.tenant !== tenant ||
      defined.meter.key !== key ||
      !isUnicode(defined.meter)
    ) {
      this.#forget(tenant, key);
      return json === null;
    }
    let known = this.#tenants.get(tenant);
    if (known === undefined) this.#tenants.set(tenant, (known = { meters: new Map(), types: null }));
    const before = known.meters.get(key);
    if (before !== undefined && sameMeter(before, defined.meter)) return true;
    known.meters.set(key, defined.meter);
    known.types = null;
    this.#type = null;
    return true;
  }

  /**
   * Whether the batch's draft event has the values that its meters need: null, or the code with `faultField` set.
   * With several meters the answer is that of the first that has one.
   */
  check(tenant: string, batch: EventBatch, draft: Draft): EdgeRejectionCode | null {
    const type = this.#find(tenant, batch, draft.start[TYPE]!, draft.end[TYPE]!);
    this.matched = type !== null;
    if (type === null) return null;
    if (batch.paths !== this.#paths || batch.paths.generation !== this.#generation) this.#meet(batch.paths);
    if (type.epoch !== this.#epoch) {
      for (const needed of type.needed) needed.place = 0;
      type.epoch = this.#epoch;
    }
    for (const needed of type.needed) {
      const code = this.#value(needed, batch);
      if (code !== null) {
        this.faultField = `data.${needed.meter.valueProperty} (meter ${needed.meter.key})`;
        return code;
      }
    }
    return null;
  }

  #value(needed: Needed, batch: EventBatch): EdgeRejectionCode | null {
    const first = batch.fieldStart[batch.count]!;
    let at = first + needed.field;
    if (needed.place === 0 || at >= batch.fieldCount || batch.path[at] !== needed.place) {
      at = this.#search(needed, batch, first);
      if (at < 0) return 'meter_value_missing';
    }
    const tag = batch.code[at]! >>> 8;
    if (tag === FIELD_NUMBER) return null;
    const start = batch.textStart[at]!;
    const end = batch.textEnd[at]!;
    if (tag === FIELD_LITERAL) {
      const isNull = end - start === 4 && batch.bytes[start] === 0x6e;
      return isNull ? 'meter_value_missing' : 'meter_value_not_a_number';
    }
    const fault = decimalFault(batch.bytes, start, end);
    if (fault === null) return null;
    return fault === 'not_a_decimal' ? 'meter_value_not_a_number' : 'meter_value_out_of_range';
  }

  /** The field of the draft that has the needed path, or -1. */
  #search(needed: Needed, batch: EventBatch, first: number): number {
    const { paths, path } = batch;
    for (let at = first; at < batch.fieldCount; at++) {
      const place = path[at]!;
      if (place !== needed.place) {
        if (paths.hashLow[place] !== needed.low || paths.hashHigh[place] !== needed.high) continue;
        if (!this.#isPath(paths, place, needed.path)) continue;
        needed.place = place;
      }
      needed.field = at - first;
      return at;
    }
    return -1;
  }

  #isPath(paths: PathTable, place: number, path: Uint8Array): boolean {
    if (paths.length[place] !== path.length) return false;
    if (this.#scratch.length < path.length) this.#scratch = new Uint8Array(path.length);
    paths.write(place, this.#scratch, 0);
    return path.every((byte, at) => this.#scratch[at] === byte);
  }

  #find(tenant: string, { view }: EventBatch, start: number, end: number): TypeMeters | null {
    const last = this.#type;
    if (last !== null && tenant === this.#tenant && isType(last, view, start, end)) return last;
    const known = this.#tenants.get(tenant);
    if (known === undefined) return null;
    const types = (known.types ??= this.#byType(known.meters));
    this.#hash.ofView(view, start, end);
    const found = types.get(this.#hash.low)?.find((type) => isType(type, view, start, end));
    if (found === undefined) return null;
    this.#tenant = tenant;
    this.#type = found;
    return found;
  }

  /** Another path table, or one that was emptied: what its numbers meant is over. */
  #meet(paths: PathTable): void {
    this.#paths = paths;
    this.#generation = paths.generation;
    this.#epoch += 1;
  }

  #forget(tenant: string, key: string): void {
    const known = this.#tenants.get(tenant);
    if (known?.meters.delete(key) !== true) return;
    if (known.meters.size === 0) this.#tenants.delete(tenant);
    known.types = null;
    this.#type = null;
  }

  #byType(meters: ReadonlyMap<string, Meter>): Map<number, TypeMeters[]> {
    const neededBy = new Map<string, Needed[]>();
    for (const meter of meters.values()) {
      let needed = neededBy.get(meter.eventType);
      if (needed === undefined) neededBy.set(meter.eventType, (needed = []));
      if (meter.valueProperty === null) continue;
      const path = utf8.encode(meter.valueProperty);
      this.#hash.of(path, 0, path.length);
      const [low, high] = [this.#hash.low >>> 0, this.#hash.high >>> 0];
      needed.push({ meter, path, low, high, place: 0, field: 0 });
    }
    const types = new Map<number, TypeMeters[]>();
    for (const [name, needed] of neededBy) {
      const bytes = utf8.encode(name);
      const padded = new Uint8Array(bytes.length + SLACK_BYTES);
      padded.set(bytes);
      this.#hash.of(bytes, 0, bytes.length);
      const entry = { type: new DataView(padded.buffer), length: bytes.length, needed, epoch: -1 };
      const others = types.get(this.#hash.low);
      if (others === undefined) types.set(this.#hash.low, [entry]);
      else others.push(entry);
    }
    return types;
  }
}

/** Other text has no bytes to look for. */
function isUnicode({ eventType, valueProperty }: Meter): boolean {
  return eventType.isWellFormed() && (valueProperty ?? '').isWellFormed();
}

function isType({ type, length }: TypeMeters, view: DataView, start: number, end: number): boolean {
  return end - start === length && sameWords(type, 0, view, start, length);
}
