/**
 * The rollup rows of a shard that are in memory. Least recently used rows go first, a generation at a time: a row that
 * is used moves to the current generation, with all rows of its bucket; when the generations turn over, the previous one
 * is dropped and the current one takes its place. A dropped row is in ClickHouse and is loaded again when it is needed.
 *
 * They turn over when the log comes to another hour, so what is in memory is what was used in this hour and the last.
 * When both together reach the bound, the rows of the last hour go: an hour may have as many as the bound, and each of
 * its rows that is not in memory is asked for again and again. Where one hour alone has more, the generations turn over
 * whenever the current one holds half of the bound; until the first time, rows take half as much again. The hour is that in which edges accepted the blocks, not that of
 * events: no event can turn anything over, however late it is or far ahead. Of the blocks of a flush the earliest
 * counts, and an hour once come to stays: an edge whose clock is off can at worst leave the bound to do it alone.
 *
 * A row that is in neither generation may yet be in ClickHouse, and asking costs a query a flush. What is dropped is
 * remembered so far that most new rows are known to be new (dropped-buckets.ts): a new hour, when every row is new, asks
 * nothing.
 */
import { OVERFLOW_GROUP } from '../contract/meter.ts';
import { HOUR_MS } from '../contract/window.ts';
import { mixedHash } from './bucket-keys.ts';
import { BucketRows } from './bucket-rows.ts';
import { BucketWriter, bucketParts, writeSibling } from './bucket.ts';
import { DroppedBuckets } from './dropped-buckets.ts';
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
  /** The current generation. Rows are places in it, and only as long as it is the current one: until a `trim`. */
  rows = new RollupRows();
  readonly tenants = new Names();
  readonly meters = new Names();
  #previous = new RollupRows();
  #finder = new BucketRows(this.rows, this.#previous);
  #overflowFinder: BucketRows | null = null;
  /** The greatest hours of the two generations. */
  #currentHour = -1;
  #previousHour = -1;
  readonly #dropped: DroppedBuckets;
  /** The previous generation is that of an hour of the log before. */
  #isOfLastHour = false;
  readonly #rowsMax: number;
  readonly #overflow: BucketWriter;
  /** The hours since the epoch that the log has come to, and that it had come to when the generations last turned over. */
  #logHour = -1;
  #turnHour = -1;
  #isHeld = false;
  #isTrimDue = false;

  /**
   * @param storedHour the greatest hour (epoch seconds) of the shard in ClickHouse, -1 for none.
   * @param bucketKey the key with which the buckets of its blocks are hashed.
   */
  constructor(rowsMax: number, storedHour: number, bucketKey: string) {
    this.#rowsMax = Math.max(1, rowsMax);
    this.#dropped = new DroppedBuckets(storedHour);
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
  find({ tenants, contributions, overflowed }: RowsWanted, unloaded: Unloaded[]): Uint32Array {
    const { buckets, keyBucket, keyMeter, meters } = contributions;
    const tenantNumbers = this.tenants.numbers(tenants);
    const finder = this.#finder.begin(buckets, tenantNumbers);
    const ofOverflow =
      overflowed === null ? null : this.#overflowBuckets(contributions, overflowed, tenantNumbers);
    const meterNumbers = this.meters.numbers(meters);
    const found = new Uint32Array(keyBucket.length);
    for (let key = 0; key < found.length; key++) {
      const meter = meterNumbers[keyMeter[key]!]!;
      const bucket = keyBucket[key]!;
      const isOwn = overflowed === null || overflowed[key] === 0;
      const place = isOwn ? finder : ofOverflow!.finder;
      const number = isOwn ? bucket : ofOverflow!.numbers.get(bucket)!;
      let row = place.find(number, meter);
      if (row === 0) {
        row = place.make(number, meter);
        const hour = this.rows.buckets.hourOf(this.rows.bucketOf(row));
        if (hour > this.#currentHour) this.#currentHour = hour;
        if (!place.wasKnown && this.#dropped.mayHave(hour, place.mixed[number]!))
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
  keyIn(rows: RollupRows, row: number): RollupKey {
    const bucket = rows.bucketOf(row);
    return {
      tenant: this.tenants.names[rows.buckets.tenantOf(bucket)]!,
      meter: this.meters.names[rows.meterOf(row)]!,
      ...bucketParts(...rows.buckets.bytesOf(bucket)),
    };
  }

  /**
   * Takes rows as the table has them now, made anew behind our back. What is not in memory is passed over: of rows that
   * are not asked for, every one that the table can have is one that was folded here.
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
        const [tenant, from, to] = [tenants[at]!, start[at]!, start[at + 1]!];
        const bucket = rows.buckets.find(tenant, view, from, to, mixedHash(tenant, hash[at * 2]!));
        const row = bucket === 0 ? 0 : rows.find(rows.firstOf(bucket), meters[at]!);
        if (row === 0) continue;
        rows.load(row, one, incarnation);
        break;
      }
    });
  }

  /** Drops everything. The table may have rows that were never here, of hours before `hourSeconds`. */
  forget(hourSeconds: number): void {
    this.groups.forget(hourSeconds);
    this.#dropped.forget(Math.max(this.#previousHour, this.#currentHour, hourSeconds));
    [this.#currentHour, this.#previousHour] = [-1, -1];
    this.#begin(new RollupRows(), new RollupRows());
  }

  /** The log has come to blocks that were accepted then, the earliest of a flush. */
  reach(acceptedAtMs: number): void {
    this.#logHour = Math.max(this.#logHour, Math.floor(acceptedAtMs / HOUR_MS));
    if (this.#turnHour < 0) this.#turnHour = this.#logHour;
  }

  /** From now on places of rows stay what they are. */
  hold(): void {
    this.#isHeld = true;
  }

  /** They need not any more. */
  release(): void {
    this.#isHeld = false;
    if (this.#isTrimDue) this.trim();
  }

  /**
   * Drops what was not used for long, or exceeds the bound; while places are held, when they are not any more. Call it once
   * after each flush that was written, while at most the next one has been folded: a row that is dropped was then used by
   * neither, for whatever that one used is in the generation that stays.
   */
  trim(): void {
    this.#isTrimDue = this.#isHeld;
    if (this.#isHeld) return;
    const isOver = this.#logHour > this.#turnHour;
    this.groups.trim(isOver);
    if (!isOver && this.size < this.#rowsMax) return;
    if (!isOver && this.#isOfLastHour) return this.#dropPrevious();
    if (!isOver && this.rows.count * 2 < this.#rowsMax) return;
    this.#dropPrevious();
    this.#turnHour = this.#logHour;
    this.#isOfLastHour = isOver;
    this.#previousHour = this.#currentHour;
    this.#currentHour = -1;
    this.#begin(new RollupRows(this.rows.buckets.count), this.rows);
  }

  #dropPrevious(): void {
    if (this.#previous.count > 0) this.#dropped.drop(this.#previous.buckets, this.#previousHour);
    this.#isOfLastHour = false;
    this.#previousHour = -1;
    this.#begin(this.rows, new RollupRows());
  }

  #begin(rows: RollupRows, previous: RollupRows): void {
    [this.rows, this.#previous] = [rows, previous];
    this.#finder = new BucketRows(rows, previous);
    this.#overflowFinder = null;
  }

  /** The buckets that take in what has no row of its own, by the bucket that it would have had. */
  #overflowBuckets(
    { buckets, keyBucket }: Contributions,
    overflowed: Uint8Array,
    tenants: Uint32Array,
  ): { finder: BucketRows; numbers: Map<number, number> } {
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
    this.#overflowFinder ??= new BucketRows(this.rows, this.#previous);
    return { finder: this.#overflowFinder.begin(writer.take(), tenants), numbers };
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
