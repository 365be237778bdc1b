// What meters make of events, told a third time: neither as aggregator/prepare.ts does it nor as the view
// `contributions` does, but one event at a time on plain objects, and too simply to be wrong.
import type { Meter, MeterFilter } from '../contract/meter.ts';
import { nano, type ModelRow } from './usage-log.ts';

const HOUR_MS = 3_600_000;

export interface MeteredEvent {
  readonly tenant: string;
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly data: Readonly<Record<string, unknown>>;
}

export class MeterModel {
  /** By JSON of [shard, tenant, meter, subject, hour ms, dimensions]. */
  readonly rows = new Map<string, ModelRow>();
  /** The distinct values of each unique count, by "tenant meter". */
  readonly values = new Map<string, Set<string>>();
  contributions = 0;
  overflowed = 0;
  refused = 0;
  counted = 0;
  readonly #versions = new Map<string, Meter[]>();
  readonly #counted = new Set<string>();
  /** The groups with rows of their own, by "tenant meter hour". */
  readonly #groups = new Map<string, Set<string>>();

  define(tenant: string, meter: Meter): void {
    const key = `${tenant} ${meter.key}`;
    this.#versions.set(key, [...(this.#versions.get(key) ?? []), meter]);
  }

  send(event: MeteredEvent): void {
    const identity = `${event.tenant} ${event.id}`;
    if (this.#counted.has(identity)) return;
    const hour = Math.floor(event.timeMs / HOUR_MS) * HOUR_MS;
    const added: [Meter, bigint][] = [];
    for (const [key, versions] of this.#versions) {
      if (!key.startsWith(`${event.tenant} `)) continue;
      let meter = versions[0]!;
      for (const one of versions) if ((one.effectiveFromMs ?? 0) <= hour) meter = one;
      if (meter.eventType !== event.type || !(meter.filters ?? []).every((one) => passes(one, event)))
        continue;
      const value = valueOf(meter, event);
      if (value === null) {
        this.refused += 1;
        return;
      }
      added.push([meter, value]);
    }
    this.#counted.add(identity);
    this.counted += 1;
    for (const [meter, value] of added) this.#add(event, meter, hour, value);
  }

  #add(event: MeteredEvent, meter: Meter, hour: number, value: bigint): void {
    this.contributions += 1;
    let dimensions = meter.groupBy.map((path) =>
      Array.from(textOf(event, path) ?? '')
        .slice(0, 256)
        .join(''),
    );
    const name = `${event.tenant} ${meter.key}`;
    const groups = this.#groups.get(`${name} ${hour}`) ?? new Set<string>();
    this.#groups.set(`${name} ${hour}`, groups);
    const group = JSON.stringify(dimensions);
    if (dimensions.includes('__overflow__')) {
      dimensions = dimensions.map(() => '__overflow__');
    } else if (dimensions.length > 0 && !groups.has(group)) {
      if (groups.size < (meter.groupsMax ?? 10_000)) {
        groups.add(group);
      } else {
        dimensions = dimensions.map(() => '__overflow__');
        this.overflowed += 1;
      }
    }
    if (meter.aggregation === 'unique_count') {
      const values = this.values.get(name) ?? new Set<string>();
      this.values.set(name, values.add(textOf(event, meter.valueProperty!)!));
    }
    const key = JSON.stringify([0, event.tenant, meter.key, event.subject, hour, dimensions]);
    const row = this.rows.get(key);
    const latestMs = event.timeMs;
    if (row === undefined) {
      this.rows.set(key, { count: 1n, sum: value, min: value, max: value, latest: value, latestMs });
      return;
    }
    row.count += 1n;
    row.sum += value;
    if (value < row.min) row.min = value;
    if (value > row.max) row.max = value;
    if (latestMs >= row.latestMs) [row.latest, row.latestMs] = [value, latestMs];
  }
}

function passes(filter: MeterFilter, event: MeteredEvent): boolean {
  const text = textOf(event, filter.property) ?? '';
  return 'in' in filter ? filter.in.includes(text) : !filter.notIn.includes(text);
}

/** Null: the meter refuses the event. */
function valueOf(meter: Meter, event: MeteredEvent): bigint | null {
  if (meter.aggregation === 'count') return nano(1);
  const value = at(event, meter.valueProperty!);
  if (value === undefined || value === null) return null;
  if (meter.aggregation === 'unique_count') return nano(1);
  return typeof value === 'number' || typeof value === 'string' ? nano(value) : null;
}

function textOf(event: MeteredEvent, path: string): string | undefined {
  const value = at(event, path);
  return value === undefined ? undefined : typeof value === 'string' ? value : JSON.stringify(value);
}

function at({ data }: MeteredEvent, path: string): unknown {
  return path
    .split('.')
    .reduce<unknown>(
      (inside, key) =>
        typeof inside === 'object' && inside !== null && !Array.isArray(inside)
          ? (inside as Record<string, unknown>)[key]
          : undefined,
      data,
    );
}
