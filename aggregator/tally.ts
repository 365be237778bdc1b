/**
 * The absolute counters of the conservation table, per shard: events received from the log by tenant, and
 * events by tenant, verdict and code. Each has the position of the last event in it and skips what is not
 * above, like a rollup row.
 */
import { REJECTIONS, type RejectionCode } from '../contract/rejections.ts';
import { VERDICTS, type Verdict } from '../contract/verdicts.ts';
import { EARLIER, positionInShard } from './position-in-shard.ts';
import { REFUSALS } from './prepare.ts';
import { REJECTED } from './verdict.ts';

export interface Counter {
  readonly tenant: string;
  /** '' for the events received. */
  readonly verdict: Verdict | '';
  /** '' unless rejected. */
  readonly code: RejectionCode | '';
  count: number;
  position: number;
}

/** A slot for each verdict, then one for each code of a rejection, then the events received. */
const SLOTS = VERDICTS.length + REFUSALS.length + 1;
const RECEIVED = SLOTS - 1;

export class Tally {
  readonly #counters = new Map<string, Counter>();
  readonly #changed = new Set<Counter>();

  load(counter: Counter): void {
    this.#counters.set(keyOf(counter.tenant, counter.verdict, counter.code), counter);
  }

  /** What changed since the last call. */
  takeChanged(): Counter[] {
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /** Counts a block of decided events. */
  countBlock(
    block: {
      readonly tenants: readonly string[];
      readonly tenantOf: Uint32Array;
      readonly refused: Uint8Array;
    },
    verdicts: Uint8Array,
    sequence: number,
  ): void {
    const { tenants, tenantOf, refused } = block;
    const slots: (Counter | undefined)[] = new Array<undefined>(tenants.length * SLOTS);
    for (let at = 0; at < verdicts.length; at++) {
      const position = positionInShard(sequence, at);
      const verdict = verdicts[at]!;
      const slot = verdict === REJECTED ? VERDICTS.length + refused[at]! - 1 : verdict;
      const first = tenantOf[at]! * SLOTS;
      this.#count((slots[first + slot] ??= this.#slot(tenants[tenantOf[at]!]!, slot)), position);
      this.#count((slots[first + RECEIVED] ??= this.#counter(tenants[tenantOf[at]!]!, '', '')), position);
    }
  }

  /** A message that nobody can read counts as one event of no tenant. */
  countUnreadable(sequence: number): void {
    const position = positionInShard(sequence, 0);
    this.#count(this.#counter('', '', ''), position);
    this.#count(this.#counter('', 'rejected', 'block_unreadable'), position);
  }

  #slot(tenant: string, slot: number): Counter {
    const code = slot < VERDICTS.length ? '' : REFUSALS[slot - VERDICTS.length]!;
    return this.#counter(tenant, code === '' ? VERDICTS[slot]! : 'rejected', code);
  }

  #counter(tenant: string, verdict: Verdict | '', code: RejectionCode | ''): Counter {
    const key = keyOf(tenant, verdict, code);
    let counter = this.#counters.get(key);
    if (counter === undefined) {
      counter = { tenant, verdict, code, count: 0, position: EARLIER };
      this.#counters.set(key, counter);
    }
    return counter;
  }

  #count(counter: Counter, position: number): void {
    if (position <= counter.position) return;
    counter.count += 1;
    counter.position = position;
    this.#changed.add(counter);
  }
}

const keyOf = (tenant: string, verdict: string, code: string): string => `${verdict} ${code} ${tenant}`;

/** Checks what a store of ours returned; anything else there is a bug. */
export function storedVerdict(verdict: string, code: string): Pick<Counter, 'verdict' | 'code'> {
  const known = VERDICTS.find((one) => one === verdict);
  if (known === undefined || (code !== '' && !(code in REJECTIONS)))
    throw new Error(`stored verdict ${JSON.stringify([verdict, code])}`);
  return { verdict: known, code: code as RejectionCode | '' };
}
