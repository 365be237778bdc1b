// What a customer stands at, read from the projected balances and from what is posted by period.
import { isCurrency, type Amount, type Currency } from '../contract/money.ts';
import type { Db } from '../runtime/postgres.ts';
import type { Account } from './journal.ts';

export interface Balance {
  readonly currency: Currency;
  /** Usage not yet invoiced, net of the credit that covers it. */
  readonly accruedUsage: Amount;
  /** Credit that is left. */
  readonly credit: Amount;
  /** On issued invoices that Stripe does not have yet. */
  readonly invoicePending: Amount;
  /** Owed on invoices that Stripe has. */
  readonly receivable: Amount;
  /** What the customer owes altogether, less the credit that is left; negative when credit exceeds it. */
  readonly net: Amount;
  readonly asOfMs: number;
  /** Periods with something that is not invoiced, oldest first. */
  readonly periods: readonly BalancePeriod[];
}

export interface BalancePeriod {
  readonly start: number;
  readonly end: number;
  /** Charges before credit. */
  readonly accrued: Amount;
  /** Of these, covered by credit. */
  readonly credited: Amount;
}

/** Null when there is no such customer. */
export async function readBalance(
  db: Db,
  tenant: string,
  customer: string,
  nowMs: number,
): Promise<Balance | null> {
  const [owner] = await db.query<{ currency: string }>(
    'SELECT currency FROM ledger.customers WHERE tenant = $1 AND id = $2',
    [tenant, customer],
  );
  if (owner === undefined) return null;
  if (!isCurrency(owner.currency)) throw new Error(`customer ${customer} has the currency ${owner.currency}`);
  const accounts = await db.query<{ account: Account; amount: string }>(
    'SELECT account, amount::text AS amount FROM ledger.balances WHERE tenant = $1 AND customer = $2 AND currency = $3',
    [tenant, customer, owner.currency],
  );
  const at = (account: Account): Amount =>
    BigInt(accounts.find((row) => row.account === account)?.amount ?? '0');
  const periods = await db.query<{ start: number; end: number; accrued: string; credited: string }>(
    `SELECT u.period_start AS start, u.period_end AS end, sum(u.amount - u.invoiced_amount)::text AS accrued,
       coalesce(max(a.amount - a.invoiced_amount), 0)::text AS credited
     FROM ledger.usage_posted u
     LEFT JOIN ledger.credit_applied a
       ON a.tenant = u.tenant AND a.customer = u.customer AND a.period_start = u.period_start
     WHERE u.tenant = $1 AND u.customer = $2
     GROUP BY u.period_start, u.period_end
     HAVING sum(u.amount - u.invoiced_amount) <> 0 OR coalesce(max(a.amount - a.invoiced_amount), 0) <> 0
     ORDER BY u.period_start`,
    [tenant, customer],
  );
  const credit = -at('credit');
  const owed = at('accrued_usage') + at('invoice_pending') + at('stripe_in_flight') + at('receivable');
  return {
    currency: owner.currency,
    accruedUsage: at('accrued_usage'),
    credit,
    invoicePending: at('invoice_pending') + at('stripe_in_flight'),
    receivable: at('receivable'),
    net: owed - credit,
    asOfMs: nowMs,
    periods: periods.map((row) => ({
      start: row.start,
      end: row.end,
      accrued: BigInt(row.accrued),
      credited: BigInt(row.credited),
    })),
  };
}
