/**
 * The meters that this edge knows of, and whether an event has what they need.
 *
 * The log decides what an event counts for (docs/decisions/0004-meters-in-the-log.md): an aggregator refuses an
 * event that lacks the value of one of its meters. The edge asks the same question earlier, so that the sender
 * hears of it while the event is still theirs. It may know less than the log: a meter that was defined a moment
 * ago, or a bucket that cannot be read, lets an event through, and the log decides as ever. The rules are those of
 * aggregator/prepare.ts, to the letter; test/edge-meters.test.ts holds the two together.
 *
 * An event costs a comparison of its type with the last one and, for each meter that needs a value, of the number of
 * one place: a meter remembers the place of its value and where among the fields it stood the last time. Only a value
 * that is sent as text is looked at. Filters come first: what a filter leaves out is not asked for its value. Which
 * version of a meter holds is decided by the time of the event.
 */
import { SLACK_BYTES, sameWords } from '../../contract/byte-words.ts';
import { parseMeterVersions } from '../../contract/control.ts';
import { ATTRIBUTES_KEPT, TYPE, type EventBatch } from '../../contract/event-batch.ts';
import { FIELD_LITERAL, FIELD_NUMBER, FIELD_TEXT } from '../../contract/fields.ts';
import {
  effectiveFromOf,
  filterValues,
  mantissasAmong,
  sameMeter,
  type Meter,
  type MeterFilter,
} from '../../contract/meter.ts';
import type { PathTable } from '../../contract/path-table.ts';
import type { EdgeRejectionCode } from '../../contract/rejections.ts';
import { TextHash } from '../../contract/text-hash.ts';
import { decimalFault } from '../read/decimal-text.ts';
import type { Draft } from '../read/draft.ts';

/** A path in `data` that is asked for. */
interface Sought {
  /** The dotted path in UTF-8, and its hash. */
  readonly path: Uint8Array;
  readonly low: number;
  readonly high: number;
  /** The place where the value stood the last time, and which of the fields it was. 0: not known yet. */
  place: number;
  field: number;
}

interface SoughtFilter {
  readonly at: Sought;
  readonly isIn: boolean;
  /** Its values as they are, and in UTF-8. */
  readonly texts: readonly string[];
  readonly bytes: readonly Uint8Array[];
  /** The numbers among the values, as mantissas, by scale. */
  readonly numbers: (ReadonlySet<number> | undefined)[];
}

/** A version of a meter, and what it needs; a count needs nothing. */
interface Needed {
  readonly meter: Meter;
  readonly fromMs: number;
  readonly value: Sought | null;
  readonly filters: readonly SoughtFilter[];
}

interface TypeMeters {
  /** UTF-8 with SLACK_BYTES behind it, and its length without them. */
  readonly type: DataView;
  readonly length: number;
  /** The versions of each meter of which any needs a value, in order. */
  readonly needed: readonly (readonly Needed[])[];
  readonly sought: readonly Sought[];
  /** Which state of which path table the places in `sought` are of. */
  epoch: number;
}

interface TenantMeters {
  /** Versions by key, in the order in which the keys became known. */
  readonly meters: Map<string, readonly Meter[]>;
  /** By `low` of the hash of the type's bytes. Null: to be made when the next event comes. */
  types: Map<number, TypeMeters[]> | null;
}

const utf8 = new TextEncoder();

