import type { Amount } from '../contract/money.ts';

/**
 * INVOICE = LEDGER = STRIPE, line by line: what is different between an invoice of the ledger and the one
 * that Stripe has, in minor units.
 */
export type DifferenceKind =
  'currency' | 'total' | 'line_amount' | 'line_missing' | 'line_repeated' | 'line_unexpected';

export interface Difference {
  readonly kind: DifferenceKind;
  /** The ledger's line; Stripe's for one that the ledger does not know; '' for the whole invoice. */
  readonly line: string;
  readonly ledger: Amount;
  readonly stripe: Amount;
  /** What this adds to the drift of the invoice, not negative. */
  readonly drift: Amount;
  readonly detail: string;
}

export interface LedgerSide {
  readonly currency: string;
  readonly total: Amount;
  readonly lines: readonly { readonly id: string; readonly amount: Amount }[];
}

export interface StripeSide {
  readonly currency: string;
  readonly total: Amount;
  readonly lines: readonly StripeSideLine[];
}

export interface StripeSideLine {
  readonly id: string;
  /** The ledger's line it was made for, or null when somebody else made it. */
  readonly line: string | null;
  readonly amount: Amount;
}

/**
 * The differences of lines first, then what the totals differ by on top of their lines (a tax, a discount):
 * so the drifts of one invoice can be added up without counting a cent twice.
 */
export function compareInvoices(ledger: LedgerSide, stripe: StripeSide): Difference[] {
  const differences: Difference[] = [];
  if (ledger.currency.toLowerCase() !== stripe.currency.toLowerCase()) {
    const detail = `the ledger has ${ledger.currency}, Stripe has ${stripe.currency}`;
    const drift = magnitude(ledger.total);
    differences.push({
      kind: 'currency',
      line: '',
      ledger: ledger.total,
      stripe: stripe.total,
      drift,
      detail,
    });
  }
  const add = (kind: DifferenceKind, line: string, ours: Amount, theirs: Amount, detail: string) =>
    differences.push({ kind, line, ledger: ours, stripe: theirs, drift: magnitude(theirs - ours), detail });

  const known = new Map(ledger.lines.map((line) => [line.id, line.amount]));
  const seen = new Set<string>();
  let explained = 0n;
  for (const { id, line, amount } of stripe.lines) {
    const ours = line === null ? undefined : known.get(line);
    if (line === null || ours === undefined) {
      add('line_unexpected', id, 0n, amount, `Stripe's line ${id} is not of the ledger`);
      explained += amount;
    } else if (seen.has(line)) {
      add('line_repeated', id, 0n, amount, `Stripe's line ${id} repeats line ${line}`);
      explained += amount;
    } else {
      seen.add(line);
      if (ours !== amount) add('line_amount', line, ours, amount, `Stripe's line ${id} has another amount`);
      explained += amount - ours;
    }
  }
  for (const { id, amount } of ledger.lines) {
    if (seen.has(id)) continue;
    add('line_missing', id, amount, 0n, 'Stripe has no line for it');
    explained -= amount;
  }
  const unexplained = stripe.total - ledger.total - explained;
  if (stripe.total !== ledger.total || unexplained !== 0n) {
    const detail = `Stripe's total is ${stripe.total}, the ledger's ${ledger.total}`;
    const drift = magnitude(unexplained);
    differences.push({ kind: 'total', line: '', ledger: ledger.total, stripe: stripe.total, drift, detail });
  }
  return differences;
}

function magnitude(amount: Amount): Amount {
  return amount < 0n ? -amount : amount;
}
