// Events and corrections as edges would publish them, and a model of what must come of them: it keeps every event that
// counted, with whether it holds still, and adds up those that do when it is asked. Too simple to be wrong.
import { BlockBuilder } from '../contract/block-builder.ts';
import { PATH_AMENDS, PATH_TARGET, PATH_VOIDS, TYPE_VOID } from '../contract/corrections.ts';
import { EventBatch } from '../contract/event-batch.ts';
import { formatIdentity, IdentityHasher, ShardRule } from '../contract/identity.ts';
import type { Meter } from '../contract/meter.ts';
import { batchOf, correctionOf, identityOf } from './event-batch.ts';
import { nano, type ModelRow, type UsageLog } from './usage-log.ts';

const HOUR_MS = 3_600_000;
const KEY = '0f0e0d0c0b0a09080706050403020100';

export interface ToldEvent {
  readonly tenant: string;
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  readonly data: Readonly<Record<string, string | number>>;
}

/** An event, a void, or an event in the place of another one. */
export type Told =
  | (ToldEvent & { readonly voids?: undefined; readonly amends?: undefined })
  | {
      readonly tenant: string;
      readonly id: string;
      readonly voids: string;
      readonly amends?: undefined;
      readonly timeMs: number;
    }
  | (ToldEvent & { readonly voids?: undefined; readonly amends: string });

interface Added {
  readonly tenant: string;
  readonly meter: Meter;
  readonly shard: number;
  readonly subject: string;
  readonly timeMs: number;
  readonly dimensions: readonly string[];
  readonly value: bigint;
  readonly text: string;
}

interface Counted {
  readonly added: readonly Added[];
  holds: boolean;
}

export class CorrectedLog {
  /** By "tenant verdict code". */
  readonly verdicts = new Map<string, number>();
  received = 0;
  overflowed = 0;
  readonly #log: UsageLog;
  readonly #rule: ShardRule;
  readonly #hasher = new IdentityHasher(KEY);
  readonly #builder = new BlockBuilder();
  readonly #meters: { tenant: string; meter: Meter }[] = [];
  /** Payloads by identity. */
  readonly #payloads = new Map<string, string>();
  readonly #counted: Counted[] = [];
  /** What holds in the place of each original, null for nothing. */
  readonly #standing = new Map<string, Counted | null>();
  readonly #groups = new Map<string, Set<string>>();

  constructor(log: UsageLog, shards: number) {
    this.#log = log;
    this.#rule = new ShardRule(shards);
  }

  define(tenant: string, meter: Meter): void {
    this.#meters.push({ tenant, meter });
    this.#log.define(tenant, meter);
  }

  /** One block for each shard that has any of it. */
  send(all: readonly Told[]): void {
    for (const [shard, own] of this.sendAgain(all)) for (const told of own) this.#judge(shard, told);
  }

  /** The same, and the model takes no notice: it was judged before. */
  sendAgain(all: readonly Told[]): Map<number, Told[]> {
    const byShard = new Map<number, Told[]>();
    for (const told of all) {
      const shard = this.shardOf(told);
      byShard.set(shard, [...(byShard.get(shard) ?? []), told]);
    }
    for (const [shard, own] of byShard) {
      for (const told of own) this.#encode(told);
      this.#log.sendMessage(shard, this.#builder.finish(Date.UTC(2026, 10, 1)));
    }
    return byShard;
  }

  shardOf(told: Told): number {
    return this.#rule.of(identityOf(this.#hasher, told.tenant, '', originalOf(told)));
  }

  /** The rows that have anything in them, by JSON of [shard, tenant, meter, subject, hour ms, dimensions]. */
  rows(): Map<string, ModelRow> {
    const rows = new Map<string, ModelRow>();
    for (const { shard, tenant, meter, subject, timeMs, dimensions, value } of this.#held()) {
      const hour = Math.floor(timeMs / HOUR_MS) * HOUR_MS;
      const key = JSON.stringify([shard, tenant, meter.key, subject, hour, dimensions]);
      const row = rows.get(key);
      if (row === undefined) {
        rows.set(key, { count: 1n, sum: value, min: value, max: value, latest: value, latestMs: timeMs });
        continue;
      }
      row.count += 1n;
      row.sum += value;
      if (value < row.min) row.min = value;
      if (value > row.max) row.max = value;
      if (timeMs >= row.latestMs) [row.latest, row.latestMs] = [value, timeMs];
    }
    return rows;
  }

