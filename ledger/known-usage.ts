/**
 * What a posting loop knows of rollups, so that a pass reads what changed and not whole periods. Pure.
 *
 * An account is the usage of one customer in one period: the totals of its closed hours together, and of its newest
 * hours each row as it was last seen. A total is always worked out anew from these. It is what a reading of the whole
 * period would say, because
 *
 * - a row is absolute and has a version, its position: of two versions the higher is the later truth, and equal ones
 *   say the same (aggregator/recount.ts). So rows may be seen twice, in any order, and beyond the watermark.
 * - whatever is written after a watermark was read has a position beyond it. So an account that was read once, and
 *   since then told of every row beyond the watermark that had been read before, misses none.
 * - of a closed hour single rows are not known. One that changes (a late event, a correction, a backfill) makes the
 *   account unknown, and it is read whole.
 *
 * Everything in here may be forgotten at any time, which costs a reading and changes no total. It is forgotten by a
 * process that ends, for a customer whose terms change, for watermarks that go back or a shard that comes, and for each
 * account within an hour, so that a table that was mended by hand is read as it is.
 */
import { mergeTotals, type Totals } from '../contract/rollup.ts';
import { HOUR_MS, hourStart, type Window } from '../contract/window.ts';
import type { Customer } from './customers.ts';
import type { Positions } from './usage-batches.ts';

/** A version of a row of rollups. */
export interface UsageRow {
  readonly meter: string;
  readonly subject: string;
  readonly hourMs: number;
  /** Text that no two groups and shards share. */
  readonly place: string;
  readonly position: bigint;
  /** Nothing is left in it when it counts no events. */
  readonly totals: Totals;
}

export type MeterTotals = ReadonlyMap<string, Totals>;

/** Rows of this hour and the last are kept one by one; a customer's later ones too, as long as the account lives. */
const KEPT_HOURS = 1;
const ACCOUNT_MS_MAX = HOUR_MS;
/** About half a kilobyte each. */
const ROWS_MAX = 200_000;

interface Account {
  readonly terms: string;
  /** Hours before it are closed. */
  readonly openFromMs: number;
  readonly until: number;
  readonly closed: MeterTotals;
  readonly rows: Map<string, UsageRow>;
}

export class KnownUsage {
  readonly #accounts = new Map<string, Account>();
  readonly #rowsMax: number;
  #positions: Positions = new Map();
  #rows = 0;
  /** By tenant, the customer that was read along last. */
  readonly #alongTo = new Map<string, string>();

  constructor({ rowsMax = ROWS_MAX }: { readonly rowsMax?: number } = {}) {
    this.#rowsMax = rowsMax;
  }

  /** Every account was told of all rows up to here; none for a shard that was not heard of. */
  get positions(): Positions {
    return this.#positions;
  }

  get accounts(): number {
    return this.#accounts.size;
  }

  get rows(): number {
    return this.#rows;
  }

  /** A pass begins, which has read these watermarks. */
  begin(watermarks: Positions, nowMs: number): void {
    const fits = [...watermarks].every(([shard, position]) => {
      const before = this.#positions.get(shard);
      return before !== undefined && position >= before;
    });
    if (!fits || watermarks.size !== this.#positions.size) this.#forgetAll(watermarks);
    for (const [key, account] of this.#accounts) if (account.until <= nowMs) this.#forget(key, account);
  }

  /** A pass is through: whoever had rows up to its watermarks was told of them. */
  end(watermarks: Positions): void {
    this.#positions = watermarks;
  }

  /** From which hour on the rows of a period are to be kept; null when all of it is closed, and nothing is. */
  openFrom({ start, end }: Window, nowMs: number): number | null {
    const openFromMs = hourStart(nowMs) - KEPT_HOURS * HOUR_MS;
    return openFromMs < end && nowMs >= start ? Math.max(start, openFromMs) : null;
  }

  /** Puts an account that was just read, with the rows of its open hours, and answers its totals. */
  put(
    customer: Customer,
    period: Window,
    o: { openFromMs: number; closed: MeterTotals; rows: readonly UsageRow[]; nowMs: number },
  ): Map<string, Totals> {
    const key = keyOf(customer, period);
    const before = this.#accounts.get(key);
    if (before !== undefined) this.#forget(key, before);
    if (this.#rows + o.rows.length > this.#rowsMax) return totalsOf(o.closed, o.rows);
    const account: Account = {
      terms: termsOf(customer),
      openFromMs: o.openFromMs,
      until: o.nowMs + ACCOUNT_MS_MAX,
      closed: o.closed,
      rows: new Map(),
    };
    this.#accounts.set(key, account);
    this.#take(account, o.rows);
    return totalsOf(o.closed, o.rows);
  }

  has(customer: Customer, period: Window): boolean {
    const account = this.#accounts.get(keyOf(customer, period));
    return account !== undefined && account.terms === termsOf(customer);
  }

  /** Whose customers are to be read along next: those behind this one (null: from the first on). */
  alongAfter(tenant: string): string | null {
    return this.#alongTo.get(tenant) ?? null;
  }

  /** They were read along up to this customer; null begins anew. */
  setAlong(tenant: string, customer: string | null): void {
    if (customer === null) this.#alongTo.delete(tenant);
    else this.#alongTo.set(tenant, customer);
  }

  /** Tells an account what changed; it is unknown from then on when that cannot be made out. */
  tell(customer: Customer, period: Window, rows: readonly UsageRow[]): void {
    const key = keyOf(customer, period);
    const account = this.#accounts.get(key);
    if (account === undefined) return;
    // Versions of known rows are counted as if they were new: too careful, and simpler.
    if (rows.some(({ hourMs }) => hourMs < account.openFromMs) || this.#rows + rows.length > this.#rowsMax)
      this.#forget(key, account);
    else this.#take(account, rows);
  }

  /** By meter; null for an account that is unknown by now. */
  totals(customer: Customer, period: Window): Map<string, Totals> | null {
    const account = this.#accounts.get(keyOf(customer, period));
    return account === undefined ? null : totalsOf(account.closed, account.rows.values());
  }

  #take(account: Account, rows: readonly UsageRow[]): void {
    const before = account.rows.size;
    for (const row of rows) {
      const key = `${row.meter}\0${row.subject}\0${row.hourMs}\0${row.place}`;
      const known = account.rows.get(key);
      if (known === undefined || known.position < row.position) account.rows.set(key, row);
    }
    this.#rows += account.rows.size - before;
  }

  #forget(key: string, account: Account): void {
    this.#rows -= account.rows.size;
    this.#accounts.delete(key);
  }

  #forgetAll(watermarks: Positions): void {
    this.#accounts.clear();
    this.#rows = 0;
    this.#positions = watermarks;
  }
}

/** Of closed hours and rows together; rows in which nothing is left add nothing. */
export function totalsOf(closed: MeterTotals, rows: Iterable<UsageRow>): Map<string, Totals> {
  const byMeter = new Map(closed);
  for (const { meter, totals } of rows) {
    if (totals.count === 0n) continue;
    const before = byMeter.get(meter);
    byMeter.set(meter, before === undefined ? totals : mergeTotals(before, totals));
  }
  return byMeter;
}

const keyOf = ({ tenant, id }: Customer, { start }: Window): string => `${tenant}\0${id}\0${start}`;

/** What decides which rows are a customer's; a plan says which meters were read. */
const termsOf = ({ anchorMs, planKey, planVersion, subjects }: Customer): string =>
  JSON.stringify([anchorMs, planKey, planVersion, subjects]);
