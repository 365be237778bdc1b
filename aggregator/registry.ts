/**
 * The meters in force in a shard's log. A definition holds for the blocks behind it, never for those before; what
 * stands under a key and version first stays, because rollups written under one meaning must not be read under
 * another.
 *
 * Everything is decided from the log: a version must continue the one before it, and the moment at which the log
 * stored it, which is part of the log, must lie well before its first hour (METER_LIMITS.versionLeadMs). What does
 * not fit changes nothing, in every replay alike. A definition that ClickHouse has was taken once, and is in force.
 */
import type { MeterDefined } from '../contract/control.ts';
import {
  effectiveFromOf,
  METER_LIMITS,
  sameMeter,
  successionMistakes,
  versionOf,
  type Meter,
} from '../contract/meter.ts';
import { HOUR_MS } from '../contract/window.ts';

/** The meters of one tenant and event type. */
export interface MetersOfType {
  /** First hours of versions, in hours since 1970, ascending. */
  readonly fromHours: readonly number[];
  /** The meters before the first of these hours, from the first on, from the second on, ... */
  readonly epochs: readonly (readonly Meter[])[];
}

/** tenant → event type → meters, in the order of their first definitions. */
export type MetersInForce = ReadonlyMap<string, ReadonlyMap<string, MetersOfType>>;

export class MeterRegistry {
  /** Rises with every change. */
  version = 0;
  readonly #definitions: MeterDefined[] = [];
  /** The versions of a meter, in order. */
  readonly #byKey = new Map<string, Meter[]>();
  #shared: { version: number; bytes: SharedArrayBuffer } | null = null;

  get size(): number {
    return this.#definitions.length;
  }

  /** @param storedMs when the log stored the definition, epoch milliseconds by the log's clock. */
  define(definition: MeterDefined, storedMs: number): 'new' | 'same' | 'contradicts' {
    const { meter } = definition;
    const versions = this.#byKey.get(keyOf(definition)) ?? [];
    const known = versions.find((one) => versionOf(one) === versionOf(meter));
    if (known !== undefined) return sameMeter(known, meter) ? 'same' : 'contradicts';
    const last = versions.at(-1);
    if (last === undefined) {
      if (versionOf(meter) !== 1) return 'contradicts';
    } else {
      if (successionMistakes(last, meter).length > 0) return 'contradicts';
      if (effectiveFromOf(meter) < storedMs + METER_LIMITS.versionLeadMs) return 'contradicts';
    }
    this.load(definition);
    return 'new';
  }

  /** Enters a definition that was taken before; they come in the order of the log. */
  load(definition: MeterDefined): void {
    const key = keyOf(definition);
    const versions = this.#byKey.get(key);
    if (versions === undefined) this.#byKey.set(key, [definition.meter]);
    else versions.push(definition.meter);
    this.#definitions.push(definition);
    this.version += 1;
  }

  /** The definitions for the workers, in memory that all threads see, so that a job carries only a reference. */
  shared(): SharedArrayBuffer {
    if (this.#shared?.version !== this.version) {
      const text = new TextEncoder().encode(JSON.stringify(this.#definitions));
      const bytes = new SharedArrayBuffer(text.length);
      new Uint8Array(bytes).set(text);
      this.#shared = { version: this.version, bytes };
    }
    return this.#shared.bytes;
  }
}

function keyOf({ tenant, meter }: MeterDefined): string {
  return JSON.stringify([tenant, meter.key]);
}

export function readShared(bytes: SharedArrayBuffer): MetersInForce {
  const text = new TextDecoder().decode(new Uint8Array(bytes).slice());
  return metersInForce(JSON.parse(text) as MeterDefined[]);
}

export function metersInForce(definitions: readonly MeterDefined[]): MetersInForce {
  // tenant → type → key → versions. A version has the type of those before it.
  const tenants = new Map<string, Map<string, Map<string, Meter[]>>>();
  for (const { tenant, meter } of definitions) {
    let types = tenants.get(tenant);
    if (types === undefined) tenants.set(tenant, (types = new Map()));
    let keys = types.get(meter.eventType);
    if (keys === undefined) types.set(meter.eventType, (keys = new Map()));
    const versions = keys.get(meter.key);
    if (versions === undefined) keys.set(meter.key, [meter]);
    else versions.push(meter);
  }
  return mapValues(tenants, (types) => mapValues(types, (keys) => metersOfType([...keys.values()])));
}

function metersOfType(meters: readonly (readonly Meter[])[]): MetersOfType {
  const hours = meters.flatMap((versions) => versions.slice(1).map((one) => effectiveFromOf(one) / HOUR_MS));
  const fromHours = [...new Set(hours)].sort((a, b) => a - b);
  const epochs = [-Infinity, ...fromHours].map((hour) =>
    meters.map((versions) =>
      versions.findLast((one, at) => at === 0 || effectiveFromOf(one) / HOUR_MS <= hour)!,
    ),
  );
  return { fromHours, epochs };
}

/** The number of the epoch that an hour since 1970 lies in. */
export function epochOf({ fromHours }: MetersOfType, hour: number): number {
  let epoch = 0;
  while (epoch < fromHours.length && fromHours[epoch]! <= hour) epoch += 1;
  return epoch;
}

function mapValues<A, B>(map: ReadonlyMap<string, A>, of: (value: A) => B): Map<string, B> {
  return new Map(Array.from(map, ([key, value]) => [key, of(value)]));
}
