/**
 * The tables, as ClickHouse keeps them: a ReplacingMergeTree that is read with FINAL is a map from the sorting key to the
 * row with the highest version, of equal ones the last that came. Raw rows and rollups are what stands in the Native
 * bodies. What finishes an incarnation is written here a second time, after the SQL of incarnation-store.ts; that the SQL
 * itself does this is proven on a real ClickHouse (test/aggregator-incarnation.test.ts).
 */
import type { Beginning, Unfinished } from '../../aggregator/incarnation-rows.ts';
import type { LogMark } from '../../aggregator/log-mark.ts';
import type { MeterDefined } from '../../contract/control.ts';
import type { Watermark } from '../../aggregator/watermark.ts';
import { unpackPosition } from '../../contract/position.ts';
import type { NativeRow } from './native-rows.ts';

export interface RawRow {
  readonly tenant: string;
  readonly hour: number;
  readonly type: string;
  readonly subject: string;
  /** Epoch milliseconds. */
  readonly time: number;
  /** Hexadecimal. */
  readonly identity: string;
  readonly id: string;
  readonly data: Readonly<Record<string, string>>;
  readonly payload_hash: bigint;
  readonly shard: number;
  readonly position: bigint;
}

export interface RefusedRow extends Omit<RawRow, 'hour'> {
  readonly verdict: string;
  readonly code: string;
}

export interface StoredRollup {
  readonly tenant: string;
  readonly meter: string;
  readonly subject: string;
  readonly hour: number;
  readonly dimensions: readonly string[];
  readonly shard: number;
  readonly value_count: bigint;
  readonly value_sum: bigint;
  readonly value_min: bigint;
  readonly value_max: bigint;
  readonly value_latest: bigint;
  readonly latest_time: number;
  readonly latest_position: bigint;
  readonly position: bigint;
}

/** `verdict` is '' for what was received. */
export interface CounterRow {
  readonly tenant: string;
  readonly shard: number;
  readonly verdict: string;
  readonly code: string;
  readonly count: number;
  readonly position: bigint;
}

export interface MeterRow {
  readonly shard: number;
  readonly position: bigint;
  readonly defined: MeterDefined;
}

export interface MarksRow {
  readonly shard: number;
  readonly incarnation: number;
  readonly marks: readonly LogMark[];
}

export interface WatermarkRow {
  readonly shard: number;
  readonly position: bigint;
  readonly watermark: Watermark;
}

export interface BeginningRow {
  readonly shard: number;
  readonly beginning: Beginning;
  readonly beganAtMs: number;
}

/** Guards that stand in the tables, and can be taken out to see who notices. */
export interface TableGuards {
  /** Rollup rows replace each other by version; without it the last that came stays. */
  readonly version: boolean;
  /** A raw row replaces what stands under its key if it stands earlier in the log; without it every row stays. */
  readonly firstWrite: boolean;
  /** Inserts are refused when their sender is not the newest owner any more. */
  readonly epoch: boolean;
}

export class Replacing<Row> {
  readonly rows = new Map<string, Row>();
  readonly #key: (row: Row) => string;
  readonly #replaces: (row: Row, old: Row) => boolean;

  constructor(key: (row: Row) => string, replaces: (row: Row, old: Row) => boolean) {
    this.#key = key;
    this.#replaces = replaces;
  }

  readonly put = (row: Row): void => {
    const key = this.#key(row);
    const old = this.rows.get(key);
    if (old === undefined || this.#replaces(row, old)) this.rows.set(key, row);
  };

  of(shard: number): Row[] {
    return [...this.rows.values()].filter((row) => (row as { shard?: number }).shard === shard);
  }
}

const newer = (row: { position: bigint }, old: { position: bigint }): boolean => row.position >= old.position;
const earlier = (row: { position: bigint }, old: { position: bigint }): boolean =>
  row.position <= old.position;

export const rollupKey = (row: StoredRollup): string =>
  JSON.stringify([row.shard, row.tenant, row.meter, row.subject, row.hour, row.dimensions]);
export const counterKey = ({ shard, tenant, verdict, code }: CounterRow): string =>
  `${shard} ${tenant} ${verdict} ${code}`;

export class SimulatedTables {
  readonly guards: TableGuards;
  readonly events: Replacing<RawRow>;
  readonly rollups: Replacing<StoredRollup>;
  readonly refused = new Replacing<RefusedRow>(
    ({ tenant, shard, position }) => `${tenant} ${shard} ${position}`,
    () => true,
  );
  readonly counters = new Replacing<CounterRow>(counterKey, newer);
  readonly meters = new Replacing<MeterRow>(
    ({ shard, defined }) => `${shard} ${defined.tenant} ${defined.meter.key}`,
    earlier,
  );
  readonly watermarks = new Replacing<WatermarkRow>(({ shard }) => String(shard), newer);
  readonly beginnings = new Replacing<BeginningRow>(
    ({ shard, beginning }) => `${shard} ${beginning.watermark.incarnation}`,
    (row, old) => row.beganAtMs >= old.beganAtMs,
  );
  readonly marks: MarksRow[] = [];
  readonly owners: { readonly shard: number; readonly epoch: number; readonly owner: number }[] = [];
  /** The highest position that each counter ever had in an incarnation: what was durable, though replaced since. */
  readonly countersReached = new Map<string, bigint>();
  #rows = 0;

  constructor(guards: TableGuards) {
    this.guards = guards;
    this.events = new Replacing<RawRow>(
      ({ tenant, hour, type, subject, time, identity }) =>
        `${guards.firstWrite ? '' : ++this.#rows} ${JSON.stringify([tenant, hour, type, subject, time, identity])}`,
      earlier,
    );
    this.rollups = new Replacing<StoredRollup>(rollupKey, guards.version ? newer : () => true);
  }

