// One request's work in progress. It reads through to the state and sees its own writes; nothing of it is visible
// to others before `entry()` is applied, so that a refusal half way leaves no trace.
import { missing } from './error.ts';
import type { Json, JsonObject } from './operation.ts';
import type { AnyRecord, EndpointRecord, Entry, EventRecord, ObjectName, Reader, Records } from './state.ts';

/** What a change needs to know about the world. */
export interface Surroundings {
  nowMs: number;
  /** A new id with the given prefix: `newId('in')` is `in_…`. */
  newId(prefix: string): string;
  apiVersion: string;
  /** Where the stand-in is reached, for links. */
  url: string;
  request: { id: string; idempotency_key: string | null };
}

export class Change implements Reader {
  readonly surroundings: Surroundings;
  private readonly base: Reader;
  private readonly writes = new Map<string, AnyRecord>();
  private readonly removals = new Map<string, ObjectName>();
  private readonly events: EventRecord[] = [];

  constructor(base: Reader, surroundings: Surroundings) {
    this.base = base;
    this.surroundings = surroundings;
  }

  /** Seconds since 1970, as Stripe dates everything. */
  get now(): number {
    return Math.floor(this.surroundings.nowMs / 1000);
  }

  newId(prefix: string): string {
    return this.surroundings.newId(prefix);
  }

  get<K extends ObjectName>(object: K, id: string): Records[K] | undefined {
    if (this.removals.get(id) === object) return undefined;
    const written = this.writes.get(id);
    if (written?.object === object) return written as Records[K];
    return this.base.get(object, id);
  }

  all<K extends ObjectName>(object: K): Records[K][] {
    const records: Records[K][] = [];
    for (const { id } of this.base.all(object)) {
      const record = this.get(object, id);
      if (record !== undefined) records.push(record);
    }
    for (const record of this.writes.values()) {
      if (record.object === object && this.base.get(object, record.id) === undefined)
        records.push(record as Records[K]);
    }
    return records;
  }

  pendingItems(customer: string): string[] {
    const ids = new Set(this.base.pendingItems(customer));
    for (const record of this.writes.values()) {
      if (record.object === 'invoiceitem' && record.customer === customer) ids.add(record.id);
    }
    return [...ids].filter((id) => this.get('invoiceitem', id)?.invoice === null);
  }

  /** The record, or Stripe's `resource_missing`: 404 for an id in the path, 400 for one in a parameter. */
  require<K extends ObjectName>(object: K, id: string, param = 'id', status: 400 | 404 = 404): Records[K] {
    const record = this.get(object, id);
    if (record === undefined) throw missing(object, id, param, status);
    return record;
  }

  put<T extends AnyRecord>(record: T): T {
    this.removals.delete(record.id);
    this.writes.set(record.id, record);
    return record;
  }

  remove(object: ObjectName, id: string): void {
    this.writes.delete(id);
    this.removals.set(id, object);
  }

  /** Writes an event with a copy of the object as it is now, for every enabled endpoint that wants the type. */
  emit(type: string, object: JsonObject, previous?: JsonObject): void {
    const data: JsonObject = { object: structuredClone(object) };
    if (previous !== undefined) data['previous_attributes'] = structuredClone(previous);
    this.events.push({
      object: 'event',
      id: this.newId('evt'),
      created: this.now,
      type,
      apiVersion: this.surroundings.apiVersion,
      data,
      request: this.surroundings.request,
      pending: this.all('webhook_endpoint')
        .filter((endpoint) => wants(endpoint, type))
        .map((endpoint) => endpoint.id),
    });
  }

  /** `emit`, with the attributes that differ; nothing when none does. */
  emitUpdated(type: string, before: JsonObject, after: JsonObject): void {
    const previous = previousAttributes(before, after);
    if (Object.keys(previous).length > 0) this.emit(type, after, previous);
  }

  entry(): Entry {
    const entry: Entry = { at: this.surroundings.nowMs };
    if (this.writes.size + this.events.length > 0) entry.put = [...this.writes.values(), ...this.events];
    if (this.removals.size > 0) entry.remove = [...this.removals].map(([id, object]) => ({ object, id }));
    return entry;
  }
}

function wants(endpoint: EndpointRecord, type: string): boolean {
  return (
    !endpoint.disabled && (endpoint.enabledEvents.includes('*') || endpoint.enabledEvents.includes(type))
  );
}

/** Of every attribute of `after` that differs from `before`, the value before. */
export function previousAttributes(before: JsonObject, after: JsonObject): JsonObject {
  const previous: JsonObject = {};
  for (const name of Object.keys(after)) {
    const old: Json = before[name] ?? null;
    if (JSON.stringify(old) !== JSON.stringify(after[name] ?? null)) previous[name] = old;
  }
  return previous;
}
