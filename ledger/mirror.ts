/**
 * A bucket of NATS that says what a table of Postgres says, for those who watch it.
 *
 * Postgres is the master: an entry is never written from what somebody remembers, but from what is read anew,
 * and afterwards it is read once more. Of two processes that change the same entry, whichever wrote to the bucket
 * last therefore saw the other's commit, or sees it now and writes again: a key that one process revokes while
 * another one brings the bucket in line is not put back. Within a process changes take turns.
 *
 * A crash after the commit and before the bucket was told leaves the bucket behind until the next `sync`.
 */
import type { KeyValue } from '../runtime/nats.ts';

/** How often an entry that changes all the while is looked at; what comes later is for the next sync. */
const ROUNDS_MAX = 5;

/** NATS could not be told, or did not say that it was. Telling it again is safe. */
export class PublishFailed extends Error {
  override readonly name = 'PublishFailed';
}

export class Mirror {
  readonly #bucket: KeyValue;
  readonly #what: string;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param what the entries in a word, for errors: "the keys" */
  constructor(bucket: KeyValue, what: string) {
    this.#bucket = bucket;
    this.#what = what;
  }

  /** Writes one entry as `read` says it is, null for none. Throws {@link PublishFailed}. */
  tell(key: string, read: () => Promise<string | null>): Promise<void> {
    return this.#inTurn(async () => {
      let text = await read();
      for (let round = 0; round < ROUNDS_MAX; round++) {
        if (text === null) await this.#bucket.delete(key);
        else await this.#bucket.put(key, text);
        const written = text;
        text = await read();
        if (text === written) return;
      }
    });
  }

  /**
   * Makes the bucket hold exactly what `read` says; returns how many entries that changed. `read` is called after
   * the bucket was read, so that an entry made meanwhile is not taken for a removed one. Throws
   * {@link PublishFailed}.
   */
  sync(read: () => Promise<ReadonlyMap<string, string>>): Promise<number> {
    return this.#inTurn(async () => {
      let changed = 0;
      for (let round = 0; round < ROUNDS_MAX; round++) {
        const before = changed;
        const present = await this.#entries();
        const wanted = await read();
        for (const [key, text] of wanted) {
          if (present.get(key) === text) continue;
          await this.#bucket.put(key, text);
          changed += 1;
        }
        for (const key of present.keys()) {
          if (wanted.has(key)) continue;
          await this.#bucket.delete(key);
          changed += 1;
        }
        if (changed === before) break;
      }
      return changed;
    });
  }

  /** Resolves when everything asked for so far is done. */
  async settled(): Promise<void> {
    await this.#turn;
  }

  async #entries(): Promise<Map<string, string>> {
    const present = new Map<string, string>();
    const enough = new AbortController();
    try {
      await this.#bucket.watch((key, value) => {
        if (value === null) present.delete(key);
        else present.set(key, value);
      }, enough.signal);
    } finally {
      enough.abort();
    }
    return present;
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(() => told(this.#what, change));
    this.#turn = mine.catch(() => {});
    return mine;
  }
}

export async function told<T>(what: string, tell: () => Promise<T>): Promise<T> {
  try {
    return await tell();
  } catch (error) {
    throw new PublishFailed(`could not tell ${what} to NATS`, { cause: error });
  }
}