export class MeterBook {
  /** Whether the event checked last is of a type that a meter of its tenant counts. */
  matched = false;
  /** Another one whenever what is known of any meter has changed. */
  version = 0;
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
   * Takes an entry of the bucket: the versions of a meter under `tenant.key`, or null for one that is gone.
   * False when it is not sound: then no meter of that name is known here, and the log decides alone.
   */
  set(entry: string, json: string | null): boolean {
    const dot = entry.lastIndexOf('.');
    if (dot < 0) return json === null;
    const [tenant, key] = [entry.slice(0, dot), entry.slice(dot + 1)];
    const record = json === null ? null : parseMeterVersions(json);
    if (
      record === null ||
      record.tenant !== tenant ||
      record.versions.some((meter) => meter.key !== key || !isUnicode(meter))
    ) {
      this.#forget(tenant, key);
      return json === null;
    }
    let known = this.#tenants.get(tenant);
    if (known === undefined) this.#tenants.set(tenant, (known = { meters: new Map(), types: null }));
    const { versions } = record;
    const before = known.meters.get(key);
    if (before?.length === versions.length && versions.every((meter, at) => sameMeter(before[at]!, meter)))
      return true;
    known.meters.set(key, versions);
    known.types = null;
    this.#type = null;
    this.version += 1;
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
      for (const sought of type.sought) sought.place = 0;
      type.epoch = this.#epoch;
    }
    for (const versions of type.needed) {
      const needed = versions.length === 1 ? versions[0]! : versionAt(versions, batch.timeMs[batch.count]!);
      if (needed.value === null || !this.#passes(needed.filters, batch)) continue;
      const code = this.#value(needed.meter, needed.value, batch);
      if (code !== null) {
        this.faultField = `data.${needed.meter.valueProperty} (meter ${needed.meter.key})`;
        return code;
      }
    }
    return null;
  }

  /**
   * What `check` says of all events that have the type of the one committed last and fields at the same places with values
   * of the same kinds, whatever those are: that no meter counts them, or that each has what its meters need (whether or not
   * their filters let it through); or that it has to be asked each time.
   */
  assures(tenant: string, batch: EventBatch): 'unmatched' | 'passes' | 'asks' {
    const event = batch.count - 1;
    const at = event * ATTRIBUTES_KEPT + TYPE;
    const type = this.#find(tenant, batch, batch.start[at]!, batch.end[at]!);
    if (type === null) return 'unmatched';
    const first = batch.fieldStart[event]!;
    for (const versions of type.needed) {
      for (const { meter, value } of versions) {
        if (value === null) continue;
        const field = this.#search({ ...value, place: 0 }, batch, first);
        if (field < 0) return 'asks';
        const tag = batch.code[field]! >>> 8;
        const isTaken = tag === FIELD_NUMBER || (tag === FIELD_TEXT && meter.aggregation === 'unique_count');
        if (!isTaken) return 'asks';
      }
    }
    return 'passes';
  }

