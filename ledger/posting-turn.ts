import type { Db } from '../runtime/postgres.ts';

/** How often such a transaction is run at most: a busy tenant's other writers may be ahead of it several times. */
export const TURN_ATTEMPTS = 30;

/**
 * Takes the turn to post usage or to close a period, until the transaction ends; waits while another process or
 * loop has it. Totals that are read under it are never older than what is posted already.
 *
 * It must be the first statement of its transaction: LOCK TABLE takes no snapshot, so that the transaction sees
 * everything that the one before it committed. (An advisory lock is taken by a query, whose snapshot would be
 * from before the wait.)
 */
export async function takePostingTurn(tx: Db): Promise<void> {
  await tx.query('LOCK TABLE ledger.posting_turn IN EXCLUSIVE MODE');
}
