/**
 * What comparing rollups may spend, turn by turn. The smallest step is an hour of a tenant, and an hour can have more
 * rows than a turn may read: what a step took beyond its turn is taken off the next ones, so that it is kept on the
 * average. Without it a busy hour was compared whole in every turn, for as long as it went on.
 */
import type { CheckBudget } from './rollup-check.ts';

export class CheckAllowance {
  readonly #aTurn: CheckBudget;
  #owed: CheckBudget = { rows: 0, ms: 0 };

  constructor(aTurn: CheckBudget) {
    this.#aTurn = aTurn;
  }

  /** For the next turn; with nothing or less in it, changes are noted and nothing is compared. */
  get budget(): CheckBudget {
    return { rows: this.#aTurn.rows - this.#owed.rows, ms: this.#aTurn.ms - this.#owed.ms };
  }

  /** A turn is over, and took this. */
  spend(spent: CheckBudget): void {
    this.#owed = {
      rows: Math.max(0, this.#owed.rows + spent.rows - this.#aTurn.rows),
      ms: Math.max(0, this.#owed.ms + spent.ms - this.#aTurn.ms),
    };
  }
}