  /** By "tenant meter": how many events it counts, their sum, and how many values are distinct. */
  summary(): Map<string, string> {
    const found = new Map<string, { count: number; sum: bigint; values: Set<string> }>();
    for (const { tenant, meter, value, text } of this.#held()) {
      const key = `${tenant} ${meter.key}`;
      const one = found.get(key) ?? { count: 0, sum: 0n, values: new Set() };
      found.set(key, one);
      one.count += 1;
      one.sum += value;
      one.values.add(text);
    }
    return new Map(
      Array.from(found, ([key, { count, sum, values }]) => [key, `${count} ${sum} ${values.size}`]),
    );
  }

  #held(): Added[] {
    return this.#counted.filter(({ holds }) => holds).flatMap(({ added }) => added);
  }

  #encode(told: Told): void {
    const { tenant, id } = told;
    const original = originalOf(told);
    const isCorrection = told.voids !== undefined || told.amends !== undefined;
    const target = identityOf(this.#hasher, tenant, '', original);
    const data = {
      ...(told.voids === undefined ? told.data : {}),
      ...(told.voids === undefined ? {} : { [PATH_VOIDS]: told.voids }),
      ...(told.amends === undefined ? {} : { [PATH_AMENDS]: told.amends }),
      ...(isCorrection ? { [PATH_TARGET]: formatIdentity(target) } : {}),
    };
    const event =
      told.voids === undefined
        ? { id, type: told.type, subject: told.subject, time: new Date(told.timeMs).toISOString(), data }
        : { id, type: TYPE_VOID, subject: '', time: new Date(told.timeMs).toISOString(), data };
    const identity = isCorrection ? correctionOf(this.#hasher, tenant, '', original, id) : target;
    this.#builder.add(batchOf(tenant, [event], new EventBatch()), 0, identity);
  }

  #judge(shard: number, told: Told): void {
    const { tenant } = told;
    const original = `${tenant} ${originalOf(told)}`;
    const isCorrection = told.voids !== undefined || told.amends !== undefined;
    const identity = isCorrection ? `${original} corrected by ${told.id}` : original;
    const payload = JSON.stringify(told);
    this.received += 1;
    const known = this.#payloads.get(identity);
    if (known !== undefined) return this.#verdict(tenant, known === payload ? 'duplicate' : 'conflict');
    const wanted = this.#meters.filter(
      (one) => one.tenant === tenant && told.voids === undefined && one.meter.eventType === told.type,
    );
    for (const { meter } of wanted) {
      const { valueProperty } = meter;
      if (valueProperty !== null && told.voids === undefined && told.data[valueProperty] === undefined)
        return this.#verdict(tenant, 'rejected meter_value_missing');
    }
    if (isCorrection && !this.#standing.has(original))
      return this.#verdict(tenant, 'rejected correction_target_unknown');
    this.#payloads.set(identity, payload);
    this.#verdict(tenant, 'counted');
    const before = this.#standing.get(original);
    if (before !== undefined && before !== null) before.holds = false;
    if (told.voids !== undefined) {
      this.#standing.set(original, null);
      return;
    }
    const added = wanted.map(({ meter }) => this.#add(shard, told, meter));
    const counted: Counted = { added, holds: true };
    this.#counted.push(counted);
    this.#standing.set(original, counted);
  }

  #add(shard: number, { tenant, subject, timeMs, data }: ToldEvent, meter: Meter): Added {
    let dimensions = meter.groupBy.map((path) => String(data[path] ?? ''));
    const hour = Math.floor(timeMs / HOUR_MS);
    const ofHour = `${shard} ${tenant} ${meter.key} ${hour}`;
    const groups = this.#groups.get(ofHour) ?? new Set<string>();
    this.#groups.set(ofHour, groups);
    const group = JSON.stringify(dimensions);
    if (dimensions.length > 0 && !groups.has(group)) {
      if (groups.size < (meter.groupsMax ?? 10_000)) groups.add(group);
      else {
        dimensions = dimensions.map(() => '__overflow__');
        this.overflowed += 1;
      }
    }
    const text = meter.valueProperty === null ? '' : String(data[meter.valueProperty]);
    const isCounting = meter.aggregation === 'count' || meter.aggregation === 'unique_count';
    return {
      ...{ tenant, meter, shard, subject, timeMs, dimensions, text },
      value: isCounting ? nano(1)! : nano(text)!,
    };
  }

  #verdict(tenant: string, verdict: string): void {
    const key = `${tenant} ${verdict}`;
    this.verdicts.set(key, (this.verdicts.get(key) ?? 0) + 1);
  }
}

function originalOf(told: Told): string {
  return told.voids ?? told.amends ?? told.id;
}
