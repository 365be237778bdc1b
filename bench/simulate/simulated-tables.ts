/**
 * The tables, as ClickHouse keeps them: a ReplacingMergeTree that is read with FINAL is a map from the sorting key to the
 * row with the highest version, of equal ones the last that came. Raw rows and rollups are what stands in the Native
 * bodies. What ClickHouse works out by itself, when an incarnation ends and for corrections, is written here a second
 * time, after the SQL of incarnation-store.ts and corrections-store.ts; that the SQL itself does this is proven on a real
 * ClickHouse (test/aggregator-incarnation.test.ts, test/corrections.test.ts).
 */
import type { CorrectionRange, Recount } from '../../aggregator/recount.ts';
import type { Beginning, Unfinished } from '../../aggregator/incarnation-rows.ts';
import type { LogMark } from '../../aggregator/log-mark.ts';
import type { MeterDefined } from '../../contract/control.ts';
import { groupsMaxOf, letsThrough, OVERFLOW_GROUP, type Meter } from '../../contract/meter.ts';
import { PATH_TARGET, PATH_VOIDS } from '../../contract/corrections.ts';
import type { Watermark } from '../../aggregator/watermark.ts';
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

/** `retired` is '' and `hour` 0 for none. */
export interface CorrectionRow {
  readonly tenant: string;
  readonly hour: number;
  readonly retired: string;
  readonly root: string;
  readonly correction: string;
  readonly kind: 'void' | 'amend';
  readonly subject: string;
  readonly shard: number;
  readonly position: bigint;
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

export interface Owner {
  readonly shard: number;
  readonly epoch: number;
  readonly owner: number;
}

/** Guards that stand in the tables, and can be taken out to see who notices. */
export interface TableGuards {
  /** Rollup rows replace each other by version; without it the last that came stays. */
  readonly version: boolean;
  /** A raw row replaces what stands under its key if it stands earlier in the log; without it every row stays. */
  readonly firstWrite: boolean;
  /** Inserts are refused when their sender is not the newest owner any more. */
  readonly epoch: boolean;
  /** The corrections that an incarnation left behind its watermark are settled when it ends. */
  readonly settle: boolean;
}

/**
 * A table of the kind. What the model compares it finds by its place, which is the sorting key or the position; and it is
 * told which places have changed, so that it looks at those alone.
 */
export class Replacing<Row extends { readonly shard: number }, Place extends string | bigint = string> {
  readonly #key: (row: Row) => string;
  readonly #replaces: (row: Row, old: Row) => boolean;
  readonly #place: ((row: Row) => Place) | null;
  readonly #shards: { rows: Map<string, Row>; places: Map<Place, Row>; changed: Set<Place> }[] = [];

  /** @param place null when it is the sorting key. */
  constructor(
    key: (row: Row) => string,
    replaces: (row: Row, old: Row) => boolean,
    place: ((row: Row) => Place) | null = null,
  ) {
    this.#key = key;
    this.#replaces = replaces;
    this.#place = place;
  }

