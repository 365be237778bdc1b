/**
 * Double entry. A transaction moves an amount of one currency between accounts of one customer; its postings
 * sum to zero. Positive is a debit, negative a credit.
 *
 * | account | what it holds | side |
 * | --- | --- | --- |
 * | accrued_usage | usage rated and not yet on an invoice, net of credit | debit; clearing |
 * | revenue | what the usage earned | credit |
 * | credit | what the customer may still use up | credit |
 * | credit_expense | what given and expired credit cost | debit |
 * | invoice_pending | on an issued invoice that Stripe does not have yet | debit; clearing |
 * | stripe_in_flight | handed to Stripe, not yet confirmed as a receivable | debit; clearing |
 * | receivable | owed on an invoice that Stripe has | debit |
 * | cash | paid | debit |
 *
 * Transactions of a tenant form a chain: each hash covers the one before it and everything the transaction says.
 */
import { createHash } from 'node:crypto';
import type { Amount, Currency } from '../contract/money.ts';

export const ACCOUNTS = [
  'accrued_usage',
  'revenue',
  'credit',
  'credit_expense',
  'invoice_pending',
  'stripe_in_flight',
  'receivable',
  'cash',
] as const;
export type Account = (typeof ACCOUNTS)[number];

export type TransactionKind =
  'usage' | 'credit_burn' | 'grant_issue' | 'grant_expiry' | 'invoice' | 'invoice_sent' | 'payment';

export interface Posting {
  readonly account: Account;
  /** Minor units; never zero. */
  readonly amount: Amount;
}

/** Text, because it is hashed: no number's notation can change underneath. */
export type Detail = Readonly<Record<string, string>>;

export interface TransactionDraft {
  readonly tenant: string;
  readonly customer: string;
  readonly currency: Currency;
  readonly kind: TransactionKind;
  /** Unique within the tenant: posting it again is a no-op, with other content an error. */
  readonly idempotencyKey: string;
  /** When it happened, as opposed to when it was written down. */
  readonly effectiveAtMs: number;
  readonly detail: Detail;
  readonly postings: readonly Posting[];
}

export interface LedgerTransaction extends TransactionDraft {
  /** 1, 2, 3 … within the tenant. */
  readonly id: bigint;
  readonly inputHash: string;
  readonly postedAtMs: number;
  readonly previousHash: Uint8Array;
  readonly hash: Uint8Array;
}

/** The hash before the first transaction of a tenant. */
export const GENESIS = new Uint8Array(32);

/** Moves `amount` from one account to another; a negative amount moves it back. Empty for zero. */
export function move(from: Account, to: Account, amount: Amount): Posting[] {
  return amount === 0n
    ? []
    : [
        { account: to, amount },
        { account: from, amount: -amount },
      ];
}

/** Throws when a transaction is none: that is a bug of ours, and the database would refuse it too. */
export function assertBalanced(draft: TransactionDraft): void {
  const sum = draft.postings.reduce((total, posting) => total + posting.amount, 0n);
  if (sum !== 0n || draft.postings.length < 2 || draft.postings.some((posting) => posting.amount === 0n)) {
    throw new Error(
      `transaction ${draft.idempotencyKey} does not balance: ${draft.postings.length} postings sum to ${sum}`,
    );
  }
}

/** What the same idempotency key must come with again; `content` where it was worked out already. */
export function inputHashOf(draft: TransactionDraft, content = contentOf(draft)): string {
  return createHash('sha256').update(content).digest('hex');
}

/** Everything that a transaction says, as text; both hashes cover it. */
export function contentOf(draft: TransactionDraft): string {
  return JSON.stringify([
    draft.tenant,
    draft.customer,
    draft.currency,
    draft.kind,
    draft.idempotencyKey,
    draft.effectiveAtMs,
    Object.entries(draft.detail).sort(([a], [b]) => (a < b ? -1 : 1)),
    draft.postings.map((posting) => [posting.account, posting.amount.toString()]),
  ]);
}

export function chainHash(
  previous: Uint8Array,
  transaction: TransactionDraft & { readonly id: bigint; readonly postedAtMs: number },
  content = contentOf(transaction),
): Uint8Array {
  return createHash('sha256')
    .update(previous)
    .update(`${transaction.id} ${transaction.postedAtMs} `)
    .update(content)
    .digest();
}
