/**
 * The cold tier: of every identity that memory does not hold exactly, whether it may have been counted. "No" is
 * certain; "yes" is asked of ClickHouse. Where an identity stands in the log and what its event's own timestamp says
 * play no part, so nothing is forgotten as long as its raw row exists.
 *
 * Few filters, each twice as large as all before it, and not one a day: a look touches a cache line of every filter,
 * and the false answers of all add up. At 100 million keys one filter costs 0.5 µs a look and answers 0.4 % falsely
 * (12 bits a key), forty filters of a day 5.2 µs and 15 %. A filter is sealed when it has as many keys as it was made
 * for, and is never changed again; a start makes one for all that the tables hold.
 *
 * Bounded in bytes. When the bound is reached, the newest filter takes more keys than it was made for: false answers,
 * and with them questions to ClickHouse, rise until in the end every unknown identity is asked for. Dropping the
 * oldest filter instead would come to that at once, since the others prove nothing without it. Verdicts are the same
 * at any size. `falseShare` says where this stands.
 */
import { BLOCK_BYTES, BlockedBloom } from './blocked-bloom.ts';

/** 0.1 % false answers of a full filter; measured 0.52 % of six together, at 1, 10 and 100 million keys. */
export const COLD_BYTES_PER_KEY = 2;
/** 1 GiB, so that places in it stay small integers. */
const FILTER_KEYS_MAX = 2 ** 29;
/** What is left of the bound below this is not worth a filter of its own: 64 KiB. */
const ROOM_BLOCKS_LEAST = 1_024;

export class ColdKeys {
  readonly #bytesMax: number;
  readonly #keysLeast: number;
  /** Oldest first; the last one takes what is added. */
  readonly #filters: BlockedBloom[] = [];
  #open: BlockedBloom | undefined;
  #openKeysMax = 0;

  /** @param keysLeast what the smallest filter is made for. */
  constructor(bytesMax: number, keysLeast: number) {
    this.#bytesMax = bytesMax;
    this.#keysLeast = keysLeast;
  }

  get size(): number {
    return this.#filters.reduce((sum, { size }) => sum + size, 0);
  }

  get bytes(): number {
    return this.#filters.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get filters(): number {
    return this.#filters.length;
  }

  /** False only for what was never added. */
  has(words: Uint32Array, at: number): boolean {
    for (let filter = this.#filters.length - 1; filter >= 0; filter--) {
      if (this.#filters[filter]!.has(words, at)) return true;
    }
    return false;
  }

  add(words: Uint32Array, at: number): void {
    if (this.#open === undefined || this.#open.size >= this.#openKeysMax) this.reserve(0);
    this.#open!.add(words, at);
  }

  /** Opens a filter for so many keys that are about to be added. */
  reserve(keys: number): void {
    const size = this.#open === undefined ? 0 : this.size;
    const wanted = Math.min(FILTER_KEYS_MAX, Math.max(keys, this.#keysLeast, size));
    const blocks = Math.ceil((wanted * COLD_BYTES_PER_KEY) / BLOCK_BYTES);
    const room = Math.floor((this.#bytesMax - this.bytes) / BLOCK_BYTES);
    if (this.#open !== undefined && room < Math.min(blocks, ROOM_BLOCKS_LEAST)) {
      this.#openKeysMax = Infinity;
      return;
    }
    this.#open = new BlockedBloom(Math.max(1, Math.min(blocks, room)));
    this.#openKeysMax = Math.floor(this.#open.bytes / COLD_BYTES_PER_KEY);
    this.#filters.push(this.#open);
  }

  /** How probable it is that a new identity is asked for. */
  falseShare(): number {
    return 1 - this.#filters.reduce((sound, filter) => sound * (1 - filter.falseShare()), 1);
  }
}
