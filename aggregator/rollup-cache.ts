/**
 * The rollup rows of a shard that are in memory. Least recently used rows go first, a generation at a time:
 * a row that is used moves to the current generation; when that holds half of the bound, the previous one is
 * dropped and it takes its place. A dropped row is in ClickHouse and is loaded again when it is needed.
 *
 * A row that is in neither generation may yet be in ClickHouse, and asking costs a query a flush. It cannot
 * be there if its hour is later than every hour that was stored at the start or dropped since: a new hour,
 * when every row is new, asks nothing.
 */
import { OVERFLOW_GROUP } from '../contract/meter.ts';
import { BucketWriter, bucketParts, writeSibling, type Buckets } from './bucket.ts';
import { GroupBook } from './group-book.ts';
import type { Contributions } from './prepare.ts';
import type { RollupKey, StoredRollup } from './rollup-key.ts';
import { RollupRows } from './rollup-rows.ts';

/** What a block says of its rows. */
export interface RowsWanted {
  readonly tenants: readonly string[];
  readonly contributions: Contributions;
  /** Of each key, 1 if its group has no row of its own; null when all have. */
  readonly overflowed: Uint8Array | null;
}

/** A row that may be in ClickHouse, and is not loaded yet. */
export interface Unloaded {
  readonly key: RollupKey;
  readonly rows: RollupRows;
  readonly row: number;
}

export class RollupCache {
  /** The groups of which there may be rows: kept as long, and dropped in the same way. */
  readonly groups: GroupBook;
  /** The current generation. Row numbers are its numbers, and hold until the next `trim` that turns it over. */
  rows = new RollupRows();
  /** Rises when numbers of rows given out before do not hold any more. */
  turn = 0;
  readonly tenants = new Names();
  readonly meters = new Names();
  #previous = new RollupRows();
  #currentHour = -1;
  #previousHour = -1;
  #knownAfter: number;
  readonly #half: number;
  readonly #overflow: BucketWriter;

  /**
   * @param storedHour the greatest hour (epoch seconds) of the shard in ClickHouse, -1 for none.
   * @param bucketKey the key with which the buckets of its blocks are hashed.
   */
  constructor(rowsMax: number, storedHour: number, bucketKey: string) {
    this.#half = Math.max(1, Math.floor(rowsMax / 2));
    this.#knownAfter = storedHour;
    this.groups = new GroupBook(rowsMax, storedHour);
    this.#overflow = new BucketWriter(bucketKey);
  }

  get size(): number {
    return this.rows.count + this.#previous.count;
  }

