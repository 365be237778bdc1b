/**
 * Whose turn it is. Both turns are taken with LOCK TABLE on a table without rows, because that takes no snapshot: the
 * transaction sees everything that the one before it committed. (An advisory lock is taken by a query, whose snapshot
 * would be from before the wait.)
 *
 * Order: the posting turn, then the writing turn, then the heads of journals, then rows. Between the first two
 * ClickHouse is read; between the second and the commit nothing but Postgres is waited for.
 */
import type { Db } from '../runtime/postgres.ts';

/** How often such a transaction is run at most: writers outside of the turns may be ahead of it several times. */
export const TURN_ATTEMPTS = 30;

/**
 * Takes the turn to post usage or to close a period, until the transaction ends; waits while another process or
 * loop has it. Totals that are read under it are never older than what is posted already. It must be the first
 * statement of its transaction.
 */
export async function takePostingTurn(tx: Db): Promise<void> {
  await tx.query('LOCK TABLE ledger.posting_turn IN EXCLUSIVE MODE');
}

/**
 * Takes the turn to write what customers, plans, credit or journals are, until the transaction ends. It comes before
 * the first statement that reads, so that the snapshot is taken in the turn.
 *
 * Without it two serializable transactions that have nothing to do with each other lose against each other: what one
 * of them reads is guarded by page of an index, and two customers share pages. Eight clients that put customers at once
 * used up ten attempts each and got 500 in three of four starts. In the turn they wait for each other instead, some
 * milliseconds each, in the order in which they came.
 */
export async function takeWritingTurn(tx: Db): Promise<void> {
  await tx.query('LOCK TABLE ledger.writing_turn IN EXCLUSIVE MODE');
}
