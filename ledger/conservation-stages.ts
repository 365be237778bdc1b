/**
 * The conservation report stage by stage: what came in, what went out, and that the sums of neighbours agree.
 *
 *   edge        accepted        ≤ received, or acknowledged events are missing (edge-totals.ts)
 *   aggregator  received        = counted + duplicate + conflict + late + rejected
 *   raw         rows            = counted, and one kept event for each conflict, late and rejected one
 *   rollups     hours that differ from raw rows                                        (rollup-check.ts)
 *   ledger      usage of customers in the rollups = what is posted for them
 *   stripe      what is invoiced = what Stripe says
 *
 * The rows are counted with every report, as long as the tenant has no more than two million events: with more there
 * is no figure, and `npx tallyline verify` counts them all.
 */
import type { Quantity } from '../contract/quantity.ts';
import type { Verdict } from '../contract/verdicts.ts';
import { QueryError, type ClickHouse } from '../runtime/clickhouse.ts';
import type { EdgeReport } from './edge-totals.ts';

export interface Counters extends Readonly<Record<Verdict, bigint>> {
  readonly received: bigint;
  readonly unaccounted: bigint;
}

/** Sums over meters of any unit, which say nothing but whether they are equal. */
export interface LedgerTotals {
  readonly rolledUp: Quantity;
  readonly posted: Quantity;
  /** By customer, period and price, without regard to sign. */
  readonly difference: Quantity;
}

/** Minor units of the invoices that are in Stripe, over all currencies. */
export interface StripeTotals {
  readonly invoiced: bigint;
  readonly inStripe: bigint;
  readonly difference: bigint;
}

/** Verdicts of which every event is kept whole. */
const KEPT = ['conflict', 'late', 'rejected'] as const;

export interface RowTotals extends Readonly<Record<(typeof KEPT)[number], bigint>> {
  readonly counted: bigint;
  /** What the rollup rows count, over all meters. */
  readonly rolledUp: bigint;
}

export interface ConservationStages {
  readonly edge: EdgeReport;
  readonly aggregator: Counters & {
    /** Received beyond what the edges have told to be accepted. */
    readonly beyondAccepted: bigint;
  };
  /** Null: too many to be counted for a report. */
  readonly raw: (Omit<RowTotals, 'rolledUp'> & { readonly difference: bigint }) | null;
  readonly rollups: { readonly counted: bigint | null; readonly differingHours: bigint };
  readonly ledger: LedgerTotals;
  readonly stripe: StripeTotals;
}

export function stagesOf(o: {
  readonly edge: EdgeReport;
  readonly counters: Counters;
  readonly rows: RowTotals | null;
  readonly differingHours: bigint;
  readonly ledger: LedgerTotals;
  readonly stripe: StripeTotals;
}): ConservationStages {
  const { edge, counters, rows, differingHours, ledger, stripe } = o;
  const beyond = counters.received - edge.accepted;
  return {
    edge,
    aggregator: { ...counters, beyondAccepted: beyond > 0n ? beyond : 0n },
    raw: rows && {
      counted: rows.counted,
      conflict: rows.conflict,
      late: rows.late,
      rejected: rows.rejected,
      difference: (['counted', ...KEPT] as const).reduce(
        (sum, verdict) => sum + distance(counters[verdict], rows[verdict]),
        0n,
      ),
    },
    rollups: { counted: rows?.rolledUp ?? null, differingHours },
    ledger,
    stripe,
  };
}

const distance = (a: bigint, b: bigint): bigint => (a < b ? b - a : a - b);

/** Events of a tenant whose rows a report counts: about half a second, beside the settings of the connection. */
const EVENTS_MAX = 2_000_000;
/** ClickHouse's codes of limits: rows, time, memory. */
const LIMIT_CODES: readonly number[] = [158, 159, 241];

const COUNTED = 'SELECT toString(count()) AS total FROM event_rows WHERE tenant = {tenant:String}';
const KEPT_EVENTS = `
  SELECT verdict, toString(count()) AS total FROM refused WHERE tenant = {tenant:String} GROUP BY verdict`;
const ROLLED_UP = 'SELECT toString(sum(value_count)) AS total FROM usage_rows WHERE tenant = {tenant:String}';

/** Null: there are too many. */
export async function readRowTotals(
  ch: ClickHouse,
  tenant: string,
  { received }: Counters,
): Promise<RowTotals | null> {
  if (received > BigInt(EVENTS_MAX)) return null;
  try {
    const [[counted], kept, [rolledUp]] = await Promise.all([
      ch.rows<{ total: string }>(COUNTED, { tenant }),
      ch.rows<{ verdict: string; total: string }>(KEPT_EVENTS, { tenant }),
      ch.rows<{ total: string }>(ROLLED_UP, { tenant }),
    ]);
    const of = (verdict: string): bigint => BigInt(kept.find((row) => row.verdict === verdict)?.total ?? '0');
    return {
      counted: BigInt(counted!.total),
      conflict: of('conflict'),
      late: of('late'),
      rejected: of('rejected'),
      rolledUp: BigInt(rolledUp!.total),
    };
  } catch (error) {
    if (error instanceof QueryError && LIMIT_CODES.includes(error.code)) return null;
    throw error;
  }
}
