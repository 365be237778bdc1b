/**
 * Bearer keys against Postgres, through a cache of all active keys that is read again when it is a few
 * seconds old. A key that the cache does not know (it may be new) makes it read again sooner, but no more
 * often than a few times a second, so that guessing keys costs the database nothing.
 *
 * The id finds the record and is no secret; the secret is compared as SHA-256 in constant time, and against
 * a hash that nothing has when the id is unknown.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { splitKey, type KeyRecord, type Scope } from '../../contract/key.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Db } from '../../runtime/postgres.ts';
import { activeKeys } from '../tenants.ts';
import type { Caller } from './context.ts';
import { problem, type ProblemAnswer } from './problems.ts';

const UNKNOWN_REREAD_MS = 250;
const NO_HASH = Buffer.alloc(32);

export class KeyCache {
  readonly #db: Db;
  readonly #clock: Clock;
  readonly #maxAgeMs: number;
  #keys = new Map<string, KeyRecord>();
  #readAtMs = -Infinity;
  #reading: Promise<void> | null = null;

  constructor(o: { db: Db; clock: Clock; maxAgeMs: number }) {
    this.#db = o.db;
    this.#clock = o.clock;
    this.#maxAgeMs = o.maxAgeMs;
  }

  /** The caller of an Authorization header, or the problem with it. */
  async authenticate(header: string | undefined): Promise<Caller | ProblemAnswer> {
    const key = /^Bearer ([^ ]+)$/i.exec(header ?? '')?.[1];
    if (key === undefined) return problem('key_missing');
    const parts = splitKey(key);
    if (parts === null) return problem('key_invalid');
    if (this.#ageMs() >= this.#maxAgeMs) await this.refresh();
    let record = this.#keys.get(parts.id);
    if (record === undefined && this.#ageMs() >= UNKNOWN_REREAD_MS) {
      await this.refresh();
      record = this.#keys.get(parts.id);
    }
    const given = createHash('sha256').update(parts.secret).digest();
    const known = record === undefined ? NO_HASH : Buffer.from(record.secretHash, 'hex');
    if (!timingSafeEqual(given, known) || record === undefined) return problem('key_invalid');
    // The cache may have been read before the key's end.
    if (record.expiresAtMs !== null && this.#clock.now() >= record.expiresAtMs) return problem('key_invalid');
    return { tenant: record.tenant, keyId: record.id, scopes: record.scopes };
  }

  /** Reads the keys anew; those who come meanwhile wait for the same reading. */
  refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => (this.#reading = null));
    return this.#reading;
  }

  /** Makes the next request read anew: after a key was made, rotated or revoked here. */
  forget(): void {
    this.#readAtMs = -Infinity;
  }

  async #read(): Promise<void> {
    const startedAtMs = this.#clock.now();
    const keys = await activeKeys(this.#db, startedAtMs);
    this.#keys = new Map(keys.map((record) => [record.id, record]));
    this.#readAtMs = startedAtMs;
  }

  #ageMs(): number {
    return this.#clock.now() - this.#readAtMs;
  }
}

/** `admin` may do everything that `read` may. */
export function lacksScope(caller: Caller, scope: Scope): ProblemAnswer | null {
  const { scopes } = caller;
  if (scopes.includes(scope) || (scope === 'read' && scopes.includes('admin'))) return null;
  return problem('scope_missing', `This request needs a key with the scope ${scope}.`, {
    requiredScope: scope,
  });
}