  readonly put = (row: Row): void => {
    const { rows, places, changed } = this.#of(row.shard);
    const key = this.#key(row);
    const old = rows.get(key);
    if (old !== undefined && !this.#replaces(row, old)) return;
    rows.set(key, row);
    if (this.#place === null) {
      changed.add(key as Place);
      return;
    }
    const place = this.#place(row);
    if (old !== undefined) {
      const before = this.#place(old);
      if (places.get(before) === old) places.delete(before);
      changed.add(before);
    }
    places.set(place, row);
    changed.add(place);
  };

  of(shard: number): Row[] {
    return [...this.#of(shard).rows.values()];
  }

  count(shard: number): number {
    return this.#of(shard).rows.size;
  }

  /** The row of a sorting key. */
  get(shard: number, key: string): Row | undefined {
    return this.#of(shard).rows.get(key);
  }

  /** The row at a place. */
  at(shard: number, place: Place): Row | undefined {
    const { rows, places } = this.#of(shard);
    return this.#place === null ? rows.get(place as string) : places.get(place);
  }

  /** The places whose rows have changed since this was asked last. */
  takeChanged(shard: number): Set<Place> {
    const own = this.#of(shard);
    const { changed } = own;
    own.changed = new Set();
    return changed;
  }

  #of(shard: number) {
    return (this.#shards[shard] ??= { rows: new Map(), places: new Map(), changed: new Set() });
  }
}

const newer = (row: { position: bigint }, old: { position: bigint }): boolean => row.position >= old.position;
const earlier = (row: { position: bigint }, old: { position: bigint }): boolean =>
  row.position <= old.position;

/** No text of the simulation holds the character between the parts. */
export const rollupKey = (
  row: Pick<StoredRollup, 'tenant' | 'meter' | 'subject' | 'hour' | 'dimensions'>,
): string =>
  `${row.tenant}\n${row.meter}\n${row.subject}\n${row.hour}\n${row.dimensions.length}\n${row.dimensions.join('\n')}`;
function reachedKey(counter: Omit<CounterRow, 'count'>, writer: number): string {
  return `${counter.shard} ${counter.position >> 56n} ${writer} ${counterKey(counter)}`;
}

export const counterKey = ({
  tenant,
  verdict,
  code,
}: Pick<CounterRow, 'tenant' | 'verdict' | 'code'>): string => `${tenant} ${verdict} ${code}`;
const place = ({ position }: { position: bigint }): bigint => position;

export class SimulatedTables {
  readonly guards: TableGuards;
  readonly events: Replacing<RawRow, bigint>;
  readonly rollups: Replacing<StoredRollup>;
  readonly refused = new Replacing<RefusedRow, bigint>(
    ({ tenant, position }) => `${tenant} ${position}`,
    () => true,
    place,
  );
  readonly counters = new Replacing<CounterRow>(counterKey, newer);
  readonly meters = new Replacing<MeterRow>(
    ({ defined: { tenant, meter } }) => `${tenant} ${meter.key}`,
    earlier,
  );
  readonly corrections = new Replacing<CorrectionRow>(
    ({ hour, retired, root, position }) => `${hour} ${retired} ${root} ${position}`,
    () => true,
  );
  readonly watermarks = new Replacing<WatermarkRow>(() => '', newer);
  readonly beginnings = new Replacing<BeginningRow>(
    ({ beginning }) => String(beginning.watermark.incarnation),
    (row, old) => row.beganAtMs >= old.beganAtMs,
  );
  readonly marks: MarksRow[] = [];
  readonly #owners: Owner[] = [];
  /**
   * The highest position that each counter ever had in an incarnation by a process: what was durable, though replaced
   * since.
   */
  readonly #countersReached = new Map<string, bigint>();
  #rows = 0;

  constructor(guards: TableGuards) {
    this.guards = guards;
    this.events = new Replacing<RawRow, bigint>(
      ({ tenant, hour, type, subject, time, identity }) =>
        `${guards.firstWrite ? '' : ++this.#rows}\n${tenant}\n${hour}\n${type}\n${subject}\n${time}\n${identity}`,
      earlier,
      place,
    );
    this.rollups = new Replacing<StoredRollup>(rollupKey, guards.version ? newer : () => true);
  }

  putCounter(row: CounterRow, writer: number): void {
    this.counters.put(row);
    const key = reachedKey(row, writer);
    const reached = this.#countersReached.get(key) ?? -1n;
    if (row.position > reached) this.#countersReached.set(key, row.position);
  }

  /** Whether that process has written the counter with the event at this position in it. */
  hasCounted(event: Omit<CounterRow, 'count'>, writer: number): boolean {
    return (this.#countersReached.get(reachedKey(event, writer)) ?? -1n) >= event.position;
  }

  /** The newest owner is the greatest (epoch, owner). */
  ownerOf(shard: number): Owner | null {
    return this.#owners[shard] ?? null;
  }

  readonly putOwner = (row: Owner): void => {
    const newest = this.#owners[row.shard];
    const isNewer =
      newest === undefined ||
      row.epoch > newest.epoch ||
      (row.epoch === newest.epoch && row.owner > newest.owner);
    if (isNewer) this.#owners[row.shard] = row;
  };

  behind({ shard, behind, until }: Unfinished): { raw: RawRow[]; refused: RefusedRow[] } {
    const isBehind = ({ position }: { position: bigint }): boolean => position > behind && position < until;
    return { raw: this.events.of(shard).filter(isBehind), refused: this.refused.of(shard).filter(isBehind) };
  }

  /** SETTLE: which event each correction of the range retires. */
  settled({ shard, behind, until, originalsFrom }: CorrectionRange): CorrectionRow[] {
    const events = this.events.of(shard).filter(({ position }) => position <= until);
    const fresh = events
      .filter(({ position, data }) => position > behind && data[PATH_TARGET] !== undefined)
      .map(({ tenant, identity, data, position }) => {
        const kind = data[PATH_VOIDS] === undefined ? ('amend' as const) : ('void' as const);
        return { tenant, root: data[PATH_TARGET]!.replaceAll('-', ''), correction: identity, kind, position };
      });
    const known = this.corrections.of(shard).filter(({ position }) => position <= behind);
    return fresh.map((one): CorrectionRow => {
      const before = [...known, ...fresh]
        .filter(({ root, position }) => root === one.root && position < one.position)
        .reduce<{ kind: string; correction: string; position: bigint } | null>(
          (last, other) => (last === null || other.position > last.position ? other : last),
          null,
        );
      const target = before === null ? one.root : before.kind === 'amend' ? before.correction : '';
      const from =
        before?.kind === 'amend' && before.position < originalsFrom ? before.position : originalsFrom;
      const event = events.find(({ identity, position }) => identity === target && position >= from);
      const { hour = 0, identity: retired = '', subject = '' } = event ?? {};
      return { ...one, hour, retired, subject, shard };
    });
  }

  /** The hours of subjects from which corrections of the range retire something. */
  retired({ shard, behind, until }: CorrectionRange): CorrectionRow[] {
    const rows = this.corrections.of(shard);
    return rows.filter(({ position, retired }) => retired !== '' && position > behind && position <= until);
  }

  /** RECOUNT: the rollup rows of a scope, from raw rows as they hold at `cut`. */
  recounted({ scope, until: cut, overflowing }: Recount): StoredRollup[] {
    if (scope.kind === 'meter')
      throw new Error('teach bench/simulate/simulated-tables.ts to recount a meter');
    const { shard, behind, until } = scope.range;
    const changed: (RawRow | CorrectionRow)[] = this.retired(scope.range);
    if (scope.kind === 'unfinished')
      changed.push(...this.events.of(shard).filter(({ position }) => position > behind && position <= until));
    const hours = new Set(changed.map(hourOf));
    const contributions = this.#contributions(shard, cut);
    // What corrections change is known to overflow, or has an overflow row.
    const known = new Set(overflowing);
    for (const { tenant, meter, hour, dimensions } of this.rollups.of(shard)) {
      if (dimensions.includes(OVERFLOW_GROUP)) known.add(JSON.stringify([tenant, meter, hour]));
    }
    const overflowed = groupsBeyond(contributions, scope.kind === 'unfinished' ? null : known);
    const totals = new Map<string, Mutable<StoredRollup>>();
    for (const { meter, row, dimensions: own, value, retiredAt } of contributions) {
      if (!hours.has(hourOf(row))) continue;
      const isBeyond = overflowed.has(groupOf(row, meter, own));
      const dimensions = isBeyond ? own.map(() => OVERFLOW_GROUP) : own;
      const key = { tenant: row.tenant, meter: meter.key, subject: row.subject, hour: row.hour, dimensions };
      const text = rollupKey(key);
      let total = totals.get(text);
      if (total === undefined) totals.set(text, (total = { ...key, shard, ...NOTHING }));
      const holds = retiredAt === undefined || retiredAt > cut;
      const version = holds ? row.position : retiredAt;
      if (version > total.position) total.position = version;
      if (holds) add(total, value, row.time, row.position);
    }
    const rows = [...totals.values()];
    return scope.kind === 'unfinished' ? rows.filter(({ position }) => position > behind) : rows;
  }

  /** The view of this name, up to a position. */
  #contributions(shard: number, cut: bigint): Contribution[] {
    const meters = this.meters.of(shard);
    const retiredAt = new Map(this.corrections.of(shard).map(({ retired, position }) => [retired, position]));
    return this.events.of(shard).flatMap((row) =>
      meters.flatMap(({ position, defined: { tenant, meter } }): Contribution[] => {
        if (row.position > cut || row.position <= position) return [];
        if (tenant !== row.tenant || meter.eventType !== row.type) return [];
        const filters = meter.filters ?? [];
        if (!filters.every((one) => letsThrough(one, row.data[one.property] ?? ''))) return [];
        const value = meter.valueProperty === null ? UNIT : quantityIn(row.data[meter.valueProperty] ?? '');
        const dimensions = meter.groupBy.map((path) => row.data[path] ?? '');
        return [{ meter, row, dimensions, value, retiredAt: retiredAt.get(row.identity) }];
      }),
    );
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
      const key = counterKey({ tenant, verdict, code });
      const known = this.counters.get(shard, key);
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

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const hourOf = ({ tenant, hour, subject }: RawRow | CorrectionRow): string =>
  `${tenant}\n${hour}\n${subject}`;

interface Contribution {
  readonly meter: Meter;
  readonly row: RawRow;
  readonly dimensions: readonly string[];
  readonly value: bigint;
  /** The position of the correction that took it out. */
  readonly retiredAt: bigint | undefined;
}

const groupOf = ({ tenant, hour }: RawRow, { key }: Meter, dimensions: readonly string[]): string =>
  JSON.stringify([tenant, key, hour, ...dimensions]);

/**
 * The groups that have no row of their own: all but the first of the log, of each hour of a meter.
 *
 * @param among only of these hours of meters; null for all
 */
function groupsBeyond(
  contributions: readonly Contribution[],
  among: ReadonlySet<string> | null,
): Set<string> {
  const firsts = new Map<string, Map<string, bigint>>();
  const maxima = new Map<string, number>();
  for (const { meter, row, dimensions } of contributions) {
    const hour = JSON.stringify([row.tenant, meter.key, row.hour]);
    if (dimensions.length === 0 || (among !== null && !among.has(hour))) continue;
    let groups = firsts.get(hour);
    if (groups === undefined) firsts.set(hour, (groups = new Map()));
    maxima.set(hour, groupsMaxOf(meter));
    const group = groupOf(row, meter, dimensions);
    const first = groups.get(group);
    if (first === undefined || row.position < first) groups.set(group, row.position);
  }
  const beyond = new Set<string>();
  for (const [hour, groups] of firsts) {
    const inOrder = [...groups].sort((a, b) => (a[1] < b[1] ? -1 : 1));
    for (const [group] of inOrder.slice(maxima.get(hour))) beyond.add(group);
  }
  return beyond;
}

const NOTHING = {
  value_count: 0n,
  value_sum: 0n,
  value_min: 0n,
  value_max: 0n,
  value_latest: 0n,
  latest_time: 0,
  latest_position: 0n,
  position: 0n,
};

function add(total: Mutable<StoredRollup>, value: bigint, time: number, position: bigint): void {
  const isFirst = total.value_count === 0n;
  total.value_count += 1n;
  total.value_sum += value;
  if (isFirst || value < total.value_min) total.value_min = value;
  if (isFirst || value > total.value_max) total.value_max = value;
  if (time < total.latest_time || (time === total.latest_time && position < total.latest_position)) return;
  total.value_latest = value;
  total.latest_time = time;
  total.latest_position = position;
}

export const rawRowOf = (row: NativeRow): RawRow => withAliases(row) as unknown as RawRow;
export const refusedRowOf = (row: NativeRow): RefusedRow => withAliases(row) as unknown as RefusedRow;
export const rollupRowOf = (row: NativeRow): StoredRollup => row as unknown as StoredRollup;

/** What the byte FF, which ends each path and value, is read as. */
const TERMINATOR = '\ufffd';

/** The columns that the table works out when they are asked for (aggregator/schema/0010-narrow-events.sql). */
function withAliases(row: NativeRow): NativeRow {
  const {
    id_text: text,
    id_uuid: uuid,
    data_paths: paths,
    data_values: values,
  } = row as Record<string, string>;
  const uuidText = /^0*$/.test(uuid!) ? '' : uuid!.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  const of = values!.split(TERMINATOR);
  const fields = paths!.split(TERMINATOR).slice(0, -1);
  return {
    ...row,
    id: text === '' ? uuidText : text!,
    data: Object.fromEntries(fields.map((path, at) => [path, of[at]!])),
  };
}
