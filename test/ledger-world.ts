// What the aggregator leaves in ClickHouse, made by a model that is too simple to be wrong: every event is
// counted, a rollup row is the fold of its key's events so far, the watermark moves with each flush. The tables
// and views are the aggregator's own.
import { recount, settleCorrections } from '../aggregator/corrections-store.ts';
import { PATH_AMENDS, PATH_TARGET, PATH_VOIDS, TYPE_VOID } from '../contract/corrections.ts';
import type { Meter } from '../contract/meter.ts';
import { packPosition } from '../contract/position.ts';
import { formatQuantity, storedQuantity, type Quantity } from '../contract/quantity.ts';
import { formatInstant, hourStart } from '../contract/window.ts';
import { activateMeter, insertMeter } from '../ledger/meters.ts';
import { connectClickHouse, type ClickHouse } from '../runtime/clickhouse.ts';
import { createLog } from '../runtime/log.ts';
import { migrateClickHouse, migratePostgres } from '../runtime/migrate.ts';
import { connectPostgres, type Postgres } from '../runtime/postgres.ts';
import { startEngines, type Engines } from './engines.ts';
import { insertMeters, UNFENCED } from './meter-rows.ts';
import { insertEventRows } from './event-rows.ts';

export const SHARDS = 2;

/** Postgres and ClickHouse with our schemas, and the model that plays the aggregator. */
export interface LedgerWorld {
  readonly engines: Engines;
  readonly pg: Postgres;
  /** May write, as the aggregator does. */
  readonly ch: ClickHouse;
  /** As the ledger asks. */
  readonly reader: ClickHouse;
  readonly world: World;
  /** Another pool of connections; it ends with the world. */
  connect(name: string, poolMax?: number): Postgres;
  stop(): Promise<void>;
}

/** A sum of the property of its name, where nothing else is said. */
export const meterNamed = (key: string, o: Partial<Meter> = {}): Meter => ({
  key,
  eventType: 'llm',
  aggregation: 'sum',
  valueProperty: key,
  groupBy: [],
  ...o,
});

const requestTimeoutMs = 20_000;

export async function startLedgerWorld(): Promise<LedgerWorld> {
  const engines = await startEngines({ postgres: true, clickhouse: true });
  const log = createLog('test', 'silent');
  const open: { close(): Promise<void> }[] = [];
  const connect = (name: string, poolMax = 8): Postgres => {
    const one = connectPostgres({
      url: engines.databaseUrl,
      name,
      poolMax,
      log,
      statementTimeoutMs: requestTimeoutMs,
    });
    open.push(one);
    return one;
  };
  const connectTables = (url: string): ClickHouse => {
    const one = connectClickHouse({ url, name: 'test', requestTimeoutMs });
    open.push(one);
    return one;
  };
  const stop = async (): Promise<void> => {
    await Promise.all(open.map((one) => one.close()));
    await engines.stop();
  };
  try {
    const pg = connect('test');
    const ch = connectTables(engines.clickhouseUrl);
    const reader = connectTables(engines.clickhouseReaderUrl);
    await migratePostgres(pg, {
      directory: new URL('../ledger/migrations/', import.meta.url),
      schema: 'ledger',
    });
    await migrateClickHouse(ch, {
      directory: new URL('../aggregator/schema/', import.meta.url),
      component: 'aggregator',
    });
    return { engines, pg, ch, reader, world: new World(pg, ch), connect, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

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
    await insertMeters(this.#ch, rows);
  }

  /** Counts events and moves the watermarks behind them. */
  async count(uses: readonly Use[]): Promise<void> {
    const raw: object[] = [];
    const touched = new Set<Row>();
    for (const use of uses) {
      const shard = this.#count++ % SHARDS;
      const position = this.#next(shard);
      const identity = identityOf(this.#count);
      raw.push(rawRow(use, { shard, position, identity, id: `e${this.#count}` }));
      for (const meter of this.#metersOf(use))
        touched.add(this.#fold(use, meter, shard, valueOf(meter, use), position));
    }
    // In the aggregator's order: raw, rollups, watermark.
    await insertEventRows(this.#ch, 'events', raw);
    await this.#ch.insertJson('rollup_hour', [...touched].map(rollupRow));
    await this.moveWatermarks();
  }

  /**
   * Voids the use that was counted as the n-th, from 1 on, or counts another one in its place; what that does to
   * rollups is worked out as the aggregator does it. This model knows nothing of it: the hours are not to be counted in
   * any more.
   */
  async correct(nth: number, instead: Use | null): Promise<void> {
    const shard = (nth - 1) % SHARDS;
    const target = identityOf(nth);
    const position = this.#next(shard);
    const [original] = await this.#ch.rows<{ tenant: string }>(
      'SELECT tenant FROM event_rows WHERE event_rows.identity = {target:UUID}',
      { target },
    );
    const { tenant } = original!;
    const use = instead ?? { tenant, type: TYPE_VOID, subject: '', timeMs: Date.UTC(2026, 10, 21), data: {} };
    const path = instead === null ? PATH_VOIDS : PATH_AMENDS;
    const data = { ...use.data, [path]: `e${nth}`, [PATH_TARGET]: target };
    const identity = `00000000-0000-4000-900${shard}-${BigInt(position).toString(16).padStart(12, '0').slice(-12)}`;
    await insertEventRows(this.#ch, 'events', [
      rawRow({ ...use, data }, { shard, position, identity, id: 'c' }),
    ]);
    const rows = this.#metersOf(use).map((one) => this.#fold(use, one, shard, valueOf(one, use), position));
    if (rows.length > 0) await this.#ch.insertJson('rollup_hour', rows.map(rollupRow));
    const until = BigInt(position);
    const range = { shard, behind: until - 1n, until, originalsFrom: 0n };
    await settleCorrections(this.#ch, range, UNFENCED);
    await recount(this.#ch, { scope: { kind: 'corrections', range }, until, overflowing: [] }, UNFENCED);
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

  /** How many uses were counted. */
  get counted(): number {
    return this.#count;
  }

  #metersOf({ tenant, type }: Use): Meter[] {
    const taking = this.#meters.filter((one) => one.tenant === tenant && one.meter.eventType === type);
    return taking.map(({ meter }) => meter);
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

const identityOf = (nth: number): string => `00000000-0000-4000-8000-${nth.toString(16).padStart(12, '0')}`;

function valueOf({ aggregation, valueProperty }: Meter, { data }: Use): Quantity {
  return valueProperty === null || aggregation === 'unique_count'
    ? 1_000_000_000n
    : storedQuantity(data[valueProperty]!);
}

function rawRow(
  use: Use,
  of: { readonly shard: number; readonly position: string; readonly identity: string; readonly id: string },
): object {
  return {
    tenant: use.tenant,
    hour: second(hourStart(use.timeMs)),
    type: use.type,
    subject: use.subject,
    time: instant(use.timeMs),
    source: '',
    data: use.data,
    payload_hash: '0',
    accepted_at: instant(use.timeMs),
    ...of,
  };
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
