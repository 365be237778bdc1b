/**
 * The meters in force in a shard's log. A definition holds for the blocks behind it, never for those before; what
 * stands under a key and version first stays, because rollups written under one meaning must not be read under
 * another.
 *
 * Everything is decided from the log: a version must continue the one before it, and the moment at which the log
 * stored it, which is part of the log, must lie well before its first hour (METER_LIMITS.versionLeadMs). What does
 * not fit changes nothing, in every replay alike. A definition that ClickHouse has was taken once, and is in force.
 *
 * A backfill (contract/backfill.ts) is decided here in the same way: it is proposed for a version that stands in the
 * log, committed when no other one holds any of its hours, and reverted once. While it is committed, blocks behind it
 * count for the meter by its version in its hours, whatever version the hour would have.
 */
import { BACKFILL_LIMITS, overlaps, sameBackfill } from '../contract/backfill.ts';
import type { Backfill, BackfillChange } from '../contract/backfill.ts';
import type { BackfillChanged, MeterDefined } from '../contract/control.ts';
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
  /** By tenant and id, in the order of the log. */
  readonly #backfills = new Map<string, StandingBackfill>();
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

  /** @param storedMs when the log stored the change, epoch milliseconds by the log's clock. */
  changeBackfill(changed: BackfillChanged, storedMs: number): 'new' | 'same' | 'contradicts' {
    const { tenant, change, backfill } = changed;
    const known = this.#backfills.get(backfillKey(changed));
    if (known === undefined) {
      const versions = this.#byKey.get(JSON.stringify([tenant, backfill.meter])) ?? [];
      const hasVersion = versions.some((one) => versionOf(one) === backfill.version);
      if (change !== 'proposed' || !hasVersion) return 'contradicts';
      if (backfill.toMs > storedMs + BACKFILL_LIMITS.aheadMs) return 'contradicts';
    } else {
      if (!sameBackfill(known.backfill, backfill)) return 'contradicts';
      // Said again, also when it went on meanwhile.
      if (STEPS[change] <= STEPS[known.state]) return 'same';
      if (STEPS[change] !== STEPS[known.state] + 1) return 'contradicts';
      if (change === 'committed' && this.#isTaken(tenant, backfill)) return 'contradicts';
    }
    this.loadBackfill(changed);
    return 'new';
  }

  /** Enters a change that was taken before; they come in the order of the log, behind the definitions. */
  loadBackfill(changed: BackfillChanged): void {
    const { tenant, change, backfill } = changed;
    this.#backfills.set(backfillKey(changed), { tenant, backfill, state: change });
    // What is only proposed is nothing to the workers.
    if (change !== 'proposed') this.version += 1;
  }

  /** Whether another one holds an hour of it. */
  #isTaken(tenant: string, backfill: Backfill): boolean {
    for (const other of this.#backfills.values()) {
      if (other.tenant === tenant && other.state === 'committed' && overlaps(other.backfill, backfill))
        return true;
    }
    return false;
  }

  /** What the workers go by, in memory that all threads see, so that a job carries only a reference. */
  shared(): SharedArrayBuffer {
    if (this.#shared?.version !== this.version) {
      const inForce = [...this.#backfills.values()].filter(({ state }) => state === 'committed');
      const backfills: BackfillInForce[] = inForce.map(({ tenant, backfill }) => ({ tenant, backfill }));
      const told: Told = { definitions: this.#definitions, backfills };
      const text = new TextEncoder().encode(JSON.stringify(told));
      const bytes = new SharedArrayBuffer(text.length);
      new Uint8Array(bytes).set(text);
      this.#shared = { version: this.version, bytes };
    }
    return this.#shared.bytes;
  }
}

/** A backfill that is committed and not reverted. */
export interface BackfillInForce {
  readonly tenant: string;
  readonly backfill: Backfill;
}

interface StandingBackfill extends BackfillInForce {
  readonly state: BackfillChange;
}

interface Told {
  readonly definitions: readonly MeterDefined[];
  readonly backfills: readonly BackfillInForce[];
}

const STEPS: Readonly<Record<BackfillChange, number>> = { proposed: 1, committed: 2, reverted: 3 };

function keyOf({ tenant, meter }: MeterDefined): string {
  return JSON.stringify([tenant, meter.key]);
}

function backfillKey({ tenant, backfill }: BackfillInForce): string {
  return JSON.stringify([tenant, backfill.id]);
}

export function readShared(bytes: SharedArrayBuffer): MetersInForce {
  const text = new TextDecoder().decode(new Uint8Array(bytes).slice());
  const { definitions, backfills } = JSON.parse(text) as Told;
  return metersInForce(definitions, backfills);
}

/** @param backfills of one meter, no two have an hour in common. */
export function metersInForce(
  definitions: readonly MeterDefined[],
  backfills: readonly BackfillInForce[] = [],
): MetersInForce {
  const filled = new Map<string, Backfill[]>();
  for (const { tenant, backfill } of backfills) {
    const key = JSON.stringify([tenant, backfill.meter]);
    filled.set(key, [...(filled.get(key) ?? []), backfill]);
  }
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
  const rulesOf = (tenant: string, meters: Iterable<readonly Meter[]>): Rules[] =>
    Array.from(meters, (versions) => {
      const backfills = filled.get(JSON.stringify([tenant, versions[0]!.key])) ?? [];
      return { versions, backfills };
    });
  return mapValues(tenants, (types, tenant) =>
    mapValues(types, (keys) => metersOfType(rulesOf(tenant, keys.values()))),
  );
}

/** What says which version of a meter an hour has. */
interface Rules {
  readonly versions: readonly Meter[];
  readonly backfills: readonly Backfill[];
}

function metersOfType(meters: readonly Rules[]): MetersOfType {
  const hours = meters.flatMap(({ versions, backfills }) => [
    ...versions.slice(1).map((one) => effectiveFromOf(one) / HOUR_MS),
    ...backfills.flatMap(({ fromMs, toMs }) => [fromMs / HOUR_MS, toMs / HOUR_MS]),
  ]);
  const fromHours = [...new Set(hours)].sort((a, b) => a - b);
  const epochs = [-Infinity, ...fromHours].map((hour) => meters.map((rules) => versionIn(rules, hour)));
  return { fromHours, epochs };
}

function versionIn({ versions, backfills }: Rules, hour: number): Meter {
  const backfill = backfills.find(({ fromMs, toMs }) => fromMs / HOUR_MS <= hour && hour < toMs / HOUR_MS);
  if (backfill !== undefined) return versions.find((one) => versionOf(one) === backfill.version)!;
  return versions.findLast((one, at) => at === 0 || effectiveFromOf(one) / HOUR_MS <= hour)!;
}

/** The number of the epoch that an hour since 1970 lies in. */
export function epochOf({ fromHours }: MetersOfType, hour: number): number {
  let epoch = 0;
  while (epoch < fromHours.length && fromHours[epoch]! <= hour) epoch += 1;
  return epoch;
}

function mapValues<A, B>(map: ReadonlyMap<string, A>, of: (value: A, key: string) => B): Map<string, B> {
  return new Map(Array.from(map, ([key, value]) => [key, of(value, key)]));
}