  putCounter(row: CounterRow): void {
    this.counters.put(row);
    const key = `${unpackPosition(row.position).incarnation} ${counterKey(row)}`;
    const reached = this.countersReached.get(key) ?? -1n;
    if (row.position > reached) this.countersReached.set(key, row.position);
  }

  /** The newest owner is the greatest (epoch, owner). */
  ownerOf(shard: number): { readonly epoch: number; readonly owner: number } | null {
    return this.owners
      .filter((one) => one.shard === shard)
      .reduce<{ epoch: number; owner: number } | null>(
        (newest, one) =>
          newest === null ||
          one.epoch > newest.epoch ||
          (one.epoch === newest.epoch && one.owner > newest.owner)
            ? one
            : newest,
        null,
      );
  }

  behind({ shard, behind, until }: Unfinished): { raw: RawRow[]; refused: RefusedRow[] } {
    const isBehind = ({ position }: { position: bigint }): boolean => position > behind && position < until;
    return { raw: this.events.of(shard).filter(isBehind), refused: this.refused.of(shard).filter(isBehind) };
  }

  /** FINISH_ROLLUPS: all hours with raw rows behind the watermark, from all of their raw rows. */
  finishedRollups(unfinished: Unfinished): StoredRollup[] {
    const { shard, behind, until } = unfinished;
    const hours = new Set(this.behind(unfinished).raw.map(hourOf));
    const meters = this.meters.of(shard).filter(({ position }) => position < until);
    const totals = new Map<string, StoredRollup>();
    for (const row of this.events.of(shard)) {
      if (row.position >= until || !hours.has(hourOf(row))) continue;
      for (const { position, defined } of meters) {
        const { tenant, meter } = defined;
        if (tenant !== row.tenant || meter.eventType !== row.type || row.position <= position) continue;
        const value = meter.valueProperty === null ? UNIT : quantityIn(row.data[meter.valueProperty] ?? '');
        const one: StoredRollup = {
          tenant,
          meter: meter.key,
          subject: row.subject,
          hour: row.hour,
          dimensions: meter.groupBy.map((path) => row.data[path] ?? ''),
          shard,
          value_count: 1n,
          value_sum: value,
          value_min: value,
          value_max: value,
          value_latest: value,
          latest_time: row.time,
          latest_position: row.position,
          position: row.position,
        };
        const key = rollupKey(one);
        const total = totals.get(key);
        totals.set(key, total === undefined ? one : together(total, one));
      }
    }
    return [...totals.values()].filter(({ position }) => position > behind);
  }

  /** FINISH_VERDICTS: what has a row behind the watermark, and is not in its counter yet. */
  finishedVerdicts(unfinished: Unfinished): CounterRow[] {
    const { shard, until } = unfinished;
    const { raw, refused } = this.behind(unfinished);
    const found = new Map<string, CounterRow>();
    const judged = [
      ...raw.map(({ tenant, position }) => ({ tenant, position, verdict: 'counted', code: '' })),
      ...refused,
    ];
    for (const { tenant, verdict, code, position } of judged) {
      const key = counterKey({ shard, tenant, verdict, code, count: 0, position });
      const known = this.counters.rows.get(key);
      if (known !== undefined && position <= known.position) continue;
      const count = (found.get(key)?.count ?? known?.count ?? 0) + 1;
      found.set(key, { shard, tenant, verdict, code, count, position: until });
    }
    return [...found.values()];
  }

  /** FINISH_RECEIVED: received is what was judged. */
  finishedReceived({ shard, until }: Unfinished): CounterRow[] {
    const sums = new Map<string, { judged: number; received: number }>();
    for (const { tenant, verdict, count } of this.counters.of(shard)) {
      const sum = sums.get(tenant) ?? { judged: 0, received: 0 };
      if (verdict === '') sum.received += count;
      else sum.judged += count;
      sums.set(tenant, sum);
    }
    return [...sums]
      .filter(([, { judged, received }]) => judged !== received)
      .map(([tenant, { judged }]) => ({
        shard,
        tenant,
        verdict: '',
        code: '',
        count: judged,
        position: until,
      }));
  }
}

const UNIT = 1_000_000_000n;

/** toDecimal128OrZero(text, 9). */
function quantityIn(text: string): bigint {
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text);
  if (match === null) return 0n;
  const units = BigInt(match[2]! + (match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  return match[1] === '-' ? -units : units;
}

const hourOf = ({ tenant, hour, subject }: RawRow): string => JSON.stringify([tenant, hour, subject]);

function together(a: StoredRollup, b: StoredRollup): StoredRollup {
  const latest =
    b.latest_time > a.latest_time ||
    (b.latest_time === a.latest_time && b.latest_position > a.latest_position)
      ? b
      : a;
  return {
    ...a,
    value_count: a.value_count + b.value_count,
    value_sum: a.value_sum + b.value_sum,
    value_min: a.value_min < b.value_min ? a.value_min : b.value_min,
    value_max: a.value_max > b.value_max ? a.value_max : b.value_max,
    value_latest: latest.value_latest,
    latest_time: latest.latest_time,
    latest_position: latest.latest_position,
    position: a.position > b.position ? a.position : b.position,
  };
}

export const rawRowOf = (row: NativeRow): RawRow => row as unknown as RawRow;
export const refusedRowOf = (row: NativeRow): RefusedRow => row as unknown as RefusedRow;
export const rollupRowOf = (row: NativeRow): StoredRollup => row as unknown as StoredRollup;
