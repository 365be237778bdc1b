/**
 * The meters in force in a shard's log. A definition holds for the blocks behind it, never for those before;
 * the first definition of a key stays, because rollups written under one meaning must not be read under
 * another.
 */
import { sameMeter, type Meter } from '../contract/meter.ts';
import type { MeterDefined } from '../contract/control.ts';

/** tenant → event type → meters, in the order of their definitions. */
export type MetersInForce = ReadonlyMap<string, ReadonlyMap<string, readonly Meter[]>>;

export class MeterRegistry {
  /** Rises with every change. */
  version = 0;
  readonly #definitions: MeterDefined[] = [];
  readonly #byKey = new Map<string, Meter>();
  #shared: { version: number; bytes: SharedArrayBuffer } | null = null;

  get size(): number {
    return this.#definitions.length;
  }

  define(definition: MeterDefined): 'new' | 'same' | 'contradicts' {
    const key = JSON.stringify([definition.tenant, definition.meter.key]);
    const known = this.#byKey.get(key);
    if (known !== undefined) return sameMeter(known, definition.meter) ? 'same' : 'contradicts';
    this.#byKey.set(key, definition.meter);
    this.#definitions.push(definition);
    this.version += 1;
    return 'new';
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

export function readShared(bytes: SharedArrayBuffer): MetersInForce {
  const text = new TextDecoder().decode(new Uint8Array(bytes).slice());
  return metersInForce(JSON.parse(text) as MeterDefined[]);
}

export function metersInForce(definitions: readonly MeterDefined[]): MetersInForce {
  const tenants = new Map<string, Map<string, Meter[]>>();
  for (const { tenant, meter } of definitions) {
    let types = tenants.get(tenant);
    if (types === undefined) tenants.set(tenant, (types = new Map()));
    const meters = types.get(meter.eventType);
    if (meters === undefined) types.set(meter.eventType, [meter]);
    else meters.push(meter);
  }
  return tenants;
}
