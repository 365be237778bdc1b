/**
 * Tells the totals of AcknowledgedTotals into their bucket, every few seconds what has changed. It is in nobody's
 * way: what cannot be told now is told the next time, and an edge that dies takes what it did in the last seconds
 * with it. The log has those events all the same.
 */
import { acknowledgedKey } from '../contract/acknowledged.ts';
import type { Log } from '../runtime/log.ts';
import type { KeyValue } from '../runtime/nats.ts';
import type { AcknowledgedTotals } from './tenant/acknowledged.ts';

/** Entries told in one turn; with more tenants than that a turn leaves some to the next. */
export const TOLD_A_TURN_MAX = 1_000;
const TOLD_AT_ONCE = 32;

export class AcknowledgedBucket {
  readonly #totals: AcknowledgedTotals;
  readonly #bucket: KeyValue;
  readonly #o: { readonly log: Log; isLogged(): boolean; now(): number };
  #turn: Promise<void> | null = null;

  constructor(
    totals: AcknowledgedTotals,
    bucket: KeyValue,
    options: { readonly log: Log; isLogged(): boolean; now(): number },
  ) {
    this.#totals = totals;
    this.#bucket = bucket;
    this.#o = options;
  }

  /** Never rejects. A turn that is under way is not begun a second time. */
  tell(): Promise<void> {
    this.#turn ??= this.#tell().finally(() => (this.#turn = null));
    return this.#turn;
  }

  async #tell(): Promise<void> {
    const { log, isLogged, now } = this.#o;
    const untold = this.#totals.untold(isLogged(), now(), TOLD_A_TURN_MAX);
    try {
      for (let at = 0; at < untold.length; at += TOLD_AT_ONCE) {
        await Promise.all(
          untold.slice(at, at + TOLD_AT_ONCE).map(async (total) => {
            await this.#bucket.put(acknowledgedKey(total), JSON.stringify(total));
            this.#totals.told(total);
          }),
        );
      }
    } catch (error) {
      log.debug({ error }, 'the acknowledged totals cannot be told yet');
    }
  }
}
