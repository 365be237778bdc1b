import { JournalError, type Keeper } from './journal.ts';
import type { Place } from './journal-index.ts';
import type { Hold } from './log-standing.ts';

/** Who is told what became of the block in the journal. */
export interface DeliveryOwner {
  onKept(delivery: Delivery, place: Place): void;
  onNotKept(delivery: Delivery): void;
}

/**
 * A new block, from its pack to its promise. The journal and the log are asked at the same time, and each says
 * what became of it:
 *
 * | | log: acknowledged | log: cannot now | log: refused for good |
 * | --- | --- | --- | --- |
 * | journal: kept | promised | promised | not |
 * | journal: refused | promised | not | not |
 */
export class Delivery implements Keeper {
  readonly shard: number;
  readonly block: Uint8Array;
  readonly events: number;
  readonly #owner: DeliveryOwner;
  readonly #resolve: () => void;
  readonly #reject: (error: unknown) => void;
  journal: 'asked' | 'kept' | 'refused' = 'asked';
  /** `not asked` is as good as `cannot`, but that it can still be asked. */
  log: 'not asked' | 'under way' | 'acknowledged' | 'cannot' | 'refused' = 'not asked';
  place: Place | null = null;
  /** Of its publish. */
  hold: Hold | null = null;
  /** Where the log has it; 0 when it does not count, because the log came into doubt meanwhile. */
  sequence = 0;
  /** Why the log did not take it. */
  failure: unknown = null;
  #notKept: JournalError | null = null;
  #settled = false;

  constructor(
    owner: DeliveryOwner,
    block: { readonly shard: number; readonly bytes: Uint8Array; readonly events: number },
    resolve: () => void,
    reject: (error: unknown) => void,
  ) {
    this.#owner = owner;
    this.shard = block.shard;
    this.block = block.bytes;
    this.events = block.events;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  kept(place: Place): void {
    this.journal = 'kept';
    this.place = place;
    this.#owner.onKept(this, place);
  }

  notKept(error: JournalError): void {
    this.journal = 'refused';
    this.#notKept = error;
    this.#owner.onNotKept(this);
  }

  /** Keeps or breaks the promise, once it is decided. `logTakes`: whether an answer is worth waiting for. */
  settle(logTakes: boolean): void {
    const { journal, log } = this;
    if (this.#settled || journal === 'asked') return;
    if (log === 'under way' && (logTakes || journal === 'refused')) return;
    this.#settled = true;
    if (log === 'acknowledged' || (journal === 'kept' && log !== 'refused')) this.#resolve();
    else this.#reject(this.#reason());
  }

  /** A full journal is said to be so only when the log did not take the block either. */
  #reason(): unknown {
    if (this.#notKept?.kind === 'full' && this.log !== 'refused') {
      return new JournalError('full', this.#notKept.message, this.failure);
    }
    return this.failure ?? this.#notKept;
  }
}
