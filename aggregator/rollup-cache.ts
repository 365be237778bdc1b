/**
 * The rollup rows of a shard that are in memory. Least recently used rows go first, a generation at a time:
 * a row that is used moves to the current generation; when that holds half of the bound, the previous one is
 * dropped and it takes its place. A dropped row is in ClickHouse and is loaded again when it is needed.
 *
 * A row that is in neither generation may yet be in ClickHouse, and asking costs a query a flush. It cannot
 * be there if its hour is later than every hour that was stored at the start or dropped since: a new hour,
 * when every row is new, asks nothing.
 */
import { GroupBook } from './group-book.ts';
import type { RollupRow } from './rollup-row.ts';

export class RollupCache {
  /** The groups of which there may be rows: kept as long, and dropped in the same way. */
  readonly groups: GroupBook;
  #current = new Map<string, RollupRow>();
  #previous = new Map<string, RollupRow>();
  #currentHour = -1;
  #previousHour = -1;
  #knownAfter: number;
  readonly #half: number;

  /** @param storedHour the greatest hour (epoch seconds) of the shard in ClickHouse, -1 for none. */
  constructor(rowsMax: number, storedHour: number) {
    this.#half = Math.max(1, Math.floor(rowsMax / 2));
    this.#knownAfter = storedHour;
    this.groups = new GroupBook(rowsMax, storedHour);
  }

  get size(): number {
    return this.#current.size + this.#previous.size;
  }

  get(key: string): RollupRow | undefined {
    const row = this.#current.get(key);
    if (row !== undefined) return row;
    const older = this.#previous.get(key);
    if (older === undefined) return undefined;
    this.#previous.delete(key);
    this.#current.set(key, older);
    this.#currentHour = Math.max(this.#currentHour, this.#previousHour);
    return older;
  }

  /** Whether a row that is not here must be a new one. */
  mustBeNew(hourSeconds: number): boolean {
    return hourSeconds > this.#knownAfter;
  }

  add(row: RollupRow): void {
    const { hourSeconds } = row.parts;
    this.#current.set(row.key, row);
    if (hourSeconds > this.#currentHour) this.#currentHour = hourSeconds;
  }

  /**
   * Drops what exceeds the bound. Call it once after each flush that was written, while at most the next one
   * has been folded: a row that is dropped was then used by neither, for whatever that one used is in the
   * generation that stays.
   */
  trim(): void {
    this.groups.trim();
    if (this.#current.size < this.#half) return;
    if (this.#previous.size > 0) this.#knownAfter = Math.max(this.#knownAfter, this.#previousHour);
    this.#previous = this.#current;
    this.#previousHour = this.#currentHour;
    this.#current = new Map();
    this.#currentHour = -1;
  }
}