  /**
   * The row of each of the block's keys. Rows that may be in ClickHouse are made without events and told in `unloaded`:
   * they are nothing to go by until they were `enter`ed.
   */
  find({ tenants, contributions, overflowed }: RowsWanted, unloaded: Unloaded[]): Int32Array {
    const { buckets, keyBucket, keyMeter, meters } = contributions;
    const finder = new Finder(this.rows, this.#previous, buckets, this.tenants.numbers(tenants));
    const ofOverflow = overflowed === null ? null : this.#overflowBuckets(contributions, overflowed, finder);
    const meterNumbers = this.meters.numbers(meters);
    const found = new Int32Array(keyBucket.length);
    for (let key = 0; key < found.length; key++) {
      const meter = meterNumbers[keyMeter[key]!]!;
      const bucket = keyBucket[key]!;
      const isOwn = overflowed === null || overflowed[key] === 0;
      const place = isOwn ? finder : ofOverflow!.finder;
      const number = isOwn ? bucket : ofOverflow!.numbers.get(bucket)!;
      let row = place.find(number, meter);
      if (row < 0) {
        row = place.make(number, meter);
        const hour = this.rows.buckets.hourOf(this.rows.bucket[row]!);
        if (hour > this.#currentHour) this.#currentHour = hour;
        if (hour <= this.#knownAfter && !place.wasKnown)
          unloaded.push({ key: this.keyOf(row), rows: this.rows, row });
      }
      found[key] = row;
    }
    return found;
  }

  /** What the table had of the unloaded. The others are new. */
  enter(unloaded: readonly Unloaded[], stored: readonly StoredRollup[], incarnation: number): void {
    const byKey = new Map(stored.map((one) => [textOf(one), one]));
    for (const { key, rows, row } of unloaded) {
      const one = byKey.get(textOf(key));
      if (one !== undefined) rows.load(row, one, incarnation);
    }
  }

  /** The key of a row of the current generation, as texts. */
  keyOf(row: number): RollupKey {
    return this.keyIn(this.rows, row);
  }

  /** The key of a row of any generation. */
  keyIn({ bucket, meter, buckets }: RollupRows, row: number): RollupKey {
    const number = bucket[row]!;
    return {
      tenant: this.tenants.names[buckets.tenant[number]!]!,
      meter: this.meters.names[meter[row]!]!,
      ...bucketParts(buckets.bytes, buckets.start[number]!),
    };
  }

  /**
   * Takes rows as the table has them now, made anew behind our back. What is not in memory is passed over: of an hour
   * that is not asked for, every row that the table can have is one that was folded here.
   */
  refresh(stored: readonly StoredRollup[], incarnation: number): void {
    const tenants = this.tenants.numbers(stored.map(({ tenant }) => tenant));
    const meters = this.meters.numbers(stored.map(({ meter }) => meter));
    const writer = this.#overflow;
    stored.forEach(({ hourSeconds, subject, dimensions }, at) => {
      writer.begin(hourSeconds, dimensions.length);
      writer.text(subject);
      for (const dimension of dimensions) writer.text(dimension);
      writer.end(tenants[at]!);
    });
    const { bytes, start, hash } = writer.take();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    stored.forEach((one, at) => {
      for (const rows of [this.rows, this.#previous]) {
        const [from, to] = [start[at]!, start[at + 1]!];
        const bucket = rows.buckets.find(tenants[at]!, view, from, to, hash[at * 2]!);
        const row = bucket < 0 ? -1 : rows.find(bucket, meters[at]!);
        if (row < 0) continue;
        rows.load(row, one, incarnation);
        break;
      }
    });
  }

  /** Drops everything. The table may have rows that were never here, of hours before `hourSeconds`. */
  forget(hourSeconds: number): void {
    this.groups.forget(hourSeconds);
    this.#knownAfter = Math.max(this.#knownAfter, this.#previousHour, this.#currentHour, hourSeconds);
    [this.rows, this.#previous] = [new RollupRows(), new RollupRows()];
    [this.#currentHour, this.#previousHour] = [-1, -1];
    this.turn += 1;
  }

  /**
   * Drops what exceeds the bound. Call it once after each flush that was written, while at most the next one
   * has been folded: a row that is dropped was then used by neither, for whatever that one used is in the
   * generation that stays.
   */
  trim(): void {
    this.groups.trim();
    if (this.rows.count < this.#half) return;
    if (this.#previous.count > 0) this.#knownAfter = Math.max(this.#knownAfter, this.#previousHour);
    this.#previous = this.rows;
    this.#previousHour = this.#currentHour;
    this.rows = new RollupRows();
    this.#currentHour = -1;
    this.turn += 1;
  }

  /** The buckets that take in what has no row of its own, by the bucket that it would have had. */
  #overflowBuckets(
    { buckets, keyBucket }: Contributions,
    overflowed: Uint8Array,
    own: Finder,
  ): { finder: Finder; numbers: Map<number, number> } {
    const numbers = new Map<number, number>();
    const writer = this.#overflow;
    for (let key = 0; key < keyBucket.length; key++) {
      const bucket = keyBucket[key]!;
      if (overflowed[key] === 0 || numbers.has(bucket)) continue;
      const start = buckets.start[bucket]!;
      numbers.set(
        bucket,
        writeSibling(writer, buckets.tenant[bucket]!, buckets.bytes, start, OVERFLOW_GROUP),
      );
    }
    return { finder: new Finder(this.rows, this.#previous, writer.take(), own.tenants), numbers };
  }
}

/** Finds the rows of one list of buckets. A bucket is looked up once, however many meters it has. */
class Finder {
  /** Whether the row that was made last is one that was in memory already. */
  wasKnown = false;
  readonly tenants: Uint32Array;
  readonly #rows: RollupRows;
  readonly #previous: RollupRows;
  readonly #buckets: Buckets;
  readonly #view: DataView;
  /** The number of each bucket in the current generation, -1 for none. */
  readonly #current: Int32Array;

  constructor(rows: RollupRows, previous: RollupRows, buckets: Buckets, tenants: Uint32Array) {
    this.#rows = rows;
    this.#previous = previous;
    this.#buckets = buckets;
    this.tenants = tenants;
    const { bytes, count, tenant, start, hash } = buckets;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#current = new Int32Array(count);
    for (let at = 0; at < count; at++) {
      this.#current[at] = rows.buckets.find(
        tenants[tenant[at]!]!,
        this.#view,
        start[at]!,
        start[at + 1]!,
        hash[at * 2]!,
      );
    }
  }

  /** The row in the current generation, or -1. */
  find(bucket: number, meter: number): number {
    const number = this.#current[bucket]!;
    return number < 0 ? -1 : this.#rows.find(number, meter);
  }

  /** A row that is not in the current generation: that of the previous one, or an empty one. */
  make(bucket: number, meter: number): number {
    const rows = this.#rows;
    const { tenant, start, hash } = this.#buckets;
    const of = this.tenants[tenant[bucket]!]!;
    const [from, to] = [start[bucket]!, start[bucket + 1]!];
    const low = hash[bucket * 2]!;
    let number = this.#current[bucket]!;
    if (number < 0) {
      // Two buckets of the list can be one, where one of them stands for what overflows.
      number = rows.buckets.find(of, this.#view, from, to, low);
      if (number < 0) number = rows.buckets.add(of, this.#view, from, to, low);
      this.#current[bucket] = number;
      const known = rows.find(number, meter);
      this.wasKnown = known >= 0;
      if (known >= 0) return known;
    }
    const row = rows.add(number, meter);
    const before =
      this.#previous.count === 0 ? -1 : this.#previous.buckets.find(of, this.#view, from, to, low);
    const old = before < 0 ? -1 : this.#previous.find(before, meter);
    this.wasKnown = old >= 0;
    if (old >= 0) rows.copy(row, this.#previous, old);
    return row;
  }
}

/** Texts by number. There are as many as tenants, or meters. */
export class Names {
  readonly names: string[] = [];
  readonly #known = new Map<string, number>();

  numbers(names: readonly string[]): Uint32Array {
    return Uint32Array.from(names, (name) => {
      let number = this.#known.get(name);
      if (number === undefined) this.#known.set(name, (number = this.names.push(name) - 1));
      return number;
    });
  }
}

const textOf = ({ tenant, meter, subject, hourSeconds, dimensions }: RollupKey): string =>
  JSON.stringify([tenant, meter, subject, hourSeconds, ...dimensions]);
