// What the aggregator leaves in ClickHouse, made by a model that is too simple to be wrong: every event is
// counted, a rollup row is the fold of its key's events so far, the watermark moves with each flush. The tables
// and views are the aggregator's own.
import type { Meter } from '../contract/meter.ts';
import { packPosition } from '../contract/position.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant, hourStart } from '../contract/window.ts';
import { activateMeter, insertMeter } from '../ledger/meters.ts';
import type { ClickHouse } from '../runtime/clickhouse.ts';
import type { Postgres } from '../runtime/postgres.ts';

export const SHARDS = 2;

export interface Use {
  readonly tenant: string;
  readonly type: string;
  readonly subject: string;
  readonly timeMs: number;
  /** Values by path of `data`, as decimal text. */
  readonly data: Readonly<Record<string, string>>;
}

interface Row {
  readonly tenant: string;
  readonly meter: string;
  readonly subject: string;
  readonly hourMs: number;
  readonly shard: number;
  count: bigint;
  sum: Quantity;
  min: Quantity;
  max: Quantity;
  latest: Quantity;
  latestTimeMs: number;
  latestPosition: bigint;
  position: bigint;
}

/** As ClickHouse reads a DateTime or DateTime64 in JSON. */
const instant = (ms: number): string => formatInstant(ms).replace('T', ' ').replace('Z', '');
const second = (ms: number): string => instant(ms).slice(0, 19);

export class World {
  readonly #pg: Postgres;
  readonly #ch: ClickHouse;
  readonly #rows = new Map<string, Row>();
  readonly #meters: { tenant: string; meter: Meter }[] = [];
  readonly #sequences: number[] = Array.from({ length: SHARDS }, () => 0);
  #count = 0;

  constructor(pg: Postgres, ch: ClickHouse) {
    this.#pg = pg;
    this.#ch = ch;
  }

  /** Defines a meter in Postgres and in the log of every shard. */
  async define(tenant: string, meter: Meter, nowMs: number): Promise<void> {
    await insertMeter(this.#pg, { tenant, meter, nowMs });
    await activateMeter(this.#pg, tenant, meter.key);
    this.#meters.push({ tenant, meter });
    const rows = this.#sequences.map((_, shard) => ({
      tenant,
      meter: meter.key,
      event_type: meter.eventType,
      aggregation: meter.aggregation,
      value_property: meter.valueProperty ?? '',
      group_by: meter.groupBy,
      shard,
      position: this.#next(shard),
    }));
    await this.#ch.insertJson('meters', rows);
  }

  /** Counts events and moves the watermarks behind them. */
  async count(uses: readonly Use[]): Promise<void> {
    const raw: object[] = [];
    const touched = new Set<Row>();
    for (const use of uses) {
      const shard = this.#count++ % SHARDS;
      const position = this.#next(shard);
      raw.push({
        tenant: use.tenant,
        hour: second(hourStart(use.timeMs)),
        type: use.type,
        subject: use.subject,
        time: instant(use.timeMs),
        identity: `00000000-0000-4000-8000-${this.#count.toString(16).padStart(12, '0')}`,
        source: '',
        id: `e${this.#count}`,
        data: use.data,
        payload_hash: '0',
        accepted_at: instant(use.timeMs),
        shard,
        position,
      });
      for (const { tenant, meter } of this.#meters) {
        if (tenant !== use.tenant || meter.eventType !== use.type) continue;
        const value =
          meter.valueProperty === null ? 1_000_000_000n : storedQuantity(use.data[meter.valueProperty]!);
        touched.add(this.#fold(use, meter, shard, value, position));
      }
    }
    // In the aggregator's order: raw, rollups, watermark.
    await this.#ch.insertJson('events', raw);
    await this.#ch.insertJson('rollup_hour', [...touched].map(rollupRow));
    await this.moveWatermarks();
  }

  async moveWatermarks(): Promise<void> {
    const now = instant(Date.UTC(2026, 10, 21));
    await this.#ch.insertJson(
      'watermarks',
      this.#sequences.map((sequence, shard) => ({
        shard,
        incarnation: 0,
        sequence,
        position: packPosition(0, sequence, 0).toString(),
        stream_created: '',
        fingerprint: '',
        accepted_at: now,
        flushed_at: now,
      })),
    );
  }

  /** Makes the rollups of a subject say something else than its events, under a newer version. */
  async tamper(tenant: string, meter: string, subject: string, by: Quantity): Promise<void> {
    const row = [...this.#rows.values()].find(
      (one) => one.tenant === tenant && one.meter === meter && one.subject === subject,
    )!;
    row.sum += by;
    row.position = BigInt(this.#next(row.shard));
    await this.#ch.insertJson('rollup_hour', [rollupRow(row)]);
    await this.moveWatermarks();
  }

  #next(shard: number): string {
    this.#sequences[shard]! += 1;
    return packPosition(0, this.#sequences[shard]!, 0).toString();
  }

  #fold(use: Use, meter: Meter, shard: number, value: Quantity, positionText: string): Row {
    const hourMs = hourStart(use.timeMs);
    const position = BigInt(positionText);
    const key = JSON.stringify([use.tenant, meter.key, use.subject, hourMs, shard]);
    const row = this.#rows.get(key);
    if (row === undefined) {
      const first: Row = {
        tenant: use.tenant,
        meter: meter.key,
        subject: use.subject,
        hourMs,
        shard,
        count: 1n,
        sum: value,
        min: value,
        max: value,
        latest: value,
        latestTimeMs: use.timeMs,
        latestPosition: position,
        position,
      };
      this.#rows.set(key, first);
      return first;
    }
    row.count += 1n;
    row.sum += value;
    if (value < row.min) row.min = value;
    if (value > row.max) row.max = value;
    if (use.timeMs >= row.latestTimeMs) {
      row.latest = value;
      row.latestTimeMs = use.timeMs;
      row.latestPosition = position;
    }
    row.position = position;
    return row;
  }
}

function rollupRow(row: Row): object {
  return {
    tenant: row.tenant,
    meter: row.meter,
    subject: row.subject,
    hour: second(row.hourMs),
    dimensions: [],
    shard: row.shard,
    value_count: row.count.toString(),
    value_sum: formatQuantity(row.sum),
    value_min: formatQuantity(row.min),
    value_max: formatQuantity(row.max),
    value_latest: formatQuantity(row.latest),
    latest_time: instant(row.latestTimeMs),
    latest_position: row.latestPosition.toString(),
    position: row.position.toString(),
  };
}
