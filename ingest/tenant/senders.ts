/**
 * Who sends, by the Authorization header as it came: a sender says the same line with every request, so the line
 * is read and its key proved once. What is remembered is bounded, holds only those who may send, and is asked of
 * the key ring again with every request: a key that was revoked or has ended is refused from then on.
 */
import type { Account, Accounts } from './account.ts';
import { bearerOf, type KeyRing } from './keys.ts';
import type { EdgeProblemCode } from '../problems.ts';

interface Sender {
  readonly account: Account;
  readonly keyId: string;
}

export class Senders {
  readonly #keys: KeyRing;
  readonly #accounts: Accounts;
  readonly #max: number;
  readonly #known = new Map<string, Sender>();

  /** @param max headers that are remembered. */
  constructor(keys: KeyRing, accounts: Accounts, max: number) {
    this.#keys = keys;
    this.#accounts = accounts;
    this.#max = max;
    keys.onGone((id) => {
      for (const [header, sender] of this.#known) if (sender.keyId === id) this.#known.delete(header);
    });
  }

  /** The account to send for, or why there is none. */
  of(header: string, nowMs: number): Account | EdgeProblemCode {
    const known = this.#known.get(header);
    if (known !== undefined && this.#keys.isValid(known.keyId, nowMs)) return known.account;
    const key = bearerOf(header);
    if (key === null) return 'key_missing';
    const record = this.#keys.verify(key, nowMs);
    if (record === null) return 'key_invalid';
    if (!record.scopes.includes('ingest')) return 'scope_missing';
    if (this.#known.size >= this.#max) this.#known.delete(this.#known.keys().next().value!);
    const account = this.#accounts.of(record.tenant);
    this.#known.set(header, { account, keyId: record.id });
    return account;
  }
}