  #passes(filters: readonly SoughtFilter[], batch: EventBatch): boolean {
    for (const filter of filters) {
      const at = this.#at(filter.at, batch);
      if (isAmong(filter, batch, at) !== filter.isIn) return false;
    }
    return true;
  }

  #value(meter: Meter, value: Sought, batch: EventBatch): EdgeRejectionCode | null {
    const at = this.#at(value, batch);
    if (at < 0) return 'meter_value_missing';
    const tag = batch.code[at]! >>> 8;
    if (tag === FIELD_NUMBER) return null;
    const start = batch.textStart[at]!;
    const end = batch.textEnd[at]!;
    if (tag === FIELD_LITERAL) {
      const isNull = end - start === 4 && batch.bytes[start] === 0x6e;
      if (isNull) return 'meter_value_missing';
      return meter.aggregation === 'unique_count' ? null : 'meter_value_not_a_number';
    }
    if (meter.aggregation === 'unique_count') return null;
    const fault = decimalFault(batch.bytes, start, end);
    if (fault === null) return null;
    return fault === 'not_a_decimal' ? 'meter_value_not_a_number' : 'meter_value_out_of_range';
  }

  /** The field of the draft that has the path, or -1. */
  #at(sought: Sought, batch: EventBatch): number {
    const first = batch.fieldStart[batch.count]!;
    const at = first + sought.field;
    const isThere = sought.place !== 0 && at < batch.fieldCount && batch.path[at] === sought.place;
    return isThere ? at : this.#search(sought, batch, first);
  }

  #search(sought: Sought, batch: EventBatch, first: number): number {
    const { paths, path } = batch;
    for (let at = first; at < batch.fieldCount; at++) {
      const place = path[at]!;
      if (place !== sought.place) {
        if (paths.hashLow[place] !== sought.low || paths.hashHigh[place] !== sought.high) continue;
        if (!this.#isPath(paths, place, sought.path)) continue;
        sought.place = place;
      }
      sought.field = at - first;
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
    this.version += 1;
  }

  #byType(meters: ReadonlyMap<string, readonly Meter[]>): Map<number, TypeMeters[]> {
    const neededBy = new Map<string, { needed: Needed[][]; sought: Sought[] }>();
    for (const versions of meters.values()) {
      // A version has the type of those before it.
      const { eventType } = versions[0]!;
      let of = neededBy.get(eventType);
      if (of === undefined) neededBy.set(eventType, (of = { needed: [], sought: [] }));
      if (versions.some(({ valueProperty }) => valueProperty !== null))
        of.needed.push(versions.map((meter) => this.#needed(meter, of.sought)));
    }
    const types = new Map<number, TypeMeters[]>();
    for (const [name, { needed, sought }] of neededBy) {
      const bytes = utf8.encode(name);
      const padded = new Uint8Array(bytes.length + SLACK_BYTES);
      padded.set(bytes);
      this.#hash.of(bytes, 0, bytes.length);
      const entry = { type: new DataView(padded.buffer), length: bytes.length, needed, sought, epoch: -1 };
      const others = types.get(this.#hash.low);
      if (others === undefined) types.set(this.#hash.low, [entry]);
      else others.push(entry);
    }
    return types;
  }

  #needed(meter: Meter, sought: Sought[]): Needed {
    const { valueProperty, filters = [] } = meter;
    const seek = (path: string): Sought => {
      const one = this.#sought(path);
      sought.push(one);
      return one;
    };
    return {
      meter,
      fromMs: effectiveFromOf(meter),
      value: valueProperty === null ? null : seek(valueProperty),
      filters: filters.map((filter) => soughtFilter(filter, seek(filter.property))),
    };
  }

  #sought(dotted: string): Sought {
    const path = utf8.encode(dotted);
    this.#hash.of(path, 0, path.length);
    return { path, low: this.#hash.low >>> 0, high: this.#hash.high >>> 0, place: 0, field: 0 };
  }
}

/** The last version that begins at or before the event; it is what the hour decides too, in which versions begin. */
function versionAt(versions: readonly Needed[], timeMs: number): Needed {
  let last = versions[0]!;
  for (const version of versions) if (version.fromMs <= timeMs) last = version;
  return last;
}

function soughtFilter(filter: MeterFilter, at: Sought): SoughtFilter {
  const texts = filterValues(filter);
  return { at, isIn: 'in' in filter, texts, bytes: texts.map((text) => utf8.encode(text)), numbers: [] };
}

/** Whether the value of a field, -1 for none, is one of the filter's. */
function isAmong(filter: SoughtFilter, batch: EventBatch, at: number): boolean {
  if (at < 0) return filter.texts.includes('');
  const code = batch.code[at]!;
  if (code >>> 8 === FIELD_NUMBER) {
    const scale = code & 0xff;
    return (filter.numbers[scale] ??= mantissasAmong(filter.texts, scale)).has(batch.mantissa[at]!);
  }
  const [start, end] = [batch.textStart[at]!, batch.textEnd[at]!];
  return filter.bytes.some((text) => {
    if (text.length !== end - start) return false;
    for (let byte = 0; byte < text.length; byte++) if (text[byte] !== batch.bytes[start + byte]) return false;
    return true;
  });
}

/** Other text has no bytes to look for. */
function isUnicode({ eventType, valueProperty }: Meter): boolean {
  return eventType.isWellFormed() && (valueProperty ?? '').isWellFormed();
}

function isType({ type, length }: TypeMeters, view: DataView, start: number, end: number): boolean {
  return end - start === length && sameWords(type, 0, view, start, length);
}
